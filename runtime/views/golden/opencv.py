"""Makes the pictures in `opencv/`: what OpenCV's `resize` gives for pictures of this folder.

    pip install numpy opencv-python-headless
    python opencv.py

Their names say what was done: operation, source, size. Made with OpenCV 5.0.0. The tests never run Python.
"""

from pathlib import Path

import cv2

HERE = Path(__file__).parent
OUT = HERE / "opencv"
OUT.mkdir(exist_ok=True)


def keep(operation, source, size, picture):
    cv2.imwrite(str(OUT / f"{operation}-{source}-{size[0]}x{size[1]}.png"), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])


for source, sizes in [
    ("scene", [(24, 24), (64, 20), (128, 96), (77, 31), (1, 1), (65, 97)]),
    ("odd", [(32, 32), (36, 54), (74, 106), (9, 61)]),
    ("row", [(8, 8)]),
    ("column", [(8, 8)]),
    ("dot", [(3, 2)]),
]:
    picture = cv2.imread(str(HERE / f"{source}.png"))
    for size in sizes:
        keep("cubic", source, size, cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))

mask = cv2.imread(str(HERE / "mask.png"), cv2.IMREAD_UNCHANGED)
for size in [(12, 9), (74, 58), (50, 29), (1, 1), (37, 29), (111, 31), (36, 28), (49, 98)]:
    keep("nearest", "mask", size, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))

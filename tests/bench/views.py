"""Pictures a second on one core: this project's picture path beside torchvision's with Pillow.

    make bench-views        or        python tests/bench/views.py target/release/examples/throughput [pictures]

Both sides do the study's recipe from the same files: JPEG of 500 x 375, quality 90, 4:2:0, to two crops of 160 and
four of 96 pixels that overlap the key crop; of five crops one half is flipped and goes through AutoAugment, the rest
through MoCo v2's jitter, grayscale, blur and flip; then to normalised numbers, channel by channel. Rounds alternate
between the two, so that what else the machine does meets both. Times are processor time of one thread, so that waiting
for a core does not count; the scaling over cores is wall time, beside that of a computation without memory.

Needs torch, torchvision and Pillow below 13.
"""

import io
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import PIL
import torch
import torchvision
from PIL import Image, ImageEnhance, ImageFilter
from torchvision import transforms as T
from torchvision.transforms import functional as F

ROUNDS = 5
RATIO = (3 / 4, 4 / 3)
LARGE, SMALL = (0.2, 1.0), (0.05, 0.14)


def draw_box(w, h, scale):
    """One try: target area, and (top, left, height, width) if it fits."""
    area = random.uniform(*scale) * w * h
    aspect = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
    width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if not (0 < width <= w and 0 < height <= h):
        return area, None
    return area, (random.randint(0, h - height), random.randint(0, w - width), height, width)


def crop_box(w, h, scale, key=None):
    for _ in range(10):
        area, box = draw_box(w, h, scale)
        if box is not None:
            if key is None:
                return box
            down = min(box[0] + box[2], key[0] + key[2]) - max(box[0], key[0])
            across = min(box[1] + box[3], key[1] + key[3]) - max(box[1], key[1])
            if max(down, 0) * max(across, 0) >= 0.1 * area:
                return box
    return crop_box(w, h, scale) if key is not None else (0, 0, h, w)


class PillowBlur:
    def __call__(self, picture):
        return picture.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


to_numbers = T.Compose([T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
moco = T.Compose([
    T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
    T.RandomGrayscale(p=0.2),
    T.RandomApply([PillowBlur()], p=0.5),
    T.RandomHorizontalFlip(),
    to_numbers,
])
auto = T.Compose([T.RandomHorizontalFlip(), T.AutoAugment(T.AutoAugmentPolicy.IMAGENET), to_numbers])


def decode(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def crops(picture):
    w, h = picture.size
    boxes = [crop_box(w, h, LARGE), crop_box(w, h, LARGE)]
    boxes += [crop_box(w, h, SMALL, boxes[1]) for _ in range(4)]
    sides = [160, 160, 96, 96, 96, 96]
    return [F.resized_crop(picture, *box, [side, side], F.InterpolationMode.BILINEAR) for box, side in zip(boxes, sides)]


def recipe(data):
    views = crops(decode(data))
    return [moco(view) if index == 1 or random.random() < 0.5 else auto(view) for index, view in enumerate(views)]


def processor_time(work, files):
    start = time.thread_time()
    for data in files:
        work(data)
    return (time.thread_time() - start) / len(files)


def on_six(change, six):
    return lambda _: [change(view) for view in six]


def pieces(files):
    """The same pieces as the Rust side's; each on all six views, as if always chosen."""
    pictures = [decode(data) for data in files[:20]]
    six = crops(pictures[0])
    cycle = iter(pictures * (len(files) // 20 + 1))

    def enhance(view):
        view = ImageEnhance.Brightness(view).enhance(1.2)
        view = ImageEnhance.Contrast(view).enhance(0.8)
        return ImageEnhance.Color(view).enhance(1.3)

    policy = T.AutoAugment(T.AutoAugmentPolicy.IMAGENET)
    return {
        "decode": decode,
        "crop and resize": lambda _: crops(next(cycle)),
        "brightness, contrast, saturation": on_six(enhance, six),
        "hue": on_six(lambda view: F.adjust_hue(view, 0.07), six),
        "blur": on_six(lambda view: view.filter(ImageFilter.GaussianBlur(1.3)), six),
        "AutoAugment": on_six(policy, six),
        "flip": on_six(F.hflip, six),
        "numbers": on_six(to_numbers, six),
    }


def main():
    program, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    torch.set_num_threads(1)
    random.seed(1)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        def rust(*words):
            return subprocess.run([program, *map(str, words)], check=True, capture_output=True, text=True).stdout

        rust("make", folder, count)
        files = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
        print(f"{len(files)} JPEG of 500 x 375, {sum(map(len, files)) / len(files) / 1000:.0f} kB on average; "
              f"torchvision {torchvision.__version__}, Pillow {PIL.__version__}; median of {ROUNDS} alternating rounds")

        ours, theirs, decoding = [], [], []
        for _ in range(ROUNDS):
            theirs.append(processor_time(recipe, files))
            ours.append(float(rust("recipe", folder)))
            decoding.append(float(rust("decode", folder)))
        ratios = [there / here for there, here in zip(theirs, ours)]
        here, there, limit = map(statistics.median, (ours, theirs, decoding))
        print(f"recipe 2 x 160 + 4 x 96 with AutoAugment, a core: {1 / here:.0f} pictures/s, torchvision {1 / there:.0f}: "
              f"{statistics.median(ratios):.1f} times ({min(ratios):.1f} to {max(ratios):.1f}; at least 4 wanted, aim 6)")
        print(f"decoding alone {1 / limit:.0f} pictures/s: {100 * limit / here:.0f} % of the time is decoding")

        print(f"\n{'milliseconds a picture, all six views':<40}{'ours':>8}{'Pillow':>8}{'times':>8}")
        mine = {}
        for line in rust("pieces", folder).splitlines():
            name, seconds = line.rsplit(" ", 1)
            mine[name] = float(seconds)
        for name, work in pieces(files).items():
            theirs_here = processor_time(work, files)
            print(f"{name:<40}{1e3 * mine[name]:8.3f}{1e3 * theirs_here:8.3f}{theirs_here / mine[name]:8.1f}")

        print(f"\n{'threads':<10}{'views/s':>10}{'speed-up':>10}{'computation alone':>20}")
        base = None
        for threads in [1, 2, 4, 8, 16]:
            if threads > len(os.sched_getaffinity(0)):
                break
            runs = [tuple(map(float, rust("scale", folder, threads).split())) for _ in range(3)]
            views, computing = max(run[0] for run in runs), max(run[1] for run in runs)
            base = base or (views, computing)
            print(f"{threads:<10}{views:>10.0f}{views / base[0]:>10.2f}{computing / base[1]:>20.2f}")


main()

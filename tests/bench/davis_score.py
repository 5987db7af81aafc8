"""J and F of real predictions on 272 real frames: ours against the official definitions in NumPy, OpenCV and scikit-image.

    python tests/bench/davis_score.py [--rounds 3]

    python tests/bench/davis_score.py --result MASKS.tar OBJECTS.json ANNOTATIONS

The second form takes what `propagate` wrote (outputs `masks` and `objects`) as the evaluation takes a result folder, every
frame of it, and compares J and F of every object and frame; ANNOTATIONS is a folder `<sequence>/<frame>.png` of ids.

The first needs the sample data (HARNESS_SHARED_DATA, else ../shared/data beside the repository). Both read the two PNGs of every
inner frame and score one object; both run on one thread, alternately; ours also on all cores. The reference is written here
from the definitions of the DAVIS 2017 evaluation: boundaries by comparing each pixel with its right, lower and lower right
neighbours, dilation by a disk with OpenCV. CPU seconds, so that a busy machine does not count.
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[2]


def boundary(mask):
    import numpy as np

    east, south, corner = np.zeros_like(mask), np.zeros_like(mask), np.zeros_like(mask)
    east[:, :-1] = mask[:, 1:]
    south[:-1] = mask[1:]
    corner[:-1, :-1] = mask[1:, 1:]
    edges = (mask ^ east) | (mask ^ south) | (mask ^ corner)
    edges[-1] = mask[-1] ^ east[-1]
    edges[:, -1] = mask[:, -1] ^ south[:, -1]
    edges[-1, -1] = False
    return edges


def region(truth, predicted):
    union = (truth | predicted).sum()
    return 1.0 if union == 0 else float((truth & predicted).sum() / union)


def contour(truth, predicted):
    import cv2
    import numpy as np
    from skimage.morphology import disk

    radius = math.ceil(0.008 * np.linalg.norm(truth.shape))
    p, t = boundary(predicted), boundary(truth)
    near = disk(radius).astype(np.uint8)
    grown = [cv2.dilate(edges.astype(np.uint8), near).astype(bool) for edges in (p, t)]
    of_p, of_t = p.sum(), t.sum()
    if of_p == 0 or of_t == 0:
        precision, recall = (1.0, 1.0) if of_p == of_t else ((1.0, 0.0) if of_p == 0 else (0.0, 1.0))
    else:
        precision, recall = (p & grown[1]).sum() / of_p, (t & grown[0]).sum() / of_t
    return 0.0 if precision + recall == 0 else float(2 * precision * recall / (precision + recall))


def reference(annotations, predictions):
    import cv2
    import numpy as np
    from PIL import Image

    cv2.setNumThreads(1)
    read, score, scores = 0.0, 0.0, []
    contour(np.zeros((9, 9), bool), np.zeros((9, 9), bool))  # imports are not timed
    for sequence in sorted(path for path in annotations.iterdir()):
        for path in sorted(sequence.iterdir())[1:-1]:
            start = time.process_time()
            truth = np.array(Image.open(path)) > 127
            predicted = np.array(Image.open(predictions / sequence.name / path.name)) > 0
            middle = time.process_time()
            scores.append([region(truth, predicted), contour(truth, predicted)])
            read, score = read + middle - start, score + time.process_time() - middle
    print(json.dumps({"read": read, "score": score, "scores": scores}))


def official(masks, objects, annotations):
    """Reads a result as the evaluation of DAVIS 2017 does: palette PNGs of ids, one for every frame, of one size."""
    import numpy as np
    from PIL import Image

    told = {(row["sequence"], row["object"], row["frame"]): row for row in json.loads(objects.read_text())["frames"]}
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(masks) as archive:
            archive.extractall(folder, filter="data")
        off, checked = 0.0, 0
        for sequence in sorted(path for path in Path(folder).iterdir()):
            frames = sorted((annotations / sequence.name).iterdir())
            assert [path.name for path in frames] == sorted(path.name for path in sequence.iterdir()), sequence.name
            read = lambda path: np.array(Image.open(path))
            first = read(frames[0])
            ids = range(1, int(first[first < 255].max()) + 1)
            for path in frames:
                result = Image.open(sequence / path.name)
                assert result.mode == "P" and result.size == Image.open(path).size, path
                assert result.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0], "the colours of DAVIS"
                assert int(np.array(result).max()) <= ids[-1], path
            for path in frames[1:-1]:
                truth, predicted = read(path), read(sequence / path.name)
                for id in ids:
                    row = told[sequence.name, id, path.stem]
                    of = [region(truth == id, predicted == id), contour(truth == id, predicted == id)]
                    off, checked = max(off, abs(of[0] - row["j"]), abs(of[1] - row["f"])), checked + 1
    assert checked == len(told)
    print(f"accepted; J and F of {checked} objects and frames, largest difference {off:.1e}")
    sys.exit(0 if off < 1e-6 else "the results differ")


def main():
    lacking = [name for name in ("numpy", "cv2", "skimage", "PIL") if importlib.util.find_spec(name) is None]
    if lacking:
        print(f"skipped: {Path(__file__).name} needs the Python packages {', '.join(lacking)}")
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--binary", default=str(ROOT / "target/release/examples/score_speed"))
    parser.add_argument("--reference", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--result", nargs=3, type=Path, metavar=("MASKS", "OBJECTS", "ANNOTATIONS"))
    given = parser.parse_args()
    if given.result:
        return official(*given.result)
    if given.reference:
        return reference(*map(Path, given.reference))
    data = Path(os.environ.get("HARNESS_SHARED_DATA", ROOT.parent / "shared/data")) / "davis2016"
    if not data.is_dir():
        print(f"skipped: no sample data at {data}")
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("davis-480p.tar", "osvos-predictions.tar"):
            with tarfile.open(data / name) as archive:
                archive.extractall(folder, filter="data")
        annotations, predictions = f"{folder}/DAVIS/Annotations/480p", f"{folder}/osvos"
        run = lambda command: json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ours, theirs = [], []
        for _ in range(given.rounds):
            ours.append(run([given.binary, annotations, predictions, "1", "1"]))
            theirs.append(run([sys.executable, __file__, "--reference", annotations, predictions]))
        cores = len(os.sched_getaffinity(0))
        every = run([given.binary, annotations, predictions, str(cores), "3"])
    off = max(abs(a - b) for x, y in zip(ours[0]["scores"], theirs[0]["scores"], strict=True) for a, b in zip(x, y, strict=True))
    frames = ours[0]["frames"]
    a = min(run["cpu_seconds"] for run in ours) / frames * 1e3
    read, score = min(run["read"] for run in theirs) / frames * 1e3, min(run["score"] for run in theirs) / frames * 1e3
    print(f"J and F, {frames} scored frames of 854 x 480, one object, milliseconds a frame on one thread, PNGs read")
    print(f"  ours       {a:8.2f}")
    print(f"  reference  {read + score:8.2f}  ({read:.2f} reading, {score:.2f} scoring)")
    print(f"  ratio      {(read + score) / a:8.1f} (wanted: 5)")
    print(f"  all {cores} cores: {every['seconds'] / frames * 1e3:.2f} ms a frame of wall time, {every['cpu_seconds'] / frames * 1e3:.2f} of CPU time")
    print(f"  largest difference {off:.1e}")
    sys.exit(0 if off < 1e-6 else "the results differ")


if __name__ == "__main__":
    main()

"""Label propagation: ours against the published algorithm, on the same features, alternately, one thread each.

    python tests/bench/propagate.py [--channels 256] [--frames 24] [--rounds 2]

The reference is written here from the description of videowalk (Jabri et al. 2020): keys of the whole video gathered per
frame (first frame, then the 20 before), queries in chunks of 100 positions of two frames at a time, a dense affinity with
-1e10 outside the radius, top-k, softmax. It is run on the last two frames only, which have a full context, with the soft
labels that ours gave for the frames before; its result for them must equal ours. Ours runs the whole video; the seconds of
its last frames count. Seconds are CPU seconds, so that a busy machine does not count. Memory is the peak of each process.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[2]
CONTEXT, RADIUS, TOP_K, TEMPERATURE = 20, 12.0, 10, 0.05


def make(folder, channels, frames, height, width, labels=3):
    """Features that drift as a camera does, [frames, channels, h, w], and labels of three areas."""
    import numpy as np
    import torch

    torch.manual_seed(1)
    scene = torch.nn.functional.interpolate(
        torch.randn(1, channels, height // 4 + 12, width // 4 + 12), scale_factor=4, mode="bicubic"
    )[0]
    maps = []
    for frame in range(frames):
        top, left = frame % 8, (2 * frame) % 40
        maps.append(scene[:, top : top + height, left : left + width] + 0.5 * torch.randn(channels, height, width))
    first = torch.zeros(labels, height, width)
    first[0] = 1
    for label in range(1, labels):
        rows, columns = slice(8 * label, 8 * label + 20), slice(25 * label, 25 * label + 30)
        first[:, rows, columns] = 0
        first[label, rows, columns] = 1
    np.save(folder / "features.npy", torch.stack(maps).numpy())
    np.save(folder / "labels.npy", first.numpy())


def reference(folder):
    """The last two frames by the published algorithm. Prints seconds a frame and peak memory."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    features = torch.from_numpy(np.load(folder / "features.npy"))
    soft = torch.from_numpy(np.load(folder / "soft.npy"))
    frames, channels, height, width = features.shape
    features = torch.nn.functional.normalize(features, dim=1)
    features = torch.cat([features[:1].expand(CONTEXT, -1, -1, -1), features]).transpose(0, 1)[None]
    soft = torch.cat([soft[:1].expand(CONTEXT, -1, -1, -1), soft])
    short = torch.arange(CONTEXT)[None] + torch.arange(frames)[:, None]
    indices = torch.cat([torch.zeros(frames, 1, dtype=torch.long), short], 1)
    keys, queries = features[:, :, indices].flatten(-2), features[:, :, CONTEXT:].flatten(-2)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([y.flatten(), x.flatten()], 1).float()
    square = ((place[:, None] - place[None]) ** 2).sum(-1)
    mask = torch.where(square < RADIUS**2, 0.0, -1e10)[None, None]
    two = slice(frames - 2, frames)
    start = time.process_time()
    weights, places = [], []
    k, q = keys[:, :, two], queries[:, :, two]
    for at in range(0, height * width, 100):
        affinity = torch.einsum("ijklm,ijkn->iklmn", k, q[..., at : at + 100])
        affinity[0, :, 1:] += mask[..., at : at + 100]
        affinity = affinity.view(2, (CONTEXT + 1) * height * width, -1)
        affinity /= TEMPERATURE
        best, found = torch.topk(affinity, TOP_K, dim=-2)
        weights.append(torch.softmax(best, dim=-2))
        places.append(found)
    weights, places = torch.cat(weights, -1), torch.cat(places, -1)
    maps = []
    for at, frame in enumerate(range(frames - 2, frames)):
        labels = soft[indices[frame]].transpose(0, 1).flatten(1)
        maps.append((labels[:, places[at]] * weights[at][None]).sum(1).view(-1, height, width))
    seconds = (time.process_time() - start) / 2
    np.save(folder / "reference.npy", torch.stack(maps).numpy())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


def main():
    lacking = [name for name in ("numpy", "torch") if importlib.util.find_spec(name) is None]
    if lacking:
        print(f"skipped: {Path(__file__).name} needs the Python packages {', '.join(lacking)}")
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--height", type=int, default=60)
    parser.add_argument("--width", type=int, default=107)
    parser.add_argument("--binary", default=str(ROOT / "target/release/examples/propagate_speed"))
    parser.add_argument("--reference", metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.reference:
        return reference(Path(given.reference))
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        subprocess.run(
            [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import propagate; from pathlib import Path;"
             "propagate.make(Path(sys.argv[2]), *map(int, sys.argv[3:]))", str(Path(__file__).parent), str(folder),
             str(given.channels), str(given.frames), str(given.height), str(given.width)], check=True)
        ours_command = [given.binary, *(str(folder / f"{name}.npy") for name in ("features", "labels", "soft")),
                        "videowalk", str(CONTEXT), str(RADIUS), str(TOP_K), str(TEMPERATURE), "1"]
        theirs_command = [sys.executable, __file__, "--reference", str(folder)]
        ours, theirs = [], []
        for _ in range(given.rounds):
            for command, into in ((ours_command, ours), (theirs_command, theirs)):
                into.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        off = np.abs(np.load(folder / "soft.npy")[-2:] - np.load(folder / "reference.npy"))
    mean = lambda values: sum(values) / len(values)
    a, b = mean([mean(run["seconds"][-2:]) for run in ours]), mean([run["seconds"] for run in theirs])
    m, n = max(run["peak_mib"] for run in ours), max(run["peak_mib"] for run in theirs)
    print(f"propagate, {given.height} x {given.width} positions, {given.channels} channels, {given.frames} frames, one thread")
    print(f"  ours       {1 / a:8.3f} frames/s  {m:8.0f} MiB")
    print(f"  reference  {1 / b:8.3f} frames/s  {n:8.0f} MiB")
    print(f"  ratio      {b / a:8.1f} times as fast, {n / m:.1f} times less memory (wanted: 10, 5)")
    # A tie or a near tie at the k-th place may go either way, which moves a label a little at a few positions.
    share = float((off.max(1) > 1e-5).mean())
    print(f"  largest difference of a soft label {off.max():.1e}; positions that differ by more than 1e-5: {share:.4%}")
    sys.exit(0 if share < 1e-3 else "the results differ")


if __name__ == "__main__":
    main()

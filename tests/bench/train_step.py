"""Training on the CPU beside PyTorch: one step, and the whole loop with its data. Prints ratios; it fails no build.

    make bench-train
    python tests/bench/train_step.py --rounds 5 --steps 2

Both sides do the same: MoCo v2 on torchvision's ResNet-18, 64 pictures of 96 x 96, queue of 4,096, one group of batch norm, SGD
with momentum, the same number of threads, the same libtorch. They take turns in one run, so that whatever else the machine
does falls on both. A ratio is PyTorch's time over ours: above 1, ours is faster. Seconds of the processor say more than
seconds of the clock where other programs run.
"""

import argparse
import copy
import io
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
import torchvision.transforms as T
from PIL import Image
from torch import nn

BATCH, SIDE, QUEUE, DIM, TAU, M = 64, 96, 4096, 128, 0.2, 0.999


class Moco:
    """The step as its authors wrote it, for one device and without shuffling."""

    def __init__(self, layout):
        self.layout = layout
        self.query = torchvision.models.resnet18()
        self.query.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, DIM))
        self.query.to(memory_format=layout).train()
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.queue = F.normalize(torch.randn(DIM, QUEUE), dim=0)
        self.pointer = 0
        self.sgd = torch.optim.SGD(self.query.parameters(), 0.03, momentum=0.9, weight_decay=1e-4)

    def step(self, xq, xk):
        q = F.normalize(self.query(xq), dim=1)
        with torch.no_grad():
            for a, b in zip(self.key.parameters(), self.query.parameters()):
                a.mul_(M).add_(b, alpha=1 - M)
            k = F.normalize(self.key(xk), dim=1)
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ self.queue], 1) / TAU
        loss = F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()
        self.queue[:, self.pointer : self.pointer + len(k)] = k.T
        self.pointer = (self.pointer + len(k)) % QUEUE
        return loss.item()


class Folder(torch.utils.data.Dataset):
    def __init__(self, folder):
        self.files = sorted(pathlib.Path(folder).iterdir())
        self.view = T.Compose(
            [
                T.RandomResizedCrop(SIDE, (0.2, 1.0)),
                T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
                T.RandomGrayscale(0.2),
                T.RandomApply([Blur()], 0.5),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        picture = Image.open(self.files[index]).convert("RGB")
        return self.view(picture), self.view(picture)


class Blur:
    def __call__(self, picture):
        from PIL import ImageFilter

        return picture.filter(ImageFilter.GaussianBlur(np.random.uniform(0.1, 2.0)))


def clock(work):
    def used():
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in both)

    wall, cpu = time.perf_counter(), used()
    work()
    return time.perf_counter() - wall, used() - cpu


class Ours:
    def __init__(self, program, threads):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([program, str(threads)], stdin=pipe, stdout=pipe, text=True)

    def do(self, task):
        print(task, file=self.process.stdin, flush=True)
        wall, cpu = self.process.stdout.readline().split()
        return float(wall), float(cpu)


def pictures(folder, count):
    """Noisy waves of 500 x 375 as JPEGs of quality 90: about as many bytes as photographs."""
    y, x = np.mgrid[:375, :500]
    for index in range(count):
        rng = np.random.default_rng(index)
        a, b = rng.uniform(9, 40, 2)
        waves = np.stack([128 + 90 * np.sin(x / a + y / b + c) for c in range(3)], 2)
        data = np.clip(waves + rng.integers(-16, 16, waves.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(data).save(buffer, "JPEG", quality=90)
        (folder / f"{index:05}.jpg").write_bytes(buffer.getvalue())


def report(name, per, times):
    """`times`: for each contestant, (wall, cpu) of each round."""
    ours = times["ours"]
    for other in (key for key in times if key != "ours"):
        ratios = [[theirs[i] / mine[i] for theirs, mine in zip(times[other], ours)] for i in (0, 1)]
        spread = [f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})" for r in ratios]
        seconds = [statistics.median(t[1] for t in times[key]) / per for key in (other, "ours")]
        print(
            f"{name}, {other} / ours: clock {spread[0]}, processor {spread[1]}; "
            f"processor seconds a step {seconds[0]:.3f} / {seconds[1]:.3f}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", default="target/release/examples/train_step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of a round")
    parser.add_argument("--pictures", type=int, default=128, help="of the loop; 0 leaves it out")
    parser.add_argument("--epochs", type=int, default=2, help="of the loop")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {args.threads} thread(s), load {' '.join(open('/proc/loadavg').read().split()[:3])}")

    ours = Ours(args.ours, args.threads)
    plain, last = Moco(torch.contiguous_format), Moco(torch.channels_last)
    views = [torch.randn(BATCH, 3, SIDE, SIDE) for _ in range(2)]

    def steps(moco):
        inputs = [view.to(memory_format=moco.layout) for view in views]
        return clock(lambda: [moco.step(*inputs) for _ in range(args.steps)])

    contestants = {
        "ours": lambda: ours.do(f"step {args.steps}"),
        "eager": lambda: steps(plain),
        "eager, channels last": lambda: steps(last),
    }
    for warm in contestants.values():
        warm()
    times = {name: [] for name in contestants}
    for _ in range(args.rounds):
        for name, contestant in contestants.items():
            times[name].append(contestant())
    report("step", args.steps, times)

    if args.pictures:
        with tempfile.TemporaryDirectory() as folder:
            pictures(pathlib.Path(folder), args.pictures)

            def loop(layout):
                moco = Moco(layout)
                loader = torch.utils.data.DataLoader(
                    Folder(folder), BATCH, shuffle=True, drop_last=True, num_workers=args.threads
                )
                for _ in range(args.epochs):
                    for xq, xk in loader:
                        moco.step(xq.to(memory_format=layout), xk.to(memory_format=layout))

            contestants = {
                "ours": lambda: ours.do(f"loop {folder} {args.epochs}"),
                "DataLoader": lambda: clock(lambda: loop(torch.contiguous_format)),
                "DataLoader, channels last": lambda: clock(lambda: loop(torch.channels_last)),
            }
            times = {name: [] for name in contestants}
            for _ in range(max(1, args.rounds // 2)):
                for name, contestant in contestants.items():
                    times[name].append(contestant())
            report("whole loop", args.epochs * (args.pictures // BATCH), times)

            # What c10d costs: two processes with one thread each, through Gloo, against one process with two threads.
            two = Ours(args.ours, 2)
            walls = {1: [], 2: []}
            for _ in range(max(1, args.rounds // 2) + 1):
                for ranks in walls:
                    walls[ranks].append(two.do(f"ranks {ranks} {folder} {args.epochs}")[0])
            # The first round of each warms up.
            ratios = [many / one for one, many in zip(walls[1][1:], walls[2][1:])]
            print(
                f"2 ranks (Gloo) / 1 process of 2 threads: clock {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f}); seconds {statistics.median(walls[2][1:]):.2f} / "
                f"{statistics.median(walls[1][1:]):.2f}",
                flush=True,
            )


main()

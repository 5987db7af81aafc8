"""The quickstart's pretraining again, in PyTorch with torchvision's own views and blocks: a control, not a reference.

    harness run ../control-scenes.exp           # makes the pictures and our numbers
    python moco_scenes.py --cache ../.harness --seeds 1 2 3

Needs torch and torchvision. Prints loss and kNN accuracy (k = 20, temperature 0.07) on the same test pictures.
"""

import argparse
import copy
import io
import json
import math
import pathlib
import tarfile

import torch
import torch.nn.functional as F
import torchvision.transforms as T
from PIL import Image
from torch import nn
from torchvision.models.resnet import BasicBlock

EPOCHS, BATCH, LR, DIM, QUEUE, MOMENTUM, TEMPERATURE, WIDTH, GROUPS = 30, 128, 0.12, 64, 1024, 0.99, 0.1, 0.125, 2
NORMALISE = T.Compose([T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
VIEW = T.Compose(
    [
        T.RandomResizedCrop(24, (0.2, 1.0)),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
        T.RandomGrayscale(0.2),
        T.RandomHorizontalFlip(),
        NORMALISE,
    ]
)


def scenes(cache):
    """Pictures and labels of each split, from the manifests and the archive among the cache's blobs."""
    blobs = [path for path in pathlib.Path(cache, "blobs").glob("*/*")]
    manifests, archive = {}, None
    for path in blobs:
        with open(path, "rb") as file:
            start = file.read(1)
        if start == b"{" and path.stat().st_size < 4 << 20:
            content = json.loads(path.read_bytes())
            if content.get("mask_classes") and content.get("classes"):
                split = content["entries"][0]["path"].split("/")[0] if "path" in content["entries"][0] else content["entries"][0]["file"]["path"].split("/")[0]
                manifests[split] = max(manifests.get(split, content), content, key=lambda m: len(m["entries"]))
        elif tarfile.is_tarfile(path) and "train/images/000000.png" in tarfile.open(path).getnames():
            archive = tarfile.open(path)
    out = {}
    for split, manifest in manifests.items():
        files = [entry.get("path") or entry["file"]["path"] for entry in manifest["entries"]]
        pictures = [Image.open(io.BytesIO(archive.extractfile(file).read())).convert("RGB") for file in files]
        out[split] = pictures, torch.tensor([entry["label"] for entry in manifest["entries"]])
    return out


class Net(nn.Module):
    """ResNet-18 with a 3 x 3 stem and the head of MoCo v2."""

    def __init__(self):
        super().__init__()
        self.planes = base = int(64 * WIDTH)
        stem = [nn.Conv2d(3, base, 3, 1, 1, bias=False), nn.BatchNorm2d(base), nn.ReLU(True)]
        self.body = nn.Sequential(*stem, *[self.stage(base << i, 1 if i == 0 else 2) for i in range(4)])
        self.head = nn.Sequential(nn.Linear(base << 3, base << 3), nn.ReLU(), nn.Linear(base << 3, DIM))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stage(self, planes, stride):
        down = None
        if stride != 1 or self.planes != planes:
            down = nn.Sequential(nn.Conv2d(self.planes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))
        first, self.planes = BasicBlock(self.planes, planes, stride, down), planes
        return nn.Sequential(first, BasicBlock(planes, planes))

    def features(self, x):
        return self.body(x).mean((2, 3))

    def forward(self, x):
        # Statistics of their own for each group.
        return torch.cat([F.normalize(self.head(self.features(part)), dim=1) for part in x.chunk(GROUPS)])


@torch.no_grad()
def knn(net, train, test):
    net.eval()
    rows = lambda pictures: torch.cat(
        [F.normalize(net.features(torch.stack([NORMALISE(p) for p in pictures[i : i + 256]])), dim=1) for i in range(0, len(pictures), 256)]
    )
    similar, index = (rows(test[0]) @ rows(train[0]).T).topk(20, 1)
    net.train()
    votes = torch.zeros(len(test[0]), int(train[1].max()) + 1).scatter_add_(1, train[1][index], (similar / 0.07).exp())
    return 100 * (votes.argmax(1) == test[1]).float().mean().item()


def pretrain(train, test, seed):
    torch.manual_seed(seed)
    query = Net()
    key = copy.deepcopy(query).requires_grad_(False)
    queue, pointer = F.normalize(torch.randn(QUEUE, DIM), dim=1), 0
    sgd = torch.optim.SGD(query.parameters(), LR, momentum=0.9, weight_decay=1e-4)
    print(f"seed {seed}: random weights, kNN {knn(query, train, test):.1f}", flush=True)
    steps = len(train[0]) // BATCH
    for epoch in range(EPOCHS):
        for group in sgd.param_groups:
            group["lr"] = 0.5 * LR * (1 + math.cos(math.pi * epoch / EPOCHS))
        order, total = torch.randperm(len(train[0])), 0.0
        for step in range(steps):
            batch = [train[0][i] for i in order[step * BATCH : (step + 1) * BATCH]]
            q = query(torch.stack([VIEW(picture) for picture in batch]))
            with torch.no_grad():
                for ours, theirs in zip(key.parameters(), query.parameters()):
                    ours.mul_(MOMENTUM).add_(theirs, alpha=1 - MOMENTUM)
                shuffle = torch.randperm(BATCH)
                k = key(torch.stack([VIEW(picture) for picture in batch])[shuffle])[shuffle.argsort()]
            logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / TEMPERATURE
            loss = F.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.long))
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            queue[pointer : pointer + BATCH] = k
            pointer = (pointer + BATCH) % QUEUE
            total += loss.item()
        if epoch % 10 == 9:
            print(f"seed {seed}: epoch {epoch + 1}, loss {total / steps:.3f}, kNN {knn(query, train, test):.1f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", default="../.harness")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = scenes(arguments.cache)
    for seed in arguments.seeds:
        pretrain(data["train"], data["test"], seed)

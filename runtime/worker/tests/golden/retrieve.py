"""Segment retrieval computed a second time, in PyTorch and Pillow, as golden values for the tests of `steps/retrieve.rs`.

    python retrieve.py > retrieve.json        (torch 2.11, Pillow)

A narrow ResNet-18 with the small stem, its last stage dilated, in float64; weights, pictures and masks by formula, so that
both sides build the same without exchanging files.
"""

import json
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
WIDTH, HEIGHT, SIZE, CLASSES = 40, 30, 24, 3


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride, dilation):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        # The last stage keeps its size: stride 1, every 3 x 3 convolution dilated by 2.
        inputs = 4
        for stage, (channels, stride, dilation) in enumerate([(4, 1, 1), (8, 2, 1), (16, 2, 1), (32, 1, 2)], 1):
            first = Block(inputs, channels, stride, dilation)
            self.add_module(f"layer{stage}", nn.Sequential(first, Block(channels, channels, 1, dilation)))
            inputs = channels

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x


def wave(shape, phase, scale):
    n = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (scale * torch.sin(torch.fmod(0.7 * n * n, 2 * math.pi) + phase)).reshape(shape)


def network():
    net = Net().eval()
    for index, (name, p) in enumerate(sorted(net.named_parameters())):
        with torch.no_grad():
            if p.dim() == 4:
                p.copy_(wave(p.shape, index, 2 / math.sqrt(p[0].numel())).float().double())
            else:
                p.copy_((wave(p.shape, index, 0.1) + (1 if name.endswith("weight") else 0)).float().double())
    return net


def scene(item):
    """Picture, classes (255 void), salient pixels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    kind = ((x + 5 * item) // 17 + item * item) % 4
    classes = np.where(kind == 3, 255, kind).astype("uint8")
    planes = [(90 * (kind == c) + 2 * x + y + 3 * item + x * y % 17) % 256 for c in range(3)]
    salient = (x - 6 - 13 * item % 30) ** 2 + (y - 8 - 7 * item % 16) ** 2 < 60 + 9 * item
    return np.stack(planes, -1).astype("uint8"), classes, salient


def square(mask):
    return np.array(Image.fromarray(mask).resize((SIZE, SIZE), Image.NEAREST))


def rows(net, picture):
    small = np.array(Image.fromarray(picture).resize((SIZE, SIZE), Image.BICUBIC))
    x = (torch.tensor(small).double() / 255 - 0.5) / 0.25
    with torch.no_grad():
        return F.normalize(net(x.permute(2, 0, 1)[None]), dim=1)[0]


def majority(classes, first):
    counts = [(classes == k).sum() for k in range(CLASSES)]
    best = max(range(first, CLASSES), key=lambda k: (counts[k], -k))
    return best if counts[best] else None


def confusion(pairs):
    table = np.zeros((CLASSES, CLASSES), int)
    for truth, predicted in pairs:
        known = truth != 255
        np.add.at(table, (truth[known], predicted[known]), 1)
    return table


def iou(table, classes):
    union = table.sum(0) + table.sum(1) - np.diag(table)
    present = [k for k in classes if table[k].sum()]
    return float(np.mean([table[k, k] / union[k] for k in present])) if present else 0.0


def retrieve(net, saliency, only=None):
    def split(items):
        found = []
        for item in items:
            picture, classes, salient = scene(item)
            if only is not None:
                classes = np.where(np.isin(classes, [0, only]), classes, 255).astype("uint8")
            map = rows(net, picture)
            inside = square(salient.astype("uint8")) > 0 if saliency else np.ones((SIZE, SIZE), bool)
            if saliency:
                whole = F.interpolate(map[None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)[0]
                feature = (whole * torch.tensor(inside)).sum((1, 2))
            else:
                feature = map.sum((1, 2))
            found.append((F.normalize(feature, dim=0), inside, salient, classes))
        return found

    bank = []
    for feature, inside, _, classes in split(range(12)):
        name = majority(square(classes)[inside], 1 if saliency else 0)
        if name is not None:
            bank.append((feature, name))
    at_size, at_full, names = [], [], []
    for feature, inside, salient, classes in split(range(12, 20)):
        cosines = torch.stack([known @ feature for known, _ in bank])
        best = cosines.topk(2)
        a, b = (bank[at][1] for at in best.indices)
        assert a == b or best.values[0] - best.values[1] > 1e-5, "too near to call in single precision"
        names.append(a)
        predicted = np.where(inside, a, 0).astype("uint8")
        at_size.append((square(classes), predicted))
        # Back to the masks' own size by the nearest pixel.
        at_full.append((classes, np.array(Image.fromarray(predicted).resize((WIDTH, HEIGHT), Image.NEAREST))))
    table, full = confusion(at_size), confusion(at_full)
    scored = range(CLASSES) if only is None else [only]
    return {
        "bank": len(bank),
        "names": names,
        "confusion": table.tolist(),
        "miou": iou(table, scored),
        "full_miou": iou(full, scored),
    }


net = network()
print(
    json.dumps(
        {
            "saliency": retrieve(net, True),
            "whole": retrieve(net, False),
            "saliency_subset": retrieve(net, True, only=2),
            "whole_subset": retrieve(net, False, only=2),
        },
        indent=1,
    )
)

"""Class scores of the study's segmentation network in torchvision, in float64, as golden values for `segmentation.rs`.

    python segmentation.py > segmentation.json        (torch 2.11, torchvision 0.26)

torchvision's resnet50, its layer4 edited as the study does (or built with `replace_stride_with_dilation`), under the FCN
head or torchvision's own DeepLabHead. Weights and pictures are sines of squares, so that both sides build the same without
exchanging files.
"""

import json
import math
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet50
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
CLASSES = 21


def wave(shape, step, phase, scale):
    n = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    # Squares: neighbours do not correlate, so that batch norm divides by no tiny deviation.
    return (scale * torch.sin(torch.fmod(step * n * n, 2 * math.pi) + phase)).reshape(shape)


class Net(nn.Module):
    def __init__(self, head):
        super().__init__()
        if head == "deeplab":
            self.body = resnet50(replace_stride_with_dilation=[False, True, True])
            self.head = DeepLabHead(2048, CLASSES)
            self.head[0].project[3].p = 0.0
        else:
            self.body = resnet50()
            for block in self.body.layer4:
                block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (2, 2), (2, 2)
            self.body.layer4[0].downsample[0].stride = (1, 1)
            d = 6
            self.head = nn.Sequential(
                nn.Conv2d(2048, 256, 3, padding=d, dilation=d, bias=False), nn.BatchNorm2d(256), nn.ReLU(),
                nn.Conv2d(256, 256, 3, padding=d, dilation=d, bias=False), nn.BatchNorm2d(256), nn.ReLU(),
                nn.Conv2d(256, CLASSES, 1, bias=False),
            )
        self.body.fc = nn.Identity()

    def forward(self, x):
        b = self.body
        y = b.maxpool(b.relu(b.bn1(b.conv1(x))))
        y = self.head(b.layer4(b.layer3(b.layer2(b.layer1(y)))))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)


def fill(net):
    names = {}
    for name, p in net.named_parameters():
        names[name.removeprefix("body.")] = p
    for i, name in enumerate(sorted(names)):
        p = names[name]
        with torch.no_grad():
            if p.dim() == 4:
                p.copy_(wave(p.shape, 0.7, i, 2 / math.sqrt(p.shape[1] * p.shape[2] * p.shape[3])))
            else:
                # Scales around 1, shifts around 0; the classifier's bias counts as a shift.
                p.copy_(wave(p.shape, 0.7, i, 0.1) + (1 if name.endswith("weight") else 0))


def marks(t):
    flat = t.detach().flatten()
    n = torch.arange(1, flat.numel() + 1, dtype=torch.float64)
    step = flat.numel() // 40
    return {"sum": flat.sum().item(), "cosine": (flat * torch.cos(n)).sum().item(), "largest": flat.abs().max().item(),
            "every": flat[::step].tolist()}


golden = {}
for head in ["fcn", "deeplab"]:
    net = Net(head)
    fill(net)
    x = wave((2, 3, 65, 80), 0.9, 0.3, 1.5)
    y = torch.arange(2 * 65 * 80).reshape(2, 65, 80) % 23
    y[y == 22] = 255
    y[y == 21] = 255
    net.eval()
    with torch.no_grad():
        evaluated = marks(net(x))
    net.train()
    scores = net(x)
    loss = F.cross_entropy(scores, y, ignore_index=255)
    loss.backward()
    names = {n.removeprefix("body."): p for n, p in net.named_parameters()}
    gradients = {n: [names[n].grad.sum().item(), names[n].grad.norm().item()]
                 for n in ["conv1.weight", "layer4.0.conv2.weight", "layer4.2.bn3.bias", sorted(k for k in names if k.startswith("head"))[-1]]}
    train = marks(scores)
    golden[head] = {"train": train, "loss": loss.item(), "gradients": gradients, "eval": evaluated}
json.dump(golden, sys.stdout, indent=1)
print()

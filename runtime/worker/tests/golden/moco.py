"""Three optimiser steps of MoCo in PyTorch, in float64, as golden values for `moco.rs`.

    python moco.py > moco.json        (torch 2.11, torchvision 0.26)

Weights, queues and views are sines, so that both sides build the same without exchanging files. Everything else is
PyTorch's: torchvision's blocks, autograd, torch.optim.SGD. Split batch norm folds the groups into channels.
"""

import copy
import json
import math
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def wave(shape, step, phase, scale):
    n = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (scale * torch.sin(step * n + phase)).reshape(shape)


class SplitBatchNorm(nn.BatchNorm2d):
    groups = 1

    def forward(self, x):
        n, c, h, w = x.shape
        g = self.groups
        mean, var = self.running_mean.repeat(g), self.running_var.repeat(g)
        # [n, c] to [n / g, g · c]: row i of every part becomes one row.
        folded = x.view(g, n // g, c, h, w).transpose(0, 1).reshape(n // g, g * c, h, w)
        y = F.batch_norm(folded, mean, var, self.weight.repeat(g), self.bias.repeat(g), True, 0.1, self.eps)
        with torch.no_grad():
            self.running_mean.copy_(mean.view(g, c).mean(0))
            self.running_var.copy_(var.view(g, c).mean(0))
        return y.view(n // g, g, c, h, w).transpose(0, 1).reshape(n, c, h, w)


class Net(nn.Module):
    def __init__(self, block, depths, base, small_stem, dim, mlp):
        super().__init__()
        norm = SplitBatchNorm
        self.inplanes, self.norm = base, norm
        self.conv1 = nn.Conv2d(3, base, 3 if small_stem else 7, 1 if small_stem else 2, 1 if small_stem else 3, bias=False)
        self.bn1 = norm(base)
        self.pool = None if small_stem else nn.MaxPool2d(3, 2, 1)
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                planes, stride = base << i, 2 if i > 0 and j == 0 else 1
                down = None
                if stride != 1 or self.inplanes != planes * block.expansion:
                    out = planes * block.expansion
                    down = nn.Sequential(nn.Conv2d(self.inplanes, out, 1, stride, bias=False), norm(out))
                blocks.append(block(self.inplanes, planes, stride, down, norm_layer=norm))
                self.inplanes = planes * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        f = self.inplanes
        self.fc = nn.Sequential(nn.Linear(f, f), nn.ReLU(), nn.Linear(f, dim)) if mlp else nn.Linear(f, dim)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.pool(x) if self.pool else x
        x = self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))
        return F.normalize(x, dim=1), F.normalize(self.fc(x), dim=1)


def fill(net):
    for i, (name, p) in enumerate(sorted(net.named_parameters())):
        with torch.no_grad():
            if p.dim() == 4:
                p.copy_(wave(p.shape, 0.7, i, 2 / math.sqrt(p.shape[0] * p.shape[2] * p.shape[3])))
            elif p.dim() == 2:
                p.copy_(wave(p.shape, 0.7, i, 1 / math.sqrt(p.shape[1])))
            else:
                p.copy_(wave(p.shape, 0.7, i, 0.1) + (1.0 if "bn" in name or "downsample" in name else 0.0) * ("weight" in name))


def marks(tensors):
    out = {}
    for name, t in tensors:
        flat = t.detach().reshape(-1)
        weights = torch.cos(0.11 * torch.arange(1, flat.numel() + 1, dtype=torch.float64))
        out[name] = [flat.sum().item(), (flat * weights).sum().item(), flat[0].item()]
    return out


def case(block, depths, small_stem, mlp, symmetric, small_crops, neighbours, groups, side=16):
    base, dim, batch, keys, tau, m = 8, 6, 8, 32, 0.2, 0.9
    query = Net(block, depths, base, small_stem, dim, mlp)
    fill(query)
    key = copy.deepcopy(query).requires_grad_(False)
    for module in [*query.modules(), *key.modules()]:
        if isinstance(module, SplitBatchNorm):
            module.groups = groups
    queue = F.normalize(wave((keys, dim), 0.9, 0.5, 1.0), dim=1)
    features = F.normalize(wave((keys, query.inplanes), 0.37, 0.25, 1.0), dim=1)
    pointer, losses = 0, []
    sgd = torch.optim.SGD(query.parameters(), 0.1, momentum=0.9, weight_decay=1e-2)
    shuffles = [torch.tensor([(3 * i + 1) % batch for i in range(batch)]), torch.tensor([(5 * i + 2) % batch for i in range(batch)])]

    def encode_keys(x, order):
        with torch.no_grad():
            g, h = key(x[order])
            back = torch.argsort(order)
            return g[back], h[back]

    def info_nce(q, k):
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / tau
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))

    for step, lr in enumerate([0.1, 0.08, 0.05]):
        xq = wave((batch, 3, side, side), 0.13, step, 1.5) + wave((batch, 1, 1, 1), 2.0, step, 0.5)
        xk = wave((batch, 3, side, side), 0.13, step + 0.3, 1.5) + wave((batch, 1, 1, 1), 2.0, step, 0.5)
        g, h = query(xq)
        if small_crops:
            xs = wave((batch * small_crops, 3, 8, 8), 0.29, step, 1.5)
            gs, hs = query(xs)
        back = query(xk)[1] if symmetric else None
        with torch.no_grad():
            for a, b in zip(key.parameters(), query.parameters()):
                a.mul_(m).add_(b, alpha=1 - m)
        kg, kh = encode_keys(xk, shuffles[0])
        if symmetric:
            bg, bh = encode_keys(xq, shuffles[1])
        if small_crops:
            g, h, positive = torch.cat([g, gs]), torch.cat([h, hs]), torch.cat([kh, kh.repeat_interleave(small_crops, 0)])
        else:
            positive = kh
        loss = info_nce(h, positive)
        if symmetric:
            loss = loss + info_nce(back, bh)
            kg, kh = torch.cat([bg, kg]), torch.cat([bh, kh])
        if neighbours and step >= 1:
            pool = features.clone()
            if neighbours["enqueue"] == "first":
                pool[pointer : pointer + len(kg)] = kg
            found = (g.detach() @ pool.T).topk(neighbours["k"], 1).indices
            logp = F.log_softmax(h @ queue.T / tau, 1)
            loss = loss + neighbours["weight"] * -logp.gather(1, found).mean()
        for group in sgd.param_groups:
            group["lr"] = lr
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        queue, features = queue.clone(), features.clone()
        queue[pointer : pointer + len(kh)] = kh
        features[pointer : pointer + len(kg)] = kg
        pointer = (pointer + len(kh)) % keys
        losses.append(loss.item())

    def tensors(net):
        state = [*net.named_parameters(), *net.named_buffers()]
        return marks((n, t) for n, t in state if not n.endswith("num_batches_tracked"))

    return {
        "losses": losses,
        "query": tensors(query),
        "key": tensors(key),
        "momentum": marks((n, sgd.state[p]["momentum_buffer"]) for n, p in query.named_parameters()),
        "queues": marks([("queue", queue), ("features", features)]),
    }


if __name__ == "__main__":
    near = {"k": 3, "weight": 0.4, "enqueue": "last"}
    json.dump(
        {
            "two crops": case(BasicBlock, [2, 2, 2, 2], True, True, False, 0, None, 2),
            "symmetric, linear head": case(BasicBlock, [2, 2, 2, 2], True, False, True, 0, None, 4),
            "small crops and neighbours": case(BasicBlock, [2, 2, 2, 2], True, True, False, 2, near, 2),
            "neighbours, published order": case(BasicBlock, [2, 2, 2, 2], True, True, False, 0, {**near, "enqueue": "first"}, 1),
            "ImageNet stem": case(BasicBlock, [2, 2, 2, 2], False, True, False, 0, None, 2, 64),
        },
        sys.stdout,
        indent=0,
    )

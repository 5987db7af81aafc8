"""The first 100 steps of the recipe of MoCo's notebook for CIFAR in PyTorch, as golden values for `moco.rs`.

    python cifar.py > cifar.json        (torch 2.11, torchvision 0.26; half a minute)

The recipe's numbers (linear head, eight groups of batch norm, temperature 0.1, momentum 0.99, SGD of rate 0.06 with decay
5e-4, cosine counted from 1 of 200 epochs), made small for a CPU: a ResNet-18 of 4 channels, 32 pictures of 16 x 16 a step, 10
steps an epoch, a queue of 256. Views are sines, so that nothing has to be stored: ten batches that come again in every epoch,
query and key the same pictures under different ripples. In float64, since 100 steps multiply the last digits' differences.
"""

import copy
import json
import math
import sys

import torch
import torch.nn.functional as F
from moco import BasicBlock, Net, SplitBatchNorm, fill, wave

BATCH, SIDE, KEYS, DIM, EPOCHS, STEPS = 32, 16, 256, 16, 200, 10


def view(step, frequency, phase):
    shape = (BATCH, 3, SIDE, SIDE)
    turn = step % STEPS
    picture = wave(shape, 0.13 + 0.001 * turn, turn, 1.0) + wave((BATCH, 3, 1, 1), 2.0, turn, 1.5)
    return picture + wave(shape, frequency, step + phase, 0.1)


query = Net(BasicBlock, [2, 2, 2, 2], 4, True, DIM, False)
fill(query)
key = copy.deepcopy(query).requires_grad_(False)
for module in [*query.modules(), *key.modules()]:
    if isinstance(module, SplitBatchNorm):
        module.groups = 8
queue = F.normalize(wave((KEYS, DIM), 0.9, 0.5, 1.0), dim=1)
sgd = torch.optim.SGD(query.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)
shuffle = torch.tensor([(5 * i + 1) % BATCH for i in range(BATCH)])
losses, pointer = [], 0
for step in range(100):
    for group in sgd.param_groups:
        group["lr"] = 0.5 * 0.06 * (1 + math.cos(math.pi * (step // STEPS + 1) / EPOCHS))
    with torch.no_grad():
        for a, b in zip(key.parameters(), query.parameters()):
            a.mul_(0.99).add_(b, alpha=0.01)
        k = key(view(step, 3.3, 0.5)[shuffle])[1][torch.argsort(shuffle)]
    q = query(view(step, 2.1, 0.0))[1]
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.1
    loss = F.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.long))
    sgd.zero_grad()
    loss.backward()
    sgd.step()
    queue[pointer : pointer + BATCH] = k
    pointer = (pointer + BATCH) % KEYS
    losses.append(loss.item())
json.dump(losses, sys.stdout, indent=0)

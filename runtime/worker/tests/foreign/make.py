"""Makes the checkpoints beside this script and what PyTorch says of them (golden.json).

    python make.py        (torch 2.11, safetensors)

The network is torchvision's ResNet-18 with one channel where that has 64, so that files stay small.
"""

import json
import math
import os
from collections import OrderedDict

import torch
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or inputs != width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Net(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 1, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(1)
        inputs = 1
        for stage in range(4):
            width, blocks = 1 << stage, []
            for block in range(2):
                blocks.append(Block(inputs, width, 2 if stage and not block else 1))
                inputs = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = head

    def features(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.mean((2, 3))


def shaken(head):
    """A network whose batch norms are not at their initial values."""
    net = Net(head)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.2, 0.5)
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.num_batches_tracked.fill_(7)
    return net.eval()


def picture(count=2, side=32):
    """[count, 3, side, side], the same numbers in any language."""
    values = [math.sin(0.37 * i) for i in range(count * 3 * side * side)]
    return torch.tensor(values, dtype=torch.float64).float().view(count, 3, side, side)


class Small(nn.Module):
    """Something that is no ResNet: patches, a batch norm and a dropout, which only eval mode leaves alone."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 8, 8)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.norm(self.patch(x).mean((2, 3))))


class Counting(nn.Module):
    """Changes a buffer also in eval mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen.add_(1.0)
        return x.mean((2, 3)) + self.seen


def main():
    golden = {}
    with torch.no_grad():
        # As MoCo's code saves it: query and key encoder, queue, optimiser; its argparse namespace beside.
        net = shaken(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))
        state = OrderedDict((f"module.encoder_q.{name}", value) for name, value in net.state_dict().items())
        counter = torch.tensor(7)
        state.update((name, counter) for name in state if "num_batches" in name)  # one storage: the file stays small
        for name in ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight"):
            state[f"module.encoder_k.{name}"] = net.state_dict()[name] + 1
        state["module.queue"] = torch.randn(4, 16)
        state["module.queue_ptr"] = torch.zeros(1, dtype=torch.long)
        momentum = {"state": {0: {"momentum_buffer": torch.zeros(1, 3, 7, 7)}}, "param_groups": [{"lr": 0.3}]}
        moco = {"epoch": 200, "arch": "resnet18", "state_dict": state, "optimizer": momentum}
        torch.save(moco, f"{HERE}/moco.pth.tar")
        golden["moco.pth.tar"] = net.features(picture()).flatten().tolist()

        # As torchvision's are published: a plain state dict in the older format, some tensors sharing a storage,
        # without the counters that PyTorch 0.4 lacked.
        net = shaken(nn.Linear(8, 5))
        state = OrderedDict((n, v) for n, v in net.state_dict().items() if "num_batches" not in n)
        both = torch.stack([state["bn1.weight"].expand(1), state["bn1.bias"].expand(1)]).t().contiguous()
        state["bn1.weight"], state["bn1.bias"] = both[:, 0], both[:, 1]
        wide = torch.empty(5, 3, 8).copy_(state["fc.weight"][:, None].expand(5, 3, 8))
        state["fc.weight"] = nn.Parameter(wide[:, 1])
        torch.save(state, f"{HERE}/torchvision.pth", _use_new_zipfile_serialization=False)
        golden["torchvision.pth"] = net.features(picture()).flatten().tolist()

        small = Small()
        small.norm.running_mean.uniform_(-1, 1)
        torch.jit.save(torch.jit.script(small.train()), f"{HERE}/module.pt")
        golden["module.pt"] = small.eval()(picture()).flatten().tolist()
        torch.jit.save(torch.jit.script(Counting()), f"{HERE}/counting.pt")

    class Evil:
        def __reduce__(self):
            return os.system, ("echo run",)

    torch.save({"state_dict": {"conv1.weight": Evil()}}, f"{HERE}/hostile.pth")
    with open(f"{HERE}/golden.json", "w") as file:
        json.dump(golden, file, indent=1)


main()

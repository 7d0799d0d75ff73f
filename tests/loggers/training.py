"""Small training runs whose outcome says whether anything was drawn, moved or kept that should not have been."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SIDE = 16


class Net(nn.Module):
    """Batch norm, dropout, and a buffer that counts forward passes in any mode."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.drop = nn.Dropout(0.4)
        self.head = nn.Linear(8, classes)
        self.register_buffer("runs", torch.zeros(1))
        self.register_buffer("passes", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        self.passes = self.passes + 1
        return self.head(self.drop(self.two(self.one(x)).mean((2, 3))))


def batch(count: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as a network takes them, and labels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, SIDE, SIDE, generator=generator), torch.randint(0, 4, (count,), generator=generator)


def images(count: int = 3, side: int = SIDE) -> torch.Tensor:
    """The images that are monitored."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(7))


def net(seed: int = 0) -> Net:
    """The same network every time, in train mode."""
    torch.manual_seed(seed)
    return Net().train()


def trained(
    observe: Callable[[nn.Module, int], Any], steps: int = 5, autocast: bool = False
) -> dict[str, torch.Tensor]:
    """A plain loop that draws from all three generators and accumulates gradients; `observe(network, step)` runs
    between the backward pass and the step of the optimiser.

    Returns: everything that the run left behind, as tensors.
    """
    network = net()
    network.two[0].weight.requires_grad_(False)
    random.seed(3)
    np.random.seed(3)
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.1, momentum=0.9)
    losses = []
    for step in range(steps):
        for _ in range(2):
            x, y = batch()
            x = x + torch.randn_like(x) * random.random() + float(np.random.rand())
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                if autocast:
                    observe(network, step)
                loss = F.cross_entropy(network(x).float(), y)
            loss.backward()
            losses.append(loss.detach())
            observe(network, step)
        optimiser.step()
        optimiser.zero_grad()
    network(x).sum().backward()
    flags = [p.requires_grad for p in network.parameters()] + [part.training for part in network.modules()]
    grads = {f"grad {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {
        **network.state_dict(), **grads, "losses": torch.stack(losses), "flags": torch.tensor(flags),
        "torch": torch.get_rng_state(), "numpy": torch.tensor(np.random.rand(4)),
        "python": torch.tensor([random.random() for _ in range(4)]),
    }  # fmt: skip


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two runs are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


class Kept:
    """A logger that keeps everything."""

    def __init__(self) -> None:
        self.numbers: dict[int, dict[str, float]] = {}
        self.images: list[tuple[int, str, np.ndarray, str]] = []
        self.closed = 0

    def scalars(self, values: Any, step: int) -> None:
        self.numbers[step] = dict(values)

    def image(self, name: str, image: np.ndarray, step: int, caption: str) -> None:
        self.images.append((step, name, image, caption))

    def close(self) -> None:
        self.closed += 1


class Broken(Kept):
    """A logger whose server is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0

    def scalars(self, values: Any, step: int) -> None:
        self.tried += 1
        raise ConnectionError("no route to host")

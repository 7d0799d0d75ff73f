"""Small networks with everything that makes capturing hard, and a look at what a call may leave behind."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .models.randomise import randomised


def seeded(make: Any, seed: int = 0) -> nn.Module:
    """A network in eval mode with reproducible weights whose logits differ between images."""
    torch.manual_seed(seed)
    return make().eval()


def told_apart(net: nn.Module, side: int, seed: int = 0) -> nn.Module:
    """Random weights whose logits depend on the image by more than a tolerance could hide."""
    randomised(net, (side, side), seed)
    head = [part for part in net.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.mul_(20)
    return net


def images(count: int = 3, height: int = 16, width: int | None = None, seed: int = 1) -> torch.Tensor:
    """`(count, 3, height, width)` in [0, 1]."""
    return torch.rand(count, 3, height, width or height, generator=torch.Generator().manual_seed(seed))


def of_target(target: torch.Tensor) -> Any:
    """The quantity of that name: `(N, K)` outputs → those of the classes `target`, `(N,)`."""
    return lambda outputs: outputs.gather(1, target[:, None])[:, 0]


class Counted(nn.Module):
    """A module that counts how often it runs."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(x)


class Plain(nn.Module):
    """Convolution, batch norm, ReLU, twice; average pooling and a linear head: the closed form applies at `two`."""

    def __init__(self, classes: int = 5, channels: int = 8):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(6, channels, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.two(self.one(x)).mean((2, 3)))


class Signed(nn.Module):
    """Signed maps (tanh) and a head that is not linear: smooth all through, so derivatives can be checked."""

    def __init__(self, classes: int = 5, channels: int = 7):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh())
        self.two = nn.Sequential(nn.Conv2d(6, channels, 3, 2, 1), nn.Tanh())
        self.three = nn.Conv2d(channels, channels, 3, padding=1)
        self.hidden = nn.Linear(channels, 9)
        self.head = nn.Linear(9, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(x))
        x = F.gelu(x + 2 * self.three(x)).mean((2, 3))
        return self.head(torch.tanh(3 * self.hidden(x)))


class Dense(nn.Module):
    """DenseNet's habits: concatenation, and an in-place ReLU on the captured layer's output."""

    def __init__(self, classes: int = 5):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(2))
        self.last = nn.BatchNorm2d(14)
        self.head = nn.Linear(14, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x), inplace=True))], 1)
        return self.head(F.relu(self.last(x), inplace=True).mean((2, 3)))


class Shared(nn.Module):
    """One convolution and one in-place activation that run before and after the layer, and a branch on the data."""

    def __init__(self, classes: int = 5):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.layer = nn.Conv2d(6, 6, 3, padding=1)
        self.extra = nn.Conv2d(6, 6, 1)
        self.head = nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.stem(x))
        x = self.act(self.again(x)) + x
        if x.shape[2] > 4:
            x = self.act(self.again(x) + self.extra(x))
        kept = x
        x = self.layer(x)
        x = self.act(x) + kept
        x = self.act(self.again(x))
        return self.head(torch.tanh(x).mean((2, 3)))


class Wrapped(nn.Module):
    """A layer that returns a tuple, inside a model that does too."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 8, 3, padding=1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return self.conv(x), 7

    def __init__(self, classes: int = 5):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.pair = self.Pair()
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        maps, seven = self.pair(torch.relu(self.stem(x)))
        pooled = torch.sigmoid(maps * (seven - 6)).mean((2, 3))
        return self.head(pooled), {"pooled": pooled}


class Stubborn(nn.Module):
    """What a module gave is written over before the layer runs, and passes the layer by: no replay can know."""

    def __init__(self, classes: int = 5):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.layer = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x += 1
        return self.head(torch.tanh(self.layer(x) + x).mean((2, 3)))


class Fused(nn.Module):
    """PyTorch's own encoder, whose fused path runs none of its modules when nothing hooks them."""

    def __init__(self, classes: int = 5):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Placed(nn.Module):
    """A position table `(positions, C)` that a module hands out: as many rows as a batch in windows may have."""

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(16, 12))

        def forward(self, _x: torch.Tensor) -> torch.Tensor:
            return 2 * self.weight

    def __init__(self, classes: int = 5):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.table = self.Table()
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = self.table(x)
        x = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        return self.head(torch.tanh(x + table).mean(1))


class Failing(nn.Module):
    """Raises when told to: before, at or after the layer."""

    def __init__(self, classes: int = 5):
        super().__init__()
        self.one, self.layer = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.two, self.head = nn.Conv2d(6, 6, 1), nn.Linear(6, classes)
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm2d(6)
        self.fails: str | None = None
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        x = self._step("before", self.norm(self.one(x)))
        x = self._step("after", torch.relu(self.drop(self.layer(x))))
        return self.head(torch.tanh(self.two(x)).mean((2, 3)))

    def _step(self, where: str, x: torch.Tensor) -> torch.Tensor:
        if self.fails == where or (self.fails == "second pass" and self.passes > 1):
            raise FloatingPointError(self.fails)
        return x


def vit() -> nn.Module:
    """A class token before 4 × 4 patches."""
    import timm

    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=2, num_classes=5
    )


def swin() -> nn.Module:
    """Shifted windows, channels last."""
    import timm

    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 4),
        num_classes=5,
    )


def traces(module: nn.Module) -> dict[str, Any]:
    """Everything that a call could leave behind in a network; equal before and after."""
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        hooks = [len(value) for key, value in vars(part).items() if key.endswith("_hooks")]
        found[f"module {name}"] = (part.training, hooks, "forward" in vars(part), sorted(part._modules))
    for name, parameter in module.named_parameters():
        found[f"parameter {name}"] = (parameter.requires_grad, parameter.grad is None, float(parameter.detach().sum()))
    for name, buffer in module.named_buffers():
        found[f"buffer {name}"] = float(buffer.double().sum())
    return found

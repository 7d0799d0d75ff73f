"""The bundled networks: a four-stage ResNet (0.31 million weights) and a vision transformer (0.49)."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

WIDTHS = (16, 32, 64, 128)


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut (He et al. 2016), `(N, i, H, W)` → `(N, o, H/s, W/s)`."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else _projection(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ShapesNet(nn.Module):
    """`(N, 3, H, W)` → logits `(N, classes)`: stem, stage1 … stage4 (strides 2, 4, 8, 16), mean, `head`."""

    def __init__(self, classes: int = 6):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU())
        self.stage1 = ResidualBlock(WIDTHS[0], WIDTHS[0], 1)
        self.stage2 = ResidualBlock(WIDTHS[0], WIDTHS[1], 2)
        self.stage3 = ResidualBlock(WIDTHS[1], WIDTHS[2], 2)
        self.stage4 = ResidualBlock(WIDTHS[2], WIDTHS[3], 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(WIDTHS[3], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x)))))
        return self.head(self.pool(features).flatten(1))


def shapesnet(classes: int = 6) -> nn.Module:
    """The architecture with random weights, in training mode; `load_model("shapes")` and
    `load_model("creatures")` load it with trained weights.
    """
    return ShapesNet(classes)


def small_vit(classes: int = 6) -> nn.Module:
    """timm's vision transformer with four blocks behind a convolutional stem, for 64², with random weights.

    8 × 8 tokens of 96 values and a class token; `load_model("shapes-vit")` loads it with trained weights. The stem,
    timm's own for `vit_tiny_r_s16_p8_224`, is what lets it learn from 16,384 images.
    """
    import timm

    small: dict[str, Any] = {"img_size": 64, "patch_size": 2, "embed_dim": 96, "depth": 4, "num_heads": 3}
    return timm.create_model("vit_tiny_r_s16_p8_224", pretrained=False, num_classes=classes, **small)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

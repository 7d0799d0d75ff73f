"""The networks of the benchmarks, each also as two plain functions: what comes before the layer, and what follows."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

#: Where the real network and photographs lie, beside the project.
ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"
CHECKPOINT = ASSETS / "models" / "mobilenetv2_100_imagenet.safetensors"

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Split:
    """A network and its two parts around `layer`: `head(trunk(z))` is `network(z)`."""

    network: nn.Module
    layer: str
    trunk: Function
    head: Function

    def trainable(self) -> nn.Module:
        """A copy whose parameters ask for gradients."""
        return copy.deepcopy(self.network).requires_grad_(True)


def resnet(name: str, mlp: bool = False) -> Split:
    """A torchvision ResNet with random weights, cut at `layer4`; `mlp` puts two layers and a GELU in place of `fc`."""
    import torchvision

    torch.manual_seed(0)
    net = getattr(torchvision.models, name)()
    if mlp:
        width = net.fc.in_features
        net.fc = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1000))
    net = frozen(net)
    stem = [net.conv1, net.bn1, net.relu, net.maxpool]
    trunk = nn.Sequential(*stem, net.layer1, net.layer2, net.layer3, net.layer4)
    return Split(net, "layer4", trunk, nn.Sequential(net.avgpool, nn.Flatten(1), net.fc))


def vgg11() -> Split:
    """torchvision's VGG-11 with random weights, cut after its last pooling."""
    import torchvision

    torch.manual_seed(0)
    net = frozen(torchvision.models.vgg11())
    return Split(net, "features.20", net.features, nn.Sequential(net.avgpool, nn.Flatten(1), net.classifier))


def mobilenet(network: Any) -> Split:
    """timm's MobileNetV2, cut after its last activation."""
    return Split(network, "bn2", network.forward_features, network.forward_head)


def frozen(network: Any) -> Any:
    """In eval mode, and no parameter asks for a gradient."""
    return network.eval().requires_grad_(False)


def photographs(count: int) -> torch.Tensor:
    """`(count, 3, 224, 224)` in [0, 1]: the shared photographs, or smooth random fields where they are absent."""
    files = sorted((ASSETS / "images").glob("*.JPEG"))[:count]
    if len(files) < count:
        coarse = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(0))
        return nn.functional.interpolate(coarse, size=(224, 224), mode="bilinear")
    return opened(files)


def opened(files: Sequence[Path]) -> torch.Tensor:
    """The photographs in these files, `(N, 3, 224, 224)` in [0, 1]: shorter side 256, centre crop."""
    from heatproof.data.image_opener import open_image
    from heatproof.geometry import Geometry

    geometry = Geometry((224, 224), 256)
    return torch.stack([geometry.image(open_image(path)) for path in files])

"""FullGrad: the shares sum to the output, and the map is the paper's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS, fullgrad
from heatproof.errors import NotApplicable, UnknownName
from heatproof.models import wrap
from heatproof.models.biases import Biases

from .. import nets
from ..models.randomise import randomised
from . import reference


class Plainer(nn.Module):
    """Convolution, batch norm and ReLU in place, a strided convolution, pooling, a linear head."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.deep, self.head = nn.Conv2d(4, 5, 3, 2, 1), nn.Linear(5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        return self.head(F.max_pool2d(F.relu(self.deep(x)), 2).mean((2, 3)))


class Curved(nn.Module):
    """What a ReLU network has not: ReLU6, GELU, SiLU in place, a gate, a group norm, channels last and a LayerNorm."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, 2, 1), norm(4)
        self.groups, self.gate = nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 1)
        self.silu, self.six = nn.SiLU(inplace=True), nn.ReLU6(inplace=True)
        self.wide, self.last, self.head = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.six(4 * self.norm(self.stem(x)))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        x = self.silu(self.groups(x)) + x
        x = self.last(F.gelu(self.wide(x.permute(0, 2, 3, 1))))
        return self.head(x.tanh().mean((1, 2)))


def convolution(dims: int) -> type[nn.Module]:
    return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]


class Any(nn.Module):
    """A signal, an image or a volume."""

    def __init__(self, dims: int):
        super().__init__()
        self.conv = convolution(dims)(3, 4, 3, padding=1)
        self.norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](4)
        self.deep, self.head = convolution(dims)(4, 5, 3, 2, 1), nn.Linear(5, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.deep(F.relu(self.norm(self.conv(x))))).flatten(2).mean(2))


def ready(net: nn.Module, side: int | tuple[int, ...] = 12, seed: int = 0) -> nn.Module:
    """Running statistics and biases that are not zero; frozen, double precision."""
    if isinstance(side, int):
        randomised(net, (side, side), seed)
    return net.double().eval().requires_grad_(False)


def any_net(dims: int) -> nn.Module:
    net = nets.seeded(lambda: Any(dims))
    generator = torch.Generator().manual_seed(0)
    net.norm.running_mean.copy_(torch.rand(4, generator=generator))
    net.norm.running_var.copy_(1 + torch.rand(4, generator=generator))
    with torch.no_grad():
        net.norm.bias.copy_(torch.rand(4, generator=generator))
    return net.double().requires_grad_(False)


def shares(net: nn.Module, z: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output, and the sum of all shares, `(N,)` each."""
    total = torch.zeros(len(z), dtype=torch.float64)
    leaf = z.clone().requires_grad_()
    with Biases(lambda share, _channels: total.add_(share.expand(len(z), *share.shape[1:]).flatten(1).sum(1))):
        output = net(leaf).gather(1, target[:, None])[:, 0]
    (gradient,) = torch.autograd.grad(output.sum(), leaf)
    return output.detach(), total + (gradient * z).flatten(1).sum(1)


NETS = [
    (Plainer, 12),
    (Curved, 12),
    (lambda: Curved(lambda c: nn.InstanceNorm2d(c, affine=True)), 12),
    (nets.Plain, 12),
    (nets.Signed, 12),
    (nets.Dense, 12),
    (nets.Shared, 12),
]


@pytest.mark.parametrize(("make", "side"), NETS)
def test_the_shares_sum_to_the_output(make, side):
    """Srinivas & Fleuret 2019: f(x) = ∇x f · x + Σ ∇b f · b, with the implicit biases of what is curved."""
    net = ready(nets.seeded(make), side)
    z, target = nets.images(3, side).double() * 4 - 2, torch.tensor([0, 3, 1])
    output, total = shares(net, z, target)
    assert float(output.abs().min()) > 1e-3
    torch.testing.assert_close(total, output, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "efficientnet_b0", "convnext_atto", "regnety_002"])
def test_the_shares_sum_to_the_output_of_known_networks(name):
    """ReLU6 and norms with an activation inside, gates, LayerNorm over channels last; weights at random."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = ready(timm.create_model(name, num_classes=5), 64)
    output, total = shares(net, torch.randn(1, 3, 64, 64, dtype=torch.float64), torch.tensor([2]))
    torch.testing.assert_close(total, output, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_the_shares_sum_to_the_output_in_any_number_of_dimensions(dims):
    net, z = any_net(dims), torch.randn(2, 3, *(9, 8, 7)[:dims], dtype=torch.float64)
    output, total = shares(net, z, torch.tensor([1, 2]))
    torch.testing.assert_close(total, output, rtol=1e-10, atol=1e-12)


def slow(net: Plainer, z: torch.Tensor, c: int, rescale: str) -> np.ndarray:
    """One image: forward by hand, each bias a tensor of its own at every place, whose gradient autograd gives."""
    x = z[None].clone().requires_grad_()
    norm = net.norm
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    implicit = norm.bias - norm.running_mean * scale
    size = tuple(z.shape[1:])
    full = [net.conv.bias, implicit, net.deep.bias]
    biases = [b[None, :, None, None].expand(1, -1, *s).clone().requires_grad_() for b, s in
              zip(full, [size, size, tuple(-(-side // 2) for side in size)], strict=True)]  # fmt: skip
    y = F.conv2d(x, net.conv.weight, None, 1, 1) + biases[0]
    y = F.relu(y * scale[None, :, None, None] + biases[1])
    y = F.relu(F.conv2d(y, net.deep.weight, None, 2, 1) + biases[2])
    output = (net.head(F.max_pool2d(y, 2).mean((2, 3))))[0, c]
    found = torch.autograd.grad(output, [x, *biases])
    total = np.zeros(size)
    for gradient, factor in zip(found, [x, *biases], strict=True):
        share = (gradient * factor)[0].detach().abs().numpy()
        low, high = (share.min((1, 2)), share.max((1, 2))) if rescale == "channel" else (share.min(), share.max())
        for k, channel in enumerate(share):
            bottom, top = (low[k], high[k]) if rescale == "channel" else (low, high)
            if top > bottom:
                scaled = (channel - bottom) / (top - bottom)
                total += scaled if scaled.shape == size else reference.bilinear(scaled, *size)
    return total


@pytest.mark.parametrize("rescale", ["channel", "layer"])
def test_the_map_is_the_papers(rescale):
    net = ready(nets.seeded(Plainer), 8)
    z = nets.images(2, 8, 12).double() * 2 - 1
    got = fullgrad.fullgrad(z, net, nets.of_target(torch.tensor([4, 1])), rescale=rescale)
    for one, image, c in zip(got, z, [4, 1], strict=True):
        np.testing.assert_allclose(one, slow(net, image, c, rescale), rtol=1e-4, atol=1e-5)


class Lifted(nn.Module):
    """The same network with one more dimension of size one in front of the others."""

    def __init__(self, net: Any, dims: int):
        super().__init__()
        self.net, self.dims = net, dims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        net, deeper = self.net, (F.conv2d, F.conv3d)[self.dims - 1]
        x = deeper(x, net.conv.weight[:, :, None], net.conv.bias, 1, (0, *[1] * self.dims))
        norm = net.norm
        x = F.relu(F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.1, norm.eps))
        x = F.relu(deeper(x, net.deep.weight[:, :, None], net.deep.bias, (1, *[2] * self.dims), (0, *[1] * self.dims)))
        return net.head(x.flatten(2).mean(2))


@pytest.mark.parametrize("dims", [1, 2])
def test_signals_images_and_volumes_go_by_the_same_formula(dims):
    """A signal is an image one pixel high, and an image a volume one deep."""
    net, target = any_net(dims), nets.of_target(torch.tensor([0, 3]))
    z = torch.randn(2, 3, *(9, 7)[:dims], dtype=torch.float64)
    found = fullgrad.fullgrad(z, net, target)
    assert found.shape == (2, *z.shape[2:])
    torch.testing.assert_close(fullgrad.fullgrad(z[:, :, None], Lifted(net, dims), target)[:, 0], found)


def test_one_forward_and_the_network_as_it_was():
    net = nets.seeded(lambda: nets.Counted(nets.Plain()))
    model, x = wrap(net, size=12), nets.images(3, 12)
    heatproof.explain(model, x, "fullgrad")  # asks once whether it serves
    before, calls = nets.traces(net), net.calls
    found = heatproof.explain(model, x, "fullgrad")
    assert nets.traces(net) == before
    passes = net.calls - calls
    plain = net.calls
    heatproof.explain(model, x, "gradcam", layer="inner.two")
    assert passes <= net.calls - plain + 1
    assert found.flags["fullgrad"] == [""] * 3


def test_nothing_is_left_after_an_exception():
    net = nets.Failing().eval().requires_grad_(False)
    net.fails = "after"
    before = nets.traces(net)
    with pytest.raises(FloatingPointError):
        fullgrad.fullgrad(torch.rand(1, 3, 12, 12), net, nets.of_target(torch.tensor([0])))
    assert nets.traces(net) == before
    assert torch.overrides._get_current_function_mode() is None


def test_where_it_cannot_serve():
    applies = ATTRIBUTIONS["fullgrad"].traits["applies"]
    bare = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    assert applies(wrap(bare.eval(), size=12), "0", {}) == "none of its layers with positions has a bias"
    for transformer in (nets.vit, nets.swin):
        net = nets.told_apart(nets.seeded(transformer), 32)
        assert "not the sum of its input's and its biases' shares" in applies(wrap(net, size=32), "", {})
        with pytest.raises(NotApplicable):
            heatproof.explain(wrap(net, size=32), nets.images(1, 32), "fullgrad")
    for net in (nets.Plain, nets.Signed, nets.Dense, nets.Shared):
        assert applies(wrap(nets.seeded(net), size=12), "", {}) == ""


def test_an_unknown_rescale_is_an_error():
    with pytest.raises(UnknownName, match="Did you mean 'channel'"):
        fullgrad.fullgrad(torch.rand(1, 3, 8, 8), nets.Plain(), nets.of_target(torch.tensor([0])), rescale="channels")

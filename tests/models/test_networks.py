"""Target layers and layouts of the architectures that people use, of torchvision and of timm.

Sizes are small and, where the architecture allows it, not square, so that a swap of height and width shows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof.models import Layout, Model, layout_of, load_model

from ..attributions import reference
from .randomise import randomised


@dataclass(frozen=True)
class Case:
    """A network, and the stages it must have: name → grid, shallow → deep; the last one is `last`."""

    spec: str
    size: tuple[int, int]
    stages: dict[str, tuple[int, int]]
    kind: str = "channels-first"
    prefix: int = 0
    args: dict[str, Any] = field(default_factory=dict)


def _halving(*names: str, size: tuple[int, int] = (96, 64)) -> dict[str, tuple[int, int]]:
    """Strides 4, 8, 16 and 32."""
    return {name: (size[0] // s, size[1] // s) for name, s in zip(names, (4, 8, 16, 32), strict=True)}


def _blocks(pattern: str, grid: tuple[int, int]) -> dict[str, tuple[int, int]]:
    return {pattern.format(number): grid for number in (2, 5, 8, 11)}


RESNET = _halving("layer1", "layer2", "layer3", "layer4")
POOLS = _halving("features.5", "features.10", "features.15", "features.20")
DENSE = _halving("features.denseblock1", "features.denseblock2", "features.denseblock3", "features.norm5")
TALL = (96, 64)

CASES = [
    Case("torchvision:resnet18", TALL, RESNET),
    Case("torchvision:resnet50", TALL, RESNET),
    Case("torchvision:vgg11", TALL, POOLS),
    Case("torchvision:densenet121", TALL, DENSE),
    Case(
        "torchvision:mobilenet_v2",
        TALL,
        _halving("features.4.conv.0", "features.7.conv.0", "features.14.conv.0", "features.18"),
    ),
    Case(
        "torchvision:mobilenet_v3_small",
        TALL,
        _halving("features.2.block.0", "features.4.block.0", "features.9.block.0", "features.12"),
    ),
    Case(
        "torchvision:mobilenet_v3_large",
        TALL,
        _halving("features.4.block.0", "features.7.block.0", "features.13.block.0", "features.16"),
    ),
    Case(
        "torchvision:efficientnet_b0",
        TALL,
        _halving("features.3.0.block.0", "features.4.0.block.0", "features.6.0.block.0", "features.8"),
    ),
    Case("torchvision:convnext_tiny", TALL, _halving("features.1.2", "features.3.2", "features.5.8", "features.7.2")),
    Case(
        "torchvision:swin_t",
        TALL,
        _halving("features.1.1.norm1", "features.3.1.norm1", "features.5.5.norm1", "features.7.1.norm1"),
        kind="channels-last",
    ),
    Case(
        "torchvision:vit_b_16",
        (64, 64),
        _blocks("encoder.layers.encoder_layer_{}.ln_1", (4, 4)),
        kind="tokens",
        prefix=1,
        args={"image_size": 64},
    ),
    Case("timm:resnet18", TALL, RESNET),
    Case("timm:resnet50", TALL, RESNET),
    Case("timm:vgg11", TALL, POOLS),
    Case("timm:densenet121", TALL, DENSE),
    Case("timm:mobilenetv2_100", TALL, _halving("blocks.2.0.bn1", "blocks.3.0.bn1", "blocks.5.0.bn1", "bn2")),
    Case(
        "timm:mobilenetv3_small_100", TALL, _halving("blocks.1.0.bn1", "blocks.2.0.bn1", "blocks.4.0.bn1", "blocks.5")
    ),
    Case(
        "timm:mobilenetv3_large_100", TALL, _halving("blocks.2.0.bn1", "blocks.3.0.bn1", "blocks.5.0.bn1", "blocks.6")
    ),
    Case("timm:efficientnet_b0", TALL, _halving("blocks.2.0.bn1", "blocks.3.0.bn1", "blocks.5.0.bn1", "bn2")),
    Case(
        "timm:convnext_tiny",
        TALL,
        _halving("stages.0.blocks.2", "stages.1.blocks.2", "stages.2.blocks.8", "stages.3.blocks.2"),
    ),
    Case(
        "timm:swin_tiny_patch4_window7_224",
        TALL,
        _halving(
            "layers.0.blocks.1.norm1", "layers.1.blocks.1.norm1", "layers.2.blocks.5.norm1", "layers.3.blocks.1.norm1"
        ),
        kind="channels-last",
        args={"img_size": TALL},
    ),
    Case(
        "timm:vit_tiny_patch16_224",
        TALL,
        _blocks("blocks.{}.norm1", (6, 4)),
        kind="tokens",
        prefix=1,
        args={"img_size": TALL},
    ),
    Case(
        "timm:vit_base_patch16_224",
        TALL,
        _blocks("blocks.{}.norm1", (6, 4)),
        kind="tokens",
        prefix=1,
        args={"img_size": TALL},
    ),
    Case(
        "timm:vit_small_patch14_reg4_dinov2",  # a class token and four registers; no classifier of its own
        (70, 42),
        _blocks("blocks.{}.norm1", (5, 3)),
        kind="tokens",
        prefix=5,
        args={"img_size": (70, 42), "num_classes": 10},
    ),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.spec)
def network(request: pytest.FixtureRequest) -> Iterator[tuple[Case, Model]]:
    """Built once for all tests of this file, and let go before the next."""
    case: Case = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = load_model(case.spec, model_args=case.args, size=case.size, pretrained=False, device="cpu")
        randomised(model.module, case.size)
    yield case, model


@pytest.fixture(scope="module")
def passed(network: tuple[Case, Model]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of two images and the native output of every stage, each with a graph to the logits."""
    case, model = network
    native: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            native[name] = output if output.requires_grad else output.detach().requires_grad_()
            return native[name].clone()

        return hook

    handles = [model.submodule(name).register_forward_hook(keep(name)) for name in case.stages]
    x = torch.rand((2, 3, *case.size), generator=torch.Generator().manual_seed(1))
    with model.evaluating():
        logits = model.logits(x)
    for handle in handles:
        handle.remove()
    return logits, native


def test_layers_are_those_of_the_table(network: tuple[Case, Model]) -> None:
    case, model = network
    assert model.layers.stages == tuple(case.stages)
    assert model.layers.last == list(case.stages)[-1]


def test_finding_layers_leaves_nothing_behind(network: tuple[Case, Model]) -> None:
    _, model = network
    assert model.layers
    for module in model.module.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and not module.training
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters() if p.is_floating_point())


def test_places_of_the_grid_are_those_of_the_layer(network, passed) -> None:
    case, model = network
    for name, grid in case.stages.items():
        native = passed[1][name]
        layout = layout_of(model.submodule(name), native, case.size)
        assert layout == Layout(case.kind, case.prefix, grid)
        positions = layout.to_grid(native)
        assert positions.shape[2:] == grid and positions.data_ptr() >= native.data_ptr()
        position = (grid[0] - 1, grid[1] // 2)
        assert torch.equal(positions[:, :, position[0], position[1]], _at(native, case, grid, position))


def _at(native: torch.Tensor, case: Case, grid: tuple[int, int], position: tuple[int, int]) -> torch.Tensor:
    """The channels of one place, read off the native output."""
    row, column = position
    if case.kind == "tokens":
        return native[:, case.prefix + row * grid[1] + column]
    return native[:, row, column] if case.kind == "channels-last" else native[:, :, row, column]


def test_round_trip_is_bit_equal_and_keeps_the_prefix(network, passed) -> None:
    case, model = network
    for name in case.stages:
        native = passed[1][name].detach()
        layout = layout_of(model.submodule(name), native, case.size)
        assert torch.equal(layout.from_grid(layout.to_grid(native), native), native)
        doubled = layout.from_grid(2 * layout.to_grid(native), native)
        keep = case.prefix if case.kind == "tokens" else 0
        assert torch.equal(doubled[:, keep:], 2 * native[:, keep:])
        assert torch.equal(doubled[:, :keep], native[:, :keep])


def test_the_prediction_depends_on_every_place_of_the_last_layer(network, passed) -> None:
    """Of a ViT's last block the patches are read no more: a layer there would explain nothing."""
    case, model = network
    logits, native = passed
    last = model.layers.last
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), native[last], retain_graph=True)
    positions = layout_of(model.submodule(last), native[last], case.size).to_grid(gradient)
    assert (positions.abs().amax(1) > 0).all()


GRADIENT = ("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "gradcam-elementwise")


def test_every_cam_explains_it_at_every_stage_from_one_pass(network, passed) -> None:
    """Beside the papers' formulas on activations and gradients taken by plain autograd, prefix tokens left out."""
    case, model = network
    logits, native = passed
    x = torch.rand((2, 3, *case.size), generator=torch.Generator().manual_seed(1))
    asked = [f"{method}@{stage}" for method in GRADIENT for stage in case.stages]
    asked += [f"eigencam@{stage}" for stage in case.stages] + ["refine:layercam", "eigengradcam", "shapleycam"]
    found = heatproof.explain(model, x, asked, raw=True)
    gradients = torch.autograd.grad(logits.amax(1).sum(), list(native.values()), retain_graph=True)
    for (stage, grid), output, gradient in zip(case.stages.items(), native.values(), gradients, strict=True):
        a, g = (_by_hand(tensor.detach(), case, grid) for tensor in (output, gradient))
        slow = {
            "gradcam": reference.gradcam,
            "gradcam++": reference.gradcam_plus_plus,
            "hirescam": reference.hirescam,
            "xgradcam": reference.xgradcam,
            "layercam": reference.layercam,
        }
        for method, formula in slow.items():
            expected = torch.from_numpy(formula(a, g)).float()
            # HiResCAM before a LayerNorm is zero (scaling a place changes nothing), so its terms give the scale;
            # XGrad-CAM divides by sums of signed activations that may come near zero.
            scale = float(np.abs(g * a).sum(1).max() if method == "hirescam" else expected.abs().max())
            slack = 0.1 if method == "xgradcam" else 1e-4
            torch.testing.assert_close(found[f"{method}@{stage}"], expected, rtol=1e-2, atol=slack * scale)
    for spelling in asked:
        assert found[spelling].isfinite().all(), spelling
    assert found["refine:layercam"].shape == (2, *case.size)


def _by_hand(native: torch.Tensor, case: Case, grid: tuple[int, int]) -> np.ndarray:
    """`(N, C, h, w)` in float64, place by place."""
    rows = [[_at(native, case, grid, (i, j)) for j in range(grid[1])] for i in range(grid[0])]
    return torch.stack([torch.stack(row, 2) for row in rows], 2).double().numpy()

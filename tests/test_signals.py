"""Signals, volumes and odd images go through the same code as images of 224 × 224."""

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS, requested
from heatproof.engine import refusals, resolve_layers
from heatproof.errors import InvalidInput, LayerError
from heatproof.models import wrap

from . import nets
from .attributions import reference

CAMS = ["gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam", "ablationcam", "refine:layercam"]


class Convolved(nn.Module):
    """Two convolutions and a smooth head over any number of spatial dims."""

    def __init__(self, dims: int, channels: int = 2, classes: int = 4):
        super().__init__()
        convolution = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.one = nn.Sequential(convolution(channels, 6, 3, padding=1), nn.ReLU())
        self.two = nn.Sequential(convolution(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(9 * self.two(self.one(x)).flatten(2).mean(2)))


def volumes(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn((3, *shape), generator=torch.Generator().manual_seed(0)) * 5


@pytest.mark.parametrize("shape", [(2, 40), (2, 8, 12, 10), (2, 13, 9)])
def test_cams_on_signals_and_volumes_are_the_papers(shape):
    net = nets.seeded(lambda: Convolved(len(shape) - 1))
    model, x = wrap(net, input_shape=shape), volumes(shape)
    assert model.layers.last == "two" and model.layers.stages == ("one", "two")
    found = heatproof.explain(model, x, CAMS, raw=True)
    activations, gradients, _ = reference.quantities(net, x, "two", found.target.tolist())
    for name, slow in {"gradcam": reference.gradcam, "hirescam": reference.hirescam, "layercam": reference.layercam,
                       "gradcam++": reference.gradcam_plus_plus, "xgradcam": reference.xgradcam}.items():  # fmt: skip
        expected = slow(activations, gradients)
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    shown = heatproof.explain(model, x, CAMS)
    for name in CAMS:
        assert shown[name].shape == (3, *shape[1:])
        assert float(shown[name].amax()) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(2, 40), (2, 8, 12, 10)])
def test_every_method_serves_signals_or_says_why_not(shape):
    """Nothing may crash somewhere inside: NotApplicable before any work, or a map of the input's size."""
    quick = {"rise": {"masks": 20}, "scorecam": {}}
    model, x = wrap(nets.seeded(lambda: Convolved(len(shape) - 1)), input_shape=shape), volumes(shape)[:1]
    for name, entry in ATTRIBUTIONS.items():
        steps = {o: 3 for o in ("steps", "samples") if o in entry.options}
        asked = {name: {**steps, **quick.get(name, {})}}
        if refusals(model, resolve_layers(model, requested(asked), "two")):
            continue
        assert heatproof.explain(model, x, asked)[name].shape == (1, *shape[1:]), name


def test_inputs_that_are_no_such_signal():
    model = wrap(nets.seeded(lambda: Convolved(1)), input_shape=(2, 40))
    whole = torch.ones(3, 2, 40, dtype=torch.int64)
    for wrong in (
        torch.rand(3, 1, 40),
        torch.rand(3, 2, 4, 40),
        whole,
        np.ones((2, 40)),
        torch.empty(0, 2, 40),
        "a.png",
    ):
        with pytest.raises(InvalidInput, match=r"\(N, 2, (side 1|40)\)|at least one"):
            heatproof.explain(model, wrong, "gradcam")
    for shape in [(2,), (2, 0), (1, 2, 3, 4, 5), 7, (2, 3.5)]:
        with pytest.raises(InvalidInput, match="`input_shape` must be"):
            wrap(nets.seeded(nets.Plain), input_shape=shape)
    longer = heatproof.explain(model, torch.randn(1, 2, 64), "gradcam")  # another length than it was wrapped with
    assert longer["gradcam"].shape == (1, 64)
    with pytest.raises(InvalidInput, match=r"'bicubic' is for images. Got 1 spatial"):
        heatproof.explain(model, volumes((2, 40)), "gradcam", upsample="bicubic")


@pytest.mark.parametrize("size", [(5, 5), (16, 13), (33, 70), (3, 200), (700, 300)])
def test_images_of_any_size(size):
    model = wrap(nets.seeded(nets.Signed), size=size, layer="two")
    x = nets.images(2, *size)
    found = heatproof.explain(model, x, CAMS, raw=False)
    for name in CAMS:
        assert found[name].shape == (2, *size) and found[name].isfinite().all()
    raw = heatproof.explain(model, x, "gradcam", raw=True)
    activations, gradients, _ = reference.quantities(model.module, model.normalise(x), "two", raw.target.tolist())
    expected = reference.gradcam(activations, gradients)
    np.testing.assert_allclose(raw["gradcam"].numpy(), expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_an_image_too_small_for_the_layer_says_so():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    model = wrap(nets.seeded(lambda: net), size=7)
    with pytest.raises(LayerError, match="positions"):
        heatproof.explain(model, nets.images(1, 7), "gradcam", layer="1")


@pytest.mark.parametrize("how", ["nearest", "bicubic"])
def test_maps_are_enlarged_as_asked(how):
    model, x = wrap(nets.seeded(nets.Plain), size=16, layer="two"), nets.images(2, 16)
    raw = heatproof.explain(model, x, "gradcam", raw=True)["gradcam"].relu()
    found = heatproof.explain(model, x, "gradcam", upsample=how)["gradcam"]
    if how == "nearest":
        up = raw.repeat_interleave(2, 1).repeat_interleave(2, 2)
    else:
        up = nn.functional.interpolate(raw[:, None], size=(16, 16), mode="bicubic", align_corners=False)[:, 0]
    low, high = up.flatten(1).amin(1)[:, None, None], up.flatten(1).amax(1)[:, None, None]
    torch.testing.assert_close(found, (up - low) / (high - low))

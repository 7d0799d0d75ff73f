"""Fidelity metrics of torchcam 0.5.0 and Quantus 0.6.0: agreement where they are right, their values where not.

Known of the peers: torchcam masks what the network sees, so its fill is the mean; its drop divides by p + 1e-7.
Quantus ranks single channels, so three of its features are one pixel; its "black" is the image's own minimum; its
IROF breaks on three channels, leaves the first superpixel out of the area, and in a batch counts superpixels that
are not there; its Monotonicity never restores a pixel; its areas call `np.trapz`, which NumPy 2.4 no longer has.
"""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof import tensors
from heatproof.metrics import METRICS
from heatproof.models import Model, wrap

from .. import nets
from ..metrics.test_fidelity import RAMP, linear

SIDE, STEPS = 24, 36
CLASSES = [0, 3, 2, 0]
TARGET = torch.tensor(CLASSES)
PEER_IROF = {"perturb_baseline": 0.0, "segmentation_method": "felzenszwalb"}


@pytest.fixture(autouse=True)
def old_name(monkeypatch):
    """Without it Quantus has no areas at all."""
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)


@pytest.fixture(scope="module")
def model() -> Model:
    return wrap(nets.told_apart(nets.seeded(nets.Signed), SIDE), size=SIDE)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return nets.images(4, SIDE)


@pytest.fixture(scope="module")
def maps() -> torch.Tensor:
    return tensors.minmax(torch.rand(4, SIDE, SIDE, generator=torch.Generator().manual_seed(3)))


class Given:
    """torchcam's idea of a method, with maps that are there already."""

    def __init__(self, model: nn.Module, maps: torch.Tensor):
        self.model, self.maps = model, maps
        self._hooks_off = nullcontext

    def __call__(self, *_unused, **_more) -> list[torch.Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[torch.Tensor]) -> torch.Tensor:
        return cams[0]


def torchcam_summary(name: str, model: Model, x: torch.Tensor, maps: torch.Tensor, **options) -> dict[str, float]:
    metrics = pytest.importorskip("torchcam.metrics")
    peer = getattr(metrics, name)(Given(model.module, maps), partial(torch.softmax, dim=-1), **options)
    peer.update(model.normalise(x), CLASSES)
    return peer.summary()


def test_torchcam_drop_and_increase_agree_on_the_mean(model, x, maps):
    found = heatproof.score(model, x, {"mine": maps}, ["ad[fill=mean]", "ai[fill=mean]", "ad", "ai"], target=TARGET)
    means = [float(found.values("mine", metric).mean()) for metric in found.metrics]
    theirs = torchcam_summary("ClassificationMetric", model, x, maps)
    assert means[:2] == pytest.approx([theirs["avg_drop"], theirs["conf_increase"]], rel=1e-5)
    assert 0 < means[0] < 1 and 0 < means[1] < 1 and abs(means[2] - means[0]) > 1e-3, "black is another fill"


@pytest.mark.parametrize("steps", [24, 16, 1])
def test_torchcam_curves_agree_on_the_mean(model, x, maps, steps):
    asked = {"deletion-mean": {"steps": steps}, "insertion": {"steps": steps, "fill": "mean"}}
    found = heatproof.score(model, x, {"mine": maps}, asked, target=TARGET)
    theirs = torchcam_summary("DeletionInsertionMetric", model, x, maps, steps=steps)
    means = [float(found.values("mine", metric).mean()) for metric in found.metrics]
    assert means == pytest.approx([theirs["deletion_auc"], theirs["insertion_auc"]], rel=1e-5)
    assert abs(means[0] - means[1]) > 1e-4 or steps == 1


def of_quantus(name: str, net: nn.Module, z: torch.Tensor, maps: torch.Tensor, classes=CLASSES, **options):
    quantus = pytest.importorskip("quantus")
    settings = {"disable_warnings": True, "normalise": False, "return_aggregate": False, **options}
    return getattr(quantus, name)(**settings)(
        model=net, x_batch=z.numpy(), y_batch=np.array(classes), a_batch=maps[:, None].numpy(), device="cpu",
        softmax=True, channel_first=True,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_quantus_pixel_flipping_is_our_deletion_curve_without_its_first_point(model, x, maps):
    z, metric = model.normalise(x), f"deletion-mean[steps={STEPS}]"
    found = heatproof.score(model, x, {"mine": maps}, metric, target=TARGET)
    points = found.curves["mine", metric][1].numpy()
    options = {"features_in_step": 3 * SIDE * SIDE // STEPS}
    theirs = np.array(of_quantus("PixelFlipping", model.module, z, maps, perturb_baseline=0.0, **options))
    np.testing.assert_allclose(points[:, 1:], theirs, atol=1e-6)
    areas = of_quantus(
        "PixelFlipping", model.module, z, maps, perturb_baseline=0.0, return_auc_per_sample=True, **options
    )
    first = (points[:, 0] + points[:, 1]) / 2
    np.testing.assert_allclose(found.values("mine", metric) * STEPS, np.array(areas) + first, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_black_of_quantus_is_the_least_value_of_each_image(model, x, maps):
    """Lifted images have no black in them: theirs is the darkest grey, ours is black."""
    lifted = x / 2 + 0.5
    metric = f"deletion[steps={STEPS}]"
    found = heatproof.score(model, lifted, {"mine": maps}, metric, target=TARGET)
    options = {"features_in_step": 3 * SIDE * SIDE // STEPS, "perturb_baseline": "black"}
    theirs = np.array(of_quantus("PixelFlipping", model.module, model.normalise(lifted), maps, **options))[:, -1]
    black = model.probabilities(model.of_normalised(model.normalise(torch.zeros_like(x)))).detach()
    ours = found.curves["mine", metric][1][:, -1]
    expected = black.gather(1, TARGET[:, None])[:, 0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(theirs - ours.numpy()).min() > 0.01


@pytest.mark.filterwarnings("ignore")
def test_quantus_monotonicity_never_restores_a_pixel():
    """Blank pixels replaced by blank: a flat curve that never falls, so always yes, whatever the order or class."""
    toy, x = linear(RAMP / 200), torch.ones(2, 3, 4, 4)
    x[:, :, 0, 0] = 0
    maps, classes = RAMP.expand(2, -1, -1), torch.tensor([0, 1])
    found = heatproof.score(toy, x, {"mine": maps}, {"monotonicity-strict": {"steps": 16}}, target=classes)
    assert found.values("mine", found.metrics[0]).tolist() == [1.0, 0.0], "the second class loses with every pixel"
    for baseline in ("black", 0.0):
        options = {"features_in_step": 1, "perturb_baseline": baseline}
        for order in (maps, 17 - maps):
            theirs = of_quantus("Monotonicity", toy.module.eval(), x, order, classes=[0, 1], **options)
            assert list(theirs) == [True, True]


class Grey(nn.Module):
    """A network for images of one channel."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh((z[:, :1, None] * self.weights).sum((1, 3, 4)))


@pytest.fixture(scope="module")
def grey() -> tuple[Model, torch.Tensor, torch.Tensor]:
    """Images of one channel, and the superpixels that Quantus finds in them."""
    felzenszwalb = pytest.importorskip("skimage.segmentation").felzenszwalb
    generator = torch.Generator().manual_seed(8)
    net = Grey(torch.randn(5, SIDE, SIDE, generator=generator) / 20).eval()
    coarse = torch.rand(4, 1, 7, 7, generator=generator) * torch.tensor([1.0, 2, 4, 8]).view(4, 1, 1, 1) - 0.5
    z = nn.functional.interpolate(coarse, SIDE, mode="bilinear", align_corners=False)
    labels = [torch.from_numpy(felzenszwalb(one[0, ..., None].double().numpy())) for one in z]
    return wrap(net, input_shape=(1, SIDE, SIDE)), z, torch.stack(labels)


@torch.no_grad()
def answers(model: Model, z: torch.Tensor, classes: list[int]) -> torch.Tensor:
    return model.probabilities(model.of_normalised(z)).gather(1, torch.tensor(classes)[:, None])[:, 0]


def our_irof(
    model: Model, z: torch.Tensor, maps: torch.Tensor, labels: torch.Tensor, classes: list[int]
) -> list[float]:
    def score(images, rows, of="probability"):
        return answers(model, images, [classes[row] for row in rows.tolist()])

    generators = [torch.Generator().manual_seed(i) for i in range(len(z))]
    p = answers(model, z, classes)
    return METRICS["irof"].function(z, z, p, maps, lambda name: labels, score, generators).value.tolist()


@pytest.mark.filterwarnings("ignore")
def test_quantus_irof_agrees_on_one_image_of_one_channel(grey, maps):
    """Theirs is in superpixels and starts at the first one removed: L · ours + (1 + f(x₁) / f(x₀)) / 2."""
    model, z, labels = grey
    for i, target in enumerate(CLASSES):
        one = slice(i, i + 1)
        (ours,) = our_irof(model, z[one], maps[one], labels[one], [target])
        means = [float(maps[i][labels[i] == piece].mean()) for piece in range(int(labels[i].max()) + 1)]
        without = torch.where(labels[one] == int(np.argmax(means)), 0, z[i])[None]
        ratio = float(answers(model, without, [target]) / answers(model, z[one], [target]))
        theirs = of_quantus("IROF", model.module, z[one], maps[one], [target], **PEER_IROF)
        assert float(np.ravel(theirs)[0]) == pytest.approx(ours * len(means) + (1 + ratio) / 2, abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_quantus_irof_depends_on_its_neighbours(grey, maps):
    """An image with fewer superpixels than another of its batch gets half a step from its last answer to nothing."""
    model, z, labels = grey
    pieces = [int(one.max()) + 1 for one in labels]
    assert len(set(pieces)) > 1
    together = np.ravel(of_quantus("IROF", model.module, z, maps, **PEER_IROF))
    alone = [
        float(np.ravel(of_quantus("IROF", model.module, z[i : i + 1], maps[i : i + 1], [c], **PEER_IROF))[0])
        for i, c in enumerate(CLASSES)
    ]
    last = answers(model, torch.zeros_like(z), CLASSES) / answers(model, z, CLASSES)
    moved = [float(one) / 2 if count < max(pieces) else 0.0 for one, count in zip(last, pieces, strict=True)]
    np.testing.assert_allclose(np.array(alone) - together, moved, atol=1e-5)
    assert max(np.abs(moved)) > 0.1
    ours = our_irof(model, z, maps, labels, CLASSES)
    single = [our_irof(model, z[i : i + 1], maps[i : i + 1], labels[i : i + 1], [c])[0] for i, c in enumerate(CLASSES)]
    assert ours == pytest.approx(single, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_quantus_irof_breaks_on_three_channels(model, x, maps):
    with pytest.raises(AssertionError, match="shape of arr must be the same as the mask shape"):
        of_quantus("IROF", model.module, model.normalise(x), maps)
    found = heatproof.score(model, x, {"mine": maps}, "irof[segmenter=grid]", target=TARGET)
    assert found.values("mine", found.metrics[0]).isfinite().all()

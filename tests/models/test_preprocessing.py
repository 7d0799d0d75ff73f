"""What is said of preprocessing, what is assumed, and that every channel reaches the network where it belongs."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.errors import HeatproofWarning, InvalidInput, NotApplicable, UnknownName
from heatproof.models import load_model, wrap
from heatproof.models.preprocessing import preprocessing_facts
from heatproof.report.preprocessing import preprocessing_text

from ..nets import Plain, images, seeded

#: Means and standard deviations of bytes, in the order blue, green, red.
MEAN, STD = (104.0, 117.0, 123.0), (57.0, 58.0, 59.0)


def photo(side: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (side, side, 3), np.uint8))


def said(action) -> list[str]:
    """The warnings of heatproof's."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(one.message) for one in caught if issubclass(one.category, HeatproofWarning)]


@pytest.mark.parametrize(
    ("given", "assumed"),
    [
        ({}, "mean 0.5, std 0.5, size 224 × 224 are assumed. Set mean, std, size"),
        ({"mean": 0.4, "std": 0.3}, "resized: size 224 × 224 is assumed. Set size to"),
        ({"size": 24}, "resized: mean 0.5, std 0.5 are assumed. Set mean, std to"),
        ({"mean": 0.5, "std": 0.5, "size": 24}, None),
    ],
)
def test_what_nobody_gave_is_said_once_and_only_that(given, assumed):
    model = wrap(seeded(Plain), **given)
    texts = said(lambda: heatproof.explain(model, photo(), "gradcam"))
    assert len(texts) == (assumed is not None) and (not texts or assumed in texts[0])
    assert not said(lambda: heatproof.explain(model, photo(), "gradcam"))
    facts = preprocessing_facts(model.preprocessing)
    left = [name for name in ("mean", "std", "size") if name not in given]
    assert facts["assumed"] == left
    assert ("assumed, because nobody gave it: " + ", ".join(left) in preprocessing_text(facts)) == bool(left)


def test_a_bare_network_with_paths_and_a_function_of_the_users_are_told_alike(tmp_path, monkeypatch):
    photo().save(tmp_path / "a.png")
    assert "mean 0.5, std 0.5, size 224 × 224 are assumed" in said(
        lambda: heatproof.show(seeded(Plain), tmp_path / "a.png", "gradcam")
    )[0]  # fmt: skip
    (tmp_path / "assumed_nets.py").write_text("from torch import nn\ndef made(): return nn.Conv2d(3, 2, 1)\n")
    monkeypatch.chdir(tmp_path)
    (text,) = said(lambda: load_model("python:assumed_nets:made", mean=0.4, std=0.2))
    assert "size 224 × 224 is assumed. Set size to" in text and "mean" not in text
    assert not said(lambda: load_model("python:assumed_nets:made", mean=0.4, std=0.2, size=64))


def test_a_network_of_timms_says_its_own():
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet")
    own, given = wrap(net), wrap(net, mean=0.1, size=64)
    assert own.mean == pytest.approx(net.pretrained_cfg["mean"]) and not own.preprocessing.assumed
    assert own.geometry.interpolation == net.pretrained_cfg["interpolation"]
    assert given.mean == (0.1,) * 3 and given.std == own.std and given.geometry.size == (64, 64)


def test_means_of_bytes_are_read_as_such_only_when_said():
    for given in ({"mean": MEAN}, {"std": STD}, {"mean": -0.5}):
        with pytest.raises(InvalidInput, match=r"value_range=255.*--value-range 255"):
            wrap(Plain(), **given)
    model = wrap(Plain(), mean=MEAN, std=STD, value_range=255)
    assert model.mean == pytest.approx([value / 255 for value in MEAN])
    assert model.std == pytest.approx([value / 255 for value in STD])
    assert wrap(Plain(), std=2, value_range=1).std == (2, 2, 2)
    for mistaken in ({"mean": 0.485}, {"std": 0.225}):
        with pytest.raises(InvalidInput, match=r"one of images in 0 … 1\. Leave `value_range` out"):
            wrap(Plain(), **mistaken, value_range=255)
    for wrong in ({"value_range": 255}, {"mean": 0.5, "value_range": 0}, {"mean": 0.5, "value_range": "bytes"}):
        with pytest.raises(InvalidInput, match="value_range"):
            wrap(Plain(), **wrong)
    with pytest.raises(UnknownName, match="channel order"):
        wrap(Plain(), channel_order="grb")


def turned(net: nn.Module) -> nn.Module:
    """The same network for images whose channels come in the opposite order."""
    first = next(part for part in net.modules() if isinstance(part, nn.Conv2d))
    with torch.no_grad():
        first.weight.copy_(first.weight.flip(1))
    return net


def test_bgr_reaches_the_network_as_bgr():
    """By hand: OpenCV's image of bytes, less the mean, over the standard deviation, blue first."""
    net, picture = seeded(Plain), photo(24)
    model = wrap(net, MEAN, STD, 24, crop=1, value_range=255, channel_order="BGR")
    blue_first = np.asarray(picture)[..., ::-1].astype(np.float32)
    by_hand = torch.from_numpy((blue_first - MEAN) / np.array(STD)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        found = model.logits(model.geometry.image(picture)[None])
        torch.testing.assert_close(found, net(by_hand), rtol=1e-5, atol=1e-5)
    facts = preprocessing_facts(model.preprocessing)
    assert facts["channel_order"] == "bgr" and "BGR, mean 0.482" in preprocessing_text(facts)


@pytest.mark.parametrize("method", [name for name, entry in ATTRIBUTIONS.items() if not entry.traits["control"]])
def test_maps_of_a_bgr_network_are_those_of_the_same_network_on_rgb(method):
    """Every method reaches the network through one door, so none can forget to turn the channels."""
    kept, other = seeded(Plain), turned(seeded(Plain))
    one = wrap(kept, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 16)
    two = wrap(other, (0.6, 0.5, 0.4), (0.4, 0.3, 0.2), 16, channel_order="bgr")
    x = images(2, 16)
    few = {"rise": {"masks": 40}, "iba": {"steps": 2}, "opticam": {"steps": 2}}
    few |= {name: {"steps": 2} for name in ("extremal-perturbation", "meaningful-perturbation")}
    try:
        expected, found = (
            heatproof.explain(m, x, {method: few.get(method, {})}, target=1, raw=True) for m in (one, two)
        )
    except NotApplicable:
        pytest.skip("the network has not what the method reads")
    scale = float(expected[method].abs().max())
    torch.testing.assert_close(found[method], expected[method], rtol=1e-3, atol=1e-4 * scale)

"""Networks with rectangular inputs: `explain`, `score` and `run` from files, with masks; nothing becomes a square."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof import cli
from heatproof.attributions import ATTRIBUTIONS
from heatproof.errors import HeatproofError, InvalidInput, NotApplicable
from heatproof.studies.store import connect

from . import nets

SIZES = [(64, 256), (32, 512)]


class Strip(nn.Module):
    """Class 1 where the right half is brighter than the left."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        found = self.features(x)
        middle = found.shape[3] // 2
        return self.head(found[..., middle:].mean((2, 3)) - found[..., :middle].mean((2, 3)))


def strip(high=64, wide=256):
    """A model for strips of images, for `python:`."""
    torch.manual_seed(3)
    return heatproof.wrap(Strip().eval(), size=(int(high), int(wide)), layer="features", device="cpu")


@pytest.fixture
def photographs(tmp_path):
    """Three images of the aspect, each with a bright object in the right half, and the masks of the objects."""

    def made(size):
        rng = np.random.default_rng(0)
        (tmp_path / "images").mkdir()
        (tmp_path / "masks").mkdir()
        for number in range(3):
            high, wide = size[0] * 2, size[1] * 2
            pixels = rng.integers(0, 120, (high, wide, 3)).astype(np.uint8)
            mask = np.zeros((high, wide), bool)
            mask[high // 4 : high // 2, wide // 2 : wide // 2 + wide // 5] = True
            pixels[mask] = 250
            Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
            Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "masks" / f"{number}.png")
        return tmp_path / "images", tmp_path / "masks"

    return made


def expected_mask(size):
    """The object in the network's input: 7/8 of each side are seen."""
    rows, columns = ((np.arange(side) + 0.5) / side * 7 / 8 + 1 / 16 for side in size)
    inside = (rows >= 0.25) & (rows < 0.5), (columns >= 0.5) & (columns < 0.7)
    return torch.from_numpy(inside[0][:, None] & inside[1][None])


@pytest.mark.parametrize("size", SIZES)
def test_explain_and_score(photographs, size):
    """The masks reach the metric as the image reaches the network: a map equal to the object is perfect."""
    images, masks = photographs(size)
    paths = sorted(images.iterdir())
    model = strip(*size)
    maps = heatproof.explain(model, paths, ["eigencam", "saliency"])
    assert maps["eigencam"].shape == (3, *size) and not any(maps.flags["eigencam"])
    own = [np.asarray(Image.open(path)) > 0 for path in sorted(masks.iterdir())]
    found = [model.geometry.mask(mask) for mask in own]
    assert all(float((one != expected_mask(size)).float().mean()) < 0.02 for one in found)
    scores = heatproof.score(model, paths, {"object": own}, ["pointing-game", "energy", "deletion[steps=4]"], masks=own)
    assert (scores.values("object", "pointing-game") == 1).all() and (scores.values("object", "energy") > 0.97).all()


@pytest.mark.parametrize("size", SIZES)
def test_run(photographs, size, tmp_path, monkeypatch):
    """A study of noise over a folder, with masks and the settings of the geometry on the command line."""
    images, masks = photographs(size)
    module = types.ModuleType("rectangular_strips")
    module.strip = strip  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rectangular_strips", module)
    words = ["run", "noise-robustness", "--model", "python:rectangular_strips:strip", "--model-arg", f"high={size[0]}",
             "--model-arg", f"wide={size[1]}", "--images", str(images), "--masks", str(masks), "--methods", "eigencam",
             "--controls", "none", "--perturbations", "gaussian-noise", "--severities", "1", "--segmenter", "grid",
             "--crop", "1", "--interpolation", "bicubic", "--workers", "1", "--resamples", "100",
             "--out", str(tmp_path / "out"), "--device", "cpu"]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert not stopped.value.code
    plan = json.loads((tmp_path / "out" / "study.json").read_text())
    seen = plan["models"][0]["preprocessing"]
    assert (seen["size"], seen["resize"], seen["interpolation"]) == (list(size), list(size), "bicubic")
    rows = (
        connect(tmp_path / "out").execute("SELECT metric, value, flag FROM rows WHERE method = 'eigencam'").fetchall()
    )
    assert {"rbo", "mask-cosine"} <= {metric for metric, _, _ in rows}
    assert not [row for row in rows if row[2]]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert (
        f"resized to cover {size[0]} × {size[1]}, centre crop {size[0]} × {size[1]} (height × width), bicubic" in page
    )


@pytest.mark.parametrize("size", [(96, 80), (7, 7)])
def test_a_network_of_one_size_says_which(size):
    """Every method and every metric on images that the network does not take: an error that says what it takes."""
    model, x = heatproof.load_model("shapes-vit"), torch.rand(1, 3, *size)
    for name in (*ATTRIBUTIONS, "refine:layercam"):
        with pytest.raises(HeatproofError) as caught:
            heatproof.explain(model, x, name)
        if not isinstance(caught.value, NotApplicable | InvalidInput):
            assert "It was made for 64 × 64: probably images must be resized to that" in str(caught.value), name
            assert caught.value.__cause__ is not None
    for name in ("insertion", "road", "mprt"):
        with pytest.raises(HeatproofError, match="made for 64 × 64"):
            heatproof.score(model, x, ["gradcam"], name)


def test_out_of_memory_at_another_size_is_no_matter_of_the_size():
    class Full(nets.Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    model = heatproof.wrap(nets.Plain(), size=16, layer="two")
    model.module.__class__ = Full
    with pytest.raises(torch.OutOfMemoryError):
        heatproof.explain(model, torch.rand(1, 3, 24, 24), "gradcam")

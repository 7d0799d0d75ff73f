"""Where calibrations come from: made once, kept, found again, and never mistaken for another's."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof import activation_statistics
from heatproof.activation_statistics import calibrate, calibration_of
from heatproof.errors import HeatproofWarning, InvalidInput
from heatproof.files import cache_folder
from heatproof.models import wrap
from heatproof.models.moments import Calibration, calibrated

from . import nets


class Counted(nets.Signed):
    """Counts the images that it sees."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        return super().forward(x)


def model_of(seed: int = 0, **about):
    return wrap(nets.seeded(Counted, seed), **{"size": (16, 12), "layer": "two", **about})


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HEATPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(activation_statistics, "_KEPT", {})
    monkeypatch.setattr(activation_statistics, "LEAVES", 20)
    return tmp_path / "cache" / "calibration"


def forgotten(monkeypatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(activation_statistics, "_KEPT", {})


@pytest.fixture
def folder(tmp_path) -> Path:
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        path = tmp_path / "images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def test_leaves_are_run_once_and_kept(kept, monkeypatch):
    model = model_of()
    first = calibration_of(model, "two")
    assert model.module.seen == 20 and [file.suffix for file in kept.iterdir()] == [".safetensors"]
    assert all(torch.equal(a, b) for a, b in zip(calibration_of(model, "two"), first, strict=True))
    forgotten(monkeypatch)
    other = model_of()
    again = calibration_of(other, "two")
    assert other.module.seen == 0 and model.module.seen == 20
    assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))
    assert first[0].shape == first[1].shape == (7, 8, 6)


def test_a_window_does_not_reach_procedural_images():
    """It is in the units of the user's files: leaves of 8 bits would be black under one of 16 bits."""
    plain, windowed = (next(activation_statistics._leaves(wrap(nn.Conv2d(3, 2, 1), size=32, window=w)))
                       for w in (None, (0, 4095)))  # fmt: skip
    assert torch.equal(plain, windowed)


def test_leaves_are_natural_enough_and_no_demo_image():
    """They vary everywhere, are the same at every call, and are no background of the Shapes."""
    from heatproof.data import demo_shapes

    model = model_of(size=96)
    first, again = (torch.cat(list(activation_statistics._leaves(model))) for _ in range(2))
    assert torch.equal(first, again) and first.shape == (20, 3, 96, 96)
    assert (first.std(0) > 0.05).all() and len({one.sum().item() for one in first}) == 20
    shapes = demo_shapes("test", 30)
    backgrounds = {shapes.background(i).tobytes() for i in range(30)}
    assert not backgrounds & {np.asarray(activation_statistics._leaf(96, i)).tobytes() for i in range(20)}


@pytest.mark.parametrize("change", ["weights", "layer", "normalisation", "size", "leaves"])
def test_what_decides_the_activations_decides_the_file(change, kept, monkeypatch):
    calibration_of(model_of(), "two")
    model = model_of(
        seed=int(change == "weights"),
        mean=0.3 if change == "normalisation" else 0.5,
        size=(12, 16) if change == "size" else (16, 12),
    )
    if change == "leaves":
        monkeypatch.setattr(activation_statistics, "LEAVES", 21)
    calibration_of(model, "one" if change == "layer" else "two")
    assert model.module.seen >= 20 and len(list(kept.iterdir())) == 2


def test_a_broken_file_is_made_anew(kept, monkeypatch):
    expected = calibration_of(model_of(), "two")
    (file,) = kept.iterdir()
    file.write_bytes(b"half")
    forgotten(monkeypatch)
    found = calibration_of(model_of(), "two")
    assert torch.equal(found[0], expected[0]) and Calibration.load(file).count == 20


def test_a_folder_is_a_source(folder, kept, monkeypatch):
    model = model_of()
    mean, deviation = calibration_of(model, "two", str(folder))
    expected = calibrate(model, folder)
    assert expected.count == 5
    torch.testing.assert_close(mean, expected.mean)
    torch.testing.assert_close(deviation, expected.std)
    x = torch.stack([model.geometry.image(Image.open(path)) for path in sorted(folder.iterdir())])
    torch.testing.assert_close(calibrated(model, "two", [x]).mean, mean)
    # Other images, another file; a broken image is left out.
    (folder / "0.png").write_bytes(b"no image")
    forgotten(monkeypatch)
    assert calibrate(model, str(folder), batch_size=2).count == 4
    assert not torch.equal(calibration_of(model, "two", str(folder))[0], mean)
    assert len(list(kept.iterdir())) == 2


def test_calibrate_writes_a_source(tmp_path):
    model, x = model_of(), nets.images(7, 16, 12)
    file = tmp_path / "calibration.safetensors"
    made = heatproof.calibrate(model, x, file, batch_size=3)
    assert (made.count, made.layer) == (7, "two") and model.module.seen == 7
    mean, deviation = calibration_of(model, "two", str(file))
    assert torch.equal(mean, made.mean) and torch.equal(deviation, made.std)
    # Written again in the same process, it is read again.
    calibrate(model, nets.images(9, 16, 12, seed=4), file)
    os.utime(file, ns=(1, 1))
    assert not torch.equal(calibration_of(model, "two", str(file))[0], mean)
    with pytest.raises(InvalidInput, match=r"layer 'one'. Got one for layer 'two'"):
        calibration_of(model, "one", str(file))
    with pytest.raises(InvalidInput, match=r"these weights.* Got one for 'Counted', layer 'two'"):
        calibration_of(model_of(seed=1), "two", str(file))


def test_layers_are_named_as_elsewhere():
    model, x = model_of(), nets.images(4, 16, 12)
    assert calibrate(model, x, layer=model.module.one).layer == "one"
    assert calibrate(nets.seeded(nets.Plain), nets.images(4, 32), layer="two").mean.shape == (8, 16, 16)


def test_signals_are_calibrated_from_a_file_alone(tmp_path):
    net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    model = wrap(net.eval(), input_shape=(1, 32), layer="1")
    with pytest.raises(InvalidInput, match=r"must be a file that heatproof.calibrate wrote.*takes no images"):
        calibration_of(model, "1")
    calibrate(model, torch.randn(6, 1, 32, generator=torch.Generator().manual_seed(0)), tmp_path / "one")
    assert calibration_of(model, "1", str(tmp_path / "one"))[0].shape == (4, 30)


def test_a_source_that_does_not_exist(tmp_path):
    with pytest.raises(InvalidInput, match=r"must be 'dead-leaves', a folder of images, or a file.*'dead-leafs'"):
        calibration_of(model_of(), "two", "dead-leafs")
    with pytest.raises(InvalidInput, match=r"`batch_size` must be at least 1. Got 0."):
        calibrate(model_of(), nets.images(4, 16, 12), batch_size=0)


def test_a_cache_that_cannot_be_written_is_said_and_survived(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEATPROOF_CACHE", str(tmp_path / "file"))
    model = model_of()
    with pytest.warns(HeatproofWarning, match="not kept for the next time. Cannot write"):
        calibration_of(model, "two")
    calibration_of(model, "two")
    assert model.module.seen == 20


def test_few_are_kept_in_memory(monkeypatch):
    monkeypatch.setattr(activation_statistics, "LEAVES", 2)
    for seed in range(12):
        calibration_of(model_of(seed), "two")
    assert len(activation_statistics._KEPT) == 8


def test_the_cache_is_where_people_look_for_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HEATPROOF_CACHE", "~/mine")
    assert cache_folder("calibration") == Path.home() / "mine" / "calibration"
    monkeypatch.delenv("HEATPROOF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("calibration") == tmp_path / "heatproof" / "calibration"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    for platform, parts in {
        "linux": (".cache",),
        "darwin": ("Library", "Caches"),
        "win32": ("AppData", "Local"),
    }.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder("calibration") == Path.home().joinpath(*parts, "heatproof", "calibration")

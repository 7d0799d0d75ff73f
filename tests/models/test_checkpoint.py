"""Weights from a file: every wrapping and prefix that training scripts use, and no code is ever run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from heatproof.errors import ModelError
from heatproof.models.checkpoint import load_weights, read_weights


def net(classes: int = 5) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


@pytest.fixture
def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {key: torch.rand_like(value.float()) for key, value in net().state_dict().items()}


def prefixed(prefix: str, weights: dict) -> dict:
    return {prefix + key: value for key, value in weights.items()}


WRITERS: dict[str, Callable[[dict, Path], object]] = {
    "plain": lambda w, f: torch.save(w, f),
    "state_dict": lambda w, f: torch.save({"epoch": 3, "state_dict": w, "optimizer": {"lr": 0.1}}, f),
    "model": lambda w, f: torch.save({"model": w, "args": [1, 2]}, f),
    "model_state_dict": lambda w, f: torch.save({"model_state_dict": w}, f),
    "model_ema alone": lambda w, f: torch.save(
        {"model_ema": prefixed("module.", w) | {"n_averaged": torch.tensor(9)}}, f
    ),
    "model before its average": lambda w, f: torch.save({"model_ema": {k: v + 1 for k, v in w.items()}, "model": w}, f),
    "DataParallel": lambda w, f: torch.save(prefixed("module.", w), f),
    "torch.compile": lambda w, f: torch.save(prefixed("_orig_mod.", w), f),
    "Lightning": lambda w, f: torch.save({"state_dict": prefixed("model.", w)}, f),
    "DataParallel around Lightning": lambda w, f: torch.save(prefixed("module.model.", w), f),
    "compiled, parallel": lambda w, f: torch.save(prefixed("module._orig_mod.", w), f),
    "compiled, parallel, the other way": lambda w, f: torch.save(prefixed("_orig_mod.module.", w), f),
    "half": lambda w, f: torch.save({k: v.half() for k, v in w.items()}, f),
    "before 0.4.1": lambda w, f: torch.save({k: v for k, v in w.items() if "num_batches" not in k}, f),
    "old format": lambda w, f: torch.save(w, f, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_training_scripts_save_is_loaded(writer: str, trained, tmp_path: Path) -> None:
    WRITERS[writer](trained, tmp_path / "weights.pt")
    module = net()
    load_weights(module, tmp_path / "weights.pt", "toy")
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            torch.testing.assert_close(value, trained[key], rtol=0, atol=1e-3 if writer == "half" else 0)


def test_safetensors_with_a_prefix_in_half_precision(trained, tmp_path: Path) -> None:
    save_file(prefixed("module.", {k: v.half() for k, v in trained.items()}), tmp_path / "weights.safetensors")
    module = net()
    load_weights(module, str(tmp_path / "weights.safetensors"), "toy")
    assert torch.equal(module[0].weight, trained["0.weight"].half().float())


def test_a_prefix_that_the_model_itself_has_is_kept(trained, tmp_path: Path) -> None:
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = net()

    torch.save(prefixed("model.", trained), tmp_path / "weights.pt")
    outer = Outer()
    load_weights(outer, tmp_path / "weights.pt", "toy")
    assert torch.equal(outer.model[0].weight, trained["0.weight"])


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("old", [False, True])
def test_a_file_that_would_run_code_is_refused_and_does_not(old: bool, trained, tmp_path: Path) -> None:
    content = {"state_dict": trained, "callback": Bomb(tmp_path / "boom")}
    torch.save(content, tmp_path / "bad.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(ModelError, match=r"would run code.*refused.*safetensors"):
        read_weights(tmp_path / "bad.pt")
    assert not (tmp_path / "boom").exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "module.pt")
    with pytest.raises(ModelError, match=r"state_dict\(\)"):
        read_weights(tmp_path / "module.pt")


@pytest.mark.parametrize("name", ["text.pt", "text.safetensors", "empty.pt", "empty.safetensors", "text.bin"])
def test_files_that_hold_no_weights_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("" if name.startswith("empty") else "not a checkpoint at all\n" * 20)
    with pytest.raises(ModelError, match=name):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], torch.zeros(3), {"state_dict": {}}])
def test_files_without_a_state_dict_say_what_they_hold(content, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match="Expected a state dict"):
        read_weights(tmp_path / "odd.pt")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(ModelError, match="Expected a checkpoint file"):
            read_weights(path)


def test_missing_and_unexpected_keys_are_named_and_counted(trained, tmp_path: Path) -> None:
    del trained["0.bias"], trained["3.weight"]
    torch.save(trained | {"extra.weight": torch.zeros(2)}, tmp_path / "weights.pt")
    module = net()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        load_weights(module, tmp_path / "weights.pt", "toy")
    text = str(caught.value)
    assert "2 of 9 keys missing (0.bias, 3.weight)" in text and "1 of 8 keys unexpected (extra.weight)" in text
    assert "toy" in text and "weights.pt" in text
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())  # nothing half-loaded


def test_many_keys_are_cut_short(tmp_path: Path) -> None:
    torch.save({f"k{i}": torch.zeros(1) for i in range(99)}, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"99 of 99 keys unexpected \(k0, k1, k2, k3, k4, …\)"):
        load_weights(net(), tmp_path / "weights.pt", "toy")


def test_another_number_of_classes_gets_the_argument_to_set(trained, tmp_path: Path) -> None:
    torch.save(trained, tmp_path / "weights.pt")
    with pytest.raises(
        ModelError, match=r"5 × 4 in the file and 7 × 4 in the model.*--model-arg num_classes=5, or in Python"
    ):
        load_weights(net(7), tmp_path / "weights.pt", "toy")


def test_another_shape_elsewhere_does_not(trained, tmp_path: Path) -> None:
    trained["0.weight"] = torch.zeros(4, 3, 5, 5)
    torch.save(trained, tmp_path / "weights.pt")
    with pytest.raises(ModelError, match=r"0\.weight is 4 × 3 × 5 × 5 in the file.*Check that architecture"):
        load_weights(net(), tmp_path / "weights.pt", "toy")

"""What `scripts/gpu.py` compares, counts and prints; nothing is timed, and no GPU is needed."""

import importlib
import importlib.util
import json
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

import heatproof

from . import nets
from .accelerator import accelerator

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # `benchmarks` is no part of the installed package
    sys.path.insert(0, str(ROOT))

agreement = importlib.import_module("benchmarks.agreement")
device_time = importlib.import_module("benchmarks.device_time")
floor = importlib.import_module("benchmarks.floor")
specification = importlib.util.spec_from_file_location("gpu_script", ROOT / "scripts" / "gpu.py")
gpu = importlib.util.module_from_spec(specification)  # type: ignore[arg-type]
specification.loader.exec_module(gpu)  # type: ignore[union-attr]


def subject(scale: float = 1.0) -> "agreement.Subject":
    """A small network whose copy on the device has other weights in its last layer, `scale` times as large."""

    def make(device: str) -> heatproof.Model:
        net = nets.seeded(nets.Plain)
        if device != "cpu":
            net.head.weight.data[0] *= scale
        return heatproof.wrap(net, size=16, layer="two", device=device)

    return agreement.Subject("small", make, nets.images(2))


@pytest.mark.parametrize(("scale", "fails"), [(1.0, False), (1.0 + 1e-6, False), (1.5, True)])
def test_maps_that_differ_are_failures(scale, fails):
    log = agreement.Log(time.monotonic() + 60)
    with accelerator():
        log.item("gradcam", lambda: _found(subject(scale)))
    assert [name for name, _ in log.failures] == (["gradcam"] if fails else [])
    assert log.records[0]["raw"] == pytest.approx(0.5 if fails else 0, abs=0.2 if fails else 1e-5)


def _found(given: "agreement.Subject") -> dict:
    return agreement._map(given.make("cpu"), given.make("cuda"), given.x, torch.zeros(2, dtype=torch.long), "gradcam")


def test_an_error_is_listed_with_its_line_and_the_rest_goes_on(capsys):
    log = agreement.Log(time.monotonic() + 60)
    log.item("first", lambda: heatproof.explain(nets.seeded(nets.Plain), nets.images(1), "gradcamm"))
    log.item("second", lambda: {"difference": 0.25})
    log.until = time.monotonic() - 1
    log.item("third", lambda: {"difference": 0.25})
    ((name, said),) = log.failures
    assert name == "first" and said.startswith("registry.py:") and "UnknownName: No method" in said
    assert log.skipped == ["third"] and log.records[1]["difference"] == 0.25
    assert "difference=0.25" in capsys.readouterr().out
    text = gpu.failures(log)
    assert "first: registry.py" in text and "third" in text and text.endswith("2 items, 1 failed.")
    log.failures *= 1000
    assert len(gpu.failures(log)) < 8000


def test_passes_are_priced_by_how_many_images_they_have():
    plain = device_time.Plain(None, torch.zeros(8, 3, 4, 4), "cpu")
    plain.seconds = {("forward", 8, "two"): 4.0, ("head", 2, "two"): 3.0, ("forward", 2, "two"): 1.0}
    made = floor.Made(floor.Passes(forward=2, head=1), floor.Passes(forward=16, head=2))
    assert plain.floor(made, 2, "two") == 16 / 8 * 4 + 3
    assert plain.floor(floor.Made(floor.Passes(forward=2), floor.Passes(forward=4)), 2, "two") == 2


def test_waits_are_counted_by_the_line_of_heatproof(monkeypatch):
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)

    def waiting(*_: object, **__: object) -> bool:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return False

    from heatproof.attributions import display

    monkeypatch.setattr(display, "degenerate", lambda maps: waiting() or torch.zeros(len(maps), dtype=torch.bool))
    with device_time.waits() as found:
        heatproof.explain(subject().make("cpu"), nets.images(1), "gradcam")
    ((line, count),) = found.items()
    assert line.startswith("attributions/display.py:") and line.endswith(" degeneracy") and count == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_script_says_so(capsys):
    assert gpu.main([]) == 2
    assert "no GPU" in capsys.readouterr().err


def test_conditions_that_share_a_pass_must_give_the_same_rows(monkeypatch):
    """With autocast rows may differ; what was found is recorded."""
    asked, moved = [], [0.0]

    def result(settings: dict) -> tuple:
        asked.append(settings)
        value = 0.5 + (moved[0] if settings["conditions_at_once"] == "auto" else 0.0)
        lower = {"used": True, "probability": 0.001, "beyond": []}
        facts = {"conditions_in_a_pass": {"shapes": 15}} if settings["conditions_at_once"] == "auto" else {}
        facts |= {"lower_precision": {"shapes": lower}} if settings.get("autocast") == "auto" else {}
        row = {"image": "a", "method": "gradcam", "perturbation": "", "severity": 0, "value": value}
        return pd.DataFrame([row]), facts, 2.0

    monkeypatch.setattr(device_time, "study_result", result)
    for gap, failures in ((0.0, 0), (0.1, 1)):
        moved[0] = gap
        log = agreement.Log(time.monotonic() + 60)
        device_time.filled(log, "cuda", 16, 1)
        one, several, autocast = log.records
        assert (one["conditions_in_a_pass"], several["conditions_in_a_pass"], several["beyond"]) == (1, 15, failures)
        assert autocast["autocast"] and autocast["probability"] == 0.001 and one["images_a_second"] == 8
        assert [name for name, _ in log.failures] == ["study several conditions a pass"] * failures
    log = agreement.Log(time.monotonic() + 60)
    device_time.filled(log, "cpu", 16, 1)
    assert asked[-1]["conditions_at_once"] == 4 and asked[-1]["autocast"] == "always"


def test_seconds_of_the_jobs_are_those_of_their_stage(monkeypatch):
    clock = iter([0.0, 5.0, 9.0, 20.0, 30.0])
    monkeypatch.setattr(agreement.time, "monotonic", lambda: next(clock))
    stages = agreement.Stages()
    for name in ("Loading", "Measuring what an image costs", "Measuring (3 forward passes an image)", "Gallery"):
        stages.stage(name, 1)
    assert stages.measuring == 11.0


def test_numbers_are_written(tmp_path):
    log = agreement.Log(time.monotonic() + 60)
    log.item("one", lambda: {"difference": 0.5})
    gpu.write(tmp_path / "gpu.json", {"device": "none"}, log)
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert found["results"][0]["difference"] == 0.5 and found["machine"] == {"device": "none"}

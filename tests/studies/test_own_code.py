"""A study whose methods, metrics, model or maps have changed is refused by name; the same code resumes it."""

import importlib
import re
import sys

import numpy as np
import pytest

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.errors import StoreError
from heatproof.metrics.catalogue import METRICS
from heatproof.studies import Measure, Plan, Study, register_study, run
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import Store
from heatproof.studies.study import unregister_study

SOURCE = '''
import torch
from torch import nn
import heatproof

GAIN = 1.0

def helper(x):
    """A helper of the method and the metric."""
    return x * GAIN

def method(model, inputs, targets, power=1.0):
    return helper(inputs.detach().abs().sum(1)) ** power

def metric(model, x_batch, y_batch, a_batch):
    return helper(a_batch).mean((1, 2, 3))

metric.better = "high"

class Net(nn.Module):
    gain = 1.0
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 2)
        self.head = nn.Linear(4, 3)
    def forward(self, x):
        return self.head(self.body(x).relu().mean((2, 3))) * self.gain

def network():
    torch.manual_seed(0)
    return heatproof.wrap(Net(), mean=0.5, std=0.25, size=32)
'''


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Writes the user's module, with a text replaced, as if a new process had imported it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(ATTRIBUTIONS), set(METRICS)

    def forget() -> None:
        sys.modules.pop("toy_code_of_user", None)
        for registry, known in zip((ATTRIBUTIONS, METRICS), before, strict=True):
            for name in set(registry) - known:
                registry.remove(name)

    def write(old: str = "", new: str = "") -> None:
        assert old in SOURCE
        (tmp_path / "toy_code_of_user.py").write_text(SOURCE.replace(old, new) if old else SOURCE)
        forget()
        importlib.invalidate_caches()

    yield write
    forget()


def score_plan(photographs, **settings):
    base = {"study": "score", "models": "shapes", "datasets": str(photographs), "methods": ["gradcam"],
            "metrics": ["complexity"], "controls": "none", "limit": 2, "resamples": 100}  # fmt: skip
    return checked_plan({**base, **settings})


OWN = "python:toy_code_of_user"
CASES = {
    "method": {"methods": ["gradcam", f"{OWN}:method[power=2]"]},
    "metric": {"metrics": ["complexity", f"{OWN}:metric"]},
    "model": {"models": [{"spec": f"{OWN}:network", "name": "mine"}]},
}


@pytest.mark.parametrize(
    ("kind", "old", "new", "named"),
    [
        ("method", "abs().sum(1)", "abs().amax(1)", f"the code of the method {OWN}:method is not the same"),
        ("method", "GAIN = 1.0", "GAIN = 2.0", f"the code of the method {OWN}:method is not the same"),
        ("metric", "x * GAIN", "x - GAIN", f"the code of the metric {OWN}:metric is not the same"),
        ("metric", '"high"', '"low"', f"the code of the metric {OWN}:metric is not the same"),
        ("model", "mean((2, 3))", "amax((2, 3))", "the code of the model mine is not the same"),
        ("model", "gain = 1.0", "gain = 2.0", "the code of the model mine is not the same"),
        ("model", "std=0.25", "std=0.5", "the code of the model mine is not the same"),
    ],
)
def test_changed_code_is_refused_by_name_and_the_same_code_resumes(
    edited, photographs, tmp_path, kind, old, new, named
):
    edited()
    assert run.run(score_plan(photographs, **CASES[kind]), tmp_path / "out", workers=1).ran == 1
    edited()
    assert run.run(score_plan(photographs, **CASES[kind]), tmp_path / "out", workers=1).ran == 0
    edited(old, new)
    with pytest.raises(StoreError, match="holds a study with other settings") as refused:
        run.run(score_plan(photographs, **CASES[kind]), tmp_path / "out", workers=1)
    assert named in str(refused.value)


def test_a_registered_function_and_its_options_count(photographs, tmp_path):
    def made(power):
        return lambda model, inputs, targets: inputs.detach().abs().sum(1) ** power

    def ran(power) -> int:
        heatproof.register("made here", made(power))
        try:
            return run.run(score_plan(photographs, methods=["made here"]), tmp_path / "out", workers=1).ran
        finally:
            PLUGIN_METHODS.unregister("made here")

    assert ran(2) == 1 and ran(2) == 0
    with pytest.raises(StoreError, match="the code of the method made here is not the same"):
        ran(3)


def test_maps_given_as_a_method_count_to_their_last_byte(photographs, tmp_path):
    (tmp_path / "maps").mkdir()
    for path in photographs.iterdir():
        np.save(tmp_path / "maps" / f"{path.stem}.npy", np.random.default_rng(0).random((200, 200)))
    name = f"maps:{tmp_path / 'maps'}"
    plan = score_plan(photographs, methods=["gradcam", name])
    try:
        run.run(plan, tmp_path / "out", workers=1)
        assert run.run(plan, tmp_path / "out", workers=1).ran == 0
        changed = np.load(file := next((tmp_path / "maps").iterdir()))
        changed[-1] = 0
        np.save(file, changed)
        with pytest.raises(StoreError, match=f"the code of the method {re.escape(name)} is not the same"):
            run.run(plan, tmp_path / "out", workers=1)
    finally:
        ATTRIBUTIONS.remove(name)


def test_the_conditions_and_measures_of_a_study_of_ones_own_count_and_its_tables_do_not(photographs, tmp_path):
    class OwnPlan(Plan):
        study: str = "own"

    def started(metric: str, table: float) -> int:
        settings = {
            "study": "own",
            "models": "shapes",
            "datasets": str(photographs),
            "methods": ["gradcam"],
            "limit": 1,
        }
        declared = Study("own", "own", "Own?", OwnPlan, lambda plan: [Measure(metric, column="it")],
                         tables={"own.csv": lambda findings: table and None})  # fmt: skip
        register_study(declared)
        try:
            return run.run(checked_plan(settings), tmp_path / "out", workers=1).ran
        finally:
            unregister_study("own")

    assert started("complexity", 1) == 1 and started("complexity", 2) == 0
    with pytest.raises(StoreError, match="the code of the study own is not the same"):
        started("coherency", 1)


def test_another_setting_of_images_is_no_other_code(edited, photographs, tmp_path):
    edited()
    plan = score_plan(photographs, models={"spec": "python:toy_code_of_user:network", "window": (0, 255)})
    run.run(plan, tmp_path / "out", workers=1)
    for changed in ({"window": (0, 100)}, {"window": (0, 255), "size": 24}, {"window": (0, 255), "mean": 0.25}):
        plan = score_plan(photographs, models={"spec": "python:toy_code_of_user:network", **changed})
        with pytest.raises(StoreError, match=next(iter({*changed} - {"window"}), "window")) as caught:
            run.run(plan, tmp_path / "out", workers=1)
        assert "the code" not in str(caught.value)


def test_a_study_without_code_of_the_users_records_none(photographs, tmp_path):
    run.run(score_plan(photographs), tmp_path / "out", workers=1)
    assert "code" not in (Store(tmp_path / "out").plan() or {})


def test_code_that_was_not_recorded_is_refused(edited, photographs, tmp_path):
    edited()
    plan = score_plan(photographs, **CASES["method"])
    run.run(plan, tmp_path / "out", workers=1)
    store = Store(tmp_path / "out")
    facts = store.plan()
    del facts["code"]
    store.write_plan(facts)
    with pytest.raises(StoreError, match=rf"the code of the method {OWN}:method was not recorded there"):
        run.run(plan, tmp_path / "out", workers=1)


def test_panels_made_with_other_code_are_made_anew(edited, photographs, tmp_path, capsys):
    from heatproof import cli

    words = ["explain", str(next(photographs.iterdir())), "--model", "shapes", "--methods", "gradcam",
             "--method-from", f"{OWN}:method", "--out", str(tmp_path / "out")]  # fmt: skip

    def said(*change: str) -> str:
        edited(*change)
        with pytest.raises(SystemExit):
            cli.main(words)
        return capsys.readouterr().out

    assert "from before" not in said()
    assert "1 of them from before" in said()
    assert "from before" not in said("abs().sum(1)", "abs().amax(1)")

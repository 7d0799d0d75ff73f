"""Users' own methods in studies: found by name in every process, sent to it, or refused before any work."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidStudy
from heatproof.studies import run
from heatproof.studies.settings import DEFAULT_METHODS
from heatproof.studies.store import connect
from heatproof.studies.studyfile import read_settings

SOURCE = """
import torch

def noisy(model, inputs, targets, power=1.0):
    grad = torch.autograd.grad(model(inputs).gather(1, targets[:, None]).sum(), inputs)[0]
    return (grad * inputs).abs().sum(1) ** power + 1e-3 * torch.rand(inputs.shape[0], *inputs.shape[2:])

def failing(model, inputs, targets):
    if float(inputs.detach().std()) > 0:
        raise FloatingPointError("it does not work")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "toy_study_methods.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    before = set(ATTRIBUTIONS)
    yield "toy_study_methods"
    sys.modules.pop("toy_study_methods", None)
    for name in set(ATTRIBUTIONS) - before:
        ATTRIBUTIONS.remove(name)


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "rows").iterdir())}


def test_a_function_by_name_and_a_registered_one_in_two_processes(module, small_plan, tmp_path):
    heatproof.register("noisy", f"python:{module}:noisy")
    own = [f"python:{module}:noisy[power=2]", "noisy"]
    plan = small_plan(methods=["gradcam", *own], perturbations=["gaussian-noise"])
    run.run(plan, tmp_path / "processes", workers=2)
    run.run(plan, tmp_path / "serial", workers=1)
    assert shards(tmp_path / "serial") == shards(tmp_path / "processes")
    query = "select count(*) n, count(value) finite from rows where method = ? and metric = 'rbo'"
    for method in own:
        assert connect(tmp_path / "serial").execute(query, [method]).fetchone() == (10, 10)


def test_what_cannot_be_sent_is_refused_before_any_work(module, small_plan, tmp_path):
    heatproof.register("mine", lambda model, inputs, targets: inputs.detach())
    plan = small_plan(methods=["mine"], perturbations=["gaussian-noise"], controls="none")
    with pytest.raises(InvalidInput, match=r"'mine' must be importable.*--workers 1"):
        run.run(plan, tmp_path / "out", workers=2)
    assert not (tmp_path / "out").exists()
    assert run.run(plan, tmp_path / "out", workers=1).ran == 3


def test_a_method_that_raises_is_flagged(module, small_plan, tmp_path):
    plan = small_plan(methods=["gradcam", f"python:{module}:failing"], perturbations=["gaussian-noise"])
    with pytest.warns(
        HeatproofWarning, match=r"method python:.*:failing failed .* FloatingPointError: it does not work"
    ):
        run.run(plan, tmp_path / "out", workers=1)
    rows = connect(tmp_path / "out")
    query = "select distinct flag, isnan(value) from rows where method like 'python:%' and metric = 'rbo'"
    assert rows.execute(query).fetchall() == [("clean: FloatingPointError: it does not work", True)]
    assert rows.execute("select count(*) from rows where method = 'gradcam' and flag = ''").fetchone()[0] > 0


def test_maps_made_beforehand(module, small_plan, photographs, tmp_path):
    names = sorted(path.stem for path in photographs.iterdir())
    for folder in (tmp_path / "maps", tmp_path / "maps" / "gaussian-noise-1"):
        folder.mkdir()
        for i, name in enumerate(names):
            np.save(folder / f"{name}.npy", np.random.default_rng(i).random((7, 7)))
    plan = small_plan(methods=["maps:maps"], perturbations=["gaussian-noise"], controls="none")
    run.run(plan, tmp_path / "out", workers=1)
    query = "select severity, count(*), min(value), max(value), max(flag) from rows where metric = 'rbo' group by 1"
    same, without = sorted(connect(tmp_path / "out").execute(query).fetchall())
    assert same[:2] == (1, 5)
    assert same[2] == pytest.approx(1)
    assert without[0] == 3
    assert without[4] == "there is no map of this image"


def test_in_a_study_file(module, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "study.yaml").write_text(f"methods: [gradcam, 'python:{module}:noisy', 'maps:maps']\n")
    settings, _ = read_settings(tmp_path / "study.yaml")
    assert settings["methods"] == ["gradcam", f"python:{module}:noisy", f"maps:{tmp_path / 'maps'}"]


def test_a_typing_error_costs_no_time(module, small_plan):
    with pytest.raises(InvalidStudy, match=r"`methods`.*Did you mean 'noisy'"):
        small_plan(methods=[f"python:{module}:noisi"])
    with pytest.raises(InvalidStudy, match=r"There is no nowhere"):
        small_plan(methods=["maps:nowhere"])


def caught(monkeypatch, position: str, words: list[str]) -> tuple:
    """What a command would start, without starting it."""
    from heatproof import cli

    started: list[tuple] = []
    monkeypatch.setattr(f"heatproof.cli.{position}", lambda *given: started.append(given))
    with pytest.raises(SystemExit) as done:
        cli.main(words)
    assert not done.value.code
    return started[0]


@pytest.mark.parametrize("own", [[], ["--methods", "layercam"]])
def test_method_from_on_the_command_line(module, monkeypatch, own):
    wanted = [f"python:{module}:noisy[power=2]", f"python:{module}:failing"]
    options = [word for spec in wanted for word in ("--method-from", spec)]
    run_words = ["run", "noise-robustness", "--model", "shapes", "--images", "shapes", "--out", "o", *own, *options]
    plan = caught(monkeypatch, "study_commands.start", run_words)[0]
    assert plan.methods == (*(own[1:] or DEFAULT_METHODS), *wanted)
    explain_words = ["explain", "cat.jpg", "--model", "shapes", "--out", "o", *own, *options]
    asked = caught(monkeypatch, "explain_commands._explain", explain_words)[4]
    assert asked["methods"] == [*(own[1:] or ["gradcam"]), *wanted]


def test_method_from_is_for_methods_from_elsewhere(monkeypatch, capsys):
    from heatproof import cli

    with pytest.raises(SystemExit) as done:
        cli.main(["run", "noise-robustness", "--model", "shapes", "--images", "shapes", "--method-from", "gradcam"])
    assert done.value.code == 2
    assert "--method-from must be python:" in capsys.readouterr().err

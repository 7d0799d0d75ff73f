"""`progress=`: silent by default, a bar of tqdm after two seconds, a user's function or object; never two bars."""

import sys

import pytest
import torch

import heatproof
from heatproof import progress
from heatproof.errors import InvalidInput

X = torch.rand(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return heatproof.load_model("shapes")


def test_a_function_is_told_every_step(model):
    for call, stage in (
        (lambda told: heatproof.explain(model, X, ["gradcam", "eigencam"], batch_size=2, progress=told), "Explaining"),
        (lambda told: heatproof.score(model, X, ["gradcam"], ["complexity"], batch_size=2, progress=told), "Scoring"),
        (lambda told: heatproof.check(model, X, progress=told), "Predicting"),
        (lambda told: heatproof.calibrate(model, X, batch_size=2, progress=told), "Calibrating"),
    ):
        steps = []
        call(lambda *step, steps=steps: steps.append(step))
        assert steps[0] == (stage, 0, 5)
        assert steps[-1] == (stage, pytest.approx(5), 5)
        done = [step[1] for step in steps]
        assert done == sorted(done) and len(done) > 1


def test_nothing_is_printed_by_default_and_an_error_passes_through(model, capfd):
    heatproof.explain(model, X, "gradcam")
    heatproof.score(model, X, "gradcam", "complexity")
    assert capfd.readouterr().err == ""

    def stop(*step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heatproof.explain(model, X, "gradcam", progress=stop)
    with pytest.raises(InvalidInput, match=r"`progress` must be True, False, a function .* Got str"):
        heatproof.explain(model, X, "gradcam", progress="yes")


def test_an_object_with_stage_and_advance_is_used_as_it_is():
    silent = progress.Silent()
    with progress.reported(silent) as bar:
        assert bar is silent


def test_true_is_a_log_without_a_terminal_and_tqdm_on_one(monkeypatch, capfd):
    with progress.reported(True) as bar:
        assert isinstance(bar, progress.Log)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "DELAY", 0.0)
    with progress.reported(True) as bar:
        bar.stage("First", 4)
        bar.advance(1.5)
        bar.stage("Second", 2)  # ends the first: no two bars at once
        bar.advance(1)
        bar._bar.refresh()
        assert bar._bar.n == 1 and bar._bar.total == 2
    assert bar._bar is None
    shown = capfd.readouterr().err
    assert "First" in shown and "50%" in shown and "left" in shown


def test_a_quick_stage_has_no_bar(monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.reported(True) as bar:
        bar.stage("Quick", 2)
        bar.advance(2)
    assert "Quick" not in capfd.readouterr().err

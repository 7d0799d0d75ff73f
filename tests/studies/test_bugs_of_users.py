"""A bug in a user's method or metric: named before any work, flagged in the rows, and no end of the study."""

import importlib
import math
import sys

import pytest
import torch

import heatproof
from heatproof.attributions import ATTRIBUTIONS, attribution
from heatproof.errors import HeatproofError, HeatproofWarning, InvalidInput, InvalidStudy
from heatproof.metrics.catalogue import METRICS, metric
from heatproof.studies import CLEAN, Measure, Plan, Study, register_study, run
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import connect
from heatproof.studies.study import unregister_study


@pytest.fixture(autouse=True)
def registries():
    """Whatever a test registers is taken out again."""
    before = [(registry, set(registry)) for registry in (ATTRIBUTIONS, METRICS)]
    yield
    for registry, known in before:
        for name in set(registry) - known:
            registry.remove(name)


def score_plan(photographs, **settings):
    base = {"study": "score", "models": "shapes", "datasets": str(photographs), "methods": ["gradcam"],
            "metrics": ["complexity"], "controls": "none", "resamples": 100}  # fmt: skip
    return checked_plan({**base, **settings})


def rows(folder, what: str) -> list[tuple]:
    return (
        connect(folder)
        .execute(f"select distinct flag, not isfinite(value) from rows where {what} order by all")
        .fetchall()
    )


BAD_MAPS = {
    "another number of maps": (lambda x: x[:1, 0], "one map for each of 2 images: (2, 32, 32). Got (1, 32, 32)"),
    "a dimension too many": (lambda x: x, "Got (2, 3, 32, 32)"),
    "another size": (lambda x: x[:, 0, :5], "Got (2, 5, 32)"),
    "an array": (lambda x: x[:, 0].numpy(), "must give a tensor. Got ndarray"),
    "nothing": (lambda x: None, "must give a tensor. Got NoneType"),
    "complex numbers": (lambda x: x[:, 0] * 1j, "must give real numbers. Got torch.complex64"),
    "raises": (lambda x: x.foo, "AttributeError: 'Tensor' object has no attribute 'foo'"),
    "no finite number": (lambda x: x[:, 0] * math.nan, "it gave no finite number"),
}


@pytest.mark.parametrize("bug", BAD_MAPS)
def test_a_methods_bug_is_named_beforehand_and_flagged_in_every_row(photographs, tmp_path, bug):
    give, said = BAD_MAPS[bug]

    @attribution("mine", form="display")
    def mine(x):
        return give(x)

    with pytest.warns(HeatproofWarning, match="The method mine failed on the first images") as warned:
        run.run(score_plan(photographs, methods=["gradcam", "mine"]), tmp_path / "out", workers=1)
    said = said.replace("32, 32", "96, 96").replace("5, 32", "5, 96")
    assert said in str(warned[0].message)
    ((flag, missing),) = rows(tmp_path / "out", "method = 'mine' and metric = 'complexity'")
    assert flag and (missing or bug == "no finite number")  # complexity states a value of a degenerate map
    assert rows(tmp_path / "out", "method = 'gradcam' and metric = 'complexity'") == [("", False)]


@pytest.mark.parametrize("give", [lambda x: x[:, 0].int(), lambda x: x[:, 0] > 0.5, lambda x: x[:, 0].double()])
def test_whole_numbers_and_masks_are_maps(photographs, tmp_path, give):
    attribution("mine", form="display")(lambda x: give(x + x.flip(2) * 7))
    run.run(score_plan(photographs, methods=["mine"]), tmp_path / "out", workers=1)
    assert rows(tmp_path / "out", "method = 'mine' and metric = 'complexity'") == [("", False)]


BAD_VALUES = {
    "too many": (lambda maps: maps.flatten(1), "must give 2 numbers, one for each image. Got (2, 9216)"),
    "one": (lambda maps: maps.mean(), "must give 2 numbers, one for each image. Got ()"),
    "text": (lambda maps: "high", "must give one number for each image. Got str"),
    "nothing": (lambda maps: None, "one for each image"),
    "complex numbers": (lambda maps: maps.mean((1, 2)) * 1j, "must give real numbers. Got torch.complex64"),
    "raises": (lambda maps: 1 / 0, "ZeroDivisionError: division by zero"),
    "its own InvalidInput": (lambda maps: heatproof.load_model("nothing"), "UnknownName: A model must be one of"),
    "no finite number": (lambda maps: maps.mean((1, 2)) * math.nan, "it gave no finite number"),
}


@pytest.mark.parametrize("bug", BAD_VALUES)
@pytest.mark.parametrize("registered", [True, False])
def test_a_metrics_bug_is_named_beforehand_and_flagged_in_every_row(photographs, tmp_path, bug, registered):
    give, said = BAD_VALUES[bug]
    filed = heatproof.register_metric if registered else None
    if filed:
        filed("mine", lambda maps: give(maps), better="high")
    else:
        metric("mine", family="fidelity", better="high", range=(None, None), passes="none", source="me")(
            lambda maps: give(maps)
        )
    with pytest.warns(HeatproofWarning, match="The metric mine failed on the first images") as warned:
        run.run(score_plan(photographs, metrics=["complexity", "mine"]), tmp_path / "out", workers=1)
    assert said in str(warned[0].message)
    ((flag, missing),) = rows(tmp_path / "out", "metric = 'mine'")
    assert missing and flag
    assert rows(tmp_path / "out", "metric = 'complexity'") == [("", False)]


@pytest.mark.parametrize("give", [lambda maps: maps.mean((1, 2)).numpy(), lambda maps: [0.5] * len(maps)])
def test_an_array_and_a_list_are_values(photographs, tmp_path, give):
    heatproof.register_metric("mine", lambda maps: give(maps), better="high")
    run.run(score_plan(photographs, metrics=["mine"]), tmp_path / "out", workers=1)
    assert rows(tmp_path / "out", "metric = 'mine'") == [("", False)]


def test_a_metric_of_pairs_with_a_bug_is_flagged(small_plan, photographs, tmp_path):
    class PairsPlan(Plan):
        study: str = "pairs"

    def bad(maps, reference):
        raise ValueError("no pair")

    metric("mine", family="stability", better="high", range=(None, None), passes="none", source="me")(bad)
    conditions = [CLEAN, heatproof.studies.Condition("gaussian-noise", 3)]
    register_study(Study("pairs", "pairs", "Pairs?", PairsPlan, ("cosine", "mine"), lambda plan: conditions))
    try:
        settings = {"study": "pairs", "models": "shapes", "datasets": str(photographs), "methods": ["gradcam"]}
        with pytest.warns(HeatproofWarning, match="The metric mine failed .* ValueError: no pair"):
            run.run(checked_plan(settings), tmp_path / "out", workers=1)
    finally:
        unregister_study("pairs")
    assert rows(tmp_path / "out", "metric = 'mine'") == [("ValueError: no pair", True)]
    assert ("", False) in rows(tmp_path / "out", "metric = 'cosine' and method = 'gradcam'")


def test_what_works_on_the_first_images_and_fails_later_is_flagged(photographs, tmp_path):
    def mine(model, inputs, targets):
        if (inputs.detach().amin() < -0.999) and len(inputs) != 2:
            raise ValueError("only now")
        return inputs.detach().abs().sum(1)

    heatproof.register("mine", mine)
    heatproof.register_metric("late", lambda maps: maps.mean((1, 2)) if len(maps) == 2 else maps, better="high")
    run.run(score_plan(photographs, methods=["gradcam", "mine"], metrics=["complexity", "late"]), tmp_path / "out",
            workers=1)  # fmt: skip
    assert rows(tmp_path / "out", "method = 'mine' and metric = 'complexity'") == [("ValueError: only now", True)]
    ((flag, missing),) = rows(tmp_path / "out", "method = 'gradcam' and metric = 'late'")
    assert missing and "must give 5 numbers" in flag


def test_what_fails_on_the_toy_alone_is_no_matter(photographs, tmp_path):
    """A method may need a layer of its network by name."""
    heatproof.register("mine", lambda model, inputs, targets: model.stem(inputs.detach()).abs())
    run.run(score_plan(photographs, methods=["mine"]), tmp_path / "out", workers=1)
    assert rows(tmp_path / "out", "method = 'mine' and metric = 'complexity'") == [("", False)]


def test_a_study_of_nothing_but_bugs_is_refused_before_any_work(photographs, tmp_path):
    attribution("mine", form="display")(lambda x: x.foo)
    heatproof.register_metric("bad", lambda maps: maps.foo, better="high")
    for settings, said in [
        ({"methods": ["mine"], "controls": "all"}, "Expected methods that run .* method mine: AttributeError"),
        ({"metrics": ["bad"]}, "Expected metrics that run .* metric bad: AttributeError"),
    ]:
        with pytest.raises(InvalidStudy, match=said), pytest.warns(HeatproofWarning, match="failed"):
            run.run(score_plan(photographs, **settings), tmp_path / "out", workers=1)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bug", [bug for bug in BAD_MAPS if bug not in ("raises", "no finite number")])
def test_explain_names_the_method(bug):
    give, said = BAD_MAPS[bug]
    attribution("mine", form="display")(lambda x: give(x))
    model = heatproof.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1),
                                               torch.nn.Flatten()), size=32)  # fmt: skip
    with pytest.raises(InvalidInput) as raised:
        heatproof.explain(model, torch.rand(2, 3, 32, 32), ["mine"])
    assert "'mine'" in str(raised.value) and said in str(raised.value)


@pytest.mark.filterwarnings("default::heatproof.errors.HeatproofWarning")
def test_the_command_line_says_no_unexpected_error(photographs, tmp_path, monkeypatch, capsys):
    from heatproof import cli

    (tmp_path / "toy_buggy.py").write_text(
        "def method(model, inputs, targets):\n    raise ValueError('a bug')\n"
        "def metric(maps):\n    return maps\nmetric.better = 'high'\n"
    )
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    words = ["score", str(photographs), "--model", "shapes", "--methods", "gradcam", "--method-from",
             "python:toy_buggy:method", "--metrics", "complexity,python:toy_buggy:metric", "--workers", "1",
             "--out", str(tmp_path / "out")]  # fmt: skip
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
    finally:
        sys.modules.pop("toy_buggy", None)
    err = capsys.readouterr().err
    assert not ended.value.code and "unexpected" not in err and "report it" not in err
    assert "note: The method python:toy_buggy:method failed on the first images" in err and "ValueError: a bug" in err
    assert "note: The metric python:toy_buggy:metric failed on the first images" in err
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "ValueError: a bug" in page and "must give 5 numbers" in page


def test_a_method_that_ends_the_process_is_a_flagged_method(photographs, tmp_path):
    @attribution("test-leaver", form="display")
    def leaver(x):
        sys.exit("enough")

    with pytest.warns(HeatproofWarning, match="test-leaver failed .* SystemExit"):
        run.run(score_plan(photographs, methods=["gradcam", "test-leaver"]), tmp_path / "out", workers=1)
    assert rows(tmp_path / "out", "method = 'gradcam' and metric = 'complexity'") == [("", False)]
    ((flag, _),) = rows(tmp_path / "out", "method = 'test-leaver' and metric = 'complexity'")
    assert "SystemExit" in flag


@pytest.mark.parametrize("what", ["measures", "conditions", "check"])
def test_the_functions_of_a_study_of_ones_own_are_named(photographs, tmp_path, what):
    class BadPlan(Plan):
        study: str = "bad"

    def bad(*given):
        raise KeyError("oh")

    settings = {"measures": lambda plan: [Measure("complexity")], what: bad}
    register_study(Study("bad", "bad", "Bad?", BadPlan, **settings))
    try:
        plan = checked_plan({"study": "bad", "models": "shapes", "datasets": str(photographs), "methods": ["gradcam"]})
        with pytest.raises(HeatproofError, match=f"The {what} of the study 'bad' failed. It raised KeyError"):
            run.run(plan, tmp_path / "out", workers=1)
    finally:
        unregister_study("bad")

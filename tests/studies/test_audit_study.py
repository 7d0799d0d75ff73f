"""The audit study: its rows are those of the studies it unites, and a budget decides how many images it takes."""

import re

import pandas as pd
import pytest
import torch
from torch import nn

import heatproof
from heatproof import cli
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidStudy
from heatproof.report import write_report, write_tables
from heatproof.studies import budget, jobs, loading, run
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import connect
from heatproof.studies.study import study_named

from ..audits import SMALL, made


@pytest.fixture(scope="module")
def audited(shared_folder):
    """The folder of a finished audit, with its page."""
    return shared_folder("audit", made)


def frame(folder, where: str) -> pd.DataFrame:
    sql = f"SELECT * EXCLUDE (study, version) FROM rows WHERE {where} ORDER BY ALL"
    return connect(folder).execute(sql).df()


def test_its_rows_are_those_of_the_studies_that_it_unites(audited, tmp_path):
    run.run(checked_plan({"study": "noise-robustness", **SMALL}), tmp_path / "noise", workers=1)
    noisy = "perturbation <> ''"
    pd.testing.assert_frame_equal(frame(audited, noisy), frame(tmp_path / "noise", noisy))
    alone = {name: value for name, value in SMALL.items() if name not in ("segmenters", "perturbations", "severities")}
    metrics = ["road", "arcc", "mprt", "energy"]
    run.run(checked_plan({"study": "score", **alone, "metrics": metrics}), tmp_path / "score", workers=1)
    same = "metric IN ('road', 'arcc', 'mprt', 'energy', 'road-curve', 'correct') AND method <> 'random'"
    clean = f"{same} AND perturbation = ''"  # `random` depends on the study
    pd.testing.assert_frame_equal(frame(audited, clean), frame(tmp_path / "score", clean))
    for folder in (audited, tmp_path / "score"):  # the draws do not depend on the weights, so the maps are equal
        assert (frame(folder, "metric = 'mprt' AND method = 'random'")["value"] == 1).all()


def test_the_page_answers_first(audited):
    page = (audited / "report.html").read_text("utf-8")
    order = [page.index(text) for text in ("recommended on 9 images", "Which method passes what", "What must not be")]
    assert order == sorted(order) and page.index("Robustness of each method") > order[-1]
    table = pd.read_csv(audited / "tables" / "audit.csv")
    assert set(table["question"]) == {
        *("faithful", "stable", "responds", "depends on the weights", "depends on the class", "points at the object"),
    }
    assert set(table["method"]) == {"gradcam", "eigencam"} and set(table["answer"]) <= {
        "pass",
        "fail",
        "cannot be told",
    }
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    names = {path.name for path in (audited / "tables").iterdir()}
    assert {"robustness.csv", "scores.csv", "statistics.csv", "score_statistics.csv"} <= names


def test_nothing_of_it_is_a_worker_of_its_own():
    study = study_named("audit")
    assert set(study.sections) > {"robustness", "scores"}
    assert {measure.metric for measure in study.measured(checked_plan({"study": "audit", **SMALL}))} > {"road", "mprt"}


# --- budget ---


@pytest.fixture
def costs(monkeypatch):
    """Seconds an image: 30 with three severities, 20 with one; of a second set of images, a tenth."""

    def seconds(setup, models):
        first = 20.0 if len(setup.plan.severities) == 1 else 30.0
        counts = [len(one.images.ids) for one in setup.datasets]
        return budget.Cost([first, first / 10][: len(counts)], counts)

    monkeypatch.setattr(budget, "measured_cost", seconds)


def budgeted(minutes: float, *images: int, **changes):
    """A study of sets of so many images, one of 200 by default, with a budget: the arguments of `within_budget`."""
    plan = checked_plan(
        {"study": "audit", **SMALL, "severities": [1, 3, 5], "limit": None, "budget": minutes, **changes}
    )
    datasets = tuple(
        jobs.Dataset(plan.datasets[0], heatproof.data.load_images("shapes", limit=count)) for count in images or (200,)
    )
    return jobs.Setup(plan, ("stage4",), datasets, "", "", "cpu"), loading.StudyModels(plan, "cpu")


def test_as_many_images_as_fit(costs, tmp_path):
    plan, estimate = budget.within_budget(*budgeted(60), budget.Store(tmp_path / "none"), workers=1)
    assert plan.limit == estimate.images == int(60 * 60 * 0.85 / 30) == 102
    assert plan.severities == (1, 3, 5) and 50 < estimate.minutes <= 60
    assert str(estimate) == " 102 of 200 images, about 60 min"
    plan, estimate = budget.within_budget(*budgeted(60), budget.Store(tmp_path / "none"), workers=2)
    assert plan.limit == int(60 * 60 * 0.85 * 1.8 / 30)
    plan, estimate = budget.within_budget(*budgeted(60, 40), budget.Store(tmp_path / "none"), workers=2)
    assert plan.limit is None and estimate.images == 40 and estimate.minutes < 15


def test_every_set_of_images_has_its_own_cost(costs, tmp_path):
    """The second set is cheap and short: `limit` counts the images of each set, the estimate those of all."""
    plan, estimate = budget.within_budget(*budgeted(60, 200, 60), budget.Store(tmp_path / "none"), workers=1)
    seconds = 60 * 60 * 0.85
    assert plan.limit == int((seconds - 60 * 3) / 30) == 96
    assert (estimate.images, estimate.of) == (96 + 60, 260)
    assert 60 * estimate.minutes == pytest.approx((96 * 30 + 60 * 3) / 0.85)
    plan, _ = budget.within_budget(*budgeted(60, 200, 300), budget.Store(tmp_path / "none"), workers=1)
    assert plan.limit == int(seconds / 33) == 92


def test_images_that_cannot_be_opened_are_passed_over_in_every_set(photographs, tmp_path):
    import shutil

    good, bad = tmp_path / "good", tmp_path / "bad"
    shutil.copytree(photographs, good)
    (good / "0.png").write_text("no image")
    bad.mkdir()
    (bad / "a.png").write_text("no image")
    given = {"study": "audit", **SMALL, "datasets": [str(good)]}
    plan = checked_plan(given)
    setup = jobs.Setup(plan, ("stage4",), run.open_datasets(plan), "", "", "cpu")
    cost = budget.measured_cost(setup, loading.StudyModels(plan, "cpu"))
    assert len(cost.seconds) == 1 and cost.seconds[0] > 0 and cost.counts == [len(list(good.iterdir()))]
    plan = checked_plan({**given, "datasets": [str(good), str(bad)], "budget": 1})
    setup = jobs.Setup(plan, ("stage4",), run.open_datasets(plan), "", "", "cpu")
    with pytest.raises(InvalidStudy, match=r"Expected an image of bad that can be measured. Got 1, and none can: "):
        budget.within_budget(setup, loading.StudyModels(plan, "cpu"), budget.Store(tmp_path / "none"), workers=1)


def test_a_cheaper_plan_comes_before_very_few_images(costs, tmp_path):
    with pytest.warns(HeatproofWarning, match=r"To fit the budget: severities \(3,\)"):
        plan, _ = budget.within_budget(*budgeted(12), budget.Store(tmp_path / "none"), workers=1)
    assert plan.severities == (3,) and plan.limit == int(12 * 60 * 0.85 / 20)


def test_a_budget_that_is_too_small_is_refused_with_what_it_takes(costs, tmp_path):
    with pytest.raises(InvalidStudy, match=r"A budget of 2 min is too small: an image costs 20.0 s, so 7 images take"):
        budget.within_budget(*budgeted(2), budget.Store(tmp_path / "none"), workers=1)
    with pytest.raises(InvalidStudy, match="`budget`"):
        budgeted(-1)


def test_a_study_with_a_budget_is_resumed_with_the_images_it_began_with(tmp_path, monkeypatch):
    given = {"study": "score", "models": "shapes", "datasets": "shapes", "methods": "gradcam", "metrics": "complexity",
             "controls": "none", "budget": 1, "batch_size": 4}  # fmt: skip
    monkeypatch.setattr(budget, "measured_cost", lambda setup, models: budget.Cost([5.1], [12]))
    assert run.run(checked_plan(given), tmp_path / "out", workers=1).ran == 3
    monkeypatch.setattr(budget, "measured_cost", lambda setup, models: budget.Cost([1.0], [12]))
    assert run.run(checked_plan(given), tmp_path / "out", workers=1) == run.Done(tmp_path / "out", 0, 3, jobs=3)
    page = write_report(tmp_path / "out").read_text("utf-8")
    assert "10 (shapes: 10 of 600 images, drawn with seed 0 from all 6 classes)" in page


def test_the_cost_of_an_image_is_measured_without_measuring_all_of_it():
    plan = checked_plan({"study": "audit", **SMALL})
    datasets = run.open_datasets(plan)
    setup = jobs.Setup(plan, ("stage4",), datasets, "", "", "cpu")
    cost = budget.measured_cost(setup, loading.StudyModels(plan, "cpu"))
    assert cost.counts == [9] and 0 < cost.seconds[0] < 60


# --- the methods it takes, and its two ways in ---


class Deep(nn.Module):
    """A classifier with a hidden layer in its head: Ablation-CAM would run it once for every channel."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)

    def forward(self, x):
        return self.head(self.features(x))


def test_ablation_cam_is_left_out_where_it_is_costly_unless_it_is_asked_for(monkeypatch):

    def checked(plan):
        return study_named("audit").check(plan, [], loading.StudyModels(plan, "cpu"))

    given = {"study": "audit", "datasets": "shapes"}
    assert "ablationcam" in checked(checked_plan({**given, "models": "shapes"})).methods
    deep = heatproof.wrap(Deep(), size=32, layer="features.1", device="cpu")
    monkeypatch.setitem(loading.GIVEN_MODELS, "deep", deep)
    model = {"spec": "given:deep", "layer": "features.1"}
    assert "ablationcam" not in checked(checked_plan({**given, "models": [model]})).methods
    asked = checked_plan({**given, "models": [model], "methods": ["ablationcam"]})
    assert checked(asked).methods == ("ablationcam",)


def test_one_call_in_python(tmp_path):
    less = SMALL | {"limit": 4, "methods": ["gradcam"], "perturbations": ["jpeg"]}
    given = {name: value for name, value in less.items() if name not in ("models", "datasets")}
    found = heatproof.audit(heatproof.load_model("shapes"), "shapes", out=tmp_path / "out", progress=False, **given)
    assert found.page.is_file() and found.folder == tmp_path / "out" and str(found).startswith(found.sentence)
    run.run(checked_plan({"study": "audit", **less}), tmp_path / "planned", workers=1)
    write_tables(tmp_path / "planned")
    filed = pd.read_csv(tmp_path / "planned" / "tables" / "audit.csv")
    pd.testing.assert_frame_equal(found.table.reset_index(drop=True), filed, check_dtype=False)
    assert not loading.GIVEN_MODELS
    with pytest.raises(InvalidInput, match=r"`model` must come from load_model or wrap, .* Got int"):
        heatproof.audit(3, "shapes")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": 3}, "`images` must be a folder, `shapes`, or files. Got 3"),
        ({"images": ["a.png", None]}, "`images` must be a folder, `shapes`, or files. Got None"),
        ({"images": ["a.png"]}, "There is no file a.png"),
        ({"checkpoint": "a.pt"}, "`checkpoint` belongs to loading"),
        ({"datasets": "shapes"}, "`datasets` is no setting of an audit"),
        ({"labels": 3}, "`labels` must be a path. Got 3"),
        ({"out": 3}, "`out` must be a path. Got 3"),
        ({"workers": 0}, "`workers` must be at least 1. Got 0"),
        ({"target": "top3"}, "one class of each image. Got 'top3'"),
        ({"imagess": 3}, "`imagess` is no setting"),
    ],
)
def test_mistakes_in_python(given, said):
    with pytest.raises(InvalidInput, match=re.escape(said)):
        heatproof.audit(heatproof.load_model("shapes"), **{"images": "shapes", **given})
    assert not loading.GIVEN_MODELS


def test_an_option_of_a_method_names_no_method():
    from heatproof.cli.study_commands import _plan

    plan = _plan({"study": "audit", "models": "shapes", "datasets": "shapes"}, [], ["integrated-gradients.steps=5"])
    assert "methods" not in plan.model_fields_set and len(plan.methods) == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "shapes", "--out", "x"], "--model must be given"),
        (["--model", "shapes", "--out", "x"], "--images must be given"),
        (["--model", "shapes", "--images", "shapes"], "--out must be given"),
        (["--model", "shapes", "--images", "nowhere", "--out", "x"], "There is no nowhere"),
        (["--model", "shapes", "--images", "shapes", "--out", "x", "--budget", "0"], "greater than 0"),
        (["--model", "shapes", "--images", "shapes", "--out", "x", "--metrics", "road"], "No such option"),
    ],
)
def test_mistakes_on_the_command_line(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["audit", *arguments])
    assert stopped.value.code in (1, 2) and said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_terminal_shows_the_answers(audited, capsys, monkeypatch):
    """The page is there already, and other tests read it."""
    monkeypatch.setattr("heatproof.report.write_page", lambda findings: audited / "report.html", raising=False)
    with pytest.raises(SystemExit):
        cli.main(["report", str(audited)])
    out = capsys.readouterr().out
    assert "depends on the" in out and "✓ pass" in out and "recommended on 9 images" in out
    assert f"Report: {audited / 'report.html'}" in out
    assert "complexity" not in out  # the table of scores is on the page

"""Studies of a network of values: a change of the answer is a stated tolerance, and nothing is made up of classes."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import heatproof
from heatproof.errors import HeatproofWarning, InvalidStudy, InvalidTarget, NotApplicable, StoreError
from heatproof.report import write_page, write_tables
from heatproof.studies.answers import changed, with_outputs, without_attacks
from heatproof.studies.audit import measures
from heatproof.studies.loading import GIVEN_MODELS, StudyModels
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.studies.store import connect

from ..test_values import Affine, head

SIDE = 32


@pytest.fixture(scope="module")
def years():
    model = heatproof.wrap(Affine(head()), size=SIDE, layer="inner.two", name="years")
    GIVEN_MODELS["years"] = model
    yield model
    del GIVEN_MODELS["years"]


def settings(photographs, study="noise-robustness", model=None, **more):
    base = {"study": study, "models": [{"spec": "given:years", "name": "years", "output": "value", **(model or {})}],
            "datasets": [str(photographs)], "methods": ["gradcam"], "controls": "none", "resamples": 100}  # fmt: skip
    noise = {"perturbations": ["gaussian-noise"], "severities": [3, 5], "segmenters": ["grid"]}
    return checked_plan({**base, **({} if study == "score" else noise), **more})


@pytest.fixture(scope="module")
def noisy(years, photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("values") / "noise"
    run(settings(photographs), folder, workers=1)
    return folder


def rows_of(folder) -> pd.DataFrame:
    return connect(folder).execute("SELECT * FROM rows").df()


def test_the_answer_changed_where_the_value_moved_by_more_than_the_tolerance(noisy):
    rows = rows_of(noisy)
    values = rows[rows["metric"] == "value"].pivot(index="image", columns="severity", values="value")
    [model] = json.loads((noisy / "study.json").read_text())["models"]
    assert model["output"] == "value"
    clean = values[0]
    assert model["tolerance"] == float(f"{(clean.max() - clean.min()) / 10:.3g}")  # 10 % of the range, the default
    seen = set()
    for severity in (3, 5):
        told = rows[(rows["metric"] == "value") & (rows["severity"] == severity)].set_index("image")["changed"]
        moved = (values[severity] - clean).abs() > model["tolerance"]
        assert told.astype(bool).to_dict() == moved.to_dict()
        seen |= set(moved)
    assert seen == {False, True}
    pairs = rows[(rows["metric"] == "rbo")]
    assert pairs["changed"].notna().all()


def test_nothing_is_made_up_of_classes(noisy):
    rows = rows_of(noisy)
    assert not {"correct", "probability"} & set(rows["metric"])
    for column in ("clean_class", "perturbed_class", "clean_probability", "perturbed_probability"):
        assert rows[column].isna().all()
    assert np.isfinite(rows.loc[rows["metric"] == "value", "value"]).all()


def test_the_page_states_the_tolerance_and_the_values(noisy):
    findings = write_tables(noisy)
    page = write_page(findings).read_text("utf-8")
    [model] = json.loads((noisy / "study.json").read_text())["models"]
    assert f"the answer counts as changed where it moves by more than {model['tolerance']:g}" in page
    assert findings.tables["robustness.csv"]["flip_rate"].notna().all()
    assert "class None" not in page


def test_another_tolerance_is_another_plan(noisy, years, photographs):
    with pytest.raises(StoreError, match="tolerance"):
        run(settings(photographs, model={"tolerance": 1000}), noisy, workers=1)


def test_a_score_study_leaves_out_what_has_no_meaning_and_refuses_it_by_name(years, photographs, tmp_path):
    with pytest.warns(HeatproofWarning, match="left out: arcc"):
        run(settings(photographs, "score"), tmp_path / "scores", workers=1)
    rows = rows_of(tmp_path / "scores")
    scored = rows[rows["method"] != ""]
    assert {"road", "coherency", "complexity", "insertion", "deletion"} <= set(scored["metric"])
    assert "arcc" not in set(scored["metric"])
    facts = json.loads((tmp_path / "scores" / "study.json").read_text())["metric_facts"]
    assert facts["deletion"]["range"] == [None, None]
    assert facts["deletion"]["summary"].startswith("Area under the target's value")
    write_page(write_tables(tmp_path / "scores"))
    with pytest.raises(NotApplicable, match="'average-drop' has no meaning for a network of values"):
        run(settings(photographs, "score", metrics=["average-drop"]), tmp_path / "drop", workers=1)


def test_what_needs_a_class_is_refused(years, photographs, tmp_path):
    with pytest.raises(InvalidStudy, match="'fgsm' leads away from a predicted class"):
        run(settings(photographs, perturbations=["fgsm"]), tmp_path / "a", workers=1)
    with pytest.raises(InvalidTarget, match="0, its only column"):
        run(settings(photographs, target="least"), tmp_path / "b", workers=1)
    with pytest.raises(InvalidStudy, match="goes with `output: value`"):
        checked_plan({"study": "score", "models": [{"spec": "shapes", "output": "logit", "tolerance": 1}],
                      "datasets": "shapes"})  # fmt: skip
    with pytest.raises(InvalidStudy, match=r"at least 0, or per cent"):
        settings(photographs, model={"tolerance": "-3"})


def test_the_audit_leaves_out_what_a_value_has_not(photographs):
    base = {"study": "audit", "models": [{"spec": "given:years", "output": "value"}], "datasets": str(photographs)}
    plan = checked_plan(base)
    names = {measure.metric for measure in measures(plan)}
    assert "road" in names
    assert not {"arcc", "random-logit"} & names
    with pytest.warns(HeatproofWarning, match="left out: fgsm"):
        assert without_attacks(plan).perturbations == ("gaussian-noise", "jpeg")


def test_a_model_that_says_it_itself_need_not_be_told_of_again(years, photographs):
    plan = checked_plan({"study": "score", "models": ["given:years"], "datasets": str(photographs)})
    assert with_outputs(plan, StudyModels(plan, "cpu")).models[0].output is None
    GIVEN_MODELS["years"] = years.as_values()
    try:
        assert with_outputs(plan, StudyModels(plan, "cpu")).models[0].output == "value"
    finally:
        GIVEN_MODELS["years"] = years


def test_a_value_changes_beyond_the_tolerance_and_a_class_where_another_is_on_top(years):
    values = years.as_values()
    before, now = torch.tensor([[58.0], [58.0], [58.0]]), torch.tensor([[59.0], [56.99], [58.0]])
    target = torch.zeros(3, dtype=torch.int64)
    assert changed(values, before, now, target, 1.0).tolist() == [False, True, False]
    two = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]])
    assert changed(years, *two, target[:1], 0.0).tolist() == [True]

"""Display names and the reference among the settings of a study: checked before any work, never part of the rows."""

import pytest

from heatproof.cli.options import display_names
from heatproof.errors import HeatproofError, InvalidInput, InvalidStudy, UnknownName
from heatproof.studies.naming import named_methods, with_names
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import Store
from heatproof.studies.study import study_named

HERE = {"study": "score", "models": "shapes", "datasets": "shapes", "methods": ["gradcam", "layercam"]}


def test_names_are_canonical():
    plan = checked_plan({**HERE, "labels": {"Layer-CAM": "Ours", "random": "Noise"}, "reference": "LayerCAM"})
    assert named_methods(plan) == {"labels": {"layercam": "Ours", "random": "Noise"}, "reference": "layercam"}
    done = with_names(plan, study_named("score"))
    assert (done.labels, done.reference) == ({"layercam": "Ours", "random": "Noise"}, "layercam")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": {"layrcam": "x"}}, "No method in `labels` is called 'layrcam'. Did you mean 'layercam'"),
        ({"labels": {"eigencam": "x"}}, "No method in `labels` is called 'eigencam'"),
        ({"labels": {"gradcam": "CAM", "layercam": "CAM"}}, "'gradcam' and 'layercam' would both be called 'CAM'"),
        ({"labels": {"gradcam": "layercam"}}, "would both be called 'layercam'"),
        ({"labels": {"GradCAM": "a", "gradcam": "b"}}, "must name each method once"),
        ({"labels": {"random": "x"}, "controls": "none"}, "No method in `labels` is called 'random'"),
        ({"reference": "layrcam"}, "No method for `reference` is called 'layrcam'. Did you mean 'layercam'"),
        ({"reference": "random"}, "No method for `reference` is called 'random'"),
        ({"reference": "gradcam", "methods": ["gradcam"]}, "needs another method"),
    ],
)
def test_wrong_names_are_refused(settings, message):
    with pytest.raises(InvalidStudy) as error:
        checked_plan({**HERE, **settings})
    assert message in str(error.value)


def test_methods_that_follow_from_the_network_are_checked_later():
    plan = checked_plan({**HERE, "study": "refine", "labels": {"refine:gradcam@stage:1": "Refined"}})
    arms = plan.model_copy(update={"methods": ("gradcam@stage:1", "refine:gradcam@stage:1")})
    assert with_names(arms, study_named("refine")).labels == {"refine:gradcam@stage:1": "Refined"}
    with pytest.raises(UnknownName):
        with_names(arms.model_copy(update={"labels": {"layercam": "x"}}), study_named("refine"))


def test_a_study_without_tests_of_methods_has_no_reference():
    plan = checked_plan({**HERE, "study": "parts", "models": "creatures", "reference": "gradcam"})
    with pytest.raises(HeatproofError, match=r"compares methods by scores or robustness\. The study"):
        with_names(plan, study_named("parts"))


def test_maps_made_beforehand_have_labels_too(tmp_path):
    plan = checked_plan({**HERE, "maps": {"mine": str(tmp_path)}, "labels": {"mine": "Mine"}, "reference": "mine"})
    assert named_methods(plan) == {"labels": {"mine": "Mine"}, "reference": "mine"}


def test_they_may_change_between_runs(tmp_path):
    store = Store(tmp_path)
    store.begin({"study": "score", "labels": {}, "reference": None, "jobs": 1})
    now = {"study": "score", "labels": {"gradcam": "GC"}, "reference": "gradcam", "jobs": 1}
    assert store.differences(now) == []
    store.begin(now)
    assert store.plan() == now


def test_what_is_typed():
    assert display_names(["layercam=LayerCAM (ours)", "rise[masks=80]=RISE = 80"]) == {
        "layercam": "LayerCAM (ours)",
        "rise[masks=80]": "RISE = 80",
    }
    assert display_names(["gradcam=2020-01-01"]) == {"gradcam": "2020-01-01"}
    for wrong in ("layercam", "=x", "layercam="):
        with pytest.raises(InvalidInput, match="--label must be METHOD=NAME"):
            display_names([wrong])
    with pytest.raises(InvalidInput, match="once"):
        display_names(["gradcam=a", "gradcam=b"])


def test_the_reference_may_be_called_by_its_display_name():
    plan = checked_plan({**HERE, "labels": {"layercam": "LayerCAM (ours)"}, "reference": "LayerCAM (ours)"})
    assert named_methods(plan)["reference"] == "layercam"

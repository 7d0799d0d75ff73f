"""Study files and settings: accepted values and error messages."""

from pathlib import Path
from typing import Any

import pytest

from heatproof.errors import InvalidStudy
from heatproof.statistics.robustness_changes import moved_borders
from heatproof.studies.noise_robustness import pair_measures
from heatproof.studies.plan import checked_plan
from heatproof.studies.studyfile import read_settings

GOOD = """
study: noise-robustness
models:
  - spec: timm:resnet18
    model_args: {num_classes: 10}
    mean: [.485, .456, .406]
  - shapes
datasets:
  - images: photos
    labels: labels.csv
methods: [GradCAMPlusPlus, eigencam]
severities: [3, 1, 3]
out: results
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_a_study_file_becomes_a_plan_with_canonical_names_and_anchored_paths(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "labels.csv").touch()
    settings, lines = read_settings(written(tmp_path, GOOD))
    assert settings.pop("out") == str(tmp_path / "results")
    plan = checked_plan(settings, lines)
    assert [model.label for model in plan.models] == ["timm:resnet18", "shapes"]
    assert plan.models[0].model_args == {"num_classes": 10}
    assert plan.models[0].mean == (0.485, 0.456, 0.406)
    assert plan.datasets[0].images == str(tmp_path / "photos")
    assert plan.datasets[0].label == "photos"
    assert plan.methods == ("gradcam++", "eigencam")
    assert plan.severities == (1, 3)
    assert len(plan.perturbations) == 8


def test_one_entry_needs_no_list():
    plan = checked_plan({"study": "noise-robustness", "models": "shapes", "datasets": "shapes", "methods": "hirescam"})
    assert (plan.models[0].spec, plan.datasets[0].images, plan.methods) == ("shapes", "shapes", ("hirescam",))


def test_an_index_is_a_target_and_true_means_the_default_flip_rates():
    plan = checked_plan(
        {"study": "noise-robustness", "models": "shapes", "datasets": "shapes", "target": 3, "calibrate": True}
    )
    assert (plan.target, plan.calibrate, plan.levels) == ("3", (0.05, 0.15, 0.3, 0.5), 4)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("severites: [1]", ["line 5", "`severites`", "Did you mean `severities`"]),
        ("severities: [9]", ["line 5", "1, 2, 3, 4, 5", "Got 9"]),
        ("methods: [gradcm]", ["line 5", "'gradcm'", "'gradcam'"]),
        ("perturbations: [gausian-noise]", ["line 5", "'gaussian-noise'"]),
        ("segmenters: [quickshit]", ["line 5", "'quickshift'"]),
        ("target: predicte", ["line 5", "'predicted'"]),
        ("limit: 0", ["line 5", "`limit`", "Got 0"]),
        ("limit: many", ["line 5", "`limit`", "Got 'many'"]),
        ("controls: some", ["line 5", "'all' or 'none'"]),
        ("methods: [random]", ["line 5", "controls"]),
        ("methods: []", ["line 5", "at least one"]),
        ("calibrate: [1.5]", ["line 5", "between 0 and 1"]),
        ("calibrate: true\nseverities: [1]", ["`severities` or `calibrate`", "Got both"]),
        ("models: [shapes, shapes]", ["'shapes' is there twice", "`name`"]),
        ("models: [{spec: shapes, chekpoint: x}]", ["line 5", "`checkpoint`"]),
    ],
)
def test_a_wrong_setting_names_the_field_the_line_and_what_is_allowed(tmp_path, line, expected):
    base = "study: noise-robustness\nmodels: [shapes]\ndatasets: [shapes]\n# a comment\n"
    if line.startswith("models"):
        base = base.replace("models: [shapes]\n", "\n")
    settings, lines = read_settings(written(tmp_path, base + line))
    with pytest.raises(InvalidStudy) as caught:
        checked_plan(settings, lines, "study.yaml")
    for text in ["study.yaml", *expected]:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: `a` is there twice"),
        ("a: [1", "must be YAML"),
        ("- a", "must hold settings"),
        ("a: !!python/object:os.system {}", "must be YAML"),
    ],
)
def test_what_is_no_study_file_is_said(tmp_path, text, expected):
    with pytest.raises(InvalidStudy, match=expected):
        read_settings(written(tmp_path, text))


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InvalidStudy, match="No such file"):
        read_settings(tmp_path / "nothing.yaml")


def test_a_study_of_another_name_gets_the_known_ones():
    with pytest.raises(InvalidStudy, match="Did you mean 'noise-robustness'"):
        checked_plan({"study": "noise-robustnes", "models": "shapes", "datasets": "shapes"})


def test_moved_borders_come_with_what_they_are_compared_to():
    base = {"study": "noise-robustness", "models": "shapes", "datasets": "shapes"}

    def segmenters(names, **more):
        plan: Any = checked_plan({**base, "segmenters": names, **more})
        assert {one.segmenter for one in pair_measures(plan)} == set(plan.all_segmenters)
        return plan.all_segmenters

    assert segmenters(["slic"]) == ("slic",)
    moved = segmenters(["slic", "grid"], boundaries=True)
    assert moved == ("slic", "grid", "split[of=slic]", "split-object[of=slic]", "grid[shift=0.5]")
    odd = segmenters(["grid[rows=3]"], boundaries=True)
    of_first = [("grid[rows=3]", one) for one in odd[1:3]]
    assert moved_borders(odd) == [*of_first, ("grid", "grid[shift=0.5]")]

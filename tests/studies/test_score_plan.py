"""The settings of a score study: accepted values, the resulting metrics, and error messages."""

import pytest

from heatproof import cli
from heatproof.errors import InvalidStudy
from heatproof.studies.plan import checked_plan
from heatproof.studies.score import ScorePlan
from heatproof.studies.studyfile import read_settings

BASE = {"study": "score", "models": "shapes", "datasets": "shapes"}


def planned(**settings) -> ScorePlan:
    return checked_plan({**BASE, **settings})


def test_defaults_are_six_cams_and_the_metrics_of_the_public_call():
    from heatproof.engine import DEFAULT_METRICS

    plan = planned()
    assert plan.metrics == DEFAULT_METRICS and len(plan.methods) == 6 and plan.controls == "all"


def test_metrics_are_canonical_and_composites_bring_their_parts():
    plan = planned(metrics=["ARCC", {"road": {"ties": "block"}}, "deletion[steps=4]"])
    assert plan.metrics == ("arcc", "road[ties=block]", "deletion[steps=4]")
    named, _ = plan.chosen_metrics(masked=False, mosaics=False)
    assert named == ["coherency", "complexity", "road", "arcc", "road[ties=block]", "deletion[steps=4]"]
    assert checked_plan({**BASE, "metrics": named}).chosen_metrics(masked=False, mosaics=False)[0] == named


def test_families_are_kept_until_it_is_known_whether_there_are_masks():
    plan = planned(metrics=["localisation", "complexity"])
    with_masks, left = plan.chosen_metrics(masked=True, mosaics=False)
    assert "pointing-game" in with_masks and left == ["grid-pointing-game"]
    without, left = plan.chosen_metrics(masked=False, mosaics=False)
    assert without == ["complexity"] and "pointing-game" in left


def test_options_of_metrics_reach_members_of_families():
    plan = planned(metrics=["fidelity"], metric_options={"deletion": {"steps": 4}})
    chosen, _ = plan.chosen_metrics(masked=False, mosaics=False)
    assert "deletion[steps=4]" in chosen and "deletion" not in chosen and "insertion" in chosen


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("maps", [("maps", None)]),
        ("theirs=maps", [("maps", "theirs")]),
        (["maps", "b=other"], [("maps", None), ("other", "b")]),
        ({"theirs": "maps", "b": "other"}, [("maps", "theirs"), ("other", "b")]),
        ([{"path": "maps", "name": "n"}, {"b": "other"}], [("maps", "n"), ("other", "b")]),
    ],
)
def test_maps_are_named_or_called_by_their_file(given, expected):
    plan = planned(maps=given, methods="gradcam")
    assert [(one.path, one.name) for one in plan.maps] == expected
    assert planned(maps="a/theirs.npz").maps[0].label == "theirs"


def test_with_maps_and_no_methods_the_maps_are_all():
    assert planned(maps="theirs.npz").methods == ()
    assert planned(maps="theirs.npz", methods="gradcam").methods == ("gradcam",)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("metrics: [rood]", ["line 5", "'rood'", "'road'"]),
        ("metrics: [fidelty]", ["line 5", "'fidelty'"]),
        ("metrics: ['family:fidelty']", ["line 5", "family of metrics", "'fidelity'"]),
        ("metrics: ['road[tis=block]']", ["line 5", "'tis'", "'ties'"]),
        ("metrics: []", ["line 5", "at least one"]),
        ("metric_options: {rood: {ties: block}}", ["line 5", "`metric_options`: No metric", "'road'"]),
        ("metric_options: {road: {tis: block}}", ["line 5", "'ties'"]),
        ("metrics: [complexity]\nmetric_options: {road: {ties: block}}", ["Options go with a metric", "'road'"]),
        ("methods: []", ["`methods`", "`maps`", "Got none"]),
        ("maps: [a/m.npz, b/m.npz]", ["maps: 'm' is there twice"]),
        ("maps: {gradcam: m.npz}\nmethods: [gradcam]", ["'gradcam' is a method's name too"]),
        ("maps: {random: m.npz}", ["'random' is a method's name too"]),
        ("maps: [{path: 3}]", ["line 5", "valid string", "Got 3"]),
        ("severities: [1]", ["line 5", "`severities` is no setting", "It belongs to the study noise-robustness"]),
        ("metrix: [road]", ["line 5", "Did you mean `metrics`"]),
        ("datasets: [{images: shapes, mask: x}]", ["line 5", "Did you mean `masks`"]),
    ],
)
def test_a_wrong_setting_names_the_field_the_line_and_what_is_allowed(tmp_path, line, expected):
    base = "study: score\nmodels: [shapes]\ndatasets: [shapes]\n# a comment\n"
    if line.startswith("datasets"):
        base = base.replace("datasets: [shapes]\n", "\n")
    (tmp_path / "study.yaml").write_text(base + line)
    settings, lines = read_settings(tmp_path / "study.yaml")
    with pytest.raises(InvalidStudy) as caught:
        checked_plan(settings, lines, "study.yaml")
    for text in ["study.yaml", *expected]:
        assert text in str(caught.value)


def test_a_misspelt_key_is_named_and_not_what_it_leaves_missing(tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text("study: score\nmodel: shapes\nimages: shapes\nworkerz: 2\nxyz: 9\n")
    with pytest.raises(SystemExit):
        cli.main(["plan", str(file)])
    told = capsys.readouterr().err
    assert "line 2: `model` is no setting. Did you mean `models`?" in told and "is missing" not in told
    assert "`images` is no setting. Did you mean `datasets`?" in told and "Did you mean `workers`?" in told
    assert "line 5: `xyz` is no setting. Known: study, models, " in told
    assert told.rstrip().endswith("maps, out, workers, executor, address, timeout.")


def test_paths_of_a_study_file_are_taken_from_its_folder(tmp_path):
    for name in ("photos", "masks", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "score.yaml").write_text(
        "study: score\nmodels: shapes\ndatasets: {images: photos, masks: masks}\nmaps: [theirs, 'b=theirs']\n"
    )
    plan = checked_plan(*read_settings(tmp_path / "score.yaml"))
    assert plan.datasets[0].masks == str(tmp_path / "masks")
    assert [(one.label, one.path) for one in plan.maps] == [
        ("theirs", str(tmp_path / "theirs")), ("b", str(tmp_path / "theirs"))]  # fmt: skip


def test_a_setting_of_scores_is_none_of_the_noise_study():
    with pytest.raises(InvalidStudy, match=r"`metrics` is no setting\. It belongs to the study score"):
        checked_plan({"study": "noise-robustness", "models": "shapes", "datasets": "shapes", "metrics": "road"})


def test_files_are_one_set_of_images():
    plan = planned(datasets=[{"images": ["a.png", "b.png"]}])
    assert plan.datasets[0].images == ("a.png", "b.png") and plan.datasets[0].label == "images"

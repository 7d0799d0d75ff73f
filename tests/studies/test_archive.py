"""`study.yaml`: every setting of a study, from which the same study is made, and run again."""

import pytest
import yaml
from typer.testing import CliRunner

from heatproof.cli import app
from heatproof.errors import InvalidStudy
from heatproof.studies.archive import archived, read_archive, refuse_itself, refuse_missing
from heatproof.studies.plan import checked_plan
from heatproof.studies.study import study_names

HERE = {"models": "shapes", "datasets": "shapes"}


@pytest.mark.parametrize("name", study_names())
def test_the_settings_make_the_same_study(name):
    plan = checked_plan({"study": name, **HERE} if name != "parts" else {"study": name})
    again = checked_plan(yaml.safe_load(yaml.safe_dump(archived(plan, plan))))
    named = [one.model_copy(update={"name": one.label}) for one in (*plan.models, *plan.datasets)]
    assert [*again.models, *again.datasets] == named
    assert again.model_copy(update={"models": plan.models, "datasets": plan.datasets}) == plan


def test_what_was_given_is_kept_where_the_study_makes_its_methods():
    plan = checked_plan({"study": "refine", **HERE, "methods": ["gradcam", "layercam"]})
    arms = plan.model_copy(update={"methods": ("gradcam@stage:1", "refine:gradcam@stage:1", "gradient")})
    assert archived(plan, arms)["methods"] == ["gradcam", "layercam"]


def test_what_a_study_left_out_stays_out():
    plan = checked_plan({"study": "audit", **HERE, "methods": ["gradcam", "ablationcam"], "budget": 3})
    done = plan.model_copy(update={"methods": ("gradcam",), "limit": 17})
    settings = archived(plan, done)
    assert settings["methods"] == ["gradcam"]
    assert settings["limit"] == 17
    assert "budget" not in settings


def test_paths_are_whole_and_names_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "weights.safetensors").write_bytes(b"")
    model = {"spec": "timm:resnet18", "checkpoint": "weights.safetensors"}
    plan = checked_plan({"study": "score", "models": [model], "datasets": ["photos", "mosaic:photos"]})
    settings = archived(plan, plan)
    assert settings["models"][0]["checkpoint"] == str(tmp_path / "weights.safetensors")
    assert settings["models"][0]["spec"] == "timm:resnet18"
    assert [one["images"] for one in settings["datasets"]] == [str(tmp_path / "photos"), f"mosaic:{tmp_path}/photos"]
    assert [one["name"] for one in settings["datasets"]] == ["photos", "mosaic:photos"]


def test_missing_paths_are_named_together(tmp_path):
    model = {"spec": "timm:resnet18", "checkpoint": "/gone/weights.pt", "name": "mine"}
    data = {"images": "mosaic:/gone/photos", "masks": str(tmp_path), "name": "photos"}
    with pytest.raises(InvalidStudy) as error:
        refuse_missing({"models": [model], "datasets": [data, {"images": "shapes"}]}, tmp_path)
    assert "/gone/weights.pt (checkpoint of mine); /gone/photos (images of photos)." in str(error.value)
    assert str(tmp_path) + " (masks" not in str(error.value)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(InvalidStudy, match="must be a study file, or a folder of results"):
        read_archive(tmp_path)
    (tmp_path / "study.json").write_text('{"command": "heatproof run score --out old"}')
    with pytest.raises(InvalidStudy, match=r"older version\. It was made by: heatproof run score --out old"):
        read_archive(tmp_path)


def test_what_was_in_memory_cannot_be_repeated(tmp_path):
    (tmp_path / "study.yaml").write_text("study: score\nmodels: [{spec: 'given:net'}]\ndatasets: [shapes]\n")
    with pytest.raises(InvalidStudy, match="with model in memory \\('net'\\)"):
        read_archive(tmp_path)


def test_results_are_not_overwritten(tmp_path):
    with pytest.raises(InvalidStudy, match="must be a new folder"):
        refuse_itself(tmp_path, tmp_path / "." / "")


def test_a_study_is_repeated_to_the_same_bytes(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run = CliRunner()
    typed = ["score", "shapes", "--limit", "4", "--model", "shapes", "--methods", "gradcam,eigencam"]
    typed += ["--metrics", "average-drop,complexity", "--label", "eigencam=Eigen-CAM", "--reference", "gradcam"]
    done = run.invoke(app, [*typed, "--workers", "1", "--no-report", "--out", str(first)])
    assert not done.exit_code, done.output
    done = run.invoke(app, ["run", str(first), "--workers", "1", "--no-report", "--out", str(second)])
    assert not done.exit_code, done.output
    settings = [(folder / "study.yaml").read_text().partition("\n")[2] for folder in (first, second)]
    assert settings[0] == settings[1]
    names = sorted(path.relative_to(first) for path in first.glob("rows/*.parquet"))
    assert names
    for name in [*names, "tables/scores.csv", "tables/statistics.csv"]:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    refused = run.invoke(app, ["run", str(first), "--out", str(first)])
    assert isinstance(refused.exception, InvalidStudy)


def test_a_calibrated_study_can_be_repeated_from_its_folder(photographs, tmp_path):
    from heatproof.studies.plan import checked_plan
    from heatproof.studies.run import run

    settings = {"study": "noise-robustness", "models": ["shapes"], "datasets": [str(photographs)], "limit": 2,
                "methods": ["eigencam"], "perturbations": ["gaussian-noise"], "segmenters": ["grid"],
                "calibrate": [0.3]}  # fmt: skip
    run(checked_plan(settings), tmp_path / "out", workers=1)
    from heatproof.studies.archive import read_archive

    again, lines = read_archive(tmp_path / "out")
    assert "severities" not in again and checked_plan(again, lines).calibrate == (0.3,)

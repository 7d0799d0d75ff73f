"""The study of parts: from images to tables, page and verdict; what it refuses, and what it marks."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import heatproof
from heatproof import report
from heatproof.data import load_images
from heatproof.errors import InvalidInput, InvalidStudy
from heatproof.models import wrap
from heatproof.models.shapesnet import shapesnet
from heatproof.progress import Log
from heatproof.statistics.special_rows import BACKGROUND
from heatproof.studies.cost import Passes, PassesMade
from heatproof.studies.ground_truth import GroundTruth
from heatproof.studies.part_cost import SAMPLES, part_samples
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.studies.settings import DatasetPlan

from ..data.funnybirds_folder import funnybirds

COMMON = {"study": "parts", "methods": ["gradcam", "input-x-gradient"], "controls": "none", "resamples": 100}


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.concat([pq.read_table(path).to_pandas() for path in sorted((folder / "rows").glob("*.parquet"))])


@pytest.fixture(scope="module")
def study(shared_folder):
    plan = checked_plan({**COMMON, "limit": 4, "batch_size": 4})
    return shared_folder("parts-study", lambda folder: run(plan, folder, workers=1))


def test_the_tables_hold_every_method_and_its_threshold(study, tmp_path):
    folder = shutil.copytree(study, tmp_path / "copy")
    findings = report.write_tables(folder)
    table = pd.read_csv(folder / "tables" / "parts.csv")
    thresholds = pd.read_csv(folder / "tables" / "thresholds.csv")
    assert set(table["method"]) == set(thresholds["method"]) == {"gradcam", "input-x-gradient"}
    assert set(table["dataset"]) == {"creatures"} and set(thresholds["validation"]) == {"creatures:val"}
    assert table["score"].between(0, 1).all() and thresholds["threshold"].between(0.01, 0.5).all()
    images = pq.read_table(folder / "tables" / "pictures.parquet").to_pandas()
    assert len(images) == 8 and images["score"].notna().any()
    sums = table.set_index("method")[["completeness", "correctness", "contrastivity", "score"]]
    assert (sums["score"] - sums.iloc[:, :3].mean(1)).abs().max() < 1e-9
    page = report.write_page(findings).read_text(encoding="utf-8")
    assert "Do the maps weigh the parts?" in page and "The threshold above which a part is important" in page
    assert "does not apply" not in page
    assert (folder / "figures" / "parts.svg").is_file() and (folder / "figures" / "thresholds.svg").is_file()


def test_every_check_has_a_row_at_80_thresholds(study):
    rows = rows_of(study)
    curves = rows[rows["metric"] == "part-deletion-curve"]
    assert len(curves) == 2 * 4 * 2 * 80 and curves["strength"].nunique() == 80
    independence = rows[rows["metric"] == BACKGROUND]
    assert len(independence) == 8 and (independence["n"] >= 2).all() and independence["value"].between(0, 1).all()


def test_batches_of_another_size_give_the_same_rows(study, tmp_path):
    plan = checked_plan({**COMMON, "limit": 4, "batch_size": 3})
    run(plan, tmp_path / "other", workers=1)
    key = ["dataset", "image", "method", "metric", "strength"]
    one, other = (rows_of(folder).sort_values(key).reset_index(drop=True) for folder in (study, tmp_path / "other"))
    parts = one["metric"].str.startswith("part-")
    assert parts.sum() == (other["metric"].str.startswith("part-")).sum()
    pd.testing.assert_frame_equal(one[parts][[*key, "value", "flag"]], other[parts][[*key, "value", "flag"]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": ["shapes", "creatures:val"]}, "needs images made of parts that can be removed. Got shapes"),
        ({"datasets": ["creatures"]}, "needs a test set and a validation set"),
        ({"validation": "creatures:train"}, "`validation` must be one of creatures, creatures:val"),
        (
            {"datasets": [{"images": "creatures", "name": "a"}, {"images": "creatures", "name": "b"}]},
            "must not be among those of a",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message, tmp_path):
    plan = checked_plan({**COMMON, "limit": 4, **settings})
    with pytest.raises(InvalidStudy, match=message):
        run(plan, tmp_path / "out", workers=1)


def test_a_network_of_other_classes_is_refused(tmp_path):
    plan = checked_plan({**COMMON, "models": "shapes", "limit": 2})
    with pytest.raises(InvalidInput, match="must have the 12 classes of creatures"):
        run(plan, tmp_path / "out", workers=1)


def test_a_score_study_takes_the_family_where_there_are_parts(tmp_path):
    common = {"study": "score", "models": "creatures", "methods": ["gradcam"], "controls": "none", "limit": 2}
    run(checked_plan({**common, "datasets": "creatures", "metrics": ["parts"]}), tmp_path / "out", workers=1)
    rows = rows_of(tmp_path / "out")
    assert rows[rows["metric"] == "part-correctness"]["value"].notna().all()
    other = {**common, "models": "shapes", "datasets": "shapes", "metrics": ["parts", "complexity"]}
    run(checked_plan(other), tmp_path / "on", workers=1)
    assert not rows_of(tmp_path / "on")["metric"].str.startswith("part-").any()
    with pytest.raises(InvalidInput, match="'parts' needs images made of parts"):
        heatproof.score(heatproof.load_model("creatures"), load_images("shapes", limit=1), "gradcam", "parts")


def test_a_network_that_is_often_wrong_is_marked(tmp_path):
    plan = checked_plan(
        {**COMMON, "models": [{"spec": "creatures", "model_args": {"pretrained": False}}], "methods": ["gradcam"],
         "limit": 3}
    )  # fmt: skip
    run(plan, tmp_path / "out", workers=1)
    findings = report.write_tables(tmp_path / "out")
    page = report.write_page(findings).read_text(encoding="utf-8")
    assert findings.answers[0].sentence.startswith("The ground truth does not apply")
    assert "the ground truth does not apply to this network" in page


def bird_network():
    """A network of four classes for the birds' folder; its weights do not matter here."""
    torch.manual_seed(0)
    return wrap(shapesnet(4).eval(), size=32, resize=None, mean=0.5, std=0.5, device="cpu")


def test_the_birds_folder_runs_and_a_missing_file_is_a_flagged_row(tmp_path, monkeypatch):
    folder = funnybirds(tmp_path / "birds", 6)
    (folder / "test_interventions" / "1" / "000001" / "body_eye_foot_tail_wing.png").unlink()
    (folder / "test_part_map" / "2" / "000002.png").unlink()
    (folder / "test" / "3" / "000003.png").unlink()
    monkeypatch.setattr("heatproof.studies.loading.load_model", lambda *a, **k: bird_network())
    datasets = [f"funnybirds-val:{folder}", f"funnybirds-test:{folder}"]
    plan = checked_plan({**COMMON, "methods": ["gradcam"], "models": "creatures", "datasets": datasets})
    run(plan, tmp_path / "out", workers=1)
    rows = rows_of(tmp_path / "out")
    flags = rows[rows["metric"] == "part-correctness"].set_index("image")["flag"]
    assert "test_interventions/1/000001/body_eye_foot_tail_wing.png" in flags["1/000001.png"]
    assert "test_part_map/2/000002.png" in flags["2/000002.png"]
    assert "test/3/000003.png" in flags["3/000003.png"]
    assert flags["0/000000.png"] == flags["0/000004.png"] == ""
    values = rows[rows["metric"] == "part-correctness"].set_index("image")["value"]
    assert values.notna().tolist() == (flags == "").tolist()
    assert report.write_tables(tmp_path / "out").plan["validation"] == "birds:val"
    assert pd.read_csv(tmp_path / "out" / "tables" / "parts.csv")["dataset"].tolist() == ["birds:test"]


def test_the_first_part_map_may_be_missing_too(tmp_path, monkeypatch):
    folder = funnybirds(tmp_path / "birds", 6)
    for name in ("0/000000", "1/000001"):
        (folder / "test_part_map" / f"{name}.png").unlink()
    monkeypatch.setattr("heatproof.studies.loading.load_model", lambda *a, **k: bird_network())
    datasets = [f"funnybirds-test:{folder}", f"funnybirds-val:{folder}"]
    plan = checked_plan({**COMMON, "methods": ["gradcam"], "models": "creatures", "datasets": datasets})
    done = run(plan, tmp_path / "out", workers=1, progress=Log())
    assert done.passes is not None and done.passes.needed.forward > 0
    rows = rows_of(tmp_path / "out")
    flags = rows[rows["metric"] == "part-correctness"].set_index("image")["flag"]
    assert all(f"test_part_map/{name}.png" in flags[f"{name}.png"] for name in ("0/000000", "1/000001"))
    assert (flags == "").sum() == 4


def test_the_passes_told_are_about_those_made(tmp_path):
    plan = checked_plan({**COMMON, "controls": "all", "limit": 6, "batch_size": 6})
    done = run(plan, tmp_path / "out", workers=1, progress=Log())
    assert done.passes is not None and done.passes.images == 12
    made, needed = done.passes.made, done.passes.needed
    assert 1 / 1.25 < made.forward / needed.forward < 1.25 and 1 / 1.25 < made.backward / needed.backward < 1.25
    text = str(PassesMade(Passes(412, 0), Passes(400, 0), 2))
    assert text == "Passes of 2 images: 412 forward (1.03 × the 400 told)."


def test_the_count_looks_at_images_that_can_be_read(tmp_path):
    folder = funnybirds(tmp_path / "birds", 12)
    assert part_samples(load_images("shapes", limit=2)) == []
    (folder / "test_part_map" / "0" / "000000.png").unlink()
    (folder / "test" / "1" / "000001.png").unlink()
    rows = [one.row for one in part_samples(load_images(f"funnybirds:{folder}"))]
    assert len(rows) == SAMPLES and len(set(rows)) == SAMPLES and not {0, 1} & set(rows)


@pytest.mark.parametrize(
    ("images", "label", "validates"),
    [
        ("funnybirds-test:/x/fb", "fb:test", False),
        ("funnybirds-val:/x/fb", "fb:val", True),
        ("funnybirds:/x/fb", "fb", False),
        ("mosaic:/x/fb", "mosaic:fb", False),
        ("mosaic:funnybirds-val:/x/fb", "mosaic:fb:val", False),
        ("creatures:val", "creatures:val", True),
        ("/x/fb", "fb", False),
        ("photos", "photos", False),
    ],
)
def test_sets_of_one_folder_have_names_of_their_own(images, label, validates):
    one = DatasetPlan.model_validate({"images": images})
    assert (one.label, one.validates) == (label, validates)


def test_whether_a_set_has_masks_does_not_depend_on_its_first_image(tmp_path):
    folder = funnybirds(tmp_path / "birds", 4)
    (folder / "test_part_map" / "0" / "000000.png").unlink()
    images = load_images(f"funnybirds:{folder}")
    assert GroundTruth(None, images).known

    class Late:
        """Masks from the second image on."""

        ids = ("a", "b")

        def mask(self, i):
            return None if i == 0 else images.mask(1)

    late: Any = Late()
    assert GroundTruth(None, late).known
    late.mask = lambda i: None
    assert not GroundTruth(None, late).known

"""Names of classes, masks and mosaics in a study: right labels whatever the order of folders, and what pages say."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import heatproof
from heatproof.data import load_images
from heatproof.data.sampling import limited
from heatproof.engine.scoring import _wanted
from heatproof.errors import HeatproofWarning, InvalidTarget
from heatproof.report import write_page, write_tables
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.studies.store import connect

NAMES = ["<b>Disc", "Square Filled", "Triangle Filled", "circle_outline", "square-outline", "Triangle-Outline"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """An image of each of the six shapes in a folder of its name, its mask, and the names in the model's order."""
    root = tmp_path_factory.mktemp("shapes")
    images = load_images("shapes", limit=6)
    for number, label in enumerate(images.labels):
        for kind, picture in (("images", images.open(number)), ("masks", Image.fromarray(images.mask(number)))):
            path = root / kind / NAMES[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    (root / "names.json").write_text(json.dumps({"id2label": dict(enumerate(NAMES))}))
    return root


def plan(shapes: Path, **settings):
    data = {"images": str(shapes / "images"), "masks": str(shapes / "masks")}
    base = {"study": "score", "models": [{"spec": "shapes", "classes": str(shapes / "names.json")}], "datasets": [data],
            "methods": ["gradcam"], "metrics": ["localisation"], "resamples": 100, "device": "cpu"}  # fmt: skip
    return checked_plan({**base, **settings})


@pytest.fixture(scope="module")
def study(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "out"
    with pytest.warns(HeatproofWarning, match="No mosaics, so grid-pointing-game is left out") as caught:
        run(plan(shapes, target="<B>disc"), folder, workers=1)
    assert len([one for one in caught if "grid-pointing-game" in str(one.message)]) == 1
    findings = write_tables(folder)
    return findings, write_page(findings).read_text("utf-8")


def test_folders_in_another_order_than_the_models_are_matched_by_name(study):
    findings, page = study
    assert sorted(NAMES) != NAMES
    assert findings.correct["correct"].tolist() == [1.0], "the network knows these shapes"
    assert "matched with the model by the names of the classes" in page
    labels = {entry["label_name"] for entry in json.loads((findings.source.folder / "gallery/index.json").read_text())}
    assert labels <= set(NAMES) and len(labels) > 2


def test_names_are_shown_and_escaped(study):
    findings, page = study
    assert findings.plan["class_names"] == {"shapes": NAMES} and findings.plan["models"][0]["classes"] == 6
    assert findings.plan["models"][0]["named_targets"] == {"<B>disc": 0}
    assert "<dd>&lt;B&gt;disc (0)</dd>" in page and "&lt;b&gt;Disc (0)" in page
    assert "<b>Disc" not in page and "<B>disc" not in page
    query = "SELECT DISTINCT value FROM rows WHERE metric = 'target-class'"
    assert findings.rows.execute(query).fetchall() == [(0.0,)]


def test_grid_pointing_game_is_no_second_energy(study, shapes):
    findings, _ = study
    assert findings.scores is not None
    assert "energy" in findings.scores.metrics and "grid-pointing-game" not in findings.scores.metrics
    with pytest.warns(HeatproofWarning, match="No mosaics"):
        run(plan(shapes, metrics=["energy", "grid-pointing-game"], controls="none", limit=1),
            findings.source.folder.parent / "named", workers=1)  # fmt: skip
    found = connect(findings.source.folder.parent / "named").execute("SELECT DISTINCT metric FROM rows").fetchall()
    assert ("energy",) in found and ("grid-pointing-game",) not in found


def test_on_mosaics_the_grid_pointing_game_is_played_also_where_a_limit_takes_some(shapes, tmp_path):
    from heatproof.data.mosaics import of_mosaics

    mosaics = load_images(f"mosaic:{shapes / 'images'}")
    assert of_mosaics(mosaics) and of_mosaics(limited(mosaics, 2)) and not of_mosaics(load_images(shapes / "images"))
    settings = plan(shapes, datasets=[f"mosaic:{shapes / 'images'}"], metrics=["grid-pointing-game"], controls="none",
                    limit=1, target="label")  # fmt: skip
    run(settings, tmp_path / "out", workers=1)
    query = "SELECT count(*) FROM rows WHERE metric = 'grid-pointing-game' AND isfinite(value)"
    assert connect(tmp_path / "out").execute(query).fetchall() == [(1,)]


def test_peaks_are_one_decision_with_the_pointing_game(study):
    findings, page = study
    query = "SELECT sum(value), count(*) FROM rows WHERE metric = 'pointing-game' AND method = 'gradcam'"
    hits, images = findings.rows.execute(query).fetchone()
    peaks = findings.peaks("shapes", "images")
    assert (peaks["gradcam"].hits, peaks["gradcam"].images) == (hits, images) == (hits, 6)
    sentence = findings.peak_sentences("shapes", "images")[0]
    assert sentence.startswith(f"gradcam: the peak lies on the ground truth in {int(hits)} of 6 images")
    assert sentence in page and "Does the peak lie on the ground truth?" in page
    ties = findings.rows.execute("SELECT sum(value) FROM rows WHERE metric = 'pointing-game' AND method = 'ones'")
    assert 0 < ties.fetchone()[0] < 6 and (peaks["ones"].hits, peaks["ones"].shared) == (0, 6)
    assert findings.scores is not None and "map-peak" not in findings.scores.metrics


def test_the_gallery_holds_the_masks_that_its_outlines_are_drawn_from(study):
    findings, page = study
    assert "The white and black line is the edge of the ground truth" in page
    folder = findings.source.folder / "gallery"
    for entry in json.loads((folder / "index.json").read_text()):
        with np.load(folder / entry["file"]) as arrays:
            masks, images = arrays["masks"], arrays["images"]
        assert masks.shape == images.shape[:3] and 0 < masks.mean() < 0.5


def test_names_may_come_later_and_a_target_must_be_one(shapes, tmp_path):
    settings = {"metrics": ["complexity"], "controls": "none", "limit": 1, "target": "3", "datasets": ["shapes"]}
    run(plan(shapes, **settings, models=["shapes"]), tmp_path / "out", workers=1)
    with pytest.warns(HeatproofWarning, match=r"in the order of the dataset.*\('circle-filled'\)"):
        again = run(plan(shapes, **settings), tmp_path / "out", workers=1)
    assert (again.ran, again.kept) == (0, 1)
    page = write_page(write_tables(tmp_path / "out")).read_text("utf-8")
    assert "<dd>circle_outline (3)</dd>" in page
    with pytest.raises(InvalidTarget, match="Did you mean 'circle_outline'"):
        run(plan(shapes, **{**settings, "target": "circle outlin"}), tmp_path / "other", workers=1)


def test_score_leaves_it_out_of_families_too(shapes):
    model, images = heatproof.load_model("shapes", device="cpu"), load_images("shapes", limit=1)
    given = {"masks": [images.mask(0)], "target": 0}
    with pytest.warns(HeatproofWarning, match="No mosaics, so grid-pointing-game is left out"):
        found = heatproof.score(model, [images.open(0)], "gradcam", "localisation", **given)
    assert "energy" in found.metrics and "grid-pointing-game" not in found.metrics
    assert heatproof.score(model, [images.open(0)], "gradcam", "gridpg", **given).metrics == ["grid-pointing-game"]


def test_score_by_its_name_on_a_known_set_without_mosaics_is_a_warning():
    with pytest.warns(HeatproofWarning, match="shapes has no mosaics, so grid-pointing-game is `energy` once more"):
        _wanted(["energy", "gridpg"], "shapes", None, None, values=False)
    with pytest.warns(HeatproofWarning, match="once more"):
        _wanted("gridpg", load_images("shapes", limit=2), None, None, values=False)
    for images in ("mosaic:shapes", "./photos", load_images("mosaic:shapes", limit=2)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(_wanted(["energy", "gridpg"], images, None, None, values=False)) == 2

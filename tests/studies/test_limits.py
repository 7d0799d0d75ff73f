"""A limit takes the same images of every class in every study of a seed, and says so."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import heatproof
from heatproof import cli, report
from heatproof.studies import calibration, datasets, run
from heatproof.studies.datasets import open_datasets
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import connect

#: Their names are none of the network's, which is said; see test_class_labels.
pytestmark = pytest.mark.filterwarnings("ignore:Labels of")
PER_CLASS = 6
CLASSES = ("ant", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def folder(shared_folder):
    """Class folders, each with six images."""

    def drawn(where):
        rng = np.random.default_rng(0)
        for name in CLASSES:
            (where / name).mkdir(parents=True)
            for i in range(PER_CLASS):
                coarse = Image.fromarray(rng.integers(0, 255, (7, 7, 3), dtype=np.uint8))
                coarse.resize((100, 100), Image.Resampling.BICUBIC).save(where / name / f"{i}.png")

    return shared_folder("class-folders", drawn)


def plan_of(folder, **settings):
    base = {"study": "score", "models": "shapes", "datasets": str(folder), "methods": ["gradcam"],
            "metrics": ["complexity"], "controls": "none", "resamples": 100}  # fmt: skip
    return checked_plan({**base, **settings})


def images_in(out) -> list[str]:
    return [name for (name,) in connect(out).execute("select distinct image from rows order by image").fetchall()]


def called(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    out = capsys.readouterr().out
    assert not ended.value.code, out
    return out


def test_every_study_and_explain_take_the_same_images_of_every_class_and_say_so(folder, tmp_path, capsys):
    shared = ["--model", "shapes", "--methods", "gradcam", "--limit", "8"]
    said = "8 of 24 images, drawn with seed 0 from all 4 classes"
    out = called(capsys, "score", str(folder), *shared, "--metrics", "complexity", "--workers", "1", "--out",
                 str(tmp_path / "score"))  # fmt: skip
    assert f"Images: {said} ({folder.name})." in out
    assert said in (tmp_path / "score" / "report.html").read_text("utf-8")
    taken = images_in(tmp_path / "score")
    assert Counter(name.partition("/")[0] for name in taken) == dict.fromkeys(CLASSES, 2)
    settings = {"study": "noise-robustness", "models": "shapes", "datasets": str(folder), "methods": ["gradcam"],
                "controls": "none", "limit": 8, "perturbations": ["contrast"], "severities": [1],
                "segmenters": ["grid"], "resamples": 100}  # fmt: skip
    run.run(checked_plan(settings), tmp_path / "noise", workers=1)
    assert images_in(tmp_path / "noise") == taken
    out = called(capsys, "explain", str(folder), *shared, "--out", str(tmp_path / "explain"))
    assert f"Images: {said}." in out and "8 of 8 images explained" in out
    page = (tmp_path / "explain" / "index.html").read_text("utf-8")
    assert said in page and all(name in page for name in taken)
    out = called(capsys, "explain", str(folder), *shared, "--sampling", "first", "--out", str(tmp_path / "first"))
    assert "Images: the first 8 of 24 images." in out


def test_the_seed_and_the_sampling_decide_and_other_images_are_refused(folder, tmp_path):
    run.run(plan_of(folder, limit=4), tmp_path / "out", workers=1)
    with pytest.raises(heatproof.errors.StoreError, match=r"sampling is .stratified. there and .first. here\. Give"):
        run.run(plan_of(folder, limit=4, sampling="first"), tmp_path / "out", workers=1)
    ids = [open_datasets(plan_of(folder, limit=4, seed=seed))[0].images.ids for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    first = open_datasets(plan_of(folder, limit=8, sampling="first"))[0]
    assert first.images.ids == open_datasets(plan_of(folder))[0].images.ids[:8]
    assert first.sample == "the first 8 of 24 images"


def test_a_budget_takes_a_part_of_what_a_limit_takes(folder, tmp_path, monkeypatch):
    from heatproof.studies import budget

    monkeypatch.setattr(budget, "measured_cost", lambda setup, models: budget.Cost([2.0], [24]))
    run.run(plan_of(folder, budget=0.5), tmp_path / "budget", workers=1)
    facts = json.loads((tmp_path / "budget" / "study.json").read_text())
    taken, more = images_in(tmp_path / "budget"), open_datasets(plan_of(folder, limit=facts["limit"] + 3))[0].images.ids
    assert facts["limit"] == len(taken) == 12 and set(taken) < set(more)
    assert Counter(name.partition("/")[0] for name in taken) == dict.fromkeys(CLASSES, 3)
    assert facts["samples"] == {folder.name: "12 of 24 images, drawn with seed 0 from all 4 classes"}
    report.write_page(report.write_tables(tmp_path / "budget"))


def test_strengths_are_calibrated_on_images_of_every_class(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(calibration, "IMAGES", 8)
    monkeypatch.setattr(
        calibration, "open_block", lambda images, rows, model: seen.extend(rows) or SimpleNamespace(ids=[])
    )
    images = open_datasets(plan_of(folder))[0].images
    calibration.flip_rate(None, images, plan_of(folder), "contrast")  # type: ignore[arg-type]
    assert Counter(images.labels[row] for row in seen) == dict.fromkeys(range(4), 2)


def test_the_gallery_may_show_images_of_every_class(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "KEPT", 4)
    plan = plan_of(folder)
    (dataset,) = open_datasets(plan)
    assert Counter(dataset.images.labels[row] for row in dataset.shown) == dict.fromkeys(range(4), 1)
    run.run(plan, tmp_path / "out", workers=1)
    shown = {dataset.images.ids[row] for row in dataset.shown}
    kept = [str(name) for path in (tmp_path / "out" / "maps").glob("*.npz") for name in np.load(path)["display_images"]]
    assert set(kept) == shown and len(kept) == 4
    cases = json.loads((tmp_path / "out" / "gallery" / "index.json").read_text())
    assert cases and {case["image"] for case in cases} <= shown

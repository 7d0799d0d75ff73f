"""The score study from plan to rows: the numbers of `heatproof.score`, resumed bit for bit, without dropped rows."""

import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import heatproof
from heatproof.attributions import ATTRIBUTIONS, attribution
from heatproof.errors import HeatproofWarning, InvalidInput, StoreError
from heatproof.metrics import METRICS, metric
from heatproof.statistics.special_rows import PROJECTION
from heatproof.studies import loading, run
from heatproof.studies.executors import Serial
from heatproof.studies.plan import checked_plan
from heatproof.studies.processes import Processes
from heatproof.studies.rows import SCHEMA
from heatproof.studies.score import ScorePlan
from heatproof.studies.store import connect

METRICS_ASKED = ["adcc", "insertion[steps=4]", "average-drop"]
ALL_METRICS = {"coherency", "complexity", "average-drop[fill=mean]", "adcc", "insertion[steps=4]", "average-drop"}
METHODS = {"gradcam", "eigencam", "random", "half", "ones", "centre", "edges"}


@pytest.fixture
def score_plan(photographs: Path) -> Callable[..., ScorePlan]:
    """A plan over five images; keyword arguments replace settings."""

    def plan(**settings: Any) -> ScorePlan:
        base = {"study": "score", "models": ["shapes"], "datasets": [str(photographs)], "metrics": METRICS_ASKED,
                "methods": ["gradcam", "eigencam"], "batch_size": 2, "resamples": 100}  # fmt: skip
        return checked_plan({**base, **settings})

    return plan


def frame(folder: Path, sql: str = "select * from rows"):
    return connect(folder).execute(sql).df()


def shards(folder: Path) -> dict[str, bytes]:
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in sorted(folder.glob("*/m*")) if p.is_file()}


class Stopped(Exception):
    """A study killed in the middle."""


class StopsAfter:
    """An executor that is killed after some jobs."""

    def __init__(self, count: int):
        self.count = count

    @contextmanager
    def running(self, prepare, setup):
        def stopping(todo, advance):
            with Serial().running(prepare, setup) as map_jobs:
                yield from map_jobs(todo[: self.count], advance)
            raise Stopped

        yield stopping


@pytest.fixture(scope="module")
def undisturbed(shared_folder, photographs):
    """A plan and the folder of its finished study, to be read only."""
    plan = checked_plan({"study": "score", "models": ["shapes"], "datasets": [str(photographs)],
                         "methods": ["gradcam", "eigencam"], "metrics": METRICS_ASKED, "batch_size": 2,
                         "resamples": 100})  # fmt: skip
    return plan, shared_folder("score-study", lambda folder: run.run(plan, folder, workers=1))


def test_every_image_method_and_metric_has_one_row(undisturbed):
    _, folder = undisturbed
    found = frame(folder, "select * from rows where method <> '' and not suffix(metric, '-curve')")
    projected = found["metric"] == PROJECTION
    assert not found[projected].duplicated(["image", "method"]).any() and projected.sum() == 5 * len(METHODS)
    found = found[~projected]
    assert list(found.columns) == SCHEMA.names
    assert set(found["metric"]) == ALL_METRICS and set(found["method"]) == METHODS
    assert len(found) == 5 * len(ALL_METRICS) * len(METHODS)
    assert not found.duplicated(["image", "method", "metric"]).any()
    assert set(found.loc[found["control"], "method"]) == METHODS - {"gradcam", "eigencam"}
    assert found["clean_class"].notna().all() and found["clean_probability"].between(0, 1).all()


def test_the_numbers_are_those_of_the_public_call(undisturbed):
    """Random numbers come from the images' names: tensors named alike give the very numbers."""
    plan, folder = undisturbed
    model = heatproof.load_model("shapes")
    paths = sorted(Path(plan.datasets[0].images).iterdir())
    scores = heatproof.score(model, paths, ["gradcam", "eigencam", "half"], METRICS_ASKED)
    found = frame(folder, "select method, metric, image, value from rows where method <> ''")
    for method in ("gradcam", "eigencam", "half"):
        for name in ALL_METRICS - {"insertion[steps=4]"}:
            mine = found[(found["method"] == method) & (found["metric"] == name)].sort_values("image")["value"]
            np.testing.assert_allclose(mine, scores.values(method, name).numpy(), atol=2e-6)
    exact = found[(found["method"] == "gradcam") & (found["metric"] == "insertion[steps=4]")].sort_values("image")
    np.testing.assert_allclose(exact["value"], scores.values("gradcam", "insertion[steps=4]"), atol=2e-2)


def test_a_curve_is_rows_by_share(undisturbed):
    """The area under the stored points is the stored score."""
    _, folder = undisturbed
    found = frame(
        folder,
        "select image, method, strength, value from rows where metric = 'insertion[steps=4]-curve' order by strength",
    )
    assert len(found) == 5 * len(METHODS) * 5
    area = found.groupby(["image", "method"])[["strength", "value"]].apply(
        lambda rows: np.trapezoid(rows["value"], rows["strength"])
    )
    scores = frame(folder, "select image, method, value from rows where metric = 'insertion[steps=4]'")
    scores = scores.set_index(["image", "method"])["value"]
    np.testing.assert_allclose(area.sort_index(), scores.sort_index(), atol=1e-9)


def test_rows_of_a_stopped_and_resumed_study_in_processes_are_the_same_bytes(undisturbed, tmp_path):
    plan, folder = undisturbed
    with pytest.raises(Stopped):
        run.run(plan, tmp_path, executor=StopsAfter(1))
    assert len(list((tmp_path / "rows").glob("m*"))) == 1
    done = run.run(plan, tmp_path, executor=Processes(1))
    assert (done.ran, done.kept) == (2, 1)
    assert shards(tmp_path) == shards(folder)


def test_a_finished_study_is_left_as_it_is_and_another_metric_is_refused(undisturbed, tmp_path):
    plan, folder = undisturbed[0], Path(shutil.copytree(undisturbed[1], tmp_path / "copy"))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.name != ".lock"}
    assert run.run(plan, folder, workers=1).ran == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(StoreError, match="metrics is"):
        run.run(plan.model_copy(update={"metrics": ("complexity",)}), folder)


def test_the_plan_of_the_folder_says_what_the_metrics_are(undisturbed):
    _, folder = undisturbed
    said = json.loads((folder / "study.json").read_text())
    assert set(said["metrics"]) == set(said["metric_facts"]) == ALL_METRICS
    assert said["metrics"].index("adcc") > said["metrics"].index("coherency")
    assert said["metric_facts"]["adcc"]["better"] == "high"
    assert said["metric_facts"]["adcc"]["parts"] == ["coherency", "complexity", "average-drop[fill=mean]"]


def test_the_gallery_shows_images_with_the_maps_that_were_scored(undisturbed):
    plan, folder = undisturbed
    cases = json.loads((folder / "gallery" / "index.json").read_text())
    assert {case["kind"] for case in cases} >= {"good", "bad", "split"} and len(cases) <= 16
    case = cases[0]
    arrays = np.load(folder / "gallery" / case["file"])
    assert set(case["methods"]) == METHODS and case["methods"][:2] == ["gradcam", "eigencam"]
    assert arrays["maps"].shape == (len(METHODS), 1, 96, 96)
    model = heatproof.load_model("shapes")
    maps = heatproof.explain(model, [Path(plan.datasets[0].images) / case["image"]], ["gradcam"])["gradcam"][0]
    stored = arrays["maps"][case["methods"].index("gradcam"), 0]
    np.testing.assert_allclose(stored / 255, maps.numpy(), atol=0.003)
    assert case["columns"][0]["probability"] == pytest.approx(
        frame(folder, f"select any_value(clean_probability) p from rows where image = '{case['image']}'")["p"][0]
    )


def test_bad_images_are_flagged_rows_of_every_method_and_metric(score_plan, photographs, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in photographs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "b text.jpg").write_text("no image")
    run.run(score_plan(datasets=[str(folder)]), tmp_path / "out", workers=1)
    found = frame(tmp_path / "out", "select metric, count(*) n, count(*) filter (flag <> '') flagged from rows "
                                    "where method <> '' and not suffix(metric, '-curve') group by metric")  # fmt: skip
    assert set(found["n"]) == {6 * 7} and set(found["flagged"]) == {7}
    assert set(frame(tmp_path / "out", "select flag from rows where image = 'b text.jpg'")["flag"]) == {
        "b text.jpg: is not an image in a known format"
    }


def test_a_method_that_cannot_serve_is_flagged_and_the_rest_is_scored(score_plan, tmp_path):
    run.run(score_plan(methods=["gradcam", "chefer"]), tmp_path / "out", workers=1)
    found = frame(tmp_path / "out", "select flag, value, metric from rows where method = 'chefer'")
    assert len(found) == 5 * len(ALL_METRICS | {PROJECTION}) and found["value"].isna().all()
    assert found["flag"].str.startswith("not applicable: ").all()
    assert frame(tmp_path / "out", "select flag from rows where method = 'gradcam'")["flag"].eq("").all()


def test_degenerate_maps_have_the_stated_values(score_plan, tmp_path):
    @attribution("says nothing", form="display")
    def nothing(x: torch.Tensor) -> torch.Tensor:
        """The same everywhere."""
        return torch.ones_like(x[:, 0])

    try:
        plan = score_plan(methods=["gradcam", "says nothing"], metrics=["complexity", "coherency"], controls="none")
        run.run(plan, tmp_path / "out", workers=1)
    finally:
        ATTRIBUTIONS.remove("says nothing")
    found = frame(tmp_path / "out", "select metric, flag, value from rows where method = 'says nothing'")
    assert set(found["flag"]) == {"constant map"} and len(found) == 15
    assert found[found["metric"] == PROJECTION]["value"].isna().all()
    assert (found[found["metric"] == "complexity"]["value"] == 1).all()


def test_a_metric_that_fails_is_flagged_and_the_others_are_fine(score_plan, tmp_path):
    @metric("breaks", family="complexity", better="high", range=(0, 1), passes="none")
    def breaks(maps: torch.Tensor) -> torch.Tensor:
        """Raises."""
        raise ZeroDivisionError("no number")

    try:
        with pytest.warns(HeatproofWarning, match="The metric breaks failed .* ZeroDivisionError: no number"):
            run.run(score_plan(metrics=["breaks", "complexity"], controls="none"), tmp_path / "out", workers=1)
    finally:
        METRICS.remove("breaks")
    found = frame(tmp_path / "out", "select metric, flag, value from rows where method = 'gradcam'")
    assert set(found[found["metric"] == "breaks"]["flag"]) == {"ZeroDivisionError: no number"}
    assert found[found["metric"] == "complexity"]["value"].notna().all()


def test_labels_give_accuracy_and_the_class_explained(score_plan, photographs, tmp_path):
    labels = tmp_path / "labels.csv"
    names = sorted(path.name for path in photographs.iterdir())
    labels.write_text("file,class_index\n" + "\n".join(f"{name},{i % 6}" for i, name in enumerate(names[:4])))
    plan = score_plan(datasets=[{"images": str(photographs), "labels": str(labels)}], target="label",
                      methods=["eigencam"], metrics=["complexity"], controls="none")  # fmt: skip
    run.run(plan, tmp_path / "out", workers=1)
    facts = frame(tmp_path / "out", "select metric, image, value, flag from rows where method = '' order by all")
    assert list(facts[facts["metric"] == "target-class"]["value"]) == [0, 1, 2, 3]
    assert facts[facts["metric"] == "probability"]["value"].between(0, 1).all()
    assert set(facts[facts["metric"] == "correct"]["value"]) <= {0.0, 1.0}
    rows = frame(tmp_path / "out", "select image, flag from rows where metric = 'complexity' order by image")
    assert list(rows["flag"]) == ["", "", "", "", "no label"]


def test_an_image_on_which_the_model_gives_nan_is_flagged(score_plan, photographs, tmp_path, monkeypatch):
    class Sometimes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, stride=4), torch.nn.ReLU())
            self.head = torch.nn.Linear(8, 3)

        def forward(self, z):
            dark = torch.where(z.mean((1, 2, 3)) < -0.9, torch.nan, 0.0)
            return self.head(self.features(z).mean((2, 3))) + dark[:, None]

    folder = tmp_path / "images"
    folder.mkdir()
    for path in sorted(photographs.iterdir())[:2]:
        (folder / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "black.png")
    monkeypatch.setattr(loading, "load_model", lambda *_, **__: heatproof.wrap(Sometimes(), size=32, name="shapes"))
    run.run(score_plan(datasets=[str(folder)], batch_size=3), tmp_path / "out", workers=1)
    found = frame(tmp_path / "out", "select * from rows where metric = 'average-drop'")
    black = found[found["image"] == "black.png"]
    assert set(black["flag"]) == {"the model gave non-finite output"} and black["value"].isna().all()
    assert black["clean_class"].isna().all()
    fine = frame(tmp_path / "out", "select flag from rows where metric = 'complexity' and image <> 'black.png'")
    assert len(fine) == 14 and fine["flag"].eq("").all()


# --- masks ---


def test_masks_of_the_dataset_itself_serve_localisation(score_plan, tmp_path):
    plan = score_plan(datasets=["shapes"], limit=3, metrics=["pointing-game"], controls="none")
    run.run(plan, tmp_path / "out", workers=1)
    found = frame(tmp_path / "out", "select value, flag from rows where metric = 'pointing-game'")
    assert len(found) == 6 and found["value"].between(0, 1).all() and found["flag"].eq("").all()


def test_masks_of_a_folder_and_an_image_without_one(score_plan, photographs, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    names = sorted(photographs.iterdir())
    for path in names[:3]:
        mask = np.zeros((100, 110), np.uint8)
        mask[20:60, 20:60] = 255
        Image.fromarray(mask).save(masks / path.name)
    Image.fromarray(mask[:50]).save(masks / names[3].name)
    plan = score_plan(datasets=[{"images": str(photographs), "masks": str(masks)}], metrics=["energy"], controls="none")
    run.run(plan, tmp_path / "out", workers=1)
    found = frame(
        tmp_path / "out", "select value, flag from rows where method = 'gradcam' and metric = 'energy' order by image"
    )
    assert list(found["flag"][:3]) == ["", "", ""] and found["value"][:3].between(0, 1).all()
    assert "its mask cannot be used" in found["flag"][3] and "110 × 50" in found["flag"][3]
    assert found["flag"][4] == "there is no mask of this image" and found["value"][3:].isna().all()
    assert json.loads((tmp_path / "out" / "study.json").read_text())["masks"]


def test_masks_of_other_images_are_refused_before_any_work(score_plan, photographs, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.ones((4, 4), np.uint8)).save(tmp_path / "masks" / "other.png")
    plan = score_plan(datasets=[{"images": str(photographs), "masks": str(tmp_path / "masks")}], metrics=["energy"])
    with pytest.raises(InvalidInput, match=r"names of the images, such as 'image 0.png'. None of 5"):
        run.run(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_masks_families_leave_localisation_out_and_a_name_gives_flagged_rows(score_plan, tmp_path):
    plan = score_plan(metrics=["family:localisation", "complexity"], controls="none")
    with pytest.warns(HeatproofWarning, match=r"left out: .*pointing-game.*--masks"):
        run.run(plan, tmp_path / "family", workers=1)
    metrics = set(frame(tmp_path / "family", "select metric from rows where method <> ''")["metric"])
    assert metrics == {"complexity", PROJECTION}
    with pytest.warns(HeatproofWarning, match="energy will have no values"):
        run.run(score_plan(metrics=["energy"], controls="none"), tmp_path / "name", workers=1)
    found = frame(tmp_path / "name", "select value, flag from rows where metric = 'energy'")
    assert len(found) == 10 and set(found["flag"]) == {"there is no mask of this image"}
    with pytest.raises(InvalidInput, match="at least one metric that needs no mask"):
        run.run(score_plan(metrics=["localisation"]), tmp_path / "none", workers=1)


def test_metrics_from_elsewhere_are_sent_to_the_workers_or_refused(score_plan):
    from heatproof.metrics import foreign
    from heatproof.plugins import imported
    from heatproof.studies.measures import Measures
    from heatproof.studies.study import study_named

    def exported(metric):
        plan = score_plan(metrics=[metric])
        return run.exported_plugins(plan, Measures.of(study_named("score"), plan))

    foreign.register_metric("mine", lambda maps: maps.flatten(1).mean(1), better="low")
    try:
        with pytest.raises(InvalidInput, match="'mine' must be importable"):
            exported("mine")
        imported(exported("complexity"))
    finally:
        foreign.PLUGIN_METRICS.unregister("mine")

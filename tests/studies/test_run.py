"""The noise study from plan to rows: resumed bit for bit, and complete in spite of bad input."""

import json
import math
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof.errors import HeatproofError, HeatproofWarning, InvalidInput, StoreError
from heatproof.report import write_report
from heatproof.studies import loading, machines, run
from heatproof.studies.executors import Serial
from heatproof.studies.processes import Processes
from heatproof.studies.store import Store, connect

from .dying import dying


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "rows").iterdir())}


def frame(folder: Path, sql: str = "select * from rows"):
    return connect(folder).execute(sql).df()


class Stopped(Exception):
    """A study killed in the middle."""


class StopsAfter:
    """An executor that is killed after some jobs."""

    def __init__(self, jobs: int):
        self.jobs = jobs

    @contextmanager
    def running(self, prepare, setup):
        def stopping(jobs, advance):
            with Serial().running(prepare, setup) as map_jobs:
                yield from map_jobs(jobs[: self.jobs], advance)
            raise Stopped

        yield stopping


@pytest.fixture(scope="module")
def undisturbed(shared_folder, photographs):
    """A plan and the folder of its finished study, to be read only."""
    from heatproof.studies.plan import checked_plan

    plan = checked_plan(
        {
            "study": "noise-robustness",
            "models": ["shapes"],
            "datasets": [str(photographs)],
            "methods": ["gradcam", "hirescam", "eigencam"],
            "perturbations": ["gaussian-noise", "fgsm"],
            "severities": [1, 3],
            "segmenters": ["grid"],
            "batch_size": 2,
            "resamples": 100,
        }
    )
    return plan, shared_folder("noise-study", lambda folder: run.run(plan, folder, workers=1))


@pytest.fixture
def own_copy(undisturbed, tmp_path):
    """The plan and a copy of the finished study that a test may run again."""
    plan, folder = undisturbed
    return plan, Path(shutil.copytree(folder, tmp_path / "copy"))


def test_a_method_whose_forward_is_the_batchs_has_the_rows_that_it_has_beside_a_cam(small_plan, tmp_path):
    rows = "select * exclude (method, layer) from rows where method = 'guided-backprop' order by all"
    found = []
    for name, methods in {"alone": ["guided-backprop"], "beside": ["gradcam", "guided-backprop"]}.items():
        run.run(small_plan(methods=methods, perturbations=["gaussian-noise"]), tmp_path / name, workers=1)
        found.append(frame(tmp_path / name, rows))
    assert len(found[0]) and found[0].equals(found[1])


def test_every_cell_of_the_study_has_its_rows(undisturbed):
    _, folder = undisturbed
    found = frame(
        folder,
        "select method, perturbation, severity, count(distinct image) n, count(*) rows from rows "
        "where metric = 'rbo' group by all",
    )
    assert len(found) == (3 + 5) * 2 * 2
    assert set(found["n"]) == {5}
    assert set(found["rows"]) == {5}


def test_rows_of_a_stopped_and_resumed_study_in_processes_are_the_same_bytes(undisturbed, tmp_path):
    plan, folder = undisturbed
    with pytest.raises(Stopped):
        run.run(plan, tmp_path, executor=StopsAfter(1))
    assert len(shards(tmp_path)) == 1
    done = run.run(plan, tmp_path, executor=Processes(2))
    assert (done.ran, done.kept) == (2, 1)
    assert shards(tmp_path) == shards(folder)
    first, second = (sorted((f / "maps").iterdir()) for f in (folder, tmp_path))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_finished_study_is_left_as_it_is(own_copy):
    plan, folder = own_copy
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.name != ".lock"}
    assert run.run(plan, folder, workers=1).ran == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_going_on_with_another_processor_is_said_and_recorded(own_copy, monkeypatch):
    plan, folder = own_copy
    (there,) = json.loads((folder / "study.json").read_text())["machines"]
    assert there == machines.this_machine("cpu", plan.threads) and there["instructions"]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    run.run(plan, folder, workers=1)  # nothing is left to compute, so nothing is mixed
    assert json.loads((folder / "study.json").read_text())["machines"] == [there]
    next((folder / "rows").glob("*.parquet")).unlink()
    with pytest.warns(HeatproofWarning, match=r"goes on here on cpu \(.*SSE41\).* by up to"):
        assert run.run(plan, folder, workers=1).ran == 1
    found = json.loads((folder / "study.json").read_text())
    assert found["machines"] == [there, {**there, "limits": {"ONEDNN_MAX_CPU_ISA": "SSE41"}}]
    assert "ONEDNN_MAX_CPU_ISA=SSE41" in write_report(folder).read_text("utf-8")


def test_a_changed_setting_is_refused_and_named(own_copy):
    plan, folder = own_copy
    other = plan.model_copy(update={"severities": (1, 2)})
    with pytest.raises(StoreError, match=r"severities is \[1, 3\] there and \[1, 2\] here"):
        run.run(other, folder)


def test_changed_images_are_refused(own_copy, tmp_path, photographs):
    plan, folder = own_copy
    moved = tmp_path / photographs.name
    moved.mkdir()
    for path in photographs.iterdir():
        Image.open(path).rotate(90).save(moved / path.name)
    dataset = plan.datasets[0].model_copy(update={"images": str(moved)})
    with pytest.raises(StoreError, match=r"the images or labels of \w+ are not the same"):
        run.run(plan.model_copy(update={"datasets": (dataset,)}), folder)


def test_on_a_pooled_linear_head_three_methods_are_one(undisturbed):
    _, folder = undisturbed
    found = frame(
        folder,
        "select image, perturbation, severity, metric, max(value) - min(value) as gap from rows "
        "where method in ('gradcam', 'hirescam') and metric in ('rbo', 'l1') group by all",
    )
    assert len(found) == 5 * 4 * 2
    assert found["gap"].median() < 1e-6
    assert (found["gap"] < 0.05).all()  # a rounding at the sixth decimal may move one segment


def test_noise_grows_with_severity_and_its_psnr_is_what_the_definition_gives(undisturbed):
    _, folder = undisturbed
    found = frame(
        folder, "select perturbation, severity, avg(value) as psnr from rows where metric = 'psnr' group by all"
    )
    cells = {(row.perturbation, row.severity): row.psnr for row in found.itertuples()}
    assert cells["gaussian-noise", 1] > cells["gaussian-noise", 3]
    assert cells["fgsm", 3] == pytest.approx(
        20 * math.log10(255 / 0.5), abs=0.3
    )  # ε = .5/255 everywhere but at the ends


def test_controls_behave_as_they_must(undisturbed):
    _, folder = undisturbed
    found = frame(
        folder,
        "select method, bool_and(control) control, min(value) low, max(value) high from rows "
        "where metric = 'rbo' group by all",
    )
    cells = {row.method: row for row in found.itertuples()}
    for name in ("half", "ones", "centre"):
        assert cells[name].control
        assert cells[name].low == cells[name].high == 1.0
    assert cells["random"].high < 1
    assert not cells["gradcam"].control


def test_stored_raw_maps_are_the_maps(undisturbed):
    plan, folder = undisturbed
    stored = np.load(folder / "maps" / "m00-d00-0000000.npz")
    model = heatproof.load_model("shapes")
    paths = [Path(plan.datasets[0].images) / name for name in stored["images"]]
    again = heatproof.explain(model, paths, ["gradcam"], raw=True)["gradcam"].numpy()
    method, clean = list(stored["methods"]).index("gradcam"), list(stored["conditions"]).index("")
    values = stored["values"][method, clean].astype(np.float32) * stored["scale"][method, clean][:, None, None]
    np.testing.assert_allclose(values, again, atol=2e-3 * np.abs(again).max())


def test_the_gallery_shows_cases_of_the_rows(undisturbed):
    import json

    _, folder = undisturbed
    cases = json.loads((folder / "gallery" / "index.json").read_text())
    assert 1 <= len(cases) <= 16
    case = cases[0]
    arrays = np.load(folder / "gallery" / case["file"])
    assert arrays["images"].shape == (3, 96, 96, 3)
    assert arrays["maps"].shape == (3, 3, 96, 96)
    assert case["methods"] == ["gradcam", "hirescam", "eigencam"]
    kind = case["columns"][1]["perturbation"]
    (row,) = frame(
        folder,
        f"select min(value) as lowest from rows where image = '{case['image']}' and metric = 'rbo' and "
        f"method = '{case['why'].partition(':')[0]}' and perturbation = '{kind}'",
    ).itertuples()
    assert case["kind"] == "map moved" and f"RBO {row.lowest:.2f} at {kind}" in case["why"]
    assert [column["severity"] for column in case["columns"]] == [0, 1, 3]


def test_bad_images_become_flagged_rows_and_the_rest_is_measured(small_plan, photographs, tmp_path, undisturbed):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in photographs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    whole = next(photographs.iterdir()).read_bytes()
    (folder / "z truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "zz text.jpg").write_text("no image")
    plan = small_plan(datasets=[str(folder)])
    run.run(plan, tmp_path / "out", workers=1)
    found = frame(
        tmp_path / "out",
        "select image, count(*) n, count(*) filter (flag <> '') flagged, "
        "count(*) filter (isnan(value)) nan from rows where metric = 'rbo' group by image",
    )
    assert set(found["n"]) == {7 * 2 * 2}
    broken = found[found["image"].isin(["z truncated.png", "zz text.jpg"])]
    assert (broken["flagged"] == 28).all() and (broken["nan"] == 28).all()
    fine = found[~found["image"].isin(["z truncated.png", "zz text.jpg"])]
    assert (fine["flagged"] == 0).all() and (fine["nan"] == 0).all()
    # Bit for bit what they are without the bad images beside them.
    sql = (
        "select image, method, perturbation, severity, value from rows where metric = 'rbo' and image like 'image %' "
        "and method in ('gradcam', 'eigencam') order by all"
    )
    assert frame(tmp_path / "out", sql).equals(frame(undisturbed[1], sql))


def test_a_folder_of_broken_images_alone_still_gives_rows(small_plan, tmp_path):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "x.jpg").write_text("no image")
    run.run(small_plan(datasets=[str(folder)]), tmp_path / "out", workers=1)
    assert frame(tmp_path / "out")["flag"].ne("").all()


class Toy(nn.Module):
    """A network whose answer the test chooses."""

    def __init__(self, outputs: int = 3, answer=lambda logits, x: logits):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=4), nn.ReLU())
        self.head = nn.Linear(8, outputs)
        self.answer = answer

    def forward(self, z):
        return self.answer(self.head(self.features(z).mean((2, 3))), z)


@pytest.fixture
def toy(monkeypatch):
    """Studies load this toy in place of the plan's model."""

    def use(module: nn.Module) -> None:
        monkeypatch.setattr(loading, "load_model", lambda *_, **__: heatproof.wrap(module, size=32, name="shapes"))

    return use


def nan_where_bright(logits, z):
    return logits + torch.where(z.mean((1, 2, 3)) > 0.0, float("nan"), 0.0)[:, None]


def test_a_model_that_gives_nan_is_flagged_where_it_does(toy, small_plan, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name, level in (("bright", 170), ("dark", 40), ("darker", 20)):
        array = rng.integers(level, level + 60, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{name}.png")
    toy(Toy(answer=nan_where_bright))
    plan = small_plan(
        datasets=[str(folder)],
        methods=["gradcam", "eigencam", "ablationcam"],
        perturbations=["contrast"],
        severities=[1],
        batch_size=3,
    )
    run.run(plan, tmp_path / "out", workers=1)
    found = frame(tmp_path / "out", "select image, method, flag, value, changed from rows where metric = 'rbo'")
    bright = found[found["image"] == "bright.png"]
    assert set(bright["flag"]) == {"the model gave non-finite output"}
    assert bright["value"].isna().all() and bright["changed"].isna().all()
    dark = found[(found["image"] != "bright.png") & (found["method"].isin(["gradcam", "ablationcam", "ones"]))]
    assert len(dark) == 6 and not dark["flag"].str.contains("finite").any()
    assert (dark[dark["method"] == "ones"]["value"] == 1).all()
    toy(Toy())  # the others of its batch have the numbers that they have beside an image without NaN
    run.run(plan, tmp_path / "without", workers=1)
    same = "select * exclude (flag) from rows where metric = 'rbo' and image <> 'bright.png' order by all"
    assert frame(tmp_path / "out", same).equals(frame(tmp_path / "without", same))


def test_a_model_with_one_output_has_two_classes(toy, small_plan, tmp_path):
    toy(Toy(outputs=1))
    run.run(small_plan(), tmp_path / "out", workers=1)
    found = frame(tmp_path / "out", "select * from rows where metric = 'psnr'")
    assert set(found["clean_class"]) <= {0, 1} and (found["clean_probability"] >= 0.5).all()


def test_constant_maps_are_flagged_not_scored(toy, small_plan, tmp_path):
    def flat(logits, z):
        return logits

    module = Toy(answer=flat)
    nn.init.zeros_(module.features[0].weight)
    nn.init.ones_(module.features[0].bias)
    toy(module)
    run.run(small_plan(), tmp_path / "out", workers=1)
    found = frame(tmp_path / "out", "select method, flag, value from rows where metric = 'rbo' and method = 'gradcam'")
    assert found["value"].isna().all()
    assert set(found["flag"]) == {"clean: constant map"}


def test_when_every_prediction_flips_there_is_no_consistency_but_there_are_rows(toy, small_plan, tmp_path):
    seen = {}

    def contrary(logits, z):
        """Another class for every image that was not seen before."""
        keys = [one.numpy().tobytes() for one in z.detach()]
        for key in keys:
            seen.setdefault(key, len(seen) % 3)
        return logits * 1e-3 + torch.nn.functional.one_hot(torch.tensor([seen[key] for key in keys]), 3) * 5.0

    toy(Toy(answer=contrary))
    run.run(small_plan(perturbations=["gaussian-noise"], severities=[1], batch_size=1), tmp_path / "out", workers=1)
    found = frame(tmp_path / "out", "select changed from rows where metric = 'rbo'")
    assert found["changed"].all()


def test_target_label_flags_what_has_none_and_what_the_model_cannot_have(small_plan, photographs, tmp_path):
    labels = tmp_path / "labels.csv"
    names = sorted(path.name for path in photographs.iterdir())
    rows = [f"{names[0]},0", f"{names[1]},2", f"{names[2]},99"]
    labels.write_text("file,class_index\n" + "\n".join(rows))
    plan = small_plan(datasets=[{"images": str(photographs), "labels": str(labels)}], target="label")
    run.run(plan, tmp_path / "out", workers=1)
    found = frame(
        tmp_path / "out", "select image, min(flag) f from rows where method = 'random' group by all order by all"
    )
    assert found["f"][0] == found["f"][1] == ""
    assert found["f"][2] == "label 99 is not among the model's 6 classes"
    assert found["f"][3] == found["f"][4] == "no label"
    correct = frame(tmp_path / "out", "select count(*) n from rows where metric = 'correct' and not isnan(value)")["n"][
        0
    ]
    assert correct == 2 * (1 + 2 * 2)


def test_target_label_without_a_single_label_is_refused(small_plan, tmp_path):
    with pytest.raises(InvalidInput, match="Target `label` needs labels"):
        run.run(small_plan(target="label"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_workers_at_all_are_refused_before_anything_is_made(small_plan, tmp_path):
    with pytest.raises(InvalidInput, match="at least 1"):
        run.run(small_plan(), tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_an_integer_target_outside_the_model_is_refused_before_any_work(small_plan, tmp_path):
    with pytest.raises(InvalidInput, match="0 … 5"):
        run.run(small_plan(target="6"), tmp_path / "out")


def test_a_layer_that_does_not_exist_or_is_not_spatial_is_refused(small_plan, tmp_path):
    with pytest.raises(HeatproofError, match="stage4"):
        run.run(small_plan(models=[{"spec": "shapes", "layer": "stage5"}]), tmp_path / "out")
    with pytest.raises(HeatproofError, match="positions"):
        run.run(small_plan(models=[{"spec": "shapes", "layer": "head"}]), tmp_path / "out")


def test_calibrated_strengths_flip_the_share_asked_for_and_are_kept(small_plan, tmp_path):
    import json

    plan = small_plan(
        datasets=["shapes"],
        limit=20,
        perturbations=["gaussian-noise"],
        calibrate=[0.2, 0.5],
        methods=["gradcam"],
        controls="none",
        batch_size=20,
    )
    with pytest.raises(Stopped):
        run.run(plan, tmp_path / "out", executor=StopsAfter(0))
    kept = (tmp_path / "out" / "calibration.json").read_bytes()
    run.run(plan, tmp_path / "out", workers=1)
    assert (tmp_path / "out" / "calibration.json").read_bytes() == kept
    rates = frame(
        tmp_path / "out",
        "select severity, avg(changed::int) r, any_value(strength) s from rows where "
        "metric = 'rbo' group by severity order by severity",
    )
    said = json.loads(kept)["0/0/gaussian-noise"]
    assert [level["flip_rate"] for level in said] == pytest.approx(list(rates["r"]))
    assert [level["strength"] for level in said] == pytest.approx(list(rates["s"]))
    for level, wanted in zip(said, (0.2, 0.5), strict=True):
        assert not level["reached"] or abs(level["flip_rate"] - wanted) <= 0.05


def test_several_models_segmenters_and_datasets_are_told_apart(small_plan, photographs, tmp_path):
    plan = small_plan(
        models=[{"spec": "shapes", "name": "one"}, {"spec": "shapes", "name": "two", "layer": "stage3"}],
        datasets=[{"images": str(photographs), "name": "p"}, {"images": "shapes", "name": "s"}],
        segmenters=["grid", "slic"],
        limit=2,
        perturbations=["contrast"],
        severities=[1],
    )
    run.run(plan, tmp_path / "out", workers=1)
    found = frame(
        tmp_path / "out",
        "select model, layer, dataset, segmenter, count(*) n from rows where metric = 'rbo' group by all",
    )
    assert len(found) == 2 * 2 * 2
    assert set(zip(found["model"], found["layer"], strict=True)) == {("one", "stage4"), ("two", "stage3")}
    truth = frame(tmp_path / "out", "select value from rows where metric = 'mask-cosine' and dataset = 's'")["value"]
    assert len(truth) == 2 * 2 * 7 and truth.between(0, 1).all()


def test_a_worker_that_dies_is_said_and_loses_no_finished_job(small_plan, tmp_path, monkeypatch):
    done = Store(tmp_path)
    with (
        pytest.warns(HeatproofWarning, match="exit code 9"),
        pytest.raises(HeatproofError, match="fewer --workers"),
        Processes(2).running(dying, None) as map_jobs,
    ):
        list(map_jobs([1, 2, 3], lambda share: None))
    assert done.done() == set()


def test_shards_hold_the_documented_columns(undisturbed):
    _, folder = undisturbed
    from heatproof.studies.rows import SCHEMA

    assert pq.read_schema(next((folder / "rows").iterdir())).equals(SCHEMA)


def test_a_method_that_cannot_serve_is_recorded_and_the_rest_goes_on(small_plan, tmp_path):
    """Attention methods on a CNN: every cell says why, in rows, tables and page; others have their numbers."""
    from heatproof import report

    methods = ["gradcam", "attention-rollout", "refine:layercam", {"rise": {"masks": 10}}]
    plan = small_plan(methods=methods, perturbations=["gaussian-noise"])
    run.run(plan, tmp_path / "out", workers=1)
    found = frame(tmp_path / "out", "select method, flag, value, metric, layer, layers from rows where metric = 'rbo'")
    refused = found[found["method"] == "attention-rollout"]
    assert len(refused) == len(found[found["method"] == "gradcam"]) > 0
    assert refused["value"].isna().all() and set(refused["flag"]) == {"not applicable: it has no attention"}
    assert found[found["method"] == "gradcam"]["value"].notna().any()
    assert "rise[masks=10]" in set(found["method"])
    refined = set(found[found["method"] == "refine:layercam"]["layers"])
    assert len(refined) == 1 and "+" in refined.pop() and found["layer"].nunique() == 1
    findings = report.write_tables(tmp_path / "out")
    page = report.write_page(findings).read_text("utf-8")
    assert "not applicable: it has no attention" in page
    run.run(plan, tmp_path / "again", executor=Processes(1))
    again = frame(tmp_path / "again", "select * exclude (version) from rows order by all")
    assert again.equals(frame(tmp_path / "out", "select * exclude (version) from rows order by all"))


def test_a_study_of_methods_that_cannot_serve_is_refused(small_plan, tmp_path):
    with pytest.raises(
        InvalidInput, match=r"at least one method that can explain .*attention-rollout: it has no atten"
    ):
        run.run(small_plan(methods=["attention-rollout", "chefer"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_method_that_fails_is_flagged_and_the_others_are_fine(small_plan, tmp_path):
    from heatproof.attributions import ATTRIBUTIONS, attribution

    @attribution("breaks on bright images", form="display")
    def breaks(x):
        """Raises."""
        raise ZeroDivisionError("no light")

    try:
        with pytest.warns(HeatproofWarning, match="breaks on bright images failed on the first images.*no light"):
            run.run(small_plan(methods=["gradcam", "breaks on bright images"]), tmp_path / "out", workers=1)
    finally:
        ATTRIBUTIONS.remove("breaks on bright images")
    found = frame(tmp_path / "out", "select method, flag, value from rows where metric = 'rbo'")
    broken = found[found["method"] == "breaks on bright images"]
    assert broken["value"].isna().all() and broken["flag"].str.contains("ZeroDivisionError: no light").all()
    assert found[found["method"] == "gradcam"]["value"].notna().any()


def test_a_worker_that_cannot_start_says_why():
    """And does not look like one that was killed for its memory."""
    with pytest.raises(ValueError, match="invalid literal"), Processes(1).running(int, "no number") as map_jobs:
        list(map_jobs([1], lambda share: None))


def test_one_worker_explains_with_the_model_that_was_checked(small_plan, tmp_path, monkeypatch):
    loaded = []

    def counted(spec, **settings):
        loaded.append(spec)
        return heatproof.load_model(spec, **settings)

    monkeypatch.setattr(loading, "load_model", counted)
    run.run(small_plan(perturbations=["gaussian-noise"]), tmp_path, workers=1)
    assert loaded == ["shapes"]

"""What goes wrong while a study runs: afterwards the same command finishes, and the result is that of no fault."""

import errno
import itertools
import time
from pathlib import Path

import duckdb
import pytest

from heatproof.errors import HeatproofError, HeatproofWarning, ModelError, StoreError
from heatproof.studies import partial, run, worker_process
from heatproof.studies.careful_opening import crashing_images
from heatproof.studies.executors import ATTEMPTS
from heatproof.studies.jobs import Setup
from heatproof.studies.processes import Processes
from heatproof.studies.store import Store

from .struck_workers import CrashingImages, Losing, Struck


@pytest.fixture(scope="module")
def plan(photographs):
    from heatproof.studies.plan import checked_plan

    return checked_plan(
        {
            "study": "noise-robustness",
            "models": ["shapes"],
            "datasets": [str(photographs)],
            "methods": ["gradcam", "eigencam"],
            "perturbations": ["gaussian-noise"],
            "severities": [1, 3],
            "segmenters": ["grid"],
            "batch_size": 2,
            "resamples": 100,
        }
    )


def results(folder: Path) -> dict[str, bytes]:
    """The files that must not depend on what happened; the index of the gallery names its files by their content."""
    found = [path for name in ("rows", "maps", "sums") for path in (folder / name).glob("*.*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in (*found, folder / "gallery" / "index.json")}


@pytest.fixture(scope="module")
def undisturbed(shared_folder, plan) -> dict[str, bytes]:
    return results(shared_folder("study-without-faults", lambda folder: run.run(plan, folder, workers=1)))


@pytest.mark.parametrize(
    ("blow", "stages"),
    [("killed", ("prepare", "maps")), ("crashes", ("open", "rows", "gallery"))],
)
def test_workers_that_end_at_any_stage_change_nothing(plan, undisturbed, tmp_path, blow, stages):
    struck = Struck(Processes(2), tmp_path / "marks", blow, *stages)
    with pytest.warns(HeatproofWarning, match="A worker was lost"):
        run.run(plan, tmp_path / "out", executor=struck)
    assert struck.struck == set(stages)
    assert results(tmp_path / "out") == undisturbed
    assert not (tmp_path / "out" / "partial").exists()


def test_a_worker_that_hangs_is_ended_and_its_job_done_again(plan, undisturbed, tmp_path):
    struck = Struck(Processes(2, timeout=0.25), tmp_path / "marks", "hangs", "open")
    with pytest.warns(HeatproofWarning, match="no progress"):
        run.run(plan, tmp_path / "out", executor=struck)
    assert struck.struck == {"open"} and results(tmp_path / "out") == undisturbed


def test_a_job_that_loses_every_worker_is_done_by_the_next_command(plan, undisturbed, tmp_path):
    with (
        pytest.warns(HeatproofWarning, match="A worker was lost"),
        pytest.raises(HeatproofError, match=r"^1 job could not be finished .* It ended\. Finished jobs are kept"),
    ):
        run.run(plan, tmp_path / "out", executor=Losing(ATTEMPTS))
    assert len(Store(tmp_path / "out").done()) == 2
    assert run.run(plan, tmp_path / "out", workers=1).kept == 2
    assert results(tmp_path / "out") == undisturbed


def test_where_every_worker_is_lost_the_next_command_does_all_of_it(plan, undisturbed, tmp_path):
    with pytest.warns(HeatproofWarning, match="A worker was lost"), pytest.raises(HeatproofError, match="are kept"):
        run.run(plan, tmp_path / "out", executor=Losing(99, 99, 99))
    run.run(plan, tmp_path / "out", workers=1)
    assert results(tmp_path / "out") == undisturbed


def test_a_worker_that_memory_ends_is_not_replaced_and_changes_nothing(plan, undisturbed, tmp_path):
    with pytest.warns(HeatproofWarning, match="The study goes on with one worker; no result is lost"):
        run.run(plan, tmp_path / "out", executor=Losing(1, memory=True))
    assert results(tmp_path / "out") == undisturbed


def test_a_second_command_on_the_folder_is_refused_and_changes_nothing(plan, undisturbed, tmp_path):
    with Store(tmp_path / "out").opened(), pytest.raises(StoreError, match="in use by another heatproof process"):
        run.run(plan, tmp_path / "out", workers=1)
    run.run(plan, tmp_path / "out", workers=1)
    assert results(tmp_path / "out") == undisturbed


def test_weights_that_changed_between_two_runs_are_refused_and_nothing_is_mixed(plan, undisturbed, tmp_path):
    """The same checkpoint again goes on; the first job is done with it."""
    import torch

    import heatproof

    net = heatproof.load_model("shapes", device="cpu").module
    weights, file, out = net.state_dict(), tmp_path / "net.pt", tmp_path / "out"
    torch.save(weights, file)
    model = plan.models[0].model_copy(update={"checkpoint": str(file)})
    checkpointed = plan.model_copy(update={"models": (model,)})
    with pytest.warns(HeatproofWarning), pytest.raises(HeatproofError, match="could not be finished"):
        run.run(checkpointed, out, executor=Losing(0, ATTEMPTS, ATTEMPTS))
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    changed = {name: value + (value.dtype.is_floating_point and 1e-3) for name, value in weights.items()}
    torch.save(changed, file)
    with pytest.raises(StoreError, match="the weights of shapes are not the same"):
        run.run(checkpointed, out, workers=1)
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}
    torch.save(weights, file)
    assert run.run(checkpointed, out, workers=1).kept == 1
    found = results(out)
    assert {name for name in found if found[name] == undisturbed[name]} >= {name for name in found if "maps" in name}


@pytest.mark.parametrize(
    "folder", ["rows", "partial", *(pytest.param(one, marks=pytest.mark.slow) for one in ("maps", "gallery"))]
)
def test_a_full_disk_is_said_and_the_same_command_goes_on(plan, undisturbed, tmp_path, monkeypatch, folder):
    """The file system refuses the second file of a folder."""
    monkeypatch.setattr(partial, "EVERY", 0.0)
    renamed, refused = Path.replace, []

    def replace(path: Path, target: Path) -> Path:
        if folder in Path(target).parts and any(Path(target).parent.glob("[!.]*")):
            refused.append(target)
            raise OSError(errno.ENOSPC, "No space left on device")
        return renamed(path, target)

    with monkeypatch.context() as full:
        full.setattr(Path, "replace", replace)
        with pytest.raises(StoreError, match=r"disk is full\. Free some space and run the same command again"):
            run.run(plan, tmp_path / "out", workers=1)
    assert len(refused) == 1 and not list((tmp_path / "out").glob("**/*.part"))
    run.run(plan, tmp_path / "out", workers=1)
    assert results(tmp_path / "out") == undisturbed


def test_a_clock_that_jumps_changes_nothing(plan, undisturbed, tmp_path, monkeypatch):
    jumps = itertools.cycle([0.0, 4e9, 86400.0, -1e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    run.run(plan, tmp_path / "out", workers=1)
    assert results(tmp_path / "out") == undisturbed


# --- images that end the process that opens them ---


@pytest.fixture
def shapes():
    from heatproof.data import demo_shapes

    return demo_shapes(n=6)


def test_images_that_crash_or_hang_are_found_one_by_one(shapes, monkeypatch):
    from heatproof.studies import careful_opening

    monkeypatch.setattr(careful_opening, "OPEN", 3.0)
    one, two, three = shapes.ids[1], shapes.ids[2], shapes.ids[5]
    images = CrashingImages(shapes, {one: "crashes", two: "hangs", three: "exits"})
    found = crashing_images(images, range(6))
    assert set(found) == {one, two, three}
    assert "SIGSEGV" in found[one] and "longer than 3 s" in found[two] and "exit code 0" in found[three]
    assert crashing_images(shapes, range(6)) == {}


def test_an_image_that_crashes_its_decoder_is_a_flagged_row(plan, undisturbed, tmp_path, monkeypatch, photographs):
    """And all other rows are those of the study in which that image cannot be opened."""
    from dataclasses import replace

    from heatproof.studies.store import connect

    opened = run.open_datasets
    name = sorted(path.name for path in photographs.iterdir() if path.suffix == ".png")[-1]

    def datasets(plan):
        return tuple(replace(one, images=CrashingImages(one.images, {name: "crashes"})) for one in opened(plan))

    monkeypatch.setattr(run, "open_datasets", datasets)
    with pytest.warns(HeatproofWarning, match="SIGSEGV"):
        run.run(plan, tmp_path / "out", executor=Processes(2))
    sql = "select image, method, perturbation, severity, flag, value from rows where metric = 'rbo' order by all"
    found = connect(tmp_path / "out").execute(sql).df()
    crashed = found[found["image"] == name]
    assert len(crashed) and crashed["flag"].str.contains("the process that opens it was ended by SIGSEGV").all()
    assert crashed["value"].isna().all()
    (tmp_path / "undisturbed" / "rows").mkdir(parents=True)
    for file, content in undisturbed.items():
        if file.startswith("rows"):
            (tmp_path / "undisturbed" / file).write_bytes(content)
    whole = duckdb.sql(sql.replace("rows", f"'{tmp_path}/undisturbed/rows/*.parquet'")).df()
    assert found[found["image"] != name].equals(whole[whole["image"] != name])


# --- other machines ---


def test_a_worker_refuses_other_weights_than_the_study_began_with(plan, tmp_path, monkeypatch):
    kept: list[Setup] = []
    prepare = worker_process.prepare

    def remembering(setup, models=None):
        kept.append(setup)
        return prepare(setup, models)

    monkeypatch.setattr(run, "prepare", remembering)
    run.run(plan, tmp_path / "out", workers=1)
    setup = kept[0]
    assert setup.fingerprints[0]
    from dataclasses import replace

    other = prepare(replace(setup, fingerprints=("0" * 32,)))
    job = run.all_jobs(setup.plan, setup.datasets)[0]
    with pytest.raises(ModelError, match="not those that the study began with"):
        other(job, lambda share: None)
    with pytest.raises(StoreError, match="is not there on"):
        prepare(replace(setup, folder=str(tmp_path / "elsewhere")))
    moved = replace(setup.datasets[0].images, paths=[Path("/nowhere") / p.name for p in setup.datasets[0].images.paths])
    with pytest.raises(StoreError, match="same path"):
        prepare(replace(setup, datasets=(replace(setup.datasets[0], images=moved),)))
    assert Store(tmp_path / "out").done()

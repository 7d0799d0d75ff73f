"""A job that is stopped in the middle is taken up where it was, and ends with the same bytes."""

from pathlib import Path

import numpy as np
import pytest
import torch

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.flags import Flag, Reason
from heatproof.metrics.catalogue import METRICS
from heatproof.models import Model
from heatproof.studies import partial, run
from heatproof.studies.partial import PartialJob
from heatproof.studies.plan import checked_plan
from heatproof.studies.rows import Rows
from heatproof.studies.store import Store

METHODS = ["gradcam", "layercam", "eigencam", {"rise": {"masks": 10}}, "guided-backprop", "refine:layercam"]
PLANS = {
    "score": {"study": "score", "methods": METHODS,
              "metrics": ["insertion[steps=14]", "max-sensitivity[samples=2]", "adcc"]},
    "noise": {"study": "noise-robustness", "methods": METHODS, "perturbations": ["gaussian-noise", "fgsm"],
              "severities": [1, 3], "segmenters": ["grid"], "controls": "none"},
    "audit": {"study": "audit", "methods": METHODS[:1], "controls": "none", "perturbations": ["jpeg"],
              "severities": [3], "segmenters": ["grid"]},
}  # fmt: skip


def small(photographs, kind: str):
    shared = {"models": "shapes", "datasets": str(photographs), "batch_size": 3, "limit": 3, "resamples": 100}
    return checked_plan({**shared, **PLANS[kind]})


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for name in ("rows/*.parquet", "maps/*.npz") for path in sorted(folder.glob(name))}  # fmt: skip


class Killed(BaseException):
    """A study killed in the middle: no `except Exception` holds it back."""


@pytest.fixture
def passes(monkeypatch):
    """Counts the images that networks see until the job is done, and kills the study after so many."""

    class Passes:
        seen, most, job = 0, None, 0

    def counted(model, z, original=Model.of_normalised):
        if Passes.most is not None and Passes.seen + len(z) > Passes.most:
            raise Killed
        Passes.seen += len(z)
        return original(model, z)

    def written(store, *given, original=Store.write_shard):
        Passes.job = Passes.seen
        original(store, *given)

    monkeypatch.setattr(Model, "of_normalised", counted)
    monkeypatch.setattr(Store, "write_shard", written)
    Passes.seen, Passes.most = 0, None
    return Passes


@pytest.fixture
def undisturbed(photographs, passes, shared_folder):
    """Kind of study → the images that its job shows to networks, and its files, of one run for all tests."""

    def of(kind: str) -> tuple[int, dict[str, bytes]]:
        def made(folder: Path) -> None:
            run.run(small(photographs, kind), folder / "study", workers=1)
            (folder / "passes.txt").write_text(str(passes.job))

        folder = shared_folder(f"job-{kind}", made)
        passes.seen = 0
        return int((folder / "passes.txt").read_text()), files(folder / "study")

    return of


@pytest.mark.parametrize(
    ("kind", "share", "again"), [("score", 0.3, 0.9), ("score", 0.75, 0.5), ("noise", 0.6, 0.7), ("audit", 0.9, 0.6)]
)
def test_a_job_stopped_anywhere_goes_on_from_there_and_ends_with_the_same_bytes(
    photographs, tmp_path, passes, undisturbed, monkeypatch, kind, share, again
):
    plan = small(photographs, kind)
    whole, expected = undisturbed(kind)
    monkeypatch.setattr(partial, "EVERY", 0.0)
    out, passes.seen, passes.most = tmp_path / "out", 0, int(share * whole)
    with pytest.raises(Killed):
        run.run(plan, out, workers=1)
    assert not files(out) and list(out.glob("partial/*/*.npz"))
    passes.seen, passes.most = 0, None
    assert run.run(plan, out, workers=1).ran == 1
    assert files(out) == expected
    assert not (out / "partial").exists()
    assert passes.job < again * whole, "what was done is not done again"


def test_a_stopped_job_may_be_stopped_again_and_every_stop_brings_it_on(
    photographs, tmp_path, passes, undisturbed, monkeypatch
):
    plan = small(photographs, "score")
    (whole, expected), kept = undisturbed("score"), []
    monkeypatch.setattr(partial, "EVERY", 0.0)
    for _ in range(20):
        passes.seen, passes.most = 0, int(0.4 * whole)
        try:
            run.run(plan, tmp_path / "out", workers=1)
            break
        except Killed:
            kept.append(len(list(tmp_path.glob("out/partial/*/*.npz"))))
    assert 1 <= len(kept) < 6 and kept == sorted(set(kept))
    assert files(tmp_path / "out") == expected


def test_nothing_is_written_by_a_job_that_is_short(photographs, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(partial.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(PartialJob, "write", lambda job: written.append(job))
    run.run(small(photographs, "score"), tmp_path / "out", workers=1)
    assert not written and not (tmp_path / "out" / "partial").exists()


def test_parts_are_written_when_the_time_is_over(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(partial.time, "monotonic", lambda: now[0])
    job = PartialJob(tmp_path / "job")
    for second in range(0, 70, 5):
        now[0] = float(second)
        job.put(f"part {second}", lambda second=second: {"values": np.full(2, second)})
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["0000.npz", "0001.npz", "0002.npz"]
    again = PartialJob(tmp_path / "job")
    assert again.get("part 60")["values"].tolist() == [60, 60] and again.get("part 65") is None
    again.put("more", lambda: {"values": np.zeros(1)})
    again.write()
    assert (tmp_path / "job" / "0003.npz").exists()
    (tmp_path / "job" / "0001.npz").write_bytes(b"broken")
    assert PartialJob(tmp_path / "job").get("part 40") is None and PartialJob(tmp_path / "job").get("more") is not None
    again.remove()
    assert not (tmp_path / "job").exists()


def test_parts_of_other_images_are_not_taken(tmp_path):
    job = PartialJob(tmp_path / "job")
    job.of(["a", "b"]).condition(0).add_maps("gradcam", torch.ones(2, 3, 3))
    job.write()
    again = PartialJob(tmp_path / "job")
    assert again.of(["a", "b"]).condition(0).maps("gradcam").equal(torch.ones(2, 3, 3))
    for images, number in ((["a"], 0), (["b", "a"], 0), (["a", "b"], 1)):
        assert again.of(images).condition(number).maps("gradcam") is None


def test_rows_are_read_back_to_the_last_bit():
    rows = Rows()
    rows.add(["a", "b"], metric="m", value=np.array([0.1 + 0.2, np.nan]), flag=[Flag(Reason.CONSTANT), ""], n=[1, 2])
    rows.add(["é"], metric="n", value=[-0.0], changed=[None], severity=3, strength=np.float64(1) / 3, control=True)
    again = Rows.from_text(rows.text())
    assert repr(again.table().to_pydict()) == repr(rows.table().to_pydict())


def test_a_bug_under_way_is_flagged_in_what_is_taken_up_too(photographs, tmp_path, passes, monkeypatch):
    def late(model, inputs, targets):
        if len(inputs) > 2:
            raise ValueError("a bug, [with] signs/…")
        return inputs.detach().abs().sum(1)

    heatproof.register("late bug", late)
    heatproof.register_metric("late metric", lambda maps: maps.mean((1, 2)) if len(maps) == 2 else maps, better="high")
    try:
        settings = {"methods": ("gradcam", "late bug"), "metrics": ("late metric", "insertion[steps=14]")}
        plan = small(photographs, "score").model_copy(update=settings)
        run.run(plan, tmp_path / "whole", workers=1)
        monkeypatch.setattr(partial, "EVERY", 0.0)
        passes.most, passes.seen = int(0.5 * passes.job), 0
        with pytest.raises(Killed):
            run.run(plan, tmp_path / "out", workers=1)
        passes.most = None
        run.run(plan, tmp_path / "out", workers=1)
    finally:
        ATTRIBUTIONS.remove("late bug")
        METRICS.remove("late metric")
    assert files(tmp_path / "out") == files(tmp_path / "whole")

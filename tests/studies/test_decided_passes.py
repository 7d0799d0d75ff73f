"""Conditions that share a pass, and networks under autocast: on the CPU where asked for, on a pretended GPU by itself.

The pretended GPU counts the bytes of its tensors, and runs out of memory where they are more than it has.
"""

import gc
import importlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import heatproof
from heatproof.data import demo_shapes
from heatproof.errors import HeatproofWarning, InvalidStudy
from heatproof.models import Model
from heatproof.studies import decided_passes, partial
from heatproof.studies import run as run_module
from heatproof.studies.measurement import Measurement
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.studies.together import Together
from heatproof.studies.worker import Worker

from ..accelerator import Memory, accelerator, memory

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
#: Two jobs of two images, clean and under six conditions.
NOISE: dict[str, Any] = {
    "study": "noise-robustness", "models": ["shapes"], "datasets": ["shapes"], "limit": 4, "batch_size": 2,
    "methods": ["gradcam", "refine:layercam", "smoothgrad[samples=2]"], "controls": "none", "segmenters": ["grid"],
    "perturbations": ["gaussian-noise", "jpeg", "fgsm"], "severities": [1, 3], "device": "cpu",
}  # fmt: skip
PLENTY = 1 << 34


@pytest.fixture(autouse=True)
def without_gallery(monkeypatch):
    monkeypatch.setattr(run_module, "write_gallery", lambda *_: None)


@pytest.fixture
def passes(monkeypatch) -> Counter:
    """How many passes of the network had how many images, in the jobs themselves."""
    found, output, job = Counter(), Model.output, Worker.__call__
    running = []

    def counting(self: Model, z: torch.Tensor) -> Any:
        found[len(z)] += bool(running)
        return output(self, z)

    def working(self: Worker, *arguments: Any) -> Any:
        running.append(True)
        try:
            return job(self, *arguments)
        finally:
            running.pop()

    monkeypatch.setattr(Model, "output", counting)
    monkeypatch.setattr(Worker, "__call__", working)
    return found


@contextmanager
def gpu(size: int) -> Iterator[Memory]:
    with accelerator(), memory(size) as found:
        yield found


def study(folder: Path, **settings: Any) -> Path:
    run(checked_plan({**NOISE, **settings}), folder, workers=1)
    return folder


def rows(folder: Path) -> pd.DataFrame:
    return pq.read_table(folder / "rows").to_pandas()


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "study.json").read_text("utf-8"))


def same_bytes(one: Path, other: Path) -> bool:
    files = [sorted((folder / "rows").glob("*.parquet")) for folder in (one, other)]
    return [f.name for f in files[0]] == [f.name for f in files[1]] and all(
        a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True)
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The study on the CPU, one condition a pass."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_module, "write_gallery", lambda *_: None)
        return study(tmp_path_factory.mktemp("plain") / "study")


# --- which conditions share a pass ---


def test_groups_are_the_same_wherever_a_study_goes_on():
    states = ["", "", "", "randomised", "", "randomised", ""]
    assert [Together(1).group(n, states) for n in (1, 4)] == [[1], [4]]
    for number, group in {1: [1, 2], 2: [1, 2], 3: [3, 5], 4: [4, 6], 5: [3, 5], 6: [4, 6], 0: [0]}.items():
        assert Together(2).group(number, states) == group
    assert Together(9).group(6, states) == [1, 2, 4, 6]


def test_on_the_cpu_only_where_asked_for(plain, tmp_path, passes):
    assert same_bytes(plain, study(tmp_path / "one", conditions_at_once=1))
    alone = dict(passes)
    assert alone[2] >= 2 * 7 and max(alone) == 4  # SmoothGrad has two draws of each image
    passes.clear()
    three = study(tmp_path / "three", conditions_at_once=3)
    pd.testing.assert_frame_equal(rows(three), rows(plain), **CLOSE)
    assert max(passes) == 12 and passes[6] >= 2 * 2 and passes[2] < alone[2] - 2 * 4
    assert facts(three)["conditions_at_once"] == 3 and "conditions_in_a_pass" not in facts(plain)
    assert same_bytes(three, study(tmp_path / "again", conditions_at_once=3))
    with pytest.raises(heatproof.errors.StoreError, match="conditions_at_once is 3 there and 2 here"):
        study(three, conditions_at_once=2)


@pytest.mark.parametrize("stopped", [2, *(pytest.param(one, marks=pytest.mark.slow) for one in (3, 5))])
def test_a_study_that_was_stopped_within_a_group_has_the_same_bytes(stopped, tmp_path, monkeypatch):
    """Stopped before the rows of a condition: those before it are done, and those after it share its pass."""
    three = study(tmp_path / "whole", conditions_at_once=3, limit=2)
    monkeypatch.setattr(partial, "EVERY", 0.0)
    with monkeypatch.context() as patched:
        measure = Measurement._measure

        def ending(self: Measurement, explained: Any, *arguments: Any) -> None:
            if explained.condition == self.conditions[stopped]:
                raise KeyboardInterrupt
            measure(self, explained, *arguments)

        patched.setattr(Measurement, "_measure", ending)
        with pytest.raises(KeyboardInterrupt):
            study(tmp_path / "stopped", conditions_at_once=3, limit=2)
    assert same_bytes(three, study(tmp_path / "stopped", conditions_at_once=3, limit=2))


def test_random_numbers_and_errors_are_those_of_one_at_a_time(tmp_path, monkeypatch):
    """Methods that draw for each image and condition, and one that fails."""
    more = {"methods": ["gradcam", "sscam[samples=2]", "lime[samples=20,segmenter=grid,alpha=0.001]"], "limit": 2,
            "controls": "all", "perturbations": ["gaussian-noise", "motion-blur"]}  # fmt: skip
    engine = importlib.import_module("heatproof.engine.explanation")
    made = engine._raw_map

    def failing(at_target: Any, method: Any, upsample: str) -> Any:
        if method.key == "half" and at_target.batch.x.mean() > 0.1:
            raise ValueError("no such map")
        return made(at_target, method, upsample)

    monkeypatch.setattr(engine, "_raw_map", failing)
    one, four = (study(tmp_path / str(n), conditions_at_once=n, **more) for n in (1, 4))
    assert rows(one)["flag"].str.contains("no such map").sum() > 6
    pd.testing.assert_frame_equal(rows(four), rows(one), **CLOSE)


@pytest.mark.slow
def test_images_of_another_size_and_other_states_are_explained_alone(tmp_path):
    """Cropped images, and a network with other weights."""
    more = {"study": "fidelity", "limit": 1, "methods": ["gradcam"]}
    bare = {name: value for name, value in NOISE.items() if name not in ("perturbations", "severities", "segmenters")}
    one, many = (tmp_path / str(number) for number in (1, 9))
    for folder in (one, many):
        run(checked_plan({**bare, **more, "conditions_at_once": int(folder.name)}), folder, workers=1)
    pd.testing.assert_frame_equal(rows(many), rows(one), **CLOSE)


@pytest.mark.parametrize("value", [0, -1, "many"])
def test_a_wrong_number_is_refused(value):
    with pytest.raises(InvalidStudy, match="conditions_at_once"):
        checked_plan({**NOISE, "conditions_at_once": value})


# --- the number that a GPU's memory holds ---


def test_a_gpu_with_room_has_all_conditions_in_one_pass(plain, tmp_path, passes):
    with gpu(PLENTY) as device:
        folder = study(tmp_path / "all", device="cuda")
    assert facts(folder)["conditions_in_a_pass"] == {"shapes": 6} and device.failures == 0
    assert max(passes) == 24 and passes[12] >= 2  # six conditions of two images; two draws of SmoothGrad
    pd.testing.assert_frame_equal(rows(folder), rows(plain), **CLOSE)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> int:
    """The most memory that the study takes where conditions are explained one by one."""
    with pytest.MonkeyPatch.context() as patched, gpu(PLENTY) as device:
        patched.setattr(run_module, "write_gallery", lambda *_: None)
        study(tmp_path_factory.mktemp("one") / "study", device="cuda", conditions_at_once=1, limit=2)
    return device.peak


def test_the_number_follows_from_the_memory_and_does_not_run_out(plain, one, tmp_path, passes):
    with gpu(2 * one) as device:
        folder = study(tmp_path / "some", device="cuda")
    count = facts(folder)["conditions_in_a_pass"]["shapes"]
    assert 2 <= count < 6 and device.failures == 0 and one < device.peak <= 2 * one
    assert passes[2 * count] >= 2
    pd.testing.assert_frame_equal(rows(folder), rows(plain), **CLOSE)


def test_where_memory_runs_out_the_conditions_are_halved_and_stay_so(plain, one, tmp_path, monkeypatch):
    counts, explain = [], decided_passes.Worker.measurement

    def watched(self: Worker, *arguments: Any) -> Measurement:
        found = explain(self, *arguments)
        counts.append(found.together.count)
        return found

    monkeypatch.setattr(Worker, "measurement", watched)
    with gpu(int(1.7 * one)) as device:
        folder = study(tmp_path / "halved", device="cuda", conditions_at_once=6)
    assert device.failures >= 1 and counts[-2] == 6 and counts[-1] in (1, 3)
    pd.testing.assert_frame_equal(rows(folder), rows(plain), **CLOSE)


def test_no_memory_is_kept_after_a_job(tmp_path, monkeypatch):
    """Circles of references would keep it until Python looks for them, of which the GPU's memory knows nothing."""
    left, job = [], Worker.__call__

    def watched(self: Worker, *arguments: Any) -> Any:
        found = job(self, *arguments)
        left.append(device.used)
        return found

    monkeypatch.setattr(Worker, "__call__", watched)
    with gpu(PLENTY) as device:
        gc.collect()
        gc.disable()
        try:
            study(tmp_path / "study", device="cuda", conditions_at_once=3)
        finally:
            gc.enable()
    assert len(left) == 2 and left[1] <= left[0] < device.peak / 4


def test_the_cap_and_equal_groups(monkeypatch):
    """As many as memory holds, at most a full pass, in groups of one size."""

    class Measured:
        block = type("Block", (), {"ids": ["a"] * 64})
        model = type("On", (), {"device": torch.device("cuda")})
        conditions, x = range(41), torch.zeros(64, 3, 8, 8, device="meta")

        def explained(self, _: Any) -> None:
            return None

    figures = {"memory_allocated": 100, "max_memory_allocated": 1100, "memory_reserved": 600}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _device: None)
    for free, count in {0: 1, 2000: 2, 5000: 4, 7000: 6, 10**9: 8}.items():
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device, free=free: (free, 10**10))
        assert decided_passes.found_together(Measured()) == count  # type: ignore[arg-type]


# --- autocast ---


def test_autocast_where_maps_stay_as_they_are(plain, tmp_path, monkeypatch):
    cams = {"methods": ["gradcam", "refine:layercam"]}
    seen, network = set(), Model.unwrap

    def watched(self: Model, output: Any) -> torch.Tensor:
        seen.add(output.dtype)
        return network(self, output)

    monkeypatch.setattr(Model, "unwrap", watched)
    with gpu(PLENTY):
        folder = study(tmp_path / "auto", device="cuda", autocast="auto", **cams)
        assert seen == {torch.float32, torch.bfloat16}
        found = facts(folder)["lower_precision"]["shapes"]
        assert found["used"] and found["beyond"] == [] and found["images"] == 2 and found["dtype"] == "bfloat16"
        assert found["methods"]["gradcam"]["ranks"] > 0.999 and 0 < found["methods"]["gradcam"]["difference"] < 0.005
        full = study(tmp_path / "never", device="cuda", **cams)
        assert "lower_precision" not in facts(full)
        whole = rows(folder)
        next((folder / "rows").glob("*.parquet")).unlink()
        monkeypatch.setattr(decided_passes, "compared", None)  # a study goes on as it was begun
        pd.testing.assert_frame_equal(rows(study(folder, device="cuda", autocast="auto", **cams)), whole)
    ours, theirs = rows(full), whole
    assert (ours["perturbed_class"].fillna(-1) == theirs["perturbed_class"].fillna(-1)).all()
    images = ours["metric"] == "psnr"  # attacks are made in full precision
    pd.testing.assert_frame_equal(ours[images]["value"].to_frame(), theirs[images]["value"].to_frame())
    pairs = ours["metric"].isin(["l1", "cosine", "spearman"])
    gap = (ours["value"] - theirs["value"])[pairs].abs()
    assert 0 < gap.max() < 0.05


def test_full_precision_where_one_method_would_differ(tmp_path):
    some = {"methods": ["gradcam", "lrp"], "limit": 2}
    with gpu(PLENTY):
        with pytest.warns(HeatproofWarning, match=r"shapes runs in full precision: in bfloat16 lrp would differ"):
            folder = study(tmp_path / "auto", device="cuda", autocast="auto", **some)
        full = study(tmp_path / "never", device="cuda", **some)
    found = facts(folder)["lower_precision"]["shapes"]
    assert not found["used"] and found["beyond"] == ["lrp"] and found["methods"]["gradcam"]["ranks"] > 0.999
    assert same_bytes(folder, full)


def test_on_the_cpu_autocast_only_always(plain, tmp_path):
    some = {"limit": 2, "methods": ["gradcam"]}
    never, auto, always = (study(tmp_path / how, autocast=how, **some) for how in ("never", "auto", "always"))
    assert same_bytes(never, auto) and "lower_precision" not in facts(auto)
    assert facts(always)["lower_precision"]["shapes"]["used"] and not same_bytes(never, always)
    with pytest.raises(heatproof.errors.StoreError, match="autocast is"):
        study(always, **some)


# --- images on their way to the GPU ---


def test_a_study_pins_images_ahead_and_has_channels_last(tmp_path, monkeypatch):
    shapes, images = demo_shapes(n=6), tmp_path / "images"
    images.mkdir()
    for number in range(6):
        Image.fromarray(np.asarray(shapes.open(number))).save(images / f"{number}.png")
    pinned, layouts, waited = [], set(), Counter()
    measure = Measurement.__post_init__

    def begun(self: Measurement) -> None:
        from ..accelerator import waiting

        with waiting() as found:
            measure(self)
        waited.update(found)
        layouts.update(one.weight.is_contiguous(memory_format=torch.channels_last)
                       for one in self.model.module.modules() if isinstance(one, torch.nn.Conv2d))  # fmt: skip

    monkeypatch.setattr(Measurement, "__post_init__", begun)
    with gpu(PLENTY):
        whole = lambda self: pinned.append((threading.current_thread().name, tuple(self.shape))) or self  # noqa: E731
        monkeypatch.setattr(torch.Tensor, "pin_memory", whole)
        study(tmp_path / "study", device="cuda", datasets=[str(images)], limit=None, methods=["gradcam"])
        monkeypatch.undo()
    ahead = [shape for thread, shape in pinned if thread.startswith("next images")]
    assert ahead == [(2, 3, 96, 96)] * 2  # of three jobs, while the one before was at work
    assert layouts == {True} and not waited  # the copy to the GPU goes on while the host does


@pytest.mark.parametrize("value", [True, 0, -1, 2.5, "two", None])
def test_another_number_of_conditions_is_refused_in_a_sentence(value):
    with pytest.raises(InvalidStudy, match=r"conditions_at_once` must be a whole number of at least 1, or auto\. Got"):
        checked_plan({**NOISE, "conditions_at_once": value})

"""Every path of the engine on an accelerator that is none: nothing mixes the tensors of two devices, and no path waits
for the device but where `benchmarks/waits.json` says why.

Machines that run these tests need no GPU; `scripts/gpu.py` compares numbers on one. Left out is what torch itself mixes
on tensors of a subclass: forward derivatives (`fullgrad` of curved networks).
"""

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from heatproof.attributions import display
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.transfers import on_device, on_host, possibly

from . import device_paths as paths
from .accelerator import OnDevice, accelerator, waiting
from .contracts import test_metrics as metrics

CLOSE = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}
LISTED = paths.known()


def check_waits(path: str, work: Any) -> None:
    """The second call of a path waits where it is listed, and nowhere else."""
    with waiting() as found:
        work()
    assert paths.problems(found, LISTED["paths"][path], LISTED["reasons"]) == []


def test_it_refuses_what_a_gpu_refuses():
    with accelerator() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        for work in (
            lambda: there + here,
            lambda: torch.stack([there, here]),
            lambda: here.mul_(there.sum()),
            lambda: here[there.long()],
            lambda: there.numpy(),
            lambda: torch.rand(3, generator=torch.Generator(), device=device),
        ):
            with pytest.raises((RuntimeError, TypeError), match=r"cuda|device"):
                work()
        for found in (there + here.to(device), there + here.to(there), there * here.sum(), there[here.long().clamp(2)]):
            assert isinstance(found, OnDevice) and found.device == device
        assert type(there.cpu()) is torch.Tensor and there.tolist() == [1, 1, 1]


def test_waits_are_counted_as_cuda_counts_them():
    with accelerator() as device:
        there, here, mask = torch.ones(4, device=device), torch.ones(4), torch.ones(4, device=device) > 0
        alike = {
            "number": (lambda: bool(there.any()), lambda: there[0].item(), lambda: float(there.sum())),
            "comparison": (lambda: torch.equal(there, there), lambda: torch.allclose(there, there)),
            "size": (lambda: mask.nonzero(), lambda: there.unique()),
            "mask": (lambda: there[mask],),
            "status": (lambda: torch.linalg.eigh(there[None] * there[:, None]),),
            "to host": (there.tolist, there.cpu, lambda: there.to("cpu"), lambda: here.copy_(there)),
            "to device": (lambda: here.to(device), lambda: there[[0, 1]], lambda: torch.tensor([1.0], device=device)),
        }
        free = (
            lambda: there + 1, lambda: there.masked_fill(mask, 0), lambda: there.index_fill(0, there.long(), 2),
            lambda: here.to(device, non_blocking=True), lambda: torch.zeros(3, device=device), there[:0].tolist,
        )  # fmt: skip
        for kind, works in {**alike, None: free}.items():
            for work in works:
                with waiting() as found:
                    _as_heatproof(work)
                assert [one[3] for one in found] == ([kind] if kind else [])


def _as_heatproof(work: Any) -> None:
    """Calls the work from a line that counts as one of heatproof's."""
    from .accelerator import SOURCE

    code = compile("def line(work):\n    return work()\n", f"{SOURCE}/line.py", "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    names["line"](work)


def test_copies_to_the_host_share_a_wait_and_are_not_read_before():
    with accelerator() as device:
        there = [torch.arange(3, device=device), torch.ones(2, device=device), torch.ones(2, device=device) > 0]
        early = there[1].to("cpu", non_blocking=True)
        assert early.isnan().all()  # it is underway
        with waiting() as found:
            _as_heatproof(lambda: on_host(there))
        assert sum(found.values()) == 1
        assert [one.tolist() for one in on_host(there)] == [[0, 1, 2], [1, 1], [True, True]]
        with waiting() as found:
            moved = [on_device(torch.ones(2), device), on_device(torch.ones(2), "cuda", torch.float64)]
            _as_heatproof(lambda: possibly(there[2]))
        assert not found and all(isinstance(one, OnDevice) for one in moved) and moved[1].dtype == torch.float64
    plain = torch.ones(2)
    assert on_host([plain])[0].data_ptr() == plain.data_ptr() and on_device(plain, "cpu") is plain
    assert possibly(plain > 0) and not possibly(plain < 0)


def test_a_new_wait_is_named_with_its_line(monkeypatch):
    real = display.degeneracy

    def waiting_flags(raw: torch.Tensor, form: str, **more: Any) -> torch.Tensor:
        assert real(raw, form, **more).tolist()
        return real(raw, form, **more)

    monkeypatch.setattr(importlib.import_module("heatproof.engine.explanation"), "degeneracy", waiting_flags)
    found = paths.waits("method gradcam")
    ((line,),) = [paths.problems(found, LISTED["paths"]["method gradcam"], LISTED["reasons"])[:1]]
    assert (
        line.startswith("src/heatproof/engine/explanation.py:") and "waits for the device, which is not listed" in line
    )
    gone = paths.problems(found, {*LISTED["paths"]["method gradcam"], "elsewhere.py f: number"}, LISTED["reasons"])
    assert "listed, and it does not wait any more: elsewhere.py f: number" in gone


def test_every_path_is_listed_and_every_wait_has_a_reason():
    assert set(LISTED["paths"]) == set(paths.PATHS)
    used = {site for found in (*LISTED["paths"].values(), *LISTED["conditions"].values()) for site in found}
    assert set(LISTED["reasons"]) == used and all(LISTED["reasons"].values())


@pytest.mark.parametrize("name", paths.METHODS)
def test_a_method_stays_on_the_device(name):
    expected = paths.method(name, "cpu")()
    with accelerator():
        work = paths.method(name, "cuda")
        found = work()
        assert isinstance(found, OnDevice)
        found = found.cpu()
        check_waits(f"method {name}", work)
    torch.testing.assert_close(found, expected, **CLOSE)


@cache
def scored_here(name: str) -> Any:
    """On the CPU, without an accelerator."""
    return paths.metric(name, "cpu")()


@pytest.mark.parametrize("given", ["on the CPU", "on the device"])
@pytest.mark.parametrize("name", metrics.NAMES)
def test_a_metric_stays_on_the_device_wherever_its_maps_and_masks_are(name, given):
    expected = scored_here(name)
    with accelerator():
        work = paths.metric(name, "cuda", "cpu" if given == "on the CPU" else "")
        found = work()
        if given == "on the device":
            check_waits(f"metric {name}", work)
    assert [row.flag for row in found.rows] == [row.flag for row in expected.rows]
    values, wanted = ([row.value for row in scores.rows] for scores in (found, expected))
    torch.testing.assert_close(torch.tensor(values), torch.tensor(wanted), **CLOSE)


@pytest.mark.parametrize("kind", paths.CHANGES)
def test_a_changed_image_stays_on_the_device(kind):
    expected = paths.change(kind, "cpu")()
    with accelerator():
        work = paths.change(kind, "cuda")
        found = work()
        assert isinstance(found, OnDevice)
        found = found.cpu()
        check_waits(f"change {kind}", work)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_a_condition_waits_as_often_however_many_methods_there_are():
    found = paths.condition_waits(paths.NOISE)
    assert set(found) == set(LISTED["conditions"])
    for name, one in found.items():
        assert paths.problems(one, LISTED["conditions"][name], LISTED["reasons"]) == [], name
        assert sum(one.values()) <= sum(LISTED["conditions"][name].values()), name
    fewer = paths.condition_waits({**paths.NOISE, "methods": ["eigencam"]})
    assert {name: sum(one.values()) for name, one in fewer.items() if name != "clean"} == {
        name: sum(one.values()) for name, one in found.items() if name != "clean"
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"study": "noise-robustness", "perturbations": ["jpeg", "fgsm"], "severities": [2], "segmenters": ["grid"]},
        {"study": "score", "metrics": ["arcc", "iou", "irof"]},
    ],
    ids=["noise-robustness", "score"],
)
def test_a_study_runs_on_the_device(settings, tmp_path: Path):
    more = {"models": ["shapes"], "datasets": ["shapes"], "limit": 2, "methods": ["gradcam", "refine:layercam"]}
    run(checked_plan({**settings, **more, "device": "cpu"}), tmp_path / "here", workers=1)
    with accelerator():
        run(checked_plan({**settings, **more, "device": "cuda"}), tmp_path / "there", workers=1)
    here, there = (pq.read_table(tmp_path / name / "rows").to_pandas() for name in ("here", "there"))
    pd.testing.assert_frame_equal(there, here, rtol=1e-4, atol=1e-5)

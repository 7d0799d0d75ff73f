"""Nothing mixes the tensors of two devices: methods, metrics, perturbations and a study on an accelerator that is none.

Machines that run these tests need no GPU; `scripts/gpu.py` compares numbers on one. Left out is what torch itself mixes
on tensors of a subclass: forward derivatives (`fullgrad` of curved networks), and the gradient of `unbind` (DeepFool).
"""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.metrics.metric_request import parsed_metric
from heatproof.models import Model, wrap
from heatproof.perturbations import PERTURBATIONS, Perturber
from heatproof.studies.changed_images import loss_gradient
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.transformations import TRANSFORMATIONS, transformed

from . import nets
from .accelerator import OnDevice, accelerator
from .contracts import test_attributions as methods
from .contracts import test_metrics as metrics

CLOSE = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}
KINDS = [kind for kind in PERTURBATIONS if not kind.startswith("deepfool")]


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


@pytest.mark.parametrize("name", list(ATTRIBUTIONS))
def test_a_method_stays_on_the_device(name):
    net = nets.Plain if name == "fullgrad" else methods.network_for(name)
    x, asked = nets.images(2, methods.SIDE, 12), methods.asked(name)
    expected = heatproof.explain(methods.model_of(net), x, asked)[name]
    with accelerator():
        found = heatproof.explain(methods.model_of(net, "cuda"), x, asked)[name]
        assert isinstance(found, OnDevice)
        found = found.cpu()
    torch.testing.assert_close(found, expected, **CLOSE)


def model_on(device: str) -> Model:
    net = nets.told_apart(nets.seeded(nets.Signed), metrics.WIDTH)
    return wrap(net, size=(metrics.HEIGHT, metrics.WIDTH), layer="two", device=device)


def scored(name: str, device: str, where: str) -> Any:
    """The metric on two images by a model on `device`, with maps and masks `where`."""
    x, maps, masks = (make(2).to(where) for make in (metrics.images, metrics.smooth_maps, metrics.masks))
    paired = parsed_metric(name).paired
    reference = dict.fromkeys(("gradcam", "given"), metrics.reference_maps(metrics.smooth_maps(2)).to(where))
    asked = {name: metrics.QUICK.get(name, {})}
    more: dict[str, Any] = {"masks": masks, **({"reference": reference} if paired else {})}
    return heatproof.score(model_on(device), x, {"gradcam": None, "given": maps}, asked, **more)


@cache
def scored_here(name: str) -> Any:
    """On the CPU, without an accelerator."""
    return scored(name, "cpu", "cpu")


@pytest.mark.parametrize("given", ["on the CPU", "on the device"])
@pytest.mark.parametrize("name", metrics.NAMES)
def test_a_metric_stays_on_the_device_wherever_its_maps_and_masks_are(name, given):
    expected = scored_here(name)
    with accelerator():
        found = scored(name, "cuda", "cpu" if given == "on the CPU" else "cuda")
    assert [row.flag for row in found.rows] == [row.flag for row in expected.rows]
    values, wanted = ([row.value for row in scores.rows] for scores in (found, expected))
    torch.testing.assert_close(torch.tensor(values), torch.tensor(wanted), **CLOSE)


@pytest.mark.parametrize("kind", [*KINDS, *TRANSFORMATIONS])
def test_a_changed_image_stays_on_the_device(kind):
    x, ids = metrics.images(2), ["cat", "dog"]

    def changed(device: str) -> torch.Tensor:
        if kind in TRANSFORMATIONS:
            return transformed(kind, x.to(device), ids, partners=lambda ids, generators: x.flip(0))
        model, images = model_on(device), x.to(device)
        clean = model.logits(images).argmax(1).detach()
        return Perturber(images, ids, 0, lambda some: loss_gradient(model, some, clean), model.logits).apply(kind, 3)

    expected = changed("cpu")
    with accelerator():
        found = changed("cuda")
        assert isinstance(found, OnDevice)
        found = found.cpu()
    torch.testing.assert_close(found, expected, **CLOSE)


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

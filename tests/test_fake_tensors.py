"""Pure functions of tensors under `torch._subclasses.FakeTensorMode` on `cuda`: no numbers, and no gradients.

They may mix no devices, read no number and make no array: FakeTensorMode raises where they do. It says in which places
a metric would wait for a GPU, since a number that decides something is an error there.
"""

from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError

from heatproof.attributions import ATTRIBUTIONS, display_maps
from heatproof.attributions.display import degeneracy
from heatproof.metrics import METRICS, similarity
from heatproof.metrics.rankings import ranking
from heatproof.metrics.similarity import Reduced
from heatproof.rounding import rounded, top_class
from heatproof.tensors import within_unit

GIVEN = {"activations", "gradients", "x"}
METHODS = [name for name, entry in ATTRIBUTIONS.items() if set(entry.needs) <= GIVEN]
OF_MAPS = {"maps", "reference", "reduced", "segment_ranks"}
FROM_MAPS = [
    name for name, entry in METRICS.items() if entry.needs and set(entry.needs) <= OF_MAPS and entry.needs != "maps"
]
#: Methods that check a status or a size, each in a line that docs/gpu.md lists.
READING = {"eigencam", "eigengradcam", "segeigencam", "kpcacam"}


@pytest.fixture(autouse=True)
def no_remembered_tensors(monkeypatch):
    """Fake tensors cannot be pinned, and none may stay in a cache, nor one of another test be found there."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self, *_: self)
    caches = similarity._area, similarity._band
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def on_device(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="cuda")


def test_it_refuses_what_a_gpu_refuses():
    with FakeTensorMode():
        there = on_device(3)
        with pytest.raises(FakeTensorDeviceMismatchError):
            there + torch.ones(3)
        with pytest.raises(DataDependentOutputException):
            there.sum().item()


@pytest.mark.parametrize("name", [name for name in METHODS if name not in READING])
def test_a_method_of_activations_gradients_and_images(name):
    with FakeTensorMode():
        given = {"activations": on_device(2, 5, 4, 3), "gradients": on_device(2, 5, 4, 3), "x": on_device(2, 3, 16, 12)}
        entry = ATTRIBUTIONS[name]
        raw = entry({need: given[need] for need in entry.needs}, {})
        form = entry.traits["form"]
        shown, codes = display_maps(raw, form, (16, 12)), degeneracy(raw, form)
    assert shown.shape == (2, 16, 12) and codes.shape == (2,)
    assert {one.device.type for one in (raw, shown, codes)} == {"cuda"}


@pytest.mark.parametrize("name", FROM_MAPS)
def test_a_metric_of_maps_and_pairs(name):
    with FakeTensorMode():
        maps, reference, means = on_device(4, 64, 64), on_device(4, 64, 64), on_device(4, 9).double()
        given: dict[str, Any] = {
            "maps": maps,
            "reference": reference,
            "reduced": (Reduced.of(maps), Reduced.of(reference)),
            "segment_ranks": lambda segmenter: (ranking(means), ranking(means)),
        }
        entry = METRICS[name]
        found = entry({need: given[need] for need in entry.needs}, {})
    assert found.shape == (4,) and found.dtype == torch.float64 and found.device.type == "cuda"


def test_what_every_path_goes_through():
    with FakeTensorMode():
        logits, x = on_device(3, 10), on_device(3, 3, 8, 8)
        found = [top_class(logits), rounded(logits), within_unit(x)]
    assert {one.device.type for one in found} == {"cuda"}

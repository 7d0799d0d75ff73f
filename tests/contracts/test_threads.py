"""Calls from several threads: equal to the same calls one after the other, and nothing is altered, for whatever is
registered."""

import copy
import pickle
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.attributions.foreign import unregister
from heatproof.engine import explain, score
from heatproof.models import Model, wrap
from heatproof.models.probe import facts

from .. import nets
from .test_attributions import NETWORKS, SIDE, asked, serves
from .test_metrics import NAMES
from .test_metrics import QUICK as QUICK_METRICS

THREADS = 4


@pytest.fixture(autouse=True)
def _many_switches() -> Iterator[None]:
    """Python changes threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Normed(nets.Signed):
    """Batch norms and dropout, whose statistics and draws a pass in train mode would alter."""

    def __init__(self):
        super().__init__()
        self.two = nn.Sequential(self.two[0], nn.BatchNorm2d(7), nn.Dropout(0.5), nn.Tanh())


def training(net: Callable[[], nn.Module], layer: str = "two") -> Model:
    """In train mode, some parameters frozen by the user."""
    module = nets.seeded(net).train()
    next(module.parameters()).requires_grad_(False)
    return wrap(module, size=(SIDE, 12), layer=layer)


def process() -> list[Any]:
    """What belongs to the whole process and a call might leave altered."""
    state = np.random.get_state(legacy=False)["state"]
    return [
        torch.get_rng_state().tolist(),
        state["pos"],
        state["key"].tolist(),
        list(warnings.filters),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        list(sys.path),
    ]


@contextmanager
def unaltered(*modules: nn.Module) -> Iterator[None]:
    before, around = [nets.traces(module) for module in modules], process()
    yield
    assert [nets.traces(module) for module in modules] == before
    assert process() == around


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def assert_equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("label", [*NETWORKS, "normed"])
def test_every_method_on_one_network(label):
    net = {**NETWORKS, "normed": Normed}[label]
    names = [name for name in ATTRIBUTIONS if serves(name, net)]
    x = nets.images(len(names), SIDE, 12)
    alone = [explain(training(net), x[i : i + 1], asked(name))[name] for i, name in enumerate(names)]
    model = training(net)
    with unaltered(model.module):
        calls = [lambda i=i, name=name: explain(model, x[i : i + 1], asked(name)) for i, name in enumerate(names)]
        found = together(calls)
    for name, maps, expected in zip(names, found, alone, strict=True):
        assert_equal(maps[name], expected)


def test_every_metric_on_one_network():
    x = nets.images(len(NAMES), 24, 20, seed=8)
    masks = torch.zeros(1, 24, 20, dtype=torch.bool)
    masks[:, 4:16, 5:15] = True

    def values(model: Model, i: int) -> list[float]:
        wanted = {NAMES[i]: QUICK_METRICS.get(NAMES[i], {})}
        found = score(model, x[i : i + 1], ["layercam"], wanted, masks=masks, reference=0.9 * x[i : i + 1])
        return [row.value for row in found.rows]

    def of_size(net: Callable[[], nn.Module]) -> Model:
        return wrap(nets.told_apart(nets.seeded(net), 20).train(), size=(24, 20), layer="two")

    alone = [values(of_size(Normed), i) for i in range(len(NAMES))]
    model = of_size(Normed)
    with unaltered(model.module):
        found = together([lambda i=i: values(model, i) for i in range(len(NAMES))])
    for name, some, expected in zip(NAMES, found, alone, strict=True):
        assert some == pytest.approx(expected, rel=1e-5, abs=1e-6, nan_ok=True), name


METHODS = {"shapleycam": {}, "ablationcam": {}, "lime": asked("lime")["lime"], "guided-gradcam": {}, "gradcam": {}}


class Stem(nn.Module):
    """A head of its own on a body that another network has too."""

    def __init__(self, body: nn.Module, classes: int):
        super().__init__()
        self.one, self.two, self.head = body.one, body.two, nn.Linear(7, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.two(self.one(x))).mean((2, 3)))


class Tied(nn.Module):
    """Modules of its own with the weights of another network."""

    def __init__(self, other: nn.Module):
        super().__init__()
        self.one, self.two, self.head = copy.deepcopy(other.one), nn.Conv2d(6, 7, 3, 2, 1), nn.Linear(7, 5)
        self.two.weight = other.two[0].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.two(self.one(x))).mean((2, 3)))


def shared_parts() -> list[Model]:
    """Two models around one module, one that shares layers with it, one that shares a weight, and a copy."""
    torch.manual_seed(0)
    first = Normed()
    modules = [first, first, Stem(first, 4), Tied(first)]
    models = [wrap(module.train(), size=(SIDE, 12), layer="two") for module in modules]
    return [*models, models[0].copied()]


def test_networks_that_share_parts():
    parts = nets.images(40, SIDE, 12).split(2)
    methods = {name: options for name, options in METHODS.items() if name != "guided-gradcam"}
    alone = [explain(shared_parts()[i % 5], x, methods) for i, x in enumerate(parts)]
    models = shared_parts()
    with unaltered(*(model.module for model in models)):
        found = together([lambda i=i, x=x: explain(models[i % 5], x, methods) for i, x in enumerate(parts)])
    for some, expected in zip(found, alone, strict=True):
        for name in methods:
            assert_equal(some[name], expected[name])


def test_networks_that_share_nothing_do_not_wait():
    """Each thread's pass goes on only when the other's has begun. The probe before it holds the global generators."""
    both = threading.Barrier(2, timeout=20)

    class Meeting(nets.Signed):
        met = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.met:
                self.met = True
                both.wait()
            return super().forward(x)

    models = [wrap(nets.seeded(Meeting), size=SIDE, layer="two") for _ in range(2)]
    for model in models:
        facts(model, model.input_shape)
        model.module.met = False
    found = together([lambda model=model: explain(model, nets.images(2, SIDE), "gradcam") for model in models])
    assert all(model.module.met for model in models) and not both.broken
    assert torch.equal(found[0]["gradcam"], found[1]["gradcam"])


def test_global_generators_and_the_fused_attention_are_kept_apart():
    """LIME seeds the global generator, ShapleyCAM takes second derivatives through attention: on different networks."""
    names = ("lime", "kernelshap", "shapleycam", "gradcam")
    x = nets.images(2, SIDE, 12)
    net = NETWORKS["attention"]
    alone = {name: explain(training(net), x, asked(name))[name] for name in names}
    models = [training(net) for _ in range(16)]
    with unaltered(*(model.module for model in models)):
        found = together([lambda i=i: explain(models[i], x, asked(names[i % 4])) for i in range(16)])
    for i, maps in enumerate(found):
        assert_equal(maps[names[i % 4]], alone[names[i % 4]])


def test_functions_of_the_users_that_draw_from_the_global_generators():
    def drawn(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        found = [torch.rand(inputs.shape[2:]) + float(np.random.rand()) for _ in inputs]
        return torch.stack(found) + 0 * model(inputs).sum()

    heatproof.register("drawn", drawn)
    try:
        x = nets.images(2, SIDE, 12)
        expected = explain(training(nets.Signed), x, "drawn")["drawn"]
        models = [training(nets.Signed) for _ in range(12)]
        with unaltered():
            found = together([lambda model=model: explain(model, x, "drawn") for model in models])
    finally:
        unregister("drawn")
    for maps in found:
        assert_equal(maps["drawn"], expected)


def test_logits_layers_and_maps_at_once():
    """A pass for the logits does not reach the hooks of an explanation, nor does the search for layers."""
    x = nets.images(3, SIDE, 12)
    net = nets.seeded(Normed)
    expected, logits = explain(wrap(net, size=(SIDE, 12)), x, "gradcam"), wrap(net, size=(SIDE, 12)).logits(1 - x)
    module = nets.seeded(Normed)

    def call(i: int) -> Any:
        model = wrap(module, size=(SIDE, 12))
        return (explain(model, x, "gradcam")["gradcam"], model.logits(1 - x), model.layers)[i % 3]

    with unaltered(module):
        found = together([lambda i=i: call(i) for i in range(24)])
    for i, some in enumerate(found):
        if i % 3 == 2:
            assert some == wrap(net, size=(SIDE, 12)).layers
        else:
            assert_equal(some, (expected["gradcam"], logits)[i % 3])


def test_passes_of_the_users_own_at_the_same_time():
    """They take nothing: they meet no hook and no other `forward`, and no map is of their images."""
    module = nets.seeded(nets.Signed)
    model, x = wrap(module, size=(SIDE, 12), layer="two"), nets.images(6, SIDE, 12)
    z = model.normalise(1 - x)
    expected, logits = explain(model, x, ["gradcam", "ablationcam"]), module(z).detach()
    stop = threading.Event()

    def served() -> list[torch.Tensor]:
        found = []
        with torch.no_grad():
            while not stop.is_set() and len(found) < 2000:
                found.append(module(z))
        return found

    with unaltered(module), ThreadPoolExecutor(1) as pool:
        server = pool.submit(served)
        try:
            found = [explain(model, x, ["gradcam", "ablationcam"]) for _ in range(4)]
        finally:
            stop.set()
        answers = server.result()
    assert answers
    for answer in answers:
        assert_equal(answer, logits)
    for maps in found:
        for name, one in maps.items():
            assert_equal(one, expected[name])


def test_a_model_is_pickled_and_copied_while_it_is_used():
    x = nets.images(2, SIDE, 12)
    model = training(Normed)
    expected = explain(model, x, "ablationcam")["ablationcam"]
    with model.evaluating():
        twins = [pickle.loads(pickle.dumps(model.copied())), copy.deepcopy(model), model.copied()]
    for twin in twins:
        assert_equal(explain(twin, x, "ablationcam")["ablationcam"], expected)
    copies = together([model.copied] * 8 + [lambda: explain(model, x, "ablationcam")] * 8)
    for twin in copies[:8]:
        assert nets.traces(twin.module) == nets.traces(training(Normed).module)


def test_the_extractors_of_torchcam_keep_an_input_for_each_thread():
    from heatproof.compat.torchcam.methods import GradCAM

    net = nets.seeded(nets.Signed)
    x = nets.images(16, SIDE)
    expected = []
    with GradCAM(net, "two") as extractor:
        for one in x.split(2):
            extractor.model(one)
            expected.append(extractor(1)[0])

        def call(one: torch.Tensor) -> torch.Tensor:
            net(one)
            explain(wrap(net, size=SIDE, layer="two"), 1 - one, "gradcam")  # not the user's own pass
            return extractor(1)[0]

        found = together([lambda one=one: call(one) for one in x.split(2)])
    for maps, reference in zip(found, expected, strict=True):
        assert_equal(maps, reference)

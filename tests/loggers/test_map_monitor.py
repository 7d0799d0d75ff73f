"""`MapMonitor`: training goes on bit for bit, errors come before it, and the numbers are those of `score`."""

import doctest
import importlib
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidTarget, ModelError, NotApplicable, UnknownName
from heatproof.loggers import MapMonitor
from heatproof.loggers.logger import PATIENCE
from heatproof.loggers.step_maps import MOVEMENT

from .training import SIDE, Broken, Kept, Net, batch, images, net, same, trained

METHODS = ["gradcam", "layercam"]


@pytest.fixture
def own_methods():
    """Methods that a test registers are gone after it."""
    before = set(ATTRIBUTIONS)
    yield
    for name in set(ATTRIBUTIONS) - before:
        ATTRIBUTIONS.remove(name)
        PLUGIN_METHODS.recipes.pop(name, None)


# --- training goes on as without it ---


@pytest.mark.parametrize("autocast", [False, True])
def test_training_is_bit_identical(autocast):
    methods = ["gradcam", "smoothgrad[samples=2]", "random", "guided-backprop", "rise[masks=4]", "refine:layercam"]
    monitor = MapMonitor(images(), methods, ["arcc", "average-drop"], every=2, logger=Kept())
    plain = trained(lambda network, step: None, autocast=autocast)
    assert same(plain, trained(monitor.step, autocast=autocast))
    assert sorted(monitor.history) == [0, 2, 4]
    assert not same(plain, trained(lambda network, step: network(images()), autocast=autocast))  # it would be seen


def test_training_is_bit_identical_after_an_exception(own_methods):
    def failing(model, inputs, targets):
        model(inputs)
        torch.rand(3)
        np.random.rand(3)
        raise RuntimeError("broken")

    heatproof.register("failing-method", failing)

    def observe(network, step):
        monitor = MapMonitor(images(), "failing-method", (), logger=None)
        with pytest.raises(RuntimeError, match="broken"):
            monitor.step(network, step)

    assert same(trained(lambda network, step: None), trained(observe))


def test_a_network_that_draws_in_any_mode_draws_on_as_before():
    class Drawing(Net):
        def forward(self, x):
            _ = torch.rand(1), np.random.rand(), random.random()
            return super().forward(x)

    network, numbers = Drawing(), []
    monitor = MapMonitor(images(), METHODS, "average-drop", every=1, logger=None)
    for observed in (False, True):
        torch.manual_seed(4), np.random.seed(4), random.seed(4)
        if observed:
            monitor.prepare(network)
            monitor.step(network, 0)
        numbers.append((float(torch.rand(1)), np.random.rand(), random.random()))
    assert numbers[0] == numbers[1]


def test_a_later_failure_is_one_warning(monkeypatch):
    monitor, network = MapMonitor(images(), METHODS, (), every=1, logger=None), net()
    monitor.step(network, 0)

    def fail(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("heatproof.loggers.map_monitor.step_panels", fail)
    monitor.log_to(Kept())
    with pytest.warns(HeatproofWarning, match="No maps at step 1: RuntimeError: out of luck. Training goes on") as told:
        assert monitor.step(network, 1) is None
        assert monitor.step(network, 2) is None
    assert len(told) == 1 and network.training
    monkeypatch.undo()
    assert monitor.step(network, 3) is not None


def test_a_method_that_fails_later_has_no_value(own_methods):
    calls = []

    def sometimes(model, inputs, targets):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("broken")
        return model(inputs).sum() * 0 + inputs.sum(1)

    heatproof.register("sometimes-broken", sometimes)
    logger = Kept()
    monitor = MapMonitor(images(), ["gradcam", "sometimes-broken"], "complexity", every=1, logger=logger)
    network = net()
    first, second = (monitor.step(network, step) for step in range(2))
    assert first and second
    assert "heatproof/complexity/sometimes-broken" in first and "heatproof/complexity/sometimes-broken" not in second
    assert second["heatproof/flagged/sometimes-broken"] == 3 and "heatproof/complexity/gradcam" in second
    assert len(logger.images) == 6


def test_a_dropout_network_in_train_mode_is_explained_in_eval_mode():
    one, other = (MapMonitor(images(), METHODS, "deletion", logger=None) for _ in range(2))
    network = net()
    found = one.step(network, 0)
    assert network.training and found
    evaluated = other.step(network.eval(), 0)
    assert evaluated and strip(found) == strip(evaluated)


def strip(found):
    return {name: value for name, value in found.items() if not name.endswith("/seconds")}


# --- the numbers ---


def test_scores_are_those_of_score():
    x, network = images(), net()
    monitor = MapMonitor(x, METHODS, ["arcc", "deletion"], every=1, logger=None)
    found = monitor.step(network, 0)
    model = heatproof.wrap(network, input_shape=(3, SIDE, SIDE))
    scores = heatproof.score(model, x, METHODS, ["arcc", "deletion"])
    assert found
    for row in scores.table.itertuples():
        assert found[f"heatproof/{row.metric}/{row.method}"] == pytest.approx(row.mean, abs=1e-12)
    probability = network.eval()(x).detach().double().softmax(1).amax(1).mean()
    assert found["heatproof/prediction/probability"] == pytest.approx(float(probability), abs=1e-6)


def test_movement_is_that_of_score_with_reference_maps():
    x, network = images(), net()
    monitor = MapMonitor(x, METHODS, (), every=1, logger=None)
    monitor.step(network, 0)
    model = heatproof.wrap(network, input_shape=(3, SIDE, SIDE))
    before = dict(heatproof.explain(model, x, METHODS))
    same_maps = monitor.step(network, 1)
    with torch.no_grad():
        network.two[0].weight.copy_(net(5).two[0].weight)
    moved = monitor.step(network, 2)
    after = dict(heatproof.explain(model, x, METHODS))
    scores = heatproof.score(model, x, after, list(MOVEMENT.values()), reference=before)
    for name, metric in MOVEMENT.items():
        for method in METHODS:
            assert same_maps[f"heatproof/{name}/{method}"] == pytest.approx(1)
            expected = float(scores.values(method, metric).nanmean())
            assert moved[f"heatproof/{name}/{method}"] == pytest.approx(expected, abs=1e-9) and expected < 0.95


def test_changed_predictions_are_counted():
    x, network = images(4), net()
    monitor = MapMonitor(x, "gradcam", (), every=1, logger=None)
    assert "heatproof/prediction/changed" not in (monitor.step(network, 0) or {})
    before = network.eval()(x).argmax(1)
    with torch.no_grad():
        network.head.bias[(int(before[0]) + 1) % 4] += 100
    changed = (network(x).argmax(1) != before).double().mean()
    found = monitor.step(network, 1)
    assert found and found["heatproof/prediction/changed"] == pytest.approx(float(changed)) and changed > 0


def test_normalised_tensors_are_undone_where_mean_and_std_are_known():
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    unit = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    shape = (1, 3, 1, 1)
    x = (unit - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    network = net()
    found = MapMonitor(x, "gradcam", "deletion", logger=None, mean=mean, std=std).step(network, 0)
    given = MapMonitor(unit, "gradcam", "deletion", logger=None, mean=mean, std=std, normalised=False).step(network, 0)
    model = heatproof.wrap(network, mean, std, SIDE)
    scores = heatproof.score(model, unit, "gradcam", "deletion")
    expected = float(scores.values("gradcam", "deletion").mean())
    for one in (found, given):
        assert one and one["heatproof/deletion/gradcam"] == pytest.approx(expected, abs=1e-5)


def test_labels_give_accuracy_and_captions():
    x, network, logger = images(4), net(), Kept()
    predicted = network.eval()(x).argmax(1).tolist()
    labels = [predicted[0], predicted[1], (predicted[2] + 1) % 4, None]
    names = ["ant", "bee", "cat", "dog"]
    monitor = MapMonitor(x, "gradcam", (), labels=labels, logger=logger, panels=3, classes=names)
    found = monitor.step(network, 0)
    assert found and found["heatproof/prediction/accuracy"] == pytest.approx(2 / 3)
    assert [name for _, name, _, _ in logger.images] == [f"heatproof/maps/image {i}" for i in (1, 2, 3)]
    caption = logger.images[2][3]
    assert f"predicted {names[predicted[2]]} ({predicted[2]})" in caption and f"label {names[labels[2]]}" in caption
    pixels = logger.images[0][2]
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.std() > 10


def test_a_dataset_is_read_once_and_gives_labels():
    reads = []

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            reads.append(i)
            return images()[i] + torch.randn(1) * 1e-3, i

    monitor = MapMonitor(Data(), "gradcam", (), target="label", every=1, logger=None)
    network, state = net(), torch.get_rng_state()
    monitor.prepare(network)
    count = len(reads)
    found = monitor.step(network, 0)
    assert found and "heatproof/prediction/accuracy" in found and len(reads) == count
    assert torch.equal(state, torch.get_rng_state())


def test_masks_score_localisation():
    masks = np.zeros((3, SIDE, SIDE), bool)
    masks[:, 4:12, 4:12] = True
    monitor, network = MapMonitor(images(), "gradcam", "energy", masks=masks, logger=None), net()
    found = monitor.step(network, 0)
    model = heatproof.wrap(network, input_shape=(3, SIDE, SIDE))
    scores = heatproof.score(model, images(), "gradcam", "energy", masks=masks)
    assert found and found["heatproof/energy/gradcam"] == pytest.approx(
        float(scores.values("gradcam", "energy").mean())
    )


def test_a_score_without_any_value_is_told():
    with pytest.warns(HeatproofWarning, match="No image has a value for energy of gradcam"):
        MapMonitor(images(), "gradcam", "energy", logger=None).step(net(), 0)


def test_one_broken_file_is_flagged(tmp_path):
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    logger = Kept()
    monitor = MapMonitor(str(tmp_path), "gradcam", "complexity", every=1, logger=logger, mean=0.5, std=0.5, size=SIDE)
    network = net()
    with pytest.warns(HeatproofWarning, match=r"Left out of maps and scores: 2\.png") as told:
        first = monitor.step(network, 0)
    second = monitor.step(network, 1)
    assert len(told) == 1 and first and second
    assert first["heatproof/flagged/gradcam"] == second["heatproof/flagged/gradcam"] == 1
    assert len(logger.images) == 6 and logger.images[2][3].startswith("2.png: ")


def test_too_many_images_are_refused_before_they_are_read():
    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 50_000

        def __getitem__(self, i):
            assert i == 0  # its shape
            return images()[0]

    with pytest.raises(InvalidInput, match=r"at most 512: .*Subset.* Got 50000"):
        MapMonitor(Data(), logger=None).prepare(net())


def test_images_of_two_sizes():
    mixed = [images(1)[0], images(1, 24)[0], images(1)[0] + 1]
    found = MapMonitor(mixed, METHODS, "complexity", every=1, logger=Kept()).step(net(), 0)
    assert found and found["heatproof/flagged/gradcam"] == 0


# --- cadence ---


def test_steps_that_are_due():
    monitor, network = MapMonitor(images(), "gradcam", (), every=10, logger=None), net()
    for step in (0, 1, 9, 10, 10, 11, 19, 23, 24, 30, 41):
        monitor.step(network, step)
    assert list(monitor.history) == [0, 10, 23, 30, 41]
    monitor.step(network, 42)
    monitor.close()
    assert list(monitor.history)[-1] == 42
    monitor.close()
    found = monitor.step(network, 3)  # another run with the same monitor
    assert found and "heatproof/rbo-to-last/gradcam" in found


def test_as_a_context_it_logs_the_last_step_unless_training_failed():
    logger, network = Kept(), net()
    with MapMonitor(images(), "gradcam", (), every=10, logger=logger) as monitor:
        for step in range(4):
            monitor.step(network, step)
    assert list(logger.numbers) == [0, 3] and logger.closed == 1
    with pytest.raises(KeyError), MapMonitor(images(), "gradcam", (), every=10, logger=logger) as monitor:
        monitor.step(network, 0)
        monitor.step(network, 5)
        raise KeyError
    assert list(monitor.history) == [0] and logger.closed == 2


def test_other_processes_do_nothing(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    logger = Kept()
    monitor = MapMonitor(images(), "gradcam", (), logger=logger)
    assert monitor.step(net(), 0) is None
    monitor.close()
    assert monitor.history == {} and logger.numbers == {}
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    assert monitor.step(net(), 0)


def test_another_network_is_prepared_anew():
    monitor = MapMonitor(images(), "gradcam", "complexity", every=1, logger=None)
    one, other = net(0), net(1)
    first, second = monitor.step(one, 0), monitor.step(other, 1)
    assert first and second and "heatproof/spearman-to-last/gradcam" not in second
    third = monitor.step(nn.DataParallel(other), 2)
    assert third and third["heatproof/spearman-to-last/gradcam"] == pytest.approx(1)


def test_the_passes_of_a_call():
    rows = []
    network = net()
    network.one.register_forward_hook(lambda module, given, output: rows.append(len(output)))
    monitor = MapMonitor(images(4), ["gradcam", "layercam", "gradcam++"], (), every=1, logger=Kept())
    monitor.prepare(network)
    for step in range(3):
        rows.clear()
        monitor.step(network, step)
        assert rows == [4]


@pytest.mark.parametrize(
    ("metrics", "forward", "backward"),
    [((), 0, 0), ("arcc", 18, 2), ("deletion", 55, 0), ("insertion", 55, 0), ("road", 16, 0), ("average-drop", 2, 0),
     ("complexity", 0, 0)],
)  # fmt: skip
def test_the_passes_of_a_call_are_those_of_the_page(metrics, forward, backward, monkeypatch):
    rows, backwards, grad = [], [], torch.autograd.grad

    def counted(outputs, inputs, *given, **more):
        backwards.append(len(inputs if isinstance(inputs, torch.Tensor) else inputs[0]))
        return grad(outputs, inputs, *given, **more)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    network = net()
    network.one.register_forward_hook(lambda module, given, output: rows.append(len(output)))
    monitor = MapMonitor(images(4), ["gradcam", "layercam"], metrics, logger=None)
    monitor.prepare(network)
    rows.clear(), backwards.clear()
    monitor.step(network, 0)
    assert sum(rows) == 4 * (1 + forward) and sum(backwards) == 4 * (1 + backward)


# --- errors come before training ---


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"methods": "gradcm"}, UnknownName, "gradcam"),
        ({"methods": []}, InvalidInput, "at least one method"),
        ({"metrics": "deletoin"}, UnknownName, "deletion"),
        ({"metrics": "deletion[steps=0]"}, InvalidInput, "steps"),
        ({"metrics": "rbo"}, InvalidInput, "reference"),
        ({"every": 0}, InvalidInput, "`every` must be at least 1"),
        ({"panels": -1}, InvalidInput, "`panels`"),
        ({"means": 0.5}, UnknownName, "mean"),
        ({"logger": "tensorbord"}, UnknownName, "tensorboard"),
        ({"logger": object()}, InvalidInput, "scalars"),
        ({"logger": Kept}, InvalidInput, "the class Kept"),
    ],
)
def test_wrong_arguments_are_errors_when_it_is_made(arguments, error, text):
    with pytest.raises(error, match=text):
        MapMonitor(images(), **{"logger": None, **arguments})


class Headless(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = net()


@pytest.mark.parametrize(
    ("network", "arguments", "error", "text"),
    [
        (net, {"methods": "chefer"}, NotApplicable, "chefer"),
        (net, {"layer": "three"}, UnknownName, "two"),
        (net, {"target": "label"}, InvalidTarget, "labels"),
        (net, {"target": [0, 1]}, InvalidInput, "3"),
        (net, {"labels": [0]}, InvalidInput, "one label for each"),
        (Headless, {}, InvalidInput, "'backbone'"),
        (Headless, {"network": "backbne"}, UnknownName, "backbone"),
        (lambda: "resnet", {}, InvalidInput, "torch.nn.Module"),
        (lambda: type("FullyShardedDataParallel", (nn.Module,), {"forward": lambda self, x: x})(), {}, ModelError,
         "spread over processes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_network_is_an_error_of_prepare(network, arguments, error, text):
    monitor = MapMonitor(images(), **{"logger": None, **arguments})
    with pytest.raises(error, match=text):
        monitor.prepare(network())


def test_targets_of_several_classes_are_refused():
    with pytest.raises(InvalidInput, match="one class for each image"):
        MapMonitor(images(), target="top2", logger=None).step(net(), 0)


def test_part_of_a_module():
    module = Headless()
    one = MapMonitor(images(), "gradcam", (), logger=None, network="backbone").step(module, 0)
    other = MapMonitor(images(), "gradcam", (), logger=None, network=lambda m: m.backbone).step(module, 0)
    assert one and other and strip(one) == strip(other)


# --- loggers that fail ---


def test_a_logger_that_fails_is_one_warning_and_training_finishes():
    broken, kept = Broken(), Kept()
    monitor = MapMonitor(images(), "gradcam", (), every=1, logger=[broken, kept])
    plain = trained(lambda network, step: None, 5)
    with pytest.warns(
        HeatproofWarning, match="Broken failed: ConnectionError: no route to host. Training goes on"
    ) as told:
        run = trained(monitor.step, 5)
    assert same(plain, run) and len(told) == 1
    assert broken.tried == 1 and list(kept.numbers) == [0, 1, 2, 3, 4]


def test_a_logger_that_comes_back_is_used():
    class Sometimes(Broken):
        def scalars(self, values, step):
            (Kept if step in (0, 2, 5, 9) else Broken).scalars(self, values, step)

    logger, network = Sometimes(), net()
    monitor = MapMonitor(images(), "gradcam", (), every=1, logger=logger)
    with pytest.warns(HeatproofWarning, match="left out after 3 such steps in a row") as told:
        for step in range(10):
            monitor.step(network, step)
    assert list(logger.numbers) == [0, 2, 5] and logger.tried == 3 + PATIENCE and len(told) == 1


@pytest.mark.parametrize("name", ["map_monitor", "logger"])
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"heatproof.loggers.{name}"))
    assert found.attempted and not found.failed


def test_the_batch_used_in_these_tests_is_random():
    assert batch()[0].std() > 0.5

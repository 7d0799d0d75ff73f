"""heatproof's metrics in training loops: the values of `heatproof.score`, in any order and over several processes."""

import copy
import json
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch

import heatproof
from heatproof.errors import InvalidInput, UnknownName
from heatproof.metrics import METRICS

from .. import nets

torchmetrics = pytest.importorskip("torchmetrics")

from heatproof.compat import torchmetrics as ours  # noqa: E402 - needs torchmetrics
from heatproof.compat.torchmetrics import ScoreCollection, class_name, metric, metrics  # noqa: E402

SIDE = 16
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


@pytest.fixture
def model() -> heatproof.Model:
    return told_apart()


@pytest.fixture
def x() -> torch.Tensor:
    return nets.images(5, SIDE)


def told_apart() -> heatproof.Model:
    net = nets.told_apart(nets.seeded(nets.Signed), SIDE)
    return heatproof.wrap(net, mean=MEAN, std=STD, size=SIDE, layer="two")


def masks(*there: bool) -> torch.Tensor:
    found = torch.zeros(len(there), SIDE, SIDE, dtype=torch.bool)
    found[torch.tensor(there), 4:9, 3:8] = True
    return found


def mean(scores: heatproof.Scores, name: str) -> float:
    return scores.values(scores.methods[0], name).nanmean().item()


#: Few samples where a metric takes many.
QUICK = {"samples": 3, "steps": 4, "kept": "40 80"}


def test_every_metric_gives_the_means_of_score(model, x):
    x, mask = x[:3], masks(True, False, True)
    asked = {
        name: {option: value for option, value in QUICK.items() if option in entry.options}
        for name, entry in METRICS.items()
        if not entry.traits.get("foreign") and entry.traits["family"] != "parts"  # tensors have no parts
    }
    clean = x.roll(1, 3)
    expected = heatproof.score(model, x, ["gradcam"], asked, target=[1, 2, 3], masks=mask, reference=clean)
    collection = metrics(asked, model, target="predicted")
    collection.update(x[:2], target=torch.tensor([1, 2]), mask=mask[:2], reference=clean[:2])
    collection.update(x[2:], target=torch.tensor([3]), mask=mask[2:, None], reference=clean[2:])
    found = collection.compute()
    assert len(found) == len(asked)
    for member in collection.values(copy_state=False):
        key = member.request.key
        value = found[key.replace(".", "_")].item()
        assert value == pytest.approx(mean(expected, key), rel=1e-3, abs=1e-5, nan_ok=True), key
        assert math.isfinite(value) or member.request.entry.name in ("sic", "aic"), key
        known = METRICS[member.request.entry.name]
        assert member.higher_is_better == (known.traits["better"] == "high")
        assert (member.plot_lower_bound, member.plot_upper_bound) == known.traits["range"]
        assert type(member).__name__ == class_name(known.name) and known.summary in type(member).__doc__
        assert int(member.count + member.missing) == 3


def test_one_metric_by_its_name_and_by_its_class(model, x):
    expected = heatproof.score(model, x, ["layercam"], ["average-drop[fill=mean]"])
    by_name = metric("ad[fill=mean]", model, method="layercam")
    by_option = metric("average-drop", model, "layercam", fill="mean")
    by_class = ours.AverageDrop(model, "layercam", fill="mean")
    for one in (by_name, by_option, by_class):
        assert isinstance(one, torchmetrics.Metric) and type(one) is ours.AverageDrop
        one.update(x)
        assert one.compute().item() == pytest.approx(mean(expected, "average-drop[fill=mean]"), abs=1e-9)
    assert "AverageDrop" in dir(ours)
    with pytest.raises(AttributeError, match="Did you mean 'AverageDrop'"):
        _ = ours.AverageDorp
    with pytest.raises(UnknownName, match="Did you mean 'average-drop'"):
        metric("average-dropp", model)
    with pytest.raises(UnknownName, match="option of 'average-drop'"):
        metric("average-drop", model, fil="mean")
    with pytest.raises(InvalidInput, match="`model` must be"):
        metric("average-drop", "resnet50")


def test_maps_made_elsewhere(model, x):
    maps = torch.rand(5, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    expected = heatproof.score(model, x, {"given": maps}, ["insertion", "complexity"], target=2)
    found = metrics(["insertion", "complexity"], model, target=2)
    assert {k: v.item() for k, v in found(x, maps[:, None]).items()} == pytest.approx(
        {name: mean(expected, name) for name in expected.metrics}, abs=1e-6
    )
    with pytest.raises(InvalidInput, match=r"'arcc' explains other images too.*Leave `maps` out"):
        metric("arcc", model).update(x, maps)


def test_a_module_takes_its_own_normalised_images(model, x):
    z = model.normalise(x)
    expected = heatproof.score(model, x, ["gradcam"], ["deletion", "average-drop"], layer="two")
    told = metrics(["deletion", "average-drop"], model.module, layer="two", mean=MEAN, std=STD)
    for name, value in told(z).items():
        assert value.item() == pytest.approx(mean(expected, name), abs=1e-4)
    untold = metrics(["deletion", "deletion-mean", "average-drop"], model.module, layer="two")(z)
    assert untold["deletion"] == pytest.approx(untold["deletion-mean"].item(), abs=1e-9), "black is zero: the mean"
    other = heatproof.score(model, x, ["gradcam"], ["deletion-mean"], layer="two")
    assert untold["deletion"].item() == pytest.approx(mean(other, "deletion-mean"), abs=1e-4)
    with pytest.raises(InvalidInput, match="must be those that the images were normalised with"):
        metric("deletion", model.module, layer="two", mean=0.5, std=0.5).update(z)
    with pytest.raises(InvalidInput, match=r"for a module. Got a Model"):
        metric("deletion", model, mean=0.5).update(x)


def test_what_has_no_value_is_counted_and_not_averaged(model, x):
    maps = torch.rand(5, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    game = metric("pointing-game", model)
    game.update(x, maps, mask=masks(True, True, False, False, True))
    assert (int(game.count), int(game.missing)) == (3, 2)
    assert game.compute().item() == game.total.item() / 3
    nowhere = metric("energy", model)
    nowhere.update(x, maps)
    assert math.isnan(nowhere.compute()) and int(nowhere.missing) == 5
    game.reset()
    assert (int(game.count), int(game.missing)) == (0, 0)


def test_values_do_not_depend_on_the_order_or_the_batches(model, x):
    """Also where random numbers are drawn: they belong to the content of an image."""
    several = metrics(["road", "max-sensitivity[samples=2]"], model)
    several.update(x)
    others = several.clone()
    others.reset()
    for i in (3, 0, 4, 2, 1):
        others.update(x[i : i + 1])
    for name, value in several.compute().items():
        assert others.compute()[name].item() == pytest.approx(value.item(), abs=1e-5)


def test_forward_gives_the_batch_and_adds_to_the_whole(model, x):
    one, several = metric("deletion", model), metrics(["deletion", "insertion"], model, prefix="val/")
    parts = [(one(part).item(), several(part)["val/deletion"].item()) for part in (x[:2], x[2:])]
    for alone, among in parts:
        assert alone == pytest.approx(among, abs=1e-9)
    whole = (2 * parts[0][0] + 3 * parts[1][0]) / 5
    assert one.compute().item() == pytest.approx(whole, abs=1e-9)
    assert several.compute()["val/deletion"].item() == pytest.approx(whole, abs=1e-9)


def test_a_collection_explains_once(model, x):
    net = nets.Counted(model.module)
    counted = heatproof.wrap(net, mean=MEAN, std=STD, size=SIDE, layer="inner.two")
    heatproof.explain(counted, x, "gradcam")  # the probe of the network, once
    net.calls, alone = 0, metric("average-drop", counted)
    alone.update(x)
    passes = net.calls
    net.calls = 0
    metrics(["average-drop", "average-gain", "average-increase", "local-accuracy"], counted)(x)
    assert net.calls == passes


def test_the_layer_of_a_module_is_looked_for_once(model, x):
    net = nets.Counted(model.module)
    told, untold = metric("average-drop", net, mean=MEAN, std=STD), metric("average-drop", net)
    z, calls = model.normalise(x), []
    for one in (told, told, untold, untold):
        net.calls = 0
        one.update(z)
        calls.append(net.calls)
    assert calls[1] == calls[2] == calls[3] < calls[0]


def test_a_plain_collection_takes_no_metric_for_another(model, x):
    """torchmetrics shares one state between metrics whose states were equal after the first batch."""
    maps = torch.ones(5, SIDE, SIDE)
    maps[:, 0, 0] = 0
    pair = torchmetrics.MetricCollection({"a": metric("average-gain", model), "b": metric("average-increase", model)})
    pair.update(x[:1], torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
    pair.update(x[1:], maps[1:])
    for name, key in (("average-gain", "a"), ("average-increase", "b")):
        alone = metric(name, model)
        alone.update(x[:1], torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(1)))
        alone.update(x[1:], maps[1:])
        assert pair.compute()[key].item() == pytest.approx(alone.compute().item(), abs=1e-9)
    assert len(pair.compute_groups) == 2


def test_the_network_is_no_part_of_the_metric_and_left_alone(model, x):
    model.module.train()
    model.module.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    one = metric("coherency", model)
    with torch.inference_mode():
        one.update(x.clone())
    assert all(part.training for part in model.module.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.module.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.module.state_dict().items())
    assert not list(one.parameters()) and not one.state_dict()
    assert one.clone().subject.model is model
    holder = torch.nn.ModuleDict({"net": model.module, "metric": one})
    assert len(list(holder.parameters())) == len(list(model.module.parameters()))


def test_pickle_and_copy(model, x):
    several = metrics(["road", "complexity"], model)
    several.update(x)
    expected = {name: value.item() for name, value in several.compute().items()}
    for again in (pickle.loads(pickle.dumps(several)), copy.deepcopy(several)):
        assert isinstance(again, ScoreCollection)
        assert {name: value.item() for name, value in again.compute().items()} == expected
        again.update(x[:1])
        assert int(again["road"].count) == 6
    assert int(several["road"].count) == 5


def test_a_foreign_metric_is_one_too(model, x):
    heatproof.register_metric("brightness", lambda maps: maps.double().flatten(1).mean(1), better="low")
    try:
        one = metric("brightness", model)
        one.update(x)
        assert type(one).__name__ == "Brightness" and one.higher_is_better is False
        assert one.compute().item() == pytest.approx(
            mean(heatproof.score(model, x, ["gradcam"], ["brightness"]), "brightness")
        )
    finally:
        METRICS.remove("brightness")


def _one_of_two(rank: int, folder: str) -> None:
    """What a process of a distributed run does; a method without a backward pass, which a forked process may run."""
    torch.set_num_threads(1)
    distributed = torch.distributed
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    x = nets.images(5, SIDE)
    mine = x[:2] if rank == 0 else x[2:]
    several, one = metrics(DISTRIBUTED, told_apart(), "eigencam"), metric("insertion", told_apart(), "eigencam")
    each = metric("insertion", told_apart(), "eigencam", dist_sync_on_step=True)
    several.update(mine)
    one.update(mine)
    said = {name: value.item() for name, value in several.compute().items()}
    said |= {"one": one.compute().item(), "step": each(mine).item(), "here": int(one.count)}
    Path(folder, f"{rank}.json").write_text(json.dumps(said), "utf-8")
    distributed.destroy_process_group()


DISTRIBUTED = ["road", "average-drop", "max-sensitivity[samples=2]", "coherency"]


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_two_processes_come_to_what_one_does(model, x, tmp_path):
    """Distributed data parallel, with gloo: each has its own images, both know the mean over all."""
    from torch.multiprocessing import start_processes

    start_processes(_one_of_two, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text("utf-8")) for rank in range(2))
    assert (first.pop("here"), second.pop("here")) == (2, 3), "what a process has of its own is as it was"
    assert first == second
    insertion, several = metric("insertion", model, "eigencam"), metrics(DISTRIBUTED, model, "eigencam")
    insertion.update(x)
    several.update(x)
    whole = insertion.compute().item()
    expected = {name: value.item() for name, value in several.compute().items()}
    assert first == pytest.approx({**expected, "one": whole, "step": whole}, abs=1e-5)


def test_in_lightning(model, x):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = model.module
            self.drop = metric("average-drop", model)

        def validation_step(self, batch, _):
            self.drop.update(batch)
            self.log("drop", self.drop)

    loader = torch.utils.data.DataLoader(x, batch_size=2)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    (found,) = trainer.validate(Module(), loader, verbose=False)
    expected = mean(heatproof.score(model, x, ["gradcam"], ["average-drop"]), "average-drop")
    assert found["drop"] == pytest.approx(expected, abs=1e-5)

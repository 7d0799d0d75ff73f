"""Weights drawn anew: which layers, by seed and name alone, in a copy, and nothing left over."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from heatproof import seeds
from heatproof.errors import ModelError
from heatproof.models import wrap
from heatproof.models.randomisation import Randomised, blocks_of, layers_with_weights

from .. import nets


class Odd(nn.Module):
    """Parameters of its own beside layers, one kind without `reset_parameters`, one whose reset wants an argument."""

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.arange(1.0, 7.0).view(6, 1, 1))

        def forward(self, x):
            return x * self.gamma

    class Asking(Scale):
        def reset_parameters(self, value):
            self.gamma.fill_(value)

    def __init__(self, classes: int = 5):
        super().__init__()
        self.shift = nn.Parameter(torch.arange(3.0).view(3, 1, 1) / 10)
        self.conv = weight_norm(nn.Conv2d(3, 6, 3, padding=1))
        self.norm = nn.BatchNorm2d(6)
        self.scale, self.asking = self.Scale(), self.Asking()
        self.head = nn.Linear(6, classes)

    def forward(self, x):
        x = self.asking(self.scale(self.norm(self.conv(x + self.shift)))).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture
def plain():
    net = nets.seeded(nets.Plain)
    with torch.no_grad():  # as after training: nothing has the values it began with
        for parameter in net.parameters():
            parameter.add_(0.3)
        net.one[1].running_mean += 2
        net.one[1].running_var += 3
    return wrap(net, size=16)


def state(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def test_layers_are_the_modules_with_parameters_of_their_own():
    assert layers_with_weights(nets.Plain()) == ["one.0", "one.1", "two.0", "head"]
    names = layers_with_weights(Odd())
    assert names[0] == "" and {"conv", "conv.parametrizations.weight", "scale", "asking", "norm", "head"} < set(names)


@pytest.mark.parametrize(
    ("most", "expected"),
    [(2, ["ab", "cde"]), (5, ["a", "b", "c", "d", "e"]), (9, ["a", "b", "c", "d", "e"]),
     (0, ["a", "b", "c", "d", "e"]), (1, ["abcde"])],
)  # fmt: skip
def test_blocks_are_consecutive_and_hold_every_layer_once(most, expected):
    assert ["".join(block) for block in blocks_of(list("abcde"), most)] == expected


def test_a_layer_is_drawn_by_its_own_reset_from_a_seed_of_its_name(plain):
    drawn = Randomised(plain, 7)
    drawn.redraw(["two.0"])
    fresh = nn.Conv2d(6, 8, 3, 2, 1)
    with seeds.seeded(seeds.generator(7, "two.0", "new weights"), torch.device("cpu")):
        fresh.reset_parameters()
    assert torch.equal(drawn.model.module.two[0].weight, fresh.weight)
    assert torch.equal(drawn.model.module.two[0].bias, fresh.bias)
    for name in ("one.0.weight", "one.1.running_mean", "head.weight"):
        assert torch.equal(drawn.model.module.state_dict()[name], plain.module.state_dict()[name]), name


def test_the_statistics_of_a_norm_go_too(plain):
    drawn = Randomised(plain, 0)
    drawn.redraw(["one.1"])
    assert (drawn.model.module.one[1].running_mean == 0).all() and (plain.module.one[1].running_mean == 2).all()


def test_order_and_company_do_not_matter(plain):
    """A layer's new weights are the same whether it comes first, last, or alone."""
    one, other, alone = (Randomised(plain, 3) for _ in range(3))
    one.redraw(["one.0", "two.0"])
    other.redraw(["two.0"])
    other.redraw(["one.0"])
    alone.redraw(["two.0"])
    assert all(torch.equal(a, b) for a, b in zip(state(one.model).values(), state(other.model).values(), strict=True))
    assert torch.equal(alone.model.module.two[0].weight, one.model.module.two[0].weight)
    assert not torch.equal(Randomised(plain, 4).model.module.two[0].weight, one.model.module.two[0].weight)
    seed = Randomised(plain, 4)
    seed.redraw(["two.0"])
    assert not torch.equal(seed.model.module.two[0].weight, one.model.module.two[0].weight)


def test_layers_of_one_kind_get_other_weights_each():
    """Quantus draws every layer from the same seed: equal layers get equal weights."""
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    drawn = Randomised(wrap(net, size=16), 0)
    drawn.redraw(["0", "1"])
    assert not torch.equal(drawn.model.module[0].weight, drawn.model.module[1].weight)
    for layer in net:
        torch.manual_seed(43)
        layer.reset_parameters()
    assert torch.equal(net[0].weight, net[1].weight)


def test_what_cannot_be_reset_is_shuffled():
    model = wrap(nets.seeded(Odd), size=16)
    drawn = Randomised(model, 1)
    before = model.module.asking.gamma.flatten()
    drawn.redraw(["scale", "asking", ""])
    for name in ("scale", "asking"):
        found = drawn.model.module.get_submodule(name).gamma.flatten()
        assert not torch.equal(found, before) and torch.equal(found.sort().values, before)
    assert torch.equal(drawn.model.module.shift.flatten().sort().values, model.module.shift.flatten())
    assert torch.equal(drawn.model.module.head.weight, model.module.head.weight), "its children are layers of their own"


def test_weights_that_are_computed_change_with_what_they_are_computed_from():
    model = wrap(nets.seeded(Odd), size=16)
    drawn = Randomised(model, 1)
    drawn.redraw(["conv", "conv.parametrizations.weight"])
    assert not torch.allclose(drawn.model.module.conv.weight, model.module.conv.weight)


def test_all_layers_drawn_leave_nothing_of_the_network(plain):
    drawn = Randomised(plain, 0)
    for block in drawn.blocks(3):
        drawn.redraw(block)
    before, after = state(plain), state(drawn.model)
    assert not any(torch.equal(before[name], after[name]) for name in before if not name.endswith("tracked"))


def test_layers_can_be_put_back(plain):
    drawn = Randomised(plain, 0)
    drawn.redraw(["one.0", "one.1", "head"])
    drawn.put_back(["one.1", "head"])
    assert torch.equal(drawn.model.module.head.weight, plain.module.head.weight)
    assert torch.equal(drawn.model.module.one[1].running_mean, plain.module.one[1].running_mean)
    assert not torch.equal(drawn.model.module.one[0].weight, plain.module.one[0].weight)


def test_the_network_itself_and_the_global_generator_are_left_alone(plain):
    plain.module.train()
    before, traces, numbers = state(plain), nets.traces(plain.module), torch.get_rng_state()
    drawn = Randomised(plain, 0)
    for block in drawn.blocks(0):
        drawn.redraw(block)
    after = state(plain)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert nets.traces(plain.module) == traces and torch.equal(torch.get_rng_state(), numbers)
    assert drawn.model.module.training and drawn.model.module is not plain.module


def test_the_copy_is_the_same_classifier_with_another_fingerprint(plain):
    first = plain.fingerprint
    drawn = Randomised(plain, 0)
    assert drawn.model.fingerprint == first
    drawn = Randomised(plain, 0)
    drawn.redraw(["head"])
    assert drawn.model.fingerprint != first == plain.fingerprint
    assert (drawn.model.name, drawn.model.mean, drawn.model.geometry) == (plain.name, plain.mean, plain.geometry)


def test_half_precision_has_the_same_numbers(plain):
    half = wrap(nets.seeded(nets.Plain).half(), size=16)
    one, other = Randomised(plain, 2), Randomised(half, 2)
    for drawn in (one, other):
        drawn.redraw(["two.0"])
    assert other.model.module.two[0].weight.dtype == torch.float16
    assert torch.equal(one.model.module.two[0].weight.half(), other.model.module.two[0].weight)


def test_shared_weights_stay_shared():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    drawn = Randomised(wrap(net, size=16), 0)
    drawn.redraw(["0"])
    assert drawn.model.module[0].weight is drawn.model.module[1].weight
    assert not torch.equal(drawn.model.module[0].weight, net[0].weight)


def test_a_network_without_weights_is_refused():
    with pytest.raises(ModelError, match="has none to draw anew"):
        Randomised(wrap(nn.Flatten(), size=16), 0).blocks(10)


def test_a_network_that_cannot_be_copied_is_refused():
    net = nets.seeded(nets.Plain)
    net.kept = net.head.weight * 2  # not a leaf: a graph hangs on it
    with pytest.raises(ModelError, match="cannot be copied"):
        Randomised(wrap(net, size=16), 0)


@pytest.mark.parametrize("make", [nets.vit, nets.swin])
def test_transformers_lose_all_they_learnt(make):
    model = wrap(nets.told_apart(nets.seeded(make), 32), size=32)
    drawn = Randomised(model, 0)
    for block in drawn.blocks(10):
        drawn.redraw(block)
    x = nets.images(4, 32)
    with torch.no_grad():
        one, other = (wrap(m.module, size=32).logits(x) for m in (model, drawn.model))
    assert other.isfinite().all() and not math.isclose(one.std().item(), other.std().item(), rel_tol=1e-3)
    named = dict(model.module.named_parameters())
    spread = {n for n, p in named.items() if p.numel() > 1 and p.detach().std() > 0}
    same = [n for n in spread if torch.equal(named[n], dict(drawn.model.module.named_parameters())[n])]
    assert same == []

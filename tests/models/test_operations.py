"""Which functions run, in which spelling, inside which module; and that the look leaves nothing behind."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from heatproof.errors import ModelError
from heatproof.models import wrap
from heatproof.models.operations import operation_name, operations

from .. import nets


def listed(net: nn.Module):
    return operations(wrap(net.eval(), size=16))


RELUS = {
    "nn.ReLU": lambda x: nn.ReLU()(x),
    "in place": lambda x: nn.ReLU(inplace=True)(x * 1),
    "functional": lambda x: F.relu(x),
    "torch": lambda x: torch.relu(x),
    "method": lambda x: x.relu(),
    "method in place": lambda x: (x * 1).relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp by place": lambda x: torch.clamp(x, 0),
    "clip": lambda x: torch.clip(x, 0.0),
    "clamp_min": lambda x: x.clamp_min(0),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "by name": lambda x: F.relu(input=x),
}
SIXES = {
    "nn.ReLU6": lambda x: nn.ReLU6()(x),
    "relu6": lambda x: F.relu6(x),
    "hardtanh": lambda x: F.hardtanh(x, 0, 6),
    "in place": lambda x: nn.Hardtanh(0.0, 6.0, inplace=True)(x * 1),
    "clamp": lambda x: x.clamp(0, max=6),
}
OTHERS = {
    "hardtanh": lambda x: F.hardtanh(x),
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp_min": lambda x: x.clamp_min(0.5),
    "threshold": lambda x: F.threshold(x, 0, 1),
    "gelu": lambda x: nn.GELU()(x),
    "add": lambda x: 1 + x,
    "div": lambda x: x / 2,
    "rdiv": lambda x: 1 / (x + 2),
    "matmul": lambda x: x @ torch.ones(16, 16),
    "silu": lambda x: F.silu(x * 1, inplace=True),
}


class Computes(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what, self.head = what, nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.what(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("expected", "what"),
    [
        *[pytest.param("relu", what, id=f"relu {label}") for label, what in RELUS.items()],
        *[pytest.param("relu6", what, id=f"relu6 {label}") for label, what in SIXES.items()],
        *[pytest.param(name, what, id=name) for name, what in OTHERS.items()],
    ],
)
def test_a_function_has_one_name_in_all_its_spellings(expected, what):
    found = listed(Computes(what)).names
    assert expected in found
    assert not found & ({"relu", "relu6"} - {expected})


def test_batch_norm_by_the_batch_is_another_function():
    assert "batch_norm" in listed(Computes(nn.BatchNorm2d(3))).names
    found = listed(Computes(nn.BatchNorm2d(3, track_running_stats=False)))
    assert "batch_norm by the batch" in found.names and "batch_norm" not in found.names


def test_calls_are_told_with_their_module_and_operands():
    found = listed(nets.seeded(nets.Shared))
    relus = [call for call in found.calls if call.name == "relu"]
    assert found.runs["act"] == len(relus) == 5 and found.runs["again"] == 3 and found.runs["layer"] == 1
    assert {call.module for call in relus} == {"act"} and {call.kind for call in relus} == {"ReLU"}
    assert [(call.module, call.operands) for call in found.calls if call.name == "add"] == [("", (0, 1))] * 3
    assert {call.operands for call in found.calls if call.name == "conv2d"} == {(0,)}  # weights do not know the image
    assert found.activations == ["ReLU", "Tanh"] and found.hidden == ()


def test_what_does_not_depend_on_the_image_is_no_operation():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Parameter(torch.randn(3, 16, 16)), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head((x + F.relu(self.table)).mean((2, 3)))

    assert "relu" not in listed(Table()).names


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.relu()

    @staticmethod
    def backward(ctx, *gradients):
        return gradients[0]


class Scripted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


def test_what_cannot_be_seen_is_said():
    assert listed(Computes(Own.apply)).hidden == ("Own",)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), torch.jit.script(Scripted()), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = listed(net)
    assert found.hidden == ("1",) and "relu" not in found.names and "conv2d" in found.names


@pytest.mark.parametrize("net", [nets.Plain, nets.Dense, nets.Shared, nets.Wrapped, nets.Fused, nets.vit, nets.swin])
def test_nothing_is_left_and_the_look_is_taken_once(net):
    module = nets.seeded(net).train()
    model = wrap(module, size=32)
    before, state = nets.traces(module), torch.get_rng_state()
    with torch.no_grad():
        first = operations(model)
    assert nets.traces(module) == before and torch.equal(torch.get_rng_state(), state)
    assert len(first.calls) > 3 and operations(wrap(module, size=32)) is first


def test_a_network_that_fails_is_left_as_it_was():
    module = nets.Failing()
    module.fails = "after"
    before = nets.traces(module)
    with pytest.raises(ModelError, match="It failed with FloatingPointError: after"):
        operations(wrap(module, size=16))
    assert nets.traces(module) == before
    module.fails = None
    assert "relu" in operations(wrap(module, size=16)).names  # and the failure is not remembered


def test_a_module_is_not_kept_alive():
    module = nets.seeded(nets.Plain)
    operations(wrap(module, size=16))
    watched = weakref.ref(module)
    del module
    gc.collect()
    assert watched() is None


def test_a_name_of_a_function_without_arguments_is_its_own():
    assert operation_name(torch.Tensor.__iadd__) == "add" and operation_name(torch.conv2d) == "conv2d"

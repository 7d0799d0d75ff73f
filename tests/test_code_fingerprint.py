"""The fingerprint of a user's own code: it follows what the code computes, whatever part of it decides that."""

import functools
import importlib
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from heatproof.code_fingerprint import code_fingerprint, is_own

SOURCES = {
    "toy_own_code": '''
import numpy as np
from toy_own_blur import blur
import toy_own_edges

SCALE = 2.0
WEIGHTS = {"red": 0.3, "green": [0.5, 0.2]}
calls, cache, count = [], {}, 0

def scaled(x):
    return x * SCALE

class Method:
    """A method that is an object."""
    power = 3
    def __init__(self, sign):
        self.sign, self._shift, self.used = sign, 1, 0
    def __call__(self, model, inputs, targets):
        self.used += 1
        return self.sign * scaled(inputs.sum(1)) ** self.power + self._shift

def method(model, inputs, targets, level=1.0):
    """The documentation."""
    global count
    count += 1
    calls.append(count)
    cache[count] = level
    from toy_own_late import late
    return late(blur(toy_own_edges.edges(scaled(inputs.sum(1)))), WEIGHTS["red"])

made = Method(2)

def other():
    return 1
''',
    "toy_own_blur": "def blur(x):\n    return x + 1\n",
    "toy_own_edges": "def edges(x):\n    return x + 2\ndef unused(x):\n    return x\n",
    "toy_own_late": "def late(x, y):\n    return x * y\n",
}


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Writes the modules, with texts replaced, and imports the first anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(module: str = "toy_own_code", old: str = "", new: str = "") -> ModuleType:
        for name, source in SOURCES.items():
            assert name != module or old in source
            (tmp_path / f"{name}.py").write_text(source.replace(old, new) if name == module and old else source)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return importlib.import_module("toy_own_code")

    yield load
    for name in SOURCES:
        sys.modules.pop(name, None)


def prints(module: ModuleType) -> tuple[str, str]:
    return code_fingerprint(module.method), code_fingerprint(module.made)


def test_what_computes_the_same_has_the_same_fingerprint(loaded):
    before = prints(loaded())
    assert prints(loaded()) == before
    assert prints(loaded(old='"""The documentation."""', new='"""Rewritten."""\n    # a remark\n')) == before
    assert prints(loaded(old="return 1\n", new="return 2\n")) == before
    assert prints(loaded("toy_own_edges", "return x\n", "return -x\n")) == before


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("toy_own_code", "SCALE = 2.0", "SCALE = 2.5", (True, True)),
        ("toy_own_code", "SCALE = 2.0", "SCALE = 2", (True, True)),
        ("toy_own_code", "return x * SCALE", "return x / SCALE", (True, True)),
        ("toy_own_code", '"red": 0.3', '"red": 0.4', (True, False)),
        ("toy_own_code", "[0.5, 0.2]", "[0.5, 0.3]", (True, False)),
        ("toy_own_code", "level=1.0", "level=2.0", (True, False)),
        ("toy_own_code", "power = 3", "power = 4", (False, True)),
        ("toy_own_code", "Method(2)", "Method(3)", (False, True)),
        ("toy_own_code", "sign, 1, 0", "sign, 5, 0", (False, True)),
        ("toy_own_code", "+ self._shift", "- self._shift", (False, True)),
        ("toy_own_blur", "x + 1", "x + 5", (True, False)),
        ("toy_own_edges", "x + 2", "x + 5", (True, False)),
        ("toy_own_late", "x * y", "x / y", (True, False)),
    ],
)
def test_a_change_anywhere_that_the_code_reaches_changes_it(loaded, module, old, new, changed):
    before = prints(loaded())
    after = prints(loaded(module, old, new))
    assert tuple(one != two for one, two in zip(before, after, strict=True)) == changed


def test_what_the_code_writes_itself_is_no_part_of_it(loaded):
    module = loaded()
    before = prints(module)
    for found in (module.method, module.made):
        found(None, torch.zeros(1, 3, 2, 2), None)
    assert module.calls == [1] and module.made.used == 1
    assert prints(module) == before


def test_options_in_closures_partials_arrays_and_networks_count():
    def maker(power):
        return lambda x: x**power

    def plain(x, power):
        return x**power

    def network(slope, weight=1.0):
        return nn.Sequential(nn.LeakyReLU(slope), nn.Linear(1, 1, False)).requires_grad_(False).apply(
            lambda part: part.weight.fill_(weight) if isinstance(part, nn.Linear) else None
        )  # fmt: skip

    for one, same, other in [
        (maker(2), maker(2), maker(3)),
        (functools.partial(plain, power=2), functools.partial(plain, power=2), functools.partial(plain, power=3)),
        (maker(np.ones(3)), maker(np.ones(3)), maker(np.array([1, 1, 1.0000001]))),
        (maker(torch.ones(3)), maker(torch.ones(3)), maker(torch.ones(3, dtype=torch.float64))),
        (maker(network(0.1)), maker(network(0.1)), maker(network(0.2))),
        (maker(network(0.1)), maker(network(0.1)), maker(network(0.1, 2.0))),
        (maker({"a", "b"}), maker({"b", "a"}), maker({"a", "c"})),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 2, "b": 1}),
    ]:
        assert code_fingerprint(one) == code_fingerprint(same) != code_fingerprint(other)


def test_a_function_that_calls_itself_or_holds_itself_ends():
    def outer(n):
        return n and outer(n - 1)

    held = [1]
    held.append(held)
    assert code_fingerprint(outer) == code_fingerprint(outer)
    assert code_fingerprint(held) != code_fingerprint([1])


def test_whose_a_module_is():
    assert is_own("__main__") and is_own(__name__)
    assert not any(map(is_own, ("heatproof.engine", "json", "torch.nn", "numpy", "builtins", "")))

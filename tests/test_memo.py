"""What is kept about a network: once for each module and key, and not longer than the module."""

import copy
import gc
import weakref

import pytest
from torch import nn

from heatproof.memo import PerModule


def test_work_is_done_once_for_each_module_and_key():
    memo, calls = PerModule[int](), []

    def work(value):
        calls.append(value)
        return value

    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    for module, key, value in ((first, "a", 1), (first, "b", 2), (second, "a", 3), (first, None, 4)):
        assert memo.get(module, key) is None
        assert memo.found(module, key, lambda v=value: work(v)) == value
        assert memo.found(module, key, lambda: work(0)) == value
        assert memo.get(module, key) == value
    assert calls == [1, 2, 3, 4]
    assert memo.get(copy.deepcopy(first), "a") is None, "a copy is another network"
    assert PerModule[int]().get(first, "a") is None, "two memos know nothing of each other"


def test_what_is_false_or_none_is_kept_too():
    memo, module, calls = PerModule[bool | None](), nn.ReLU(), []
    for value in (False, None):
        for _ in range(2):
            memo.found(module, repr(value), lambda v=value: calls.append(v) or v)
    assert calls == [False, None]


def test_a_failure_is_not_kept():
    memo, module = PerModule[int](), nn.ReLU()
    with pytest.raises(ZeroDivisionError):
        memo.found(module, None, lambda: 1 // 0)
    assert memo.get(module) is None and memo.found(module, None, lambda: 5) == 5
    memo.put(module, None, 6)
    assert memo.found(module, None, lambda: 7) == 6


class Alike(nn.Module):
    """A module of a user's that says it equals every other."""

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


def test_modules_are_told_apart_by_identity():
    memo, first, second = PerModule[int](), Alike(), Alike()
    memo.put(first, None, 1)
    assert memo.get(second) is None and memo.get(first) == 1


def test_a_module_is_not_kept_alive():
    memo, module = PerModule[int](), nn.Linear(2, 2)
    memo.put(module, "layer", 1)
    watched = weakref.ref(module)
    del module
    gc.collect()
    assert watched() is None and len(memo._known) == 0

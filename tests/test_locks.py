"""Threads wait for what another has taken, in order, and never for each other."""

import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import nn

import heatproof
from heatproof import locks
from heatproof.attributions.foreign import unregister
from heatproof.engine import explain
from heatproof.errors import HeatproofWarning, ModelError
from heatproof.locks import held, is_held
from heatproof.memo import cached_property
from heatproof.models import wrap
from heatproof.quiet import ignored_warnings

from . import nets

PATIENCE = 20.0


def waits(thread: int) -> None:
    """Returns when that thread waits for what is taken."""
    until = time.monotonic() + PATIENCE
    while thread not in locks._waiting and time.monotonic() < until:
        time.sleep(0.001)
    assert thread in locks._waiting


def test_two_modules_exclude_each_other_where_they_share_a_part():
    inner, weight = nn.Linear(2, 2), nn.Parameter(torch.zeros(2, 2))
    tied, other_tied = nn.Linear(2, 2), nn.Linear(2, 2)
    tied.weight = other_tied.weight = weight
    for first, second, apart in (
        (inner, inner, False),
        (nn.Sequential(inner), nn.Sequential(inner, nn.ReLU()), False),
        (tied, nn.Sequential(other_tied), False),
        (nn.Linear(2, 2), nn.Linear(2, 2), True),
        (inner, pickle.loads(pickle.dumps(inner)), True),
    ):
        entered = threading.Event()

        def enter(module: nn.Module, entered: threading.Event = entered) -> None:
            with held(module):
                entered.set()

        with held(first), held(first):
            assert is_held(first)
            thread = threading.Thread(target=enter, args=(second,))
            thread.start()
            if apart:
                assert entered.wait(PATIENCE)
            else:
                waits(thread.ident)
                assert not entered.is_set()
        assert entered.wait(PATIENCE)
        thread.join()
        assert not is_held(first)
    assert not locks._owners and not locks._waiting and not locks._holding


def test_they_are_served_in_order_of_arrival():
    module, order = nn.Linear(1, 1), []

    def enter(number: int) -> None:
        with held(module):
            order.append(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(5)]
    with held(module):
        for thread in threads:
            thread.start()
            waits(thread.ident)
    for thread in threads:
        thread.join()
    assert order == list(range(5))


def test_whoever_returns_at_once_does_not_pass_the_queue():
    module, order = nn.Linear(1, 1), []

    def enter() -> None:
        with held(module):
            order.append("other")

    thread = threading.Thread(target=enter)
    with held(module):
        thread.start()
        waits(thread.ident)
    with held(module):
        order.append("again")
    thread.join()
    assert order == ["other", "again"]


def test_an_error_and_not_a_deadlock_where_two_threads_wait_for_each_other():
    """Each holds one network, and its own method explains the other."""
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    both = threading.Barrier(2, timeout=PATIENCE)

    def nested(mine: nn.Module, other: nn.Module) -> str:
        with held(mine):
            both.wait()
            try:
                with held(other):
                    return "both"
            except ModelError as error:
                assert "wait for each other's network" in str(error)
                return "refused"

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(nested, first, second), pool.submit(nested, second, first)]
        assert sorted(one.result(PATIENCE) for one in found) == ["both", "refused"]
    with held(first), held(second):
        pass


def test_no_deadlock_through_a_third_thread():
    """A ring of three; and a thread that has taken nothing waits behind them without harm."""
    modules = [nn.Linear(1, 1) for _ in range(3)]
    all_three = threading.Barrier(3, timeout=PATIENCE)

    def nested(number: int) -> int:
        with held(modules[number]):
            all_three.wait()
            try:
                with held(modules[(number + 1) % 3]):
                    return 1
            except ModelError:
                return 0

    def plain() -> int:
        with held(nn.Sequential(*modules)):
            return 1

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(nested, number) for number in range(3)] + [pool.submit(plain)]
        served = [one.result(PATIENCE) for one in found]
    assert sum(served[:3]) == 2 and served[3] == 1


def test_what_was_taken_is_given_back_after_an_error():
    module = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError), held(module), held(locks.GENERATORS):
        raise FloatingPointError
    assert not is_held(module) and not locks._owners and not locks._holding


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_begins_with_nothing_taken():
    module, taken, done = nn.Linear(1, 1), threading.Event(), threading.Event()

    def keep() -> None:
        with held(module):
            taken.set()
            done.wait(PATIENCE)

    thread = threading.Thread(target=keep)
    thread.start()
    taken.wait(PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads
        child = os.fork()
    if not child:
        threading.Timer(PATIENCE, os._exit, [1]).start()
        with held(module):
            os._exit(0)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_property_does_not_make_other_objects_wait():
    both = threading.Barrier(2, timeout=PATIENCE)

    class Slow:
        @cached_property
        def value(self) -> int:
            """Waits for the other object's."""
            both.wait()
            return id(self)

    one, other = Slow(), Slow()
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(getattr, thing, "value") for thing in (one, other)]
        assert [f.result(PATIENCE) for f in found] == [id(one), id(other)]
    assert one.value == one.__dict__["value"] and Slow.value.__doc__ == "Waits for the other object's."


def test_filters_of_warnings_are_put_back_whoever_leaves_first():
    before = list(warnings.filters)
    steps = [threading.Event() for _ in range(3)]

    def first() -> None:
        with ignored_warnings(FutureWarning):
            steps[0].set()
            steps[1].wait(PATIENCE)
        steps[2].set()

    def second() -> None:
        steps[0].wait(PATIENCE)
        with ignored_warnings():
            steps[1].set()
            steps[2].wait(PATIENCE)
            warnings.warn("ignored", HeatproofWarning, stacklevel=1)

    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(first), pool.submit(second)]:
            one.result(PATIENCE)
    assert warnings.filters == before
    with pytest.raises(UserWarning):
        warnings.warn("heard", HeatproofWarning, stacklevel=1)


def test_a_method_that_explains_a_second_model_in_threads():
    """Its numbers are those of one thread, or it is refused; nothing hangs."""
    models = [wrap(nets.seeded(nets.Signed, seed), size=16, layer="two") for seed in range(2)]
    x = nets.images(1, 16)

    def both(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        other = models[1] if model is models[0].module else models[0]
        return explain(other, x, "gradcam")["gradcam"]

    heatproof.register("both", both)
    try:
        alone = [explain(model, x, "both")["both"] for model in models]
        calls: list[Callable[[], object]] = [partial(explain, models[i % 2], x, "both") for i in range(8)]
        with ThreadPoolExecutor(4) as pool:
            for i, future in enumerate([pool.submit(call) for call in calls]):
                try:
                    found = future.result(PATIENCE)
                except ModelError as error:
                    assert "each other's network" in str(error)
                else:
                    assert torch.equal(found["both"], alone[i % 2])
    finally:
        unregister("both")

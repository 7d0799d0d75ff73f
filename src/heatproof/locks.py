"""Calls of heatproof on one network wait for each other; calls on different networks do not.

While a network is explained, its modules are in eval mode, its parameters need no gradient, and some of its layers
carry hooks or another `forward`. So a thread takes all parts of a network, every module and every parameter, before it
changes anything, and a thread that needs one of them waits. Two models around one module exclude each other, and so do
two modules that share a layer or a weight. What belongs to the whole process, such as the global random generators, is
taken in the same way (`GENERATORS`, `STUDIES`).

The parts that are taken stand in one table. No lock is kept in a module or in a model, so both are pickled and copied
as they are, and a copy has parts of its own.

There is no deadlock. A thread that has taken nothing waits in order of arrival, and nobody waits for what it has. A
thread that has taken one network and needs another (a method of the user's that explains a second model) waits too,
unless those it would wait for wait for it: then it gets an error.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from heatproof.errors import ModelError

#: The global random generators of torch and NumPy.
GENERATORS = object()
#: The studies of this process.
STUDIES = object()


class _Mine(threading.local):
    """What the current thread has taken: identity → how often."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}


_mine = _Mine()
_changed = threading.Condition()
_owners: dict[int, tuple[int, int]] = {}  # part → thread, and how many networks of that thread it belongs to
_waiting: dict[int, frozenset[int]] = {}  # thread → the parts it waits for, in order of arrival
_holding: dict[int, int] = {}  # thread → how many networks it has taken


@contextmanager
def held(thing: Any) -> Iterator[None]:
    """Takes a network (an `nn.Module`) or something of the process (`GENERATORS`), and waits until it is free.

    A thread may take what it has already taken.

    Raises:
        ModelError: waiting would be a deadlock.
    """
    counts, key = _mine.counts, id(thing)
    if key in counts:
        counts[key] += 1
        try:
            yield
        finally:
            counts[key] -= 1
        return
    parts = _parts(thing)  # kept until they are given back, so that their identities stay theirs
    thread, ids = threading.get_ident(), frozenset(map(id, parts))
    _take(thread, ids)
    counts[key] = 1
    try:
        yield
    finally:
        counts.pop(key, None)
        _give_back(thread, ids)


def is_held(thing: Any) -> bool:
    """Whether the current thread has taken it."""
    return id(thing) in _mine.counts


def of_this_thread(function: Callable, otherwise: Callable = lambda *_, **__: None) -> Callable:
    """`function` where the current thread calls it, `otherwise` where another does.

    For hooks: a thread of the user's that runs the network by itself takes nothing, and must not meet them.
    """
    here = threading.get_ident()

    def called(*args: Any, **kwargs: Any) -> Any:
        return (function if threading.get_ident() == here else otherwise)(*args, **kwargs)

    return called


def _parts(thing: Any) -> list[Any]:
    if not hasattr(thing, "modules"):
        return [thing]
    modules = list(thing.modules())
    return [thing, *modules, *parameters_of(modules)]


def parameters_of(modules: Iterable[Any]) -> list[Any]:
    """The parameters of these modules themselves. As `Module.parameters`, which is slow too."""
    return [p for part in modules for p in part._parameters.values() if p is not None]


def _take(thread: int, ids: frozenset[int]) -> None:
    with _changed:
        _waiting[thread] = ids
        try:
            while blockers := _blockers(thread):
                if _leads_to(thread, blockers):
                    raise ModelError(
                        "Two threads wait for each other's network. Explain the second network outside the function "
                        "that explains the first, or explain both in one thread."
                    )
                _changed.wait()
        except BaseException:
            _changed.notify_all()  # those behind this thread may go on
            raise
        finally:
            del _waiting[thread]
        for part in ids:
            _owners[part] = (thread, _owners.get(part, (thread, 0))[1] + 1)
        _holding[thread] = _holding.get(thread, 0) + 1


def _give_back(thread: int, ids: frozenset[int]) -> None:
    with _changed:
        for part in ids & _owners.keys():  # a forked process knows of none
            owner, count = _owners.pop(part)
            if count > 1:
                _owners[part] = (owner, count - 1)
        left = _holding.pop(thread, 0) - 1
        if left > 0:
            _holding[thread] = left
        _changed.notify_all()


def _blockers(thread: int) -> set[int]:
    """The threads that a waiting thread waits for: owners, and, where it has taken nothing, those that came first."""
    ids = _waiting[thread]
    found = {_owners[part][0] for part in ids & _owners.keys()} - {thread}
    if thread not in _holding:
        for other, wanted in _waiting.items():
            if other == thread:
                break
            if wanted & ids:
                found.add(other)
    return found


def _leads_to(thread: int, blockers: set[int]) -> bool:
    """Whether one of these threads waits, directly or not, for `thread`."""
    seen, pending = set(), list(blockers)
    while pending:
        other = pending.pop()
        if other == thread:
            return True
        if other not in seen:
            seen.add(other)
            pending.extend(_blockers(other) if other in _waiting else ())
    return False


def _forget() -> None:
    """In a forked process there are no other threads, and nothing is taken."""
    global _changed
    _changed = threading.Condition()
    for table in (_owners, _waiting, _holding):
        table.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

"""Where the time of one thread goes: functions wrapped by name, each second counted for the innermost one only."""

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Spent:
    """Seconds on the wall and of the thread's processor, and how many calls."""

    seconds: float = 0.0
    processor: float = 0.0
    calls: int = 0


@dataclass
class Stopwatch:
    """Exclusive times by part, of the thread that made it; other threads (overlapped work) pass unseen.

    `parts["other"]` is what lies outside all parts, between `start` and `stop`.
    """

    parts: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    _open: list[str] = field(default_factory=list)
    _last: tuple[float, float] = (0.0, 0.0)
    _thread: int = field(default_factory=threading.get_ident)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """All that happens inside, but for inner parts, counts for `name`."""
        if threading.get_ident() != self._thread:
            yield
            return
        self._book()
        self._open.append(name)
        self.parts[name].calls += 1
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def total(self, *without: str) -> Spent:
        """The sum of all parts but some."""
        kept = [spent for name, spent in self.parts.items() if name not in without]
        return Spent(sum(s.seconds for s in kept), sum(s.processor for s in kept))

    def _book(self) -> None:
        """What passed since the last mark goes to the innermost open part."""
        now = (time.perf_counter(), time.thread_time())
        if self._open:
            spent = self.parts[self._open[-1]]
            spent.seconds += now[0] - self._last[0]
            spent.processor += now[1] - self._last[1]
        self._last = now


@contextmanager
def watched(watch: Stopwatch, positions: Sequence[tuple[Any, str, str]]) -> Iterator[None]:
    """Times functions while it lasts: `(owner, attribute, part)`, put back whatever happens.

    Raises AttributeError where an owner has no such attribute: the code has moved on, and the list must follow.
    """

    def timed(function: Callable, part: str) -> Callable:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with watch.part(part):
                return function(*args, **kwargs)

        return run

    with _replaced([(owner, attribute, lambda f, part=part: timed(f, part)) for owner, attribute, part in positions]):
        yield


@contextmanager
def followed(positions: Sequence[tuple[Any, str, Callable]]) -> Iterator[None]:
    """While it lasts, each call of `(owner, attribute)` is followed by the given function with the same arguments."""

    def both(function: Callable, after: Callable) -> Callable:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            answer = function(*args, **kwargs)
            after(*args, **kwargs)
            return answer

        return run

    with _replaced(
        [(owner, attribute, lambda f, after=after: both(f, after)) for owner, attribute, after in positions]
    ):
        yield


@contextmanager
def _replaced(positions: Sequence[tuple[Any, str, Callable[[Callable], Callable]]]) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, attribute, around in positions:
            before = getattr(owner, attribute)
            stack.callback(setattr, owner, attribute, before)
            setattr(owner, attribute, around(before))
        yield

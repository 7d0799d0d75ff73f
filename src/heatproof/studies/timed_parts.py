"""Times of the parts of a measurement, taken where a job keeps what is finished, and work that is stopped in time."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from heatproof.engine import Outcome
from heatproof.flags import Flag, Reason
from heatproof.studies.maps import KeptMaps
from heatproof.studies.partial import PartialBatch, PartialCondition
from heatproof.studies.rows import Rows
from heatproof.studies.stopwatch import Clock

#: The flag of what is left out.
NOT_MEASURED = "not measured"
#: What a time is spent on beside metrics: the changed images, the prediction, the map of a method, everything else.
CHANGE, PREDICTION, MAP, REST = "(change)", "(prediction)", "(map)", "(rest)"


class Enough(BaseException):
    """The time for a part is over. No `Exception`: it must not become a flag of a method or a metric."""


class TimedParts(PartialBatch):
    """Stands where a job keeps its finished parts, and takes the time of each: a whole block of images together.

    seconds: (condition, method, part) → seconds. Metrics of other methods than `scored`, those `left` out, and all
    once the time is over have no value; the last are in `missed`.
    """

    def __init__(self, clock: Clock, until: float, images: int, scored: Collection[str], left: Collection[str] = ()):
        self.clock, self.until, self.images, self.scored, self.left = clock, until, images, scored, left
        self.seconds: defaultdict[tuple[int, str, str], float] = defaultdict(float)
        self.missed: set[tuple[int, str]] = set()
        self._last = clock()

    def mark(self, number: int, method: str, part: str) -> None:
        """The time since the last mark went into this part."""
        now = self.clock()
        self.seconds[number, method, part] += now - self._last
        self._last = now

    def rows(self, number: int, kept: KeptMaps) -> Rows | None:
        """None: nothing is finished."""
        self.mark(number, "", REST)
        return None

    def condition(self, number: int) -> PartialCondition:
        """Takes the times under one condition."""
        return _TimedCondition(self, number)

    def add_rows(self, number: int, rows: Rows, raw: Sequence[torch.Tensor], display: Mapping[str, Any]) -> None:
        """The end of a condition."""
        self.mark(number, "", REST)


class _TimedCondition(PartialCondition):
    def __init__(self, parts: TimedParts, number: int):
        self.parts, self.number = parts, number

    def logits(self) -> torch.Tensor | None:
        self.parts.mark(self.number, "", CHANGE)
        return None

    def add_logits(self, logits: torch.Tensor) -> None:
        self.parts.mark(self.number, "", PREDICTION)

    def maps(self, method: str) -> torch.Tensor | None:
        return None

    def add_maps(self, method: str, raw: torch.Tensor) -> None:
        self.parts.mark(self.number, method, MAP)

    def outcome(self, method: str, metric: str) -> Outcome | None:
        parts = self.parts
        parts.mark(self.number, method, REST)
        wanted = method in parts.scored and metric not in parts.left
        if wanted and parts.clock() < parts.until:
            return None
        if wanted:
            parts.missed.add((self.number, metric))
        nothing = torch.full((parts.images,), torch.nan, dtype=torch.float64)
        return Outcome(method, metric, nothing, [Flag(Reason.UNDEFINED, NOT_MEASURED)] * parts.images)

    def add_outcome(self, outcome: Outcome) -> None:
        self.parts.mark(self.number, outcome.method, outcome.metric)


class Progress:
    """How many images went through a network until some work was done, or stopped."""

    def __init__(self, clock: Callable[[], float]):
        self.clock, self.start, self.end, self.images, self.stopped = clock, clock(), 0.0, 0, False
        self._first: tuple[float, int] | None = None

    def seen(self, images: int) -> None:
        """Some more images."""
        self.images += images
        if self._first is None:
            self._first = self.clock(), self.images

    def seconds(self, images: float, rate: float) -> float:
        """The seconds of the whole work, which needs so many `images`; `rate`: of one, where none were timed."""
        if not self.stopped or self._first is None:
            return self.end - self.start
        at, images_then = self._first
        timed = self.images - images_then
        each = (self.end - at) / timed if timed else rate
        return at - self.start + each * max(timed, images - images_then)


@contextmanager
def stopped_at(modules: Sequence[nn.Module], clock: Clock, until: float) -> Iterator[Progress]:
    """Stops the work inside at the first pass of the network after `until`; the block then ends without an error.

    modules: the network, and its compiled copy where it has one.
    """
    progress = Progress(clock)

    def after(_: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
        progress.seen(len(inputs[0]))
        if clock() > until:
            raise Enough

    handles = [one.register_forward_hook(after) for one in modules]
    try:
        yield progress
    except Enough:
        progress.stopped = True
    finally:
        for handle in handles:
            handle.remove()
        progress.end = clock()

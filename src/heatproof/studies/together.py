"""Conditions of the same images that are explained in one pass, so that a GPU is filled: how many, and which."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from heatproof.engine import Batch, Explanation, ResolvedMethod, joined_explanations
from heatproof.errors import HeatproofError
from heatproof.studies.partial import PartialBatch


@dataclass
class Together:
    """How many conditions are explained in one pass; fewer once memory has run out."""

    count: int = 1

    def group(self, number: int, states: Sequence[str]) -> list[int]:
        """The conditions that may share the pass of condition `number`: none with the reference, which is the first.

        They are the same wherever a study goes on, unless memory runs out. `states`: of the model under each condition;
        only one is held.
        """
        alike = [one for one in range(1, len(states)) if states[one] == states[number]]
        if self.count < 2 or number not in alike:
            return [number]
        first = alike.index(number) // self.count * self.count
        return alike[first : first + self.count]


@dataclass
class ExplainedAhead:
    """The maps of conditions that shared a pass with an earlier one.

    states: of the model under each condition. batch: the images under a condition; None or an error where these are
    explained alone. precision: in which the network explains. finished: what an earlier run has worked out, and where
    new results are kept.
    """

    together: Together
    states: Sequence[str]
    methods: Sequence[ResolvedMethod]
    batch: Callable[[int], Batch | None]
    precision: Callable[[], AbstractContextManager[None]]
    finished: PartialBatch | None
    _found: dict[int, tuple[Batch, Explanation]] = field(default_factory=dict, init=False)

    def take(self, number: int) -> tuple[Batch, Explanation] | None:
        """The images and maps under a condition, once; None where it shares no pass."""
        if number not in self._found and (group := self._due(number)):
            self._explain(number, group)
        return self._found.pop(number, None)

    def _due(self, number: int) -> list[int]:
        """The conditions that share the pass; empty where there is one, or all their maps are known.

        Those that are done are among them: the last digits of the numbers depend on what shares a pass.
        """
        group, finished = self.together.group(number, self.states), self.finished
        if len(group) < 2 or finished is None:
            return group if len(group) > 1 else []
        keys = [method.key for method in self.methods]
        return [] if all(finished.done(one) or finished.explained(one, keys) for one in group) else group

    def _explain(self, number: int, group: Sequence[int]) -> None:
        batches = {one: batch for one in group if (batch := self._possible(one)) is not None}
        if number not in batches or len(batches) < 2:
            return
        left = iter(batches.items())
        with self.precision():
            for some in joined_explanations(list(batches.values()), self.methods):
                if len(some) < len(batches):
                    self.together.count = min(self.together.count, len(some))
                for found in some:
                    self._keep(number, *next(left), found)

    def _possible(self, number: int) -> Batch | None:
        try:
            return self.batch(number)
        except HeatproofError:  # alone, it says why
            return None

    def _keep(self, first: int, number: int, batch: Batch, found: Explanation) -> None:
        if number >= first:  # those before are done
            self._found[number] = batch, found
        if self.finished is not None and not self.finished.done(number):
            self.finished.condition(number).add_explanation(found.logits, found.raw)

"""Several batches explained in one pass, as the same images under several conditions, so that a GPU is filled.

Images of a batch do not mix and each has its own random numbers, so the maps are those of one batch after the other, to
rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from heatproof.engine.batch import Batch, needs_by_layer
from heatproof.engine.explanation import Explanation, explanation
from heatproof.engine.memory import halved
from heatproof.engine.resolved_methods import ResolvedMethod
from heatproof.memo import cached_property


@dataclass
class JoinedBatch(Batch):
    """The images of several batches of one model, one after the other; each part keeps its target rule and seeds."""

    parts: Sequence[Batch] = ()

    @classmethod
    def joined(cls, parts: Sequence[Batch], methods: Sequence[ResolvedMethod]) -> "JoinedBatch":
        """The batch on which these methods will run."""
        first, x = parts[0], torch.cat([part.x for part in parts])
        names = [name for part in parts for name in part.names]
        return cls(first.model, x, needs_by_layer(methods), ids=names, seed=first.seed, parts=parts)

    @property
    def rows(self) -> list[slice]:
        """Where the images of each part are."""
        ends = torch.tensor([0, *(len(part.x) for part in self.parts)]).cumsum(0).tolist()
        return [slice(*ends[number : number + 2]) for number in range(len(self.parts))]

    @cached_property
    def target(self) -> torch.Tensor:
        """`(N,)`: the classes explained, by the rule of each part from its own logits, which the part adopts."""
        for part, rows in zip(self.parts, self.rows, strict=True):
            part.logits = self.logits[rows].detach()
        return torch.cat([part.target for part in self.parts])

    def generators(self, method: str) -> list[torch.Generator]:
        """One for each image, as its own part has it."""
        return [one for part in self.parts for one in part.generators(method)]


def joined_explanations(batches: Sequence[Batch], methods: Sequence[ResolvedMethod]) -> Iterator[list[Explanation]]:
    """The explanation of each batch, in their order: as many together as memory holds, at first all.

    Each list comes from one pass; where memory runs out there are several, of half the batches each. A method that
    raises gives NaN maps and a flag with the error.
    """
    return halved(lambda some: _together(batches[some], methods), len(batches))


def _together(batches: Sequence[Batch], methods: Sequence[ResolvedMethod]) -> list[Explanation]:
    if len(batches) == 1:
        return [explanation(batches[0], methods, survive=True)]
    joint = [method for method in methods if "condition" not in method.request.entry.needs]
    whole = JoinedBatch.joined(batches, joint)
    try:
        found = explanation(whole, joint, survive=True)
        return [_completed(found.part(rows), batch, methods) for batch, rows in zip(batches, whole.rows, strict=True)]
    finally:
        whole.drop()  # its targets refer to it, so its memory would be kept until Python looks for circles


def _completed(found: Explanation, batch: Batch, methods: Sequence[ResolvedMethod]) -> Explanation:
    """With the maps of methods that are told the condition, and again of those that failed in the pass."""
    rest = [method for method in methods if method.key not in found.raw or method.key in found.failed]
    if not rest:
        return found
    own = Batch.of(batch.model, rest, batch.x, ids=batch.ids, seed=batch.seed, condition=batch.condition)
    own.logits, own.target = found.logits, found.target
    more = explanation(own, rest, survive=True)
    raw, flags = {**found.raw, **more.raw}, {**found.flags, **more.flags}
    return replace(
        found,
        raw={method.key: raw[method.key] for method in methods},
        flags={method.key: flags[method.key] for method in methods},
        methods={method.key: method for method in methods},
        failed=more.failed,
    )

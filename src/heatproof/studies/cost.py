"""What a study costs, told before it starts: the passes through the network that an image needs.

The engine itself is run on one small image and a toy network with as many channels as the layer explained, and the
passes are counted. So what is shared between methods and metrics is counted once, as in the study. What depends on the
image's size (the squares of `occlusion`, superpixels) or on layers before the last is an estimate. So is which sets
of parts the metrics of parts remove, as it depends on the maps; there some of the study's own images are taken.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from heatproof.attributions import Request, requested
from heatproof.data.part_images import PartImage
from heatproof.engine import (
    Batch,
    PartAnswers,
    ReferenceMaps,
    ResolvedMethod,
    evaluate,
    explanation,
    resolve_layers,
    toy,
)
from heatproof.metrics.metric_request import MetricRequest
from heatproof.models import Model
from heatproof.models.model import only_logits
from heatproof.models.probe import probing
from heatproof.models.tail import partial_pass
from heatproof.perturbations import PERTURBATIONS, Perturber
from heatproof.quantities import having
from heatproof.quiet import ignored_warnings
from heatproof.rounding import top_class
from heatproof.statistics.wording import counted as counted_text
from heatproof.studies.changed_images import loss_gradient
from heatproof.studies.conditions import Condition
from heatproof.studies.measures import Measures
from heatproof.studies.part_cost import FollowedParts

#: The most channels of the toy's layer: more would take longer to count than they tell.
CHANNELS = 2048
#: The toy has at least so many layers with weights, as `mprt` randomises them in ten blocks by default.
WEIGHTED = 10


@dataclass(frozen=True)
class Passes:
    """Passes of images through a network.

    forward, backward: whole ones. plain: the forward ones from which only logits are wanted. tails: partial forward
    ones, from a layer on.
    """

    forward: float = 0.0
    backward: float = 0.0
    plain: float = 0.0
    tails: float = 0.0

    def __str__(self) -> str:
        partial = f" and {self.tails:,.0f} partial" if self.tails else ""
        joined = "," if partial else " and"
        return f"about {self.forward:,.0f} forward{joined} {self.backward:,.0f} backward{partial} passes an image"

    @property
    def all(self) -> float:
        """Passes of every kind."""
        return self.forward + self.backward + self.tails

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(
            self.forward + other.forward,
            self.backward + other.backward,
            self.plain + other.plain,
            self.tails + other.tails,
        )

    def __mul__(self, times: float) -> "Passes":
        return Passes(self.forward * times, self.backward * times, self.plain * times, self.tails * times)


@dataclass(frozen=True)
class PassesMade:
    """The passes that a run made for `images` images, beside those that they needed by the count made before it.

    probes: further ones, of noise, by which each worker looked once at the network's layers.
    """

    made: Passes
    needed: Passes
    images: int
    probes: float = 0.0

    def __str__(self) -> str:
        sides = (
            ("forward", self.made.forward, self.needed.forward),
            ("backward", self.made.backward, self.needed.backward),
            ("partial", self.made.tails, self.needed.tails),
        )
        told = [
            f"{made:,.0f} {name} ({f'{made / needed:.2f} × the {needed:,.0f}' if needed else 'none'} told)"
            for name, made, needed in sides
            if made or needed
        ]
        once = f"\n{self.probes:,.0f} more, of noise, looked once at the network's layers." if self.probes else ""
        return f"Passes of {counted_text(self.images, 'image')}: {', '.join(told)}.{once}"


def told(parts: Iterable[Passes]) -> str:
    """The passes that an image needs under all models, as a text in brackets."""
    return f" ({sum(parts, Passes())})"


@dataclass(frozen=True)
class Explained:
    """The methods applicable to a network, the channels of the layer explained, and whether a linear head follows.

    layers: method → the channels of the layers it reads, of methods that read others than the layer explained.
    """

    requests: Sequence[Request]
    channels: int
    linear: bool
    layers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def passes_of_image(
    explained: Explained,
    measures: Measures,
    conditions: Sequence[Condition],
    masked: bool = False,
    mosaics: bool = False,
    parts: Sequence[PartImage] = (),
    shares: Sequence[float] = (),
) -> Passes:
    """The passes that one image needs under all conditions of a study.

    `masked`, `mosaics`: whether the images have masks, and are mosaics, so that metrics of these are taken. `parts`:
    some of the images, where they are made of parts; what they need is their mean. `shares`: of the images that there
    are under each condition; all of them by default.
    """
    first, *others = conditions
    weights = list(shares) or [1.0] * len(conditions)
    found = Counted()
    toy_batch = ToyBatch.of(explained)
    for number, of_kind in enumerate(([first], others)):
        if of_kind:
            times = sum(weights[1:] if number else weights[:1])
            due = [request for _, request in measures.at(not number, masked, mosaics) if not request.parts]
            due = list({one.key: one for one in due}.values())
            whole = not any(condition.transformation or condition.perturbation for condition in of_kind)
            if whole and parts and any(request.of_parts for request in due):
                each = [toy_batch.made_of_parts(one).passes(due) for one in parts]
                found += sum(each, Counted()) * (times / len(each))
            else:
                found += toy_batch.passes(due) * times
    return found.passes + toy_batch.passes_of_changes(others)


@dataclass(frozen=True)
class ToyBatch:
    """One image of the toy network, and the methods that run on it, on layers as wide as on the study's network."""

    model: Model
    x: torch.Tensor
    methods: Sequence[ResolvedMethod]
    layer: str
    parts: PartAnswers | None = None

    @classmethod
    def of(cls, explained: Explained) -> "ToyBatch":
        """The toy with the layers that the methods read, and the layer explained as its last."""
        read = {key: [min(CHANNELS, max(1, one)) for one in widths] for key, widths in explained.layers.items()}
        others: Counter[int] = Counter()
        for widths in read.values():
            others |= Counter(widths)  # a layer that two methods read is one
        order = [*sorted(others.elements()), min(CHANNELS, max(1, explained.channels))]
        idle = max(0, WEIGHTED - 1 - len(order))  # 1: the head
        model, x = toy(1, order, idle)
        # The head is linear after the toy's ReLU, not after the layer before it.
        last = str(idle + len(order) - (not explained.linear))
        methods = []
        for request in explained.requests:
            own = replace(request, layers=_of_widths(order, read.get(request.key, ()), idle))
            methods += resolve_layers(model, [own], last)
        return cls(model, x, methods, last)

    def made_of_parts(self, image: PartImage) -> "ToyBatch":
        """The toy on an image with parts; without some of them each image is run once."""
        x, parts = FollowedParts.of(self.model, image)
        return replace(self, x=x, parts=parts)

    def passes(self, due: Sequence[MetricRequest]) -> "Counted":
        """Of all methods together, with these metrics.

        A metric that explains again makes each method's own passes as often as it explains, which is counted for one.
        """
        again, once = (
            [one for one in due if bool(having(one.entry.needs, "explains")) is kind] for kind in (True, False)
        )
        found = self._run(self.methods, once)
        if again and self.methods:
            quick, before = resolve_layers(self.model, requested(["eigencam"]), self.layer), self._without_parts
            explanations = self._run(quick, again).forward - self._run(quick, []).forward
            of_parts = self._without_parts - before
            found += Counted(of_parts)
            explanations -= of_parts
            for method in self.methods:
                found += self._run([method], []) * explanations
        return found

    def passes_of_changes(self, conditions: Sequence[Condition]) -> Passes:
        """Of the attacks among the perturbations; what the strengths of one share is counted once."""
        changed = [one for one in conditions if one.perturbation and _runs(one.perturbation)]
        with self.model.evaluating(), torch.no_grad():
            clean = top_class(self.model.logits(self.x))
        with ignored_warnings(), counted(self.model.module) as found:
            for name in dict.fromkeys(one.transformation for one in changed):
                gradient = partial(loss_gradient, self.model, clean=clean)
                perturber = Perturber(self.x, ["toy"], 0, gradient, self.model.logits)
                with self.model.evaluating():
                    for one in (one for one in changed if one.transformation == name):
                        level = one.level if one.level == one.level else float(one.severity)
                        perturber.apply(one.perturbation, level, extrapolate=True)
        return found.passes

    @property
    def _without_parts(self) -> int:
        """How many images with something removed have been run so far."""
        return self.parts.passes if self.parts is not None else 0

    def _run(self, methods: Sequence[ResolvedMethod], due: Sequence[MetricRequest]) -> "Counted":
        x, reference, given = self.x, None, {"ids": ["toy"], "condition": "clean"}
        if any(request.paired for request in due):
            first = explanation(Batch.of(self.model, methods, x, **given), methods, survive=True)
            x, reference = x.flip(3), ReferenceMaps.of(x, first)
        mask = torch.zeros(1, *x.shape[2:], dtype=torch.bool)
        mask[:, 8:24, 8:24] = True
        batch = Batch.of(self.model, methods, x, **given)
        with ignored_warnings(), counted(self.model.module) as found:
            maps = explanation(batch, methods, survive=True)
            for _ in evaluate(
                batch, methods, due, ground_truth=mask, reference=reference, found=maps, survive=True, parts=self.parts
            ):
                pass
            if self.parts is not None and any(request.of_parts for request in due):
                things = [frozenset([name]) for name in self.parts.things[0]]  # as the network's own figure asks
                self.parts.answers([0] * len(things), things)
        return found


def _runs(perturbation: str) -> bool:
    """Whether a perturbation asks the network."""
    return bool(having(PERTURBATIONS.parse(perturbation)[0].needs, "runs"))


def _of_widths(order: Sequence[int], widths: Sequence[int], first: int) -> tuple[str, ...]:
    """Names of layers of the toy, each another one, that have these widths.

    order: the widths of its layers, of which the first has the number `first`.
    """
    free = list(enumerate(order, first))
    found = []
    for width in widths:
        place = next(one for one in free if one[1] == width)
        free.remove(place)
        found.append(place[0])
    return tuple(map(str, sorted(found)))


@dataclass
class Counted:
    """Rows that went through a network, as `Passes`; `probes`: further ones that the probe of its layers made."""

    forward: float = 0.0
    backward: float = 0.0
    plain: float = 0.0
    tails: float = 0.0
    probes: float = 0.0

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(**vars(self.passes + other.passes))

    def __mul__(self, times: float) -> "Counted":
        return Counted(**vars(self.passes * times))

    @property
    def passes(self) -> Passes:
        """The same, as passes."""
        return Passes(self.forward, self.backward, self.plain, self.tails)


@contextmanager
def counted(*modules: nn.Module | None) -> Iterator[Counted]:
    """Counts the images that go through a network and its compiled copy; the hooks are removed at the end."""
    found = Counted()

    def seen(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        rows = len(inputs[0])
        if probing.get():
            found.probes += rows
            return
        if partial_pass():
            found.tails += rows
        else:
            found.forward += rows
            found.plain += rows * only_logits.get()
        if isinstance(output, torch.Tensor) and output.requires_grad:
            output.register_hook(lambda gradient: _add_backward(found, rows))

    handles = [one.register_forward_hook(seen) for one in modules if one is not None]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _add_backward(found: Counted, rows: int) -> None:
    found.backward += rows

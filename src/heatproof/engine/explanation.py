"""A set of methods run on one batch: raw maps by method, and flags of those that are degenerate."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch

from heatproof.ambient import neutral
from heatproof.attributions import Request, degeneracy, display_maps, flags_of
from heatproof.attributions.refine import refined
from heatproof.engine.batch import Batch, LayerBatch, TargetBatch
from heatproof.engine.checked_output import checked_maps
from heatproof.engine.memory import out_of_memory
from heatproof.engine.resolved_methods import ResolvedMethod
from heatproof.errors import HeatproofError, NotApplicable
from heatproof.flags import Flag, Reason, absent_flags
from heatproof.models.one_output import warn_of_values
from heatproof.models.probability_outputs import warn_of_probabilities
from heatproof.quantities import having
from heatproof.transfers import on_host

Flags = list[Flag] | list[list[Flag]]


class FinishedMaps(Protocol):
    """Logits and maps of one batch that are known from an earlier run; `None` where they are not."""

    def logits(self) -> torch.Tensor | None: ...
    def add_logits(self, logits: torch.Tensor) -> None: ...
    def maps(self, method: str) -> torch.Tensor | None: ...
    def add_maps(self, method: str, raw: torch.Tensor) -> None: ...


class Answers(NamedTuple):
    """Logits `(N, K)` and target, `(N,)` or `(N, T)`, in the CPU's memory."""

    logits: torch.Tensor
    target: torch.Tensor

    def part(self, rows: slice | list[int]) -> "Answers":
        """Those of some of the images."""
        return Answers(self.logits[rows], self.target[rows])


@dataclass
class Explanation:
    """The maps of one batch, by the spelling asked for.

    flags: why a map is degenerate or missing. answers: logits and target once more, where reading them waits for
    nothing. failed: the methods that raised.
    """

    logits: torch.Tensor
    target: torch.Tensor
    raw: dict[str, torch.Tensor]
    flags: dict[str, Flags]
    size: tuple[int, ...]
    methods: dict[str, ResolvedMethod]
    answers: Answers
    failed: frozenset[str] = frozenset()

    def part(self, rows: slice | list[int]) -> "Explanation":
        """That of some of the images."""
        numbers = list(range(len(self.logits))[rows]) if isinstance(rows, slice) else rows
        return replace(
            self,
            logits=self.logits[rows],
            target=self.target[rows],
            raw={key: maps[rows] for key, maps in self.raw.items()},
            flags={key: [each[row] for row in numbers] for key, each in self.flags.items()},
            answers=self.answers.part(rows),
        )

    def display(self, key: str, upsample: str = "bilinear") -> torch.Tensor:
        """`(N, H, W)`, or `(N, T, H, W)`, in [0, 1]; zeros where the map is constant or not finite (see `flags`)."""
        request, raw = self.methods[key].request, self.raw[key]
        several = self.target.dim() == 2
        flat = raw.flatten(0, 1) if several else raw
        channels, power = _channels(request), request.power
        shown = display_maps(flat, request.form, self.size, upsample=upsample, channels=channels, power=power)
        return shown.unflatten(0, raw.shape[:2]) if several else shown


def _channels(request: Request) -> str:
    return str(request.options.get("channels", "abs-max")) if request.form == "rgb" else "abs-max"


def _silent(units: float) -> None:
    """No progress."""


def explanation(
    batch: Batch,
    methods: Sequence[ResolvedMethod],
    *,
    survive: bool = False,
    upsample: str = "bilinear",
    finished: FinishedMaps | None = None,
    advance: Callable[[float], Any] = _silent,
) -> Explanation:
    """Runs the methods on a batch.

    Args:
        survive: a method that raises gives NaN maps and a flag with the error, in place of an error that carries its
            name; running out of memory is always an error.
        finished: logits and maps of this batch that are known, and where new ones are kept (one target for each image).
        advance: called with 1 after each method at each target.
    """
    if finished is not None and (known := finished.logits()) is not None:
        batch.logits = known.to(batch.x.device)
    with neutral(), batch.model.evaluating(), torch.set_grad_enabled(batch.differentiable):
        raw: dict[str, list[torch.Tensor]] = {method.key: [] for method in methods}
        failed: dict[str, Flag] = {}

        def run(at_target: TargetBatch, method: ResolvedMethod) -> None:
            if finished is not None and (known := finished.maps(method.key)) is not None:
                raw[method.key].append(known.to(batch.x.device))
                return
            try:
                raw[method.key].append(_raw_map(at_target, method, upsample))
                if finished is not None:
                    finished.add_maps(method.key, raw[method.key][-1])
            except (Exception, SystemExit) as error:
                if not survive or out_of_memory(error):
                    raise
                unfit = isinstance(error, NotApplicable)
                failed[method.key] = Flag.of_error(error, Reason.NOT_APPLICABLE if unfit else Reason.FAILED)
                raw[method.key].append(_empty(batch.x, method.request.form))

        if batch.adopts and (first := next((m for m in methods if "forward" in m.request.entry.needs), None)):
            run(TargetBatch(batch), first)  # its forward pass is the batch's
        for at_target in batch.by_target:  # resolves the target: a wrong one is an error before any other map is made
            if finished is not None:
                finished.add_logits(batch.logits)
            for method in methods:
                if len(raw[method.key]) > at_target.column:
                    continue  # the first
                if raw[method.key] and not method.request.targeted:
                    raw[method.key].append(raw[method.key][0])  # the same for every target
                else:
                    run(at_target, method)
                advance(1)
        maps = {key: _together(parts, batch.target) for key, parts in raw.items()}
        answers, found = _answers_and_flags(batch, methods, raw, failed)
        size = tuple(batch.x.shape[2:])
        known, unable = {m.key: m for m in methods}, frozenset(failed)
        return Explanation(batch.logits, batch.target, maps, found, size, known, answers, unable)


def _empty(x: torch.Tensor, form: str) -> torch.Tensor:
    """NaN maps in place of the raw maps of a method that failed."""
    shape = {"cam": (len(x), *(1,) * (x.dim() - 2)), "rgb": tuple(x.shape)}.get(form, (len(x), *x.shape[2:]))
    return x.new_full(shape, torch.nan, dtype=torch.float32)


def _together(parts: list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    return parts[0] if target.dim() == 1 else torch.stack(parts, 1)


def _answers_and_flags(
    batch: Batch, methods: Sequence[ResolvedMethod], raw: Mapping[str, list[torch.Tensor]], failed: Mapping[str, Flag]
) -> tuple[Answers, dict[str, Flags]]:
    """Logits and target in the CPU's memory, and the flags of every map: all of it in one copy to the host."""
    parts = {
        method.key: [
            test(part.detach(), method.request)
            for part in raw[method.key]
            for test in (_degeneracy, *([_absent] if method.request.entry.traits.get("stored") else []))
        ]
        for method in methods
    }
    logits, target, *numbers = on_host([batch.logits, batch.target, *(one for some in parts.values() for one in some)])
    warn_of_values(batch.model, logits)
    warn_of_probabilities(batch.model, logits)
    answered, found = torch.isfinite(logits).all(1).tolist(), iter(numbers)
    known = {
        method.key: _flags(method.request, [next(found) for _ in parts[method.key]], answered, failed.get(method.key))
        for method in methods
    }
    several = target.dim() == 2
    return Answers(logits, target), {
        key: [list(one) for one in zip(*each, strict=True)] if several else each[0] for key, each in known.items()
    }


def _degeneracy(raw: torch.Tensor, request: Request) -> torch.Tensor:
    return degeneracy(raw, request.form, channels=_channels(request))


def _absent(raw: torch.Tensor, _request: Request) -> torch.Tensor:
    """Whether a stored map is missing: all NaN."""
    return torch.isnan(raw).flatten(1).all(1)


def _flags(
    request: Request, numbers: list[torch.Tensor], answered: list[bool], failed: Flag | None
) -> list[list[Flag]]:
    """Flags of every map, for each target; where the logits are not finite, methods that need the network have none."""
    if request.entry.traits.get("stored"):
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        found = [absent_flags(absent.tolist(), flags_of(one)) for one, absent in pairs]
    else:
        found = [flags_of(one) for one in numbers]
    if failed:
        found = [[failed] * len(one) for one in found]
    if having(request.entry.needs, "asks"):
        mute = Flag(Reason.NO_ANSWER)
        found = [[flag if fine else mute for flag, fine in zip(one, answered, strict=True)] for one in found]
    return found


def _raw_map(at_target: TargetBatch, method: ResolvedMethod, upsample: str) -> torch.Tensor:
    request = method.request
    maps = [_at(at_target, layer, request) for layer in method.layers]
    if not request.refined:
        return maps[0]
    size = tuple(at_target.batch.x.shape[2:])
    return refined(maps, request.entry.traits["form"], size, request.operator, upsample)


def _at(at_target: TargetBatch, layer: str, request: Request) -> torch.Tensor:
    given = LayerBatch(at_target, layer, request).given()
    try:
        found = request.entry(given, request.options)
    except (HeatproofError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shapes = {k: tuple(v.shape) for k, v in given.items() if isinstance(v, torch.Tensor)}
        error.add_note(f"in method {request.key!r} at layer {layer!r}, given {shapes}")
        raise
    return checked_maps(found, request.key, request.entry.traits["form"], at_target.batch.x)

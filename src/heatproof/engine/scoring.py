"""Metrics run on one batch: values by method and metric, and what they say of maps that have none."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from heatproof.attributions import display_maps, flags
from heatproof.engine.batch import Batch
from heatproof.engine.explanation import NO_ANSWER, Placed, explanation
from heatproof.engine.trial import SILENT, Stand, Trial
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.metrics.catalogue import Curve, stated
from heatproof.metrics.request import MetricRequest

#: Flags of maps that say nothing; of any other flag no value can come.
DEGENERATE = ("constant map", "non-finite map")
#: Quantities that need the method and not only its map.
AGAIN = frozenset({"explain", "shifts"})
#: The flag of a metric that would have to explain again.
MADE_ELSEWHERE = "needs the method, and these maps were made elsewhere"
#: The flag of a picture for which stored maps hold nothing.
NO_MAP = "there is no map of this picture"
#: The flag of a metric of localisation where nobody said where anything is.
NO_TRUTH = "no masks were given"


@dataclass(frozen=True)
class Outcome:
    """What a metric says of a method's maps of some pictures.

    values: `(N,)` float64 on the CPU; NaN where there is none. flags: one reason per picture, `""` where all is well;
    a value beside a flag is the stated one of a map that says nothing. curve: `at` `(P,)`, `points` `(N, P)`, or None.
    """

    method: str
    metric: str
    values: torch.Tensor
    flags: list[str]
    curve: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass(frozen=True)
class Judged:
    """One method's maps with all that metrics said of them."""

    method: str
    maps: torch.Tensor
    flags: list[str]
    outcomes: list[Outcome]


@dataclass(frozen=True)
class GivenMaps:
    """Maps made elsewhere: `(N, *size)`, on any scale; `absent` says of which pictures there is none."""

    key: str
    maps: torch.Tensor
    absent: Sequence[bool] = ()


def judged(
    batch: Batch,
    places: Sequence[Placed],
    metrics: Sequence[MetricRequest],
    *,
    given: Sequence[GivenMaps] = (),
    truth: torch.Tensor | None = None,
    survive: bool = False,
    upsample: str = "bilinear",
) -> Iterator[Judged]:
    """Explains a batch with all methods together, and scores each method's maps with all metrics.

    Args:
        given: further maps, which no method here can make again.
        truth: `(N, *spatial)` bool, where the object is.
        survive: a metric that raises gives NaN and a flag that says why, in place of an error; running out of memory
            and options that cannot be are errors always.
    """
    found = explanation(batch, places, survive=survive, upsample=upsample)
    with batch.model.evaluating(), torch.inference_mode(False), torch.no_grad():
        stand = Stand(batch, truth)
        batch.release()
        answered = torch.isfinite(stand.logits).all(1).tolist()
        for place in places:
            stored = place.request.entry.traits.get("stored", False)
            shown, raw = found.display(place.key, upsample).detach(), found.raw[place.key].detach()
            said = [str(flag) for flag in found.flags[place.key]]  # one target for each picture: no lists
            if stored:  # what is looked up and not there is not a number all over
                said = _absent(torch.isnan(raw).flatten(1).all(1).tolist(), said)
            trial = Trial(stand, shown, raw, None if stored else place, upsample)
            yield _judged(trial, place.key, said, metrics, answered, survive)
        for one in given:
            raw = one.maps.to(stand.x)
            said = _absent(one.absent or [False] * len(raw), flags(raw, "display"))
            trial = Trial(stand, display_maps(raw, "display", tuple(stand.x.shape[2:])), raw, None)
            yield _judged(trial, one.key, said, metrics, answered, survive)


def _absent(absent: Sequence[bool], said: list[str]) -> list[str]:
    return [NO_MAP if nothing else flag for nothing, flag in zip(absent, said, strict=True)]


def _judged(
    trial: Trial, key: str, said: list[str], metrics: Sequence[MetricRequest], answered: list[bool], survive: bool
) -> Judged:
    done: dict[str, Outcome] = {}
    for request in metrics:
        done[request.key] = _outcome(trial, key, said, request, done, answered, survive)
    return Judged(key, trial.maps, said, list(done.values()))


def _outcome(
    trial: Trial,
    method: str,
    said: list[str],
    request: MetricRequest,
    done: Mapping[str, Outcome],
    answered: list[bool],
    survive: bool,
) -> Outcome:
    """One metric on one method's maps."""
    entry, count = request.entry, len(said)
    if request.parts:
        return composed(method, request, {part: done[one.key] for part, one in request.parts.items()})
    if trial.place is None and set(entry.needs) & AGAIN:
        return _without(method, request, [MADE_ELSEWHERE] * count)
    located = "mask" in entry.needs and not entry.traits.get("foreign")  # foreign ones are handed all there is
    if located and trial.stand.truth is None:
        return _without(method, request, [NO_TRUTH] * count)
    try:
        found = entry(trial.given(entry.needs, entry.name), request.options)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except NotApplicable as error:
        return _without(method, request, [str(error)] * count)
    except Exception as error:
        if isinstance(error, InvalidInput | UnknownName) and not (survive and entry.traits.get("foreign")):
            raise  # an option that cannot be
        if not survive or "not enough memory" in str(error) or "can't allocate memory" in str(error):
            error.add_note(f"in metric {request.key!r} on the maps of {method!r}")
            raise
        return _without(method, request, [f"{type(error).__name__}: {error}".strip().splitlines()[0]] * count)
    values = found.value if isinstance(found, Curve) else found
    curve = (found.at.detach().cpu(), found.points.detach().cpu()) if isinstance(found, Curve) else None
    constant = torch.tensor([flag in DEGENERATE for flag in said])
    if located:  # where there is no object there is nothing to find, by any map
        constant &= trial.stand.mask.flatten(1).any(1).cpu()
    values = stated(entry.traits["degenerate"], values.detach().double().cpu(), constant)
    asks = bool(set(entry.needs) - SILENT)
    reasons = [_reason(flag, asks and not fine) for flag, fine in zip(said, answered, strict=True)]
    return _flagged(method, request, values, reasons, curve)


def _reason(flag: str, mute: bool) -> str:
    return NO_ANSWER if mute else flag


def _flagged(
    method: str,
    request: MetricRequest,
    values: torch.Tensor,
    reasons: list[str],
    curve: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Outcome:
    """NaN where a reason allows no value; a reason where a value is NaN."""
    impossible = torch.tensor([bool(flag) and flag not in DEGENERATE for flag in reasons])
    values = torch.where(impossible | ~torch.isfinite(values), torch.nan, values)
    undefined = request.entry.traits["undefined"]
    flagged = [flag or (undefined if math.isnan(v) else "") for flag, v in zip(reasons, values.tolist(), strict=True)]
    return Outcome(method, request.key, values, flagged, curve)


def _without(method: str, request: MetricRequest, reasons: list[str]) -> Outcome:
    """No value for any picture."""
    return Outcome(method, request.key, torch.full((len(reasons),), torch.nan, dtype=torch.float64), reasons)


def composed(method: str, request: MetricRequest, parts: Mapping[str, Outcome]) -> Outcome:
    """A composite from the values of its parts: no network, so rows will do.

    Flags of the parts are handed on; a degenerate map has the composite's stated value where there is one.
    """
    values = request.entry({part: one.values for part, one in parts.items()}, request.options)
    reasons = [next(filter(None, several), "") for several in zip(*(one.flags for one in parts.values()), strict=True)]
    constant = torch.tensor([flag in DEGENERATE for flag in reasons])
    values = stated(request.entry.traits["degenerate"], values.double(), constant)
    return _flagged(method, request, values, reasons)

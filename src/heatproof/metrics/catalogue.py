"""The registry of metrics: what a metric measures, which way is better, and its value for a degenerate map."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from heatproof.errors import InvalidInput
from heatproof.quantities import QUANTITIES, belonging
from heatproof.registry import Registry

#: The families of metrics, and the question that each of them answers.
FAMILIES = {
    "fidelity": "does the network need what the map shows?",
    "road": "the same, with removed pixels filled so that they leave no trace",
    "composite": "several scores in one",
    "complexity": "how much of the image does the map light up?",
    "sensitivity": "does the map stay when the image hardly moves?",
    "localisation": "does the map show the object? Needs masks or boxes",
    "sanity": "does the map change with the network and the class?",
    "parts": "does the map weigh the parts of the object as the network does? Needs images made of removable parts",
    "stability": "is the map like that of the clean image? Needs reference maps",
}

BETTER = ("high", "low")

#: The quantities that only a map with a reference has.
PAIRED = frozenset(belonging(QUANTITIES, "pair"))


#: What a metric is for a network of values, besides a phrase that says why it has no meaning.
SAME, UNITS = "same", "units"


class Curve(NamedTuple):
    """A score with the curve behind it: `value` `(N,)`, and `points` `(N, P)` at the shares `at` `(P,)`."""

    value: torch.Tensor
    at: torch.Tensor
    points: torch.Tensor


METRICS = Registry("metric")


def metric(
    name: str,
    *,
    family: str,
    better: str,
    range: tuple[float | None, float | None],
    passes: str,
    degenerate: float | None = None,
    undefined: str = "the formula has no value here",
    values: str = "same",
    **details: Any,
) -> Callable[[Callable], Callable]:
    """Registers a function of quantities under `name`: `(N,)` float64 values, or a `Curve`.

    Args:
        family: one of `FAMILIES`.
        better: `high` or `low`.
        range: lowest and highest value, None where there is no bound.
        passes: network passes for each image, in terms of the options.
        degenerate: the stated value for a map that is constant or not finite, NaN included; None: what the formula
            gives for a map of zeros. Never the best value.
        undefined: one phrase, why a value is NaN.
        values: of a network of values (`output="value"`): `same` where no probability enters, `units` where the metric
            is then in units of the value (of infidelity: their squares) and has no bounds, else one phrase, why it has
            no meaning; it is then refused by name.
        details: `aliases`, `source`; `mosaics=True` for a metric that means something on mosaics alone.
    """
    if better not in BETTER:
        raise InvalidInput(f"`better` must be 'high' or 'low'. Got {better!r}.")
    if family not in FAMILIES:
        raise InvalidInput(f"`family` must be one of {', '.join(FAMILIES)}. Got {family!r}.")
    filed = METRICS.register(
        name,
        family=family,
        better=better,
        range=range,
        passes=passes,
        degenerate=degenerate,
        undefined=undefined,
        values=values,
        **details,
    )

    def checked(function: Callable) -> Callable:
        made = filed(function)
        needs = METRICS[name].needs
        if others := set(needs) - belonging(needs, "pair") - {"maps"} if belonging(needs, "pair") else set():
            METRICS.remove(name)
            raise InvalidInput(
                f"A metric of pairs may name {', '.join(sorted(PAIRED))} and `maps`. "
                f"{name!r} names {min(others)!r} too."
            )
        return made

    return checked


def composite(
    name: str,
    *,
    parts: Mapping[str, str],
    better: str,
    range: tuple[float | None, float | None],
    **details: Any,
) -> Callable[[Callable], Callable]:
    """Registers a function of other metrics' values under `name`: it needs rows, and no network.

    Args:
        parts: parameter → the spelling of the metric whose values it gets, `(N,)` float64.
    """
    given = {"family": "composite", "passes": "those of its parts", "degenerate": None, "values": "same", **details}
    given.setdefault("undefined", "a part of it has no value")
    return METRICS.register(
        name, vocabulary={part: f"values of `{spelling}`, (N,)" for part, spelling in parts.items()},
        parts=dict(parts), better=better, range=range, **given,
    )  # fmt: skip


def stated(entry_degenerate: float | None, values: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
    """The values, with the stated one where a map is constant or not finite."""
    if entry_degenerate is None:
        return values
    return torch.where(constant, torch.full_like(values, entry_degenerate), values)


def bounds(declared: tuple[float | None, float | None]) -> tuple[float, float]:
    """The range with infinities in place of None."""
    low, high = declared
    return (-math.inf if low is None else low, math.inf if high is None else high)

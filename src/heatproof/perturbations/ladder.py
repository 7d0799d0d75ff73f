"""The table of perturbations and their ladders: which strength a severity means, between 1–5 and beyond."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from heatproof.errors import InvalidInput
from heatproof.registry import Registry

PERTURBATIONS = Registry("perturbation")

#: The severities that every kind has.
SEVERITIES = (1, 2, 3, 4, 5)

#: The highest severity to which calibration may extrapolate the table.
HIGHEST = 10.0

Ladder = Mapping[str, Sequence[float]]


def perturbation(
    name: str,
    *,
    ladder: Ladder,
    unit: str,
    identity: Mapping[str, float] | None = None,
    limit: Mapping[str, float] | None = None,
    whole: Iterable[str] = (),
    unit_size: float = 1.0,
    attack: bool = False,
    default: bool = False,
    aliases: Iterable[str] = (),
    source: str = "",
) -> Callable:
    """Decorator: registers a perturbation with its ladder.

    `ladder` gives five values for each strength option, the main one first; `identity` the value at which
    nothing happens (0 where not named), `limit` the largest that has a meaning, `whole` the options that are
    rounded to whole numbers. Strengths are reported in `unit`, which is `unit_size` of the option (an ε of
    1/255 is 1 in the unit "1/255").

    Raises InvalidInput for a ladder that does not fit the function's options.
    """

    def file(function: Callable) -> Callable:
        options = getattr(function, "__kwdefaults__", None) or {}
        for option, values in ladder.items():
            if option not in options or len(values) != len(SEVERITIES):
                raise InvalidInput(
                    f"The ladder of {name!r} must give {len(SEVERITIES)} values for keyword-only options "
                    f"({', '.join(options) or 'it has none'}). Got {option!r}: {tuple(values)}."
                )
        rungs = tuple({k: float(v[i]) for k, v in ladder.items()} for i in range(len(SEVERITIES)))
        return PERTURBATIONS.register(
            name,
            aliases=aliases,
            source=source,
            ladder=rungs,
            identity={option: (identity or {}).get(option, 0.0) for option in ladder},
            limit=dict(limit or {}),
            whole=tuple(whole),
            main=next(iter(ladder)),
            unit=unit,
            unit_size=unit_size,
            attack=attack,
            default=default,
        )(function)

    return file


def default_kinds() -> tuple[str, ...]:
    """The eight kinds a study takes when none are named, in the order of the table."""
    return tuple(name for name, entry in PERTURBATIONS.items() if entry.traits["default"])


def checked_severity(severity: float, *, extrapolate: bool = False) -> float:
    """The severity as a float: 0–5, or 0–10 with `extrapolate`. Raises InvalidInput for anything else."""
    top = HIGHEST if extrapolate else float(SEVERITIES[-1])
    if (
        isinstance(severity, bool) or not isinstance(severity, Real) or not (0 <= severity <= top)  # NaN fails too
    ):
        beyond = f" (or up to {HIGHEST:g} here)" if extrapolate else ""
        raise InvalidInput(
            f"`severity` must be one of {SEVERITIES[0]}–{SEVERITIES[-1]}{beyond}; 0 leaves the image as it "
            f"is, numbers between are interpolated. Got {severity!r}."
        )
    return float(severity)


def settings_at(kind: str, severity: float, *, extrapolate: bool = False) -> dict[str, float]:
    """The strength options of `kind` at a severity.

    At 1–5 the table's values, linear between them and down to the identity at 0 (where the identity is
    infinite, as for the photon count of `shot`, the reciprocal is linear). Above 5, with `extrapolate`, each
    option goes on growing (or shrinking) by the factor of its last rung, so that it keeps its sign.
    """
    entry, _ = PERTURBATIONS.parse(kind)
    level = checked_severity(severity, extrapolate=extrapolate)
    rungs, traits = entry.traits["ladder"], entry.traits
    settings = {}
    for option in rungs[0]:
        value = _value(level, [rung[option] for rung in rungs], traits["identity"][option])
        value = min(value, traits["limit"].get(option, math.inf))
        settings[option] = float(round(value)) if option in traits["whole"] else value
    return settings


def strength_at(kind: str, severity: float, *, extrapolate: bool = False) -> float:
    """The main strength option at a severity, in the kind's unit: the number in the result rows."""
    entry, _ = PERTURBATIONS.parse(kind)
    value = settings_at(kind, severity, extrapolate=extrapolate)[entry.traits["main"]]
    # Fourteen digits: .125/255 divided by 1/255 must read .125 again.
    return float(f"{value / entry.traits['unit_size']:.14g}")


def within(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """`value`, if it lies in [low, high]. Raises InvalidInput otherwise."""
    if not isinstance(value, Real) or not (low <= float(value) <= high):
        bounds = f"at least {low:g}" if math.isinf(high) else f"in [{low:g}, {high:g}]"
        raise InvalidInput(f"`{name}` must be {bounds}. Got {value!r}.")
    return float(value)


def _value(level: float, values: Sequence[float], identity: float) -> float:
    """One option's ladder as a continuous function of the level."""
    if level == 0:
        return identity
    if level in SEVERITIES:
        return values[int(level) - 1]
    if level < 1:
        return values[0] / level if math.isinf(identity) else identity + level * (values[0] - identity)
    if level > SEVERITIES[-1]:
        return values[-1] * (values[-1] / values[-2]) ** (level - SEVERITIES[-1])
    below = int(level)
    return values[below - 1] + (level - below) * (values[below] - values[below - 1])

"""Tables as the page shows them: plain text in cells, marks with a reason, percent where a share is meant."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heatproof.report.frames import Frame
from heatproof.statistics.verdict import Verdict

NONE = "–"
#: Quantities as the page writes them.
NAMES = {"rm": "RM", "rm0": "RM₀", "rbo": "RBO", "kappa": "κ"}


@dataclass(frozen=True)
class Line:
    """One row of a sheet; `control` greys it."""

    cells: tuple[str, ...]
    control: bool = False


@dataclass(frozen=True)
class Sheet:
    """A plain table: header, rows, and which columns hold words (set left)."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Line, ...]
    texts: frozenset[int] = frozenset({0})


def sheet(caption: str, header: Sequence[str], rows: Iterable[Sequence], texts: Collection[int] = ()) -> Sheet:
    """A sheet from rows of ready texts."""
    lines = tuple(Line(tuple(str(cell) for cell in row)) for row in rows)
    return Sheet(caption, tuple(header), lines, frozenset({0, *texts}))


def number(value: float, digits: int = 2) -> str:
    """`0.62`; a dash for NaN; a proper minus sign."""
    if value is None or pd.isna(value):
        return NONE
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def percent(value: float) -> str:
    """A share as percent, with a decimal below one percent."""
    if value is None or pd.isna(value):
        return NONE
    return f"{100 * value:.1f} %" if 0 < value < 0.01 else f"{100 * value:.0f} %"


def probability(p: float) -> str:
    """A p-value as people write it."""
    if p is None or pd.isna(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(low: float, high: float) -> str:
    """`0.55–0.70`, or nothing where there is none."""
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"{number(low)}–{number(high)}" if round(low, 2) >= 0 else f"{number(low)} to {number(high)}"


@dataclass(frozen=True)
class Cell:
    """One method under one perturbation; `value` is None where there is none, with the reason."""

    value: float | None
    text: str = ""
    interval: str = ""
    other: str = ""
    other_interval: str = ""
    mark: bool = False
    reason: str = ""


@dataclass(frozen=True)
class MatrixRow:
    """A method across all perturbations."""

    method: str
    control: bool
    cells: tuple[Cell, ...]
    rank: str = ""
    top: bool = False


@dataclass(frozen=True)
class Matrix:
    """The table a reader looks at first: methods × perturbations, severities pooled."""

    caption: str
    ranked: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[MatrixRow, ...]
    legend: tuple[tuple[str, str], ...]


def matrix(
    table: Frame, methods: Sequence[str], ranks: Mapping[str, float], verdict: Verdict, shown: str = "rm"
) -> Matrix:
    """RM and RM₀ of every method (in the order given) under every perturbation, `shown` the larger of the two.

    `table` is one setting of tables/robustness.csv; `ranks` are average ranks by `shown`, empty without tests.
    """
    pooled = table[table["severity"].astype(str) == "all"]
    kinds = list(dict.fromkeys(pooled["perturbation"]))
    found = {(row.method, row.perturbation): row for row in pooled.itertuples()}
    controls = set(pooled.loc[pooled["control"].astype(bool), "method"])
    rows = tuple(
        MatrixRow(
            method,
            control=method in controls,
            cells=tuple(_cell(found.get((method, kind)), shown) for kind in kinds),
            rank=f"rank {number(ranks[method])}" if method in ranks else "",
            top=method in verdict.top,
        )
        for method in methods
    )
    large, small = (NAMES[name] for name in (shown, _other(shown)))
    flag = {NAMES[name]: " ⚑" if verdict.fooled.get(name) else "" for name in (shown, _other(shown))}
    caption = (
        f"Large: {large}{flag[large]} and its 95 % interval. Small, below: {small}{flag[small]} and its interval. "
    )
    return Matrix(
        caption + "All severities of a perturbation together; 1 is best.",
        f"average rank by {large}" if ranks else "",
        tuple((kind, _flips(pooled, kind)) for kind in kinds),
        rows,
        tuple(_legend(rows, verdict)),
    )


def _other(shown: str) -> str:
    return "rm0" if shown == "rm" else "rm"


def _cell(row: Any, shown: str) -> Cell:
    if row is None:
        return Cell(None, reason="not measured")
    if pd.isna(getattr(row, shown)):
        return Cell(None, reason=_reason(int(row.n), int(row.flips)))
    other = _other(shown)
    span, other_span = (interval(getattr(row, f"{q}_low"), getattr(row, f"{q}_high")) for q in (shown, other))
    value = float(getattr(row, shown))
    return Cell(
        round(min(max(value, 0.0), 1.0), 3),
        number(value),
        span,
        f"{NAMES[other]} {number(getattr(row, other))}",
        other_span,
        mark=not bool(row.reliable),
    )


def _reason(n: int, flips: int) -> str:
    """Why there is no responsiveness, with the count that is too small."""
    if n == 0:
        return "no usable pair"
    if flips <= n - flips:
        return f"only {flips} flips" if flips != 1 else "only 1 flip"
    return f"only {n - flips} held"


def _flips(pooled: Frame, kind: str) -> str:
    rates = pooled.loc[pooled["perturbation"] == kind, "flip_rate"].dropna()
    return f"{percent(rates.iloc[0])} flipped" if len(rates) else ""


def _legend(rows: Sequence[MatrixRow], verdict: Verdict) -> Iterator[tuple[str, str]]:
    cells = [cell for row in rows for cell in row.cells]
    for name in ("rm", "rm0"):
        if verdict.fooled.get(name):
            fakes = ", ".join(verdict.fooled[name])
            yield f"⚑ {NAMES[name]} is fooled", f"by {fakes}: useless on purpose, yet not told from the best method."
    if any(cell.mark for cell in cells):
        yield "†", "fewer than 20 changed or 20 unchanged predictions: unreliable."
    if any(cell.value is None for cell in cells):
        yield NONE, "fewer than 10 changed or 10 unchanged predictions: not computed, count given."
    if any(row.control for row in rows):
        yield "control", "a map that is useless on purpose; it should come last."
    yield "flipped", "share of predictions that the perturbation changed."

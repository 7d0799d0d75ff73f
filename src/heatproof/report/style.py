"""Colours, markers and lines: one style per method in all figures; methods differ in more than colour.

The hues are those of Okabe & Ito 2008 (safe for colour-blind readers) without the yellow, which fades on
paper, and without the black, which is the ink. Controls are grey and dashed whatever their number.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

#: Stand-in colours that the page replaces, so that one drawing fits light, dark and print (`drawing.inline`).
INK, FAINT, LINE = "#1b1f24", "#5f6872", "#d3d7dc"

HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p", "d", "*", "8")
LINES = ("-", (0, (6, 1.5)), (0, (3, 1, 1, 1)))
CONTROL_HUES = ("#7a828b", "#9aa1a9", "#5f6872")
CONTROL_LINES = ((0, (2, 1.6)), (0, (1, 1.4)))

#: The colours of unchanged and changed predictions.
UNCHANGED, CHANGED = "#0072b2", "#d55e00"


@dataclass(frozen=True)
class Style:
    """How one method is drawn; `label`: what it is called, by default its name."""

    color: str
    marker: str
    line: Any
    control: bool = False
    label: str = ""


def styles(
    methods: Sequence[str], controls: Iterable[str], labels: Mapping[str, str] | None = None
) -> dict[str, Style]:
    """A style for every method; real methods take hues in the order given, controls greys."""
    found = _styles(methods, set(controls))
    return {method: replace(look, label=(labels or {}).get(method, "")) for method, look in found.items()}


def _styles(methods: Sequence[str], controls: set[str]) -> dict[str, Style]:
    real = [m for m in methods if m not in controls]
    grey = [m for m in methods if m in controls]
    pairs = list(product(LINES, HUES))  # with the markers, 126 methods differ
    numbered = [(i, *pairs[i % len(pairs)]) for i in range(len(real))]
    looks = [Style(hue, MARKERS[i % len(MARKERS)], line) for i, line, hue in numbered]
    greys = [
        Style(hue, MARKERS[-1 - i % len(MARKERS)], line, control=True)
        for i, (line, hue) in enumerate(product(CONTROL_LINES, CONTROL_HUES))
    ]
    return dict(zip(real, looks, strict=True)) | {m: greys[i % len(greys)] for i, m in enumerate(grey)}

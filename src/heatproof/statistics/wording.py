"""Numbers and lists in the sentences of verdicts."""

from collections.abc import Sequence

import numpy as np


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def number(value: float) -> str:
    """Two decimals, as in 0.31."""
    return "not known" if np.isnan(value) else f"{value:.2f}"


def counted(number: int, noun: str) -> str:
    """`1 image`, `1,200 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

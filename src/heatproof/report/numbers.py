"""Numbers as the page writes them."""

import pandas as pd

from heatproof.statistics.numbers import NONE, number

__all__ = ["NONE", "interval", "number", "percent", "probability", "with_interval"]


def percent(value: float) -> str:
    """A share as percent, with a decimal below one percent."""
    if value is None or pd.isna(value):
        return NONE
    return f"{100 * value:.1f} %" if 0 < value < 0.01 else f"{100 * value:.0f} %"


def probability(p: float) -> str:
    """A p-value with three decimals, or `< 0.001`."""
    if p is None or pd.isna(p):
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(low: float, high: float) -> str:
    """`0.55–0.70`, empty without bounds."""
    if pd.isna(low) or pd.isna(high):
        return ""
    return f"{number(low)}–{number(high)}" if round(low, 2) >= 0 else f"{number(low)} to {number(high)}"


def with_interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """`0.62 (0.55–0.70)`."""
    span = interval(low, high)
    return f"{number(value, digits)} ({span})" if span else number(value, digits)

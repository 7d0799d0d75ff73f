"""A number as pages and tables write it."""

import pandas as pd

#: What stands where there is no number.
NONE = "–"


def number(value: float, digits: int = 2) -> str:
    """`0.62`; a dash for NaN; a proper minus sign."""
    if value is None or pd.isna(value):
        return NONE
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")

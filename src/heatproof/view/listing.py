"""A list of images that is held as short rows: filtered, ordered and cut into pages."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from heatproof.view.interface import BROKEN, PAGE, ListPage, ListRow, Wanted


class Summary(NamedTuple):
    """What the list knows of an image: a row, its probability, and how far its maps lie apart (NaN if unknown)."""

    row: ListRow
    probability: float = math.nan
    apart: float = math.nan


def filtered(every: Sequence[Summary], wanted: Wanted) -> list[ListRow]:
    """The rows that pass all filters, in order."""
    text = wanted.text.strip().lower()
    found = [
        one
        for one in every
        if wanted.filters <= set(one.row.flags) and (not text or text in f"{one.row.name}\n{one.row.predicted}".lower())
    ]
    last = lambda value: (math.isnan(value), value)  # noqa: E731 - what is not known comes last
    if wanted.order == "probability":
        found.sort(key=lambda one: last(one.probability))
    elif wanted.order == "apart":
        found.sort(key=lambda one: last(-one.apart))
    return [one.row for one in found]


def page_of(rows: Sequence[ListRow], of: int, number: int) -> ListPage:
    """A page of some rows; one beyond the end becomes the last."""
    number = max(0, min(number, -(-len(rows) // PAGE) - 1))
    return ListPage(tuple(rows[number * PAGE : (number + 1) * PAGE]), len(rows), of, number)


def neighbour_of(rows: Sequence[ListRow], key: int, step: int) -> tuple[int, int] | None:
    """(key, page) of the row `step` further than that of `key`; the first where `key` is not there."""
    here = next((at for at, row in enumerate(rows) if row.key == key), None)
    position = 0 if here is None else here + step
    return (rows[position].key, position // PAGE) if 0 <= position < len(rows) else None


def usable_filters(every: Sequence[Summary], names: Sequence[str]) -> list[str]:
    """The filters of `names`, and that for broken images where there are any."""
    return [*names, *([BROKEN] if any(BROKEN in one.row.flags for one in every) else [])]

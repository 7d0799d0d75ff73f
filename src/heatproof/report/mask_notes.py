"""Which images have no mask that could be used, or an empty one, in sentences for the page and the terminal."""

from collections.abc import Iterator
from typing import Any

from heatproof.flags import Reason
from heatproof.statistics.wording import counted

#: How flags about masks begin.
REASONS = (Reason.NO_MASK.value, "its mask ")
#: The flag of a mask that marks nothing.
EMPTY = "the mask is empty"
#: The most images that are named.
NAMED = 5


def mask_notes(findings: Any) -> Iterator[str]:
    """For each dataset of which some images have a usable mask, or should have: which have none, how many are empty."""
    which = " OR ".join(f"starts_with(flag, '{reason}')" for reason in REASONS)
    found = findings.rows.execute(
        f"SELECT dataset, image, min(flag) FROM rows WHERE {which} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    counts = dict(findings.rows.execute("SELECT dataset, count(DISTINCT image) FROM rows GROUP BY ALL").fetchall())
    for dataset in dict.fromkeys(row[0] for row in found):
        images = [(image, reason) for name, image, reason in found if name == dataset]
        have = "has" if len(images) == 1 else "have"
        named = "; ".join(f"{image}: {reason}" for image, reason in images[:NAMED])
        more = "The first are " if len(images) > NAMED else ""
        yield (
            f"{len(images)} of {counted(counts[dataset], 'image')} of {dataset} {have} no mask that can be used, and "
            f"count for nothing that needs one. {more}{named}."
        )
    empty = findings.rows.execute(
        f"SELECT dataset, count(DISTINCT image) FROM rows WHERE flag = '{EMPTY}' GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    for dataset, count in empty:
        yield (
            f"{count} of {counted(counts[dataset], 'image')} of {dataset} {'has' if count == 1 else 'have'} a mask "
            "that marks nothing. Whether maps point at the object is judged on the others alone."
        )

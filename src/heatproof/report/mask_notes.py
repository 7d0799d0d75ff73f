"""Which images have no mask that could be used, in a sentence for the page and the terminal."""

from collections.abc import Iterator
from typing import Any

from heatproof.flags import Reason
from heatproof.statistics.wording import counted

#: How flags about masks begin.
REASONS = (Reason.NO_MASK.value, "its mask ")


def mask_notes(findings: Any) -> Iterator[str]:
    """For each dataset of which some images have a usable mask, or should have: how many have none, and the first."""
    which = " OR ".join(f"starts_with(flag, '{reason}')" for reason in REASONS)
    found = findings.rows.execute(
        f"SELECT dataset, image, min(flag) FROM rows WHERE {which} GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    counts = dict(findings.rows.execute("SELECT dataset, count(DISTINCT image) FROM rows GROUP BY ALL").fetchall())
    for dataset in dict.fromkeys(row[0] for row in found):
        images = [(image, reason) for name, image, reason in found if name == dataset]
        image, reason = images[0]
        have = "has" if len(images) == 1 else "have"
        yield (
            f"{len(images)} of {counted(counts[dataset], 'image')} of {dataset} {have} no mask that can be used, and "
            f"count for nothing that needs one. The first is {image}: {reason}."
        )

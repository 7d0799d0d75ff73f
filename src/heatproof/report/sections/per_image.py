"""Image by image: on which images the recommended map may be shown, by what rule, and why not."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from heatproof.report.blocks import Details, Heading, Legend, Section, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.numbers import number, percent
from heatproof.report.places import places
from heatproof.statistics.audit_answers import AuditFindings
from heatproof.statistics.audit_images import HIDE, RULES, SHOW, WARN, ImageDecisions
from heatproof.statistics.wording import counted

#: The most images that the page lists.
LISTED = 60
TABLE = "All images and methods are in tables/per_image.csv."
RULE = (
    "An image gets the worst decision that one of these reasons gives; without any it is “show”. The rule uses what "
    "was measured on that image, so it says nothing of an image that was not in the audit, but for the threshold on "
    "the probability."
)


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and dataset."""
    for place, (one, images) in places(findings.audited, lambda pair: (pair[0].model, pair[0].dataset)):
        if len(images.table):
            yield place.section(
                "per_image", "Image by image", "Each image", place.where, blocks=list(_blocks(one, images))
            )


def _blocks(one: AuditFindings, images: ImageDecisions) -> Iterator[Any]:
    named = one.recommended or next(iter(one.findings))
    rows = images.of(named)
    counts = rows["decision"].value_counts()
    told = ", ".join(f"{decision}: {int(counts.get(decision, 0))}" for decision in (SHOW, WARN, HIDE))
    of = "" if one.recommended else f" No method is recommended; {named} is nearest."
    yield Text(f"{named} on {counted(len(rows), 'image')}: {told}.{of} {TABLE}")
    reasons = Counter(_kind(reason) for text in rows["reason"] for reason in text.split("; ") if reason)
    if reasons:
        yield sheet("How often each reason was given", ("reason", "images"), _lines(reasons, len(rows)), {0})
    yield Heading("The rule")
    yield Text(RULE)
    yield Legend([(f"{decision}:", f"{when}.") for decision, when in RULES])
    order = rows.assign(hard=rows["decision"].map({HIDE: 0, WARN: 1, SHOW: 2}))
    order = order.sort_values(["hard", "image"], kind="stable").head(LISTED)
    first = f", the first {LISTED}" if len(rows) > LISTED else ""
    header = ("image", "decision", "why", "predicted", "probability", "likeness under mild noise (RBO)")
    lines = [
        (row.image, row.decision, row.reason or "–", row.predicted, percent(row.probability), number(row.likeness))
        for row in order.itertuples()
    ]
    listing = sheet(f"Each image with the map of {named}{first}", header, lines, {1, 2, 3})
    yield Details(f"Each image{first}", [listing], long=len(lines) > LISTED // 2)


def _kind(reason: str) -> str:
    """A reason without its numbers, so that equal ones are counted together."""
    return reason.partition(" (")[0].partition(" by ")[0].partition(": ")[0]


def _lines(reasons: Counter[str], of: int) -> Iterator[tuple[str, str]]:
    for reason, count in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])):
        yield reason, f"{count} of {of}"

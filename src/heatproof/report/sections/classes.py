"""Scores by the class explained, where several classes of each image are."""

from collections.abc import Iterator
from typing import Any

from heatproof.report.blocks import Details, Section, Sheet, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.numbers import number, with_interval
from heatproof.report.places import places
from heatproof.statistics.score_tables import ARROWS

TEXT = (
    "Means over the images that were explained for a class, with the 95 % interval by image. The tables above hold for "
    "each image the mean over its classes. Classes with few images come last and say little."
)
#: The most classes on the page; tables/classes.csv has all.
MOST = 20


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and dataset; none where one class of each image is explained."""
    scores = findings.scores
    for place, one in places(scores.settings if scores and findings.plan.get("pooled_targets") else ()):
        table = findings.class_scores
        here: Any = table[(table["model"] == one.setting.model) & (table["dataset"] == one.setting.dataset)]
        if len(here):
            blocks = [Text(TEXT), *_sheets(findings, here)]
            yield place.section("classes", "The scores by class", "Classes", blocks=blocks, words=("Control",))


def _sheets(findings: Findings, here: Any) -> Iterator[Sheet | Details]:
    """A table for each metric, classes below each other; all but the first folded."""
    assert findings.scores is not None
    order = list(dict.fromkeys(here["class_index"]))[:MOST]
    methods = [method for method in findings.scores.methods if method not in findings.controls]
    for position, metric in enumerate(metric for metric in findings.scores.metrics if metric in set(here["metric"])):
        rows = here[here["metric"] == metric]
        cells = {(row.class_index, row.method): row for row in rows.itertuples()}
        names = dict(zip(rows["class_index"], rows["class"], strict=True))
        lines = []
        for index in order:
            found = [cells.get((index, method)) for method in methods]
            count = max((row.n for row in found if row is not None), default=0)
            means = (with_interval(row.mean, row.low, row.high) if row is not None else number(float("nan"))
                     for row in found)  # fmt: skip
            lines.append((names[index] or str(index), str(count), *means))
        way = ARROWS.get(str(rows["better"].iloc[0]), "")
        made = sheet(f"{metric} {way}", ("class", "images", *methods), lines)
        yield Details(f"{metric} by class", [made]) if position else made

"""The scores against the network's confidence: small panels, and the correlations within each method."""

from collections.abc import Iterator
from typing import Any

from heatproof.report.blocks import Details, Drawing, Figures, Section, Sheet, Text, sheet
from heatproof.report.condition_figures import confidence_figure
from heatproof.report.condition_findings import ConditionFindings, ConditionSetting
from heatproof.report.findings import Findings
from heatproof.report.legend import legend_figure
from heatproof.report.numbers import NONE, interval, number
from heatproof.report.places import places

FIGURE = (
    "Each score against the probability that the network gives the class explained, on the images as they are: means "
    "over images of like probability (every image by itself, where they are few). A score that only follows the "
    "probability has the same curve for all methods, controls included."
)
TABLE = (
    "Spearman's correlation of each score with that probability over the images, within each method, with the 95 % "
    "bootstrap interval by image. Intervals are not corrected for their number. A dash: all images have one value, or "
    "there are fewer than three."
)


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and dataset with probabilities."""
    found = findings.conditions
    for place, one in places(found.settings if found else ()):
        assert found is not None
        if not len(one.bins):
            continue
        yield place.section(
            "confidence",
            "Do the scores follow the confidence?",
            "Confidence",
            blocks=list(_blocks(findings, found, one, place.suffix)),
            words=("Score (metric)", "Control", "95 % interval"),
        )


def _blocks(findings: Findings, found: ConditionFindings, one: ConditionSetting, suffix: str) -> Iterator[Any]:
    yield Text(f"{one.setting.model} · {one.setting.dataset}", "kind")
    bins = one.bins[one.bins["target"] == one.target]
    metrics = [metric for metric in found.metrics if metric in set(bins["metric"])]
    methods, looks = found.methods, findings.looks

    def panel(metric: str) -> Any:
        return lambda: confidence_figure(bins, [metric], methods, looks, columns=1, key=False)

    if metrics:
        yield Figures([
            Drawing(
                f"confidence{suffix}",
                FIGURE,
                lambda: confidence_figure(bins, metrics, methods, looks),
                {metric: panel(metric) for metric in metrics},
                lambda: legend_figure(methods, looks),
            )
        ])  # fmt: skip
    yield Text(TABLE)
    targets = list(dict.fromkeys(one.confidence["target"]))
    sheets = [_sheet(found, one.confidence[one.confidence["target"] == target], target) for target in targets]
    yield from sheets[:1]
    if sheets[1:]:
        yield Details("The other classes explained", sheets[1:])


def _sheet(found: ConditionFindings, table: Any, target: str) -> Sheet:
    metrics = [metric for metric in found.metrics if metric in set(table["metric"])]
    cells = {(row.method, row.metric): row for row in table.itertuples()}
    lines = [(method, *(_cell(cells.get((method, metric))) for metric in metrics)) for method in found.methods]
    return sheet(f"Class explained: {target}", ("method", *metrics), lines, controls=found.controls)


def _cell(row: Any) -> str:
    if row is None or row.spearman != row.spearman:
        return NONE
    span = interval(row.low, row.high)
    return f"{number(row.spearman)} ({span})" if span else number(row.spearman)

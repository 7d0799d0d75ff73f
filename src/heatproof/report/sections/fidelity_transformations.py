"""The scores on transformed images: a figure, what differs from the images as they are, orders, and fooled scores."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from heatproof.report.blocks import Details, Drawing, Figures, Heading, Section, Sheet, Text, sheet
from heatproof.report.condition_figures import transformations_figure
from heatproof.report.condition_findings import ConditionFindings, ConditionSetting
from heatproof.report.findings import Findings
from heatproof.report.legend import legend_figure
from heatproof.report.numbers import NONE, number, probability
from heatproof.report.places import places
from heatproof.statistics.condition_scores import POOLED
from heatproof.statistics.wording import number as signed

FIGURE = (
    "Mean of each score on the images as they are (left), and under every variant of each transformation, for the same "
    "class. Every method sees the very same images. Controls are grey and dashed."
)
CHANGES = (
    "How much each score changes under a transformation: the mean of the differences to the same images as they are, "
    "where an image's score is its mean over all variants. * p < 5 % by Wilcoxon's test, paired by image, corrected "
    "by Holm for all methods and transformations of a score (controls apart)."
)
ORDERS = (
    "Is the order of the methods the same under other conditions? Kendall's W of the orders of their means, 1 where "
    "all conditions have the same order; in brackets the central 95 % of W over images drawn anew. These lie mostly "
    "below W, as the means of drawn images are noisier. With fewer than three methods or ten images neither W nor "
    "Friedman's test is computed. Controls are left out. Beside it: under how "
    "many conditions Friedman's test finds a difference between methods at all (5 %, corrected by Holm for the "
    "conditions): where it finds none, an order may be chance."
)
FOOLED = (
    "The controls that are not significantly worse than the best method, by score and condition (Wilcoxon's test "
    "paired by image, Holm over the controls). A dash: none; ?: too few images to tell."
)


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and dataset."""
    found = findings.conditions
    for place, one in places(found.settings if found else ()):
        assert found is not None
        yield place.section(
            "conditions",
            "Do the scores hold under other conditions?",
            "Conditions",
            blocks=list(_blocks(findings, found, one, place.suffix)),
            words=("Score (metric)", "Control", "Fooled (⚑)", "95 % interval", "Friedman, Kendall's W"),
        )


def _blocks(findings: Findings, found: ConditionFindings, one: ConditionSetting, suffix: str) -> Iterator[Any]:
    yield Text(f"{one.setting.model} · {one.setting.dataset}", "kind")
    if len(one.transformations):
        yield Figures([_figure(findings, found, one, suffix)])
        yield Heading("What differs from the images as they are")
        yield Text(CHANGES)
        yield from _changes(found, one)
    if len(one.rankings):
        yield Heading("Does the order of the methods hold?")
        yield Text(ORDERS)
        yield _orders(one)
    if len(one.fooled) and found.controls:
        yield Heading("Which scores are fooled where")
        yield Text(FOOLED)
        yield Details("Controls by score and condition", [_fooled(one)])


def _figure(findings: Findings, found: ConditionFindings, one: ConditionSetting, suffix: str) -> Drawing:
    clean = one.targets[one.targets["target"] == one.target]
    metrics = [metric for metric in found.metrics if metric in set(one.transformations["metric"])]
    methods, looks = found.methods, findings.looks

    def panel(metric: str) -> Any:
        return lambda: transformations_figure(
            one.transformations, clean, [metric], methods, looks, columns=1, key=False
        )

    return Drawing(
        f"transformations{suffix}",
        FIGURE,
        lambda: transformations_figure(one.transformations, clean, metrics, methods, looks),
        {metric: panel(metric) for metric in metrics},
        lambda: legend_figure(methods, looks),
    )


def _changes(found: ConditionFindings, one: ConditionSetting) -> Iterator[Any]:
    """For each score a sheet of methods × transformations; the first is open."""
    pooled = one.transformations[one.transformations["variant"] == POOLED]
    if not pooled["able"].any():
        yield Text("The images are too few for any of these tests to be significant.")
    sheets = [_change_sheet(found, pooled[pooled["metric"] == metric], metric) for metric in found.metrics]
    shown = [each for each in sheets if each.rows]
    yield from shown[:1]
    if shown[1:]:
        yield Details("The other scores", shown[1:], long=True)


def _change_sheet(found: ConditionFindings, rows: Any, metric: str) -> Sheet:
    kinds = list(dict.fromkeys(rows["transformation"]))
    cells = {(row.method, row.transformation): row for row in rows.itertuples()}
    lines = []
    for method in [method for method in found.methods if any((method, kind) in cells for kind in kinds)]:
        known = [cells[method, kind] for kind in kinds if (method, kind) in cells]
        clean = next((number(row.clean, 3) for row in known if row.clean == row.clean), NONE)
        lines.append((method, clean, *(_change(cells.get((method, kind))) for kind in kinds)))
    better = {"high": "higher is better", "low": "lower is better"}.get(
        str(found.facts.get(metric, {}).get("better")), ""
    )
    return sheet(f"{metric} ({better})", ("method", "as is", *kinds), lines, controls=found.controls)


def _change(row: Any) -> str:
    if row is None or row.change != row.change:
        return NONE
    sign = "+" if row.change > 0 else ""
    return f"{sign}{number(row.change, 3)}{' *' if row.differs else ''}"


def _orders(one: ConditionSetting) -> Sheet:
    table, lines = one.rankings, []
    for metric in dict.fromkeys(table["metric"]):
        here = table[table["metric"] == metric]
        tests = here[here["test"] == "friedman"]
        sure = int((tests["p_holm"] < 0.05).sum())
        reference: Any = tests[(tests["target"] == one.target) & (tests["transformation"] == "")]
        p, order = (reference["p_holm"].iloc[0], reference["order"].iloc[0]) if len(reference) else (math.nan, NONE)
        agreed = (_w(here[here["test"] == f"kendall-{name}"]) for name in ("targets", "transformations"))
        lines.append((metric, *agreed, f"{sure} of {len(tests)}", probability(p), str(order).replace("; ", " > ")))
    header = ("score", "W over classes", "W over transformations", "Friedman significant", "p as is", "order as is")
    return sheet("Agreement of conditions on the order of the methods", header, lines, {5})


def _w(rows: Any) -> str:
    if not len(rows) or rows["w"].isna().all():
        return NONE
    row = rows.iloc[0]
    span = "" if row["low"] != row["low"] else f" ({signed(row['low'])} to {signed(row['high'])})"
    return f"{signed(row['w'])}{span}"


def _fooled(one: ConditionSetting) -> Sheet:
    table = one.fooled
    conditions: Sequence[tuple[str, str]] = list(
        dict.fromkeys(table[["target", "transformation"]].itertuples(index=False, name=None))
    )
    cells = {(row.metric, row.target, row.transformation): row for row in table.itertuples()}
    metrics = list(dict.fromkeys(table["metric"]))
    lines = [
        (turned or f"class {target}", *(_fools(cells.get((metric, target, turned))) for metric in metrics))
        for target, turned in conditions
    ]
    return sheet("Controls that fool a score", ("condition", *metrics), lines, set(range(1, len(metrics) + 1)))


def _fools(row: Any) -> str:
    if row is None or not row.tested:
        return "?"
    return row.fooled_by or NONE

"""Which metrics agree with the ground truth, which controls fool them, and which read the order of pixels alone."""

from collections.abc import Iterator, Sequence
from typing import Any

from heatproof.report.blocks import Details, Drawing, Figures, Heading, Legend, Section, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.numbers import number, percent, probability, with_interval
from heatproof.report.places import places
from heatproof.report.validity_figures import HEADINGS, validity_figure
from heatproof.report.validity_findings import SettingValidity
from heatproof.statistics.fooled_matrix import BOTH, BY_MEANS, BY_RANKS, FOOLED, UNTESTED, FooledCell
from heatproof.statistics.paired import is_worse
from heatproof.statistics.special_rows import TRUTH
from heatproof.statistics.validity import PEARSON, SPEARMAN, WAYS, WITHIN
from heatproof.statistics.wording import LEARNT

INTRODUCTION = (
    "The images say which pixels decide their class. The cosine of a map with that mask is its agreement with the "
    "ground truth. A metric that can be believed ranks maps as this cosine does, without seeing the mask. Correlations "
    "have the sign of a good metric: 1 is the same order, 0 none, −1 the reverse. Only images that the network "
    "classifies right are used."
)
FIGURE = (
    "Correlation of each metric with the ground truth, with 95 % bootstrap intervals by image: over all points of "
    "image and method, over the methods of each image (mean over the images), and of the means of the methods. Grey "
    "names are fooled by a control, or read the ground truth themselves."
)
MARKS = {BOTH: "✓", BY_RANKS: "✓ ranks only", BY_MEANS: "✓ means only", FOOLED: "⚑ fooled", UNTESTED: "?"}
MATRIX_LEGEND = (
    (
        "✓",
        "the control is worse than the best method, by a test of ranks (Wilcoxon) and by a test of means (the signs of "
        "the differences are permuted)",
    ),
    (
        "✓ ranks only, ✓ means only",
        "by one of them: scores that are mostly 0 defeat ranks, a few wild values defeat means",
    ),
    ("⚑ fooled", "by neither: the metric cannot tell the best method from a map that is useless on purpose"),
    ("⚑ the control is better", "by both tests: the metric prefers the useless map to the best method"),
    ("?", "too few images for a test"),
)
RESCALED = (
    "The same maps raised to a power: the pixels keep their order, and the map looks sharper or flatter. A metric that "
    "does not move reads the order alone. Whether a map is as sharp as the object, it cannot say (paper R, Figure 4)."
)
KNOWN_GOOD = (
    "The ground truth itself, scored as if it were a map: a metric that puts a method above it, significantly, rewards "
    "something else than the object, or the network needs only a part of the object."
)


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and dataset."""
    found = findings.validity
    for place, one in places(found.settings if found else ()):
        yield place.section(
            "validity",
            "Can the metrics be believed?",
            "Metrics",
            blocks=[*_blocks(one, place.suffix), *(_models(findings) if place.last else ())],
            answers=[place.answer(one.verdict)],
            warnings=list(_warnings(one, place.where)),
            words=("Score (metric)", "Control", "Fooled (⚑)", "95 % interval"),
        )


def _warnings(one: SettingValidity, where: str) -> Iterator[str]:
    if not one.verdict.applies:
        yield (
            f"{where}: {percent(one.accuracy or 0)} of the images are classified right, {percent(LEARNT)} are needed. "
            "The ground truth does not apply to a network that has not learnt it; the numbers below say nothing of "
            "metrics. `heatproof fit` trains a network on such images."
        )


def _blocks(one: SettingValidity, suffix: str) -> Iterator[Any]:
    known = "accuracy not known" if one.accuracy is None else f"{percent(one.accuracy)} classified right"
    yield Text(f"{one.setting.model} · {one.setting.dataset} · {known}", "kind")
    yield Text(INTRODUCTION)
    order = ordered_metrics(one)
    faint = [metric for metric in order if metric in one.verdict.fooled or metric in one.seeing]
    if order:
        yield Figures(
            [Drawing(f"validity{suffix}", FIGURE, lambda: validity_figure(one.validity.table, order, faint))], "wide"
        )
        yield _correlations(one, order, SPEARMAN)
        yield Details("Pearson's correlation", [_correlations(one, order, PEARSON)])
    controls = list(dict.fromkeys(cell.control for cell in one.cells))
    if controls:
        yield Heading("Which control fools which metric?")
        yield _matrix(one, order, controls)
        yield Legend(list(MATRIX_LEGEND))
    if one.truth:
        yield Heading("Is the ground truth itself scored best?")
        yield Text(KNOWN_GOOD)
        yield _known_good(one, order)
    if one.rescalings:
        yield Heading("Which metrics read the order of the pixels alone?")
        yield Text(RESCALED)
        yield _rescaled(one)


def ordered_metrics(one: SettingValidity) -> list[str]:
    """The metrics by their rank correlation within images, best first; those that read the ground truth come last."""
    values = {m: one.validity.value(m)["value"] for m in dict.fromkeys(one.validity.table["metric"])}
    return sorted(values, key=lambda m: (m in one.seeing, -values[m] if values[m] == values[m] else 2, m))


def _correlations(one: SettingValidity, order: Sequence[str], coefficient: str) -> Any:
    lines = []
    for metric in order:
        cells = [one.validity.value(metric, way, coefficient) for way in WAYS]
        figures = [with_interval(cell["value"], cell["low"], cell["high"]) for cell in cells]
        spread = one.validity.value(metric, WITHIN, coefficient)["std"]
        why = _why_not(cells)
        told = why or ("reads the ground truth" if metric in one.seeing else "")
        lines.append((metric, *figures, number(spread), _counts(cells), told))
    header = ("metric", *(HEADINGS[way] for way in WAYS), "std over images", "images of each number", "")
    return sheet(f"{coefficient.capitalize()}'s correlation with the ground truth", header, lines, {5, 6})


def _counts(cells: Sequence[Any]) -> str:
    """The images of each number, once where they are the same."""
    counts = [str(int(cell["images"])) for cell in cells]
    return counts[0] if len(set(counts)) == 1 else " · ".join(counts)


def _why_not(cells: Sequence[Any]) -> str:
    """Why numbers are missing; of which, where some are there."""
    missing = {str(cell["way"]): str(cell["why"]) for cell in cells if cell["why"]}
    if len(missing) == len(cells) and len(set(missing.values())) == 1:
        return next(iter(missing.values()))
    return "; ".join(f"{HEADINGS[way]}: {why}" for way, why in missing.items())


def _matrix(one: SettingValidity, order: Sequence[str], controls: Sequence[str]) -> Any:
    cells = {(cell.metric, cell.control): cell for cell in one.cells}
    metrics = [m for m in order if any((m, control) in cells for control in controls)]
    lines = [
        (metric, one.rankings[metric].best or "–", *(_mark(cells.get((metric, control))) for control in controls))
        for metric in metrics
    ]
    texts = set(range(1, 2 + len(controls)))
    return sheet("Metric × control, held against the best method", ("metric", "best method", *controls), lines, texts)


def _mark(cell: FooledCell | None) -> str:
    if cell is None:
        return "–"
    if cell.verdict in (BOTH, UNTESTED):
        return MARKS[cell.verdict]
    if cell.ahead:
        return "⚑ the control is better"
    return f"{MARKS[cell.verdict]} (p {probability(cell.p_ranks)} / {probability(cell.p_means)})"


def _known_good(one: SettingValidity, order: Sequence[str]) -> Any:
    lines = []
    for metric in (m for m in order if m in one.truth):
        test, ranking = one.truth[metric], one.rankings[metric]
        told = "above the best method" if is_worse(test.turned, ranking.level) else (
            "below the best method" if is_worse(test, ranking.level) else "cannot be told from it")  # fmt: skip
        means = number(one.truth_means[metric], 3), number(ranking.means[str(ranking.best)], 3)
        lines.append((metric, *means, str(ranking.best), told, probability(test.p_holm), str(test.n)))
    header = ("metric", "ground truth", "best method", "", "the ground truth is", "p (Holm)", "images")
    return sheet("The ground truth as a map", header, lines, {3, 4})


def _rescaled(one: SettingValidity) -> Any:
    lines = [
        (r.metric, r.method, r.arm, number(r.plain, 3), number(r.rescaled, 3), number(r.most, 3), percent(r.same))
        for r in sorted(one.rescalings, key=lambda r: (r.metric != TRUTH, not r.blind))
    ]
    header = ("metric", "map", "rescaled", "mean", "mean, rescaled", "largest change", "images without a change")
    return sheet("Scores of a map and of its rescaling", header, lines, {1, 2})


def _models(findings: Findings) -> Iterator[Any]:
    table = findings.validity.models if findings.validity else None
    if table is None or not len(table):
        return
    yield Heading("Over the networks")
    yield Text("Mean ± standard deviation over the networks of each correlation, as in paper R.")
    lines = [
        (row.metric, row.dataset, row.way, row.coefficient, f"{number(row.mean)} ± {number(row.std)}", str(row.models))
        for row in table.itertuples()
    ]
    yield sheet("Correlation over the networks", ("metric", "images", "way", "coefficient", "mean ± std", "networks"),
                lines, {1, 2, 3})  # fmt: skip

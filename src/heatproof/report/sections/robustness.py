"""The robustness of each method under noise, for every model and dataset: the table, figures, tests, all numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from markupsafe import Markup

from heatproof.report import robustness_figures as figures
from heatproof.report.blocks import (
    Answer,
    Details,
    Drawing,
    Figures,
    Heading,
    Legend,
    Section,
    Sheet,
    SheetRow,
    Text,
    sheet,
)
from heatproof.report.comparisons import WORDS, Tested, comparison_blocks
from heatproof.report.findings import Findings
from heatproof.report.frames import Frame, left_out
from heatproof.report.legend import legend_figure
from heatproof.report.numbers import NONE, interval, number, percent, with_interval
from heatproof.report.places import places
from heatproof.report.references import reference_blocks
from heatproof.report.robustness_findings import BLOCKS, RobustnessFindings, RobustnessSetting
from heatproof.statistics.reference_tests import reference_sentence
from heatproof.statistics.robustness_sentence import NAMES as VERDICT_NAMES
from heatproof.statistics.robustness_tables import FOOLS
from heatproof.statistics.robustness_verdict import Verdict

#: Quantities as the page writes them.
NAMES = {"rm": "RM", "rm0": "RM₀", "rbo": "RBO"}
#: The question that the tests by each quantity answer.
ASKS = {
    "rm": "Does the map stay while the prediction stays, and change when it changes?",
    "rm0": "The same with chance taken out: does the map do so more than a map that ignores the image?",
    "rbo": "Only: does the map stay while the prediction stays? A map that always stays comes first here.",
}
INTRODUCTION = Markup(
    "RM, the robustness metric, measures two properties of a heatmap at once: does it <b>stay</b> when the prediction "
    "stays (consistency), and does it <b>change</b> when the prediction changes (responsiveness)? 1 is best. RM₀ is "
    "the same with chance taken out: 0 means no better than a map that ignores the image. "
    '<a href="#words">All words explained</a>.'
)


def section(findings: Findings) -> Iterator[Section]:
    """All models and datasets together, where there are several; then each."""
    found = findings.robustness
    if found is None:
        return
    if found.overall:
        by = found.together.by if found.together else None
        blocks = list(comparison_blocks(_comparisons(found.overall, "-together", by), findings.looks))
        yield Section("together", "All models and images together", blocks, nav="All together", words=WORDS)
    beside = "scores" in findings.section_names
    for place, setting in places(found.main, lambda one: one):
        yield place.section(
            "result",
            "Robustness of each method",
            "Noise" if beside else "Results",
            "" if beside else place.where,
            blocks=list(_blocks(findings, found, setting, place.suffix)),
            answers=_answers(found, found.verdicts[setting], place.where if place.several else ""),
            words=(
                *("Heatmap", "Perturbation, severity", "RBO (rank-biased overlap)", "Consistency", "Responsiveness"),
                *("RM (robustness metric)", "κ (kappa)", "RM₀", "Within severities", "Control", "Fooled (⚑)"),
                *("95 % interval", "† and –", "PSNR", "Flagged", *WORDS),
            ),
        )


def _comparisons(comparisons: Mapping[str, Any], suffix: str, by: str | None) -> list[Tested]:
    """The tests by each quantity; `by` decides the verdict."""
    return [
        Tested(f"ranks-{q}{suffix}", NAMES[q], BLOCKS[q], one, ASKS[q], decides=q == by, pooled=q != "rbo")
        for q, one in comparisons.items()
    ]


def _blocks(findings: Findings, found: RobustnessFindings, setting: RobustnessSetting, suffix: str) -> Iterator[Any]:
    """The blocks of one setting, with methods sorted by the quantity that decides the verdict."""
    table, verdict = setting.of(found.table), found.verdicts[setting]
    comparisons, shown = found.comparisons[setting], verdict.by or "rm"
    ranks = verdict.equal.spread(comparisons[shown].ranks) if shown in comparisons else {}
    methods = by_rank(found.methods, found.controls, ranks)
    where = f"{setting.model} · layer {setting.layer} · {setting.dataset} · segments by {setting.segmenter}"
    yield Text(where, "kind")
    yield Text(INTRODUCTION)
    if others := left_out(findings.rows):
        yield Text(f"Not in this section, as they change more than the image: {'; '.join(others)}.")
    flips = setting.of(found.flips)
    grid = matrix(table, methods, ranks, verdict, flips, shown)
    yield grid
    yield Legend(list(_legend(grid.rows, verdict)))
    if rests := _deciding_figures(verdict, methods, found.controls):
        yield Heading("What the verdict rests on")
        yield rests
    yield _figures(findings, found, setting, table, methods, suffix)
    yield Heading("Predictions under noise")
    yield _flips(flips, table)
    strengths = _strengths(setting.of(found.strengths))
    yield Details(strengths.caption, [strengths])
    caption = "Share of predictions each perturbation changed."
    yield Figures([Drawing(f"flips{suffix}", caption, lambda: figures.flips_figure(flips))])
    yield from comparison_blocks(_comparisons(comparisons, suffix, verdict.by), findings.looks)
    if verdict.references:
        yield from reference_blocks(found.reference, verdict.references, _reference(found, verdict), NAMES, True)
    every = "All numbers: consistency, responsiveness, RM and RM₀ at every severity"
    yield Details(every, list(_numbers(table, methods, found.controls)), long=True)


def _answers(found: RobustnessFindings, verdict: Verdict, where: str) -> list[Answer]:
    """The sentence on the reference, where there is one."""
    return [Answer(_reference(found, verdict), (), where)] if verdict.references else []


def _reference(found: RobustnessFindings, verdict: Verdict) -> str:
    """The sentence on the reference, by RM, RM₀ and RBO."""
    tests = {NAMES[quantity]: one for quantity, one in verdict.references.items()}
    return reference_sentence(found.reference, tests, verdict.equal)


def by_rank(methods: Sequence[str], controls: frozenset[str], ranks: Mapping[str, float]) -> list[str]:
    """Real methods first, then controls, each by average rank; the plan's order where there is none."""
    order = {method: position for position, method in enumerate(methods)}
    return sorted(methods, key=lambda m: (m in controls, ranks.get(m, math.inf), order[m]))


def _figures(
    findings: Findings,
    found: RobustnessFindings,
    setting: RobustnessSetting,
    table: Frame,
    methods: Sequence[str],
    suffix: str,
) -> Figures:
    looks = findings.looks
    of = {kind: table[table["perturbation"] == kind] for kind in dict.fromkeys(table["perturbation"])}

    def panels(draw: Any) -> dict[str, Any]:
        return {kind: lambda rows=rows: draw(rows, methods, looks, columns=1, key=False) for kind, rows in of.items()}

    shown = [
        Drawing(
            f"robustness{suffix}",
            "RM (filled) and RM₀ (hollow) with 95 % intervals; further right is better. All severities together.",
            lambda: figures.robustness_figure(table, methods, looks),
            panels(figures.robustness_figure),
        ),
        Drawing(
            f"curves{suffix}",
            "Consistency (upper) and responsiveness (lower) as the noise grows; higher is better. The dotted line at "
            "0.5 is a coin toss. Points are missing where too few predictions changed or held; methods with equal "
            "numbers hide each other.",
            lambda: figures.curves_figure(table, methods, looks),
            panels(figures.curves_figure),
            lambda: legend_figure(methods, looks),
        ),
        Drawing(
            f"overlap{suffix}",
            "How alike the clean and the perturbed map are (RBO), where the prediction held and where it changed. A "
            "good method has the two boxes far apart, the upper one to the right. All perturbations and severities.",
            lambda: figures.overlap_figure(found.stored.of_setting(setting).overlaps, methods, looks),
        ),
    ]
    filed = Drawing(f"heatmap{suffix}", "RM of every method", lambda: figures.heatmap_figure(table, methods, looks))
    return Figures(shown, hidden=[filed])


# --- the main table ---


@dataclass(frozen=True)
class MatrixCell:
    """One method under one perturbation; without a value, `value` is None and `reason` says why."""

    value: float | None
    text: str = ""
    interval: str = ""
    other: str = ""
    other_interval: str = ""
    mark: bool = False
    reason: str = ""
    fools: str = ""


@dataclass(frozen=True)
class MatrixRow:
    """A method across all perturbations."""

    method: str
    control: bool
    cells: tuple[MatrixCell, ...]
    rank: str = ""
    top: bool = False
    best: bool = False


@dataclass(frozen=True)
class Matrix:
    """Methods × perturbations, severities pooled; a block of the page."""

    kind: ClassVar[str] = "matrix"
    caption: str
    ranked: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[MatrixRow, ...]


def matrix(
    table: Frame,
    methods: Sequence[str],
    ranks: Mapping[str, float],
    verdict: Verdict,
    flips: Frame,
    shown: str = "rm",
) -> Matrix:
    """RM and RM₀ of every method (in the order given) under every perturbation, `shown` the larger of the two.

    `table` is one setting of tables/robustness.csv; `ranks` are average ranks by `shown`, empty without tests; `flips`
    are the shares of changed predictions (`frames.flips`).
    """
    pooled = table[table["severity"].astype(str) == "all"]
    kinds = list(dict.fromkeys(pooled["perturbation"]))
    found = {(row.method, row.perturbation): row for row in pooled.itertuples()}
    controls = set(pooled.loc[pooled["control"].astype(bool), "method"])
    rows = tuple(
        MatrixRow(
            method,
            control=method in controls,
            cells=tuple(_cell(found.get((method, kind)), shown) for kind in kinds),
            rank=f"rank {number(ranks[method])}" if method in ranks else "",
            top=verdict.equal.arm(method) in verdict.top,
            best=verdict.equal.arm(method) in verdict.top[:1],
        )
        for method in methods
    )
    large, small = (NAMES[name] + (" ⚑" if verdict.fooled.get(name) else "") for name in (shown, _other(shown)))
    return Matrix(
        f"Large: {large} and its 95 % interval. Small, below: {small} and its interval. All severities of a "
        "perturbation together; 1 is best.",
        f"average rank by {NAMES[shown]} over the conditions" if ranks else "",
        tuple((kind, _flip_share(flips, kind)) for kind in kinds),
        rows,
    )


def _other(shown: str) -> str:
    return "rm0" if shown == "rm" else "rm"


def _cell(row: Any, shown: str) -> MatrixCell:
    if row is None:
        return MatrixCell(None, reason="not measured")
    if pd.isna(getattr(row, shown)):
        return MatrixCell(None, reason=_reason(int(row.n), int(row.flips)))
    other = _other(shown)
    span, other_span = (interval(getattr(row, f"{q}_low"), getattr(row, f"{q}_high")) for q in (shown, other))
    value = float(getattr(row, shown))
    return MatrixCell(
        round(min(max(value, 0.0), 1.0), 3),
        number(value),
        span,
        f"{NAMES[other]} {number(getattr(row, other))}",
        other_span,
        mark=not bool(row.reliable),
        fools=", ".join(NAMES[q] for q in (shown, other) if q in _fooled(row)),
    )


def _fooled(row: Any) -> list[str]:
    """The columns that a control fools in this cell."""
    return str(getattr(row, "fools", "")).split(FOOLS)


def _reason(n: int, flips: int) -> str:
    """Why there is no responsiveness, with the count that is too small."""
    if n == 0:
        return "no usable pair"
    if flips <= n - flips:
        return f"only {flips} flips" if flips != 1 else "only 1 flip"
    return f"only {n - flips} held"


def _flip_share(flips: Frame, kind: str) -> str:
    rates = flips.loc[(flips["perturbation"] == kind) & (flips["severity"] == "all"), "flip_rate"]
    return f"{percent(rates.iloc[0])} flipped" if len(rates) else ""


def _legend(rows: Sequence[MatrixRow], verdict: Verdict) -> Iterator[tuple[str, str]]:
    cells = [cell for row in rows for cell in row.cells]
    for name in ("rm", "rm0"):
        if verdict.fooled.get(name):
            controls = ", ".join(verdict.fooled[name])
            yield f"⚑ {NAMES[name]} is fooled", f"by {controls}: useless on purpose, yet not told from the best method."
    if any(cell.fools for cell in cells):
        yield "⚑ in a cell", "under this perturbation the control is not told from the best method by what is named."
    if any(cell.mark for cell in cells):
        yield "†", "fewer than 20 changed or 20 unchanged predictions: unreliable."
    if any(cell.value is None for cell in cells):
        yield NONE, "fewer than 10 changed or 10 unchanged predictions: not computed, count given."
    if any(row.control for row in rows):
        yield "control", "a map that is useless on purpose; it should come last."
    yield "flipped", "share of predictions that the perturbation changed."


# --- plain tables ---


def _deciding_figures(verdict: Verdict, methods: Sequence[str], controls: frozenset[str]) -> Sheet | None:
    """The figures the verdict compares, a mean over the perturbations; ⚑ where a control fools the quantity."""
    quantities = [q for q in verdict.figures if any(not math.isnan(i.value) for i in verdict.figures[q].values())]
    if not quantities:
        return None
    flag = "\u00a0⚑"  # kept on the line of the name
    named = [VERDICT_NAMES[q] + (flag if verdict.fooled.get(q) else "") for q in quantities]
    header = ["method", *(name[:1].upper() + name[1:] for name in named)]
    shown = [method for method in methods if method in verdict.figures[quantities[0]]]
    lines = [
        (m, *(with_interval(one.value, one.low, one.high) for one in (verdict.figures[q][m] for q in quantities)))
        for m in shown
    ]
    caption = "Mean over the perturbations, with 95 % intervals by image; 1 is best."
    return sheet(caption, header, lines, controls=controls)


def _flips(flips: Frame, table: Frame) -> Sheet:
    """Flip rate and PSNR of every perturbation and severity."""
    severities = sorted(set(table["severity"].astype(str)), key=lambda s: (s == "all", len(s), s))
    rates = {(r.perturbation, r.severity): r.flip_rate for r in flips.itertuples()}
    ratios = {(r.perturbation, str(r.severity)): r.psnr for r in table.itertuples()}
    kinds = list(dict.fromkeys(table["perturbation"]))
    lines = [[kind, *(_flip(rates.get((kind, s)), ratios.get((kind, s), math.nan)) for s in severities)]
             for kind in kinds]  # fmt: skip
    header = ["perturbation", *("all together" if s == "all" else f"severity {s}" for s in severities)]
    return sheet("Share of predictions changed, and how strong the disturbance is (PSNR).", header, lines)


def _flip(rate: float | None, ratio: float) -> str:
    if rate is None:
        return NONE
    strength = "" if pd.isna(ratio) else f", {ratio:.0f} dB" if math.isfinite(ratio) else ", unchanged"
    return f"{percent(rate)}{strength}"


def _strengths(table: Frame) -> Sheet:
    """The main parameter of each perturbation at every severity, as the study used it."""
    severities = sorted(table["severity"].unique())
    found = {(r.perturbation, r.severity): r.strength for r in table.itertuples()}
    kinds = list(dict.fromkeys(table["perturbation"]))
    text = lambda value: NONE if value is None or math.isnan(value) else f"{value:.4g}"  # noqa: E731
    lines = [[kind, *(text(found.get((kind, s))) for s in severities)] for kind in kinds]
    header = ["perturbation", *(f"severity {s}" for s in severities)]
    caption = "How strong each severity is: the main setting of each perturbation"
    return sheet(caption, header, lines, captioned=False)


def _numbers(table: Frame, methods: Sequence[str], controls: frozenset[str]) -> Iterator[Sheet]:
    """Everything of tables/robustness.csv, a sheet per perturbation."""
    header = ("method", "severity", "pairs", "flips", "consistency", "responsiveness", "RM", "RM₀", "reliable", "fools")
    order = {method: position for position, method in enumerate(methods)}
    for kind in dict.fromkeys(table["perturbation"]):
        rows = table[table["perturbation"] == kind]
        rows = rows.sort_values("method", key=lambda names: names.map(order), kind="stable")
        lines = tuple(SheetRow(tuple(_line(row)), row.method in controls) for row in rows.itertuples())
        yield Sheet(kind, header, lines)


def _line(row: Any) -> Iterator[str]:
    yield from (str(row.method), str(row.severity), str(int(row.n)), str(int(row.flips)), number(row.consistency, 3))
    for name in ("responsiveness", "rm", "rm0"):
        yield with_interval(getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high"), 3)
    yield "yes" if bool(row.reliable) else "no"
    yield ", ".join(NAMES[q] for q in ("rm", "rm0") if q in _fooled(row))

"""The page's sections for one model on one set of pictures: the table, the figures, the statistics in words."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from heatproof.report import drawing, plots
from heatproof.report.findings import BLOCKS, Findings, Setting
from heatproof.report.frames import Frame
from heatproof.report.sheets import NAMES, Line, Sheet, interval, matrix, number, percent, probability, sheet
from heatproof.report.style import Style
from heatproof.statistics.intervals import Interval
from heatproof.statistics.paired import Comparison
from heatproof.statistics.verdict import NAMES as VERDICT_NAMES
from heatproof.statistics.verdict import Verdict


@dataclass(frozen=True)
class Drawing:
    """A figure of the page: what it shows in words, one or more SVG elements, and the key to their lines."""

    name: str
    caption: str
    panels: tuple[Markup, ...]
    key: Markup | None = None


@dataclass
class Album:
    """Draws figures for the page, and remembers how to draw those that are filed for papers."""

    shelf: dict[str, Callable[[], Figure]] = field(default_factory=dict)

    def keep(self, name: str, draw: Callable[[], Figure]) -> None:
        """Remembers the figure to be filed as `name`.svg and `name`.pdf."""
        self.shelf[name] = draw

    def single(self, name: str, caption: str, canvas: Figure) -> Drawing:
        """A figure shown as it is filed."""
        self.keep(name, lambda: canvas)
        return Drawing(name, caption, (Markup(drawing.inline(drawing.svg(canvas), caption, name)),))

    def small_multiples(
        self,
        name: str,
        caption: str,
        whole: Callable[[], Figure],
        panels: Mapping[str, Figure],
        key: Figure | None = None,
    ) -> Drawing:
        """A figure filed whole and shown as panels that flow with the width of the screen."""
        self.keep(name, whole)
        shown = tuple(
            Markup(drawing.inline(drawing.svg(panel), f"{caption} {kind}", f"{name}-{i}"))
            for i, (kind, panel) in enumerate(panels.items())
        )
        legend = Markup(drawing.inline(drawing.svg(key), "Key to the lines", f"{name}-key")) if key else None
        return Drawing(name, caption, shown, legend)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Draws what was kept: file name and content, one at a time."""
        for name, draw in self.shelf.items():
            canvas = draw()
            yield f"{name}.svg", drawing.svg(canvas).encode("utf-8")
            yield f"{name}.pdf", drawing.pdf(canvas)


def slug(text: str) -> str:
    """A file name's worth of a name: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"


def part(findings: Findings, setting: Setting, looks: Mapping[str, Style], album: Album, suffix: str) -> dict[str, Any]:
    """The template's section for one setting, sorted by what decides its verdict."""
    table, verdict = setting.of(findings.robustness), findings.verdicts[setting]
    comparisons, shown = findings.comparisons[setting], verdict.by or "rm"
    ranks = comparisons[shown].ranks if shown in comparisons else {}
    methods = by_rank(findings.methods, findings.controls, ranks)
    return {
        "id": f"result{suffix}",
        "title": f"{setting.model} on {setting.dataset}",
        "heading": "Robustness of each method",
        "where": f"{setting.model} · layer {setting.layer} · {setting.dataset} · segments by {setting.segmenter}",
        "matrix": matrix(table, methods, ranks, verdict, shown),
        "rests": rests(verdict, methods, findings.controls),
        "figures": list(_figures(findings, setting, table, methods, looks, album, suffix)),
        "flips": flips(table),
        "strengths": strengths(setting.of(findings.strengths)),
        "flip_figures": [
            album.single(f"flips{suffix}", "Share of predictions each perturbation changed.", plots.flips_figure(table))
        ],
        "comparison": comparison_of(comparisons, looks, album, suffix),
        "numbers": list(numbers(table, methods)),
    }


def rests(verdict: Verdict, methods: Sequence[str], controls: frozenset[str]) -> Sheet | None:
    """The figures the verdict compares, a mean over the perturbations; ⚑ where a control keeps up with the best."""
    quantities = [q for q in verdict.figures if any(not math.isnan(i.value) for i in verdict.figures[q].values())]
    if not quantities:
        return None
    flag = "\u00a0⚑"  # kept on the line of the name
    named = [VERDICT_NAMES[q] + (flag if verdict.fooled.get(q) else "") for q in quantities]
    header = ["method", *(name[:1].upper() + name[1:] for name in named)]
    shown = [method for method in methods if method in verdict.figures[quantities[0]]]
    lines = tuple(
        Line((method, *(_with_interval(verdict.figures[q][method]) for q in quantities)), method in controls)
        for method in shown
    )
    return Sheet("Mean over the perturbations, with 95 % intervals by picture; 1 is best.", tuple(header), lines)


def _with_interval(found: Interval) -> str:
    span = interval(found.low, found.high)
    return f"{number(found.value)} ({span})" if span else number(found.value)


def by_rank(methods: Sequence[str], controls: frozenset[str], ranks: Mapping[str, float]) -> list[str]:
    """Real methods first, then controls, each by average rank; the plan's order where there is none."""
    order = {method: place for place, method in enumerate(methods)}
    return sorted(methods, key=lambda m: (m in controls, ranks.get(m, math.inf), order[m]))


def _figures(
    findings: Findings,
    setting: Setting,
    table: Frame,
    methods: Sequence[str],
    looks: Mapping[str, Style],
    album: Album,
    suffix: str,
) -> Iterator[Drawing]:
    kinds = list(dict.fromkeys(table["perturbation"]))
    of = {kind: table[table["perturbation"] == kind] for kind in kinds}
    yield album.small_multiples(
        f"robustness{suffix}",
        "RM (filled) and RM₀ (hollow) with 95 % intervals; further right is better. All severities together.",
        lambda: plots.robustness_figure(table, methods, looks),
        {kind: plots.robustness_figure(of[kind], methods, looks, columns=1, key=False) for kind in kinds},
    )
    yield album.small_multiples(
        f"curves{suffix}",
        "Consistency (upper) and responsiveness (lower) as the noise grows; higher is better. The dotted line "
        "at 0.5 is a coin toss. Points are missing where too few predictions changed or held; methods with equal "
        "numbers hide each other.",
        lambda: plots.curves_figure(table, methods, looks),
        {kind: plots.curves_figure(of[kind], methods, looks, columns=1, key=False) for kind in kinds},
        plots.legend_figure(methods, looks),
    )
    yield album.single(
        f"overlap{suffix}",
        "How alike the clean and the perturbed map are (RBO), where the prediction held and where it changed. "
        "A good method has the two boxes far apart, the upper one to the right. All perturbations and severities.",
        plots.overlap_figure(setting.of(findings.pairs), methods, looks),
    )
    album.keep(f"heatmap{suffix}", lambda: plots.heatmap_figure(table, methods, looks))


def comparison_of(
    comparisons: Mapping[str, Comparison], looks: Mapping[str, Style], album: Album, suffix: str
) -> dict[str, Any]:
    """Friedman in words, the rank diagrams, and the pairwise tests."""
    figures = [
        album.single(
            f"ranks-{quantity}{suffix}",
            f"Average rank by {NAMES[quantity]} over {c.friedman.n} {BLOCKS[quantity]}. Methods joined by a bar cannot "
            "be told apart (Nemenyi, 5 %).",
            plots.critical_difference_figure(c.ranks, c.distance, c.cliques, looks, friedman(c)),
        )
        for quantity, c in comparisons.items()
    ]
    lines = [in_words(quantity, c) for quantity, c in comparisons.items()]
    if not lines:
        lines = ["Nothing can be compared: there is one method, or no condition with a number for every method."]
    tables = [pairwise(quantity, c) for quantity, c in comparisons.items()]
    return {"lines": lines, "figures": figures, "tables": tables}


def pairwise(quantity: str, comparison: Comparison) -> Sheet:
    """Every pair of methods by Wilcoxon's signed-rank test, Holm-corrected."""
    rows = [
        (p.first, p.second, f"{p.n} ({p.ties})", probability(p.p), probability(p.p_holm), number(p.effect))
        for p in comparison.pairs
    ]
    name = NAMES[quantity]
    caption = f"Pairs of methods by {name}: Wilcoxon signed-rank, Holm-corrected; effect > 0 where the first is better"
    return sheet(caption, ("first", "second", "blocks (ties)", "p", "p (Holm)", "effect"), rows, {1})


def friedman(comparison: Comparison) -> str:
    """The test in one line, as it stands over the diagram."""
    test = comparison.friedman
    return f"Friedman χ² = {number(test.statistic, 1)}, p {_equals(test.p)}; Kendall's W = {number(test.w)}"


def in_words(quantity: str, comparison: Comparison) -> str:
    """What the Friedman test says, for a reader who does not know it."""
    test = comparison.friedman
    differ = "cannot be tested"
    if not math.isnan(test.p):
        differ = "differ by more than chance" if test.p < 0.05 else "do not differ by more than chance"
    dropped = f" ({test.dropped} more had no number for some method)" if test.dropped else ""
    over = f"By {NAMES[quantity]}, over {test.n} {BLOCKS[quantity]}{dropped}"
    return f"{over}, the methods {differ}: {friedman(comparison)}."


def _equals(p: float) -> str:
    text = probability(p)
    return text if text.startswith("<") else f"= {text}"


def flips(table: Frame) -> Sheet:
    """Flip rate and PSNR of every perturbation and severity."""
    rows = table.drop_duplicates(["perturbation", "severity"])
    severities = sorted(set(rows["severity"].astype(str)), key=lambda s: (s == "all", len(s), s))
    found = {(r.perturbation, str(r.severity)): r for r in rows.itertuples()}
    kinds = list(dict.fromkeys(rows["perturbation"]))
    lines = [[kind, *(_flip(found.get((kind, s))) for s in severities)] for kind in kinds]
    header = ["perturbation", *("all together" if s == "all" else f"severity {s}" for s in severities)]
    return sheet("Share of predictions changed, and how strong the disturbance is (PSNR).", header, lines)


def strengths(table: Frame) -> Sheet:
    """What each severity stands for: the main parameter of the perturbation, as the study used it."""
    severities = sorted(table["severity"].unique())
    found = {(r.perturbation, r.severity): r.strength for r in table.itertuples()}
    kinds = list(dict.fromkeys(table["perturbation"]))
    shown = lambda value: "–" if value is None or math.isnan(value) else f"{value:.4g}"  # noqa: E731
    lines = [[kind, *(shown(found.get((kind, s))) for s in severities)] for kind in kinds]
    header = ["perturbation", *(f"severity {s}" for s in severities)]
    return sheet("How strong each severity is: the main setting of each perturbation", header, lines)


def _flip(row: Any) -> str:
    if row is None:
        return "–"
    strength = "" if pd.isna(row.psnr) else f", {row.psnr:.0f} dB" if math.isfinite(row.psnr) else ", unchanged"
    return f"{percent(row.flip_rate)}{strength}"


def numbers(table: Frame, methods: Sequence[str]) -> Iterator[Sheet]:
    """Everything of tables/robustness.csv, a sheet per perturbation."""
    header = ("method", "severity", "pairs", "flips", "consistency", "responsiveness", "RM", "RM₀", "reliable")
    order = {method: place for place, method in enumerate(methods)}
    for kind in dict.fromkeys(table["perturbation"]):
        rows = table[table["perturbation"] == kind]
        rows = rows.sort_values("method", key=lambda names: names.map(order), kind="stable")
        lines = tuple(Line(tuple(_numbers(row)), bool(row.control)) for row in rows.itertuples())
        yield Sheet(kind, header, lines)


def _numbers(row: Any) -> Iterator[str]:
    yield from (str(row.method), str(row.severity), str(int(row.n)), str(int(row.flips)), number(row.consistency, 3))
    for name in ("responsiveness", "rm", "rm0"):
        value, span = getattr(row, name), interval(getattr(row, f"{name}_low"), getattr(row, f"{name}_high"))
        yield f"{number(value, 3)} ({span})" if span else number(value, 3)
    yield "yes" if bool(row.reliable) else "no"

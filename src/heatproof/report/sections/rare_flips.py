"""What responsiveness can say where few predictions change."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from heatproof.report.blocks import Details, Drawing, Figures, Heading, Section, Sheet, Text, sheet
from heatproof.report.check_figures import rare_flips_figure
from heatproof.report.findings import Findings
from heatproof.report.frames import Frame
from heatproof.report.numbers import NONE, number, percent
from heatproof.report.places import places
from heatproof.report.robustness_findings import RobustnessSetting
from heatproof.statistics.check_sentences import counts_sentence, rare_sentence
from heatproof.statistics.rare_flips import REPLAYS, WIDE, status

TEXT = (
    "Responsiveness compares predictions that changed with others that did not; where few changed, it is uncertain. "
    "How uncertain is found from this study's own pairs of maps: in each condition so many changed pairs are "
    f"drawn, and as many others as make up the number of images, both with replacement, {REPLAYS} times."
)


def section(findings: Findings) -> Section | None:
    """For each model and set of images the counts and the widths; None without pairs."""
    found, checks = findings.robustness, findings.noise_checks
    if found is None or checks is None:
        return None
    blocks: list[Any] = [Text(TEXT)]
    for place, setting in places(found.main, lambda one: one):
        if place.several:
            blocks.append(Heading(place.where))
        blocks += _blocks(findings, setting, setting.of(checks.rare_flips), setting.of(found.table), place.suffix)
    return Section(
        id="few-changes",
        title="How many changed predictions are needed?",
        nav="Rare flips",
        blocks=blocks,
        words=("Responsiveness", "RM (robustness metric)", "† and –", "95 % interval"),
    )


def _blocks(findings: Findings, setting: RobustnessSetting, drawn: Frame, table: Frame, suffix: str) -> Iterator[Any]:
    single = table[(table["severity"].astype(str) != "all") & ~table["control"].astype(bool)]
    if len(single):
        yield Text(counts_sentence(single))
    if len(drawn):
        yield Text(rare_sentence(drawn))
        caption = (
            "Width of the 95 % interval of responsiveness against the share of changed predictions; thick: the mean of "
            f"the methods. Left of the dashed line it is not computed (fewer than 10); the dotted line is {WIDE:g}."
        )
        names = [name for name in findings.methods if name in set(drawn["method"]) and name not in findings.controls]
        draw = lambda: rare_flips_figure(drawn, names, findings.looks)  # noqa: E731
        yield Figures([Drawing(f"rare-flips{suffix}", caption, draw)])
        yield _drawn(drawn)
    else:
        yield Text(
            "Nothing can be drawn: under no perturbation and severity did 10 predictions change and 20 hold, with an "
            "RBO for every method."
        )
    if len(single):
        observed = _observed(single)
        yield Details(observed.caption, [observed])


def _drawn(drawn: Frame) -> Sheet:
    """The mean over methods, by the number of changed predictions."""
    rows = [
        (str(r.changed), percent(r.flip_rate), number(r.responsiveness_width), number(r.rm_width),
         percent(r.told_apart), str(r.conditions), r.status or "computed")
        for r in drawn[drawn["method"] == ""].sort_values("changed").itertuples()
    ]  # fmt: skip
    header = (
        "changed",
        "flip rate",
        "width of responsiveness",
        "width of RM",
        "pairs told apart",
        "conditions",
        "in a study",
    )
    caption = (
        "Mean width of the 95 % intervals over methods and conditions, the share of pairs of methods that "
        "responsiveness tells apart (95 %, each by itself), and what a study does with so many."
    )
    return sheet(caption, header, rows, {6})


def _observed(single: Frame) -> Sheet:
    """What each condition of this study has: changed predictions, and the widths of the methods' intervals."""
    rows = []
    for (kind, severity), cell in single.groupby(["perturbation", "severity"], sort=False):
        row = cell.loc[cell["n"].idxmax()]
        few = int(min(row["flips"], row["n"] - row["flips"]))
        widths = [(cell[f"{name}_high"] - cell[f"{name}_low"]).to_numpy(float) for name in ("responsiveness", "rm")]
        texts = [_range(width[np.isfinite(width)]) for width in widths]
        rows.append((kind, str(severity), f"{int(row['flips'])} of {int(row['n'])}", percent(row["flip_rate"]), *texts,
                     status(few) or "computed"))  # fmt: skip
    header = (
        "perturbation",
        "severity",
        "changed",
        "flip rate",
        "width of responsiveness",
        "width of RM",
        "responsiveness",
    )
    return sheet("Changed predictions in each condition, and the widths of the 95 % intervals", header, rows, {6},
                 captioned=False)  # fmt: skip


def _range(widths: np.ndarray) -> str:
    """`0.12 (0.08–0.20)`: the median over methods, the smallest and the largest."""
    if not len(widths):
        return NONE
    return f"{number(float(np.median(widths)))} ({number(widths.min())}–{number(widths.max())})"

"""What changes where the borders of segments are moved on purpose: a grid by half a cell, segments cut in two."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from heatproof.report.blocks import Heading, Section, Sheet, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.noise_checks import Beside
from heatproof.report.numbers import NONE, number, probability
from heatproof.statistics.check_sentences import FIGURES, change_sentences, signed

TEXT = (
    "Maps are compared segment by segment. Here the borders of the segments are moved on purpose, so that they cut "
    "through objects: a grid is moved by half a cell; every segment is cut in two through its middle, across its "
    "longest axis (split); and where there are masks, those segments of an object that a line through the object's "
    "centre crosses are cut in two (split-object). By split segments are twice as many, and the chance level of RBO "
    "falls with their number. So a lower RM there need not come from where the borders are; Kendall's W says whether "
    "the order of the methods changes. By split-object only a few are cut, so that little change is to be expected, "
    "and none that is significant does not show that borders do not matter."
)
SHOWN = ("rm", "rm0", "kappa")


def section(findings: Findings) -> Section | None:
    """For each model, set of images and moved segmenter the sentences and the changes; None without any."""
    checks = findings.noise_checks
    if checks is None or not checks.boundaries:
        return None
    blocks: list[Any] = [Text(TEXT)]
    for one in checks.boundaries:
        whole, moved = one.before.segmenter, one.after.segmenter
        blocks.append(Heading(f"{whole} and {moved}: {one.before.model} on {one.before.dataset}"))
        blocks += map(Text, change_sentences(one.changes, whole, moved, checks.resamples))
        blocks.append(change_sheet(one, whole, moved, SHOWN))
    return Section(
        id="boundaries",
        title="Does it matter where segments end?",
        nav="Borders",
        blocks=blocks,
        words=("Control", "RM (robustness metric)", "RM₀", "κ (kappa)", "95 % interval"),
    )


def change_sheet(one: Beside, before: str, after: str, quantities: tuple[str, ...]) -> Sheet:
    """Each method's figures in two settings, and their difference with its interval and corrected p."""
    header = ["method"]
    for quantity in quantities:
        header += [FIGURES[quantity], "change", "p (Holm)"]
    rows = [(method, *_cells(lines, quantities)) for method, lines in one.changes.groupby("method", sort=False)]
    controls = set(one.changes.loc[one.changes["control"].astype(bool), "method"])
    caption = (
        f"{before} → {after}: mean over the perturbations that both have; the change with its 95 % interval, bootstrap "
        "by image, paired. Holm's correction over the methods; controls are not tested."
    )
    return sheet(caption, header, rows, controls=controls)


def _cells(lines: Any, quantities: tuple[str, ...]) -> Iterator[str]:
    found = lines.set_index("quantity")
    for row in (found.loc[quantity] for quantity in quantities):
        yield f"{number(row['before'])} → {number(row['after'])}"
        yield change_text(row)
        yield probability(row["p_holm"])


def change_text(row: Any) -> str:
    """`+0.012 (−0.004 to +0.028)`; a dash without a change."""
    if row["change"] is None or np.isnan(row["change"]):
        return NONE
    if np.isnan(row["low"]):
        return signed(row["change"])
    return f"{signed(row['change'])} ({signed(row['low'])} to {signed(row['high'])})"

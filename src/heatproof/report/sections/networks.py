"""Networks beside each other on the same images: whether their predictions and their maps are equally steady."""

from typing import Any

from heatproof.report.blocks import Heading, Section, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.numbers import number, percent
from heatproof.report.sections.boundaries import change_sheet, change_text
from heatproof.statistics.check_sentences import network_sentences

TEXT = (
    "The same images, disturbed alike, went through each of the networks; attacks are made for each network by itself. "
    "A network with steadier predictions need not have steadier maps."
)


def section(findings: Findings) -> Section | None:
    """Every pair of models on a set of images; None with one model."""
    checks = findings.noise_checks
    if checks is None or not checks.networks:
        return None
    blocks: list[Any] = [Text(TEXT)]
    right = {(row.model, row.dataset): row.correct for row in findings.correct.itertuples()}
    for one in checks.networks:
        before, after = one.before.model, one.after.model
        blocks.append(Heading(f"{before} and {after} on {one.before.dataset}"))
        blocks += map(Text, network_sentences(one.changes, one.flips, before, after, checks.resamples))
        flips = one.flips
        known = [percent(right.get((name, one.before.dataset), float("nan"))) for name in (before, after)]
        line = (number(flips["before"], 3), number(flips["after"], 3), change_text(flips), *known)
        header = ("", f"flip rate: {before}", after, "change", f"right on clean images: {before}", after)
        blocks.append(sheet("Predictions under noise, paired by image.", header, [("predictions", *line)]))
        blocks.append(change_sheet(one, before, after, ("rm", "rm0")))
        blocks.append(change_sheet(one, before, after, ("consistency", "responsiveness")))
    return Section(
        id="networks",
        title="Are the maps of a steadier network steadier?",
        nav="Networks",
        blocks=blocks,
        words=("Consistency", "Responsiveness", "RM (robustness metric)", "RM₀", "95 % interval"),
    )

"""RBO against the other measures of a pair of maps, and the numbers that paper N gives or suggests."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from heatproof.report.blocks import Details, Heading, Section, Sheet, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.frames import Frame
from heatproof.report.noise_checks import NoiseChecks
from heatproof.report.numbers import NONE, number, with_interval
from heatproof.report.robustness_findings import RobustnessFindings, RobustnessSetting
from heatproof.statistics.check_sentences import agreement_sentence, case_sentence
from heatproof.statistics.similarity import MEASURES, NAMES

TEXT = (
    "RBO, κ, SSIM, Spearman and cosine are 1 for equal maps; L1 is a distance, 0 for equal maps. Paper N chose RBO "
    "because in its data L1 fell from .289 to .237 as noise grew, as if maps became more alike, while RBO fell from "
    ".779 to .502."
)


def section(findings: Findings) -> Section | None:
    """For each model and set of images; None without pairs."""
    found, checks = findings.robustness, findings.noise_checks
    if found is None or checks is None:
        return None
    blocks: list[Any] = [Text(TEXT)]
    for setting in found.main:
        if len(found.main) > 1:
            blocks.append(Heading(f"{setting.model} on {setting.dataset}"))
        blocks += _blocks(found, checks, setting)
    return Section(
        id="similarity",
        title="Do other measures of similarity say the same?",
        nav="RBO and L1",
        blocks=blocks,
        words=("RBO (rank-biased overlap)", "κ (kappa)", "95 % interval"),
    )


def _blocks(found: RobustnessFindings, checks: NoiseChecks, setting: RobustnessSetting) -> Iterator[Any]:
    medians, verdict = setting.of(checks.medians), found.verdicts[setting]
    real = medians[~medians["control"].astype(bool)]
    yield Text(case_sentence(setting.of(checks.steps)))
    correlations = checks.correlations(setting)
    yield Text(agreement_sentence(correlations))
    yield _correlations(correlations)
    there = sorted(set(real["method"]))
    method = str(verdict.best) if verdict.best in there else there[0] if there else ""
    rows = medians[medians["method"] == method]
    yield _medians(rows, method)
    others = [name for name in sorted(set(medians["method"])) if name != method]
    if others:
        more = [_medians(medians[medians["method"] == name], name) for name in others]
        yield Details("The same for every other method", more, long=True)
    yield _claims(found, setting, real)


def _medians(rows: Frame, method: str) -> Sheet:
    """Medians of every measure by perturbation and severity."""
    found = {(r.perturbation, r.severity, r.measure): with_interval(r.median, r.low, r.high) for r in rows.itertuples()}
    conditions = list(dict.fromkeys((kind, severity) for kind, severity, _ in found))
    lines = [(k, str(s), *(found.get((k, s, measure), NONE) for measure in MEASURES)) for k, s in conditions]
    header = ("perturbation", "severity", *(NAMES[measure] for measure in MEASURES))
    return sheet(f"{method}: medians over all images, with 95 % intervals by image.", header, lines)


def _correlations(found: Frame) -> Sheet:
    """Rank correlation of every two measures."""
    lines = [(NAMES[str(name)], *(number(value) for value in row)) for name, row in found.iterrows()]
    caption = "Rank correlation of the measures over all pairs of maps of real methods; L1 turned round."
    return sheet(caption, ("", *(NAMES[str(name)] for name in found.columns)), lines)


def _claims(found: RobustnessFindings, setting: RobustnessSetting, medians: Frame) -> Sheet:
    """Numbers of paper N, and those that were suggested with it, beside those of this study."""
    rbo = medians[medians["measure"] == "rbo"]
    ends = [rbo.loc[rbo["severity"] == end, "median"] for end in (rbo["severity"].min(), rbo["severity"].max())]
    low, high = (
        f"{number(e.median())} ({number(e.min())}–{number(e.max())})" if e.notna().any() else NONE for e in ends
    )
    lines = [
        ("RBO at low noise", "near .85", f"{low}: median, lowest and highest over methods and perturbations"),
        ("RBO at high noise", "near .5", high),
        ("RM under several segmenters", "within .02", _spread(found, setting)),
    ]
    caption = "Claims suggested with paper N, not published, beside this study: to be checked, not true by themselves."
    return sheet(caption, ("claim", "N", "here"), lines, {1, 2})


def _spread(found: RobustnessFindings, setting: RobustnessSetting) -> str:
    """How far RM of a method and perturbation differs between segmenters: median and largest."""
    names = [one.segmenter for one in found.alike(setting)]
    table = found.table
    here = table[(table["model"] == setting.model) & (table["dataset"] == setting.dataset)]
    here = here[(here["severity"].astype(str) == "all") & ~here["control"].astype(bool) & here["segmenter"].isin(names)]
    wide = here.pivot(index=["layer", "perturbation", "method"], columns="segmenter", values="rm").dropna()
    if wide.shape[1] < 2 or wide.empty:
        return "one segmenter, or too few changed predictions"
    spread = (wide.max(axis=1) - wide.min(axis=1)).to_numpy(float)
    return (
        f"differs by {number(float(np.median(spread)), 3)} (median), {number(spread.max(), 3)} at most, over "
        f"{wide.shape[1]} segmenters"
    )

"""What refining CAMs over stages gains: arms and scores, stage by stage, by size of the object, under noise."""

from collections.abc import Iterator, Mapping
from typing import Any

from heatproof.report.blocks import Drawing, Figures, Heading, Section, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.numbers import NONE, number, percent, probability, with_interval
from heatproof.report.places import places
from heatproof.report.refinement_figures import stages_figure
from heatproof.report.refinement_findings import SettingRefinement
from heatproof.statistics.refinement import ALL, arm_of
from heatproof.statistics.special_rows import PRODUCT
from heatproof.statistics.wording import LEARNT

INTRODUCTION = (
    "A plain CAM is the map of one stage of the network. RefineCAM (paper R) multiplies the maps of a stage and of all "
    "deeper ones. Stage 1 is the shallowest, with the finest map. ARCC is the harmonic mean of coherency, 1 − "
    "complexity and ROAD; where the images have a ground truth, the cosine with it is the better judge. Stability is "
    "the mean κ of a map and the map under noise that keeps the prediction: 1 is the same ranking of segments, 0 is "
    "chance."
)
STAGES = "Mean of each number from the shallowest to the deepest stage. Solid: refined from there; dashed: plain."
GAINS = (
    "Gain of a refined map over a plain one, image by image: over the plain map of the same stage (paper R's "
    "comparison) and over that of the deepest stage, which is usually shown. Positive is better for every number."
)
#: ARCC of paper R by base CAM and operator: mean and standard deviation over images, one network (protocols §7).
PAPER: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "gradcam++": {"product": (0.63, 0.33), "geometric": (0.57, 0.29), "inverse-exp": (0.57, 0.30)},
    "guided-gradcam": {"product": (0.12, 0.26), "geometric": (0.15, 0.29), "inverse-exp": (0.07, 0.21)},
    "layercam": {"product": (0.74, 0.26), "geometric": (0.70, 0.25), "inverse-exp": (0.68, 0.27)},
    "scorecam": {"product": (0.70, 0.27), "geometric": (0.64, 0.25), "inverse-exp": (0.65, 0.26)},
    "shapleycam": {"product": (0.32, 0.36), "geometric": (0.31, 0.35), "inverse-exp": (0.25, 0.34)},
}
BESIDE = (
    "ARCC of the maps refined from the shallowest stage by each operator, mean ± standard deviation over images, "
    "beside the figures of paper R (other images, another network). Paper R says that the product consistently "
    "outperforms; its own figure for guided-gradcam is higher with the geometric mean."
)


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and dataset."""
    for place, one in places(findings.refinement):
        warnings = []
        if not one.verdict.applies:
            warnings = [
                f"{place.where}: {percent(one.accuracy or 0)} of the images are classified right, {percent(LEARNT)} "
                "are needed. The ground truth does not apply to a network that has not learnt it: the cosine with it "
                "says nothing of maps. `heatproof fit` trains a network on such images."
            ]
        yield place.section(
            "refinement",
            "What does refinement gain?",
            "Refinement",
            blocks=list(_blocks(findings, one, place.suffix)),
            answers=[place.answer(one.verdict)],
            warnings=warnings,
            words=("Score (metric)", "Control", "95 % interval"),
        )


def _blocks(findings: Findings, one: SettingRefinement, suffix: str) -> Iterator[Any]:
    yield Text(f"{one.setting.model} · {one.setting.dataset} · {one.images} images", "kind")
    yield Text(INTRODUCTION)
    ways = {str(row.metric): str(row.better) for row in one.table.itertuples()}
    draw = lambda: stages_figure(one.table, one.metrics, ways, labels=findings.labels)  # noqa: E731
    yield Figures([Drawing(f"stages{suffix}", STAGES, draw)], "wide")
    yield _arms(findings, one)
    yield Heading("Gains, image by image")
    yield Text(GAINS)
    yield _gains(one)
    if any(base in PAPER for base in _bases(one)):
        yield Heading("Operators, beside paper R")
        yield Text(BESIDE)
        yield _operators(one)


def _bases(one: SettingRefinement) -> list[str]:
    arms = [arm_of(str(name)) for name in one.table["method"].unique()]
    return list(dict.fromkeys(arm.base for arm in arms if arm is not None))


def _arms(findings: Findings, one: SettingRefinement) -> Any:
    """Every method by every number, best ARCC first, controls last."""
    wide = {(row.method, row.metric): row for row in one.table.itertuples()}
    methods = list(dict.fromkeys(one.table["method"]))
    lead = {m: getattr(wide.get((m, one.metrics[0])), "mean", float("nan")) for m in methods}
    order = sorted(methods, key=lambda m: (m in findings.controls, -lead[m] if lead[m] == lead[m] else 9, m))
    lines = []
    for method in order:
        rows = [wide.get((method, metric)) for metric in one.metrics]
        cells = [NONE if row is None else f"{number(row.mean)} ± {number(row.std)}" for row in rows]
        lines.append((method, one.layers.get(method, "").partition("+")[0], *cells))
    header = ("map", "from layer", *one.metrics)
    return sheet("Mean ± standard deviation over images", header, lines, {1}, findings.controls)


def _gains(one: SettingRefinement) -> Any:
    lines = [
        (row.base, f"{row.stage}, {row.operator}", row.metric, row.against, row.size if row.size != ALL else "all",
         str(row.n), number(row.plain), number(row.refined), with_interval(row.gain, row.low, row.high),
         probability(row.p_holm))
        for row in one.gains.itertuples()
        if row.stage == 1 and row.operator == PRODUCT and row.metric in ("arcc", "mask-cosine", one.metrics[-1])
    ]  # fmt: skip
    header = ("base", "refined from", "number", "against", "objects", "images", "plain", "refined", "gain", "p (Holm)")
    caption = "Maps refined from the shallowest stage; all stages and operators are in refinement.csv"
    return sheet(caption, header, lines, {1, 2, 3, 4})


def _operators(one: SettingRefinement) -> Any:
    lines = []
    for row in one.table[one.table["metric"] == "arcc"].itertuples():
        arm = arm_of(str(row.method))
        if arm is None or not arm.operator or arm.stage != 1:
            continue
        paper = PAPER.get(arm.base, {}).get(arm.operator)
        theirs = NONE if paper is None else f"{number(paper[0])} ± {number(paper[1])}"
        lines.append((arm.base, arm.operator, f"{number(row.mean)} ± {number(row.std)}", theirs))
    return sheet("ARCC by operator", ("base", "operator", "here", "paper R"), lines, {1})

"""The methods by all metrics: means by family, curves, tests, and the agreement of the metrics."""

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from heatproof.report.blocks import Answer, Drawing, Figures, Heading, Legend, Section, Text
from heatproof.report.comparisons import WORDS, Tested, comparison_blocks
from heatproof.report.findings import Findings
from heatproof.report.frames import slug
from heatproof.report.glossary import FAMILIES
from heatproof.report.legend import legend_figure
from heatproof.report.places import places
from heatproof.report.references import reference_blocks
from heatproof.report.score_figures import agreement_figure, curves_figure
from heatproof.report.score_findings import ScoreFindings, SettingScores
from heatproof.report.score_grids import Families, Family, definitions, families, legend, ordered, overview
from heatproof.statistics.reference_tests import ALL_SCORES as ALL
from heatproof.statistics.reference_tests import reference_sentence

INTRODUCTION = Markup(
    "All scores follow, grouped by the question that they answer. A score that a useless map can satisfy is "
    '<b>fooled</b> (⚑): it is shown in grey. <a href="#words">All words explained</a>.'
)
CURVES = (
    "The model's output while pixels are removed or restored in the order of the map: mean over the images, with the "
    "95 % interval as a band. Where pixels are removed, a good map makes the curve fall early; where they are "
    "restored, it makes it rise early. For mprt: the similarity with the original map while layers are drawn anew; "
    "for sensitivity-n: the correlation by the size of the subset. Controls are grey and dashed."
)
AGREEMENT = (
    "Rank correlation of every two scores over the real methods, image by image, signs turned so that 1 (blue) is "
    "the same order from best to worst, 0 (white) none, −1 (orange) the reverse. Scores that disagree do not measure "
    "the same thing."
)


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and dataset."""
    found = findings.scores
    beside = "-scores" if "robustness" in findings.section_names else ""  # two sections may not share their anchors
    for place, one in places(found.settings if found else ()):
        assert found is not None
        suffix = f"{beside}{place.suffix}"
        shown = list(families(findings, one, ordered(found, one), suffix))
        anchors = [(family.id, family.id.removeprefix("family-").capitalize()) for family in shown]
        yield place.section(
            f"result{beside}",
            "The methods by all scores",
            "Scores" if beside else "Results",
            "" if beside else place.where,
            blocks=list(_blocks(findings, found, one, shown, suffix)),
            anchors=() if place.several or beside else anchors,
            words=(
                *("Heatmap", "Score (metric)", "Control", "Fooled (⚑)", "★ and bold", "95 % interval", "Flagged"),
                *("Mean rank over the scores", *WORDS),
            ),
            definitions=list(definitions(found)) if place.first else (),
            answers=[Answer(_reference(found, one), (), place.where if place.several else "")] if one.reference else (),
        )


def _blocks(
    findings: Findings, found: ScoreFindings, one: SettingScores, shown: Sequence[Family], suffix: str
) -> Iterator[Any]:
    yield Text(f"{one.setting.model} · {one.setting.dataset}", "kind")
    if lead := overview(found, one):
        yield lead
        yield Text(INTRODUCTION)
    yield Legend(list(legend(found, one)))
    yield Families(shown)
    if len(one.curves):
        yield Heading("The curves behind the scores")
        yield Figures([_curves(findings, found, one, suffix)])
    yield from _tests(findings, found, one, suffix)
    agreement = one.agreement.dropna(how="all").dropna(how="all", axis=1)
    if not agreement.empty:
        yield Heading("Do the scores agree?")
        yield Figures([Drawing(f"agreement{suffix}", AGREEMENT, lambda: agreement_figure(agreement))], "wide")


def _curves(findings: Findings, found: ScoreFindings, one: SettingScores, suffix: str) -> Drawing:
    order = {metric: number for number, metric in enumerate(found.metrics)}
    metrics = sorted(dict.fromkeys(one.curves["metric"]), key=lambda metric: order.get(metric, len(order)))
    there = [method for method in ordered(found, one) if method in set(one.curves["method"])]
    looks = findings.looks

    def panel(metric: str) -> Any:
        lines = one.curves[one.curves["metric"] == metric]
        return lambda: curves_figure(lines, [metric], there, looks, columns=1, key=False)

    return Drawing(
        f"curves{suffix}",
        CURVES,
        lambda: curves_figure(one.curves, metrics, there, looks),
        {metric: panel(metric) for metric in metrics},
        lambda: legend_figure(there, looks),
    )


def _tests(findings: Findings, scores: ScoreFindings, one: SettingScores, suffix: str) -> Iterator[Any]:
    """Tests by all counted scores together, and by the first counted score of each family."""
    together = "Which method is best by all counted scores together?"
    found = dict(one.comparisons)
    asks = {name: FAMILIES.get(scores.family(name), ("How good is the map by this score?", ""))[0] for name in found}
    if one.verdict is not None and one.verdict.comparison is not None:
        found = {ALL: one.verdict.comparison, **found}
    tests = [
        Tested(
            f"ranks-{'all' if name == ALL else slug(name)}-{position}{suffix}",
            name,
            "images",
            comparison,
            together if name == ALL else asks[name],
            decides=name == ALL,
        )
        for position, (name, comparison) in enumerate(found.items())
        if comparison.friedman.n
    ]
    yield from comparison_blocks(tests, findings.looks)
    yield from reference_blocks(scores.reference, one.reference, _reference(scores, one))


def _reference(scores: ScoreFindings, one: SettingScores) -> str:
    """The sentence on the reference, by all scores together and the first counted score of each family."""
    told = {name: tests for name, tests in one.reference.items() if name == ALL or name in one.comparisons}
    return reference_sentence(scores.reference, told or one.reference, one.equal)

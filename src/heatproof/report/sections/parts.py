"""The study of parts: verdict, scores of every method, and the checks by threshold."""

from collections.abc import Iterator
from typing import Any

from heatproof.report.blocks import Details, Drawing, Figures, Heading, Section, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.frames import Frame
from heatproof.report.numbers import NONE, number, percent, with_interval
from heatproof.report.part_figures import part_scores_figure, threshold_figure
from heatproof.report.part_findings import PartFindings, Setting
from heatproof.report.places import places
from heatproof.statistics.part_scores import SUMS
from heatproof.statistics.special_rows import CHECKS

TEXT = (
    "The class of these images follows from their parts, and every part can be removed. So it is known which parts are "
    "enough for a class, how much each matters to the network, and what does not matter at all. A part is important in "
    "a map where it holds more than a share of it, the threshold."
)
CURVES = (
    "Each check by the threshold above which a part is important, mean over the validation images. The threshold of a "
    "method is where the mean of the first three plus the last is highest."
)
MEANINGS = (
    ("Completeness", "Half of (sufficiency + preservation + deletion) / 3 + distractibility."),
    ("Sufficiency (CSDC)", "The largest share of a set of parts that suffices for the class, among the important."),
    ("Preservation (PC)", "The prediction stays when all unimportant parts are removed."),
    ("Deletion (DC)", "The prediction changes when all important parts are removed."),
    ("Distractibility (D)", "One minus the share of what does not matter to the network that the map calls important."),
    ("Correctness", "Spearman's correlation of the parts' shares of the map with the drops of the logit when each part "
     "is removed, from 0 (reversed) over 0.5 (chance) to 1."),
    ("Contrastivity", "The maps of two other classes follow the parts that each shares with the image; 0 for a map "
     "that ignores the class."),
    ("Score", "The mean of completeness, correctness and contrastivity."),
)  # fmt: skip


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and test set."""
    found = findings.parts
    for place, setting in places(found.verdicts if found else (), lambda one: one):
        assert found is not None
        verdict = found.verdicts[setting]
        yield place.section(
            "parts",
            "Do the maps weigh the parts?",
            "Parts",
            blocks=list(_blocks(findings, found, setting, place.suffix)),
            answers=[place.answer(verdict)],
            warnings=[] if verdict.applies else [f"{place.where}: the ground truth does not apply to this network."],
            facts=[
                (name + (f", {place.where}" if place.several else ""), text) for name, text in _facts(found, setting)
            ],
            words=("Heatmap", "Control", "95 % interval", "Flagged"),
            definitions=[("The scores of this page", MEANINGS)] if place.first else (),
        )


def _facts(found: PartFindings, setting: Setting) -> Iterator[tuple[str, str]]:
    """What describes the network, not the maps; its accuracy is among the facts of every page."""
    yield "The network's background independence", percent(found.independence.get(setting, float("nan")))


def _blocks(findings: Findings, found: PartFindings, setting: Setting, suffix: str) -> Iterator[Any]:
    model, dataset = setting
    table: Frame = found.table
    table = table[(table["model"] == model) & (table["dataset"] == dataset)]
    table = table.sort_values(["control", "score"], ascending=[True, False], kind="stable")
    means: Frame = found.means
    means = means[(means["model"] == model) & (means["dataset"] == found.validation)]
    methods = list(table["method"])
    yield Text(f"{model} · {dataset}", "kind")
    yield Text(TEXT)
    yield sheet("The methods by their scores, with 95 % intervals by image", *_rows(table), controls=findings.controls)
    caption = "The scores of every method with 95 % intervals; the best first, controls below."
    yield Figures([Drawing(f"parts{suffix}", caption, lambda: part_scores_figure(table, findings.looks))], "wide")
    yield Heading("The checks of completeness")
    yield sheet("The checks at the threshold of each method", *_checks(table), controls=findings.controls)
    drawing = Drawing(f"thresholds{suffix}", CURVES, lambda: threshold_figure(means, methods, findings.looks))
    yield Details("The checks by threshold", [Figures([drawing], "wide")])


def _rows(table: Frame) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    lines = [
        (row["method"], *(with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in SUMS))
        for row in table.to_dict("records")
    ]
    return ("method", *SUMS), lines


def _checks(table: Frame) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    header = ("method", "threshold", *(name.removeprefix("part-") for name in CHECKS), "images for contrastivity")
    lines = []
    for row in table.to_dict("records"):
        at = NONE if row["threshold"] != row["threshold"] else number(row["threshold"], 3)
        count = f"{row['n_part-contrastivity']} of {row['n']}"
        lines.append((row["method"], at, *(number(row[name]) for name in CHECKS), count))
    return header, lines

"""The gallery: the cases that the study chose, each map with its values on that image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from heatproof.report.blocks import Section, Text
from heatproof.report.findings import Findings
from heatproof.report.gallery import DrawnCase, ImageTile, cases
from heatproof.report.numbers import number
from heatproof.report.score_grids import captions, value_text
from heatproof.studies.store import CONDITION_COLUMNS

SEVERAL = (
    "Each block is one image. The reference image is on the left, followed by the same image under the other "
    "conditions. Below are the maps of each method, laid over the image (bright = more important). RBO under a map "
    "says how far its ranking of the image's parts agrees with the reference map's (1 = the same). A changed "
    "prediction is written out and its maps have a dashed frame."
)
ONE = (
    "Each block is one image with the map of each method laid over it (bright = more important). Below each map are "
    "its scores on this image."
)
OUTLINE = "The white and black line is the edge of the ground truth."
NOTHING = "This folder has no gallery yet. It is made at the end of a run: run the same command again to finish it."


@dataclass(frozen=True)
class CaseBlock:
    """A case as a block of the page; `notes`: (method, column) → lines under the tile; `remark`: on the whole case."""

    kind: ClassVar[str] = "case"
    case: DrawnCase
    notes: Mapping[tuple[str, int], Sequence[str]]
    controls: frozenset[str]
    labels: Mapping[str, str] = field(default_factory=dict)
    remark: str = ""

    def called(self, method: str) -> str:
        """What a method is called; empty for the images themselves."""
        return self.labels.get(method, method)

    def lines(self, method: str, column: int) -> Sequence[str]:
        """The lines under a tile."""
        return self.notes.get((method, column), ())

    def tile(self, row: int, column: int) -> ImageTile:
        """A tile."""
        return self.case.rows[row].tiles[column]


def section(findings: Findings) -> Section:
    """Every case in the order stored."""
    found = cases(findings.source.folder, findings.labels)
    shown = [
        CaseBlock(case, _notes(findings, case), findings.controls, findings.labels, _remark(findings, case))
        for case in found
    ]
    several = any(len(case.columns) > 1 for case in found)
    text = NOTHING if not found else SEVERAL if several else ONE
    text = f"{text} {OUTLINE}" if any(case.masked for case in found) else text
    return Section(id="gallery", title="Gallery", blocks=[Text(text), *shown])


def _remark(findings: Findings, case: DrawnCase) -> str:
    """What an audit decided on this image for the method it recommends, or for the one that comes nearest."""
    facts = case.facts
    for one, images in findings.audited if "audit" in findings.section_names else ():
        if (one.model, one.dataset) == (facts["model"], facts["dataset"]) and one.findings:
            rows = images.of(one.recommended or next(iter(one.findings)))
            for row in rows[rows["image"] == facts["image"]].itertuples():
                return findings.labelled(f"{row.method}: {row.decision}{f': {row.reason}' if row.reason else ''}.")
    return ""


def _notes(findings: Findings, case: DrawnCase) -> dict[tuple[str, int], Sequence[str]]:
    if len(case.columns) > 1:
        return _overlaps(findings, case)
    return _scores(findings, case)


def _overlaps(findings: Findings, case: DrawnCase) -> dict[tuple[str, int], Sequence[str]]:
    """RBO with the reference map, under each condition."""
    found = findings.rows.execute(
        f"SELECT method, {', '.join(CONDITION_COLUMNS)}, value FROM rows "
        "WHERE metric = 'rbo' AND model = ? AND dataset = ? AND image = ? AND isfinite(value) "
        "ORDER BY segmenter = ? DESC, segmenter",
        [*(case.facts[name] for name in ("model", "dataset", "image")), _first_segmenter(findings)],
    )
    values: dict[tuple, float] = {}
    for *key, value in found.fetchall():
        values.setdefault(tuple(key), value)
    usual = {"target": findings.plan.get("target"), "severity": 0}
    return {
        (method, position): [f"RBO {number(values[key])}"]
        for method in case.facts["methods"]
        for position, column in enumerate(case.columns)
        if (key := (method, *(column.get(name, usual.get(name, "")) for name in CONDITION_COLUMNS))) in values
    }


def _first_segmenter(findings: Findings) -> str:
    named = findings.plan.get("segmenters") or [""]
    return named[0]


def _scores(findings: Findings, case: DrawnCase) -> dict[tuple[str, int], Sequence[str]]:
    """The first counted scores of the setting."""
    scores, facts = findings.scores, case.facts
    here = (facts["model"], facts["dataset"])
    one = next((one for one in scores.settings if one.setting == here), None) if scores else None
    if scores is None or one is None:
        return {}
    rows: Any = one.setting.of(scores.scores)
    rows = rows[rows["image"] == facts["image"]]
    values = {(row.method, row.metric): row.value for row in rows.itertuples()}
    return {
        (method, 0): [
            f"{metric} {value_text(one, scores.facts.get(metric, {}), metric, values[method, metric])}"
            for metric in captions(scores, one)
            if (method, metric) in values
        ]
        for method in facts["methods"]
    }

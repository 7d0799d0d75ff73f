"""The verdicts of a fidelity study."""

from collections.abc import Iterator

from heatproof.report.blocks import Answer, Section
from heatproof.report.condition_findings import ConditionFindings
from heatproof.report.findings import Findings


def section(findings: Findings) -> Section | None:
    """The verdict on each model and dataset."""
    found = findings.conditions
    if found is None:
        return None
    first = found.settings[0].scores
    count = len(first[["target", "transformation"]].drop_duplicates())
    return Section(answers=list(_answers(found)), facts=[("Conditions", str(count))])


def _answers(found: ConditionFindings) -> Iterator[Answer]:
    for one in found.settings:
        where = f"{one.setting.model} on {one.setting.dataset}" if len(found.settings) > 1 else ""
        yield Answer(one.verdict.sentence, one.verdict.notes, where)

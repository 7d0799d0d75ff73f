"""The verdicts of a score study, and a warning for metrics whose direction is not known."""

from collections.abc import Iterator

from heatproof.report.blocks import Answer, Section
from heatproof.report.findings import Findings
from heatproof.report.score_findings import ScoreFindings


def section(findings: Findings) -> Section | None:
    """The verdict on each model and dataset."""
    found = findings.scores
    if found is None:
        return None
    unknown = [metric for metric in found.metrics if not found.facts.get(metric, {}).get("better")]
    warning = f"It is not known which way is better for {', '.join(unknown)}: shown, but not judged."
    facts = [("Scores", str(len(found.metrics)))]
    return Section(answers=list(_answers(found)), facts=facts, warnings=[warning] if unknown else ())


def _answers(found: ScoreFindings) -> Iterator[Answer]:
    for one in found.settings:
        where = f"{one.setting.model} on {one.setting.dataset}" if len(found.settings) > 1 else ""
        if one.verdict is None:
            yield Answer("No verdict: for no score is it known which way is better.", (), where)
        else:
            yield Answer(one.verdict.sentence, one.verdict.notes, where)

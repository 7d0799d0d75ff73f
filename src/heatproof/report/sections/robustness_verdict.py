"""The verdicts of a noise study, and its facts for the top of the page."""

from collections.abc import Iterator

from heatproof.report.blocks import Answer, Section
from heatproof.report.findings import Findings
from heatproof.report.numbers import percent
from heatproof.report.robustness_findings import RobustnessFindings
from heatproof.statistics.robustness_verdict import Verdict
from heatproof.statistics.wording import counted


def section(findings: Findings) -> Section | None:
    """The verdict of every model and dataset, and of all together where there are several."""
    found = findings.robustness
    return (
        None
        if found is None
        else Section(answers=list(_answers(found)), facts=list(_facts(found, bool(findings.plan.get("calibrate")))))
    )


def _answers(found: RobustnessFindings) -> Iterator[Answer]:
    if found.together is not None:
        yield _answer(found.together, "All models and images together")
    for setting, verdict in found.verdicts.items():
        yield _answer(verdict, f"{setting.model} on {setting.dataset}" if found.together is not None else "")


def _answer(verdict: Verdict, where: str) -> Answer:
    return Answer(verdict.sentence, verdict.notes, where)


def _facts(found: RobustnessFindings, calibrated: bool) -> Iterator[tuple[str, str]]:
    kinds, severities = found.table["perturbation"].nunique(), found.stored.cells["severity"].nunique()
    name = "calibrated strength" if calibrated else "severity"
    strengths = counted(severities, name).replace("severitys", "severities")
    yield "Noise", f"{counted(kinds, 'kind')} × {strengths}"
    rates = found.flips.loc[found.flips["severity"] != "all", "flip_rate"]
    if len(rates):
        yield "Predictions changed", f"{percent(rates.min())} to {percent(rates.max())}, by kind and severity"

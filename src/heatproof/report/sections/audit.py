"""The audit: the recommended method with two examples, the answers for every method, and what not to conclude."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from heatproof.report.blocks import Details, Heading, Legend, Section, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.gallery import DrawnCase, cases
from heatproof.report.numbers import number, probability
from heatproof.report.places import places
from heatproof.statistics.audit_answers import FAIL, OPEN, PASS, QUESTIONS, AuditFindings, Finding

#: The most examples of the recommended method.
SHOWN = 2
MARKS = {PASS: "✓ pass", FAIL: "✗ fail", OPEN: "? cannot be told"}
RULE = (
    "Each cell shows the control with the best mean. ✓: better than every control, or below the bar. ✗: a control, "
    "or the bar, is better. Both by one-sided tests at 5 %, corrected for the number of methods. “?”: the difference "
    "may be chance. Several scores of a question are tested together; all p values stand under “Every test”. The "
    "section of the scores tests the best method alone, so it may call a control worse where this table does not."
)
LIMITS = (
    "A pass says that a map is better than useless maps by the tests named, not that it shows everything the model "
    "used, nor that what it shows is a reason to trust the model.",
    "It holds for this model, this layer, the class that was explained and images like these; other images need an "
    "audit of their own.",
    "“Stable” and “responds” hold for the kinds and strengths of noise that were tried.",
    "A method that is not recommended is not shown to be wrong, unless it has a fail.",
    "Two methods with the same answers are not shown to be equally good, and “cannot be told” is no pass.",
    "One image may differ from the whole: a fit method can fail on the image in front of you.",
)


@dataclass(frozen=True)
class AnswerCell:
    """One answer: pass, fail or cannot be told, and why."""

    answer: str
    mark: str
    why: Sequence[str]


@dataclass(frozen=True)
class AuditTable:
    """Methods × questions, with the verdict on each method; a block of the page."""

    kind: ClassVar[str] = "audit"
    label: str
    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, bool, str, Sequence[AnswerCell]]]


@dataclass(frozen=True)
class Examples:
    """Images with the map of one method beside them; a block of the page."""

    kind: ClassVar[str] = "examples"
    method: str
    cases: Sequence[tuple[DrawnCase, int]]


def section(findings: Findings) -> Iterator[Section]:
    """A section for each model and dataset."""
    drawn = cases(findings.source.folder, findings.labels)
    for place, one in places(findings.audits, lambda one: (one.model, one.dataset)):
        yield place.section(
            "audit",
            "Which method passes what",
            "Verdict",
            place.where,
            blocks=list(_blocks(findings, one, drawn)),
            answers=[place.answer(one)],
            facts=list(_budget(findings)) if place.first else (),
            words=("Control", "Flagged"),
        )


def _budget(findings: Findings) -> Iterator[tuple[str, str]]:
    estimate = findings.plan.get("estimate")
    if estimate and estimate["images"] < estimate["of"]:
        budget = f"{findings.plan.get('budget'):g} minutes"
        yield "Chosen by the budget", f"{estimate['images']} of {estimate['of']} images, for {budget}"


def _blocks(findings: Findings, one: AuditFindings, drawn: Sequence[DrawnCase]) -> Iterator[Any]:
    asked = [question for question in QUESTIONS if any(question.name in given for given in one.findings.values())]
    yield Text(f"{one.model} · layer {one.layer} · {one.dataset} · {one.images} images", "kind")
    if one.recommended and (shown := list(_examples(one, drawn))):
        yield Examples(findings.labels.get(one.recommended, one.recommended), shown)
    rows = [
        (m, m == one.recommended, one.verdict(m), [*(_cell(given.get(q.name)) for q in asked), _beaten(one, m)])
        for m, given in one.findings.items()
    ]
    columns = [*((q.name, q.asks) for q in asked), ("beats controls", "By how many scores is it better than all?")]
    yield AuditTable(f"What each method passes: {one.model}", columns, rows)
    yield Legend([(q.name, f"pass: {q.rule}.") for q in asked])
    yield Text(RULE, "caption")
    yield Legend(list(_metrics(findings, one)))
    missing = [question for question in QUESTIONS if question not in asked]
    if missing:
        yield Text(
            f"Not asked: {'; '.join(question.asks for question in missing)} There were no rows to answer this with"
            + (", or the class explained is fixed." if findings.plan.get("target") != "predicted" else ".")
        )
    yield Heading("What must not be concluded")
    yield from map(Text, LIMITS)
    yield Details("Every test behind the table", [_tests(one)])
    yield from _studies(findings, one)


def _metrics(findings: Findings, one: AuditFindings) -> Iterator[tuple[str, str]]:
    """The metrics behind the answers, with their summaries."""
    facts = findings.plan.get("metric_facts") or {}
    every = [
        evidence.what for given in one.findings.values() for found in given.values() for evidence in found.evidence
    ]
    for metric in dict.fromkeys(every):
        if summary := str(facts.get(metric, {}).get("summary") or "").replace("`", ""):
            yield metric, summary


def _examples(one: AuditFindings, drawn: Sequence[DrawnCase]) -> Iterator[tuple[DrawnCase, int]]:
    """The first images of the gallery on which the method has a map, each once."""
    seen: set[str] = set()
    for case in drawn:
        facts = case.facts
        here = (facts["model"], facts["dataset"]) == (one.model, one.dataset)
        if here and one.recommended in facts["methods"] and facts["image"] not in seen and len(seen) < SHOWN:
            seen.add(facts["image"])
            yield case, 1 + facts["methods"].index(one.recommended)


def _cell(finding: Finding | None) -> AnswerCell:
    if finding is None:
        return AnswerCell("", "–", ["not asked"])
    return AnswerCell(finding.answer.split()[0], MARKS[finding.answer], finding.why)


def _beaten(one: AuditFindings, method: str) -> AnswerCell:
    beaten, of = one.beaten(method)
    return AnswerCell("", f"{beaten} of {of}", [])


def _tests(one: AuditFindings) -> Any:
    header = ("method", "question", "answer", "by", "value", "held against", "its value", "p (Holm)",
              "p of the question", "images")  # fmt: skip
    lines = [
        (method, name, evidence.answer, evidence.what, number(evidence.value, 3), evidence.against,
         number(evidence.other, 3), probability(evidence.p), probability(finding.p), str(evidence.n))
        for method, given in one.findings.items()
        for name, finding in given.items()
        for evidence in finding.evidence
    ]  # fmt: skip
    return sheet(
        "Each test. Shown is the control with the best mean; p is the largest of all controls, of a fail the smallest",
        header,
        lines,
        {1, 2, 3, 5},
        captioned=False,
    )


def _studies(findings: Findings, one: AuditFindings) -> Iterator[Any]:
    """The verdicts of the noise and score studies by themselves."""
    sentences = []
    if findings.robustness is not None:
        verdicts = findings.robustness.verdicts.items()
        sentences += [verdict.sentence for setting, verdict in verdicts if setting[:2] == (one.model, one.dataset)]
    if findings.scores is not None:
        found = [s.verdict for s in findings.scores.settings if s.setting == (one.model, one.dataset)]
        sentences += [verdict.sentence for verdict in found if verdict is not None]
    if sentences:
        yield Heading("The verdicts of the noise and score studies by themselves")
        yield from map(Text, sentences)

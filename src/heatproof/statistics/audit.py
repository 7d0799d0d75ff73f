"""Which heatmap may be shown: questions about each method, each answered by a test against the controls.

A question is answered by metrics (image by image, Wilcoxon's signed-rank test, one-sided) or by a quantity of the noise
study (bootstrap by image). The answer is one of three: pass, fail, cannot be told. Pass and fail are tests.

With one metric a pass means better than *every* control, so the largest p of its tests counts (intersection-union). A
fail means that *some* control is better (the smallest p, times the number of controls). With several metrics a pass
means better than every control by *most* of them (`most`), and a fail by none: the p of "at least r of m" is
`(m − r + 1) p₍r₎` (partial conjunction, Benjamini & Heller 2008), because a metric without a clear result on these
images is no evidence against a map. Holm corrects over the methods. Controls have trivial values by the metrics of a
change with the weights or the class: there a fixed threshold (`bar`) replaces them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from scipy.stats import norm

from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.audit_answers import (
    COVERED,
    FAIL,
    LEVEL,
    OPEN,
    PASS,
    PEAK,
    QUESTIONS,
    AuditFindings,
    Evidence,
    Finding,
    Question,
    at_least,
    most,
)
from heatproof.statistics.audit_sentence import notes, sentence
from heatproof.statistics.equal_maps import DISTINCT, EqualMaps
from heatproof.statistics.intervals import Interval
from heatproof.statistics.paired import can_be_significant, differences, holm, signed_ranks
from heatproof.statistics.peaks import Peaks
from heatproof.statistics.robustness import COMPUTED
from heatproof.statistics.robustness_verdict import Verdict
from heatproof.statistics.score_tables import better, wide_scores
from heatproof.statistics.settling import enough_images, fewest_images
from heatproof.statistics.wording import counted


def audit_findings(
    scores: Any,
    directions: Mapping[str, Any],
    verdict: Verdict | None,
    ranks: Mapping[str, float],
    *,
    model: str,
    dataset: str,
    layer: str = "",
    layers: Mapping[str, str] | None = None,
    refused: Mapping[str, str] | None = None,
    fixed: bool = False,
    level: float = LEVEL,
    equal: EqualMaps = DISTINCT,
) -> AuditFindings:
    """Answers every question for which there are rows, for every real method.

    Args:
        scores: rows of one model and dataset: image, method, metric, value, control.
        directions: metric → "high" or "low" (or study.json's `metric_facts`).
        verdict: of the noise study on the same model and dataset.
        layers: method → the layers that it read.
        refused: method → why it does not serve the model; nothing is asked of it.
        fixed: whether the class explained stays when the prediction changes; then no map need follow the prediction.
        ranks: method → mean rank over the scores that count; decides where passes and fails are equal.
        equal: methods with equal maps: one of each group is tested, and its findings are those of all.
    """
    refused = refused or {}
    scores = equal.kept(scores[~scores["method"].isin(list(refused))])
    real = [str(name) for name in dict.fromkeys(scores.loc[~scores["control"].astype(bool), "method"])]
    findings: dict[str, dict[str, Finding]] = {method: {} for method in real}
    for question in QUESTIONS:
        if fixed and question.quantity == "within":
            continue
        for finding in _answers(question, scores, directions, verdict, real, level):
            findings[finding.method][question.name] = finding
    images = int(scores.loc[scores["value"].notna(), "image"].nunique())
    findings = {method: _steady(findings[method]) for method in _order_methods(findings, ranks)}
    fit = tuple(method for method in findings if _is_fit(findings[method]))
    found = AuditFindings(model, dataset, layer, findings, fit[0] if fit else None, "", (), fit, images, layers or {},
                          refused, peaks=_peaks(scores))  # fmt: skip
    said = {"sentence": sentence(found), "notes": (*equal.notes(), *notes(found))}
    return replace(found, **said, findings=_of_all(equal, findings), fit=equal.named(fit))


def _peaks(scores: Any) -> dict[str, Peaks]:
    """How often the peak of each method lies on the ground truth; nothing without masks."""
    here = scores[scores["metric"] == PEAK]
    flat = here["flag"].astype(str) != "" if "flag" in here else np.zeros(len(here), bool)
    decisions: dict[str, list[tuple[float, bool]]] = {}
    for method, value, degenerate in zip(here["method"], here["value"].astype(float), flat, strict=True):
        decisions.setdefault(str(method), []).append((value, bool(degenerate)))
    found = {method: Peaks.of(one) for method, one in decisions.items()}
    return {method: one for method, one in found.items() if one.images}


def _of_all(equal: EqualMaps, findings: Mapping[str, dict[str, Finding]]) -> dict[str, dict[str, Finding]]:
    """The findings, also of the methods that another stands for."""
    return {
        method: {name: replace(finding, method=method) for name, finding in given.items()}
        for method, given in equal.spread(findings).items()
    }


def _answers(
    question: Question,
    scores: Any,
    directions: Mapping[str, Any],
    verdict: Verdict | None,
    real: Sequence[str],
    level: float,
) -> list[Finding]:
    if question.quantity:
        return [_of_quantity(question, verdict, method, level) for method in real] if verdict is not None else []
    there = [metric for metric in question.metrics if scores.loc[scores["metric"] == metric, "value"].notna().any()]
    by_metric = [_of_metric(scores, metric, directions, real, question.bar, level) for metric in there]
    evidence = {method: [found[method] for found in by_metric] for method in real if by_metric}
    alone = [at_least(most(there), [one.raw for one in evidence[m]]) for m in evidence]
    counts = [max(one.n for one in evidence[m]) for m in evidence]
    enough = [enough_images(n, float(p), len(evidence), level) for n, p in zip(counts, alone, strict=True)]
    return [
        _together(question, method, evidence[method], float(p), level, images)
        for method, p, images in zip(evidence, holm(alone), enough, strict=True)
    ]


@dataclass(frozen=True)
class _Test:
    """One method against one control, or against the bar: means, one-sided p of being better, and of being worse.

    A p is 1 where the means do not say the same.
    """

    against: str
    value: float
    other: float
    p: float
    p_worse: float
    n: int


def _of_metric(
    scores: Any, metric: str, directions: Mapping[str, Any], real: Sequence[str], bar: float | None, level: float
) -> dict[str, Evidence]:
    """Method → the evidence of one metric."""
    here = scores[scores["metric"] == metric]
    sign = -1 if better(directions, metric) == "low" else 1
    wide: Any = wide_scores(here)
    images = int(wide.notna().any(axis=1).sum())
    useless = [str(name) for name in dict.fromkeys(here.loc[here["control"].astype(bool), "method"])]
    useless = [name for name in useless if wide[name].notna().any()]
    tests = {m: list(_tests(wide, m, useless, sign, bar)) if m in wide else [] for m in real}
    raw = {m: max((test.p for test in tests[m]), default=np.nan) for m in real}
    better_p = holm([raw[m] for m in real])
    worse_p = holm([min([min(1.0, len(tests[m]) * test.p_worse) for test in tests[m]], default=np.nan) for m in real])
    return {
        m: replace(
            _evidence(metric, m, tests[m], sign, float(p), float(worse), len(real), images, level)
            if m in wide and wide[m].notna().any()
            else _no_evidence(metric, m, here),
            raw=raw[m],
        )
        for m, p, worse in zip(real, better_p, worse_p, strict=True)
    }


def _tests(wide: Any, method: str, useless: Sequence[str], sign: int, bar: float | None):
    for control in useless if bar is None else [""]:
        pair = wide[[method, control]].dropna() if control else wide[[method]].dropna()
        if len(pair):
            own = pair[method].to_numpy(np.float64)
            other = pair[control].to_numpy(np.float64) if control else np.full(len(own), bar)
            _, p, effect, _ = signed_ranks(differences(sign * own, sign * other))
            gap = rounded(sign * (own.mean() - other.mean()), largest(np.concatenate([own, other]), None), ANSWER_STEP)
            p, p_worse = (p / 2, 1 - p / 2) if effect > 0 else (1 - p / 2, p / 2)
            p, p_worse = (p if gap > 0 else 1.0), (p_worse if gap < 0 else 1.0)  # ranks alone do not decide
            yield _Test(control or "bar", own.mean(), other.mean(), p, p_worse, len(own))


def _evidence(
    metric: str,
    method: str,
    tests: Sequence[_Test],
    sign: int,
    p: float,
    worse: float,
    methods: int,
    images: int,
    level: float,
) -> Evidence:
    """Pass: significantly better than all controls, or the bar. Fail: one of them is significantly better."""
    if not tests:
        why = f"{metric}: no control to compare with"
        return Evidence(method, metric, OPEN, np.nan, "", np.nan, np.nan, 0, why=why, needs="controls")
    nearest = max(tests, key=lambda test: (sign * test.other, test.against))
    covered = all(test.n >= COVERED * images for test in tests)
    few = min(tests, key=lambda test: test.n)
    why = ""
    if not covered or not can_be_significant(few.n, methods, level, one_sided=True):
        why = f"{metric}: a value on {few.n} of {images} images is too few"
    answer = OPEN
    if not why and p < 1 - level:
        answer = PASS
    elif not why and worse < 1 - level:
        answer = FAIL
    needs = "images" if answer == OPEN and covered else ""
    shown = worse if answer == FAIL else p
    given = nearest.value, nearest.against, nearest.other, shown, nearest.n
    return Evidence(method, metric, answer, *given, why=why, needs=needs)


def _no_evidence(metric: str, method: str, here: Any) -> Evidence:
    """A method without a value, with the most frequent flag as the reason; more images would not help."""
    flags = here.loc[(here["method"] == method) & (here["flag"].astype(str) != ""), "flag"]
    reason = f" ({flags.mode().iloc[0]})" if len(flags) else ""
    return Evidence(method, metric, OPEN, np.nan, "", np.nan, np.nan, 0, why=f"{metric}: no value{reason}")


def _of_quantity(question: Question, verdict: Verdict | None, method: str, level: float) -> Finding:
    """By the bootstrap of the noise study. Pass: significantly higher than all controls; fail: lower than one."""
    assert verdict is not None
    figures = verdict.beside.get(question.quantity, {})
    own = figures.get(method)
    controls = [name for name in figures if name in verdict.controls and not np.isnan(figures[name].value)]
    controls = [name for name in controls if not question.controls or name in question.controls]
    needs = "flips" if question.quantity == "within" else "images"
    if not verdict.support.get("consistency", {}).get(method) and (own is None or np.isnan(own.value)):
        return Finding(question, method, OPEN, ("no value: no pair of maps with one prediction",))
    if own is None or np.isnan(own.value):
        few = "held" if question.quantity == "consistency" else f"changed or held (at least {COMPUTED} each are needed)"
        return Finding(question, method, OPEN, (f"no value: too few predictions {few}",), needs=needs)
    images = verdict.support.get(question.quantity, {}).get(method, 0)
    tests = len(verdict.beats.get(question.quantity, {}))
    share = images / verdict.images if verdict.images else 0.0
    if not can_be_significant(images, tests, level, one_sided=True):
        kind = "held" if question.quantity == "consistency" else "changed, or held,"
        why = f"the prediction {kind} on {counted(images, 'image')}, which is too few"
        enough = ceil(fewest_images(tests, level) / share) if share else None
        return Finding(question, method, OPEN, (why,), needs=needs, enough=enough)
    if not controls:
        return Finding(question, method, OPEN, ("no control to compare with",), needs="controls")
    left = [name for name in controls if name not in verdict.beats.get(question.quantity, {}).get(method, ())]
    nearest = max(controls, key=lambda name: (figures[name].value, name))
    behind = set(verdict.behind.get(question.quantity, {}).get(method, ())) & set(controls)
    answer = PASS if not left else FAIL if behind else OPEN
    name = {"consistency": "RBO", "within": "responsiveness"}[question.quantity]
    value, other = own.value, figures[nearest].value
    evidence = Evidence(method, name, answer, value, nearest, other, np.nan, images)
    enough = enough_images(images, max(_p_of(own, figures[name]) for name in controls), tests, level)
    given: dict[str, Any] = {"needs": needs, "enough": enough and ceil(enough / share)} if answer == OPEN else {}
    return Finding(question, method, answer, (evidence.text,), (evidence,), **given)


def _p_of(own: Interval, other: Interval) -> float:
    """About the one-sided p of one mean being above another, by their intervals, as if they were independent."""
    error = np.hypot(own.high - own.low, other.high - other.low) / (2 * norm.ppf(0.5 + own.level / 2))
    return float(norm.sf((own.value - other.value) / error)) if error > 0 else np.nan


def _together(
    question: Question, method: str, evidence: Sequence[Evidence], p: float, level: float, enough: int | None
) -> Finding:
    """Pass where most metrics are significant together (`p`) and none fails; fail where most fail and none passes."""
    given = [one.answer for one in evidence]
    few = any(one.why for one in evidence)
    answer = OPEN
    if p < 1 - level and FAIL not in given and not few:
        answer = PASS
    elif given.count(FAIL) >= most(given) and PASS not in given:
        answer = FAIL
    marks = {PASS: "✓ ", FAIL: "✗ ", OPEN: ""} if len(evidence) > 1 else {}
    lines = tuple(f"{marks.get(one.answer, '')}{one.text}" for one in evidence)
    needs = next((one.needs for one in evidence if one.needs), "") if answer == OPEN else ""
    return Finding(question, method, answer, lines, tuple(evidence), p, needs, enough if needs == "images" else None)


def _steady(given: dict[str, Finding]) -> dict[str, Finding]:
    """Passes for changes with weights or class become open for a map that is not stable: it changes in any case."""
    if "stable" not in given or given["stable"].answer == PASS:
        return given
    why = "the map is not shown to be stable, so its change proves nothing"
    return {
        name: replace(one, answer=OPEN, why=(*one.why, why), needs="")
        if one.question.bar and one.answer == PASS
        else one
        for name, one in given.items()
    }


def _order_methods(findings: Mapping[str, Mapping[str, Finding]], ranks: Mapping[str, float]) -> list[str]:
    """All methods: most passes first, then fewest failures, then by mean rank over the scores."""

    def key(method: str) -> tuple:
        given = [one.answer for one in findings[method].values()]
        known = any(not np.isnan(e.value) for one in findings[method].values() for e in one.evidence)
        rank = float(rounded(np.float64(ranks.get(method, np.inf)))) if method in ranks else np.inf
        return not known, -given.count(PASS), given.count(FAIL), rank, method

    return sorted(findings, key=key)


def _is_fit(given: Mapping[str, Finding]) -> bool:
    """Whether a method passes `faithful`, fails no question that is `needed`, and has a value for weights and class.

    Maps that cannot be made again, for other weights or another class, may have nothing to do with the model.
    """
    failed = any(one.answer == FAIL and one.question.needed for one in given.values())
    again = all(any(not np.isnan(e.value) for e in one.evidence) for one in given.values() if one.question.bar)
    return "faithful" in given and given["faithful"].answer == PASS and not failed and again

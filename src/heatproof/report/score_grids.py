"""Methods × metrics by family, as the page and the terminal show them, with the leaders and the fooled metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from heatproof.report.blocks import Sheet, sheet
from heatproof.report.findings import Findings
from heatproof.report.frames import slug
from heatproof.report.glossary import FAMILIES
from heatproof.report.numbers import NONE, number
from heatproof.report.score_findings import ScoreFindings, SettingScores
from heatproof.statistics.score_grid import GridSource, ScoreGrid, in_percent, positions
from heatproof.statistics.score_tables import ARROWS
from heatproof.statistics.score_verdict import ASIDE, ranking_sentence
from heatproof.statistics.wording import counted

#: The columns that fit on a page; a family with more is split into tables of equal width.
ABREAST = 9


@dataclass(frozen=True)
class Family:
    """All that is shown of one family of scores."""

    id: str
    title: str
    text: str
    grids: tuple[ScoreGrid, ...]
    sentences: tuple[str, ...]
    fooled: int
    count: int
    empty: tuple[str, ...] = ()


@dataclass(frozen=True)
class Families:
    """The families of one setting, a block of the page."""

    kind: ClassVar[str] = "families"
    families: Sequence[Family]


def families(findings: Findings, one: SettingScores, methods: Sequence[str], suffix: str = "") -> Iterator[Family]:
    """The metrics by family, in the order of the page; metrics of no family last."""
    scores: Any = findings.scores
    there = list(dict.fromkeys(one.table["metric"]))
    known = set(one.table.loc[one.table["mean"].notna(), "metric"])
    source = grid_source(findings, one)
    for family in dict.fromkeys(scores.family(metric) for metric in there):
        metrics = [metric for metric in there if scores.family(metric) == family]
        title, text = FAMILIES.get(family, (family or "Other scores", ""))
        name = slug(family or "other")
        shown = [metric for metric in metrics if metric in known]
        grids = tuple(source.grid(methods, part, f"{title} ({name})") for part in _parts(shown))
        judged = [one.rankings[metric] for metric in shown if metric in one.rankings]
        empty = tuple(_without(findings, [metric for metric in metrics if metric not in known]))
        fooled = sum(bool(each.fooled) for each in judged)
        sentences = tuple(ranking_sentence(each) for each in judged)
        yield Family(f"family-{name}{suffix}", title, text, grids, sentences, fooled, len(shown), empty)


def grid_source(findings: Findings, one: SettingScores) -> GridSource:
    """What the grids of one setting are made from."""
    scores: Any = findings.scores
    aside = int((findings.flagged["dataset"] == one.setting.dataset).sum())
    return GridSource(one.table, one.rankings, scores.facts, one.equal, scores.controls, aside)


def _without(findings: Findings, metrics: Sequence[str]) -> Iterator[str]:
    """Metrics that no method has a number for, by reason."""
    groups: dict[str, list[str]] = {}
    for metric in metrics:
        reasons = [row.flag for row in findings.reasons.itertuples() if metric in list(row.metrics)]
        groups.setdefault("; ".join(reasons[:3]), []).append(metric)
    for reason, names in groups.items():
        yield f"{', '.join(names)} ({reason})" if reason else ", ".join(names)


def _parts(metrics: Sequence[str]) -> list[Sequence[str]]:
    """Equal parts, none with more than ABREAST."""
    if not metrics:
        return []
    size = -(-len(metrics) // -(-len(metrics) // ABREAST))
    return [metrics[start : start + size] for start in range(0, len(metrics), size)]


def value_text(one: SettingScores, fact: Mapping[str, Any], metric: str, value: float) -> str:
    """One value as the page writes it outside a table, with the decimals of its column."""
    if in_percent(fact):
        return f"{number(100 * value, positions(one.table, fact, metric))} %" if value == value else NONE
    return number(value, positions(one.table, fact, metric))


def legend(scores: ScoreFindings, one: SettingScores) -> Iterator[tuple[str, str]]:
    """The meaning of the marks that occur in the tables."""
    yield "↑ ↓", "higher, lower is better."
    if any(in_percent(scores.facts.get(metric, {})) for metric in one.rankings):
        yield "%", "in percent of the highest value there can be."
    yield "★", "best mean among the real methods; bold: it, and those that cannot be told from it (p ≥ .05)."
    if any(each.fooled for each in one.rankings.values()):
        yield "⚑", "fooled: this control cannot be told from the best method. The column is grey and not counted."
    if scores.controls:
        yield "control", "a map that is useless on purpose; it should come last."
    if scores.aside:
        yield scores.aside, "the first method's map rescaled, to see what scores read; it is no method, and not ranked."


def overview(scores: ScoreFindings, one: SettingScores) -> Sheet | None:
    """The mean rank of each method, and by how many counted scores of each family it shares the top."""
    verdict = one.verdict
    if verdict is None or not verdict.ranks:
        return None
    groups: dict[str, list[str]] = {}
    for metric in verdict.counted:
        groups.setdefault(scores.family(metric) or "other", []).append(metric)
    header = ("method", "mean rank over the scores", "shares the top", *(f"of {name}" for name in groups))
    lines = []
    for method, rank in verdict.ranks.items():
        firsts = set(verdict.firsts[method])
        shares = (f"{len(firsts & set(metrics))} of {len(metrics)}" for metrics in groups.values())
        lines.append(
            (" = ".join(one.equal.named([method])), number(rank), f"{len(firsts)} of {len(verdict.counted)}", *shares)
        )
    count = len(verdict.counted)
    tested = all(ranking.exposed for ranking in one.rankings.values() if ranking.metric in verdict.counted)
    which = ["that no control fooled"] if scores.controls and tested else []
    which += [f"that ask{'s' if count == 1 else ''} whether a map is right"] if not set(groups) & set(ASIDE) else []
    over = f"{counted(count, 'score') if count > 1 else 'one score'} {' and '.join(which)}".rstrip()
    beside = "Beside it: by how many of them a method is best, or cannot be told from the best."
    return sheet(f"Mean rank over the {over}; 1 is best. {beside}", header, lines)


def ordered(scores: ScoreFindings, one: SettingScores) -> list[str]:
    """Real methods by mean rank over the scores, then as in the plan; then an arm that is not ranked; controls last."""
    ranks = one.equal.spread(one.verdict.ranks) if one.verdict else {}
    there = set(one.table["method"])
    names = [method for method in scores.methods if method in there]
    return sorted(
        names, key=lambda m: (m in scores.controls, m == scores.aside, ranks.get(m, math.inf), names.index(m))
    )


def captions(scores: ScoreFindings, one: SettingScores, most: int = 3) -> list[str]:
    """The metrics whose values stand under a map of the gallery: the first counted one of each family."""
    counted_ones = one.verdict.counted if one.verdict else ()
    firsts = {scores.family(metric): metric for metric in reversed(counted_ones)}
    return [metric for metric in counted_ones if metric in firsts.values()][:most]


def definitions(scores: ScoreFindings) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Every metric shown, by family: its name with the arrow, and what it is."""
    for family in dict.fromkeys(scores.family(metric) for metric in scores.metrics):
        lines = []
        for metric in scores.metrics:
            fact = scores.facts.get(metric, {})
            if scores.family(metric) == family:
                lines.append((f"{metric} {ARROWS.get(str(fact.get('better')), '')}".strip(), _about(fact)))
        yield FAMILIES.get(family, (family or "Other scores", ""))[0], lines


def _about(fact: Mapping[str, Any]) -> str:
    """Summary, range and source of a metric."""
    low, high = (*(fact.get("range") or ()), None, None)[:2]
    bounds = {
        (True, True): f"Between {low} and {high}.",
        (True, False): f"From {low} upwards.",
        (False, True): f"Up to {high}.",
    }.get((low is not None, high is not None), "")
    source = f"Source: {fact['source']}." if fact.get("source") else ""
    parts = [str(fact.get("summary") or "").replace("`", ""), bounds, source]
    return " ".join(part for part in parts if part) or "No description was stored."

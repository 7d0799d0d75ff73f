"""Findings of metrics on the reference images: means, rankings by metric, the verdict, agreement, curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from heatproof.report import frames
from heatproof.report.frames import Frame
from heatproof.report.glossary import FAMILIES
from heatproof.report.source import Source
from heatproof.statistics.equal_maps import EqualMaps, equal_maps
from heatproof.statistics.fooling import MetricRanking, fooled
from heatproof.statistics.metric_agreement import metric_agreement
from heatproof.statistics.paired import Comparison
from heatproof.statistics.reference_tests import ReferenceTests, score_reference_tests
from heatproof.statistics.rescaled_maps import added_arm
from heatproof.statistics.score_tables import COLUMNS as SCORE_COLUMNS
from heatproof.statistics.score_tables import curve_table, score_table
from heatproof.statistics.score_verdict import ScoreVerdict, score_verdicts

#: The most scores with a rank diagram of their own, besides that of the average over all.
DIAGRAMS = 3


class ScoreSetting(NamedTuple):
    """One model and one dataset; scores of several are never averaged."""

    model: str
    dataset: str

    def of(self, frame: Frame) -> Frame:
        """The rows of `frame` that belong to this setting."""
        return frame[(frame["model"] == self.model) & (frame["dataset"] == self.dataset)]


@dataclass(frozen=True)
class SettingScores:
    """The findings of one setting: means, rankings by metric, verdict, agreement of metrics, curves, rank tests.

    `equal`: the methods with equal maps, of which one is in the rankings, the verdict, the agreement and the tests.
    `reference`: quantity → the tests of the plan's reference against every other method, where there is one.
    """

    setting: ScoreSetting
    table: Frame
    rankings: Mapping[str, MetricRanking]
    verdict: ScoreVerdict | None
    agreement: Frame
    curves: Frame
    comparisons: Mapping[str, Comparison]
    equal: EqualMaps
    reference: Mapping[str, ReferenceTests] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreFindings:
    """The numbers behind tables and figures. `facts`: metric → better, range, family, summary.

    aside: an arm that is shown and takes no part in rankings, verdict, agreement and tests (`added_arm`); or empty.
    reference: the method that is compared with every other; or empty.
    """

    scores: Frame
    table: Frame
    methods: Sequence[str]
    controls: frozenset[str]
    metrics: Sequence[str]
    facts: Mapping[str, Mapping[str, Any]]
    settings: Sequence[SettingScores]
    aside: str = ""
    reference: str = ""

    @classmethod
    def of(cls, source: Source) -> "ScoreFindings | None":
        """Reads the rows and computes every table and test; None without scores."""
        plan = source.plan
        pooled = list(plan.get("pooled_targets") or ())
        scores = frames.scores(source.connection, pooled)
        if scores.empty:
            return None
        facts = plan.get("metric_facts") or {}
        wanted = [*frames.names(plan.get("methods")), *frames.names(plan.get("maps"))]
        controls = frozenset(scores.loc[scores["control"], "method"])
        methods = sorted(frames.ordered(scores["method"], wanted), key=lambda method: method in controls)
        metrics = _by_family(frames.ordered(scores["metric"], frames.names(plan.get("metrics"))), facts)
        scores = _sort_scores(scores, methods, metrics)
        given: dict[str, Any] = {"resamples": int(plan.get("resamples") or 1000), "seed": int(plan.get("seed") or 0)}
        points, maps = frames.curves(source.connection, pooled), frames.projections(source.connection, pooled)
        found = {(model, dataset) for model, dataset in scores[["model", "dataset"]].itertuples(index=False)}
        order = [frames.ordered(scores[name], frames.names(plan.get(f"{name}s"))) for name in ScoreSetting._fields]
        aside, reference = added_arm(plan), str(plan.get("reference") or "")
        settings = [
            _setting_scores(ScoreSetting(model, dataset), scores, points, maps, methods, facts, given, aside, reference)
            for dataset in order[1]
            for model in order[0]
            if (model, dataset) in found
        ]
        tables = [one.table.assign(dataset=one.setting.dataset) for one in settings]
        table = pd.concat(tables, ignore_index=True)[["model", "dataset", *SCORE_COLUMNS[1:]]]
        return cls(scores, table, methods, controls, metrics, facts, settings, aside, reference)

    def family(self, metric: str) -> str:
        """The family of a metric, empty if it is not known."""
        return str(self.facts.get(metric, {}).get("family") or "")

    @property
    def curves(self) -> Frame:
        """The curves of all settings, with the dataset."""
        parts = [one.curves.assign(dataset=one.setting.dataset) for one in self.settings if len(one.curves)]
        columns = ["model", "dataset", "method", "metric", "at", "n", "mean", "low", "high"]
        return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def _setting_scores(
    setting: ScoreSetting,
    scores: Frame,
    points: Frame,
    maps: Frame,
    methods: Sequence[str],
    facts: Mapping[str, Any],
    given: dict[str, Any],
    aside: str,
    reference: str,
) -> SettingScores:
    here, maps = setting.of(scores), setting.of(maps)
    ranked: Any = here[here["method"] != aside]
    equal = equal_maps(maps[maps["method"] != aside], ranked, [method for method in methods if method != aside])
    judged = fooled(ranked, facts, equal=equal)
    families = {metric: str(fact.get("family") or "") for metric, fact in facts.items()}
    verdict = score_verdicts(ranked, judged, families, equal)
    rankings, first = {one.metric: one for one in judged}, verdict[0] if verdict else None
    return SettingScores(
        setting=setting,
        table=score_table(here, facts, **given),
        rankings=rankings,
        verdict=first,
        agreement=metric_agreement(ranked, facts, equal),
        curves=curve_table(setting.of(points), **given),
        comparisons=dict(_comparisons(judged, first.counted if first else (), facts)),
        equal=equal,
        reference=score_reference_tests(ranked, rankings, first, families, reference, equal) if reference else {},
    )


def _comparisons(
    judged: Sequence[MetricRanking], counted: Sequence[str], facts: Mapping[str, Any]
) -> Iterator[tuple[str, Comparison]]:
    """The rank tests of the first counted score of each family: those that decide its ★ and bold."""
    firsts = {str(facts[metric].get("family")): metric for metric in reversed(counted)}
    shown = [metric for metric in counted if metric in firsts.values()][:DIAGRAMS]
    found = {one.metric: one.comparison for one in judged if one.comparison is not None and one.whole > 1}
    yield from ((metric, found[metric]) for metric in shown if metric in found)


def _by_family(metrics: Sequence[str], facts: Mapping[str, Any]) -> list[str]:
    """Families in the order of the page, metrics in the order given."""
    positions = {family: position for position, family in enumerate(FAMILIES)}
    position = lambda metric: positions.get(facts.get(metric, {}).get("family"), len(positions))  # noqa: E731
    return sorted(metrics, key=position)


def _sort_scores(scores: Frame, methods: Sequence[str], metrics: Sequence[str]) -> Frame:
    """Rows by model, dataset, method, metric (in the orders given) and image."""
    positions = [{name: position for position, name in enumerate(names)} for names in (methods, metrics)]
    keys = scores.assign(_method=scores["method"].map(positions[0]), _metric=scores["metric"].map(positions[1]))
    keys = keys.sort_values(["model", "dataset", "_method", "_metric", "image"], kind="stable")
    return keys.drop(columns=["_method", "_metric"]).reset_index(drop=True)

"""Everything the page of a score study says, worked out once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from heatproof.errors import StoreError
from heatproof.report import frames as common
from heatproof.report.frames import Frame
from heatproof.report.scores import frames
from heatproof.report.scores.words import FAMILIES
from heatproof.report.source import Source
from heatproof.statistics.concord import metric_agreement
from heatproof.statistics.paired import Comparison, compared
from heatproof.statistics.scores import Judged, curve_table, fooled, score_table, wide_scores
from heatproof.statistics.standing import Standing, standings

#: Scores drawn as rank diagrams besides the average over all.
DIAGRAMS = 3


class Setting(NamedTuple):
    """What is never averaged over: one model and one set of pictures."""

    model: str
    dataset: str

    def of(self, frame: Frame) -> Frame:
        """The rows of `frame` that belong to this setting."""
        return frame[(frame["model"] == self.model) & (frame["dataset"] == self.dataset)]


@dataclass(frozen=True)
class Told:
    """What is said of one setting: means, judgements by metric, verdict, agreement of metrics, curves, rank tests."""

    setting: Setting
    table: Frame
    judged: Mapping[str, Judged]
    standing: Standing | None
    agreement: Frame
    curves: Frame
    comparisons: Mapping[str, Comparison]


@dataclass(frozen=True)
class Findings:
    """The numbers of a score study, ready to be drawn. `facts`: metric → better, range, family, summary."""

    source: Source
    scores: Frame
    table: Frame
    methods: Sequence[str]
    controls: frozenset[str]
    metrics: Sequence[str]
    facts: Mapping[str, Mapping[str, Any]]
    told: Sequence[Told]
    correct: Frame
    flagged: Frame
    reasons: Frame

    def family(self, metric: str) -> str:
        """The family of a metric, the empty text where nobody said."""
        return str(self.facts.get(metric, {}).get("family") or "")

    @property
    def curves(self) -> Frame:
        """The curves of all settings, with the dataset."""
        parts = [one.curves.assign(dataset=one.setting.dataset) for one in self.told if len(one.curves)]
        columns = ["model", "dataset", "method", "metric", "at", "n", "mean", "low", "high"]
        return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def findings_of(source: Source) -> Findings:
    """Reads the rows and works out every table and test."""
    plan = source.plan
    scores = frames.scores(source.connection)
    if scores.empty:
        raise StoreError(f"Expected scores of maps in {str(source.folder)!r}. Got rows of other kinds only.")
    facts = plan.get("metric_facts") or {}
    methods = _ordered(scores["method"], [*_names(plan.get("methods")), *_names(plan.get("maps"))])
    controls = frozenset(scores.loc[scores["control"], "method"])
    methods = [m for m in methods if m not in controls] + [m for m in methods if m in controls]
    metrics = _by_family(_ordered(scores["metric"], _names(plan.get("metrics"))), facts)
    scores = _sorted(scores, methods, metrics)
    given: dict[str, Any] = {"resamples": int(plan.get("resamples") or 1000), "seed": int(plan.get("seed") or 0)}
    points = frames.curves(source.connection)
    found = {(model, dataset) for model, dataset in scores[["model", "dataset"]].itertuples(index=False)}
    order = [_ordered(scores[name], _names(plan.get(f"{name}s"))) for name in Setting._fields]
    settings = [Setting(model, dataset) for dataset in order[1] for model in order[0] if (model, dataset) in found]
    told = [_told(setting, scores, points, facts, given) for setting in settings]
    return Findings(
        source=source,
        scores=scores,
        table=told[0].table if len(told) == 1 else score_table(scores, facts, **given),
        methods=methods,
        controls=controls,
        metrics=metrics,
        facts=facts,
        told=told,
        correct=common.correct(source.connection),
        flagged=common.flagged(source.connection),
        reasons=frames.reasons(source.connection),
    )


def _told(setting: Setting, scores: Frame, points: Frame, facts: Mapping[str, Any], given: dict[str, Any]) -> Told:
    here = setting.of(scores)
    judged = fooled(here, facts)
    verdict = standings(here, judged, {metric: str(fact.get("family") or "") for metric, fact in facts.items()})
    return Told(
        setting=setting,
        table=score_table(here, facts, **given),
        judged={one.metric: one for one in judged},
        standing=verdict[0] if verdict else None,
        agreement=metric_agreement(here, facts),
        curves=curve_table(setting.of(points), **given),
        comparisons=dict(_comparisons(here, verdict[0].counted if verdict else (), facts)),
    )


def _comparisons(here: Frame, counted: Sequence[str], facts: Mapping[str, Any]):
    """Rank tests by the first counted score of each family."""
    firsts = {str(facts[metric].get("family")): metric for metric in reversed(counted)}
    for metric in [metric for metric in counted if metric in firsts.values()][:DIAGRAMS]:
        blocks = wide_scores(here[(here["metric"] == metric) & ~here["control"]])
        if blocks.shape[1] > 1 and len(blocks.dropna()) > 1:
            yield metric, compared(blocks, facts[metric]["better"] == "high")


def _names(given: Any) -> list[str]:
    """Names from a list of names, or of mappings with a name, or a mapping by name."""
    if isinstance(given, str):
        return [given]
    return [str(item.get("name")) if isinstance(item, Mapping) else str(item) for item in given or ()]


def _ordered(names: Frame, wanted: Sequence[str]) -> list[str]:
    """The names there are: those of the plan in its order, then the others by alphabet."""
    there = set(names.unique())
    return list(dict.fromkeys([name for name in wanted if name in there] + sorted(there)))


def _by_family(metrics: Sequence[str], facts: Mapping[str, Any]) -> list[str]:
    """Families in the order of the page, metrics in the order given."""
    places = {family: place for place, family in enumerate(FAMILIES)}
    place = lambda metric: places.get(facts.get(metric, {}).get("family"), len(places))  # noqa: E731
    return sorted(metrics, key=place)


def _sorted(scores: Frame, methods: Sequence[str], metrics: Sequence[str]) -> Frame:
    """Rows by model, dataset, method, metric (in the orders given) and image."""
    places = [{name: place for place, name in enumerate(names)} for names in (methods, metrics)]
    keys = scores.assign(_method=scores["method"].map(places[0]), _metric=scores["metric"].map(places[1]))
    keys = keys.sort_values(["model", "dataset", "_method", "_metric", "image"], kind="stable")
    return keys.drop(columns=["_method", "_metric"]).reset_index(drop=True)

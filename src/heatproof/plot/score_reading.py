"""Scores as the plots read them: from `heatproof.score`, from a results folder, or from a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from heatproof.errors import InvalidInput
from heatproof.plot.paper import refused
from heatproof.plot.stored_results import findings_of, folder_of, is_frame, needed_columns, of_one, scores_in
from heatproof.registry import unknown
from heatproof.report.comparisons import friedman_text
from heatproof.statistics.equal_maps import EqualMaps
from heatproof.statistics.metric_agreement import metric_agreement
from heatproof.statistics.paired import Comparison, compared
from heatproof.statistics.paper_scores import scores_of
from heatproof.statistics.reference_tests import ALL_SCORES
from heatproof.statistics.score_tables import ARROWS, better, curve_table, score_rows, wide_scores
from heatproof.statistics.special_rows import CURVE


@dataclass(frozen=True)
class ScoreReading:
    """The scores of one model on one set of images.

    rows: image, method, metric, value, control; None for a table of means. table: method, metric, mean, low, high.
    curves: method, metric, at, mean, low, high. rankings: metric → the tests between its methods.
    """

    methods: Sequence[str]
    controls: frozenset[str]
    table: Any
    rows: Any = None
    curves: Any = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    rankings: Mapping[str, Comparison] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    agreement: Any = None
    reference: str = ""
    equal: EqualMaps = field(default_factory=EqualMaps)

    @property
    def metrics(self) -> list[str]:
        """The metrics, in order."""
        return list(dict.fromkeys(map(str, self.table["metric"])))

    @property
    def leading(self) -> list[str]:
        """The metrics, those that are only parts of another one last."""
        return leading(self.metrics, self.facts)

    def titled(self, metric: str) -> str:
        """The metric with the arrow of the better way."""
        return f"{metric} {ARROWS.get(better(self.facts, metric), '')}".strip()

    def comparison(self, metric: str, methods: Sequence[str] | None) -> Comparison:
        """The tests between all real methods by a metric, or between those named, with Holm's correction over them.

        Raises:
            InvalidInput: fewer than two methods with a value, or a metric without a better way.
        """
        known = self.rankings.get(metric)
        if known is not None and (methods is None or set(methods) == set(known.methods)):
            return known
        if self.rows is None or metric == ALL_SCORES:
            raise InvalidInput(f"Ranks by {metric} are of all methods. Leave `methods` out, or name a metric.")
        if better(self.facts, metric) not in ARROWS:
            raise InvalidInput(f"Methods cannot be ranked by {metric}: neither higher nor lower is better.")
        cell: Any = self.rows[self.rows["metric"] == metric]
        wide: Any = wide_scores(score_rows(cell))
        wanted = methods or [method for method in self.methods if method not in self.controls]
        wide = wide[[method for method in wanted if method in wide]].dropna(axis=1, how="all")
        if wide.shape[1] < 2 or not len(wide.dropna()):
            raise InvalidInput(
                f"Ranks need two methods with values of {metric} on the same images. Got {wide.shape[1]} methods and "
                f"{len(wide.dropna())} images."
            )
        return compared(wide, better(self.facts, metric) == "high")


def leading(metrics: Sequence[str], facts: Mapping[str, Any]) -> list[str]:
    """The metrics, those that are only parts of another one last."""
    parts = {part for fact in facts.values() if isinstance(fact, Mapping) for part in fact.get("parts") or ()}
    return sorted(metrics, key=lambda metric: metric in parts)


def read_scores(
    results: Any, function: str, model: str | None = None, dataset: str | None = None, like: str = "scores.csv"
) -> ScoreReading:
    """The scores in anything that a plot takes.

    Raises:
        InvalidInput: an object without scores. StoreError: a folder without results.
    """
    if hasattr(results, "to_pandas") and hasattr(results, "facts"):
        return _of_scores(results)
    if is_frame(results):
        return _of_table(of_one(results, model, dataset), like)
    folder = folder_of(results)
    if folder is None:
        raise refused(
            function, results, "the scores of heatproof.score, results of heatproof.run or heatproof.audit, the folder "
            "of a study, or a data frame",
        )  # fmt: skip
    findings = findings_of(folder)
    found = scores_in(findings, model, dataset)
    if found is None or findings.scores is None:
        raise InvalidInput(
            f"No scores of maps are in {str(folder)!r}. `heatproof.plot.robustness` draws noise studies."
        )
    rankings = {metric: one.comparison for metric, one in found.rankings.items() if one.comparison is not None}
    if found.verdict is not None and found.verdict.comparison is not None:
        rankings = {ALL_SCORES: found.verdict.comparison, **rankings}
    there = set(found.table["method"])
    return ScoreReading(
        [method for method in findings.scores.methods if method in there],
        findings.scores.controls, found.table, found.setting.of(findings.scores.scores), found.curves,
        findings.scores.facts, rankings, findings.labels, found.agreement,
        findings.source.plan.get("reference") or "", found.equal,
    )  # fmt: skip


def _of_scores(scores: Any) -> ScoreReading:
    frame = scores.to_pandas()
    frame = frame.assign(control=frame["method"].isin(list(scores.controls)))
    source = scores_of(scores)
    rankings = {metric: one.comparison for metric, one in source.rankings.items() if one.comparison is not None}
    return ScoreReading(
        list(scores.methods), frozenset(scores.controls), scores.table, frame, _curve_means(scores), scores.facts,
        rankings, agreement=metric_agreement(frame, scores.facts, source.equal), equal=source.equal,
    )  # fmt: skip


def _curve_means(scores: Any) -> Any:
    """The curves of `Scores` as tables/curves.csv has them: means and 95 % intervals by image."""
    parts = []
    for (method, metric), (shares, points) in scores.curves.items():
        at, values = np.asarray(shares, float), np.asarray(points, float)
        parts.append(
            pd.DataFrame({"image": np.repeat(scores.images, len(at)), "strength": np.tile(at, len(values)),
                          "value": values.ravel(), "method": method, "metric": f"{metric}{CURVE}"})
        )  # fmt: skip
    empty = pd.DataFrame(columns=["method", "metric", "at", "mean", "low", "high"])
    return curve_table(pd.concat(parts).assign(model="", dataset="")) if parts else empty


def _of_table(frame: Any, like: str) -> ScoreReading:
    if like == "curves.csv":
        frame = needed_columns(frame, ("method", "metric", "at", "mean", "low", "high"), "tables/curves.csv")
    else:
        frame = needed_columns(frame, ("method", "metric", "mean", "low", "high"), "tables/scores.csv")
    useless = frame.loc[frame["control"].astype(bool), "method"] if "control" in frame else ()
    ways = dict(zip(frame["metric"], frame["better"], strict=True)) if "better" in frame else {}
    methods = [str(method) for method in dict.fromkeys(frame["method"])]
    return ScoreReading(methods, frozenset(map(str, useless)), frame, curves=frame, facts=ways)


def of_wide(frame: Any, way: str) -> ScoreReading:
    """A frame of images × methods, all values of one metric; `way`: `high` or `low`, whichever is better.

    Raises:
        InvalidInput: a frame that is none, or another way.
    """
    if way not in ARROWS:
        raise InvalidInput(f'`better` must be "high" or "low". Got {way!r}.')
    methods = list(map(str, frame.columns))
    try:
        values = frame.to_numpy(float)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"A data frame of ranks must hold a number for each image (row) and method (column). Got the columns "
            f"{', '.join(methods[:6])}."
        ) from None
    if len(set(methods)) != len(methods):
        raise InvalidInput("The columns of a data frame of ranks must be methods, each once. Got one twice.")
    rows = pd.DataFrame({"image": np.repeat(list(map(str, frame.index)), len(methods)), "value": values.ravel(),
                         "method": np.tile(methods, len(frame)), "metric": "score"})  # fmt: skip
    table = pd.DataFrame({"method": methods, "metric": "score"})
    return ScoreReading(methods, frozenset(), table, rows.assign(control=False), facts={"score": way})


def chosen_metric(reading: ScoreReading, metric: str | None) -> str:
    """The metric to rank by: the one named, else the mean rank over all scores where there is one, else the first."""
    if metric is None:
        if ALL_SCORES in reading.rankings:
            return ALL_SCORES
        return next((one for one in reading.leading if one in reading.rankings), reading.leading[0])
    there = list(dict.fromkeys([*reading.rankings, *reading.metrics]))
    if metric not in there:
        raise unknown("metric of these results", metric, there)
    return metric


def note_of(comparison: Comparison) -> str:
    """Friedman's test in one line."""
    return friedman_text(comparison, "images")

"""Findings on the metrics themselves: their agreement with the ground truth, and what fools them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heatproof.report import frames
from heatproof.report.frames import Frame
from heatproof.report.score_findings import ScoreFindings, ScoreSetting, SettingScores
from heatproof.report.source import Source
from heatproof.statistics.fooled_matrix import FooledCell, fooled_matrix
from heatproof.statistics.fooling import MetricRanking, fooled
from heatproof.statistics.paired import PairTest, tested
from heatproof.statistics.rescaled_maps import Rescaling, rescalings
from heatproof.statistics.score_tables import ARROWS, better, wide_scores
from heatproof.statistics.special_rows import TRUTH
from heatproof.statistics.validity import Validity, metric_validity, over_models
from heatproof.statistics.validity_verdict import ValidityFacts, ValidityVerdict, validity_verdict

#: The families of metrics that read the ground truth, for folders whose facts do not say which metrics do.
SEEING = ("localisation", "parts")


@dataclass(frozen=True)
class SettingValidity:
    """The findings of one model and set of images, over the images that the network classifies right.

    methods: those that take part, the added rescaled map and all but the first of equal maps left out. truth: metric →
    the test of the best method against the ground truth as a map. truth_means: metric → the ground truth's mean score.
    """

    setting: ScoreSetting
    validity: Validity
    cells: Sequence[FooledCell]
    rescalings: Sequence[Rescaling]
    rankings: Mapping[str, MetricRanking]
    truth: Mapping[str, PairTest]
    truth_means: Mapping[str, float]
    methods: Sequence[str]
    seeing: frozenset[str]
    accuracy: float | None
    verdict: ValidityVerdict


@dataclass(frozen=True)
class ValidityFindings:
    """The findings of every setting. `models`: mean ± std over models, empty with fewer than two on a set of images."""

    settings: Sequence[SettingValidity]
    models: Frame

    @classmethod
    def of(cls, source: Source, scores: ScoreFindings) -> "ValidityFindings | None":
        """The findings; None where no image has a ground truth."""
        if TRUTH not in scores.metrics:
            return None
        given = {"resamples": int(source.plan.get("resamples") or 1000), "seed": int(source.plan.get("seed") or 0)}
        right, truth = frames.correct_images(source.connection), frames.ground_truth_scores(source.connection)
        settings = [
            _setting(one, scores, one.setting.of(right), one.setting.of(truth), given) for one in scores.settings
        ]
        return cls(settings, _over_models(settings))


def reads_truth(scores: ScoreFindings, metric: str) -> bool:
    """Whether a metric reads the ground truth, so that its agreement with it says nothing."""
    return bool(scores.facts.get(metric, {}).get("reads_truth", scores.family(metric) in SEEING))


def _setting(
    one: SettingScores, scores: ScoreFindings, right: Frame, truth: Frame, given: Mapping[str, int]
) -> SettingValidity:
    every = one.setting.of(scores.scores)
    used, accuracy = frames.classified_right(every, right)
    arms: Any = one.equal.kept(used[used["method"] != scores.aside])
    real = arms[~arms["control"]]
    judged = {ranking.metric: ranking for ranking in fooled(arms, scores.facts)}
    seeing = frozenset(metric for metric in scores.metrics if reads_truth(scores, metric))
    validity = metric_validity(real, scores.facts, seeing=seeing, **given)
    cells = [cell for cell in fooled_matrix(arms, judged) if cell.metric != TRUTH]
    truth = truth[truth["image"].isin(used["image"])]
    facts = ValidityFacts(
        one.setting.dataset,
        validity,
        cells,
        rescalings(used),
        _truth_tests(real, truth, judged, scores.facts),
        seeing,
        real["method"].nunique(),
        list(dict.fromkeys(arms.loc[arms["control"], "method"])),
        used["image"].nunique(),
        every["image"].nunique(),
        accuracy,
        0 if accuracy is None else len(set(every["image"]) - set(right["image"])),
    )
    means = truth.groupby("metric")["value"].mean()
    return SettingValidity(
        one.setting,
        validity,
        cells,
        facts.rescalings,
        judged,
        facts.truth,
        {str(metric): float(value) for metric, value in means.items()},
        list(dict.fromkeys(real["method"])),
        seeing,
        accuracy,
        validity_verdict(facts),
    )


def _truth_tests(
    real: Frame, truth: Frame, judged: Mapping[str, MetricRanking], facts: Mapping[str, Any]
) -> dict[str, PairTest]:
    """Metric → Wilcoxon's test of the best method against the ground truth as a map; Holm over the metrics."""
    pairs, names = [], []
    for metric, one in judged.items():
        own = truth[truth["metric"] == metric].set_index("image")["value"].dropna()
        if not one.best or own.empty or better(facts, metric) not in ARROWS:
            continue
        sign = 1 if one.better == "high" else -1
        best = wide_scores(real[real["metric"] == metric])[one.best]
        pairs.append(((sign * best).to_numpy(), (sign * own.reindex(best.index)).to_numpy()))
        names.append((metric, "ground truth"))
    return {test.first: test for test in tested(pairs, names)}


def _over_models(settings: Sequence[SettingValidity]) -> Frame:
    parts = []
    for dataset in dict.fromkeys(one.setting.dataset for one in settings):
        tables = [one.validity.table for one in settings if one.setting.dataset == dataset]
        if len(tables) > 1:
            parts.append(over_models(tables).assign(dataset=dataset))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

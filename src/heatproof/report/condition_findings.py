"""Findings of metrics under all conditions: by class explained, by transformation, and against the confidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from heatproof.report import frames
from heatproof.report.frames import Frame
from heatproof.report.score_findings import ScoreFindings, ScoreSetting
from heatproof.report.source import Source
from heatproof.statistics.condition_scores import fooled_table, target_table, transformation_table
from heatproof.statistics.confidence import confidence_bins, confidence_table
from heatproof.statistics.equal_maps import EqualMaps
from heatproof.statistics.fidelity_verdict import FidelityTables, FidelityVerdict, fidelity_verdict
from heatproof.statistics.orders import ranking_table


@dataclass(frozen=True)
class ConditionSetting:
    """The scores of one model and dataset under all conditions; each table is worked out on first use.

    scores: `frames.condition_scores` of this setting. confidences: probability of each class explained, by image.
    given: `resamples` and `seed` of the bootstrap.
    """

    setting: ScoreSetting
    scores: Frame
    confidences: Frame
    facts: Mapping[str, Mapping[str, Any]]
    equal: EqualMaps
    given: Mapping[str, int]

    @cached_property
    def targets(self) -> Frame:
        """Means by class explained."""
        return target_table(self.scores, self.facts, **self.given)

    @cached_property
    def transformations(self) -> Frame:
        """Means by transformation, with tests against the reference."""
        return transformation_table(self.scores, self.facts, self.equal, **self.given)

    @cached_property
    def confidence(self) -> Frame:
        """Correlations with the confidence."""
        return confidence_table(self.scores, self.confidences, **self.given)

    @cached_property
    def bins(self) -> Frame:
        """Means by confidence."""
        return confidence_bins(self.scores, self.confidences)

    @cached_property
    def rankings(self) -> Frame:
        """Tests of the order of the methods."""
        return ranking_table(self.scores, self.facts, self.equal, **self.given)

    @cached_property
    def fooled(self) -> Frame:
        """Which controls fool which metric, by condition."""
        return fooled_table(self.scores, self.facts, self.equal)

    @property
    def target(self) -> str:
        """The class explained under the reference."""
        return str(self.scores.loc[self.scores["reference"], "target"].iloc[0])

    @cached_property
    def verdict(self) -> FidelityVerdict:
        """The verdict in words."""
        known = self.scores[self.scores["reference"] & self.scores["value"].notna()]
        parts = (self.transformations, self.rankings, self.confidence, self.fooled)
        return fidelity_verdict(FidelityTables(*parts, int(known["image"].nunique()), self.target))


@dataclass(frozen=True)
class ConditionFindings:
    """The settings of a study with metrics under several conditions. `metrics`, `methods` in the order of the page."""

    settings: Sequence[ConditionSetting]
    metrics: Sequence[str]
    methods: Sequence[str]
    controls: frozenset[str]
    facts: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, source: Source, scores: ScoreFindings | None) -> "ConditionFindings | None":
        """Reads the rows; None without scores, or with scores under one condition alone."""
        found = frames.condition_scores(source.connection) if scores is not None else None
        if scores is None or found is None or found["reference"].all():
            return None
        plan = source.plan
        order = {
            "target": frames.names(plan.get("targets")),
            "transformation": frames.names(plan.get("transformations")),
        }
        order |= {"method": list(scores.methods), "metric": list(scores.metrics)}
        found = _sorted(found, order)
        given = {"resamples": int(plan.get("resamples") or 1000), "seed": int(plan.get("seed") or 0)}
        confidences = frames.confidences(source.connection)
        settings = [
            ConditionSetting(
                one.setting, one.setting.of(found), one.setting.of(confidences), scores.facts, one.equal, given
            )
            for one in scores.settings
        ]
        return cls(settings, scores.metrics, scores.methods, scores.controls, scores.facts)


def _sorted(rows: Frame, order: Mapping[str, Sequence[str]]) -> Frame:
    """Rows by the orders given, names that are not among them last, then by image."""
    keys = []
    for name, names in order.items():
        position = {one: number for number, one in enumerate(frames.ordered(rows[name].unique(), names))}
        keys.append(f"_{name}")
        rows = rows.assign(**{f"_{name}": rows[name].map(position)})
    return rows.sort_values([*keys, "image"], kind="stable").drop(columns=keys).reset_index(drop=True)

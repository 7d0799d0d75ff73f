"""Findings of the study of parts: thresholds from the validation set, scores of the test sets, verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heatproof.report import frames
from heatproof.report.frames import REFERENCE, Frame
from heatproof.report.source import Source
from heatproof.statistics.equal_maps import equal_maps
from heatproof.statistics.part_scores import chosen_thresholds, image_part_scores, part_score_table
from heatproof.statistics.part_verdict import PartVerdict, part_verdict
from heatproof.statistics.special_rows import BACKGROUND, CHECKS, CONTRASTIVITY, CORRECTNESS, CURVE

Setting = tuple[str, str]

#: The value of each check at each threshold; a flagged row has its own value at every threshold: 0, or NaN.
POINTS = f"""points AS (
    SELECT p.model, p.dataset, p.image, p.method, p.control, one.metric, p.strength,
           CASE WHEN one.flag = '' THEN p.value ELSE one.value END AS value
    FROM rows p JOIN rows one ON one.model = p.model AND one.dataset = p.dataset AND one.image = p.image
         AND one.method = p.method AND one.metric || '{CURVE}' = p.metric AND one.reference
    WHERE p.reference AND one.metric IN {CHECKS})"""


@dataclass(frozen=True)
class PartFindings:
    """The numbers of the study.

    means: model, dataset, method, control, metric, strength, n, mean of every check at every threshold. values: the
    part metrics of each image of the test sets, at the thresholds. table, thresholds: tables/parts.csv and
    thresholds.csv. independence, accuracy: (model, dataset) → the network's own figures, NaN where not known.
    """

    validation: str
    means: Frame
    thresholds: Frame
    values: Frame
    table: Frame
    verdicts: Mapping[Setting, PartVerdict]
    independence: Mapping[Setting, float]
    accuracy: Mapping[Setting, float]

    @classmethod
    def of(cls, source: Source) -> "PartFindings | None":
        """Reads the rows and computes every table and test; None without a validation set in the plan."""
        validation, plan = source.plan.get("validation"), source.plan
        rows = source.connection
        if not validation:
            return None
        means: Frame = rows.execute(
            f"""WITH {POINTS} SELECT model, dataset, method, control, metric, strength,
                       count(*) FILTER (isfinite(value)) AS n, avg(value) FILTER (isfinite(value)) AS mean
                FROM points GROUP BY ALL ORDER BY ALL"""
        ).df()
        if means.empty:
            return None
        thresholds = chosen_thresholds(means, validation)
        values = _values(rows, thresholds, validation, _order(source))
        given: dict[str, Any] = {"resamples": int(plan.get("resamples") or 1000), "seed": int(plan.get("seed") or 0)}
        table = part_score_table(values, thresholds, **given)
        accuracy = {(m, d): float(correct) for m, d, _, correct in frames.correct(rows).itertuples(index=False)}
        verdicts = {
            (str(model), str(dataset)): _verdict(rows, cell, accuracy.get((model, dataset), float("nan")), validation)
            for (model, dataset), cell in values.groupby(["model", "dataset"], sort=False)
        }
        return cls(validation, means, thresholds, values, table, verdicts, _independence(rows), accuracy)


def _order(source: Source) -> list[str]:
    names = [name for (name,) in frames.distinct(source.connection, "method") if name]
    return frames.ordered(names, frames.names(source.plan.get("methods")))


def _values(rows: Any, thresholds: Frame, validation: str, methods: Sequence[str]) -> Frame:
    """A row for each image of the test sets and method, and a column for each part metric."""
    rows.register("chosen_thresholds", thresholds[["model", "method", "threshold"]])
    checks = ", ".join(f"any_value(value) FILTER (metric = '{name}') AS \"{name}\"" for name in CHECKS)
    others = ", ".join(
        f"any_value(value) FILTER (metric = '{name}') AS \"{name}\"" for name in (CORRECTNESS, CONTRASTIVITY)
    )
    key = "model, dataset, image, method, control"
    found: Frame = rows.execute(
        f"""WITH {POINTS},
              chosen AS (SELECT points.* FROM points JOIN chosen_thresholds USING (model, method)
                     WHERE strength = threshold),
              checks AS (SELECT {key}, {checks} FROM chosen GROUP BY {key}),
              others AS (SELECT {key}, {others} FROM rows WHERE {REFERENCE} GROUP BY {key})
            SELECT * FROM others LEFT JOIN checks USING ({key}) WHERE dataset <> ? ORDER BY {key}""",
        [validation],
    ).df()
    rows.unregister("chosen_thresholds")
    place = {name: number for number, name in enumerate(methods)}
    found = found.assign(place=found["method"].map(place)).sort_values(["dataset", "model", "place", "image"])
    return found.drop(columns="place").reset_index(drop=True)


def _verdict(rows: Any, cell: Frame, accuracy: float, validation: str) -> PartVerdict:
    scores = image_part_scores(cell)
    methods = list(dict.fromkeys(cell["method"]))
    maps: Frame = frames.projections(rows)
    model, dataset = cell["model"].iloc[0], cell["dataset"].iloc[0]
    maps = maps[(maps["model"] == model) & (maps["dataset"] == dataset)]
    return part_verdict(scores, accuracy, validation, equal_maps(maps, None, methods))


def _independence(rows: Any) -> dict[Setting, float]:
    """The share of all distractors on which a network does not depend."""
    found = rows.execute(
        f"""SELECT model, dataset, sum(value * n) / sum(n) FROM rows
            WHERE metric = '{BACKGROUND}' AND reference AND isfinite(value) AND n > 0 GROUP BY model, dataset"""
    ).fetchall()
    return {(model, dataset): float(value) for model, dataset, value in found}

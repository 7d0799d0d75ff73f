"""The scores of a study under several conditions: by class, by transformation, and which controls fool them where.

Rows are those of one model and dataset: a row for each image, method, metric and condition, with the columns `target`,
`transformation` (empty for images as they are), `reference`, `image`, `method`, `control`, `metric`, `value`, `flag`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from heatproof.spelling import head
from heatproof.statistics.equal_maps import DISTINCT, EqualMaps
from heatproof.statistics.fooling import fooled
from heatproof.statistics.paired import PairTest, can_be_significant, tested
from heatproof.statistics.score_tables import Directions, score_table

#: Columns of tables/targets.csv, after model and dataset.
TARGETS = ("target", "method", "metric", "n", "mean", "std", "low", "high", "better", "flagged")
#: Columns of tables/transformations.csv, after model and dataset. `variant` is one spelling, or `POOLED`: the mean of
#: an image over all variants. `clean`: the mean under the reference, over the images of the test. `change`: the mean of
#: the differences to the reference, by image. `effect`: rank-biserial, above 0 where the score is higher than under the
#: reference. `differs`: whether p_holm is below 5 %.
TRANSFORMATIONS = (
    *("transformation", "variant", "method", "control", "metric", "better", "n", "mean", "low", "high", "flagged"),
    *("clean", "change", "pairs", "statistic", "p", "p_holm", "effect", "differs", "able"),
)
#: Columns of tables/fooled_by_condition.csv, after model and dataset.
FOOLED = ("target", "transformation", "metric", "better", "n", "best", "fooled", "fooled_by", "ahead", "tested")
#: The name of all variants of a transformation together.
POOLED = "all"
#: The level of the tests.
ALPHA = 0.05

Frame = Any


def conditions_of(rows: Frame) -> list[tuple[str, str]]:
    """(target, transformation) of every condition: the reference, other classes, transformations as in the rows."""
    found = rows[["target", "transformation", "reference"]].drop_duplicates()
    order = found.assign(other=~found["reference"], turned=found["transformation"] != "")
    order = order.sort_values(["other", "turned"], kind="stable")
    return list(dict.fromkeys(order[["target", "transformation"]].itertuples(index=False, name=None)))


def under(rows: Frame, target: str, transformation: str) -> Frame:
    """The rows under one condition."""
    return rows[(rows["target"] == target) & (rows["transformation"] == transformation)]


def target_table(rows: Frame, directions: Directions, *, resamples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean of every metric and method for each class explained on the images as they are; columns TARGETS.

    Mean, std and the 95 % bootstrap interval by image as in `score_table`.
    """
    parts: list[Any] = [
        score_table(under(rows, target, ""), directions, resamples=resamples, seed=seed).assign(target=target)
        for target, transformation in conditions_of(rows)
        if not transformation
    ]
    return pd.DataFrame(pd.concat(parts, ignore_index=True) if parts else [], columns=list(TARGETS))


def transformation_table(
    rows: Frame, directions: Directions, equal: EqualMaps = DISTINCT, *, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Mean of every metric and method under each transformation, and whether it differs from the reference.

    Wilcoxon's signed-rank test, paired by image. Holm's correction is over all methods and all variants of a metric,
    for `POOLED` over all methods and transformations; the controls are corrected apart. Of methods with equal maps one
    is tested, and the others have its test. `able`: whether the images are enough for a test of that family to be
    significant. Columns TRANSFORMATIONS; empty without transformations.
    """
    reference: Any = rows[rows["reference"]]
    parts: list[Any] = [_with_tests(variants, reference, directions, equal, {"resamples": resamples, "seed": seed})
             for variants in (by_variant(rows), pooled(rows)) if len(variants)]  # fmt: skip
    if not parts:
        return pd.DataFrame(columns=list(TRANSFORMATIONS))
    table: Any = pd.concat(parts, ignore_index=True)
    order = {one: position for position, one in enumerate(dict.fromkeys(table["transformation"]))}
    table = table.assign(place=[order[one] for one in table["transformation"]])
    return table.sort_values("place", kind="stable")[list(TRANSFORMATIONS)].reset_index(drop=True)


def by_variant(rows: Frame) -> Frame:
    """The rows under transformations, with the columns `transformation` (its kind) and `variant` (its spelling)."""
    turned: Any = rows[rows["transformation"] != ""]
    kinds = {spelling: head(spelling) for spelling in turned["transformation"].unique()}
    return turned.assign(variant=turned["transformation"], transformation=turned["transformation"].map(kinds))


def pooled(rows: Frame) -> Frame:
    """A row for each image, method, metric and kind of transformation: the mean over its variants, NaN if one lacks.

    A variant under which a method has no number by a metric for any image, as under a size that its layer is too coarse
    for, is left out.
    """
    single = by_variant(rows)
    arm = ["method", "metric"]
    of_variant = single.groupby([*arm, "variant"], observed=True)["value"].transform("count")
    of_all = single.groupby(arm, observed=True)["value"].transform("count")
    single = single[(of_variant > 0) | (of_all == 0)]
    key = ["model", "dataset", "target", "transformation", "image", "method", "control", "metric"]
    cells = single.groupby(key, sort=False, observed=True)
    found = cells.agg(value=("value", "mean"), known=("value", "count"), rows=("value", "size"), flag=("flag", "max"))
    found["value"] = found["value"].where(found["known"] == found["rows"])
    return found.drop(columns=["known", "rows"]).reset_index().assign(variant=POOLED)


def _with_tests(
    variants: Frame, reference: Frame, directions: Directions, equal: EqualMaps, given: dict[str, int]
) -> pd.DataFrame:
    """The rows of one family of tests: single variants, or pooled ones."""
    parts = []
    for (kind, variant), cell in variants.groupby(["transformation", "variant"], sort=False, observed=True):
        table = score_table(cell, directions, **given)
        parts.append(table.assign(transformation=kind, variant=variant))
    table = pd.concat(parts, ignore_index=True)
    control = dict(variants[["method", "control"]].drop_duplicates().itertuples(index=False, name=None))
    clean: Any = reference.pivot_table(index=["metric", "method"], columns="image", values="value", dropna=False)
    moved: Any = variants.pivot_table(
        index=["metric", "method", "variant", "transformation"], columns="image", values="value", dropna=False
    ).reindex(columns=clean.columns)
    tests = dict(_tests(table, moved, clean, control, equal))
    lines = [
        {**row, "control": control[row["method"]], **_of_test(*tests[key])}
        for row in table.to_dict("records")
        if (key := (row["metric"], equal.arm(row["method"]), row["variant"], row["transformation"])) in tests
    ]
    return pd.DataFrame(lines, columns=list(TRANSFORMATIONS))


def _tests(
    table: Frame, moved: Frame, clean: Frame, control: dict[str, bool], equal: EqualMaps
) -> Iterator[tuple[tuple, tuple[PairTest, float, bool]]]:
    """(metric, method, variant, kind) → the test, the mean of the reference, and whether it can be significant."""
    keys = list(
        dict.fromkeys(table[["metric", "method", "variant", "transformation"]].itertuples(index=False, name=None))
    )
    for metric in dict.fromkeys(key[0] for key in keys):
        for useless in (False, True):
            family = [k for k in keys if k[0] == metric and control[k[1]] is useless and equal.arm(k[1]) == k[1]]
            columns = [(_values(moved, key), _values(clean, key[:2])) for key in family]
            for key, pair, test in zip(
                family, columns, tested(columns, [(k[2], "reference") for k in family]), strict=True
            ):
                both = ~np.isnan(pair[0]) & ~np.isnan(pair[1])
                mean = float(pair[1][both].mean()) if both.any() else np.nan
                yield key, (test, mean, can_be_significant(test.n, len(family), 1 - ALPHA))


def _values(wide: Frame, key: tuple) -> np.ndarray:
    """The values by image; NaN where there are none."""
    return wide.loc[key].to_numpy(np.float64) if key in wide.index else np.full(wide.shape[1], np.nan)


def _of_test(test: PairTest, clean: float, able: bool) -> dict[str, Any]:
    return {
        "clean": clean, "change": test.gap, "pairs": test.n, "statistic": test.statistic, "p": test.p,
        "p_holm": test.p_holm, "effect": test.effect, "differs": bool(test.p_holm < ALPHA), "able": able,
    }  # fmt: skip


def fooled_table(rows: Frame, directions: Directions, equal: EqualMaps = DISTINCT) -> pd.DataFrame:
    """The controls that are not significantly worse than the best method, by metric and condition; columns FOOLED.

    As `fooling.fooled` decides under each condition: Wilcoxon's test, Holm's correction over the controls.
    """
    lines = []
    for target, transformation in conditions_of(rows):
        for one in fooled(under(rows, target, transformation), directions, equal=equal):
            line = {"target": target, "transformation": transformation, "metric": one.metric, "better": one.better}
            names = {"fooled_by": "; ".join(equal.named(one.fooled)), "ahead": "; ".join(equal.named(one.ahead))}
            lines.append(
                {**line, "n": one.n, "best": one.best, "fooled": bool(one.fooled), "tested": one.exposed, **names}
            )
    return pd.DataFrame(lines, columns=list(FOOLED))

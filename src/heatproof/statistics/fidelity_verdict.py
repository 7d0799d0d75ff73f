"""The verdict of a fidelity study: what changed under transformations, which orders held, what was fooled, in words."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from heatproof.statistics.condition_scores import POOLED
from heatproof.statistics.wording import IMAGES, counted, listed, number

Frame = Any


@dataclass(frozen=True)
class FidelityVerdict:
    """The verdict on one model and set of images: one sentence, and notes on orders, controls, confidence and limits."""

    sentence: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FidelityTables:
    """The tables of one model and set of images (`condition_scores`, `orders`, `confidence`) that a verdict is made of.

    images: those with a score under the reference. target: the class explained there.
    """

    transformations: Frame
    rankings: Frame
    confidence: Frame
    fooled: Frame
    images: int
    target: str


def fidelity_verdict(tables: FidelityTables) -> FidelityVerdict:
    """The verdict, from the tables alone: it says what was compared, on how many images, and how it was tested."""
    notes = (*_orders(tables), *_fooled(tables), *_confidence(tables), *_limits(tables))
    return FidelityVerdict(_sentence(tables), notes)


def _sentence(tables: FidelityTables) -> str:
    where = f"On {counted(tables.images, 'image')}"
    pooled = tables.transformations[tables.transformations["variant"] == POOLED]
    real = pooled[~pooled["control"].astype(bool) & (pooled["pairs"] > 0)]
    if not len(real):
        return f"{where} no transformed image has a score, so nothing is said about transformations."
    kinds, metrics = listed(list(dict.fromkeys(real["transformation"]))), real["metric"].nunique()
    compared = f"{counted(len(real), 'comparison')} of a method's score under {kinds} with its score on the same images"
    test = f"Wilcoxon's test by image at 5 %, corrected by Holm within each of the {counted(metrics, 'score')}"
    if not real["able"].any():
        return f"{where} nothing can be told: {compared} as they are were made, and {tables.images} are too few ({test})."
    moved = int(real["differs"].sum())
    return f"{where}, {moved} of {compared} as they are differ significantly ({test})."


def _orders(tables: FidelityTables) -> Iterator[str]:
    """How far conditions agree on the order of the methods, the highest and the lowest W."""
    for test, what in (
        ("kendall-transformations", "as they are and transformed"),
        ("kendall-targets", "for the classes explained"),
    ):
        rows = tables.rankings[(tables.rankings["test"] == test) & tables.rankings["w"].notna()]
        if not len(rows):
            continue
        best, worst = (rows.iloc[int(position)] for position in (rows["w"].argmax(), rows["w"].argmin()))
        text = f"most by {best['metric']} ({_w(best)})"
        if len(rows) > 1:
            text += f", least by {worst['metric']} ({_w(worst)})"
        yield (
            f"The order of the {counted(int(best['methods']), 'method')} is kept on images {what}, over "
            f"{counted(int(best['conditions']), 'condition')}: {text}; Kendall's W, 1 is the same order."
        )


def _w(row: Any) -> str:
    span = "" if row["low"] != row["low"] else f", 95 % interval {number(row['low'])} to {number(row['high'])}"
    return f"W {number(row['w'])}{span}"


def _fooled(tables: FidelityTables) -> Iterator[str]:
    """The metrics that a control fools under every condition, and those that none fools under any."""
    told = tables.fooled[tables.fooled["tested"].astype(bool)]
    if not len(told):
        if len(tables.fooled):
            yield "Whether a control fools a score cannot be told: no control was run, or the images are too few."
        return
    share = told.groupby("metric", sort=False)["fooled"].mean()
    always, never = ([str(name) for name in share.index[share == end]] for end in (1.0, 0.0))
    conditions = len(told[["target", "transformation"]].drop_duplicates())
    over = f"over {counted(conditions, 'condition')}"
    yield (
        f"Fooled by a control {over}: {listed(always) if always else 'no score'} under all, "
        f"{counted(len(share) - len(always) - len(never), 'score')} under some, {listed(never) if never else 'no score'} "
        "under none (a control is not significantly worse than the best method: Wilcoxon's test by image, Holm over the "
        "controls)."
    )


def _confidence(tables: FidelityTables) -> Iterator[str]:
    """The metric that follows the confidence most, by its median over the methods."""
    table = tables.confidence
    rows = table[~table["control"].astype(bool) & (table["target"] == tables.target) & table["spearman"].notna()]
    if not len(rows):
        return
    median = rows.groupby("metric", sort=False)["spearman"].median()
    first = str(median.abs().idxmax())
    own = rows[rows["metric"] == first]
    sure = int(((own["low"] > 0) | (own["high"] < 0)).sum())
    yield (
        f"{first} goes most with the probability of the class: Spearman's correlation over the images is "
        f"{number(float(median[first]))}, the median over the methods, and its 95 % interval is clear of 0 for {sure} of "
        f"{counted(len(own), 'method')} (not corrected for the number of scores)."
    )


def _limits(tables: FidelityTables) -> Iterator[str]:
    """What the numbers do not show."""
    table = tables.transformations
    if len(table):
        single = table[table["variant"] != POOLED]
        empty = single.groupby("variant", sort=False)["n"].sum()[
            single.groupby("variant", sort=False)["mean"].agg(lambda values: values.isna().all())
        ]
        if len(empty):
            yield f"Without any number: {listed([str(name) for name in empty.index])}; the reasons are under “What was run”."
        yield (
            "A score that changes with the image may follow a changed prediction: the class explained stays that of the "
            "image as it is labelled or predicted there, and its probability falls."
        )
    if tables.images < IMAGES:
        yield f"Only {counted(tables.images, 'image')}: take this as an indication."

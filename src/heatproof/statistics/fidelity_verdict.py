"""The verdict of a fidelity study: what changed under transformations, which orders held, what was fooled, in words."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from heatproof.rounding import rounded
from heatproof.statistics.condition_scores import POOLED
from heatproof.statistics.paired import LEAST_IMAGES, LEAST_METHODS
from heatproof.statistics.wording import IMAGES, counted, listed, number

Frame = Any


@dataclass(frozen=True)
class FidelityVerdict:
    """The verdict on one model and set of images: a sentence, and notes on orders, controls, confidence and limits."""

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
        return (
            f"{where} it cannot be told whether the scores change under {kinds}: that many images are too few for any "
            f"of the {counted(len(real), 'comparison')} to be significant ({test})."
        )
    moved = int(real["differs"].sum())
    return f"{where}, {moved} of {compared} as they are differ significantly ({test})."


def _orders(tables: FidelityTables) -> Iterator[str]:
    """How far conditions agree on the order of the methods, the highest and the lowest W; or why that is not known."""
    table = tables.rankings
    if len(table) and table["w"].isna().all():
        methods, images = int(table["methods"].max()), int(table["n"].max())
        if methods < LEAST_METHODS or images < LEAST_IMAGES:
            yield (
                f"Whether the order of the methods is kept is not computed: {counted(methods, 'method')} on "
                f"{counted(images, 'image')}, and at least {LEAST_METHODS} methods and "
                f"{LEAST_IMAGES} images are needed."
            )
    for test, what in (
        ("kendall-transformations", "as they are and transformed"),
        ("kendall-targets", "for the classes explained"),
    ):
        rows = tables.rankings[(tables.rankings["test"] == test) & tables.rankings["w"].notna()]
        if not len(rows):
            continue
        ws = rounded(rows["w"].to_numpy())
        best, worst = (rows.iloc[int(position)] for position in (ws.argmax(), ws.argmin()))
        text = f"most by {best['metric']} ({_w(best)})"
        if len(rows) > 1:
            text += f", least by {worst['metric']} ({_w(worst)})"
        yield (
            f"The order of the {counted(int(best['methods']), 'method')} is kept on images {what}, over "
            f"{counted(int(best['conditions']), 'condition')}: {text}; Kendall's W, 1 is the same order; "
            "over images drawn anew orders agree less, so the span lies mostly below W."
        )


def _w(row: Any) -> str:
    span = "" if row["low"] != row["low"] else f", {number(row['low'])} to {number(row['high'])} over images drawn anew"
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
    some = counted(len(share) - len(always) - len(never), "score")
    all_of_them, none_of_them = (listed(names) if names else "no score" for names in (always, never))
    yield (
        f"Fooled by a control {over}: {all_of_them} under all, {some} under some, {none_of_them} under none (a control "
        "is not significantly worse than the best method: Wilcoxon's test by image, Holm over the controls)."
    )


def _confidence(tables: FidelityTables) -> Iterator[str]:
    """The metric that follows the confidence most, by its median over the methods."""
    table = tables.confidence
    rows = table[~table["control"].astype(bool) & (table["target"] == tables.target) & table["spearman"].notna()]
    if not len(rows):
        return
    median = rows.groupby("metric", sort=False)["spearman"].median()
    first = str(rounded(median.abs()).idxmax())
    own = rows[rows["metric"] == first]
    sure, known = int(((own["low"] > 0) | (own["high"] < 0)).sum()), int(own["low"].notna().sum())
    clear = (
        f"its 95 % interval is clear of 0 for {sure} of {counted(known, 'method')} (not corrected for the number of "
        "scores)"
        if known
        else f"no interval is computed, for which at least {LEAST_IMAGES} images that differ are needed"
    )
    yield (
        f"{first} goes most with the probability of the class: Spearman's correlation over the images is "
        f"{number(float(median[first]))}, the median over the methods, and {clear}."
    )


def _limits(tables: FidelityTables) -> Iterator[str]:
    """What the numbers do not show."""
    table = tables.transformations
    if len(table):
        known = table[table["variant"] != POOLED].groupby("variant", sort=False)["mean"].count()
        if empty := [str(name) for name, count in known.items() if not count]:
            yield f"Without any number: {listed(empty)}; the reasons are under “What was run”."
        stays = {
            "label": "the class explained stays the label, whatever the network predicts there",
            "predicted": "the class explained is the prediction there, which may be another",
        }
        if tables.target in stays:
            yield f"Under a transformation {stays[tables.target]}, so a changed score need not mean a worse map."
    if tables.images < IMAGES:
        yield f"Only {counted(tables.images, 'image')}: take this as an indication."

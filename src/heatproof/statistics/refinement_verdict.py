"""The verdict on refining CAMs over stages, in plain words (paper R, tables 1 and 2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heatproof.statistics.refinement import ALL, DEEPEST, EVERY, SAME, SIZES
from heatproof.statistics.special_rows import PRODUCT, TRUTH
from heatproof.statistics.validity import IMAGES
from heatproof.statistics.wording import confidence, counted, images_of, listed, number

#: The score by which refinement is judged, and the stability of a map under noise that keeps the prediction.
SCORE, STABILITY = "arcc", "kappa under noise"


@dataclass(frozen=True)
class RefinementVerdict:
    """One sentence and its notes."""

    sentence: str
    notes: tuple[str, ...]


def refinement_verdict(
    gains: pd.DataFrame, dataset: str, images: int, left: int = 0, level: float = 0.95
) -> RefinementVerdict:
    """The verdict on the `gains` (`refinement.refinement_gains`) of one model and set of images.

    images: those that count; left: those that the network classifies wrong.
    """
    whole = _rows(gains, SCORE, DEEPEST)
    if images < IMAGES or whole.empty:
        why = f"at least {IMAGES} images are needed" if images < IMAGES else "no refined map has a score"
        return RefinementVerdict(f"On {images_of(images, dataset)} nothing is computed: {why}.", ())
    better, worse = _sides(whole, level)
    bases = counted(len(whole), "base CAM")
    sure = confidence(images, images, level)
    raised = [f"raises {SCORE} for {listed(better)}"] if better else []
    lowered = [f"lowers {'it' if better else SCORE} for {listed(worse)}"] if worse else []
    what = " and ".join(raised + lowered) or f"changes {SCORE} for none of them significantly"
    sentence = (
        f"On {images_of(images, dataset)}, against the map of the deepest stage, which is usually shown, "
        f"refining {bases} over all stages {what} {sure}{_mean(gains, SCORE, DEEPEST)}."
    )
    return RefinementVerdict(sentence, tuple(_notes(gains, left, level)))


def _notes(gains: pd.DataFrame, left: int, level: float) -> Iterator[str]:
    same = _rows(gains, SCORE, SAME)
    if not same.empty:
        better, worse = _sides(same, level)
        yield (
            f"Against the plain map of the shallowest stage, as in paper R, {SCORE} rises for "
            f"{listed(better) if better else 'none'}{f' and falls for {listed(worse)}' if worse else ''}"
            f"{_mean(gains, SCORE, SAME)}."
        )
    yield from _truth(gains, level)
    stable = _rows(gains, STABILITY, DEEPEST)
    if not stable.empty:
        better, worse = _sides(stable, level)
        told = "costs no stability that can be told" if not worse else f"makes the maps of {listed(worse)} less stable"
        yield f"Under noise that keeps the prediction it {told}{_mean(gains, STABILITY, DEEPEST)}."
    yield from _operators(gains)
    count = len(_rows(gains, SCORE, DEEPEST))
    yield (
        f"Tests at {100 * (1 - level):g} %, paired by image: Wilcoxon's signed-rank test, Holm over every refined map "
        f"of {counted(count, 'base CAM')}; intervals by bootstrap over images."
    )
    if left:
        yield f"{counted(left, 'image')} that the network classifies wrong {'is' if left == 1 else 'are'} left out."


def _truth(gains: pd.DataFrame, level: float) -> Iterator[str]:
    whole = _rows(gains, TRUTH, DEEPEST)
    if whole.empty:
        return
    better, worse = _sides(whole, level)
    told = f"The cosine with the ground truth rises for {listed(better) if better else 'none'}"
    told += f" and falls for {listed(worse)}" if worse else ""
    sizes = []
    for size in SIZES:
        one = _every(gains, TRUTH, DEEPEST, size)
        if one is not None:
            sizes.append(f"{_signed(one['gain'])} ({number(one['low'])} to {number(one['high'])}) for {size} objects")
    yield f"{told}{_mean(gains, TRUTH, DEEPEST)}{f': {listed(sizes)}' if sizes else ''}."


def _operators(gains: pd.DataFrame) -> Iterator[str]:
    table: Any = gains
    here = table[(table["metric"] == SCORE) & (table["against"] == DEEPEST) & (table["size"] == ALL)]
    here = here[(here["base"] == EVERY) & (here["stage"] == 1)]
    if len(here) > 1:
        means = {row.operator: row.refined for row in here.itertuples()}
        order = sorted(means, key=lambda name: (-round(means[name], 6), name))
        yield f"Mean {SCORE} by operator: {listed([f'{name} {number(means[name])}' for name in order])}."


def _rows(gains: pd.DataFrame, metric: str, against: str) -> Any:
    """The rows of maps refined from the shallowest stage by the product, one for each base."""
    table: Any = gains
    found = table[(table["metric"] == metric) & (table["against"] == against) & (table["size"] == ALL)]
    return found[(found["operator"] == PRODUCT) & (found["stage"] == 1) & (found["base"] != EVERY)]


def _every(gains: pd.DataFrame, metric: str, against: str, size: str = ALL) -> Any:
    """The row of the mean over the bases; of a single base its own."""
    table: Any = gains
    found = table[(table["metric"] == metric) & (table["against"] == against) & (table["size"] == size)]
    found = found[(found["operator"] == PRODUCT) & (found["stage"] == 1)]
    found = found[found["base"] == EVERY] if (found["base"] == EVERY).any() else found
    return found.iloc[0] if len(found) else None


def _sides(rows: Any, level: float) -> tuple[Sequence[str], Sequence[str]]:
    """The bases for which refinement is significantly better, and worse."""
    sure = rows[rows["p_holm"] < 1 - level]
    up = sure[(sure["gain"] > 0) & (sure["effect"] > 0)]
    down = sure[(sure["gain"] < 0) & (sure["effect"] < 0)]
    return list(up["base"]), list(down["base"])


def _mean(gains: pd.DataFrame, metric: str, against: str) -> str:
    one = _every(gains, metric, against)
    if one is None or one["gain"] != one["gain"]:
        return ""
    return f" (by {_signed(one['gain'])} on average, 95 % interval {number(one['low'])} to {number(one['high'])})"


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)

"""The verdict on refining CAMs over stages, in plain words (paper R, tables 1 and 2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heatproof.statistics.paired import LEAST_IMAGES, can_be_significant
from heatproof.statistics.refinement import ALL, DEEPEST, EVERY, SAME, SIZES
from heatproof.statistics.special_rows import PRODUCT, TRUTH
from heatproof.statistics.wording import LEARNT, confidence, counted, images_of, listed, number

#: The score by which refinement is judged, and the stability of a map under noise that keeps the prediction.
SCORE, STABILITY = "arcc", "kappa under noise"


@dataclass(frozen=True)
class RefinementVerdict:
    """One sentence and its notes.

    applies: whether the network has learnt the images, so that their ground truth applies; True where there is none.
    """

    sentence: str
    notes: tuple[str, ...]
    applies: bool = True


@dataclass(frozen=True)
class _Told:
    """What the tests say of one number and comparison, in words.

    better, worse: the base CAMs whose gain or loss is significant, each with its own mean, interval and n. untested:
    why some base CAM has no test that could be significant, empty where all have one; nothing: none of them has. rest:
    `untested` and the mean over all base CAMs, to end a sentence.
    """

    better: Sequence[str]
    worse: Sequence[str]
    nothing: bool
    rest: str


def refinement_verdict(
    gains: pd.DataFrame,
    dataset: str,
    images: int,
    left: int = 0,
    level: float = 0.95,
    accuracy: float | None = None,
) -> RefinementVerdict:
    """The verdict on the `gains` (`refinement.refinement_gains`) of one model and set of images.

    images: those that count; left: those that the network classifies wrong. accuracy: share classified right in
    [0, 1], None where it is not known.
    """
    table: Any = gains
    seeing = bool((table["metric"] == TRUTH).any())
    applies = not seeing or accuracy is None or accuracy >= LEARNT
    unlearnt = "" if applies else _unlearnt(dataset, images + left, accuracy or 0.0)
    whole = _rows(gains, SCORE, DEEPEST)
    if images < LEAST_IMAGES or whole.empty:
        why = f"at least {LEAST_IMAGES} images are needed" if images < LEAST_IMAGES else "no refined map has a score"
        sentence = f"{unlearnt}On {images_of(images, dataset)} nothing is computed: {why}."
        return RefinementVerdict(sentence, (), applies)
    told = _told(gains, SCORE, DEEPEST, images, level)
    bases = counted(len(whole), "base CAM")
    fewest = int(whole["n"].min())
    raised = [f"raises {SCORE} for {listed(told.better)}"] if told.better else []
    lowered = [f"lowers {'it' if told.better else SCORE} for {listed(told.worse)}"] if told.worse else []
    what = " and ".join(raised + lowered) or f"changes {SCORE} significantly for no single one of them"
    where = (
        f"{unlearnt}On {images_of(images, dataset)}, against the map of the deepest stage, which is usually shown, "
        f"refining {bases} over all stages"
    )
    if told.nothing:
        sentence = f"{where} cannot be told to change {SCORE}{told.rest}."
    else:
        sentence = f"{where} {what} {confidence(fewest, fewest, level)}{told.rest}."
    return RefinementVerdict(sentence, tuple(_notes(gains, images, left, level, applies)), applies)


def _unlearnt(dataset: str, given: int, accuracy: float) -> str:
    return (
        f"The network classifies {100 * accuracy:.0f} % of {images_of(given, dataset)} right: it has not learnt them, "
        "so their ground truth does not apply to its maps, and nothing is said of it. "
    )


def _notes(gains: pd.DataFrame, images: int, left: int, level: float, applies: bool) -> Iterator[str]:
    if not _rows(gains, SCORE, SAME).empty:
        told = _told(gains, SCORE, SAME, images, level)
        yield f"Against the plain map of the shallowest stage, as in paper R, {_moves(SCORE, told)}{told.rest}."
    if applies:
        yield from _truth(gains, images, level)
    if not _rows(gains, STABILITY, DEEPEST).empty:
        told = _told(gains, STABILITY, DEEPEST, images, level)
        said = [f"more stable for {listed(told.better)}"] if told.better else []
        said += [f"less stable for {listed(told.worse)}"] if told.worse else []
        what = "stability changes significantly for no single base CAM"
        if said:
            what = f"the maps are {' and '.join(said)}"
        if told.nothing:
            what = "it cannot be told whether stability changes"
        yield f"Under noise that keeps the prediction, {what}{told.rest}."
    yield from _operators(gains)
    count = len(_rows(gains, SCORE, DEEPEST))
    yield (
        f"Tests at {100 * (1 - level):g} %, paired by image: Wilcoxon's signed-rank test, Holm over every refined map "
        f"of {counted(count, 'base CAM')}; intervals by bootstrap over images, each not corrected for the others."
    )
    if left:
        yield f"{counted(left, 'image')} that the network classifies wrong {'is' if left == 1 else 'are'} left out."


def _truth(gains: pd.DataFrame, images: int, level: float) -> Iterator[str]:
    if _rows(gains, TRUTH, DEEPEST).empty:
        return
    told = _told(gains, TRUTH, DEEPEST, images, level)
    sizes = []
    for size in SIZES:
        one = _every(gains, TRUTH, DEEPEST, size)
        if one is not None and int(one["n"]):
            sizes.append(f"{_signed(one['gain'])} ({_span(one)}, {counted(int(one['n']), 'image')}) for the {size}")
    by = f". By thirds of the images by the area of their masks: {listed(sizes)}" if sizes else ""
    yield f"Against the map of the deepest stage, {_moves('the cosine with the ground truth', told)}{told.rest}{by}."


def _operators(gains: pd.DataFrame) -> Iterator[str]:
    table: Any = gains
    here = table[(table["metric"] == SCORE) & (table["against"] == DEEPEST) & (table["size"] == ALL)]
    here = here[(here["base"] == EVERY) & (here["stage"] == 1)]
    if len(here) > 1:
        means = {row.operator: row.refined for row in here.itertuples()}
        order = sorted(means, key=lambda name: (-round(means[name], 6), name))
        named = listed([f"{name} {number(means[name])}" for name in order])
        yield f"Mean {SCORE} over all base CAMs by operator: {named}."


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


def _told(gains: pd.DataFrame, metric: str, against: str, images: int, level: float) -> _Told:
    """What the tests of the maps refined from the shallowest stage say; each number has its n where not `images`."""
    rows, table = _rows(gains, metric, against), gains
    together: Any = table[(table["metric"] == metric) & (table["against"] == against) & (table["size"] == ALL)]
    family = int((together["p_holm"].notna() & (together["base"] != EVERY)).sum())
    able = rows["n"].map(lambda n: n >= LEAST_IMAGES and can_be_significant(int(n), max(1, family), level))
    sure = rows[able & (rows["p_holm"] < 1 - level)]
    sides = (
        sure[(sure["gain"] > 0) & (sure["effect"] > 0)],
        sure[(sure["gain"] < 0) & (sure["effect"] < 0)],
    )
    better, worse = ([f"{row['base']} ({_gain(row, images)})" for _, row in side.iterrows()] for side in sides)
    idle = rows[~able]
    untested = ""
    if len(idle):
        most = int(idle["n"].max())
        why = (
            f"{counted(most, 'image')}, at least {LEAST_IMAGES} are needed"
            if most < LEAST_IMAGES
            else f"{counted(most, 'image')} are too few for {counted(family, 'test')} together to be significant"
        )
        whom = "" if len(idle) == len(rows) else f" for {listed(list(idle['base']))}"
        what = "no test is computed" if most < LEAST_IMAGES else "no test can be significant"
        untested = f"; {what}{whom} ({why})"
    return _Told(better, worse, len(idle) == len(rows), untested + _mean(gains, metric, against, images, len(rows)))


def _moves(what: str, told: _Told) -> str:
    """`arcc rises for … and falls for …`."""
    if told.nothing:
        return f"it cannot be told whether {what} changes"
    said = [f"rises for {listed(told.better)}"] if told.better else []
    said += [f"falls for {listed(told.worse)}"] if told.worse else []
    return f"{what} {' and '.join(said) or 'changes significantly for no single base CAM'}"


def _mean(gains: pd.DataFrame, metric: str, against: str, images: int, bases: int) -> str:
    """The mean gain over all base CAMs, or that of the only one."""
    one = _every(gains, metric, against)
    if one is None or one["gain"] != one["gain"]:
        return ""
    whose = f"the mean gain over all {bases} base CAMs is" if bases > 1 else f"the mean gain of {one['base']} is"
    return f"; {whose} {_gain(one, images)}"


def _gain(row: Any, images: int) -> str:
    """A mean gain with its interval, and the number of its images where that is not `images`."""
    n = int(row["n"])
    where = "" if n == images else f", on {counted(n, 'image')}"
    return f"{_signed(row['gain'])}, {_span(row)}{where}"


def _span(row: Any) -> str:
    return f"95 % interval {number(row['low'])} to {number(row['high'])}"


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)

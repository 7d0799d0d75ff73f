"""The verdict of the study of parts: which methods weigh the parts of an object as the network does, in plain words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heatproof.statistics.equal_maps import DISTINCT, EqualMaps
from heatproof.statistics.fooling import MetricRanking, fooled
from heatproof.statistics.paired import by_mean
from heatproof.statistics.part_scores import SUMS
from heatproof.statistics.wording import IMAGES, confidence, counted, listed, number

#: With fewer right predictions the parts are no ground truth for what the network uses.
ACCURACY = 0.9


@dataclass(frozen=True)
class PartVerdict:
    """The verdict on one model and one test set.

    applies: whether the network is right often enough. ranking: the methods by the score, with the tests.
    """

    sentence: str
    notes: tuple[str, ...]
    applies: bool
    ranking: MetricRanking


def part_verdict(scores: pd.DataFrame, accuracy: float, validation: str, equal: EqualMaps = DISTINCT) -> PartVerdict:
    """The verdict on the `image_part_scores` of one model and one test set.

    accuracy: share of right predictions, NaN where there are no labels. validation: the set of the thresholds.
    """
    rows = scores.assign(metric="score", value=scores["score"])
    (judged,) = fooled(rows, {"score": "high"}, equal=equal)
    applies = not accuracy < ACCURACY
    frame: Any = scores
    images = int(frame["image"].nunique())
    if not applies:
        sentence = (
            f"The ground truth does not apply: the network is right on {100 * accuracy:.0f} % of "
            f"{counted(images, 'image')}, and {100 * ACCURACY:.0f} % are needed before the parts that make a class can "
            "stand for what the network uses. The numbers below are no verdict on the methods."
        )
        return PartVerdict(sentence, (), False, judged)
    notes = (*_components(scores, equal), *equal.notes(), *_notes(judged, images, validation))
    return PartVerdict(_sentence(judged, images), notes, True, judged)


def _sentence(judged: MetricRanking, images: int) -> str:
    """What was compared, on how many images, at which level, and which controls are not worse."""
    where = f"On {counted(images, 'image')}"
    if judged.best is not None and judged.n < images:
        where = f"On the {counted(judged.n, 'image')} of {images:,} that have all three values"
    if judged.best is None:
        return f"{where} there is no verdict: no image has completeness, correctness and contrastivity for any method."
    how = "by the mean of completeness, correctness and contrastivity"
    real = [name for name in judged.means if name not in judged.controls]
    rest, sure = len(real) - len(judged.top), confidence(judged.n, judged.whole, judged.level)
    if len(real) == 1:
        told = f"there is one method, {judged.best}, with {number(judged.means[judged.best])} {how}"
    elif not judged.ranked:
        told = f"nothing can be told for sure: {judged.best} ranks first {how}, which may be chance"
    elif len(judged.top) == 1:
        others = "the other method" if rest == 1 else f"each of the other {rest} methods"
        told = f"{judged.best} comes out best {how} ({number(judged.means[judged.best])}): it beats {others} {sure}"
    elif rest == 0:
        told = f"no method can be told from {judged.best}, which ranks first {how}"
    else:
        are = "the other method is" if rest == 1 else f"the other {rest} methods are"
        told = f"{listed(judged.top)} share the top {how}; {are} worse than {judged.best} {sure}"
    return f"{where} {told}. {_controls(judged)}"


def _controls(judged: MetricRanking) -> str:
    if not judged.controls:
        return "No control was run."
    if not judged.exposed:
        return "There are too few images to say whether a control is worse."
    if judged.fooled:
        return f"Not significantly worse than {judged.best}, though useless on purpose: {listed(judged.fooled)}."
    if len(judged.controls) == 1:
        return f"The control, {judged.controls[0]}, is worse."
    return f"All {len(judged.controls)} controls are worse."


def _components(scores: pd.DataFrame, equal: EqualMaps) -> Iterator[str]:
    """The parts of the score by which a control is not worse than the best real method."""
    told = []
    for name in SUMS[:-1]:
        rows: Any = scores.assign(metric=name, value=scores[name])
        means: Any = equal.kept(rows[~rows["control"]]).groupby("method")["value"].mean()
        best = by_mean(means.to_numpy()[None], list(means.index))[:1]
        (judged,) = fooled(rows[rows["control"] | rows["method"].isin(best)], {name: "high"}, equal=equal)
        told += [f"{name} by {listed(judged.fooled)} (against {judged.best})"] if judged.fooled else []
    if told:
        yield (
            f"Alone, these parts of the score are fooled: {'; '.join(told)}. These controls do not depend on the "
            "network, and are not significantly worse than the best method there."
        )


def _notes(judged: MetricRanking, images: int, validation: str) -> Iterator[str]:
    comparison = judged.comparison
    pairs = len(comparison.pairs) if comparison else 0
    fakes: Sequence[str] = [name for name in judged.tests if name in judged.controls]
    if pairs or fakes:
        corrected = " and over ".join(
            [*([counted(pairs, "pair") + " of methods"] if pairs else []),
             *([counted(len(fakes), "control")] if fakes else [])]
        )  # fmt: skip
        yield (
            f"Wilcoxon's test, paired by image, on the {counted(judged.n, 'image')} that have all three values; "
            f"corrected by Holm over {corrected}."
        )
    yield f"The threshold above which a part is important was chosen on {validation}, for each method."
    if judged.n < images:
        yield (
            f"{images - judged.n} of {counted(images, 'image')} do not count in the tests: they are misclassified, "
            "have nothing irrelevant, or their logits do not follow the parts of two other classes. The score in the "
            "table is the mean of its parts, each over all images that have it, as in the paper."
        )
    if images < IMAGES:
        yield f"Only {counted(images, 'image')}: take this as an indication."

"""The verdict on the methods of a score study: who shares the top, which scores were fooled, in plain words (§11).

The mean rank of a method over the scores that no control fooled decides, image by image. Every family of scores counts
once, so that twenty fidelity scores do not outvote the masks. Families in `ASIDE` are reported but not counted:
a map can be small and stable, and wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.equal_maps import DISTINCT, EqualMaps
from heatproof.statistics.fooling import MetricRanking
from heatproof.statistics.paired import Comparison, compared
from heatproof.statistics.score_tables import ARROWS, score_rows, wide_scores
from heatproof.statistics.wording import IMAGES, confidence, counted, left_out, listed, tested_together

#: Families that do not measure whether a map is right.
ASIDE = ("complexity", "sensitivity", "sanity", "stability")


@dataclass(frozen=True)
class ScoreVerdict:
    """The verdict on one model and set of images.

    counted: the scores that count; fooled: score → the controls that fooled it; ranks: mean rank over the counted
    scores of each real method, best first; top: the best and those that cannot be told from it, best first; firsts:
    method → the counted scores whose top it shares. Of methods with equal maps the first stands for all. comparison:
    the tests over images, which decide the top; None where there is nothing to compare. images: those with a score
    that all methods share.
    """

    model: str
    dataset: str
    sentence: str
    notes: tuple[str, ...]
    top: tuple[str, ...]
    counted: tuple[str, ...]
    fooled: Mapping[str, tuple[str, ...]]
    ranks: Mapping[str, float]
    firsts: Mapping[str, tuple[str, ...]]
    comparison: Comparison | None
    images: int
    level: float


def score_verdicts(
    rows: pd.DataFrame,
    judged: Sequence[MetricRanking],
    families: Mapping[str, str] | None = None,
    equal: EqualMaps = DISTINCT,
) -> list[ScoreVerdict]:
    """A verdict for each model and dataset of `judged` (see `fooling.fooled`).

    `families`: metric → its family. `equal`: methods that are one arm, as for `fooled`.
    """
    frame: Any = equal.kept(score_rows(rows))
    found = []
    for model, dataset in dict.fromkeys((one.model, one.dataset) for one in judged):
        here = [one for one in judged if (one.model, one.dataset) == (model, dataset)]
        cells = frame[(frame["model"] == model) & (frame["dataset"] == dataset)]
        found.append(_verdict(cells, here, families or {}, equal))
    return found


def _verdict(
    cells: Any, judged: Sequence[MetricRanking], families: Mapping[str, str], equal: EqualMaps
) -> ScoreVerdict:
    fakes = {one.metric: one.fooled for one in judged if one.fooled}
    counted = _counted_scores(judged, families)
    controls = {name for one in judged for name in one.controls}
    real = cells[~cells["method"].isin(controls)]
    known = set(real.loc[real["value"].notna(), "method"])
    left = tuple(sorted(set(real["method"]) - known)) if known else ()
    ranks = rank_blocks(real[real["method"].isin(known)], counted, families)
    top, averages, comparison, ranked = (), {}, None, False
    level = judged[0].level
    whole = len(ranks.dropna())
    if whole and ranks.shape[1]:
        averages = {str(name): float(value) for name, value in _ascending_ranks(ranks.mean()).items()}
        top, ranked = tuple(averages), True
        if ranks.shape[1] > 1:
            comparison = compared(ranks, higher_is_better=False, alpha=1 - level)
            top, ranked = comparison.top, comparison.able
    names = tuple(one.metric for one in counted)
    firsts = {method: tuple(one.metric for one in counted if method in one.top) for method in averages}
    given = cells["image"].nunique()
    about = _ScoreFacts(judged, names, fakes, top, averages, ranked, controls, whole, given, level, left)
    sentence, notes = _sentence(about), (*equal.notes(), *_notes(about, families))
    where = judged[0].model, judged[0].dataset
    return ScoreVerdict(*where, sentence, notes, top, names, fakes, averages, firsts, comparison, whole, level)


def _ascending_ranks(ranks: Any) -> Any:
    """Average ranks, best first; equal ones by name."""
    return ranks.loc[rounded(ranks).sort_values(kind="stable").index]


def _counted_scores(judged: Sequence[MetricRanking], families: Mapping[str, str]) -> list[MetricRanking]:
    """The scores that all methods have and no control fooled; families in `ASIDE` only where there are no others."""
    methods = {name for one in judged for name in one.means if name not in one.controls}
    sound = [one for one in judged if one.best and not one.fooled and methods <= set(one.means)]
    right = [one for one in sound if families.get(one.metric, "") not in ASIDE]
    return right or sound


def rank_blocks(cells: Any, counted: Sequence[MetricRanking], families: Mapping[str, str]) -> pd.DataFrame:
    """Images × methods: the mean rank (1 = best) over the scores of a family, then over the families.

    On each image only the scores that every method has there count. An image without any has NaN, so that the tests
    count it as dropped.
    """
    by_family: dict[str, list[Any]] = {}
    methods = sorted(map(str, cells["method"].unique()))
    for one in counted:
        wide: Any = wide_scores(cells[cells["metric"] == one.metric]).reindex(columns=methods)
        whole = wide.dropna()
        whole = rounded(whole, largest(whole.to_numpy()), ANSWER_STEP)
        ranks = whole.rank(axis=1, ascending=one.better == "low")
        by_family.setdefault(families.get(one.metric, ""), []).append(ranks)
    means = [_mean(frames) for frames in by_family.values()]
    return _mean(means).reindex(sorted(cells["image"].unique())) if means else pd.DataFrame()


def _mean(frames: Sequence[Any]) -> Any:
    """Mean of several frames by image and method."""
    return pd.concat(frames).groupby(level=0, sort=True).mean()


@dataclass(frozen=True)
class _ScoreFacts:
    """The values from which the sentence and the notes are made."""

    rankings: Sequence[MetricRanking]
    counted: tuple[str, ...]
    fooled: Mapping[str, tuple[str, ...]]
    top: tuple[str, ...]
    ranks: Mapping[str, float]
    ranked: bool
    controls: set[str]
    images: int
    given: int
    level: float
    left: tuple[str, ...]

    @property
    def sure(self) -> str:
        return confidence(self.images, self.images, self.level)

    @property
    def tests(self) -> str:
        """The tests behind the verdict, and what they are corrected for."""
        methods = len(self.ranks)
        by = "Wilcoxon's test by image with Holm's correction"
        return tested_together(methods * (methods - 1) // 2, self.level, by)


def _sentence(about: _ScoreFacts) -> str:
    """One sentence for a reader who knows no statistics."""
    if not any(one.best for one in about.rankings):
        return "No verdict: no method has a number for any score."
    where = f"On {counted(about.images or about.given, 'image')}"
    if not about.counted:
        return f"{where} no method can be recommended: every score is fooled by a map that is useless on purpose."
    if not about.ranks:
        return f"{where} no method can be recommended: there is no image on which all methods have the same score."
    scores = counted(len(about.counted), "score")
    untested = [one for one in about.rankings if one.metric in about.counted and not one.exposed]
    kept = f"the {scores} that no control fooled" if about.controls and not untested else scores
    if about.controls and untested:
        kept += " (whether a control fools them could not be tested)"
    if len(about.ranks) == 1:
        return f"{where} there is one method, {about.top[0]}, and nothing to compare it with."
    if not about.ranked:
        first = next(iter(about.ranks))
        return f"{where} nothing can be told for sure: {first} ranks first by {kept}, which may be chance."
    rest = len(about.ranks) - len(about.top)
    others = "the other method" if rest == 1 else f"each of the other {rest} methods"
    if len(about.top) == 1:
        return f"{where} {about.top[0]} comes out best by {kept}: it beats {others} {about.sure} ({about.tests})."
    best, *near = about.top
    if rest == 0:
        return f"{where} no method can be told from {best}, which ranks first by {kept} ({about.tests})."
    are = "the other method is" if rest == 1 else f"the other {rest} methods are"
    return (
        f"{where} {listed(about.top)} come out best by {kept}: {listed(near)} cannot be told from {best}, {are} worse "
        f"than {best} {about.sure} ({about.tests})."
    )


def _notes(about: _ScoreFacts, families: Mapping[str, str]):
    """Remarks on the limits of the evidence."""
    if about.left:
        yield left_out(about.left)
    tested = [one for one in about.rankings if one.exposed]
    if about.fooled:
        told = listed([f"{metric} (by {listed(names)})" for metric, names in about.fooled.items()])
        yield (
            f"Fooled: {len(about.fooled)} of {counted(len(tested), 'score')}, {told}. These controls do not depend on "
            "the network, and yet the score cannot tell them from the best method: it proves nothing here."
        )
        weak = [one.metric for one in about.rankings if one.fooled and not set(one.fooled) & set(one.ahead)]
        if weak:
            them = "this" if len(weak) == len(about.fooled) else listed(weak)
            yield (
                f"For {them} the controls are worse than the best method on average, but not significantly on "
                f"{counted(about.given, 'image')}; with more images they might be."
            )
    elif tested:
        yield f"No control fooled any of the {counted(len(tested), 'score')}."
    if not about.controls:
        yield "No control was run, so it is not known whether these scores can be fooled."
    elif len(tested) < len(about.rankings):
        untold = len(about.rankings) - len(tested)
        yield f"For {counted(untold, 'score')} there are too few images or numbers to say whether a control fools it."
    aside = sorted(
        {families.get(one.metric, "") for one in about.rankings if one.metric not in about.counted} & set(ASIDE)
    )
    if about.ranks and len(about.ranks) > 1:
        shown = f"; scores of {listed(aside)} are shown but not counted, as a small or stable map can be wrong"
        yield (
            "Who is best is decided by the mean rank over the scores, image by image, each family counting once"
            f"{shown if aside else ''}."
        )
    if about.images < about.given and about.images:
        without = about.given - about.images
        have = "has" if without == 1 else "have"
        yield f"{without} of {counted(about.given, 'image')} {have} no score that all methods share."
    if about.images < IMAGES:
        yield f"Only {counted(about.images, 'image')}: take this as an indication."


def ranking_sentence(judged: MetricRanking) -> str:
    """One sentence on one score."""
    way = {"high": "higher", "low": "lower"}[judged.better]
    name, level = f"{judged.metric} ({ARROWS[judged.better]} {way} is better)", judged.level
    if judged.best is None:
        return f"{name}: no method has a number."
    if judged.fooled:
        ahead = [control for control in judged.fooled if control in judged.ahead]
        more = f"; {listed(ahead)} even {'does' if len(ahead) == 1 else 'do'} as well or better" if ahead else ""
        return f"{name} is fooled: {listed(judged.fooled)} cannot be told from {judged.best}, the best method{more}."
    methods = [m for m in judged.means if m not in judged.controls]
    rest = len(methods) - len(judged.top)
    if len(methods) == 1:
        told = f"{judged.best} is the only method"
    elif not judged.ranked:
        told = f"{judged.best} ranks first, on too few images to be sure"
    elif len(judged.top) == 1:
        told = f"{judged.best} is best {confidence(judged.n, judged.whole, level)}"
    else:
        told = f"{listed(judged.top)} share the top" + ("" if rest else f", no method can be told from {judged.best}")
    sure = "; every control is worse" if judged.exposed else ""
    return f"{name}: {told}{sure}."

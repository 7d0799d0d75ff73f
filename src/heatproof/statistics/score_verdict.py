"""The verdict on the methods of a score study: who shares the top, which scores were fooled, in plain words (§11).

The average rank of a method over the scores that no control fooled decides, image by image. Every family of scores
counts once, so that twenty fidelity scores do not outvote the masks. Families in `ASIDE` are reported but not counted:
a map can be small and stable, and wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.fooling import MetricRanking, leaders
from heatproof.statistics.paired import Comparison, compared
from heatproof.statistics.robustness_verdict import IMAGES
from heatproof.statistics.score_tables import ARROWS, score_rows, wide_scores
from heatproof.statistics.wording import counted, left_out, listed

#: Families that do not measure whether a map is right.
ASIDE = ("complexity", "sensitivity", "sanity", "stability")


@dataclass(frozen=True)
class ScoreVerdict:
    """The verdict on one model and set of images.

    counted: the scores that count; fooled: score → the controls that fooled it; ranks: average rank of each real
    method over the counted scores, best first; top: the best and those that cannot be told from it, best first; firsts:
    method → the counted scores whose top it shares. comparison: the tests over images, None where there is nothing to
    compare.
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
    rows: pd.DataFrame, judged: Sequence[MetricRanking], families: Mapping[str, str] | None = None
) -> list[ScoreVerdict]:
    """A verdict for each model and dataset of `judged` (see `fooling.fooled`); `families`: metric → its family."""
    frame: Any = score_rows(rows)
    found = []
    for model, dataset in dict.fromkeys((one.model, one.dataset) for one in judged):
        here = [one for one in judged if (one.model, one.dataset) == (model, dataset)]
        cells = frame[(frame["model"] == model) & (frame["dataset"] == dataset)]
        found.append(_verdict(cells, here, families or {}))
    return found


def _verdict(cells: Any, judged: Sequence[MetricRanking], families: Mapping[str, str]) -> ScoreVerdict:
    fakes = {one.metric: one.fooled for one in judged if one.fooled}
    counted = _counted_scores(judged, families)
    controls = {name for one in judged for name in one.controls}
    real = cells[~cells["method"].isin(controls)]
    known = set(real.loc[real["value"].notna(), "method"])
    left = tuple(sorted(set(real["method"]) - known)) if known else ()
    ranks = rank_blocks(real[real["method"].isin(known)], counted, families)
    top, averages, comparison, ranked = (), {}, None, False
    level = judged[0].level
    if len(ranks) and ranks.shape[1]:
        _, top, _, ranked = leaders(-ranks, level)
        averages = {str(name): float(value) for name, value in _ascending_ranks(ranks.mean()).items()}
        if ranks.shape[1] > 1:
            comparison = compared(ranks, higher_is_better=False, alpha=1 - level)
    names = tuple(one.metric for one in counted)
    firsts = {method: tuple(one.metric for one in counted if method in one.top) for method in averages}
    given = cells["image"].nunique()
    about = _ScoreFacts(judged, names, fakes, top, averages, ranked, controls, len(ranks), given, level, left)
    sentence, notes = _sentence(about), tuple(_notes(about, families))
    where = judged[0].model, judged[0].dataset
    return ScoreVerdict(*where, sentence, notes, top, names, fakes, averages, firsts, comparison, len(ranks), level)


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
    """Images × methods: the average rank (1 = best) over the scores of a family, then over the families.

    On each image only the scores that every method has there count. Images without any are left out.
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
    return _mean(means) if means else pd.DataFrame()


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
    def percent(self) -> str:
        return f"{100 * self.level:g} %"


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
    kept = f"the {scores} that no control fooled" if about.controls else scores
    if len(about.ranks) == 1:
        return f"{where} there is one method, {about.top[0]}, and nothing to compare it with."
    if not about.ranked:
        first = next(iter(about.ranks))
        return f"{where} nothing can be told for sure: {first} ranks first by {kept}, which may be chance."
    rest = len(about.ranks) - len(about.top)
    others = "the other method" if rest == 1 else f"each of the other {rest} methods"
    if len(about.top) == 1:
        return f"{where} {about.top[0]} comes out best by {kept}: it beats {others} at {about.percent} confidence."
    if rest == 0:
        return f"{where} no method can be told from the others at {about.percent} confidence, by {kept}."
    are = "the other method is" if rest == 1 else f"the other {rest} methods are"
    return (
        f"{where} {listed(about.top)} come out best by {kept}; they cannot be told apart, {are} worse at "
        f"{about.percent} confidence."
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
        yield (
            "Who is best is decided by the average rank, image by image, each family of scores counting once"
            + (f"; {listed(aside)} are shown but not counted, as a small or stable map can be wrong." if aside else ".")
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
    name, percent = f"{judged.metric} ({ARROWS[judged.better]} {way} is better)", f"{100 * judged.level:g} %"
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
        told = f"{judged.best} is best at {percent} confidence"
    else:
        told = f"{listed(judged.top)} share the top" + ("" if rest else ", no method can be told from the others")
    sure = "; every control is worse" if judged.exposed else ""
    return f"{name}: {told}{sure}."

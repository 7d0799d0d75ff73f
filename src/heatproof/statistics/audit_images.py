"""Image by image: whether the map of a method may be shown, with the reasons, by what was measured on that image.

*Mild noise* is the lowest severity of every perturbation that was run. The likeness of a map is the lowest RBO with the
map under mild noise that keeps the prediction. A decision is the worst of its reasons; `RULES` states them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import beta

from heatproof.flags import DEGENERATE, SATURATED
from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.audit_answers import LEVEL, PEAK, QUESTIONS, RANDOM, AuditFindings, most
from heatproof.statistics.audit_sentence import percent
from heatproof.statistics.score_tables import better, wide_scores
from heatproof.statistics.wording import counted, listed, number

SHOW, WARN, HIDE = "show", "show with a warning", "do not show"
#: Maps whose likeness is in this lowest share of the method's own have a warning.
UNSTEADY = 0.1
#: A map that is no more like itself than this share of the maps of the control `random` is not shown.
CHANCE = 0.95
#: Above the threshold on the probability fewer than this share of the images are not to be shown.
RATE = 0.1
#: The thresholds that are tried, from the highest; 0 takes all images.
THRESHOLDS = (0.99, *(round(0.05 * step, 2) for step in range(19, -1, -1)))
#: (decision, when), as the page and docs/statistics.md state it.
RULES = (
    (HIDE, "the image could not be used, or there is no map, or it is degenerate"),
    (HIDE, "the prediction is wrong, where there is a label"),
    (HIDE, "the prediction changes under mild noise (the lowest severity of each perturbation that was run)"),
    (
        HIDE,
        f"under mild noise that keeps the prediction, the map is not more like itself (lowest RBO) than "
        f"{percent(CHANCE)} of the maps of the control {RANDOM} are",
    ),
    (HIDE, "the probability of the prediction is below the threshold of the first sentence, where there is one"),
    (HIDE, "the method is not fit to be shown: it fails a question, or is not shown to be faithful"),
    (
        WARN,
        f"the map is in the {percent(UNSTEADY)} of the method's maps that are least like themselves under mild noise",
    ),
    (WARN, "on this image some control scores better by most of the scores of “faithful”"),
    (WARN, "a score is saturated: no masking moved the probability"),
    (WARN, "the class explained is the same for all images, and is not the prediction"),
    (WARN, "the peak of the map lies off the ground truth, where there is a mask that marks something"),
    (WARN, "the method is fit to be shown, and another one is recommended"),
)
#: Where the peak of a map lies; in place of these the reason why that is not known, such as an empty mask.
ON, OFF, SHARED = "on", "off", "on and off"
#: Columns of tables/per_image.csv.
COLUMNS = (
    *("image", "method", "recommended", "decision", "reason", "predicted", "right", "probability", "changed_by"),
    *("likeness", "chance", "controls_better_by", "peak"),
)


@dataclass(frozen=True)
class ImageDecisions:
    """The decisions on one model and dataset.

    table: a row for each image and real method, columns `COLUMNS`. least: the lowest probability above which fewer than
    `RATE` of the images are not to be shown, by the upper bound of the interval; None where there is none, or none is
    needed. notes: the same in words. chance: the likeness of random maps, NaN where it is not known.
    """

    table: Any
    least: float | None
    notes: tuple[str, ...]
    chance: float

    def of(self, method: str) -> Any:
        """The rows of one method."""
        return self.table[self.table["method"] == method]


def image_decisions(
    found: AuditFindings, images: Any, scores: Any, mild: Any, directions: Mapping[str, Any], explained: str = ""
) -> ImageDecisions:
    """Decides for every image and real method.

    Args:
        found: the answers on the model and dataset.
        images: a row for each image: image, predicted, probability, right (or NA), flag (of one that cannot be used).
        scores: image, method, metric, value, flag, control. mild: the pairs under mild noise: image, method, condition,
            rbo, changed. directions: metric → "high" or "low".
        explained: the class that all maps explain, as `predicted` has it; empty where it depends on the image.
    """
    likeness = _likeness(mild)
    chance = float(likeness[RANDOM].quantile(CHANCE)) if RANDOM in likeness else np.nan
    low = likeness.quantile(UNSTEADY)
    changed = _changed(mild)
    ahead = _controls_ahead(scores, directions)
    flags, peaks = _flags(scores), _peaks(scores)
    rows: list[dict[str, Any]] = []
    every: list[list[tuple[str, str]]] = []
    for one in images.itertuples():
        by, whole = changed.get(one.image, ""), _of_image(one, changed.get(one.image, ""))
        if explained and one.predicted and one.predicted != explained:
            whole.append((WARN, f"the map is of {explained}, which is not the prediction"))
        for method in found.findings:
            alike = _at(likeness, one.image, method)
            better_by = ahead.get((one.image, method), "")
            why = [
                *whole,
                *_of_map(flags.get((one.image, method), ("no score",)), alike, chance, low.get(method, np.nan)),
            ]
            why += [(WARN, f"a control scores better on this image by {better_by}")] if better_by else []
            peak = peaks.get((one.image, method), "")
            why += [(WARN, "the peak of the map lies off the ground truth")] if peak == OFF else []
            every.append(why)
            rows.append(
                {"image": one.image, "method": method, "recommended": method == found.recommended,
                 "predicted": one.predicted, "right": one.right, "probability": one.probability, "changed_by": by,
                 "likeness": alike, "chance": chance, "controls_better_by": better_by, "peak": peak}
            )  # fmt: skip
    table: Any = pd.DataFrame(rows, columns=list(COLUMNS))
    hidden = np.array([any(decision == HIDE for decision, _ in why) for why in every], bool)
    least, notes = _threshold(table[table["recommended"]], hidden[table["recommended"].to_numpy(bool)], found)
    for row, why in zip(rows, every, strict=True):
        if least is not None and row["probability"] < least:
            why.append((HIDE, f"the prediction is below {percent(least)}"))
        why += _of_method(found, row["method"])
    table["decision"] = [_worst(why) for why in every]
    table["reason"] = ["; ".join(dict.fromkeys(text for _, text in sorted(why, key=_hardness))) for why in every]
    return ImageDecisions(table, least, notes, chance)


def _hardness(reason: tuple[str, str]) -> int:
    return (HIDE, WARN).index(reason[0])


def _worst(why: Sequence[tuple[str, str]]) -> str:
    return next((one for one in (HIDE, WARN) if any(decision == one for decision, _ in why)), SHOW)


def _of_image(one: Any, changed: str) -> list[tuple[str, str]]:
    found = [(HIDE, f"the image cannot be used: {one.flag}")] if one.flag else []
    found += [(HIDE, "the prediction is wrong")] if one.right is not pd.NA and one.right == False else []  # noqa: E712
    return found + ([(HIDE, f"the prediction changes under mild noise ({changed})")] if changed else [])


def _of_map(flags: Sequence[str], alike: float, chance: float, low: float) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for flag in flags:
        if any(flag.startswith(one.value) for one in DEGENERATE):
            found.append((HIDE, f"the map is degenerate ({flag})"))
        elif flag.startswith(SATURATED):
            found.append((WARN, "a score is saturated"))
        else:
            found.append((HIDE, f"there is no map ({flag})"))
    if alike <= chance:
        text = f"RBO {number(alike)}, random maps {number(chance)}"
        found.append((HIDE, f"under mild noise the map is no more like itself than a random map ({text})"))
    elif alike < low:
        found.append((WARN, f"the map is among the tenth that change most under mild noise (RBO {number(alike)})"))
    return found


def _of_method(found: AuditFindings, method: str) -> list[tuple[str, str]]:
    if method == found.recommended:
        return []
    if method in found.fit:
        return [(WARN, f"{found.recommended} is recommended in its place")]
    return [(HIDE, f"{method} is not fit to be shown: {found.reason_against(method)}")]


def _likeness(mild: Any) -> Any:
    """The lowest RBO under mild noise that keeps the prediction, images × methods."""
    kept = mild[(mild["changed"].astype("boolean").fillna(True) == False)]  # noqa: E712
    return kept.pivot_table(index="image", columns="method", values="rbo", aggfunc="min", observed=True)


def _at(table: Any, image: str, method: str) -> float:
    return float(table.at[image, method]) if image in table.index and method in table.columns else np.nan


def _changed(mild: Any) -> dict[str, str]:
    """Image → the mild conditions under which its prediction changes."""
    there = mild[mild["changed"].astype("boolean").fillna(False)]
    return {
        str(image): listed(sorted(map(str, here["condition"].unique())))
        for image, here in there.groupby("image", observed=True)
    }


def _controls_ahead(scores: Any, directions: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """(image, method) → the scores of `faithful` by which a control is better, where they are most of them."""
    metrics = next(one.metrics for one in QUESTIONS if one.name == "faithful")
    there = [name for name in metrics if scores.loc[scores["metric"] == name, "value"].notna().any()]
    controls = set(scores.loc[scores["control"].astype(bool), "method"])
    found: dict[tuple[str, str], list[str]] = {}
    for metric in there:
        sign = -1 if better(directions, metric) == "low" else 1
        wide: Any = sign * wide_scores(scores[scores["metric"] == metric])
        values = wide.to_numpy(np.float64)
        wide = pd.DataFrame(rounded(values, largest(values, None), ANSWER_STEP), wide.index, wide.columns)
        useless = [name for name in wide if name in controls]
        if useless:
            best = wide[useless].max(axis=1)
            for method in (name for name in wide if name not in controls):
                for image in wide.index[wide[method] < best]:
                    found.setdefault((str(image), str(method)), []).append(metric)
    return {key: listed(names) for key, names in found.items() if there and len(names) >= most(there)}


def _flags(scores: Any) -> dict[tuple[str, str], tuple[str, ...]]:
    """(image, method) → flags: those of a degenerate map or a saturated score, or of a map with no value at all."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for (image, method), here in scores.groupby(["image", "method"], sort=False, observed=True):
        flags = list(dict.fromkeys(str(flag) for flag in here["flag"] if str(flag)))
        kept = [one for one in flags if one.startswith((SATURATED, *(reason.value for reason in DEGENERATE)))]
        none = here["value"].isna().all()
        found[str(image), str(method)] = tuple(kept or (flags[:1] or ["no score"] if none else []))
    return found


def _peaks(scores: Any) -> dict[tuple[str, str], str]:
    """(image, method) → `ON`, `OFF`, `SHARED`, or why it is not known where the peak lies; nothing without masks."""
    here = scores[scores["metric"] == PEAK]
    if here["value"].isna().all():
        return {}
    found: dict[tuple[str, str], str] = {}
    for one in here.itertuples():
        flag, value = str(one.flag), float(one.value)
        place = ON if value == 1 else OFF if value == 0 else SHARED
        found[str(one.image), str(one.method)] = flag or ("" if np.isnan(value) else place)
    return found


def upper_bound(bad: int, of: int, level: float = LEVEL) -> float:
    """Clopper and Pearson's one-sided upper bound of a share."""
    return 1.0 if bad >= of else float(beta.ppf(level, bad + 1, of - bad))


def least_probability(
    probability: np.ndarray, hidden: np.ndarray, rate: float = RATE, level: float = LEVEL
) -> float | None:
    """The lowest of `THRESHOLDS` down to which the share of hidden images at or above it is below `rate`, or None.

    Thresholds are tried from the highest with enough images for a bound below `rate`, until one fails. As this order
    does not depend on what is hidden, all that pass hold together at `level` (fixed-sequence testing). A threshold that
    takes no further image says nothing new, and the one before it stays.
    """
    passed, taken = None, 0
    for threshold in THRESHOLDS:
        above = probability >= threshold
        if upper_bound(0, int(above.sum()), level) > rate:
            continue  # even with no hidden image it could not pass
        if upper_bound(int(hidden[above].sum()), int(above.sum()), level) > rate:
            break
        passed, taken = (threshold, int(above.sum())) if above.sum() > taken else (passed, taken)
    return passed


def _threshold(table: Any, hidden: np.ndarray, found: AuditFindings) -> tuple[float | None, tuple[str, ...]]:
    """The threshold for the recommended method, None where it is of no use; and a note."""
    probability = table["probability"].to_numpy(np.float64)
    known = ~np.isnan(probability)
    if found.recommended is None or not known.any():
        return None, ()
    probability, hidden = probability[known], hidden[known]
    least = least_probability(probability, hidden)
    count = f"{int(hidden.sum())} of {counted(len(hidden), 'image')}"
    were = f"Its map is not to be shown on {count}, by what was measured there"
    if least is None:
        few = len(hidden) < _needed()
        need = f"; that needs at least {_needed()} images" if few else ""
        return None, (
            f"{were}. No probability of the prediction was found above which this is so on fewer than {percent(RATE)} "
            f"of the images{need}.",
        )
    if not (probability < least).any():
        lowest = percent(float(probability.min()))
        return None, (f"{were}; no image has a prediction below {lowest}, and nothing is known of such images.",)
    above = int((probability >= least).sum())
    bound = percent(upper_bound(int(hidden[probability >= least].sum()), above))
    return least, (
        f"{were}. Of the {above} with a prediction of at least {percent(least)} this is so on "
        f"{int(hidden[probability >= least].sum())} (at most {bound}, at 95 % confidence).",
    )


def _needed() -> int:
    return next(n for n in range(1, 10_000) if upper_bound(0, n) <= RATE)

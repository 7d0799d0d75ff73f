"""Consistency, responsiveness, RM and RM₀ of one cell: a method under one perturbation (protocols §5, paper N).

A cell is a set of pairs (image, severity): the RBO of each, its chance-corrected κ, and whether the
prediction changed.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from heatproof.errors import InvalidInput
from heatproof.rounding import largest, rounded

#: Pairs of each kind (changed, unchanged) needed to compute responsiveness, and to call it reliable.
COMPUTED, RELIABLE = 10, 20
Fit = Literal["none", "paper"]


@dataclass(frozen=True)
class Robustness:
    """The quantities of a cell, higher is better; NaN where there are too few pairs.

    All are in [0, 1], except kappa, rm0 and rm0_within, which can be below 0. n: pairs used; flips: those whose
    prediction changed. consistency: needs one unchanged pair. responsiveness, rm, rm0: need ten of each kind;
    `reliable`: there are twenty. within, rm0_within: responsiveness and RM₀ within the strata (severities), see
    `stratified_auc`; NaN too where no stratum has both kinds. kappa: median κ of unchanged pairs.
    """

    n: int
    flips: int
    consistency: float
    responsiveness: float
    rm: float
    rm0: float
    reliable: bool
    within: float
    rm0_within: float
    kappa: float

    @property
    def reason(self) -> str:
        """Why responsiveness is missing or unreliable; "" where it is reliable."""
        if self.reliable:
            return ""
        kept = self.n - self.flips
        few = min(self.flips, kept)
        kind = "changed" if self.flips <= kept else "unchanged"
        verb = "are needed" if few < COMPUTED else "make it reliable"
        number = COMPUTED if few < COMPUTED else RELIABLE
        return f"{few} {kind} predictions among {self.n} pairs; {number} {verb}"


def robustness_of(
    rbo: np.ndarray,
    kappa: np.ndarray,
    changed: np.ndarray,
    fit: Fit = "none",
    stratum: np.ndarray | None = None,
) -> Robustness:
    """The quantities of a cell from its pairs `(n,)`; pairs with a NaN RBO are left out and not counted.

    consistency = median RBO of unchanged pairs; responsiveness = `auc(−RBO, changed)`; RM = their product;
    RM₀ = median κ of unchanged pairs × max(0, 2·AUC − 1), 0 for a map that ignores its input. `fit`: see
    `responsiveness`. `stratum` `(n,)`: each pair's severity, for `within` and `rm0_within`.
    """
    keep = ~np.isnan(np.asarray(rbo, np.float64))
    rbo, kappa, changed = used(rbo, kappa, changed)
    flips, still = int(changed.sum()), float(consistency(rbo, changed))
    area = responsiveness(rbo, changed, fit)
    middle = consistency(kappa[~np.isnan(kappa)], changed[~np.isnan(kappa)])
    inside = np.nan
    if both_kinds(changed):
        inside = stratified_auc(-rbo, changed, np.zeros(len(rbo)) if stratum is None else np.asarray(stratum)[keep])
    return Robustness(
        n=len(rbo),
        flips=flips,
        consistency=still,
        responsiveness=area,
        rm=still * area,
        rm0=float(middle * np.maximum(0, 2 * area - 1)),  # np.maximum keeps NaN
        reliable=both_kinds(changed, RELIABLE),
        within=inside,
        rm0_within=float(middle * np.maximum(0, 2 * inside - 1)),
        kappa=middle,
    )


def used(rbo: np.ndarray, kappa: np.ndarray, changed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs that have an RBO, as float64, float64 and bool."""
    rbo, kappa = np.asarray(rbo, np.float64), np.asarray(kappa, np.float64)
    changed = np.asarray(changed, bool)
    if not rbo.shape == kappa.shape == changed.shape or rbo.ndim != 1:
        raise InvalidInput(
            f"`rbo`, `kappa` and `changed` must be of one length. Got {rbo.shape}, {kappa.shape}, {changed.shape}."
        )
    keep = ~np.isnan(rbo)
    return rbo[keep], kappa[keep], changed[keep]


def both_kinds(changed: np.ndarray, number: int = COMPUTED) -> bool:
    """Whether there are `number` changed and `number` unchanged pairs."""
    flips = int(np.sum(changed))
    return min(flips, len(changed) - flips) >= number


def consistency(rbo: np.ndarray, changed: np.ndarray) -> float:
    """Median RBO over pairs whose predicted class did not change; NaN where there is none."""
    still = rbo[~changed]
    return float(np.median(still)) if len(still) else np.nan


def responsiveness(rbo: np.ndarray, changed: np.ndarray, fit: Fit = "none") -> float:
    """How well −RBO separates changed from unchanged predictions, in [0, 1], .5 is chance; NaN below ten of a kind.

    `fit="none"`: the AUC with mid-ranks (Mann–Whitney), nothing is fitted. `fit="paper"`: the AUC of N's
    one-feature linear classifier, fitted and scored on the same pairs; it can reverse the score, so it is
    biased up when flips are rare (.607 instead of .5 at 5 flips in 200 without any relation).
    """
    if fit not in ("none", "paper"):
        raise InvalidInput(f"`fit` must be 'none' or 'paper'. Got {fit!r}.")
    if not both_kinds(changed):
        return np.nan
    return fitted_auc(-rbo, changed) if fit == "paper" else auc(-rbo, changed)


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """P(positive scores higher) + ½ P(equal to six digits), by mid-ranks; NaN where either kind is missing."""
    return _auc(ranked(scores), positive)


def ranked(scores: np.ndarray) -> np.ndarray:
    """Scores rounded for the ranks of an AUC: to six digits of the largest."""
    scores = np.asarray(scores, np.float64)
    return rounded(scores, largest(scores, None))


def _auc(scores: np.ndarray, positive: np.ndarray) -> float:
    hits = int(np.sum(positive))
    misses = len(scores) - hits
    if not hits or not misses:
        return np.nan
    from scipy.stats import rankdata  # half of what a process that measures would import

    return float((rankdata(scores)[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def stratified_auc(scores: np.ndarray, positive: np.ndarray, stratum: np.ndarray) -> float:
    """P(positive scores higher) + ½ P(equal) over pairs *of one stratum*; NaN where no stratum has both kinds.

    Pooled over severities, the plain AUC is confounded: where noise is stronger, predictions change more often
    and any map that depends on the image changes more, even an edge detector's. Comparisons within a stratum
    avoid this. The result is the mean of the strata's AUCs, weighted by their pairs (van Elteren's weights for
    the probability of superiority).
    """
    won = total = 0.0
    scores = ranked(scores)
    for one in np.unique(stratum):
        here = stratum == one
        pairs = float(positive[here].sum() * (~positive[here]).sum())
        if pairs:
            won += pairs * _auc(scores[here], positive[here])
            total += pairs
    return won / total if total else np.nan


def fitted_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """AUC of a logistic (or any linear) classifier on one feature, fitted in-sample: the AUC up to the slope's sign.

    A monotone function of the score keeps its AUC, so only the sign of the slope matters. The likelihood is
    concave, so it is the sign of the log-likelihood's derivative at slope 0, which is that of the difference
    of the two means. Equal means give slope 0 and a constant classifier: .5.
    """
    value = auc(scores, positive)
    if np.isnan(value):
        return value
    scores = np.asarray(scores, np.float64)
    apart = scores[positive].mean() - scores[~positive].mean()
    slope = np.sign(rounded(apart, largest(scores, None)))
    return float(0.5 + slope * (value - 0.5))

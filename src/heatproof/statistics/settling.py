"""About how many images would settle what cannot be told: from the p of the images at hand.

The normal deviate of a test grows with the square root of the number of images, if the effect is the same on others.
So n images with the one-sided p give `z = Φ⁻¹(1 − p)`, and a test at `α = (1 − level) / tests` finds the effect with
probability `POWER` on about `n ((Φ⁻¹(1 − α) + Φ⁻¹(POWER)) / z)²` images. The effect of few images is not well known, so
this is an order of magnitude.
"""

from itertools import count
from math import ceil, isnan

from scipy.stats import norm

from heatproof.statistics.paired import can_be_significant

#: The probability with which a run on that many images finds the effect.
POWER = 0.8
#: No number is named beyond so many times the images at hand: the effect is then too small to be known.
MOST = 100


def enough_images(n: int, p: float, tests: int, level: float) -> int | None:
    """About how many images would settle it; None where p is unknown, the effect is too small, or of the other sign.

    Args:
        n: images behind p. p: one-sided, not corrected. tests: how many methods are tested together.
    """
    if n < 1 or isnan(p) or not 0 < p < 0.5:
        return None
    wanted = norm.isf((1 - level) / max(1, tests)) + norm.isf(1 - POWER)
    found = max(ceil(n * float(wanted / norm.isf(p)) ** 2), fewest_images(tests, level))
    return found if n < found <= MOST * n else None


def fewest_images(tests: int, level: float) -> int:
    """The fewest images on which a one-sided signed-rank test can be significant, corrected for so many tests."""
    return next(n for n in count(1) if can_be_significant(n, max(1, tests), level, one_sided=True))

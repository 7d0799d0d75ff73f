"""What refining a CAM over several stages gains, image by image (paper R): scores, ground truth, stability.

Arms are methods by their spelling: `BASE@stage:k` is plain, `refine:BASE@stage:k` the product with all deeper stages.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from heatproof import spelling
from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.intervals import multiplicities, percentiles, resampled_means
from heatproof.statistics.paired import LEAST_IMAGES, tested
from heatproof.statistics.score_tables import ARROWS, Directions, better, wide_scores
from heatproof.statistics.special_rows import PRODUCT

REFINE, STAGE = "refine:", "stage:"
#: What a refined map is compared with: the plain map of its own stage, and that of the deepest stage.
SAME, DEEPEST = "same stage", "deepest stage"
#: The mean over all base CAMs, image by image.
EVERY = "(mean of all)"
ALL = "all"
SIZES = ("smallest third", "middle third", "largest third")
#: Columns of `refinement_gains`.
COLUMNS = (
    *("base", "stage", "operator", "metric", "against", "size", "n", "plain", "refined", "gain", "low", "high"),
    *("p", "p_holm", "effect"),
)


class Arm(NamedTuple):
    """A base CAM at a stage, 1 the shallowest; `operator` is empty for a plain map."""

    base: str
    stage: int
    operator: str = ""

    @property
    def method(self) -> str:
        """Its spelling as a method."""
        asked = spelling.parse(self.base)
        options = {**asked.options, **({"operator": self.operator} if self.operator not in ("", PRODUCT) else {})}
        return spelling.format(f"{REFINE if self.operator else ''}{asked.name}", options, [f"{STAGE}{self.stage}"])


def arm_of(method: str) -> Arm | None:
    """The arm that a method is, None for another method."""
    asked = spelling.parse(method)
    if len(asked.layers) != 1 or not asked.layers[0].startswith(STAGE):
        return None
    refined = asked.name.startswith(REFINE)
    options = {name: value for name, value in asked.options.items() if name != "operator"}
    base = spelling.format(asked.name.removeprefix(REFINE), options)
    operator = str(asked.options.get("operator", PRODUCT)) if refined else ""
    return Arm(base, int(asked.layers[0].removeprefix(STAGE)), operator)


def arms_of(bases: Sequence[str], stages: int, operators: Sequence[str]) -> list[Arm]:
    """Every base plain at every stage, refined from every stage but the deepest, and by the other operators from all.

    The first of `operators` refines from every stage, the others from the shallowest alone.
    """
    found = []
    for base in bases:
        found += [Arm(base, stage) for stage in range(1, stages + 1)]
        found += [Arm(base, stage, operators[0]) for stage in range(1, stages)]
        found += [Arm(base, 1, operator) for operator in operators[1:]]
    return found


def size_groups(sizes: Mapping[str, float]) -> dict[str, str]:
    """Image → its third of the images by the size of the ground truth, one of `SIZES`; equal sizes together."""
    if len(sizes) < len(SIZES):
        return {}
    names = sorted(sizes)
    values = rounded(np.array([sizes[name] for name in names], np.float64))
    cuts = np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf")
    return {name: SIZES[int((value > cuts).sum())] for name, value in zip(names, values, strict=True)}


def refinement_gains(
    scores: pd.DataFrame,
    directions: Directions,
    groups: Mapping[str, str] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """What each refined map gains over a plain one, paired by image; columns COLUMNS.

    scores: image, method, metric, value of one model and set of images. `plain` and `refined` are means; `gain` is the
    mean difference, positive where the refined map is better, with its 95 % interval (bootstrap by image). `p` is that
    of Wilcoxon's signed-rank test, `p_holm` corrected over all bases, stages and operators of the same metric,
    comparison and size; with fewer than `LEAST_IMAGES` images no test is computed, and p and effect are NaN.
    Rows of the base `EVERY` are means over the bases. groups: image → size of its ground truth.
    """
    frame: Any = scores
    images = sorted(frame["image"].unique())
    drawn = multiplicities(max(1, len(images)), resamples, seed, "refinement")
    sizes = [ALL, *(size for size in SIZES if size in set((groups or {}).values()))]
    members = {size: np.array([size == ALL or (groups or {}).get(i) == size for i in images]) for size in sizes}
    parts = []
    for metric in dict.fromkeys(frame["metric"]):
        if better(directions, metric) in ARROWS:
            sign = 1 if better(directions, metric) == "high" else -1
            wide: Any = wide_scores(frame[frame["metric"] == metric]).reindex(images)
            for against in (SAME, DEEPEST):
                pairs = list(_pairs(wide, against))
                for size in sizes if pairs else ():
                    parts += _lines(pairs, members[size], sign, drawn, level, (str(metric), against, size))
    return pd.DataFrame(parts, columns=list(COLUMNS))


def _pairs(wide: Any, against: str) -> Iterator[tuple[Arm, np.ndarray, np.ndarray]]:
    """(refined arm, its scores, those of the plain arm), and for each stage and operator the mean over the bases."""
    arms = {arm: str(method) for method in wide.columns if (arm := arm_of(str(method)))}
    deepest = max((arm.stage for arm in arms), default=0)
    found: dict[tuple[int, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for arm, method in arms.items():
        plain = Arm(arm.base, arm.stage if against == SAME else deepest)
        if arm.operator and plain in arms:
            pair = wide[method].to_numpy(np.float64), wide[arms[plain]].to_numpy(np.float64)
            found.setdefault(arm[1:], []).append(pair)
            yield arm, *pair
    for (stage, operator), several in found.items():
        if len(several) > 1:
            refined, plain = (np.mean([pair[side] for pair in several], 0) for side in (0, 1))
            yield Arm(EVERY, stage, operator), refined, plain


def _lines(
    pairs: Sequence[tuple[Arm, np.ndarray, np.ndarray]],
    member: np.ndarray,
    sign: int,
    drawn: np.ndarray,
    level: float,
    about: tuple[str, str, str],
) -> list[tuple[Any, ...]]:
    known = [np.where(member & ~np.isnan(one) & ~np.isnan(other), 0.0, np.nan) for _, one, other in pairs]
    sides = [(sign * (one + k), sign * (other + k)) for (_, one, other), k in zip(pairs, known, strict=True)]
    enough = [int((~np.isnan(first - second)).sum()) >= LEAST_IMAGES for first, second in sides]
    bases = [i for i, (arm, _, _) in enumerate(pairs) if arm.base != EVERY and enough[i]]
    tests = dict(zip(bases, tested([sides[i] for i in bases], [("", "")] * len(bases)), strict=True))
    lines = []
    for i, (arm, _, _) in enumerate(pairs):
        first, second = sides[i]
        moves = rounded(first - second, largest(np.concatenate([first, second]), None), ANSWER_STEP)
        n = int((~np.isnan(moves)).sum())
        means = [float(np.nanmean(side)) if n else np.nan for side in (second * sign, first * sign, moves)]
        bounds = percentiles(resampled_means(moves, drawn), n, level) if n else (np.nan, np.nan)
        test = tests.get(i) or (tested([(first, second)], [("", "")])[0] if enough[i] else None)
        corrected = tests[i].p_holm if i in tests else np.nan
        p, effect = (np.nan, np.nan) if test is None else (test.p, test.effect)
        lines.append((*arm, *about, n, *means, *bounds, p, corrected, effect))
    return lines

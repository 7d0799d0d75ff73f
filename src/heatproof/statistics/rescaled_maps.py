"""What a metric sees of a monotone rescaling of a map: nothing, if it reads the order of the pixels alone (R, Fig. 4).

`METHOD[power=p]` has the map of METHOD raised to the power p: the same order of the pixels, other values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from heatproof import spelling
from heatproof.rounding import ANSWER_STEP, largest, rounded
from heatproof.statistics.equal_maps import DIFFERENT
from heatproof.statistics.score_tables import score_rows, wide_scores
from heatproof.statistics.special_rows import POWER

#: The mean change, as a share of the span over the images, up to which a metric counts as unmoved.
STILL = 0.01


@dataclass(frozen=True)
class Rescaling:
    """One metric, of a method's maps and of the same maps rescaled, over `n` images.

    plain, rescaled: the means. most: the largest change on an image. same: the share of images without any change.
    moved: the mean change, as a share of the span of the plain values; NaN where these are fewer than `DIFFERENT`
    different numbers, which may be equal by chance.
    """

    metric: str
    method: str
    arm: str
    n: int
    plain: float
    rescaled: float
    most: float
    same: float
    moved: float

    @property
    def blind(self) -> bool:
        """Whether the metric hardly changed: by at most `STILL` of its span on average.

        Rounding to six digits makes a few pixels tie in one map and not in the other, so not all changes are 0.
        """
        return self.moved <= STILL


def base_of(method: str) -> str:
    """The method of which this one is a rescaling; itself where it is none."""
    asked = spelling.parse(method)
    options = {name: value for name, value in asked.options.items() if name != POWER}
    return spelling.format(asked.name, options, asked.layers)


def is_rescaled(method: str) -> bool:
    """Whether the method's maps are a rescaling of another's."""
    return POWER in spelling.parse(method).options


def added_arm(plan: Mapping[str, Any]) -> str:
    """The arm that a study with the setting `power` adds: its first method's map rescaled; empty without one.

    plan: the settings by name (`methods`, `power`). The arm shows what metrics see, and is no method to be ranked. A
    rescaled map under another name, or in a study without that setting, is a method like any other.
    """
    methods = [str(name) for name in plan.get("methods") or ()]
    if not methods or not plan.get("power") or is_rescaled(methods[0]):
        return ""
    first = spelling.parse(methods[0])
    arm = spelling.format(first.name, {**first.options, POWER: plan["power"]}, first.layers)
    return arm if arm in methods else ""


def rescalings(scores: pd.DataFrame) -> list[Rescaling]:
    """Every metric for every rescaled method whose base is there too, in the order of the rows."""
    frame: Any = score_rows(scores)
    there = set(frame["method"])
    arms = [m for m in dict.fromkeys(frame["method"]) if is_rescaled(m) and base_of(m) in there]
    found = []
    for metric in dict.fromkeys(frame["metric"]):
        wide: Any = wide_scores(frame[frame["metric"] == metric])
        for arm in arms:
            pair = wide.reindex(columns=[base_of(arm), arm]).dropna().to_numpy(np.float64)
            if len(pair):
                moves = rounded(np.abs(pair[:, 1] - pair[:, 0]), largest(pair, None), ANSWER_STEP)
                (plain, rescaled), most = pair.mean(0), float(moves.max())
                near = rounded(pair[:, 0], largest(pair, None), ANSWER_STEP)
                told = len(np.unique(near)) >= DIFFERENT
                moved = float(moves.mean() / (near.max() - near.min())) if told else np.nan
                facts = float(plain), float(rescaled), most, float((moves == 0).mean()), moved
                found.append(Rescaling(str(metric), base_of(arm), arm, len(pair), *facts))
    return found

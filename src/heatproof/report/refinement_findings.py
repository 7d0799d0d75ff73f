"""Findings on refined maps: scores of every arm, and what refinement gains in scores, ground truth and stability."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from heatproof.report import frames
from heatproof.report.frames import Frame
from heatproof.report.pair_cells import Pairs
from heatproof.report.score_findings import ScoreFindings, ScoreSetting
from heatproof.report.source import Source
from heatproof.statistics.refinement import arm_of, refinement_gains, size_groups
from heatproof.statistics.refinement_verdict import STABILITY, RefinementVerdict, refinement_verdict
from heatproof.statistics.score_tables import score_table

#: The metrics of a refine study, in the order of its tables.
SHOWN = ("arcc", "coherency", "complexity", "road", "mask-cosine", STABILITY)


@dataclass(frozen=True)
class SettingRefinement:
    """The findings of one model and set of images; images that the network classifies wrong are left out.

    table: mean of every method and metric (`score_tables.score_table`). gains: `refinement.refinement_gains`.
    metrics: those of `SHOWN` that have values. layers: method → the layers it reads. images: those that count.
    """

    setting: ScoreSetting
    table: Frame
    gains: Frame
    verdict: RefinementVerdict
    metrics: Sequence[str]
    layers: Mapping[str, str]
    accuracy: float | None
    images: int


def refinement_findings(source: Source, scores: ScoreFindings) -> list[SettingRefinement]:
    """The findings of every model and set of images that has refined arms."""
    right, truth = frames.correct_images(source.connection), frames.ground_truth_scores(source.connection)
    stable = _stability(Pairs.of(source.connection))
    every = pd.concat([scores.scores, stable], ignore_index=True)
    given = {"resamples": int(source.plan.get("resamples") or 1000), "seed": int(source.plan.get("seed") or 0)}
    found = []
    for one in scores.settings:
        here, known = one.setting.of(every), one.setting.of(right)
        if not any(arm_of(str(name)) for name in here["method"].unique()):
            continue
        used, accuracy = frames.classified_right(here, known)
        used = used[used["metric"].isin(SHOWN)]
        facts = {**scores.facts, STABILITY: {"better": "high"}}
        areas = one.setting.of(truth)
        areas = areas[(areas["metric"] == "complexity") & areas["image"].isin(used["image"])].set_index("image")[
            "value"
        ]
        arms = used[used["method"].map(lambda name: arm_of(str(name)) is not None)]
        gains = refinement_gains(arms, facts, size_groups(areas.to_dict()), **given)
        images, left = used["image"].nunique(), here["image"].nunique() - used["image"].nunique()
        found.append(
            SettingRefinement(
                one.setting,
                score_table(used, facts, **given),
                gains,
                refinement_verdict(gains, one.setting.dataset, images, left, accuracy=accuracy),
                [metric for metric in SHOWN if metric in set(used["metric"])],
                frames.layers_of(source.connection, one.setting.model),
                accuracy,
                images,
            )
        )
    return found


def _stability(pairs: Pairs) -> Frame:
    """The mean κ of each image and method over the conditions that keep the prediction, as scores."""
    found = pairs.held_means("kappa", ["model", "dataset", "layer", "image", "method", "control"])
    return found.assign(metric=STABILITY, flag="", target="")

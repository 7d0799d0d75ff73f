"""What refinement gains: arms by their spelling, gains held against loops, sizes, and the sentence."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from heatproof.statistics.refinement import (
    ALL,
    DEEPEST,
    EVERY,
    SAME,
    SIZES,
    Arm,
    arm_of,
    arms_of,
    refinement_gains,
    size_groups,
)
from heatproof.statistics.refinement_verdict import refinement_verdict
from heatproof.statistics.special_rows import PRODUCT

DIRECTIONS = {"arcc": "high", "complexity": "low", "mask-cosine": "high"}
STABLE = DIRECTIONS | {"kappa under noise": "high"}


def test_arms_and_their_spellings():
    arms = arms_of(["layercam", "gradcam++[compat=true]"], 3, [PRODUCT, "geometric"])
    assert [arm.method for arm in arms[:6]] == [
        "layercam@stage:1", "layercam@stage:2", "layercam@stage:3",
        "refine:layercam@stage:1", "refine:layercam@stage:2", "refine:layercam@stage:1[operator=geometric]",
    ]  # fmt: skip
    assert arms[-1].method == "refine:gradcam++@stage:1[compat=true,operator=geometric]"
    assert [arm_of(arm.method) for arm in arms] == arms
    assert arm_of("layercam") is None and arm_of("refine:layercam@layer2+layer4") is None


def test_sizes_are_thirds_and_equal_sizes_stay_together():
    groups = size_groups({f"{i}": size for i, size in enumerate([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])})
    assert list(groups.values()) == [size for size in SIZES for _ in range(2)]
    assert set(size_groups({f"{i}": 0.2 for i in range(9)}).values()) == {SIZES[0]}
    assert size_groups({"a": 1.0, "b": 2.0}) == {}


def scores(images=20, seed=0, metrics=("arcc", "complexity"), gain=None):
    """Rows of two bases, two stages and a refined arm each; `gain` of the refined map by image."""
    generator = np.random.default_rng(seed)
    rows = []
    for image in range(images):
        for metric in metrics:
            for base in ("a", "b"):
                plain = {1: generator.random(), 2: generator.random()}
                refined = generator.random() if gain is None else plain[2] + gain * (1 + 0.1 * generator.random())
                values = {Arm(base, 1): plain[1], Arm(base, 2): plain[2], Arm(base, 1, PRODUCT): refined}
                rows += [(f"{image:02d}", arm.method, metric, value) for arm, value in values.items()]
    return pd.DataFrame(rows, columns=["image", "method", "metric", "value"])


def test_gains_are_those_of_a_loop():
    frame = scores()
    frame.loc[(frame["image"] == "03") & (frame["method"] == "a@stage:1"), "value"] = np.nan
    groups = {f"{i:02d}": SIZES[0] if i < 8 else SIZES[2] for i in range(20)}
    table = refinement_gains(frame, DIRECTIONS, groups, resamples=200)
    wide = frame.pivot(index="image", columns=["metric", "method"], values="value")
    for metric, sign in (("arcc", 1), ("complexity", -1)):
        for against, stage in ((SAME, 1), (DEEPEST, 2)):
            for size, names in ((ALL, list(groups)), (SIZES[2], [i for i, g in groups.items() if g == SIZES[2]])):
                here = table[(table["metric"] == metric) & (table["against"] == against) & (table["size"] == size)]
                raw = []
                for base in ("a", "b"):
                    pair = wide.loc[names, metric][[f"{base}@stage:{stage}", f"refine:{base}@stage:1"]].dropna()
                    moves = sign * (pair.iloc[:, 1] - pair.iloc[:, 0])
                    row = here[here["base"] == base].iloc[0]
                    assert row["gain"] == pytest.approx(moves.mean(), abs=1e-5) and row["n"] == len(pair)
                    assert (row["plain"], row["refined"]) == pytest.approx(tuple(pair.mean()), abs=1e-5)
                    assert row["low"] < row["gain"] < row["high"]
                    raw.append(wilcoxon(moves).pvalue)
                expected = multipletests(raw, method="holm")[1]
                found = here[here["base"].isin(["a", "b"])].sort_values("base")["p_holm"]
                assert list(found) == pytest.approx(list(expected), rel=1e-3)
    mean = table[(table["base"] == EVERY) & (table["metric"] == "arcc") & (table["size"] == ALL)]
    both = wide["arcc"]
    moves = (both["refine:a@stage:1"] + both["refine:b@stage:1"] - both["a@stage:2"] - both["b@stage:2"]) / 2
    assert mean[mean["against"] == DEEPEST]["gain"].item() == pytest.approx(moves.mean(), abs=1e-5)
    assert mean[mean["against"] == SAME]["n"].item() == 19


def test_the_interval_is_that_of_the_mean_by_image():
    """About ± 2 standard errors."""
    table = refinement_gains(scores(images=60), {"arcc": "high"}, resamples=2000)
    row = table[(table["base"] == "a") & (table["against"] == DEEPEST)].iloc[0]
    frame = scores(images=60).pivot(index="image", columns=["metric", "method"], values="value")["arcc"]
    moves = frame["refine:a@stage:1"] - frame["a@stage:2"]
    error = moves.std(ddof=1) / np.sqrt(60)
    assert row["high"] - row["low"] == pytest.approx(2 * 2.0 * error, rel=0.1)


def verdict(frame, images, **more):
    groups = {f"{i:02d}": SIZES[i % 3] for i in range(images)}
    return refinement_verdict(refinement_gains(frame, STABLE, groups, resamples=200), "set", images, **more)


def test_the_sentence_names_what_rises_and_falls():
    found = verdict(scores(60, gain=0.2, metrics=("arcc", "mask-cosine")), 60, left=2)
    assert "On 60 images of set" in found.sentence and found.applies
    assert "refining 2 base CAMs over all stages raises arcc for a (+0.21, 95 % interval 0.2" in found.sentence
    assert "at 95 % confidence; the mean gain over all 2 base CAMs is +0.21, 95 % interval 0.2" in found.sentence
    notes = " ".join(found.notes)
    assert "ground truth rises for a (+0.21" in notes and "20 images) for the smallest third" in notes
    assert "2 images that the network classifies wrong are left out" in notes and "Holm" in notes
    assert "lowers arcc for a (−0.21" in verdict(scores(60, gain=-0.2), 60).sentence
    assert "changes arcc significantly for no single one of them" in verdict(scores(60, seed=1), 60).sentence
    assert "nothing is computed: at least 10 images" in verdict(scores(5), 5).sentence


def test_a_number_beside_a_cam_is_that_cams():
    """One of two CAMs loses .6, the other nothing: the mean, −.3, is said to be that of both."""
    frame = scores(60, metrics=("arcc", "kappa under noise"))
    for base, loss in (("a", 0.6), ("b", 0.0)):
        plain = frame[frame["method"] == f"{base}@stage:2"].set_index(["image", "metric"])["value"]
        rows = frame["method"] == f"refine:{base}@stage:1"
        keys = pd.MultiIndex.from_frame(frame.loc[rows, ["image", "metric"]])
        frame.loc[rows, "value"] = plain.loc[keys].to_numpy() - loss
    found = verdict(frame, 60)
    assert "lowers arcc for a (−0.60, 95 % interval −0.60 to −0.60) at 95" in found.sentence
    assert "the mean gain over all 2 base CAMs is −0.30," in found.sentence and "b (" not in found.sentence
    (stable,) = [note for note in found.notes if note.startswith("Under noise")]
    assert "the maps are less stable for a (−0.60," in stable
    assert "the mean gain over all 2 base CAMs is −0.30" in stable


def test_too_few_images_for_a_test_are_no_proof_of_no_cost():
    """Stability falls on all six images that have it: its interval leaves 0 out, and no test can say so."""
    frame = scores(13, gain=-0.2, metrics=("arcc", "kappa under noise"))
    frame = frame[(frame["metric"] == "arcc") | (frame["image"] < "06")]
    table: Any = refinement_gains(frame, STABLE, resamples=200)
    few = table[table["metric"] == "kappa under noise"]
    assert few[["p", "p_holm", "effect"]].isna().to_numpy().all() and (few["n"] == 6).all() and few["low"].notna().all()
    (stable,) = [note for note in verdict(frame, 13).notes if note.startswith("Under noise")]
    assert "it cannot be told whether stability changes; no test is computed (6 images, at least 10 are" in stable
    assert "−0.21, 95 % interval" in stable and stable.endswith("on 6 images.") and "no cost" not in stable
    one: Any = scores(11, gain=0.2, metrics=("arcc",))
    one = one[one["method"].str.contains("a@")]
    many = pd.concat([one.assign(method=one["method"].str.replace("a@", f"a{k}@")) for k in range(60)])
    found = verdict(many, 11)
    assert "cannot be told to change arcc; no test can be significant (11 images are too few for" in found.sentence


def test_the_ground_truth_of_images_that_are_not_learnt_does_not_apply():
    frame = scores(60, gain=0.2, metrics=("arcc", "mask-cosine"))
    found = verdict(frame, 60, left=20, accuracy=0.75)
    assert not found.applies and found.sentence.startswith("The network classifies 75 % of 80 images of set right: it")
    assert "their ground truth does not apply to its maps" in found.sentence
    assert not any("cosine" in note for note in found.notes)
    assert verdict(frame, 60, left=1, accuracy=0.98).applies
    blind = verdict(frame[frame["metric"] == "arcc"], 60, left=20, accuracy=0.75)
    assert blind.applies and "ground truth" not in blind.sentence
    assert not verdict(frame[frame["image"] < "05"], 5, left=20, accuracy=0.2).applies

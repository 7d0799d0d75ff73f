"""What refinement gains: arms by their spelling, gains held against loops, sizes, and the sentence."""

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
    Arm,
    arm_of,
    arms_of,
    refinement_gains,
    size_groups,
)
from heatproof.statistics.refinement_verdict import refinement_verdict
from heatproof.statistics.special_rows import PRODUCT

DIRECTIONS = {"arcc": "high", "complexity": "low", "mask-cosine": "high"}


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
    assert list(groups.values()) == ["small", "small", "medium", "medium", "large", "large"]
    assert set(size_groups({f"{i}": 0.2 for i in range(9)}).values()) == {"small"}
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
    groups = {f"{i:02d}": "small" if i < 8 else "large" for i in range(20)}
    table = refinement_gains(frame, DIRECTIONS, groups, resamples=200)
    wide = frame.pivot(index="image", columns=["metric", "method"], values="value")
    for metric, sign in (("arcc", 1), ("complexity", -1)):
        for against, stage in ((SAME, 1), (DEEPEST, 2)):
            for size, names in ((ALL, list(groups)), ("large", [i for i, g in groups.items() if g == "large"])):
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


def test_the_sentence_names_what_rises_and_falls():
    frame = scores(60, gain=0.2, metrics=("arcc", "mask-cosine"))
    groups = {f"{i:02d}": ("small", "medium", "large")[i % 3] for i in range(60)}
    found = refinement_verdict(refinement_gains(frame, DIRECTIONS, groups, resamples=200), "set", 60, left=2)
    assert "On 60 images of set" in found.sentence
    assert "refining 2 base CAMs over all stages raises arcc for a and b at 95 % confidence" in found.sentence
    assert "(by +0.21 on average, 95 % interval 0.2" in found.sentence
    notes = " ".join(found.notes)
    assert "ground truth rises for a and b" in notes and "for small objects" in notes and "for large objects" in notes
    assert "2 images that the network classifies wrong are left out" in notes and "Holm" in notes
    worse = refinement_verdict(refinement_gains(scores(60, gain=-0.2), DIRECTIONS, resamples=200), "set", 60)
    assert "lowers arcc for a and b" in worse.sentence
    none = refinement_verdict(refinement_gains(scores(60, seed=1), DIRECTIONS, resamples=200), "set", 60)
    assert "for none of them significantly" in none.sentence
    few = refinement_verdict(refinement_gains(scores(5), DIRECTIONS, resamples=200), "set", 5)
    assert "nothing is computed: at least 10 images" in few.sentence

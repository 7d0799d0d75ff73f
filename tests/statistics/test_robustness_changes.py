"""Changes of figures between two settings: paired, corrected, and none without changed predictions."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from heatproof.statistics.check_sentences import change_sentences
from heatproof.statistics.intervals import bootstrap_p, multiplicities, percentiles
from heatproof.statistics.robustness import auc
from heatproof.statistics.robustness_changes import (
    can_differ,
    changes,
    counts,
    flip_rates,
    in_both,
    largest_change,
    moved_borders,
)
from heatproof.statistics.robustness_tables import pooled


def test_p_is_where_the_interval_reaches_0():
    values = np.random.default_rng(0).normal(0.2, 0.1, 2000)
    p = bootstrap_p(values, 40)
    below, above = (percentiles(values, 40, 1 - p * factor)[0] for factor in (0.9, 1.1))
    assert below < 0 < above and 0.01 < p < 0.1


def test_p_by_hand():
    values = np.array([1.0] * 96 + [-1.0] * 3)  # tail (1 + 3) / (1 + 99)
    by_hand = 2 * student.sf(norm.isf(0.04) * np.sqrt(24 / 25), 24)
    assert bootstrap_p(values, 25) == pytest.approx(by_hand, rel=1e-12)
    assert bootstrap_p(-values, 25) == pytest.approx(by_hand, rel=1e-12)
    assert bootstrap_p(np.zeros(99), 25) == pytest.approx(1.0)
    assert np.isnan(bootstrap_p(values, 1)) and np.isnan(bootstrap_p(np.full(99, np.nan), 25))


def test_moved_borders_are_found_by_their_names():
    names = ["quickshift", "slic", "split[of=slic]", "split", "grid", "grid[shift=0.5]", "grid[rows=3,shift=0.2]"]
    assert moved_borders(names) == [
        ("slic", "split[of=slic]"), ("quickshift", "split"), ("grid", "grid[shift=0.5]")
    ]  # fmt: skip


def beside(made, **more):
    before = made({"a": 0.3, "b": 0.15, "c": 0.1}, images=50, **more)
    after = before.assign(rbo=before["rbo"] - 0.1 * (before["method"] == "b"))
    after["kappa"] = (after["rbo"] - 0.1) / 0.9
    return before, after


def compared(before, after, resamples):
    return changes(pooled(before, resamples=resamples), pooled(after, resamples=resamples))


def largest(found, quantity):
    row: Any = largest_change(found, quantity)
    return None if row is None else row["method"]


def test_only_the_method_that_moved_is_told(made):
    before, after = beside(made)
    found: Any = compared(before, after, 400)
    assert largest(found, "rm") == "b" and counts(found, "rm") == (3, 1, 0)
    line: Any = found[(found["quantity"] == "rm")].set_index("method")
    assert bool(line.loc["b", "differs"]) and not line.loc["a", "differs"]
    assert line.loc["a", ["change", "low", "high"]].tolist() == [0, 0, 0]
    assert line.loc["b", "high"] < 0 and line.loc["b", "p_holm"] == pytest.approx(3 * line.loc["b", "p"])
    assert np.isnan(line.loc["half", "p_holm"]) and not line.loc["half", "differs"]
    assert line["w"].iloc[0] == 0.75  # the order is a, b, c, and then a, c, b


def slow_changes(before, after, method, resamples, dataset="pets"):
    """RM of each resample with loops: the images of a resample repeated, RM by its definition, then the mean."""
    images = sorted(before["image"].unique())
    drawn = multiplicities(len(images), resamples, 0, dataset)

    def rm(frame, weights):
        kinds = []
        for _, cell in frame[frame["method"] == method].groupby("perturbation"):
            rows = [r for r in cell.itertuples() for _ in range(int(weights[images.index(r.image)]))]
            rbo, changed = np.array([r.rbo for r in rows]), np.array([bool(r.changed) for r in rows])
            kinds.append(np.median(rbo[~changed]) * auc(-rbo, changed))
        return np.mean(kinds)

    point = rm(after, np.ones(len(images))) - rm(before, np.ones(len(images)))
    return point, [rm(after, column) - rm(before, column) for column in drawn.T]


def test_changes_as_by_loops(made):
    before, after = beside(made, seed=4)
    found: Any = compared(before, after, 40)
    row: Any = found[(found["quantity"] == "rm") & (found["method"] == "b")].iloc[0]
    point, moves = slow_changes(before, after, "b", 40)
    assert row["change"] == pytest.approx(point, abs=1e-9)
    assert (row["low"], row["high"]) == pytest.approx(percentiles(np.array(moves), 50), abs=1e-9)
    assert row["p"] == pytest.approx(bootstrap_p(np.array(moves), 50))


def test_without_changed_predictions_there_is_a_consistency_and_no_rm(made):
    before, after = beside(made, flip=0.0)
    found: Any = compared(before, after, 50)
    assert largest(found, "rm") is None and counts(found, "rm") == (0, 0, 0)
    assert found.loc[found["quantity"] == "rm", "perturbations"].tolist() == [0] * 5
    assert largest(found, "consistency") == "b"
    assert not can_differ(found, "rm", 1000)


def test_few_resamples_cannot_be_significant_for_many_methods(made):
    before, after = beside(made)
    found: Any = compared(before, after, 40)
    assert can_differ(found, "rm", 1000) and not can_differ(found, "rm", 40)


def test_flip_rates_are_paired_by_image():
    keys = [(f"{i}.jpg", "jpeg", s) for i in range(30) for s in (1, 2)]
    first = pd.DataFrame(keys, columns=["image", "perturbation", "severity"])
    first["changed"] = pd.array([i % 2 == 0 for i in range(60)], dtype="boolean")
    second = first.assign(changed=pd.array([i % 4 == 0 for i in range(60)], dtype="boolean")).iloc[2:]
    found: Any = flip_rates(first, second, "pets", 200, 0)
    assert (found["images"], found["conditions"]) == (29, 2)
    assert found["before"] == 29 / 58 and found["after"] == 14 / 58 and found["change"] == pytest.approx(-15 / 58)
    drawn = multiplicities(29, 200, 0, "pets")
    per_image = np.array([0.5 * ((2 * i) % 4 == 0) - 0.5 for i in range(1, 30)])[
        np.argsort([f"{i}.jpg" for i in range(1, 30)])
    ]
    assert (found["low"], found["high"]) == pytest.approx(percentiles(per_image @ drawn / 29, 29))
    assert flip_rates(first, first, "pets", 50, 0)["p"] == 1.0
    assert flip_rates(first, first.iloc[:0], "pets", 50, 0)["images"] == 0


def test_two_methods_have_no_w_of_their_orders(made):
    three = beside(made)
    assert "Kendall's W of the two orders" in " ".join(change_sentences(compared(*three, 200), "one", "two", 200))
    before, after = (frame[frame["method"] != "c"] for frame in three)
    found = compared(before, after, 200)
    assert found["w"].isna().all()
    told = " ".join(change_sentences(found, "one", "two", 200))
    assert "Kendall's W is not computed: 2 methods, at least 3 are needed." in told and "two orders" not in told


def test_what_one_setting_lacks_counts_in_none(made):
    """Masks that are missing in one setting give the figures of the images that both have."""
    before, after = beside(made)
    missing = after["image"].isin(sorted(after["image"].unique())[:7])
    holes = after.assign(rbo=after["rbo"].where(~missing), kappa=after["kappa"].where(~missing))
    whole: Any = compared(*(frame[~missing.to_numpy()] for frame in (before, after)), 100)
    found: Any = compared(*in_both(before, holes), 100)
    pd.testing.assert_frame_equal(found, whole)
    unpaired: Any = compared(before, holes, 100)
    assert not np.allclose(unpaired["before"].dropna(), found["before"].dropna()), "the test would see no difference"


def test_few_images_have_a_change_and_no_interval(made):
    before, after = beside(made)
    few = sorted(before["image"].unique())[:9]
    found: Any = compared(*(frame[frame["image"].isin(few)] for frame in (before, after)), 100)
    rows = found[(found["quantity"] == "consistency") & ~found["control"].astype(bool)]
    assert rows["change"].notna().all() and rows[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert not can_differ(found, "consistency", 1000) and not found["differs"].any()

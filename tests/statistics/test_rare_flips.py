"""Widths of intervals at few changed predictions: as by loops, as by theory, and what is left out."""

from typing import Any

import numpy as np
import pytest

from heatproof.statistics.check_sentences import counts_sentence, rare_sentence
from heatproof.statistics.rare_flips import drawn_pairs, enough, rare_flips, status
from heatproof.statistics.robustness import auc
from heatproof.statistics.robustness_tables import robustness_table


def test_so_many_changed_pairs_are_drawn():
    changed = np.arange(40) < 12
    drawn = drawn_pairs(changed, 5, 30, 1)
    assert (drawn[changed].sum(0) == 5).all() and (drawn[~changed].sum(0) == 35).all()
    assert np.array_equal(drawn, drawn_pairs(changed, 5, 30, 1)) and not np.array_equal(
        drawn, drawn_pairs(changed, 5, 30, 2)
    )


def test_widths_as_by_loops(made, monkeypatch):
    kept = []
    monkeypatch.setattr(
        "heatproof.statistics.rare_flips.drawn_pairs", lambda *given: kept.append(drawn_pairs(*given)) or kept[-1]
    )
    pairs = made({"a": 0.3, "b": 0.1}, images=50, kinds=1, severities=(1,))
    found: Any = rare_flips(pairs, replays=40)
    line: Any = found[(found["method"] == "b") & (found["changed"] == 5)].iloc[0]
    cell = pairs[pairs["method"] == "b"].sort_values("image")
    areas, products = [], []
    for weights in kept[1].T:  # 3, 5, 7, 10
        rows = [row for row, times in zip(cell.itertuples(), weights, strict=True) for _ in range(int(times))]
        rbo, changed = np.array([r.rbo for r in rows]), np.array([bool(r.changed) for r in rows])
        areas.append(auc(-rbo, changed))
        products.append(areas[-1] * np.median(rbo[~changed]))
    assert line["responsiveness"] == pytest.approx(np.mean(areas))
    assert line["responsiveness_width"] == pytest.approx(np.quantile(areas, 0.975) - np.quantile(areas, 0.025))
    assert line["rm_width"] == pytest.approx(np.quantile(products, 0.975) - np.quantile(products, 0.025))


def test_the_width_is_that_of_the_mann_whitney_statistic(made):
    """Without any relation the variance of the AUC is (m + n + 1) / (12 m n)."""
    pairs = made({"a": 0.0, "b": 0.0}, images=300, kinds=3, severities=(1, 2), seed=1)
    found: Any = rare_flips(pairs, replays=400)
    mean: Any = found[found["method"] == ""].set_index("changed")
    for changed in (10, 50):
        expected = 2 * 1.96 * np.sqrt(301 / (12 * changed * (300 - changed)))
        assert mean.loc[changed, "responsiveness_width"] == pytest.approx(expected, rel=0.15)
    assert (
        mean.loc[3, "responsiveness_width"]
        > mean.loc[10, "responsiveness_width"]
        > mean.loc[50, "responsiveness_width"]
    )
    assert mean.loc[50, "told_apart"] <= 0.5


def test_methods_that_differ_are_told_apart_once_enough_predictions_change(made):
    found: Any = rare_flips(made({"a": 0.25, "b": 0.0}, images=120, kinds=2, severities=(1, 2)))
    mean: Any = found[found["method"] == ""].set_index("changed")
    assert mean.loc[30, "told_apart"] == 1.0 and mean.loc[3, "told_apart"] < 0.5
    assert found.loc[found["method"] != "", "told_apart"].isna().all()


def test_conditions_with_too_few_of_a_kind_are_left_out(made):
    assert rare_flips(made({"a": 0.3}, images=60, flip=0.05)).empty  # fewer than ten changed
    assert rare_flips(made({"a": 0.3}, images=25, flip=0.6)).empty  # fewer than twenty held
    pairs = made({"a": 0.3, "b": 0.2}, images=60)
    pairs.loc[(pairs["method"] == "b") & (pairs["image"] < "005"), "rbo"] = np.nan
    assert rare_flips(pairs, replays=5)["images"].unique().tolist() == [55]
    assert [status(k) for k in (9, 10, 19, 20)] == ["not computed", "unreliable", "unreliable", ""]


def test_the_number_from_which_intervals_are_narrow(made):
    found: Any = rare_flips(made({"a": 0.3, "b": 0.1}, images=200))
    least = enough(found)
    mean: Any = found[found["method"] == ""].set_index("changed")["responsiveness_width"]
    assert least is not None and (mean[mean.index >= least] <= 0.2).all()
    assert mean[mean.index < least].iloc[-1] > 0.2 and enough(found, 0.01) is None and enough(found, 1.0) == 3
    sentence = rare_sentence(found)
    assert f"Below about {least} changed predictions among 200 images, on the mean of 2 methods" in sentence
    assert "With 10 it tells" in sentence and "not corrected" in sentence
    assert rare_sentence(found[found["changed"] < 5]).startswith("Even with 3 changed predictions")


def test_the_counts_of_conditions(made):
    table: Any = robustness_table(made({"a": 0.3}, images=60, kinds=2, flip=0.02), resamples=20)
    single: Any = table[table["severity"] != "all"]
    assert counts_sentence(single).startswith("Of 4 conditions, 4 have fewer than 10 changed or unchanged predictions")

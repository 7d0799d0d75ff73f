"""Six measures over severities: medians, rank correlations, and N's case of RBO against L1."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr, wilcoxon

from heatproof.statistics.check_sentences import agreement_sentence, case_sentence, signed
from heatproof.statistics.intervals import multiplicities, percentiles
from heatproof.statistics.paired import holm
from heatproof.statistics.similarity import correlations, medians, steps


@pytest.fixture
def pairs(made):
    """At the second severity method n has N's case: L1 and RBO fall. Method o: RBO falls and L1 rises."""
    frame = made({"n": 0.2, "o": 0.2}, images=60, kinds=2)
    generator = np.random.default_rng(3)
    strong, lonely = frame["severity"] == 2, frame["method"] == "n"
    frame.loc[strong & ~frame["control"], "rbo"] -= 0.2
    frame["l1"] = 0.29 + 0.03 * generator.standard_normal(len(frame)) + strong * np.where(lonely, -0.05, 0.05)
    frame["cosine"] = 1 - frame["l1"]
    return frame


def test_medians_and_intervals_as_by_loops(pairs):
    found: Any = medians(pairs, resamples=50)
    cell = pairs[(pairs["method"] == "n") & (pairs["perturbation"] == "kind0") & (pairs["severity"] == 2)]
    values = cell.sort_values("image")["l1"].to_numpy()
    row = found[(found["method"] == "n") & (found["perturbation"] == "kind0") & (found["severity"] == 2)]
    row = row[row["measure"] == "l1"].iloc[0]
    drawn = multiplicities(60, 50, 0, "similarity pets")
    slow = [np.median(np.repeat(values, column.astype(int))) for column in drawn.T]
    assert row["median"] == np.median(values) and row["n"] == 60
    assert (row["low"], row["high"]) == pytest.approx(percentiles(np.array(slow), 60))


def test_the_case_is_found_where_it_is_and_nowhere_else(pairs):
    found: Any = steps(pairs, resamples=100)
    assert found.loc[found["case"], "method"].tolist() == ["n", "n"]
    assert found.loc[found["control"], "p"].isna().all()
    row = found[found["case"]].iloc[0]
    assert row["l1_high"] < 0 and row["rbo_high"] < 0 and (row["severity"], row["next"], row["images"]) == (1, 2, 60)
    real = found[~found["control"]]
    slow: list[Any] = []
    for one in real.itertuples():
        cell = pairs[(pairs["method"] == one.method) & (pairs["perturbation"] == one.perturbation)]
        wide = cell.pivot(index="image", columns="severity", values=["l1", "rbo"])
        tails: Any = [wilcoxon(wide[name][1] - wide[name][2], alternative="greater")[1] for name in ("l1", "rbo")]
        slow.append(max(tails))
    assert real["p"].tolist() == pytest.approx(slow, rel=1e-3)
    assert real["p_holm"].tolist() == pytest.approx(holm(real["p"]).tolist())
    sentence = case_sentence(found)
    assert "is seen in 2 of 4 steps from one severity to the next (2 methods, 2 perturbations, 60 images;" in sentence
    assert "Holm's correction over all 4 steps, 5 %" in sentence
    none = case_sentence(found[found["method"] == "o"])
    assert "is not seen in any of 2 steps" in none
    assert case_sentence(steps(pairs[pairs["severity"] == 1], 20)).startswith("Paper N's case cannot be looked for")


def test_correlations_are_spearmans_with_distances_turned_round(pairs):
    found: Any = correlations(pairs)
    real = pairs[~pairs["control"]]
    assert found.loc["rbo", "l1"] == pytest.approx(spearmanr(real["rbo"], -real["l1"])[0], abs=1e-4)
    assert found.loc["l1", "cosine"] == pytest.approx(1) and found.loc["rbo", "rbo"] == pytest.approx(1)
    assert agreement_sentence(found).startswith(
        "Over all pairs of maps, "
    ) and "agree most (rank correlation 1.00)" in (agreement_sentence(found))
    assert agreement_sentence(correlations(pairs.iloc[:1])).startswith("The measures cannot be compared")


def test_signs_are_written():
    assert [signed(x) for x in (0.0123, -0.3, -0.0001, np.nan)] == ["+0.012", "−0.300", "0.000", "not known"]

"""Thresholds, sums and intervals of the part metrics, against plain loops."""

import numpy as np
import pandas as pd
import pytest

from heatproof.statistics.part_scores import chosen_thresholds, image_part_scores, part_score_table
from heatproof.statistics.part_verdict import part_verdict
from heatproof.statistics.special_rows import CHECKS, CONTRASTIVITY, CORRECTNESS

METHODS = {"good": False, "bad": False, "fake": True}


def means(curves: dict[tuple[str, str], list[list[float]]]) -> pd.DataFrame:
    """(dataset, method) → the four checks at the thresholds .1, .2, .3."""
    lines = [
        ("net", dataset, method, False, check, at, 7, value)
        for (dataset, method), four in curves.items()
        for check, three in zip(CHECKS, four, strict=True)
        for at, value in zip((0.1, 0.2, 0.3), three, strict=True)
    ]
    return pd.DataFrame(lines, columns=["model", "dataset", "method", "control", "metric", "strength", "n", "mean"])


def test_the_threshold_is_the_best_on_the_validation_set_alone():
    frame = means({
        ("val", "one"): [[0.9, 0.9, 0.3], [0.9, 0.9, 0.3], [0.6, 0.9, 0.3], [0.1, 0.3, 0.4]],
        ("test", "one"): [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]],
        ("val", "tied"): [[0.5, 0.5, 0.5]] * 4,
        ("val", "unknown"): [[np.nan] * 3] * 4,
    })  # fmt: skip
    found = chosen_thresholds(frame, "val").set_index("method")
    assert found.loc["one", "threshold"] == 0.2  # .9 + .3 over .8 + .1 and .3 + .4
    assert found.loc["one", "objective"] == pytest.approx(1.2, abs=1e-5)
    assert found.loc["tied", "threshold"] == 0.1, "of equal ones the lowest"
    assert np.isnan(found.loc["unknown", "threshold"])


def values(images: int = 40) -> pd.DataFrame:
    """A method that is right more often than another, and a control that is never right about classes."""
    generator = np.random.default_rng(3)
    lines = []
    for method, control in METHODS.items():
        level = {"good": 0.9, "bad": 0.5, "fake": 0.4}[method]
        for i in range(images):
            checks = [np.clip(level + 0.05 * generator.standard_normal(), 0, 1) for _ in CHECKS]
            checks[0] = np.nan if i == 0 else checks[0]
            contrast = np.nan if i in (1, 2) else 0.0 if control else level
            lines.append(("net", "test", f"{i:02d}", method, control, *checks, level, contrast))
    key = ["model", "dataset", "image", "method", "control"]
    return pd.DataFrame(lines, columns=[*key, *CHECKS, CORRECTNESS, CONTRASTIVITY])


def test_sums_are_those_of_plain_loops():
    frame = values()
    table = part_score_table(frame, pd.DataFrame({"model": ["net"], "method": ["good"], "threshold": [0.2]}))
    for row in table.itertuples():
        own = frame[frame["method"] == row.method].to_dict("records")
        mean = {}
        for name in (*CHECKS, CORRECTNESS, CONTRASTIVITY):
            known = [line[name] for line in own if line[name] == line[name]]
            mean[name] = sum(known) / len(known)
        sufficiency, preservation, deletion, distractibility = (mean[name] for name in CHECKS)
        complete = 0.5 * ((sufficiency + preservation + deletion) / 3 + distractibility)
        assert row.completeness == pytest.approx(complete, abs=1e-12)
        assert row.score == pytest.approx((complete + mean[CORRECTNESS] + mean[CONTRASTIVITY]) / 3, abs=1e-12)
        assert row.score_low <= row.score <= row.score_high
    counts = table.set_index("method").loc["good"]
    assert (counts["n"], counts["n_part-sufficiency"], counts["n_part-contrastivity"]) == (40, 39, 38)
    assert counts["threshold"] == 0.2 and np.isnan(table.set_index("method").loc["bad", "threshold"])


def test_the_interval_is_that_of_resampled_images():
    table = part_score_table(values(), pd.DataFrame(columns=["model", "method", "threshold"]), resamples=4000)
    good = table.set_index("method").loc["good"]
    own = values()
    own = own[own["method"] == "good"][list(CHECKS)].to_numpy()
    generator = np.random.default_rng(1)
    resampled = []
    for _ in range(4000):
        drawn = own[generator.integers(0, len(own), len(own))]
        s, p, d, x = np.nanmean(drawn, 0)
        resampled.append(0.5 * ((s + p + d) / 3 + x))
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert good["completeness_low"] == pytest.approx(low, abs=0.002)
    assert good["completeness_high"] == pytest.approx(high, abs=0.002)


def test_an_image_without_a_part_of_the_score_has_no_score():
    found = image_part_scores(values()).set_index(["method", "image"])
    assert np.isnan(found.loc[("good", "00"), "completeness"]) and np.isnan(found.loc[("good", "00"), "score"])
    assert np.isnan(found.loc[("good", "01"), "score"]) and not np.isnan(found.loc[("good", "01"), "completeness"])
    assert found["score"].notna().sum() == 3 * 37


def test_the_verdict_says_what_was_compared():
    found = part_verdict(image_part_scores(values(80)), 0.98, "val")
    assert found.sentence.startswith(
        "On the 77 images of 80 that have all three values good comes out best by the mean of completeness, correctness"
    )
    assert "at 95 % confidence" in found.sentence and found.sentence.endswith("The control, fake, is worse.")
    assert found.applies
    assert any("corrected by Holm over 1 pair of methods and over 1 control" in note for note in found.notes)
    assert any("chosen on val" in note for note in found.notes)
    assert any(note.startswith("3 of 80 images do not count") for note in found.notes)


def test_controls_that_are_not_worse_are_named():
    frame = values(80)
    good = frame[frame["method"] == "good"]
    copy = good.assign(method="lucky", control=True)
    copy[CORRECTNESS] = 0.91
    found = part_verdict(image_part_scores(pd.concat([frame, copy])), float("nan"), "val")
    assert "Not significantly worse than good, though useless on purpose: lucky." in found.sentence
    assert any("completeness by lucky" in note for note in found.notes)


def test_with_a_network_that_is_often_wrong_the_ground_truth_does_not_apply():
    found = part_verdict(image_part_scores(values(80)), 0.62, "val")
    assert not found.applies and found.sentence.startswith(
        "The ground truth does not apply: the network is right on 62 %"
    )

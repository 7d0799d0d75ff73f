"""The decisions on each image, rule by rule; the threshold on the probability, with SciPy's exact test; settling."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm

from heatproof.flags import Reason
from heatproof.statistics.audit_answers import (
    FAIL,
    OPEN,
    PASS,
    POINTS,
    QUESTIONS,
    AuditFindings,
    Evidence,
    Finding,
)
from heatproof.statistics.audit_images import (
    COLUMNS,
    HIDE,
    RATE,
    RULES,
    SHOW,
    THRESHOLDS,
    WARN,
    image_decisions,
    least_probability,
    upper_bound,
)
from heatproof.statistics.audit_sentence import notes, sentence
from heatproof.statistics.peaks import Peaks
from heatproof.statistics.settling import MOST, POWER, enough_images, fewest_images

FACTS = {"road": "high", "insertion": "high", "deletion-mean": "low"}
METHODS = ("good", "also", "bad")
BY_NAME = {question.name: question for question in QUESTIONS}


def answers(recommended="good", images=40, least=None, **given) -> AuditFindings:
    """`good` and `also` are fit, `bad` fails."""
    found = {
        method: {"faithful": Finding(BY_NAME["faithful"], method, FAIL if method == "bad" else PASS, ())}
        for method in METHODS
    }
    fit = ("good", "also") if recommended else ()
    return AuditFindings("m", "d", "layer4", found, recommended, "", (), fit, images, {}, {}, least, **given)


@pytest.fixture
def facts():
    """Forty images on which nothing is wrong: images, scores, mild pairs."""
    names = [f"{i:03d}" for i in range(40)]
    images = pd.DataFrame({"image": names, "predicted": "cat (0)", "probability": 0.9, "right": True, "flag": ""})
    images["right"] = images["right"].astype("boolean")
    values = {"good": 0.8, "also": 0.8, "bad": 0.8, "random": 0.2, "edges": 0.3}
    scores = pd.DataFrame(
        [
            (
                image,
                method,
                metric,
                1 - value if metric == "deletion-mean" else value,
                "",
                method in ("random", "edges"),
            )
            for image in names
            for method, value in values.items()
            for metric in FACTS
        ],
        columns=["image", "method", "metric", "value", "flag", "control"],
    )
    mild = pd.DataFrame(
        [
            (image, method, kind, 0.1 + i / 1000 if method == "random" else 0.9 - (i % 2) / 100, False)
            for i, image in enumerate(names)
            for method in values
            for kind in ("jpeg", "fgsm")
        ],
        columns=["image", "method", "condition", "rbo", "changed"],
    )
    return images, scores, mild


def decided(found, facts):
    """(image, method) → decision and reason."""
    table = image_decisions(found, *facts, FACTS).table
    assert list(table.columns) == list(COLUMNS) and len(table) == 40 * len(METHODS)
    return {(row.image, row.method): (row.decision, row.reason) for row in table.itertuples()}


def test_without_a_reason_the_recommended_map_is_shown_and_no_other_is(facts):
    found = decided(answers(), facts)
    assert {found[key] for key in found if key[1] == "good"} == {(SHOW, "")}
    assert {found[key] for key in found if key[1] == "also"} == {(WARN, "good is recommended in its place")}
    assert {found[key] for key in found if key[1] == "bad"} == {(HIDE, "bad is not fit to be shown: fails “faithful”")}
    nothing = decided(answers(recommended=None), facts)
    assert {decision for decision, _ in nothing.values()} == {HIDE}


def test_each_reason_by_itself(facts):
    images, scores, mild = facts
    images.loc[0, "right"] = False
    images.loc[1, "right"] = pd.NA  # without a label nobody knows
    images.loc[2, "flag"] = "cannot be opened"
    mild.loc[(mild["image"] == "003") & (mild["condition"] == "jpeg"), "changed"] = True
    of = (mild["method"] == "good") & (mild["condition"] == "jpeg")
    mild.loc[of & (mild["image"] == "004"), "rbo"] = 0.12  # as a random map
    mild.loc[of & (mild["image"] == "005"), "rbo"] = 0.5
    own = scores["method"] == "good"
    scores.loc[own & (scores["image"] == "006"), "flag"] = Reason.CONSTANT.value
    scores.loc[own & (scores["image"] == "007") & (scores["metric"] == "road"), "flag"] = Reason.SATURATED.value
    scores.loc[own & (scores["image"] == "008"), ["value", "flag"]] = [np.nan, "no gradient"]
    scores.loc[own & (scores["image"] == "009") & (scores["metric"] == "road"), "value"] = 0.1  # one of three
    scores.loc[own & (scores["image"] == "010") & (scores["metric"] != "deletion-mean"), "value"] = 0.1
    found = decided(answers(), facts)
    told = {image: found[image, "good"] for image, method in found if method == "good"}
    assert told["000"] == (HIDE, "the prediction is wrong")
    assert told["001"] == (SHOW, "")
    assert told["002"] == (HIDE, "the image cannot be used: cannot be opened")
    assert told["003"] == (HIDE, "the prediction changes under mild noise (jpeg)")
    assert (
        told["004"][0] == HIDE
        and "no more like itself than a random map (RBO 0.12, random maps 0.14)" in told["004"][1]
    )
    assert told["005"] == (WARN, "the map is among the tenth that change most under mild noise (RBO 0.50)")
    assert told["006"] == (HIDE, f"the map is degenerate ({Reason.CONSTANT.value})")
    assert told["007"] == (WARN, "a score is saturated")
    assert told["008"] == (HIDE, "there is no map (no gradient)")
    assert told["009"] == (SHOW, "")
    assert told["010"] == (WARN, "a control scores better on this image by road and insertion")
    assert {decision for image, (decision, _) in told.items() if image > "010"} == {SHOW}
    assert found["000", "also"] == (HIDE, "the prediction is wrong; good is recommended in its place")


def test_a_peak_off_the_ground_truth_is_a_warning_and_without_a_mask_the_reason_is_told(facts):
    images, scores, mild = facts
    places = {"000": (1.0, ""), "001": (0.0, ""), "002": (0.5, ""), "003": (np.nan, "the mask is empty")}
    peaks = [(image, "good", "pointing-game", value, flag, False) for image, (value, flag) in places.items()]
    scores = pd.concat([scores, pd.DataFrame(peaks, columns=scores.columns)], ignore_index=True)
    table = image_decisions(answers(), images, scores, mild, FACTS).of("good").set_index("image")
    assert list(table.loc[["000", "001", "002", "003", "004"], "peak"]) == ["on", "off", "on and off",
                                                                          "the mask is empty", ""]  # fmt: skip
    assert tuple(table.loc["001", ["decision", "reason"]]) == (WARN, "the peak of the map lies off the ground truth")
    assert set(table["decision"].drop("001")) == {SHOW}


def test_a_map_of_a_class_that_is_not_predicted_is_a_warning(facts):
    facts[0].loc[3, "predicted"] = "dog (1)"
    table = image_decisions(answers(), *facts, FACTS, "cat (0)").of("good").set_index("image")
    assert tuple(table.loc["003", ["decision", "reason"]]) == (
        WARN,
        "the map is of cat (0), which is not the prediction",
    )
    assert set(table["decision"].drop("003")) == {SHOW}


def test_the_sentence_says_how_often_the_peak_lies_on_the_object():
    evidence = (Evidence("good", "energy", PASS, 0.2, "centre", 0.1, 0.01, 22),)
    pointing = Finding(BY_NAME[POINTS], "good", PASS, (), evidence)
    found = answers(peaks={"good": Peaks(12, 22)})
    found.findings["good"][POINTS] = pointing
    told = sentence(found)
    assert "pointed at the object (better than every control by energy; its peak lies on it in 12 of 22 images)" in told
    assert told.startswith("Show good at layer4.")
    assert sentence(replace(found, layer="16")).startswith("Show good at layer 16.")


def test_every_decision_has_a_rule():
    assert {decision for decision, _ in RULES} == {HIDE, WARN} and len(RULES) >= 9


def test_the_bound_is_that_of_the_exact_test():
    for bad, of in ((0, 29), (3, 60), (10, 200)):
        exact = binomtest(bad, of, alternative="less").proportion_ci(0.95, method="exact").high
        assert upper_bound(bad, of) == pytest.approx(exact)
    assert upper_bound(0, 28) > RATE > upper_bound(0, 29) and upper_bound(4, 4) == upper_bound(0, 0) == 1


def test_the_threshold_is_where_bad_images_begin():
    probability = np.concatenate([np.linspace(0.6, 0.99, 80), np.linspace(0.2, 0.55, 40)])
    hidden = probability < 0.54
    assert least_probability(probability, hidden) == 0.55
    assert least_probability(probability, ~hidden) is None
    assert least_probability(probability, np.zeros(120, bool)) == 0.2  # no image is below, so nothing is known there
    assert least_probability(probability[:20], np.zeros(20, bool)) is None  # too few to tell
    assert list(THRESHOLDS) == sorted(THRESHOLDS, reverse=True)


def test_a_threshold_is_seldom_found_where_too_many_images_are_bad():
    """All images are bad with the probability `RATE`: at most one run in twenty finds a threshold."""
    rng = np.random.default_rng(0)
    found = [least_probability(rng.uniform(0.3, 1, 100), rng.random(100) < RATE) for _ in range(1000)]
    assert np.mean([one is not None for one in found]) < 0.065


def test_the_sentence_names_the_threshold_and_images_below_it_are_not_shown(facts):
    images, *_ = facts
    images["probability"] = [0.95] * 34 + [0.4] * 6
    images.loc[34:, "right"] = False
    found = answers()
    decisions = image_decisions(found, *facts, FACTS)
    assert decisions.least == 0.95  # 34 images at or above it, none bad
    assert (
        "not to be shown on 6 of 40 images" in decisions.notes[0]
        and "at least 95 % this is so on 0" in decisions.notes[0]
    )
    below = decisions.of("good").query("image >= '034'")["reason"]
    assert (below == "the prediction is wrong; the prediction is below 95 %").all()
    said = sentence(answers(least=decisions.least))
    assert said.startswith("Show good at layer4. On 40 images it was faithful")
    assert said.endswith("; do not show it where the prediction is below 95 %.")
    images["right"] = True
    again = image_decisions(found, *facts, FACTS)
    assert again.least is None and "below" not in sentence(found)  # none is needed
    assert "on 0 of 40 images" in again.notes[0] and "no image has a prediction below 40 %" in again.notes[0]


def test_a_threshold_that_cannot_be_told_is_not_named(facts):
    images, *_ = facts
    images["right"] = [i % 3 > 0 for i in range(40)]
    found = image_decisions(answers(), *facts, FACTS)
    assert found.least is None and "No probability of the prediction was found" in found.notes[0]
    assert "at least" not in found.notes[0]  # there are 40 images, and 29 would do
    few = image_decisions(answers(), images.head(20), *facts[1:], FACTS)
    assert few.notes[0].endswith("; that needs at least 29 images.")
    images["probability"] = np.nan  # a network of values
    assert image_decisions(answers(), *facts, FACTS).notes == ()


# --- what would settle it ---


def test_so_many_images_find_the_effect_with_that_power():
    """A mean of .3 standard deviations, tested by its deviate."""
    n, effect = 40, 0.3
    enough = enough_images(n, float(norm.sf(effect * np.sqrt(n))), tests=8, level=0.95)
    assert enough is not None
    power = norm.sf(norm.isf(0.05 / 8) - effect * np.sqrt(enough))
    assert power == pytest.approx(POWER, abs=0.01) and enough > n


def test_no_number_where_none_can_be_named():
    assert enough_images(40, 0.6, 8, 0.95) is None  # of the other sign
    assert enough_images(40, np.nan, 8, 0.95) is None and enough_images(0, 0.2, 8, 0.95) is None
    assert enough_images(40, 0.499, 8, 0.95) is None and MOST == 100  # beyond a hundred times as many
    assert enough_images(4, 2.0**-4, 8, 0.95) >= fewest_images(8, 0.95) == 8


def test_the_note_names_the_number():
    open_one = Finding(BY_NAME["responds"], "good", OPEN, (), needs="flips", enough=1234)
    lost = Finding(BY_NAME["stable"], "good", OPEN, (), needs="images")
    found = answers()
    found.findings["good"].update(responds=open_one, stable=lost)
    told = list(notes(found))
    assert any(one.endswith("more images or stronger noise: about 1,300 images for responds.") for one in told)
    assert any(
        one.endswith("(stable) might be settled by more images; no number can be named from what was found.")
        for one in told
    )

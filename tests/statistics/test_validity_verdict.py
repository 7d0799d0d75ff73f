"""The sentence on metrics: which are believed, which not, and why none is."""

import dataclasses

import numpy as np
import pandas as pd

from heatproof.statistics.fooled_matrix import BOTH, FOOLED, UNTESTED, FooledCell
from heatproof.statistics.paired import tested as paired_tests
from heatproof.statistics.rescaled_maps import Rescaling
from heatproof.statistics.special_rows import TRUTH
from heatproof.statistics.validity import metric_validity
from heatproof.statistics.validity_verdict import ValidityFacts, validity_verdict


def facts(images=60, methods=5, verdicts=(), **changes):
    generator = np.random.default_rng(0)
    rows = []
    for image in range(images):
        truth = generator.permutation(methods) / methods
        values = {
            TRUTH: truth,
            "good": truth + 0.1 * generator.random(methods),
            "fair": truth + generator.random(methods),
        }
        values |= {"noise": generator.random(methods), "wrong": -truth, "energy": truth}
        rows += [(f"{image:02d}", f"m{m}", name, one[m]) for name, one in values.items() for m in range(methods)]
    frame = pd.DataFrame(rows, columns=["image", "method", "metric", "value"]).assign(control=False)
    metrics = ["good", "fair", "noise", "wrong", "energy"]
    directions = dict.fromkeys([TRUTH, *metrics], "high")
    validity = metric_validity(frame, directions, seeing={"energy"}, resamples=100)
    found = {(m, "ones"): BOTH for m in metrics} | dict(verdicts)
    cells = [FooledCell(m, c, "m0", images, 0.1, 0.0, 0.0, v, False) for (m, c), v in found.items()]
    controls = list(dict.fromkeys(control for _, control in found))
    given = ValidityFacts(
        "set", validity, cells, (), {}, frozenset({"energy"}), methods, controls, images, images, 0.99
    )
    return dataclasses.replace(given, **changes)


def test_the_best_metric_is_named_and_the_rest_sorted_out():
    half = {(m, "half"): BOTH for m in ("good", "noise", "wrong")}
    found = validity_verdict(facts(verdicts={("fair", "half"): FOOLED} | half))
    assert (found.believed, found.top) == (("good",), ("good",))
    assert found.fooled == {"fair": ("half",)} and found.against == ("wrong",)
    assert found.sentence.startswith("On 60 images of set, over 5 methods, good agrees best with the ground truth")
    assert "no control fools it at 95 % confidence" in found.sentence
    notes = " ".join(found.notes)
    assert (
        "fair (by half)" in notes
        and "which may be there all the same: noise (" in notes
        and "wrong orders maps against" in notes
    )
    assert (
        "Holm over 4 metrics for agreement beyond chance, and over 6 pairs of metrics." in notes
        and "energy" not in notes
    )


def test_a_metric_that_few_images_have_does_not_order_the_others():
    """On most images the sparse metric is constant; on the few others the better metric happens to be the worse."""
    generator = np.random.default_rng(1)
    rows = []
    for image in range(60):
        truth = generator.permutation(5) / 5
        odd = image < 3
        values = {TRUTH: truth, "good": -truth if odd else truth + 0.1 * generator.random(5)}
        values |= {"fair": truth + generator.random(5), "sparse": generator.random(5) if odd else np.zeros(5)}
        rows += [(f"{image:02d}", f"m{m}", name, one[m]) for name, one in values.items() for m in range(5)]
    frame = pd.DataFrame(rows, columns=["image", "method", "metric", "value"]).assign(control=False)
    metrics = ["good", "fair", "sparse"]
    validity = metric_validity(frame, dict.fromkeys([TRUTH, *metrics], "high"), resamples=100)
    cells = [FooledCell(m, "ones", "m0", 60, 0.1, 0.0, 0.0, BOTH, False) for m in metrics]
    found = validity_verdict(ValidityFacts("set", validity, cells, (), {}, frozenset(), 5, ["ones"], 60, 60, 1.0))
    assert found.believed == ("good", "fair") and found.top == ("good",)


def test_a_metric_that_agrees_less_may_be_believed_too():
    found = validity_verdict(facts())
    assert (found.believed, found.top) == (("good", "fair"), ("good",))
    assert any(note.startswith("fair agrees with it less") for note in found.notes)


def test_a_metric_of_which_no_control_is_known_is_not_believed():
    found = validity_verdict(facts(verdicts={("good", "ones"): UNTESTED, ("fair", "ones"): FOOLED}))
    assert found.believed == () and "no metric can be recommended" in found.sentence
    assert any("Not known whether a control fools good" in note for note in found.notes)


def test_a_network_that_has_not_learnt_the_images_judges_no_metric():
    found = validity_verdict(facts(accuracy=0.6, used=36))
    assert not found.applies and "ground truth does not apply" in found.sentence and "60 %" in found.sentence


def test_too_few_methods_or_images():
    for few in (facts(methods=2), facts(images=8)):
        found = validity_verdict(few)
        assert "no correlation with the ground truth is computed" in found.sentence
        assert "No correlation is tested. Controls: Wilcoxon's" in found.notes[-1]


def test_what_no_test_finds_is_not_said_to_be_absent():
    none = {(m, "ones"): FOOLED for m in ("good", "fair")}
    found = validity_verdict(facts(verdicts=none))
    assert found.believed == () and "does not agree" not in found.sentence
    assert "or is found by no test to agree with the ground truth beyond chance" in found.sentence


def test_controls_that_were_not_tested_are_named():
    found = validity_verdict(facts(verdicts={("good", "half"): UNTESTED}))
    assert found.top == ("good",) and "no control that was tested fools it" in found.sentence
    assert any("whether a control fools good by half" in note for note in found.notes)


def test_the_sentence_has_the_images_of_its_number_and_the_others_are_counted():
    """Three of 63 images have no ground truth, and 5 of the others no correlation of the best metric."""
    given = facts()
    table = given.validity.table
    table.loc[(table["metric"] == "good") & (table["way"] == "within"), "images"] = 55
    found = validity_verdict(dataclasses.replace(given, used=63, given=70, unknown=1))
    notes = " ".join(found.notes)
    assert found.sentence.startswith("On 55 images of set")
    assert "6 images of 70 that the network classifies wrong are left out" in notes
    assert "1 image without a label or a prediction is left out" in notes
    assert "3 images without a ground truth are left out" in notes and "left out of 60: good (5)" in notes


def test_the_notes_on_rescaled_maps_the_ground_truth_and_wrong_predictions():
    moved = [Rescaling(name, "cam", "cam[power=0.5]", 9, 0.5, 0.4, most, float(most == 0), most)
             for name, most in (("good", 0.0), ("noise", 0.2), (TRUTH, 0.1))]  # fmt: skip
    high = np.linspace(1, 2, 60)
    truth = {one.first: one for one in paired_tests([(high, high - 1)], [("fair", "ground truth")])}
    found = validity_verdict(facts(rescalings=moved, truth=truth, given=64))
    notes = " ".join(found.notes)
    assert "good cannot tell cam from cam[power=0.5]" in notes and "moves from 0.50 to 0.40: it reads" in notes
    assert "fair scores the best method above the ground truth itself" in notes
    assert "4 images of 64 that the network classifies wrong are left out" in notes
    unknown = validity_verdict(facts(accuracy=None))
    assert unknown.applies and "no labels" in " ".join(unknown.notes)

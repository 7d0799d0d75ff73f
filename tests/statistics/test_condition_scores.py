"""Scores by condition, orders, confidence: against scipy and by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr, wilcoxon

from heatproof.statistics.agreement import kendall_w
from heatproof.statistics.condition_scores import (
    POOLED,
    conditions_of,
    fooled_table,
    target_table,
    transformation_table,
)
from heatproof.statistics.confidence import confidence_bins, confidence_table, spearmans
from heatproof.statistics.equal_maps import EqualMaps
from heatproof.statistics.fidelity_verdict import FidelityTables, fidelity_verdict
from heatproof.statistics.orders import kendall_ws, ranking_table
from heatproof.statistics.paired import holm

FACTS = {"gain": {"better": "high"}, "drop": {"better": "low"}}
METHODS = {"good": False, "fair": False, "random": True}
TURNED = ("crop[seed=44]", "crop[seed=55]", "rotation[degrees=45]")
IMAGES = 30


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Scores whose gain falls by .2 under rotation and stays under crops; `good` is better than `fair`."""
    rng = np.random.default_rng(3)
    lines = []
    for target, turned in (("label", ""), ("least", ""), *(("label", one) for one in TURNED)):
        for method, control in METHODS.items():
            level = {"good": 0.7, "fair": 0.5, "random": 0.2}[method] - (0.2 if turned.startswith("rot") else 0)
            for image in range(IMAGES):
                value = level + rng.normal(0, 0.05)
                for metric in FACTS:
                    lines.append((target, turned, turned == "" and target == "label", f"{image:02d}", method, control,
                                  metric, value if metric == "gain" else 1 - value, ""))  # fmt: skip
    columns = ["target", "transformation", "reference", "image", "method", "control", "metric", "value", "flag"]
    return pd.DataFrame(lines, columns=columns).assign(model="net", dataset="photos")


def values(rows, turned, method, metric="gain", target="label"):
    here = rows[(rows["transformation"] == turned) & (rows["method"] == method) & (rows["metric"] == metric)]
    return here[here["target"] == target].set_index("image")["value"].sort_index()


def test_conditions_come_in_order(rows):
    assert conditions_of(rows.sample(frac=1, random_state=0))[0] == ("label", "")
    assert conditions_of(rows) == [("label", ""), ("least", ""), *(("label", one) for one in TURNED)]


def test_means_by_class(rows):
    table = target_table(rows, FACTS, resamples=200).set_index(["target", "method", "metric"])
    assert len(table) == 2 * 3 * 2
    for target in ("label", "least"):
        one = table.loc[target, "good", "gain"]
        assert one["mean"] == pytest.approx(values(rows, "", "good", target=target).mean()) and one["n"] == IMAGES
        assert one["low"] < one["mean"] < one["high"]


def test_changes_are_wilcoxons_tests_by_image_with_holm(rows):
    table = transformation_table(rows, FACTS, resamples=100)
    single = table[(table["metric"] == "gain") & (table["variant"] != POOLED) & ~table["control"]]
    expected = {}
    for method in ("good", "fair"):
        for turned in TURNED:
            expected[method, turned] = wilcoxon(values(rows, turned, method) - values(rows, "", method)).pvalue
    corrected = dict(zip(expected, holm(list(expected.values())), strict=True))
    assert len(single) == 6
    for row in single.itertuples():
        assert row.p == pytest.approx(expected[row.method, row.variant], rel=1e-6)
        assert row.p_holm == pytest.approx(corrected[row.method, row.variant], rel=1e-6)
        gap = values(rows, row.variant, row.method).mean() - values(rows, "", row.method).mean()
        assert row.change == pytest.approx(gap, abs=1e-5)
        assert row.clean == pytest.approx(values(rows, "", row.method).mean())
        assert row.differs == (row.variant == "rotation[degrees=45]") and row.able
    together = table[(table["variant"] == POOLED) & (table["metric"] == "gain") & (table["method"] == "good")]
    both = (values(rows, TURNED[0], "good") + values(rows, TURNED[1], "good")) / 2
    crops = together[together["transformation"] == "crop"].iloc[0]
    assert crops["mean"] == pytest.approx(both.mean()) and not crops["differs"]
    assert crops["p"] == pytest.approx(wilcoxon(both - values(rows, "", "good")).pvalue, rel=1e-6)
    assert together.set_index("transformation").loc["rotation", "differs"]
    assert list(dict.fromkeys(table["transformation"])) == ["crop", "rotation"]


def test_a_missing_variant_leaves_the_image_out_of_the_pooled_test(rows):
    lacking = (rows["transformation"] == TURNED[0]) & (rows["image"] == "03") & (rows["method"] == "good")
    table = transformation_table(rows.assign(value=rows["value"].where(~lacking)), FACTS, resamples=100)
    here = table[(table["method"] == "good") & (table["metric"] == "gain")].set_index("variant")
    assert here.loc[TURNED[0], "pairs"] == IMAGES - 1 and here.loc[TURNED[1], "pairs"] == IMAGES
    pooled = here.loc[[POOLED]].set_index("transformation")["pairs"]
    assert pooled["crop"] == IMAGES - 1 and pooled["rotation"] == IMAGES


def test_a_variant_without_any_number_has_no_part_in_the_pooled_mean(rows):
    """As under a size that a layer is too coarse for."""
    some = rows.copy()
    gone = (some["transformation"] == TURNED[1]) & (some["method"] == "good")
    nothing = (some["method"] == "fair") & (some["transformation"] != "")
    some.loc[gone | nothing, "value"] = np.nan
    table = transformation_table(some, FACTS, resamples=50)
    crops = table[(table["variant"] == POOLED) & (table["transformation"] == "crop") & (table["metric"] == "gain")]
    crops = crops.set_index("method")
    assert crops.loc["good", "mean"] == pytest.approx(values(rows, TURNED[0], "good").mean())
    assert crops.loc["good", "pairs"] == IMAGES and crops.loc["fair", "pairs"] == 0
    assert np.isnan(crops.loc["fair", "mean"])


def test_methods_with_equal_maps_are_one_test(rows):
    twin = pd.concat([rows, rows[rows["method"] == "good"].assign(method="twin")], ignore_index=True)
    equal = EqualMaps((("good", "twin"),), IMAGES)
    alone, both = (
        transformation_table(rows, FACTS, resamples=100),
        transformation_table(twin, FACTS, equal, resamples=100),
    )
    key = ["metric", "variant", "transformation"]
    tests = {name: both[both["method"] == name].set_index(key)["p_holm"].sort_index() for name in ("good", "twin")}
    expected = alone[alone["method"] == "good"].set_index(key)["p_holm"].sort_index()
    for found in tests.values():
        pd.testing.assert_series_equal(found, expected)


def with_third(rows):
    """A third method, worse than the others by .2 everywhere."""
    worse = rows[rows["method"] == "fair"].assign(method="poor")
    step = np.where(worse["metric"] == "gain", -0.2, 0.2)
    return pd.concat([rows, worse.assign(value=worse["value"] + step)], ignore_index=True)


def test_orders_hold_where_the_means_have_one_order(rows):
    three = with_third(rows)
    table = ranking_table(three, FACTS, resamples=200)
    friedmans = table[table["test"] == "friedman"]
    assert len(friedmans) == 2 * 5 and set(friedmans["order"]) == {"good; fair; poor"}
    assert (friedmans["p_holm"] < 0.001).all()
    for test, conditions in (("kendall-targets", 2), ("kendall-transformations", 4)):
        found = table[table["test"] == test]
        assert list(found["w"]) == [1.0, 1.0] and set(found["conditions"]) == {conditions}
    turned = three.assign(value=np.where(three["transformation"] == TURNED[2], 1 - three["value"], three["value"]))
    last = ranking_table(turned, FACTS, resamples=200)
    w = last[last["test"] == "kendall-transformations"]["w"].iloc[0]
    assert w == pytest.approx(kendall_w(np.array([[3, 2, 1], [3, 2, 1], [3, 2, 1], [1, 2, 3]])).w)


def test_two_methods_or_nine_images_have_no_test_of_their_order(rows):
    numbers = ["statistic", "p", "p_holm", "w", "low", "high"]
    three = with_third(rows)
    known = pd.DataFrame({"target": "label", "image": [f"{i:02d}" for i in range(IMAGES)],
                          "value": np.linspace(0.1, 0.9, IMAGES)})  # fmt: skip
    for few in (rows, three[three["image"] < "09"]):
        table = ranking_table(few, FACTS, resamples=50)
        assert len(table) == 2 * (5 + 2) and table[numbers].isna().to_numpy().all()
        parts = (transformation_table(few, FACTS, resamples=50), table, confidence_table(few, known, resamples=50),
                 fooled_table(few, FACTS))  # fmt: skip
        notes = " ".join(fidelity_verdict(FidelityTables(*parts, few["image"].nunique(), "label")).notes)
        assert "is not computed" in notes and "at least 3 methods and 10 images are needed" in notes
        assert "Kendall's W" not in notes
    assert ranking_table(three[three["image"] < "10"], FACTS, resamples=50)["w"].notna().all()


def test_kendalls_w_of_many_columns_is_that_of_each():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (5, 6, 40)).astype(float)
    scores[:, :, 0] = 1.0
    scores[2, 3, 1] = np.nan
    found = kendall_ws(scores)
    assert np.isnan(found[:2]).all()
    for column in range(2, 40):
        assert found[column] == pytest.approx(kendall_w(scores[:, :, column]).w)


def test_spearman_of_a_resample_is_that_of_the_images_repeated():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 6, 12) / 6, rng.normal(size=12)
    drawn = rng.multinomial(12, np.full(12, 1 / 12), size=50).T.astype(float)
    found = spearmans(x, y, drawn)
    for column in range(50):
        times = drawn[:, column].astype(int)
        assert found[column] == pytest.approx(spearmanr(np.repeat(x, times), np.repeat(y, times))[0])
    assert np.isnan(spearmans(x, np.ones(12), drawn)).all() and np.isnan(spearmans(x[:2], y[:2], drawn[:2])).all()


def test_confidence_within_each_method(rows):
    known = pd.DataFrame({"target": "label", "image": [f"{i:02d}" for i in range(IMAGES)],
                          "value": np.linspace(0.1, 0.9, IMAGES)})  # fmt: skip
    table = confidence_table(rows, known, resamples=300).set_index(["target", "metric", "method"])
    for method in METHODS:
        expected = spearmanr(values(rows, "", method), known["value"])[0]
        one = table.loc["label", "gain", method]
        near = pytest.approx(expected, abs=2e-3)  # ours ranks numbers that are rounded
        assert one["spearman"] == near and one["low"] < expected < one["high"]
        assert -table.loc["label", "drop", method]["spearman"] == near
    assert table.loc["least"]["n"].eq(0).all() and table.loc["least"]["spearman"].isna().all()
    bins = confidence_bins(rows, known)
    first = bins[(bins["metric"] == "gain") & (bins["method"] == "good") & (bins["target"] == "label")]
    assert list(first["n"]) == [5] * 6
    assert first["value"].iloc[0] == pytest.approx(values(rows, "", "good").iloc[:5].mean())
    assert first["confidence"].iloc[5] == pytest.approx(known["value"].iloc[25:].mean())


def test_fooled_by_condition(rows):
    better = rows.assign(value=np.where((rows["method"] == "random") & (rows["target"] == "least"), 0.9, rows["value"]))
    table = fooled_table(better, FACTS).set_index(["metric", "target", "transformation"])
    assert (
        table.loc["gain", "least", ""]["fooled_by"] == "random" and table.loc["gain", "least", ""]["ahead"] == "random"
    )
    assert not table.loc["gain", "label", ""]["fooled"] and table["tested"].all() and len(table) == 10


def test_the_verdict_says_what_was_compared(rows):
    known = pd.DataFrame({"target": "label", "image": [f"{i:02d}" for i in range(IMAGES)],
                          "value": np.linspace(0.1, 0.9, IMAGES)})  # fmt: skip

    def verdict(rows, images):
        parts = (transformation_table(rows, FACTS, resamples=100), ranking_table(rows, FACTS, resamples=100),
                 confidence_table(rows, known, resamples=100), fooled_table(rows, FACTS))  # fmt: skip
        return fidelity_verdict(FidelityTables(*parts, images, "label"))

    found = verdict(rows, IMAGES)
    assert found.sentence == (
        "On 30 images, 4 of 8 comparisons of a method's score under crop and rotation with its score on the same "
        "images as they are differ significantly (Wilcoxon's test by image at 5 %, corrected by Holm within each of "
        "the 2 scores)."
    )
    assert any("Fooled by a control over 5 conditions: no score under all" in note for note in found.notes)
    assert found.notes[-1] == "Only 30 images: take this as an indication."
    few = verdict(rows[rows["image"] < "04"], 4)
    assert few.sentence.startswith("On 4 images it cannot be told whether the scores change under crop and rotation")
    none = verdict(rows[rows["transformation"] == ""], IMAGES)
    assert none.sentence == "On 30 images no transformed image has a score, so nothing is said about transformations."


def test_a_correlation_without_images_that_differ_has_no_interval(rows):
    known = pd.DataFrame({"target": "label", "image": [f"{i:02d}" for i in range(IMAGES)],
                          "value": np.linspace(0.1, 0.9, IMAGES)})  # fmt: skip
    few = confidence_table(rows[rows["image"] < "09"], known, resamples=100)
    there = few[few["target"] == "label"]
    assert there["spearman"].notna().all() and there[["low", "high"]].isna().all(axis=None), "nine images"
    alone = rows.assign(value=(rows["image"] == "20").astype(float))  # a third of the resamples are without it
    found = confidence_table(alone, known, resamples=300)
    found = found[found["target"] == "label"]
    assert found["spearman"].notna().all() and found[["low", "high"]].isna().all(axis=None)
    sentence = " ".join(fidelity_verdict(FidelityTables(
        transformation_table(alone, FACTS, resamples=50), ranking_table(alone, FACTS, resamples=50), found,
        fooled_table(alone, FACTS), IMAGES, "label")).notes)  # fmt: skip
    assert "no interval is computed" in sentence and "clear of 0" not in sentence

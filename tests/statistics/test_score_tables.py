"""The score table, fooled scores and the verdict: by hand, compared with SciPy, with missing numbers."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from heatproof.errors import InvalidInput
from heatproof.statistics.fooling import fooled
from heatproof.statistics.score_tables import COLUMNS, curve_table, figure, html_table, score_rows, score_table
from heatproof.statistics.score_verdict import rank_blocks, ranking_sentence, score_verdicts

DIRECTIONS = {"road": {"better": "high", "family": "road"}, "deletion": {"better": "low", "family": "fidelity"}}
DIRECTIONS |= {"entropy": {"better": "low", "family": "complexity"}}
FAMILIES = {name: fact["family"] for name, fact in DIRECTIONS.items()}


def frame(scores, images=30, seed=0, spread=0.05, **more):
    """Rows: `scores` maps (method, metric) to a mean; an image's difficulty is shared by all methods."""
    generator = np.random.default_rng(seed)
    hard = 0.1 * generator.standard_normal(images)
    parts = []
    for (method, metric), mean in scores.items():
        value = mean + hard + spread * generator.standard_normal(images)
        columns = {"image": [f"{i:02d}.jpg" for i in range(images)], "method": method, "metric": metric, "value": value}
        columns |= {"model": "net", "dataset": "pets", "control": method in ("random", "half"), "flag": ""}
        parts.append(pd.DataFrame(columns | more))
    return pd.concat(parts, ignore_index=True)


CLEAR = {("good", "road"): 0.6, ("bad", "road"): 0.3, ("random", "road"): 0.0, ("half", "road"): 0.1}
FOOLS = {("good", "deletion"): 0.2, ("bad", "deletion"): 0.5, ("random", "deletion"): 0.05, ("half", "deletion"): 0.9}
BOTH = CLEAR | FOOLS


def test_the_columns_and_numbers_of_the_table():
    rows = frame(BOTH)
    table = score_table(rows, DIRECTIONS)
    assert tuple(table.columns) == COLUMNS
    assert COLUMNS == ("model", "method", "metric", "n", "mean", "std", "low", "high", "better", "flagged")
    assert len(table) == 8
    line = table[(table["method"] == "bad") & (table["metric"] == "deletion")].iloc[0]
    values = rows.loc[(rows["method"] == "bad") & (rows["metric"] == "deletion"), "value"]
    assert (line["n"], line["better"], line["flagged"]) == (30, "low", 0)
    np.testing.assert_allclose([line["mean"], line["std"]], [values.mean(), values.std(ddof=1)])
    # the percentile bootstrap of a mean is close to the normal interval
    half = 1.96 * values.std(ddof=0) / math.sqrt(30)
    np.testing.assert_allclose([line["low"], line["high"]], [values.mean() - half, values.mean() + half], atol=0.006)


def test_the_table_of_rows_that_know_no_model_no_dataset_no_flag():
    table = score_table(frame(CLEAR)[["image", "method", "metric", "value"]])
    assert (table["model"] == "").all() and (table["better"] == "").all() and (table["flagged"] == 0).all()
    assert table["method"].tolist() == ["good", "bad", "random", "half"]  # in the order of the rows


def test_neither_order_nor_neighbours_move_a_number():
    rows = frame(BOTH)
    key = ["model", "method", "metric"]
    whole, other = score_table(rows).sort_values(key), score_table(rows.sample(frac=1, random_state=1)).sort_values(key)
    pd.testing.assert_frame_equal(whole.reset_index(drop=True), other.reset_index(drop=True), check_exact=True)
    alone = score_table(rows[rows["method"] == "good"]).sort_values(key)
    np.testing.assert_allclose(alone["low"], whole.loc[whole["method"] == "good", "low"], rtol=1e-12)
    assert not np.allclose(score_table(rows, seed=1)["low"], score_table(rows)["low"])


def test_flagged_rows_are_counted_and_not_dropped():
    rows = frame(CLEAR)
    rows.loc[rows["image"] == "03.jpg", ["value", "flag"]] = (np.nan, "constant map")
    rows.loc[rows["image"] == "04.jpg", "flag"] = "constant map"  # with a stated value
    rows.loc[0, "value"] = np.inf
    line = score_table(rows).iloc[0]
    kept = rows.loc[rows["method"] == "good", "value"].replace(np.inf, np.nan).dropna()
    assert (line["n"], line["flagged"], len(kept)) == (28, 2, 28)
    assert line["mean"] == pytest.approx(kept.mean())
    empty = score_table(rows.assign(value=np.nan))
    assert empty[["mean", "std", "low", "high"]].isna().all(axis=None) and (empty["n"] == 0).all()


def test_one_image_has_a_mean_and_no_interval():
    line = score_table(frame({("good", "road"): 0.5}, images=1)).iloc[0]
    assert line["n"] == 1 and not math.isnan(line["mean"])
    assert all(math.isnan(line[name]) for name in ("std", "low", "high"))


def test_equal_values_have_an_interval_of_no_width():
    line = score_table(frame(CLEAR).assign(value=0.1)).iloc[0]
    assert (line["mean"], line["std"], line["low"], line["high"]) == (0.1, 0.0, 0.1, 0.1)


def test_the_bootstrap_draws_images_not_rows():
    rows = frame(CLEAR)
    twice = pd.concat([rows, rows])  # such as two targets of the same images, which add no information
    np.testing.assert_allclose(score_table(twice)[["low", "high"]], score_table(rows)[["low", "high"]])


def test_facts_of_images_and_points_of_curves_are_no_scores():
    rows = frame(CLEAR | {("good", "deletion-curve"): 0.5, ("", "correct"): 1.0})
    assert set(score_table(rows)["metric"]) == {"road"}
    with pytest.raises(InvalidInput, match="Got none called 'value'"):
        score_rows(rows.drop(columns="value"))
    assert score_table(rows[rows["method"] == ""]).empty


def test_curves_have_a_mean_and_a_band_at_every_share():
    parts = [frame({("good", "road-curve"): 1 - at}, seed=i).assign(strength=at) for i, at in enumerate((0.2, 0.4))]
    rows = pd.concat([*parts, frame(CLEAR).assign(strength=0.0)])
    table = curve_table(rows)
    assert table["metric"].unique().tolist() == ["road"] and table["at"].tolist() == [0.2, 0.4]
    np.testing.assert_allclose(table["mean"], [part["value"].mean() for part in parts])
    assert ((table["low"] < table["mean"]) & (table["mean"] < table["high"]) & (table["n"] == 30)).all()
    assert curve_table(rows[rows["metric"] == "road"]).empty


def test_a_control_that_keeps_up_fools_the_score():
    road, deletion = fooled(frame(BOTH), DIRECTIONS)
    assert (road.metric, road.best, road.top, road.fooled) == ("road", "good", ("good",), ())
    assert (deletion.best, deletion.fooled, deletion.ahead) == ("good", ("random",), ("random",))
    assert deletion.top == ("good",) and deletion.controls == ("half", "random")


def test_the_tests_behind_it_are_scipys():
    rows = frame(FOOLS)
    (found,) = fooled(rows, DIRECTIONS)
    wide = rows.pivot(index="image", columns="method", values="value")
    raw = [wilcoxon(wide["good"], wide[name]).pvalue for name in ("half", "random")]
    np.testing.assert_allclose([found.tests[name].p for name in ("half", "random")], raw)
    np.testing.assert_allclose([found.tests[name].p_holm for name in ("half", "random")], corrected(raw))
    assert found.tests["half"].effect > 0 > found.tests["random"].effect  # positive: worse than the best
    # real methods are corrected apart from the controls
    assert found.tests["bad"].p_holm == found.tests["bad"].p


def corrected(p):
    return multipletests(p, method="holm")[1]


def test_controls_may_be_named_beside_rows_that_do_not_know_them():
    rows = frame(FOOLS)[["image", "method", "metric", "value"]]
    (found,) = fooled(rows, {"deletion": "low"}, controls=["random", "half"])
    assert found.fooled == ("random",)
    (without,) = fooled(rows, {"deletion": "low"})
    assert without.best == "random" and not without.exposed
    assert fooled(rows, {}) == []


def test_too_few_images_fool_nothing_and_say_so():
    rows = frame(BOTH, images=4)
    road, deletion = fooled(rows, DIRECTIONS)
    assert not road.exposed and not deletion.fooled and not road.ranked
    (verdict,) = score_verdicts(rows, [road, deletion], FAMILIES)
    assert "nothing can be told for sure" in verdict.sentence
    assert any("too few images" in note for note in verdict.notes)


def test_a_method_or_control_without_numbers_takes_no_part():
    rows = frame(BOTH)
    rows.loc[rows["method"].isin(["good", "random"]), "value"] = np.nan
    _, deletion = fooled(rows, DIRECTIONS)
    assert deletion.best == "bad" and deletion.fooled == () and "random" not in deletion.tests
    rows["value"] = np.nan
    nothing = fooled(rows, DIRECTIONS)
    assert [one.best for one in nothing] == [None, None]
    assert score_verdicts(rows, nothing)[0].sentence == "No verdict: no method has a number for any score."
    assert ranking_sentence(nothing[0]).endswith("no method has a number.")


def test_rounding_noise_is_no_difference():
    rows = frame({("good", "road"): 0.5, ("half", "road"): 0.5}, spread=0)
    half = rows["method"] == "half"
    rows.loc[half, "value"] = rows.loc[half, "value"] * (1 - 1e-15)
    (found,) = fooled(rows, DIRECTIONS)
    assert found.fooled == ("half",) and found.tests["half"].ties == 30


def test_the_best_is_found_on_the_images_that_all_methods_have():
    rows = frame({("good", "road"): 0.6, ("easy", "road"): 0.5, ("random", "road"): 0.0}, spread=0.01)
    rows = rows.assign(value=rows["value"] + 0.5 * (rows["image"] < "10.jpg"))
    rows.loc[(rows["method"] == "easy") & (rows["image"] >= "10.jpg"), "value"] = np.nan  # has the easy images only
    (found,) = fooled(rows, DIRECTIONS)
    assert found.means["easy"] > found.means["good"] and found.best == "good"


def test_the_verdict_counts_what_no_control_fooled():
    rows = frame(BOTH)
    judged = fooled(rows, DIRECTIONS)
    (verdict,) = score_verdicts(rows, judged, FAMILIES)
    assert (verdict.model, verdict.dataset, verdict.images) == ("net", "pets", 30)
    assert verdict.counted == ("road",) and verdict.fooled == {"deletion": ("random",)}
    assert verdict.sentence == (
        "On 30 images good comes out best by the 1 score that no control fooled: it beats the other method on these "
        "images (1 pair of methods tested together at 5 %, by Wilcoxon's test by image with Holm's correction)."
    )
    assert "Fooled: 1 of 2 scores, deletion (by random)." in verdict.notes[0]
    assert not any("with more images" in note for note in verdict.notes)  # random is better than the best
    assert verdict.firsts == {"good": ("road",), "bad": ()}


def test_twins_share_the_top():
    twins = {("one", "road"): 0.5, ("two", "road"): 0.5, ("bad", "road"): 0.1, ("random", "road"): 0.0}
    rows = frame(twins)
    (verdict,) = score_verdicts(rows, fooled(rows, DIRECTIONS), FAMILIES)
    assert set(verdict.top) == {"one", "two"}
    one, two = verdict.top
    assert f"{two} cannot be told from {one}, the other method is worse than {one} on these images" in verdict.sentence


def test_a_family_counts_once_and_size_does_not():
    # `a` is first by road, `b` by two fidelity scores: the families tie on every image
    directions = {name: {"better": "high"} for name in ("road", "f1", "f2", "small")}
    families = {"road": "road", "f1": "fidelity", "f2": "fidelity", "small": "complexity"}
    scores = {("a", "road"): 0.9, ("b", "road"): 0.1}
    scores |= {(m, f): v for f in ("f1", "f2") for m, v in (("a", 0.1), ("b", 0.9))}
    scores |= {("a", "small"): 0.9, ("b", "small"): 0.1}
    rows = frame(scores, spread=0.001)
    judged = fooled(rows, directions)
    (verdict,) = score_verdicts(rows, judged, families)
    assert verdict.ranks == {"a": 1.5, "b": 1.5}
    assert verdict.counted == ("road", "f1", "f2")
    assert any("complexity are shown but not counted" in note for note in verdict.notes)
    only = [one for one in judged if one.metric == "small"]
    assert score_verdicts(rows, only, families)[0].top == ("a",)  # the only family left
    ranks = rank_blocks(rows, [one for one in judged if one.metric == "f1"], families)
    assert (ranks["b"] == 1).all() and (ranks["a"] == 2).all()


def test_every_score_fooled_recommends_nobody():
    rows = frame(FOOLS)
    judged = fooled(rows, DIRECTIONS)
    (verdict,) = score_verdicts(rows, judged, FAMILIES)
    assert "no method can be recommended" in verdict.sentence and not verdict.top
    sentence = ranking_sentence(judged[0])
    assert sentence.startswith("deletion (↓ lower is better) is fooled: random cannot be told from good")
    assert sentence.endswith("random even does as well or better.")


def test_a_control_that_is_only_not_told_apart_is_said_to_be_so():
    rows = frame({("good", "road"): 0.5, ("bad", "road"): 0.2, ("half", "road"): 0.499}, spread=0.2)
    judged = fooled(rows, DIRECTIONS)
    assert (judged[0].fooled, judged[0].ahead) == (("half",), ())
    (verdict,) = score_verdicts(rows, judged, FAMILIES)
    assert any("not significantly on 30 images; with more images" in note for note in verdict.notes)


def test_one_method_and_no_control():
    rows = frame({("good", "road"): 0.5})
    (judged,) = fooled(rows, DIRECTIONS)
    (verdict,) = score_verdicts(rows, [judged], FAMILIES)
    assert "there is one method, good" in verdict.sentence
    assert any("No control was run" in note for note in verdict.notes)
    assert ranking_sentence(judged) == "road (↑ higher is better): good is the only method."


def test_several_models_are_judged_apart():
    rows = pd.concat([frame(BOTH), frame(BOTH, seed=1, model="other")])
    judged = fooled(rows, DIRECTIONS)
    assert [(one.model, one.metric) for one in judged] == [
        ("net", "road"), ("net", "deletion"), ("other", "road"), ("other", "deletion"),
    ]  # fmt: skip
    assert [verdict.model for verdict in score_verdicts(rows, judged, FAMILIES)] == ["net", "other"]


def test_the_html_is_escaped_and_marks_the_best_method_that_is_no_control():
    scores = {("<b>good</b>", "road"): 0.6, ("bad", "road"): 0.3, ("random", "road"): 0.9}
    table = score_table(frame(scores, model="<i>net"), DIRECTIONS)
    html = html_table(table, controls=["random"])
    assert "<b>" not in html and "<i>" not in html and "&lt;b&gt;good" in html
    assert html.count("font-weight:700") == 1 and "road ↑" in html and "random (control)" in html
    assert "nan" not in html_table(score_table(frame(scores, images=1)))
    assert html_table(table.iloc[:0])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123"), (-0.5, "−0.500"), (0.0, "0.000"), (1234.5, "1.23e+03"), (0.00012, "0.00012"), (math.nan, "–")],
)
def test_numbers_say_something_at_every_size(value, text):
    assert figure(value) == text


def test_scores_that_no_control_could_fool_for_lack_of_images_are_not_called_unfooled():
    rows = frame({("good", "road"): 0.9, ("fair", "road"): 0.5, ("half", "road"): 0.1}, spread=0.01)
    few = rows[rows["image"].isin(sorted(rows["image"].unique())[:2])]
    assert not any(one.exposed for one in fooled(few, DIRECTIONS))
    (verdict,) = score_verdicts(few, fooled(few, DIRECTIONS), FAMILIES)
    assert "that no control fooled" not in verdict.sentence
    assert "whether a control fools them could not be tested" in verdict.sentence

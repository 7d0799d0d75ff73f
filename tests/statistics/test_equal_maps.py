"""Methods with equal maps are one arm: decided from projections or from all values, and then in every test."""

import numpy as np
import pandas as pd
import pytest

from heatproof.statistics.agreement import segmenter_agreement
from heatproof.statistics.audit import audit_findings
from heatproof.statistics.equal_maps import DISTINCT, EqualMaps, equal_maps, equal_pairs, shared
from heatproof.statistics.fooling import fooled
from heatproof.statistics.metric_agreement import metric_agreement
from heatproof.statistics.paired import compared
from heatproof.statistics.robustness_tables import image_blocks
from heatproof.statistics.score_verdict import rank_blocks, score_verdicts

DIRECTIONS = {"road": {"better": "high"}, "deletion": {"better": "low"}, "insertion": {"better": "high"}}
FAMILIES = {"road": "road", "deletion": "fidelity", "insertion": "fidelity"}
NOISE = 1e-8


def projections(methods, images=20, seed=0, controls=()):
    """A projection for each image and method; methods of one letter are equal but for noise."""
    generator = np.random.default_rng(seed)
    own = {letter: generator.uniform(-1, 1, images) for letter in sorted({name[0] for name in methods})}
    parts = [
        pd.DataFrame({"image": [f"{i}.jpg" for i in range(images)], "dataset": "pets", "model": "net", "method": name,
                      "control": name in controls,
                      "value": own[name[0]] + NOISE * generator.uniform(-1, 1, images)})
        for name in methods
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def scores(methods, images=20, seed=0, controls=("random",), noise=NOISE):
    """Rows of three metrics; methods of one letter have equal values but for noise, as equal maps have."""
    generator = np.random.default_rng(seed)
    level = {letter: 0.1 * i for i, letter in enumerate(sorted({name[0] for name in methods}))}
    parts = []
    for metric in DIRECTIONS:
        own = {letter: mean + 0.2 * generator.random(images) for letter, mean in level.items()}
        for name in (*methods, *controls):
            value = own[name[0]] + noise * generator.uniform(-1, 1, images) if name in methods else np.zeros(images)
            columns = {"image": [f"{i:02d}.jpg" for i in range(images)], "method": name, "metric": metric}
            columns |= {"value": value, "control": name in controls, "model": "net", "dataset": "pets", "flag": ""}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def test_the_first_in_the_plans_order_stands_for_all_that_are_equal():
    found = equal_maps(projections(["a1", "a2", "b1", "a3", "c1"]), order=["c1", "a3", "b1", "a1", "a2"])
    assert found.groups == (("a3", "a1", "a2"),) and found.images == 20
    assert [found.arm(name) for name in ("a1", "a2", "a3", "b1")] == ["a3", "a3", "a3", "b1"]
    assert found.named(["b1", "a3"]) == ("b1", "a3", "a1", "a2")
    assert found.spread({"a3": 1, "b1": 2}) == {"a3": 1, "a1": 1, "a2": 1, "b1": 2}
    (note,) = found.notes()
    assert note.startswith("a3 = a1 = a2 on this network: ") and "all 20 images" in note


def test_one_image_that_differs_makes_two_methods():
    rows = projections(["a1", "a2"])
    rows.loc[3, "value"] += 3e-5
    assert equal_maps(rows) == EqualMaps((), 20, frozenset())
    rows = projections(["a1", "a2"])
    rows.loc[3, "value"] = np.nan  # no map there, and one of the other
    assert not equal_maps(rows).groups
    rows.loc[rows["image"] == "3.jpg", "value"] = np.nan
    assert equal_maps(rows).groups and equal_maps(rows).images == 19
    assert not equal_maps(rows.assign(value=np.nan)).groups, "methods without a map are not equal"


def test_a_control_never_stands_for_a_method():
    found = equal_maps(projections(["a1", "a2", "a3", "a4"], controls=("a2", "a3")))
    assert set(found.groups) == {("a1", "a4"), ("a2", "a3")}
    assert [note[:7] for note in found.notes()] == ["a1 = a4"], "the page names the methods"


def test_without_projections_all_values_decide_and_a_few_hits_do_not():
    assert equal_maps(None, scores(["a1", "a2", "b1"])).groups == (("a1", "a2"),)
    assert not equal_maps(None, scores(["a1", "a2", "b1"], noise=1e-3)).groups
    hits = scores(["a1", "a2", "b1"]).assign(value=lambda rows: (rows["value"] > 0.1).astype(float))
    assert not equal_maps(None, hits).groups, "equal hits of the pointing game are no equal maps"
    assert equal_maps(None, None) == DISTINCT == equal_maps(pd.DataFrame(), pd.DataFrame())


def test_the_scale_of_one_metric_hides_no_difference_in_another():
    rows = scores(["a1", "a2", "b1"])
    large = rows["metric"] == "insertion"
    rows.loc[large, "value"] *= 1e6
    rows.loc[(rows["metric"] == "road") & (rows["method"] == "a2"), "value"] += 0.01
    assert not equal_maps(None, rows).groups


def test_several_networks_share_only_what_is_equal_on_each():
    one, two = (EqualMaps(groups, 5) for groups in ((("a", "b", "c"), ("x", "y")), (("c", "b"), ("x", "z"))))
    assert shared([one, two]).groups == (("b", "c"),) and shared([one]) == one
    assert not list(shared([one, two]).notes()) and len(list(one.notes())) == 2, "said of each network, once"
    assert shared([]) == DISTINCT and shared([one, DISTINCT]).groups == ()


def test_holm_counts_the_pairs_of_different_methods():
    """Six methods of which three are equal: 6 pairs in place of 15, and every p is that of the four alone."""
    many, four = ["a1", "a2", "a3", "b1", "c1", "d1"], ["a1", "b1", "c1", "d1"]
    rows = scores(many, seed=1)
    equal = equal_maps(projections(many))
    alone = rows[rows["method"].isin([*four, "random"])]
    for one, other in zip(fooled(rows, DIRECTIONS, equal=equal), fooled(alone, DIRECTIONS), strict=True):
        assert one.comparison is not None and len(one.comparison.pairs) == 6
        assert (one.top, one.fooled, one.tests, one.means) == (other.top, other.fooled, other.tests, other.means)
        assert one.comparison.pairs == other.comparison.pairs and one.comparison.ranks == other.comparison.ranks
    apart = fooled(rows, DIRECTIONS)[0].comparison
    assert apart is not None and len(apart.pairs) == 15
    judged = fooled(rows, DIRECTIONS, equal=equal)
    (verdict,), (wanted,) = score_verdicts(rows, judged, FAMILIES, equal), score_verdicts(alone, judged, FAMILIES)
    assert verdict.ranks == wanted.ranks and verdict.sentence == wanted.sentence
    assert verdict.notes == (*equal.notes(), *wanted.notes)
    pd.testing.assert_frame_equal(metric_agreement(rows, DIRECTIONS, equal), metric_agreement(alone, DIRECTIONS))


def test_kendalls_w_counts_different_methods():
    generator = np.random.default_rng(0)
    rows = [
        {"model": "m", "dataset": "d", "layer": "l", "perturbation": "blur", "severity": "all", "segmenter": segmenter,
         "method": method, "control": False, "rm": value}
        for segmenter in ("quickshift", "slic", "grid")
        for method, value in zip(("a1", "b", "c", "d"), generator.random(4), strict=True)
    ]  # fmt: skip
    twins = [row | {"method": "a2"} for row in rows if row["method"] == "a1"]
    equal = {("m", "d"): EqualMaps((("a1", "a2"),), 9)}
    found = segmenter_agreement(pd.DataFrame(rows + twins), equal=equal)
    pd.testing.assert_frame_equal(found, segmenter_agreement(pd.DataFrame(rows)))
    assert found["methods"].tolist() == [4]


def test_the_audit_corrects_for_different_methods_and_answers_for_all():
    many = ["a1", "a2", "a3", "b1"]
    rows, four = scores(many, seed=2), scores(many, seed=2)
    equal = equal_maps(projections(many))
    alone = four[four["method"].isin(["a1", "b1", "random"])]
    given = {"model": "net", "dataset": "pets"}
    found = audit_findings(rows, DIRECTIONS, None, {}, **given, equal=equal)
    wanted = audit_findings(alone, DIRECTIONS, None, {}, **given)
    assert set(found.findings) == set(many) and set(wanted.findings) == {"a1", "b1"}
    assert found.sentence == wanted.sentence and found.notes == (*equal.notes(), *wanted.notes)
    first, twin = found.findings["a1"]["faithful"], found.findings["a3"]["faithful"]
    assert first == wanted.findings["a1"]["faithful"] and (twin.answer, twin.p) == (first.answer, first.p)
    assert twin.method == "a3" and set(found.fit) == set(equal.named(wanted.fit))


def test_equal_pairs_are_found_in_a_frame_of_pairs(made):
    pairs = made({"good": 0.4, "dull": 0.1})
    twin = pairs[pairs["method"] == "good"].assign(method="twin")
    twin["rbo"] += np.random.default_rng(0).uniform(-NOISE, NOISE, len(twin))
    found = equal_pairs(pd.concat([pairs, twin], ignore_index=True), ["twin"])
    assert found.groups == (("twin", "good"),) and found.images == 60


@pytest.mark.parametrize("lost", [1, 4])
def test_dropped_counts_the_images_without_a_block(made, lost):
    """Of images whose prediction never held, and of images without any score that all methods share."""
    pairs = made({"good": 0.4, "dull": 0.1}, images=30)
    gone = [f"{i:03d}.jpg" for i in range(lost)]
    pairs.loc[pairs["image"].isin(gone), "changed"] = True
    kept = pairs.loc[~pairs["changed"].astype(bool), "image"].nunique()
    blocks = image_blocks(pairs)
    assert len(blocks) == 30 and len(blocks.dropna()) == kept <= 30 - lost
    assert (compared(blocks).friedman.n, compared(blocks).friedman.dropped) == (kept, 30 - kept)
    rows = scores(["a1", "b1"], images=12)
    rows.loc[(rows["method"] == "a1") & rows["image"].isin([f"{i:02d}.jpg" for i in range(lost)]), "value"] = np.nan
    judged = fooled(rows, DIRECTIONS)
    ranks = rank_blocks(rows[~rows["control"]], judged, FAMILIES)
    assert len(ranks) == 12 and len(ranks.dropna()) == 12 - lost
    (verdict,) = score_verdicts(rows, judged, FAMILIES)
    assert verdict.comparison is not None and verdict.comparison.friedman.dropped == lost
    assert verdict.images == 12 - lost

"""The verdict: which methods share the top, which quantities are fooled, and the sentences without a result."""

import numpy as np
import pandas as pd
import pytest

from heatproof.statistics.robustness_tables import robustness_table
from heatproof.statistics.robustness_verdict import verdict_on
from heatproof.statistics.wording import listed, number


def judged(pairs, **options):
    table = robustness_table(pairs, resamples=10)  # the verdict uses its values, not its intervals
    return verdict_on(pairs, table, resamples=200, **options)


def test_one_method_wins_and_rm_is_fooled_by_the_constant_control(made):
    found = judged(made({"good": 0.4, "fair": 0.15, "dull": 0.05}, kinds=4, base=0.45))
    assert found.by == "rm0" and "half" in found.fooled["rm"] and found.best == "good" and found.top == ("good",)
    assert "half" in found.fooled["consistency"] and found.fooled["rm0"] == ()
    assert found.sentence.startswith("On 60 images under 4 perturbations good holds up best (RM₀ ")
    assert found.sentence.endswith(
        "it beats each of the other 2 methods at 95 % confidence (3 pairs of methods tested together at 5 %, by "
        "Wilcoxon's test with Holm's correction and the bootstrap by image; both controls are worse than good)."
    )
    assert found.comparison is not None and found.comparison.friedman.n == 8
    assert any(note.startswith("Fooled: ") and "RM (half); RM₀ decides" in note for note in found.notes)
    interval = found.figures["rm0"]["good"]
    assert interval.low < interval.value < interval.high and found.figures["rm0"]["half"].value == 0


def test_rm_decides_where_no_control_fools_it(made):
    found = judged(made({"good": 0.5, "dull": 0.1}, controls=("random",)))
    assert found.by == "rm" and found.fooled["rm"] == () and "(RM 0." in found.sentence


def test_two_that_are_alike_share_the_top(made):
    pairs = made({"good": 0.4, "near": 0.4, "dull": 0.05}, kinds=4)
    found = judged(pairs)
    best, near = found.top
    assert {best, near} == {"good", "near"} and found.best == best
    assert f"{best} and {near} hold up best" in found.sentence
    assert f"; {near} cannot be told from {best}, the other method is worse than {best} at 95 % conf" in found.sentence


def test_equal_maps_are_one_method_in_the_verdict(made):
    pairs = made({"good": 0.4, "fair": 0.15, "dull": 0.05}, kinds=4, base=0.45)
    noise = np.random.default_rng(0).uniform(-1e-8, 1e-8, (len(pairs), 2))
    twins = [pairs[pairs["method"] == "good"].assign(method=name) for name in ("twin", "third")]
    for twin in twins:
        twin[["rbo", "kappa"]] += noise[: len(twin)]
    found, alone = judged(pd.concat([pairs, *twins], ignore_index=True)), judged(pairs)
    assert found.sentence == alone.sentence and found.top == ("good",)
    assert found.notes[0].startswith("good = third = twin on this network: ") and "all 60 images" in found.notes[0]
    assert sum("twin" in note for note in found.notes) == 1
    assert found.comparison.pairs == alone.comparison.pairs and found.comparison.ranks == alone.comparison.ranks
    assert found.figures["rm0"]["twin"] == found.figures["rm0"]["good"] == alone.figures["rm0"]["good"]
    assert found.support["within"]["third"] == found.support["within"]["good"]


def test_the_bars_are_those_of_the_sentence(made):
    for seed in range(3):
        found = judged(made({"a": 0.4, "b": 0.36, "c": 0.3, "d": 0.1, "e": 0.05}, kinds=4, base=0.5, seed=seed))
        comparison = found.comparison
        assert comparison is not None and found.top
        joined = {found.best}.union(*(set(group) for group in comparison.cliques if found.best in group))
        assert joined == set(found.top)


def test_a_control_that_fools_one_cell_is_named_though_the_mean_is_not_fooled(made):
    pairs = made({"good": 0.3, "dull": 0.1}, kinds=3, base=0.5, images=120)
    here = (pairs["perturbation"] == "kind1") & (pairs["severity"] == 2)
    good = pairs[pairs["method"] == "good"].assign(method="edges", control=True)
    dull = pairs[pairs["method"] == "dull"].assign(method="edges", control=True)
    spot = (good["perturbation"] == "kind1") & (good["severity"] == 2)
    edges = pd.concat([good[spot], dull[~spot.to_numpy()].assign(rbo=0.5, kappa=0.0)])
    assert here.any() and len(edges) == len(good)
    pairs = pd.concat([pairs, edges], ignore_index=True)
    table = robustness_table(pairs, resamples=200)
    cells = table[table["method"] == "edges"].set_index(["perturbation", "severity"])["fools"]
    fooled = {key for key, names in cells.items() if "rm0" in names.split("; ")}
    assert ("kind1", "2") in fooled and ("kind0", "all") not in fooled and ("kind0", "1") not in fooled
    assert (table.loc[~table["control"].astype(bool), "fools"] == "").all()
    found = verdict_on(pairs, table, resamples=200)
    assert "edges" not in found.fooled["rm0"] and found.by == "rm0"
    (note,) = (note for note in found.notes if note.startswith("Fooled in single cells by RM₀"))
    assert "kind1 at severity 2" in note and "(edges)" in note


def test_of_few_images_no_sentence_speaks_of_confidence(made):
    methods = {"good": 0.5, "dull": 0.0}
    few, many = (judged(made(methods, images=n, kinds=4, base=0.45, flip=0.4)) for n in (49, 50))
    assert few.top == many.top == ("good",)
    assert "it beats the other method on these images (1 pair of" in few.sentence and "confidence" not in few.sentence
    assert "it beats the other method at 95 % confidence (1 pair of methods tested together at 5 %" in many.sentence


def test_methods_that_cannot_be_told_apart(made):
    found = judged(made({"one": 0.3, "two": 0.3, "three": 0.3}, images=25))
    assert set(found.top) == {"one", "two", "three"}
    assert f"no method can be told from {found.best}" in found.sentence and "confidence" not in found.sentence
    assert "Only 25 images: take this as an indication." in found.notes
    assert any(note.startswith("Only ") and "block" in note for note in found.notes)


def test_maps_that_do_not_follow_the_prediction_are_not_recommended(made):
    found = judged(made({"still": 0.0, "calm": -0.01}, images=100))
    assert found.top == () and "no method can be recommended" in found.sentence


def test_nothing_decides_where_a_control_is_as_good(made):
    pairs = made({"good": 0.1, "dull": 0.0})
    cheat = pairs[pairs["method"] == "good"].assign(method="cheat", control=True)
    found = judged(pd.concat([pairs, cheat], ignore_index=True))
    assert found.by is None and found.top == () and "cheat" in found.fooled["rm0"]
    assert "cannot be told from cheat, which does not depend on the network" in found.sentence


def test_a_map_that_fades_with_the_noise_fools_the_pooled_figures_only(made):
    """An edge detector: it moves with severity, and so do predictions, but at equal severity they are unrelated."""
    weak, strong = (made({"good": 0.2, "fading": 0.0}, images=120, kinds=3, severities=(s,), flip=f, seed=s, base=0.5)
                    for s, f in ((1, 0.15), (2, 0.85)))  # fmt: skip
    pairs = pd.concat([weak, strong], ignore_index=True)
    fading = pairs["method"] == "fading"
    pairs.loc[fading, "control"] = True
    pairs.loc[fading & (pairs["severity"] == 1), ["rbo", "kappa"]] += 0.45
    found = judged(pairs)
    assert "fading" in found.fooled["responsiveness"] and "fading" in found.fooled["rm0"]
    assert found.fooled["within"] == () and found.fooled["rm0_within"] == ()
    assert found.by == "rm0" and found.within and found.top == ("good",)
    assert "(RM₀ within severities 0." in found.sentence
    assert any("compared at equal severity it does not" in note for note in found.notes)


@pytest.mark.parametrize(("changed", "cure"), [(False, "stronger"), (True, "weaker")])
def test_no_flips_and_all_flips_are_no_verdict(changed, cure, made):
    found = judged(made({"good": 0.3, "dull": 0.1}).assign(changed=changed))
    assert found.by is None and found.best is None and found.top == () and found.cells == 0
    assert found.sentence.startswith("No verdict: no perturbation has 10 predictions") and cure in found.sentence
    assert any("left out" in note for note in found.notes)


def test_flagged_controls_only_and_empty_studies(made):
    pairs = made({"good": 0.3})
    assert "every row is flagged" in judged(pairs.assign(rbo=np.nan)).sentence
    assert judged(pairs[pairs["control"]]).sentence == "No verdict: there are only controls to judge."
    assert judged(pairs.iloc[:0]).sentence == "No verdict: there is no method to judge."
    alone = judged(pairs[~pairs["control"]])
    assert alone.top == ("good",) and alone.comparison is None
    assert "No control was run, so it is not known whether these figures can be fooled." in alone.notes


def test_a_method_with_too_little_in_a_condition_takes_the_condition_out(made):
    pairs = made({"good": 0.4, "dull": 0.1}, kinds=3)
    lost = (pairs["method"] == "dull") & (pairs["perturbation"] == "kind2")
    pairs.loc[lost, ["rbo", "kappa"]] = np.nan
    found = judged(pairs)
    assert found.cells == 2 and any(note.startswith("1 perturbation was left out") for note in found.notes)


def test_one_segmenter_speaks(made):
    pairs = made({"good": 0.4, "dull": 0.1})
    slic = pairs.assign(segmenter="slic")
    slic.loc[slic["method"] == "good", "method"] = "other"
    both = pd.concat([slic, pairs], ignore_index=True)
    assert judged(both).sentence == judged(pairs).sentence
    assert judged(both, segmenter="slic").best == "other"


def test_equal_methods_rarely_lose(made):
    """Simultaneous bounds: over many studies of five equal methods, one is called worse in about one of twenty."""
    lost = 0
    for seed in range(10):
        pairs = made(dict.fromkeys("abcde", 0.25), images=40, kinds=1, severities=(3,), seed=seed, flip=0.4)
        found = judged(pairs[~pairs["control"]])
        lost += bool(found.top) and len(found.top) < 5
    assert lost <= 3


def test_the_verdict_is_reproducible(made):
    pairs = made({"good": 0.3, "dull": 0.1})
    shuffled = pairs.sample(frac=1, random_state=1)
    first, again = judged(pairs), judged(shuffled)
    assert (first.sentence, first.notes, first.figures) == (again.sentence, again.notes, again.figures)


def test_words():
    assert listed(["a"]) == "a" and listed(["a", "b"]) == "a and b" and listed(["a", "b", "c"]) == "a, b and c"
    assert [number(x) for x in (0.314, -0.02, 1.0, float("nan"))] == ["0.31", "−0.02", "1.00", "not known"]

"""Numbers that differ in their last bits, as between processors, give the same ranks, tests and verdicts."""

import numpy as np
import pandas as pd
import pytest

from heatproof.statistics.agreement import kendall_w
from heatproof.statistics.fooling import fooled
from heatproof.statistics.intervals import bootstrap, delong, multiplicities
from heatproof.statistics.metric_agreement import metric_agreement
from heatproof.statistics.paired import compared
from heatproof.statistics.robustness import auc, responsiveness
from heatproof.statistics.robustness_tables import robustness_table
from heatproof.statistics.robustness_verdict import verdict_on
from heatproof.statistics.score_tables import html_table, score_table
from heatproof.statistics.score_verdict import score_verdicts

DIRECTIONS = {"rate": "high", "loss": "low"}
PROCESSORS = pytest.mark.parametrize("processor", [1, 2, 3])


def last_bits(values, processor, size=2e-8):
    """Values as a processor rounds them; those of processor 0 are exact."""
    generator = np.random.default_rng(processor)
    return values + size * processor * generator.uniform(-1, 1, np.shape(values))


def levels(images=20, methods=4, of=28, seed=0):
    """Shares of `of` steps, `(images, methods)`, with many ties; the second method is the first's twin."""
    found = np.random.default_rng(seed).integers(0, 8, (images, methods)) + np.arange(methods)
    found[:, 1] = found[:, 0]
    return found / of


def scores(processor):
    """Rows of two metrics: twins, two other methods and a control that is as good as the best on `rate`."""
    parts = []
    for metric, seed in (("rate", 0), ("loss", 1)):
        values = last_bits(levels(seed=seed), processor)
        values = np.column_stack([values, last_bits(levels(seed=seed)[:, -1], processor + 7 * bool(processor))])
        for method, column in zip(("a", "b", "c", "d", "random"), values.T, strict=True):
            names = [f"{i:02d}" for i in range(len(column))]
            parts.append(pd.DataFrame({"image": names, "method": method, "metric": metric, "value": column}))
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(model="net", control=rows["method"] == "random")


@PROCESSORS
def test_what_fools_a_score_and_who_stands_where(processor):
    exact, rows = (fooled(scores(one), DIRECTIONS) for one in (0, processor))
    for one, other in zip(exact, rows, strict=True):
        assert (other.best, other.top, other.fooled, other.ahead) == (one.best, one.top, one.fooled, one.ahead)
        assert {name: (t.ties, t.p_holm, t.effect) for name, t in other.tests.items()} == {
            name: (t.ties, t.p_holm, t.effect) for name, t in one.tests.items()
        }
    first, second = (score_verdicts(scores(one), found)[0] for one, found in ((0, exact), (processor, rows)))
    assert list(second.ranks.items()) == list(first.ranks.items()) and second.top == first.top
    assert second.sentence == first.sentence and second.notes == first.notes


@PROCESSORS
def test_methods_compared_on_blocks(processor):
    exact, found = (compared(pd.DataFrame(last_bits(levels(), one), columns=list("abcd"))) for one in (0, processor))
    assert list(found.ranks.items()) == list(exact.ranks.items()) and found.cliques == exact.cliques
    assert found.friedman.p == exact.friedman.p
    assert [(t.p_holm, t.effect, t.ties) for t in found.pairs] == [(t.p_holm, t.effect, t.ties) for t in exact.pairs]
    assert found.pair("a", "b").ties == 20, "twins"


@PROCESSORS
def test_raters_and_metrics_agree_as_much(processor):
    assert kendall_w(last_bits(levels(), processor)) == kendall_w(levels())
    exact, found = (metric_agreement(scores(one), DIRECTIONS) for one in (0, processor))
    pd.testing.assert_frame_equal(found, exact)


@PROCESSORS
@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e5])
def test_areas_and_their_intervals(processor, unit):
    exact = unit * levels(100, 2, seed=3)[:, 0]
    changed, image = np.arange(100) % 3 == 0, np.arange(100) % 25
    other = last_bits(exact, processor, 2e-8 * unit)
    assert auc(other, changed) == auc(exact, changed)
    assert responsiveness(other, changed, "paper") == responsiveness(exact, changed, "paper")
    assert delong(other, changed) == delong(exact, changed)
    drawn, stratum = multiplicities(25, 50, seed=0), np.arange(100) // 50
    one, two = (bootstrap(values, values, changed, image, drawn, stratum=stratum) for values in (exact, other))
    for quantity in ("responsiveness", "within"):
        assert getattr(two.point, quantity) == getattr(one.point, quantity)
        np.testing.assert_array_equal(two.values[quantity], one.values[quantity])


@PROCESSORS
def test_the_verdict_on_pairs(processor, made):
    pairs = made({"good": 0.5, "bad": 0.1}, images=40)
    twin = pairs[pairs["method"] == "good"].assign(method="another")
    pairs = pd.concat([pairs, twin], ignore_index=True)
    pairs["rbo"], pairs["kappa"] = pairs["rbo"].round(1), pairs["kappa"].round(1)
    found = []
    for one in (0, processor):
        seen = pairs.assign(
            rbo=last_bits(pairs["rbo"].to_numpy(), one), kappa=last_bits(pairs["kappa"].to_numpy(), one)
        )
        found.append(verdict_on(seen, robustness_table(seen, resamples=100), resamples=100))
    exact, other = found
    assert (other.by, other.best, other.top, other.fooled) == (exact.by, exact.best, exact.top, exact.fooled)
    assert other.sentence == exact.sentence and exact.best == "another", "the first by name of two twins"
    assert exact.comparison is not None and other.comparison is not None
    assert other.comparison.ranks == exact.comparison.ranks


def test_every_mean_that_is_the_best_is_bold():
    exact, other = (html_table(score_table(scores(one), DIRECTIONS), controls=["random"]) for one in (0, 1))
    assert other.count("font-weight:700") == exact.count("font-weight:700")

"""Regions: how strokes become masks, what a map foretells of one, and in which words."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatproof.panels.explained_image import ClassProbability, ExplainedClass, Map, Method
from heatproof.view.interface import Erased
from heatproof.view.regions import Foretold, effect, foretold, likeness, region_answer, region_of, verdict


def slow_foretold(field: np.ndarray, region: np.ndarray) -> tuple[float, float]:
    """Every place of the shape, one after another."""
    rows, columns = np.nonzero(region)
    held = field[region].sum()
    here = (rows.min(), columns.min())
    shape = [(r - here[0], c - here[1]) for r, c in zip(rows, columns, strict=True)]
    below = equal = count = 0
    for top in range(field.shape[0] - max(r for r, _ in shape)):
        for left in range(field.shape[1] - max(c for _, c in shape)):
            if (top, left) != here:
                there = sum(field[top + r, left + c] for r, c in shape)
                count, below = count + 1, below + (there < held - 1e-6 * field.sum())
                equal += abs(there - held) <= 1e-6 * field.sum()
    return held / field.sum(), (below + equal / 2) / count if count else math.nan


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 9), st.integers(3, 9))
def test_foretold_is_what_counting_every_place_gives(seed, height, width):
    draws = np.random.default_rng(seed)
    field = draws.integers(0, 4, (height, width)) / 3
    region = draws.random((height, width)) < 0.3
    if not region.any() or not field.sum():
        assert math.isnan(foretold(field, region).rank)
        return
    np.testing.assert_allclose(foretold(field, region), slow_foretold(field, region), atol=1e-9)


def test_a_region_that_cannot_be_moved_has_no_rank():
    told = foretold(np.ones((4, 4)), np.eye(4, dtype=bool))
    assert told.share == 0.25 and math.isnan(told.rank)
    assert math.isnan(foretold(np.zeros((4, 4)), np.eye(4, dtype=bool)).share)
    assert foretold(np.ones((4, 4)), np.eye(4, 4, 0, dtype=bool) & (np.arange(4) < 2)).rank == 0.5  # all places alike


def test_strokes_become_a_mask():
    dot = region_of([[(0.5, 0.5)]], 0.1, (100, 200))
    assert dot.shape == (100, 200) and dot[50, 100] and dot[50, 119] and not dot[50, 122] and not dot[75, 100]
    line = region_of([[(0.1, 0.5), (0.9, 0.5)]], 0.05, (100, 100))
    assert line[50, 10:90].all() and not line[20].any()
    assert not region_of([], 0.1, (10, 10)).any()
    assert not region_of([[(math.nan, 0.5)]], 0.1, (10, 10)).any()
    assert region_of([[(0.5, 0.5)]], 50, (10, 10)).all()
    assert not region_of([[(9.0, 9.0)]], 0.1, (10, 10)).any()


def erased(before: float, after: float, index: int = 0) -> Erased:
    name = "cat, tom"
    chances = [ClassProbability(0, name, p) for p in (before, after)]
    return Erased(*chances, ClassProbability(index, "dog", 0.9), np.zeros((2, 2, 3), np.uint8))


def test_what_the_network_did_in_words():
    assert effect(erased(0.98, 0.41)) == "Without this region the probability of “cat” falls from 98 % to 41 %."
    assert effect(erased(0.4, 0.5)) == "Without this region the probability of “cat” rises from 40 % to 50 %."
    assert effect(erased(0.5, 0.5)) == "Without this region the probability of “cat” stays at 50 %."
    value = [ClassProbability(0, "", value=v) for v in (3.0, 2.5)]
    told = Erased(*value, value[1], np.zeros((2, 2, 3), np.uint8))
    assert effect(told) == "Without this region the value of output 0 falls from 3 to 2.5."


@pytest.mark.parametrize(
    ("rank", "fall", "said"),
    [(0.95, 0.5, "foretold: the map marks it"), (0.1, 0.0, "foretold: the map does not"),
     (0.95, 0.0, "not foretold: the map"),
     (0.1, 0.9, "not foretold: the network"), (0.7, 0.9, "the map is undecided"),
     (0.95, 0.1, "the effect is in between"),
     (math.nan, 0.9, ""), (0.95, None, "the map says: important"), (0.2, None, "the map says: not"), (0.7, None, "")],
)  # fmt: skip
def test_map_and_network_together(rank, fall, said):
    assert verdict(Foretold(0.5, rank), fall).startswith(said) and bool(verdict(Foretold(0.5, rank), fall)) == bool(
        said
    )


def test_an_answer_has_a_line_for_each_method_with_a_map():
    field = np.zeros((8, 8))
    field[:2, :2] = 1
    region = field > 0
    answer = ClassProbability(0, "cat", 0.9)
    block = ExplainedClass(
        answer, {"a": Map(field, field), "b": Map(field[::-1], field[::-1]), "c": Map(field, field, "constant")}
    )
    found = region_answer(region, block, [Method(key, key) for key in "abcd"], erased(0.9, 0.2, index=1))
    assert found.area == 4 / 64 and [line.method for line in found.lines] == ["a", "b"]
    assert found.lines[0].verdict.startswith("foretold") and found.lines[1].verdict.startswith("not foretold")
    assert found.prediction == "The prediction is then dog (1), 90 %."
    assert region_answer(region, block, [Method("a", "a")], None).effect == ""


def test_likeness_of_maps():
    one = np.array([[0.0, 1], [0.5, 0]])
    assert likeness(one, 0.2 + one / 2) == pytest.approx(1) and likeness(one, -one) == pytest.approx(-1)
    assert math.isnan(likeness(one, np.ones((2, 2)))) and math.isnan(likeness(one, np.ones((3, 2))))

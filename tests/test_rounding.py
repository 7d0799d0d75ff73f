"""Rounding before ranking: digits, scales, classes; alike for NumPy and torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from heatproof.rounding import ANSWER_STEP, behind_largest, largest, logit_scale, rounded, top_class

BOTH = pytest.mark.parametrize("of", [np.array, lambda values: torch.tensor(values, dtype=torch.float64)])


@BOTH
def test_six_digits_and_what_is_no_number_stays(of):
    found = rounded(of([0.3 - 1e-8, 0.3 + 1e-8, 0.5 - 1e-8, float("inf"), float("nan"), 0.300002])).tolist()
    assert found[0] == found[1] == pytest.approx(0.3, abs=5e-7) and found[2] == 0.5 and found[5] > found[0]
    assert found[3] == float("inf") and np.isnan(found[4])


@BOTH
def test_no_mean_of_a_few_levels_lies_on_a_border(of):
    """Six decimals would cut 1/640, the mean of one pixel in 64 at level .1."""
    counts = (*range(2, 11), 12, 28, 64, 96, 100, 128, 224, 256, 640)
    exact = np.array([k / n for n in counts for k in range(1, n)])
    high, low = (rounded(of((exact + noise).tolist())).tolist() for noise in (4e-8, -4e-8))
    assert high == low
    tilted = np.array([1 / 640 + 4e-8, 1 / 640 - 4e-8])
    assert len(set(tilted.round(6))) == 2, "decimals do"


@BOTH
@pytest.mark.parametrize("scale", [1e-8, 3.0, 50176.0])
def test_digits_of_a_scale(of, scale):
    values = scale * np.array([1.0, 1.0 - 1e-7, 0.5, 0.5 - 2e-6, 0.0])
    found = rounded(of(values.tolist()), largest(of(values.tolist())))
    one, twin, half, less, zero = found.tolist()
    assert one == twin and half > less and zero == 0
    np.testing.assert_allclose(found.tolist(), values, atol=4.8e-7 * scale)


@BOTH
def test_the_largest_is_of_each_row_and_finite(of):
    rows = of([[1.0, -3.0, float("nan")], [0.0, 0.0, 0.0], [float("-inf"), 2.0, 1.0]])
    assert largest(rows).tolist() == [[3.0], [0.0], [2.0]] and float(largest(rows, None)) == 3
    assert rounded(of([0.0, 0.0]), largest(of([0.0, 0.0]))).tolist() == [0.0, 0.0], "a scale of 0 counts as 1"
    assert float(largest(of([]), None)) == 0


@BOTH
def test_differences_that_are_rounding_are_equal(of):
    value = of([0.3, 0.3 + 2e-7, 0.3 - 2e-7, 0.300002, 0.299998])
    assert (rounded(value - 0.3) >= 0).tolist() == [True, True, True, True, False]
    assert (rounded(value - 0.3) > 0).tolist() == [False, False, False, True, False]


@BOTH
def test_the_first_of_equal_classes_is_the_largest(of):
    logits = of([[1.0, 12.0, 12.0 + 1e-5], [1.0, 12.0, 12.001], [-5.0, -5.0, -9.0], [1.0, float("-inf"), 2.0]])
    assert top_class(logits).tolist() == [1, 2, 0, 2]
    behind = behind_largest(logits)
    assert behind.tolist()[0][1:] == [0, 0] and behind.tolist()[0][0] == pytest.approx(-11, abs=1e-3)


@BOTH
def test_what_a_probability_leaves_of_the_digits_of_a_logit(of):
    p = of([0.5, 1e-3, 1 - 1e-9, 0.0])
    assert logit_scale(p).tolist()[:3] == pytest.approx([2.5, 9.99e-3, 1e-8], rel=1e-6)
    moved = p + 1e-6 * p * (1 - p)  # as far as a logit that moves by 1e-6
    assert rounded(moved - p, logit_scale(p), ANSWER_STEP).tolist() == [0, 0, 0, 0]
    assert all(value > 0 for value in rounded(1e-3 * p * (1 - p), logit_scale(p), ANSWER_STEP).tolist()[:3])


def test_float32_keeps_its_type_and_its_order():
    values = torch.rand(10000, generator=torch.Generator().manual_seed(0))
    found = rounded(values)
    assert found.dtype == torch.float32 and (found[values.argsort()].diff() >= 0).all()
    assert len(found.unique()) > 9900, "pixels that differ stay apart"


def test_no_torch_for_numbers():
    code = "import sys, numpy; from heatproof.rounding import rounded, largest; a = numpy.ones(3)\n"
    code += "rounded(a, largest(a)); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

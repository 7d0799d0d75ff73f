"""Calibration on flip curves whose answer is known."""

import math

import pytest

from heatproof.errors import InvalidInput, UnknownName
from heatproof.perturbations import calibrate, strength_at


class Curve:
    """A flip curve that remembers where it was asked."""

    def __init__(self, function):
        self.function, self.asked = function, []

    def __call__(self, level):
        self.asked.append(level)
        return self.function(level)


def test_a_smooth_curve_is_inverted():
    curve = Curve(lambda level: 1 / (1 + math.exp(3 - level)))
    found = calibrate("gaussian-noise", curve, tolerance=0.005)
    assert [one.target for one in found] == [0.05, 0.15, 0.30, 0.50]
    for one in found:
        assert one.reached and one.kind == "gaussian-noise"
        assert one.flip_rate == curve.function(one.level)
        assert abs(one.flip_rate - one.target) <= 0.005
        # the slope is p (1 − p)
        assert one.level == pytest.approx(3 + math.log(one.target / (1 - one.target)), abs=0.15)
        assert one.strength == strength_at("gaussian-noise", one.level, extrapolate=True)
    assert len(set(curve.asked)) == len(curve.asked) <= 20
    assert all(0 < level <= 10 for level in curve.asked)


def test_steps_of_a_few_images_are_met_exactly():
    found = calibrate("fgsm", lambda level: math.floor(20 * min(1, level / 8)) / 20, tolerance=0)
    assert [(one.flip_rate, one.reached) for one in found] == [
        (0.05, True),
        (0.15, True),
        (0.3, True),
        (0.5, True),
    ]
    for one in found:  # k flips from level .4 k on
        assert one.target * 8 <= one.level + 1e-9 < one.target * 8 + 0.4 + 1e-9


def test_a_strong_attack_is_calibrated_far_below_severity_1():
    found = calibrate("fgsm", lambda level: min(1, level / 0.02), tolerance=0.01)
    assert all(one.reached for one in found)
    assert [one.level for one in found] == pytest.approx([0.001, 0.003, 0.006, 0.01], abs=3e-4)


def test_targets_out_of_reach_are_said():
    curve = Curve(lambda level: min(0.2, level / 10))
    found = calibrate("contrast", curve)
    assert [one.reached for one in found] == [True, True, False, False]
    assert [one.flip_rate for one in found[2:]] == [0.2, 0.2]
    assert [one.level for one in found[2:]] == [2, 2]  # more does not help
    assert max(curve.asked) == 10


def test_targets_jumped_over_are_said():
    found = calibrate("jpeg", lambda level: 0.0 if level < 2 else 0.4 if level < 6 else 0.5)
    by_target = {one.target: one for one in found}
    assert not by_target[0.05].reached and by_target[0.05].flip_rate == 0 and by_target[0.05].level > 0
    assert not by_target[0.30].reached and by_target[0.30].flip_rate == 0.4
    assert by_target[0.50].reached and by_target[0.50].level >= 6


def test_nothing_ever_flips():
    curve = Curve(lambda level: 0.0)
    found = calibrate("speckle", curve, targets=(0.1,), tolerance=0.1)
    assert found[0].flip_rate == 0 and not found[0].reached  # within the tolerance, but no flips are no answer
    assert curve.asked == [1, 2, 4, 8, 10]


def test_everything_always_flips():
    found = calibrate("speckle", lambda level: 1.0)
    assert not any(one.reached for one in found)
    assert all(one.flip_rate == 1 for one in found)


def test_a_dip_is_survived():
    """Rates need not grow: here one dip back to 0 between 3 and 3.5."""
    curve = Curve(lambda level: 0.0 if 3 < level < 3.5 else min(1, level / 10))
    found = calibrate("gaussian-blur", curve, targets=(0.5, 0.05, 0.3))
    assert [one.target for one in found] == [0.5, 0.05, 0.3]  # the order asked for
    assert all(abs(one.flip_rate - one.target) <= 0.02 for one in found if one.reached)
    assert found[0].reached and found[1].reached


def test_the_highest_level_is_respected():
    curve = Curve(lambda level: level / 10)
    found = calibrate("shot", curve, targets=(0.2, 0.9), highest=5)
    assert max(curve.asked) == 5
    assert found[0].reached and not found[1].reached and found[1].level == 5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"targets": ()}, "`targets` must be flip rates between 0 and 1"),
        ({"targets": (0.1, 15)}, "`targets` must be flip rates between 0 and 1"),
        ({"tolerance": -1}, "`tolerance` must be"),
        ({"highest": 11}, "`highest` must be above 0 and at most 10"),
        ({"resolution": 0}, "`resolution` must be"),
        ({"flip_rate_of": lambda level: math.nan}, r"must return a share in \[0, 1\]. Got nan at severity 1"),
        ({"flip_rate_of": lambda level: 15}, r"must return a share in \[0, 1\]. Got 15"),
    ],
)
def test_what_is_refused(changed, said):
    with pytest.raises(InvalidInput, match=said):
        calibrate(**{"kind": "shot", "flip_rate_of": lambda level: level / 10, **changed})


def test_an_unknown_kind_is_refused_before_anything_runs():
    curve = Curve(lambda level: level / 10)
    with pytest.raises(UnknownName):
        calibrate("shott-nois", curve)
    assert curve.asked == []

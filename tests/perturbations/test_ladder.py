"""The table of protocols, typed out again, and the severities between and beyond its rungs."""

import math

import numpy as np
import pytest

from heatproof.errors import InvalidInput, UnknownName
from heatproof.perturbations import (
    PERTURBATIONS,
    checked_severity,
    default_kinds,
    perturbation,
    settings_at,
    strength_at,
)

#: kind → the main strength in the table's unit at severities 1–5 (protocols, section 3).
TABLE = {
    "gaussian-noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    "shot": (60, 25, 12, 5, 3),
    "speckle": (0.15, 0.2, 0.35, 0.45, 0.6),
    "salt-and-pepper": (0.03, 0.06, 0.09, 0.17, 0.27),
    "gaussian-blur": (1, 2, 3, 4, 6),
    "defocus-blur": (3, 4, 6, 8, 10),
    "motion-blur": (10, 15, 15, 15, 20),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    "jpeg": (25, 18, 15, 10, 7),
    "fgsm": (0.125, 0.25, 0.5, 1, 2),
    "pgd-linf": (0.125, 0.25, 0.5, 1, 2),
    "pgd-l2": (0.0625, 0.125, 0.25, 0.5, 1),
    "deepfool-scaled": (0.25, 0.5, 0.75, 1, 1.25),
}

#: What leaves an image as it is.
IDENTITY = {"shot": math.inf, "contrast": 1, "jpeg": 100}


def test_all_kinds_are_there_and_eight_are_the_default():
    assert set(PERTURBATIONS) == set(TABLE)
    assert default_kinds() == (
        "gaussian-noise",
        "salt-and-pepper",
        "speckle",
        "gaussian-blur",
        "jpeg",
        "fgsm",
        "pgd-linf",
        "pgd-l2",
    )
    attacks = {name for name, entry in PERTURBATIONS.items() if entry.traits["attack"]}
    assert attacks == {"fgsm", "pgd-linf", "pgd-l2", "deepfool-scaled"}
    assert all(entry.source and entry.traits["unit"] and entry.summary for entry in PERTURBATIONS.values())


@pytest.mark.parametrize("kind", TABLE)
def test_strengths_are_the_tables(kind):
    assert [strength_at(kind, severity) for severity in (1, 2, 3, 4, 5)] == list(TABLE[kind])
    assert strength_at(kind, 0) == IDENTITY.get(kind, 0)


def test_second_strengths_are_the_tables_too():
    assert [settings_at("defocus", s)["alias"] for s in (1, 2, 3, 4, 5)] == [0.1, 0.5, 0.5, 0.5, 0.5]
    assert [settings_at("motion", s)["sigma"] for s in (1, 2, 3, 4, 5)] == [3, 5, 8, 12, 15]
    assert settings_at("fgsm", 3) == {"epsilon": 0.5 / 255}


@pytest.mark.parametrize(
    ("kind", "severity", "strength"),
    [
        ("gaussian-noise", 1.5, 0.10),
        ("gaussian-noise", 0.25, 0.02),
        ("shot", 4.5, 4),
        ("shot", 0.5, 120),  # half the noise's variance
        ("contrast", 0.5, 0.7),
        ("jpeg", 0.5, 62),  # a whole number
        ("fgsm", 4.25, 1.25),
    ],
)
def test_between_the_rungs(kind, severity, strength):
    assert strength_at(kind, severity) == pytest.approx(strength)


@pytest.mark.parametrize(
    ("kind", "severity", "strength"),
    [
        ("fgsm", 8, 16),  # doubles, as it does up to 5
        ("gaussian-noise", 6, 0.38 * 0.38 / 0.26),
        ("shot", 7, 3 * 0.36),
        ("salt-and-pepper", 10, 1),  # no more than all values
        ("contrast", 6, 0.025),
    ],
)
def test_beyond_the_ladder_each_option_keeps_its_last_factor(kind, severity, strength):
    assert strength_at(kind, severity, extrapolate=True) == pytest.approx(strength)
    with pytest.raises(InvalidInput):
        strength_at(kind, severity)


@pytest.mark.parametrize("kind", TABLE)
def test_strength_grows_without_jumps_from_0_to_10(kind):
    levels = np.linspace(0.01, 10, 1000)
    values = np.array([strength_at(kind, float(level), extrapolate=True) for level in levels])
    values = 1 / values if kind == "shot" else values
    steps = np.diff(values)
    assert (steps >= 0).all() or (steps <= 0).all()
    if kind != "jpeg":  # whole numbers
        assert np.abs(steps / values[1:]).max() < 1.01  # at most what ten per mille of level 0–1 is worth
        assert np.abs(steps[100:] / values[101:]).max() < 0.05
    assert np.abs(steps).max() <= 1 or kind == "shot"


@pytest.mark.parametrize("severity", [9, -1, 5.5, math.nan, math.inf, True, "3", None])
def test_a_severity_off_the_ladder_is_refused(severity):
    with pytest.raises(InvalidInput, match=r"`severity` must be one of 1–5; .* Got"):
        checked_severity(severity)


def test_severities_that_are_taken():
    assert checked_severity(np.int64(3)) == 3.0
    assert checked_severity(np.float32(0.5)) == 0.5
    assert checked_severity(9, extrapolate=True) == 9.0
    with pytest.raises(InvalidInput, match=r"1–5 .or up to 10 here.*Got 10.5"):
        checked_severity(10.5, extrapolate=True)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("gaussian_noise", "gaussian-noise"),
        ("GaussianBlur", "gaussian-blur"),
        ("impulse", "salt-and-pepper"),
        ("s&p", "salt-and-pepper"),
        ("Salt and Pepper", "salt-and-pepper"),
        ("poisson", "shot"),
        ("shot_noise", "shot"),
        ("speckle_noise", "speckle"),
        ("jpeg_compression", "jpeg"),
        ("defocus", "defocus-blur"),
        ("motion", "motion-blur"),
        ("pgd", "pgd-linf"),
        ("PGD_L2", "pgd-l2"),
        ("deepfool", "deepfool-scaled"),
    ],
)
def test_names_users_type(spelling, name):
    assert PERTURBATIONS[spelling].name == name


def test_unknown_kinds_get_near_misses():
    with pytest.raises(UnknownName, match=r"No perturbation is called 'gausian-nois'. Did you mean 'gaussian-noise'"):
        settings_at("gausian-nois", 1)


def test_a_ladder_must_fit_its_function():
    for ladder in ({"amount": (1, 2, 3, 4, 5)}, {"sigma": (1, 2)}):
        with pytest.raises(InvalidInput, match="The ladder of 'test-kind' must give 5 values"):

            @perturbation("test-kind", ladder=ladder, unit="")
            def kind(x, *, sigma=1.0):
                return x

    assert "test-kind" not in PERTURBATIONS

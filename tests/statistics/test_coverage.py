"""By simulation: how often 95 % intervals hold the truth, and how often equal methods are told apart.

The figures stand in docs/statistics.md.
"""

import numpy as np
import pandas as pd
import pytest

from heatproof.statistics.intervals import bootstrap, multiplicities, percentiles
from heatproof.statistics.paired import compared
from heatproof.statistics.robustness import robustness_of
from heatproof.statistics.robustness_evidence import PooledCells

QUANTITIES = ("consistency", "responsiveness", "rm", "rm0", "within", "rm0_within")


def cell(generator, images, lift=0.0, hard=None):
    """RBO, κ, changed, image and severity of the pairs of one method: severities share an image's difficulty."""
    severity = np.arange(3)
    hard = 0.08 * generator.standard_normal((images, 1)) if hard is None else hard
    changed = generator.random((images, 3)) < np.array([0.18, 0.3, 0.42])
    rbo = 0.65 + lift + hard - 0.05 * severity - 0.15 * changed + 0.1 * generator.standard_normal((images, 3))
    rbo = np.clip(rbo, 0, 1).ravel()
    return rbo, (rbo - 0.1) / 0.9, changed.ravel(), np.repeat(np.arange(images), 3), np.tile(severity, images)


def covered_means(images, repetitions=1500, resamples=400):
    """How often the interval of a mean of skewed scores in [0, 1] holds the true mean."""
    generator, drawn = np.random.default_rng(images), multiplicities(images, resamples, 0)
    hits = 0
    for _ in range(repetitions):
        low, high = percentiles(generator.beta(0.6, 1.8, images) @ drawn / images, images)
        hits += low <= 0.25 <= high
    return hits / repetitions


def covered_cells(images, repetitions=500, resamples=300):
    """The same for every quantity of a noise study, its severities pooled."""
    rbo, kappa, changed, _, severity = cell(np.random.default_rng(1), 100_000)
    truth = robustness_of(rbo, kappa, changed, stratum=severity)
    generator, drawn = np.random.default_rng(images), multiplicities(images, resamples, 0)
    hits = {quantity: [] for quantity in QUANTITIES}
    for _ in range(repetitions):
        rbo, kappa, changed, image, severity = cell(generator, images)
        found = bootstrap(rbo, kappa, changed, image, drawn, 0, severity)
        for quantity in QUANTITIES:
            one = found.interval(quantity)
            if not np.isnan(one.value):
                hits[quantity].append(one.low <= getattr(truth, quantity) <= one.high)
    return {quantity: float(np.mean(seen)) for quantity, seen in hits.items()}


def false_findings(images, methods=6, repetitions=300):
    """How often any two of some equal methods are told apart, by Wilcoxon's tests and by the simultaneous bootstrap."""
    generator, drawn = np.random.default_rng(images), multiplicities(images, 300, 0)
    names, tests, bounds = [f"m{i}" for i in range(methods)], 0, 0
    for _ in range(repetitions):
        hard = 0.1 * generator.standard_normal((images, 1))
        scores = generator.beta(0.6, 1.8, (images, methods)) + hard
        tests += bool(compared(pd.DataFrame(scores, columns=names)).apart)
        image = 0.08 * generator.standard_normal((images, 1))
        found = {}
        for name in names:
            rbo, kappa, changed, rows, severity = cell(generator, images, hard=image)
            found[name] = bootstrap(rbo, kappa, changed, rows, drawn, 0, severity)
        bounds += bool(PooledCells(tuple(names), (), {(): found}, 0.95, 0, ((),)).apart("rm0"))
    return tests / repetitions, bounds / repetitions


@pytest.mark.slow
@pytest.mark.parametrize(("images", "least"), [(10, 0.90), (20, 0.92), (50, 0.93), (100, 0.935), (200, 0.935)])
def test_intervals_of_means_cover(images, least):
    assert least <= covered_means(images) <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("images", [20, 50, 100])
def test_intervals_of_the_quantities_of_a_noise_study_cover(images):
    found = covered_cells(images)
    assert all(0.92 <= share <= 0.985 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("images", [20, 50])
def test_equal_methods_are_rarely_told_apart(images):
    tests, bounds = false_findings(images)
    assert tests <= 0.08 and bounds <= 0.08, (tests, bounds)


def test_an_interval_of_twenty_images_covers():
    """A short form of the slow tests: 95 % within three standard errors of 300 repetitions, less what is documented."""
    assert 0.90 <= covered_means(20, repetitions=300, resamples=200) <= 0.99

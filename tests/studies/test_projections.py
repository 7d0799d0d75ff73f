"""Projections of maps: what they are, that studies store them, and that equal methods of a real network are found."""

import math

import numpy as np
import pytest
import torch

from heatproof.engine.projections import projections
from heatproof.report.findings import Findings
from heatproof.report.source import open_source
from heatproof.statistics.special_rows import PROJECTION
from heatproof.studies import run
from heatproof.studies.plan import checked_plan

#: Before global pooling and a linear head the first three are one map; the last two are not.
METHODS = ["hirescam", "gradcam", "xgradcam", "gradcam++", "eigencam"]


def test_a_projection_is_the_weighted_sum_over_the_root_of_the_pixels():
    maps = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(20, generator=torch.Generator().manual_seed(20_250_101), dtype=torch.float64).tolist()
    slow = [sum(w * float(m) for w, m in zip(weights, one.flatten(), strict=True)) / math.sqrt(20) for one in maps]
    np.testing.assert_allclose(projections(maps), slow, rtol=1e-12)
    assert projections(maps).dtype == torch.float64


def test_a_change_of_a_map_changes_its_projection_by_its_root_mean_square():
    generator = torch.Generator().manual_seed(1)
    change = 0.01 * torch.randn(400, 32, 32, generator=generator)
    moved = projections(change)
    ratio = (moved.square().mean() / change.double().square().mean()).sqrt()
    assert 0.85 < float(ratio) < 1.15
    one = torch.zeros(1, 224, 224)
    one[0, 100, 50] = 0.5  # a single pixel counts
    assert abs(float(projections(one))) > 1e-5


@pytest.fixture(scope="module")
def folder(shared_folder):
    """A small study of noise with two metrics on the clean images, of methods of which three are equal."""
    plan = checked_plan({"study": "noise-robustness", "models": ["shapes"], "datasets": ["shapes:test"], "limit": 6,
                         "methods": METHODS, "perturbations": ["gaussian-noise"], "severities": [5],
                         "batch_size": 3, "resamples": 100})  # fmt: skip
    return shared_folder("study-of-equal-methods", lambda folder: run.run(plan, folder, workers=1))


def test_equal_methods_of_a_network_are_found_and_said_once(folder):
    findings = Findings(open_source(folder))
    assert findings.robustness is not None
    ((_, verdict),) = findings.robustness.verdicts.items()
    assert verdict.equal.groups == (("hirescam", "gradcam", "xgradcam"),) and verdict.equal.images == 6
    said = [note for answer in findings.answers for note in answer.details if "on this network" in note]
    assert len(said) == 1 and said[0].startswith("hirescam = gradcam = xgradcam on this network")
    for comparison in findings.robustness.comparisons[next(iter(findings.robustness.verdicts))].values():
        assert set(comparison.methods) <= {"hirescam", "gradcam++", "eigencam"}
    assert set(findings.tables["robustness.csv"]["method"]) >= set(METHODS), "the table of means shows all"


def test_projections_of_different_maps_differ_and_are_no_scores(folder):
    source = open_source(folder)
    rows = source.connection.execute(
        f"SELECT method, image, value, flag, reference FROM rows WHERE metric = '{PROJECTION}'"
    ).df()
    assert rows["reference"].all() and (rows["flag"] == "").all() and rows["value"].notna().all()
    wide = rows.pivot(index="image", columns="method", values="value")
    gap = (wide["gradcam"] - wide["hirescam"]).abs().max()
    assert gap < 1e-6 < 1e-4 < (wide["gradcam"] - wide["gradcam++"]).abs().max()
    findings = Findings(source)
    assert findings.scores is not None and PROJECTION not in findings.scores.metrics
    assert not [row for row in findings.reasons.itertuples() if PROJECTION in list(row.metrics)]

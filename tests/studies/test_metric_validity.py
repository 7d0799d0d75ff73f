"""The study of metrics, on the bundled network and Shapes: its numbers are those of direct calls."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import heatproof
from heatproof.data.shapes import demo_shapes
from heatproof.errors import InvalidStudy
from heatproof.report import frames, write_report
from heatproof.report.findings import Findings
from heatproof.report.sections.metric_validity import _counts, _why_not
from heatproof.report.source import open_source
from heatproof.report.validity_findings import reads_truth
from heatproof.statistics.special_rows import GROUND_TRUTH
from heatproof.studies.cases import telling_scores
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.studies.store import connect

METHODS = ["gradcam", "eigencam", "input-x-gradient"]
METRICS = ["average-gain", "complexity", "road", "insertion[steps=4]", "energy"]


def plan(**settings):
    base = {"study": "metric-validity", "models": ["shapes"], "datasets": ["shapes"], "methods": METHODS,
            "metrics": METRICS, "limit": 12, "resamples": 100, "batch_size": 6}  # fmt: skip
    return checked_plan({**base, **settings})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a small study."""
    out = tmp_path_factory.mktemp("validity")
    run(plan(), out, workers=1)
    return out


@pytest.fixture(scope="module")
def findings(folder):
    """Its findings."""
    return Findings(open_source(folder))


@pytest.fixture(scope="module")
def page(folder) -> str:
    """Its page."""
    return Path(write_report(folder)).read_text("utf-8")


def test_the_scores_are_those_of_heatproof_score(findings):
    shown = findings.scores.scores
    images = sorted(shown["image"].unique())[:3]
    shapes = demo_shapes("test")
    rows = [shapes.ids.index(image) for image in images]
    x = torch.stack([torch.from_numpy(np.array(shapes.open(i))).permute(2, 0, 1).float() / 255 for i in rows])
    masks = torch.stack([torch.from_numpy(shapes.mask(i)) for i in rows])
    target = torch.tensor([shapes.labels[i] for i in rows])
    methods, metrics = ["gradcam", "gradcam[power=0.5]"], ["average-gain", "complexity", "mask-cosine"]
    found = heatproof.score(heatproof.load_model("shapes"), x, methods, metrics, masks=masks, target=target)
    for row in found.rows:
        own = shown[(shown["image"] == images[found.images.index(row.image)]) & (shown["method"] == row.method)]
        value = own.loc[own["metric"] == row.metric, "value"].item()
        assert value == pytest.approx(row.value, abs=1e-5)


def test_the_ground_truth_is_scored_as_a_map_and_stays_out_of_the_rankings(findings):
    truth = frames.ground_truth_scores(findings.rows)
    cosines = truth.loc[truth["metric"] == "mask-cosine", "value"]
    assert len(cosines) == 12 and cosines.to_numpy() == pytest.approx(1)
    shapes = demo_shapes("test")
    shares = {image: shapes.mask(shapes.ids.index(image)).mean() for image in truth["image"]}
    sizes = truth[truth["metric"] == "complexity"].set_index("image")["value"]
    for image, value in sizes.items():
        assert value == pytest.approx(shares[image], abs=1e-6)
    assert GROUND_TRUTH not in findings.methods and GROUND_TRUTH not in set(findings.scores.scores["method"])


def test_rescaled_maps_show_which_metrics_read_ranks_alone(findings):
    (one,) = findings.validity.settings
    found = {r.metric: r for r in one.rescalings}
    assert {r.arm for r in found.values()} == {"gradcam[power=0.5]"}
    assert found["road"].blind and found["insertion[steps=4]"].blind
    assert not found["complexity"].blind and found["complexity"].rescaled > found["complexity"].plain
    assert not found["mask-cosine"].blind
    assert "gradcam[power=0.5]" not in one.methods and len(one.methods) == 3
    assert findings.scores.aside == "gradcam[power=0.5]"
    assert {r.best for r in findings.scores.settings[0].rankings.values()} <= set(METHODS)


def test_the_page_answers_first_and_the_tables_hold_the_numbers(page, findings):
    (one,) = findings.validity.settings
    assert one.verdict.sentence.split(",")[0] in page and "Can the metrics be believed?" in page
    assert {"validity.csv", "fooled_matrix.csv", "rescaled.csv"} <= set(findings.tables)
    table = findings.tables["validity.csv"]
    assert set(table["metric"]) == set(METRICS)
    assert (table.loc[table["way"] != "within", "images"] == 12).all()
    within = table[table["way"] == "within"].groupby("metric")["images"]
    assert (within.nunique() == 1).all() and within.max().min() < 12, "all methods may tie on an image"
    assert "energy" in one.seeing and "energy" not in one.verdict.believed
    matrix = findings.tables["fooled_matrix.csv"]
    assert set(matrix["control"]) == {"random", "half", "ones", "centre", "edges"}


def test_the_gallery_takes_the_ground_truth_for_no_method(folder):
    """Without a composite the first metric leads, and by the energy inside no map beats the mask itself."""
    made = plan(metrics=["energy"])
    connection = connect(folder)
    kept = connection.execute("SELECT DISTINCT dataset, image FROM rows").df()
    connection.register("kept", kept)
    found = telling_scores(connection, made)
    assert found and not any(GROUND_TRUTH in case.why for case in found)


def test_images_without_ground_truth_are_refused(photographs, tmp_path):
    with pytest.raises(InvalidStudy, match=r"holds metrics against the ground truth, and .* has no masks"):
        run(plan(datasets=[str(photographs)], target="predicted"), tmp_path / "out", workers=1)
    with pytest.raises(InvalidStudy, match="input should be greater than or equal to 0"):
        plan(power=-1)


def test_the_gallery_and_the_page_take_the_added_map_for_no_method(folder, page):
    made = plan(methods=[*METHODS, "gradcam[power=0.5]"], metrics=["complexity"])
    connection = connect(folder)
    connection.register("kept", connection.execute("SELECT DISTINCT dataset, image FROM rows").df())
    found = telling_scores(connection, made)
    assert found and not any("power" in case.why for case in found)
    assert "3, and 5 controls, and one rescaled map" in page


def test_metrics_of_masks_and_of_parts_read_the_ground_truth(findings):
    """By their facts; by their family where a folder has none."""
    facts = {"mine": {"family": "fidelity", "reads_truth": True}, "part-deletion": {"family": "parts"},
             "road": {"family": "road", "reads_truth": False}}  # fmt: skip
    scores = replace(findings.scores, facts=facts)
    assert [reads_truth(scores, metric) for metric in facts] == [True, True, False]


def test_every_number_is_shown_with_its_images():
    cells = [{"way": way, "images": images, "why": why}
             for way, images, why in (("pooled", 12, ""), ("within", 5, "few"), ("means", 12, ""))]  # fmt: skip
    assert (_counts(cells), _why_not(cells)) == ("12 · 5 · 12", "methods of each image: few")
    same = [{**cell, "images": 9, "why": "few"} for cell in cells]
    assert (_counts(same), _why_not(same)) == ("9", "few")

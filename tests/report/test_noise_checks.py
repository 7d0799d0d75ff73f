"""The noise study's own checks on the page and in tables: there where rows hold something for them, absent else."""

from collections.abc import Iterator

import numpy as np
import pytest

from heatproof.report.findings import Findings
from heatproof.report.page import rendered
from heatproof.report.sections import boundaries, networks, rare_flips, similarity
from heatproof.report.source import open_source
from heatproof.statistics.robustness_changes import CHANGES

from . import synthetic
from .reading import Page

SMALL = {
    "images": tuple(f"{i}.jpg" for i in range(40)),
    "perturbations": ("jpeg", "fgsm"),
    "severities": (2, 4),
    "methods": {"gradcam": 0.6, "layercam": 0.7},
    "gallery": 0,
    "resamples": 30,
}
MOVED = ("quickshift", "split[of=quickshift]", "grid", "grid[shift=0.5]")


def findings_in(folder, **changes) -> Findings:
    return Findings(open_source(synthetic.study(folder, **(SMALL | changes))))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Iterator[Findings]:
    """Two networks, and segmenters with moved borders."""
    found = findings_in(tmp_path_factory.mktemp("whole"), models=("one", "two"), segmenters=MOVED)
    yield found
    found.source.connection.close()


def text_of(section) -> str:
    return " ".join(str(getattr(block, "text", "")) for block in section.blocks)


def test_moved_borders_have_a_section_and_a_table(whole):
    table = whole.tables["boundaries.csv"]
    assert list(table) == ["model", "dataset", "whole", "moved", *CHANGES]
    assert set(zip(table["whole"], table["moved"], strict=True)) == {MOVED[:2], MOVED[2:]}
    assert len(table) == 2 * 2 * 5 * 4  # models, pairs, quantities, methods with controls
    made = boundaries.section(whole)
    assert made is not None and "Kendall's W is not computed: 2 methods" in text_of(made)
    assert "on 40 images under 2 perturbations" in text_of(made)
    row = table[(table["quantity"] == "rm") & (table["method"] == "gradcam")].iloc[0]
    cell = whole.robustness.table  # type: ignore[union-attr]
    cell = cell[(cell["model"] == row["model"]) & (cell["method"] == "gradcam") & (cell["severity"] == "all")]
    means = cell.groupby("segmenter")["rm"].mean()
    assert row["before"] == pytest.approx(means[row["whole"]]) and row["after"] == pytest.approx(means[row["moved"]])
    assert row["change"] == pytest.approx(row["after"] - row["before"])


def test_the_ablation_counts_no_segmenter_twice(whole):
    agreement = whole.robustness.agreement  # type: ignore[union-attr]
    assert set(agreement["segmenters"]) == {2}


def test_networks_are_compared_on_the_same_images(whole):
    table = whole.tables["models.csv"]
    flips = table[table["quantity"] == "flip rate"].iloc[0]
    pairs = whole.robustness.pairs  # type: ignore[union-attr]
    rates = (
        pairs[(pairs["method"] == "gradcam") & (pairs["segmenter"] == "quickshift")].groupby("model")["changed"].mean()
    )
    assert (flips["before"], flips["after"]) == pytest.approx((rates["one"], rates["two"]))
    assert flips["low"] <= flips["change"] <= flips["high"] and flips["images"] == 40
    made = networks.section(whole)
    assert made is not None and "The predictions of two are" in text_of(made)
    assert "under 4 conditions" in text_of(made) and "within ±0.02" in text_of(made)


def test_every_study_has_rare_flips_and_similarity(whole):
    table = whole.tables["rare_flips.csv"]
    assert {3, 10} <= set(table["changed"]) and np.isfinite(table["responsiveness_width"]).all()
    made = rare_flips.section(whole)
    assert made is not None and "Of 4 conditions," in text_of(made)
    assert set(whole.tables["similarity.csv"]["measure"]) == {"rbo", "kappa", "l1", "ssim", "spearman", "cosine"}
    assert len(whole.tables["similarity_steps.csv"]) == 2 * 4 * 2
    made = similarity.section(whole)
    assert made is not None and "Paper N's case" in text_of(made)


def test_the_page_holds_them(whole):
    page = Page(rendered(whole)[0])
    for name in ("boundaries", "networks", "few-changes", "similarity"):
        assert any(attributes.get("id") == name for _, attributes in page.tags)
    assert "not published, beside this study" in page.text and "one segmenter" not in page.text


def test_one_network_and_one_segmenter_have_neither(tmp_path):
    found = findings_in(tmp_path)
    assert boundaries.section(found) is None and networks.section(found) is None
    assert not {"boundaries.csv", "models.csv"} & set(found.tables)


@pytest.mark.parametrize("flips", ["none", "all"])
def test_without_changed_predictions_nothing_is_drawn_and_it_says_why(tmp_path, flips):
    found = findings_in(tmp_path, flips=flips, models=("one", "two"), segmenters=MOVED[:2])
    assert "rare_flips.csv" not in found.tables
    made = rare_flips.section(found)
    assert made is not None and "Nothing can be drawn" in text_of(made)
    assert "By RM nothing can be compared" in text_of(boundaries.section(found))
    assert "By RM nothing can be compared" in text_of(networks.section(found))


def test_one_severity_and_no_usable_image(tmp_path):
    one = findings_in(tmp_path / "one", severities=(3,))
    assert "cannot be looked for" in text_of(similarity.section(one)) and "similarity_steps.csv" not in one.tables
    names = tuple(f"{i}.jpg" for i in range(3))
    none = findings_in(tmp_path / "none", images=names, flagged=dict.fromkeys(names, "broken"), models=("a", "b"))
    assert "cannot be compared" in text_of(networks.section(none))
    assert similarity.section(none) is not None and rare_flips.section(none) is not None


def test_the_same_rows_give_the_same_tables(tmp_path):
    one = findings_in(tmp_path, segmenters=MOVED[:2], severities=(2, 3))
    two = Findings(open_source(tmp_path))
    for name in ("boundaries.csv", "rare_flips.csv", "similarity.csv", "similarity_steps.csv"):
        assert one.tables[name].equals(two.tables[name])

"""The results of a study in Python as tables of a paper, with display names and a reference."""

import pytest

import heatproof
from heatproof.data import load_images
from heatproof.errors import InvalidStudy

from ..latex_reading import read_table

SETTINGS = {"methods": ["gradcam", "eigencam"], "metrics": ["complexity"], "resamples": 100, "progress": False}


def test_the_tables_of_a_study(tmp_path):
    results = heatproof.run(
        "score", "shapes", load_images("shapes", limit=3), out=tmp_path, method_labels={"eigencam": "Eigen_CAM"},
        reference="gradcam", **SETTINGS,
    )  # fmt: skip
    text = results.to_latex(spread="std")
    assert "% result-scores\n" in text
    tables = {one.name: read_table(one.to_latex()) for one in results.paper_tables()}
    assert len(tables) == text.count(r"\begin{table}") + text.count(r"\begin{table*}")
    assert {row[0] for row in tables["result-scores"].rows[1:3]} == {"gradcam", r"Eigen\_CAM"}
    assert any(name.startswith("result-gradcam-against-every") for name in tables)
    assert r"Eigen\_CAM" in results.to_markdown()
    assert set(results.tables["scores.csv"]["method"]) >= {"gradcam", "eigencam"}
    assert any(sentence.startswith("gradcam against every other method") for sentence in results.sentences)


def test_what_was_in_memory_is_archived_and_says_so(tmp_path):
    from heatproof.studies.archive import read_archive

    heatproof.run("score", "shapes", load_images("shapes", limit=2), out=tmp_path, **SETTINGS)
    with pytest.raises(InvalidStudy, match="in memory"):
        read_archive(tmp_path)

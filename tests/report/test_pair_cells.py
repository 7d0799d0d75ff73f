"""Pairs read in parts: equal to the frame of all pairs, and no query of a report brings many rows."""

import pickle
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from heatproof.report import drawing, write_report
from heatproof.report import pairs as all_pairs
from heatproof.report.findings import Findings
from heatproof.report.frames import KEY, projections, psnr, segments
from heatproof.report.pair_cells import USABLE, Pairs
from heatproof.report.source import open_source
from heatproof.report.stored_table import StoredTable, Tables
from heatproof.report.tables import file_tables
from heatproof.statistics import rare_flips, similarity
from heatproof.statistics.equal_blocks import equal_blocks
from heatproof.statistics.equal_maps import equal_pairs
from heatproof.statistics.robustness_tables import image_blocks, robustness_table
from heatproof.statistics.robustness_verdict import verdict_on

from . import synthetic

RECIPE = synthetic.Recipe(
    images=tuple(f"{i}.jpg" for i in range(40)),
    methods={"gradcam": 0.6, "layercam": 0.7, "hirescam": 0.5},
    controls={"random": 0.05},
    models=("one", "two"),
    datasets=("pets",),
    perturbations=("contrast", "jpeg"),
    severities=(1, 3),
    flagged={"7.jpg": "not an image"},
    gallery=0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two networks, 40 images, four methods, two perturbations at two severities."""
    return synthetic.study(tmp_path_factory.mktemp("cells"), RECIPE)


@pytest.fixture(scope="module")
def frame(folder):
    return all_pairs(folder)


@pytest.fixture(scope="module")
def findings(folder):
    return Findings(open_source(folder))


def test_the_parts_together_are_all_pairs(folder, frame):
    found: Any = pd.concat([part.astype({"image": str}) for part in Pairs.of(open_source(folder).connection).blocks()])
    found = found.astype(dict.fromkeys(("model", "dataset", "layer", "segmenter", "method", "perturbation"), str))
    found = found.sort_values(list(KEY), ignore_index=True)
    shared = [name for name in frame.columns if name in found]
    assert set(frame.columns) - set(shared) == {"clean_class", "perturbed_class", "flag"}
    pd.testing.assert_frame_equal(found[shared], frame[shared], check_dtype=False)


def test_the_table_and_the_verdicts_are_those_of_the_frame(findings, frame):
    rows, found = findings.rows, findings.robustness
    expected = robustness_table(frame, psnr(rows), segments(rows), resamples=50, seed=7)
    pd.testing.assert_frame_equal(found.table, expected, rtol=1e-13)
    for setting in found.main:
        here = setting.of(frame), setting.of(expected)
        verdict = verdict_on(*here, segmenter=setting.segmenter, resamples=50, seed=7, equal=found.equal[setting[:2]])
        mine = found.verdicts[setting]
        assert mine.sentence == verdict.sentence and mine.notes == verdict.notes and mine.top == verdict.top
        assert mine.support == verdict.support and mine.fooled == verdict.fooled and mine.n == verdict.n
        assert mine.figures == verdict.figures or repr(mine.figures) == repr(verdict.figures)  # NaN is unlike itself
        kept = found.equal[setting[:2]].kept
        blocks = found.stored.of_setting(setting, kept).image_blocks()
        pd.testing.assert_frame_equal(blocks, image_blocks(kept(here[0])), check_index_type=False, rtol=1e-12)


def test_the_checks_are_those_of_the_frame(findings, frame):
    checks, found = findings.noise_checks, findings.robustness
    kept = pd.concat([found.equal[s[:2]].kept(s.of(frame)) for s in found.main])
    pd.testing.assert_frame_equal(checks.medians, similarity.medians(kept, 50, 7), check_dtype=False)
    pd.testing.assert_frame_equal(checks.steps, similarity.steps(kept, 50, 7), check_dtype=False)
    pd.testing.assert_frame_equal(checks.rare_flips, rare_flips.rare_flips(kept, 7), check_dtype=False)
    for setting in found.main:
        here = found.equal[setting[:2]].kept(setting.of(frame))
        pd.testing.assert_frame_equal(checks.correlations(setting), similarity.correlations(here), rtol=1e-12)
        expected = here.loc[~here["control"], list(similarity.MEASURES)].dropna()
        expected = (expected * [-1 if name in similarity.DISTANCES else 1 for name in expected]).round(5)
        np.testing.assert_allclose(checks.correlations(setting), expected.corr("spearman"), atol=1e-3)


def test_equal_methods_are_found_in_parts(findings, frame):
    one = frame[frame["model"] == "one"]
    twin = one[one["method"] == "gradcam"].assign(method="twin")
    both = pd.concat([one, twin], ignore_index=True)
    parts = [part for _, part in both.groupby("perturbation")]
    assert equal_blocks(lambda: parts, 39, ["twin"]) == equal_pairs(both, ["twin"])
    assert equal_blocks(lambda: parts, 39).groups == (("gradcam", "twin"),)
    assert not len(projections(findings.rows)) or findings.robustness.equal


def test_counts_and_means_are_those_of_the_frame(findings, frame):
    stored = findings.robustness.stored
    usable = frame[frame["rbo"].notna() & frame["changed"].notna()]
    assert stored.usable_images == {"pets": sorted(usable["image"].unique())}
    held = usable[usable["changed"] == False]  # noqa: E712 - a nullable column
    assert stored.images_by_method(f"{USABLE} AND changed = 0") == held.groupby("method")["image"].nunique().to_dict()
    key = ["model", "image", "method", "control"]
    means = stored.held_means("kappa", key).set_index(key)["value"]
    expected = held.groupby(key)["kappa"].mean()
    np.testing.assert_allclose(means.sort_index(), expected.sort_index(), rtol=1e-12)
    sharp = findings.robustness.main[0]
    values = stored.of_setting(sharp).overlaps("gradcam", False)
    here = sharp.of(held)
    np.testing.assert_array_equal(np.sort(values), np.sort(here.loc[here["method"] == "gradcam", "rbo"]))


def test_pairs_are_filed_by_duckdb_as_the_frame_would_be(findings, frame, tmp_path):
    for name in ("a", "b"):
        file_tables(tmp_path / name, {"pairs.parquet": findings.tables.made("pairs.parquet")})
    one, two = (tmp_path / name / "pairs.parquet" for name in ("a", "b"))
    assert one.read_bytes() == two.read_bytes()
    filed: Any = pd.read_parquet(one)
    assert list(filed.columns[: len(frame.columns)]) == list(frame.columns)
    pd.testing.assert_frame_equal(filed[frame.columns], frame, check_dtype=False)
    assert (filed["changed"].dtype, filed["clean_class"].dtype) == ("boolean", "Int32")
    assert pq.read_schema(one).field("flag").type == "string"
    pd.testing.assert_frame_equal(findings.tables["pairs.parquet"], filed)


class Counted:
    """A connection that keeps how many rows each query brought to Python."""

    def __init__(self, connection, most):
        self.connection, self.most = connection, most

    def execute(self, *given):
        self.connection.execute(*given)
        return self

    def __getattr__(self, name):
        found = getattr(self.connection, name)
        if name not in ("df", "fetchall", "fetchnumpy", "fetchone", "arrow", "to_arrow_table"):
            return found

        def fetch(*given):
            rows = found(*given)
            one = next(iter(rows.values()), ()) if isinstance(rows, dict) else rows
            self.most.append(len(one) if one is not None and name != "fetchone" else 1)
            return rows

        return fetch


def test_a_report_reads_no_more_than_one_perturbation_at_a_time(tmp_path, monkeypatch):
    """A study with twice the perturbations, or networks, brings no more rows at once. Figures are made, not printed."""
    monkeypatch.setattr(drawing, "_printed", lambda *_: b'<svg viewBox="0 0 1 1"></svg>')
    largest, connect = [], duckdb.connect
    for number, recipe in enumerate(
        (
            {"perturbations": ("contrast", "jpeg"), "models": ("one",)},
            {"perturbations": ("contrast", "jpeg", "fgsm", "shot-noise"), "models": ("one", "two")},
        )
    ):
        made = synthetic.study(tmp_path / str(number), synthetic.Recipe(**{**vars(RECIPE), **recipe}))
        most: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(duckdb, "connect", lambda *given, most=most, **more: Counted(connect(*given, **more), most))
            write_report(made)
        largest.append(max(most))
    pairs_of_one = 40 * 4 * 2  # images × methods × severities
    assert largest == [pairs_of_one, pairs_of_one]


def test_tables_are_pickled_with_their_frames():
    """A table that is read when it is asked for holds an open study, which no other process has."""
    frame = pd.DataFrame({"a": [1.5, 2.5]})
    tables = Tables({"a.csv": frame, "b.parquet": StoredTable(lambda path: frame.to_parquet(path))})
    assert len(tables.values()) == 2 and isinstance(tables.made("b.parquet"), StoredTable)
    again = pickle.loads(pickle.dumps(tables))
    for name in ("a.csv", "b.parquet"):
        pd.testing.assert_frame_equal(again.made(name), frame)

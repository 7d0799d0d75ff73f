"""The table files: the documented columns, the numbers of the pairs, tests compared with SciPy."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.stats import friedmanchisquare, wilcoxon

from heatproof.report import pairs, write_tables

from . import synthetic
from .conftest import HOSTILE

ROBUSTNESS = """
model dataset layer segmenter method control perturbation severity n flips flip_rate psnr segments consistency
responsiveness responsiveness_low responsiveness_high rm rm_low rm_high rm0 rm0_low rm0_high
responsiveness_within responsiveness_within_low responsiveness_within_high
rm0_within rm0_within_low rm0_within_high reliable fools
"""
PAIRS = """
model dataset layer segmenter image method control perturbation severity rbo kappa l1 spearman ssim cosine
changed clean_class perturbed_class flag clean_name perturbed_name
"""


def test_robustness_has_the_promised_columns_and_a_row_per_cell(hostile):
    table = pd.read_csv(hostile / "tables" / "robustness.csv")
    assert list(table.columns) == ROBUSTNESS.split()
    methods = len(HOSTILE.methods) + len(HOSTILE.controls)
    assert len(table) == methods * len(HOSTILE.perturbations) * (len(HOSTILE.severities) + 1)
    assert set(table["severity"]) == {"1", "3", "5", "all"}
    assert table.loc[table["control"], "method"].unique().tolist() == ["random"]
    np.testing.assert_allclose(table["segments"], 118)


def test_robustness_follows_from_the_pairs_beside_it(hostile):
    table = pd.read_csv(hostile / "tables" / "robustness.csv")
    rows = pd.read_parquet(hostile / "tables" / "pairs.parquet")
    cell = table[(table["method"] == "x&y") & (table["perturbation"] == "jpeg") & (table["severity"] == "all")].iloc[0]
    rows = rows[(rows["method"] == "x&y") & (rows["perturbation"] == "jpeg") & rows["rbo"].notna()]
    changed = rows["changed"].to_numpy(bool)
    rbo = rows["rbo"].to_numpy()
    assert (cell["n"], cell["flips"]) == (len(rows), changed.sum())
    ahead = (rbo[changed][:, None] < rbo[~changed]).mean() + (rbo[changed][:, None] == rbo[~changed]).mean() / 2
    np.testing.assert_allclose(cell["rm"], np.median(rbo[~changed]) * ahead, rtol=1e-12)


def test_pairs_are_filed_as_they_are_handed_over(hostile):
    schema = pq.read_schema(hostile / "tables" / "pairs.parquet")
    assert schema.names == PAIRS.split()
    types = {name: str(schema.field(name).type) for name in schema.names}
    assert {types[name] for name in ("rbo", "kappa", "l1", "spearman", "ssim", "cosine")} == {"double"}
    assert (types["control"], types["changed"]) == ("bool", "bool")
    assert (types["clean_class"], types["perturbed_class"]) == ("int32", "int32")
    filed = pd.read_parquet(hostile / "tables" / "pairs.parquet")
    names = filed[["clean_name", "perturbed_name"]]
    pd.testing.assert_frame_equal(filed.drop(columns=names), pairs(hostile), check_dtype=False)
    assert (filed["flag"] != "").sum() == 4 * 2 * 3  # methods × perturbations × severities of the flagged image


def test_the_tests_on_file_are_scipys(hostile):
    filed = pd.read_csv(hostile / "tables" / "statistics.csv")
    rows = pd.read_parquet(hostile / "tables" / "pairs.parquet")
    held = rows[~rows["control"] & rows["rbo"].notna() & ~rows["changed"].fillna(True).astype(bool)]
    blocks = held.pivot_table(index="image", columns="method", values="rbo", aggfunc="mean")
    expected = friedmanchisquare(*blocks.to_numpy().T)
    found = filed[(filed["quantity"] == "rbo") & (filed["test"] == "friedman")].iloc[0]
    np.testing.assert_allclose([found["statistic"], found["p"]], [expected.statistic, expected.pvalue], rtol=1e-9)
    np.testing.assert_allclose(found["w"], found["statistic"] / (len(blocks) * (blocks.shape[1] - 1)))
    ranks = filed[(filed["quantity"] == "rbo") & (filed["test"] == "average-rank")].set_index("first")["rank"]
    np.testing.assert_allclose(ranks.sort_index(), (-blocks).rank(axis=1).mean().sort_index())
    pair = filed[(filed["quantity"] == "rbo") & (filed["test"] == "wilcoxon")].iloc[0]
    np.testing.assert_allclose(pair["p"], wilcoxon(blocks[pair["first"]], blocks[pair["second"]]).pvalue)
    assert pair["p_holm"] >= pair["p"]


def test_truth_is_filed_where_there_are_masks_only(hostile, tmp_path):
    truth = pd.read_csv(hostile / "tables" / "truth.csv")
    assert set(truth["n"]) == {len(HOSTILE.images) - 1}
    assert ((truth["median_low"] <= truth["median"]) & (truth["median"] <= truth["median_high"])).all()
    write_tables(synthetic.study(tmp_path, images=("a.jpg",), perturbations=("jpeg",), severities=(1,), gallery=0))
    assert not (tmp_path / "tables" / "truth.csv").exists()
    assert not (tmp_path / "report.html").exists()

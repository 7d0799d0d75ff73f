"""From pairs to the robustness table and to blocks."""

import math

import numpy as np
import pandas as pd
import pytest

from heatproof.errors import InvalidInput
from heatproof.statistics.intervals import delong
from heatproof.statistics.paired import compared
from heatproof.statistics.robustness import robustness_of
from heatproof.statistics.robustness_tables import COLUMNS, image_blocks, pooled, rm_blocks, robustness_table


@pytest.fixture(scope="module")
def pairs(made):
    return made({"good": 0.3, "dull": 0.0})


@pytest.fixture(scope="module")
def table(pairs):
    return robustness_table(pairs, resamples=200)


def row(table, **key):
    found = table
    for name, value in key.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_one_row_per_cell_and_one_for_all_severities(table):
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 2 * 4 * 3 and set(table["severity"]) == {"1", "2", "all"}
    assert table["perturbation"].nunique() == 2  # no row pools over perturbations


def test_a_row_is_its_cell(pairs, table):
    for severity in ("1", "all"):
        cell = pairs[(pairs["method"] == "good") & (pairs["perturbation"] == "kind1")]
        cell = cell if severity == "all" else cell[cell["severity"] == 1]
        expected = robustness_of(cell["rbo"], cell["kappa"], cell["changed"].astype(bool))
        found = row(table, method="good", perturbation="kind1", severity=severity)
        for name in ("n", "flips", "consistency", "responsiveness", "rm", "rm0", "reliable"):
            assert found[name] == pytest.approx(getattr(expected, name))
        assert found["flip_rate"] == expected.flips / expected.n
        for name in ("responsiveness", "rm", "rm0"):
            assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]


def test_within_severities_pairs_of_different_severities_are_not_compared(pairs, table):
    """Over all severities by hand: pairs of a changed and an unchanged prediction at equal severity, and no other."""
    cell = pairs[(pairs["method"] == "good") & (pairs["perturbation"] == "kind1")]
    wins = total = 0.0
    for _, rows in cell.groupby("severity"):
        changed = rows.loc[rows["changed"].astype(bool), "rbo"]
        held = rows.loc[~rows["changed"].astype(bool), "rbo"]
        wins += sum(float(low < high) + 0.5 * float(low == high) for low in changed for high in held)
        total += len(changed) * len(held)
    found = row(table, method="good", perturbation="kind1", severity="all")
    assert found["responsiveness_within"] == pytest.approx(wins / total)
    kappa = cell.loc[~cell["changed"].astype(bool), "kappa"].median()
    assert found["rm0_within"] == pytest.approx(kappa * max(0, 2 * wins / total - 1))
    for name in ("responsiveness_within", "rm0_within"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    single = row(table, method="good", perturbation="kind1", severity="2")
    for name, plain in (("responsiveness_within", "responsiveness"), ("rm0_within", "rm0")):
        for end in ("", "_low", "_high"):
            assert single[f"{name}{end}"] == pytest.approx(single[f"{plain}{end}"])


def test_delong_within_a_severity_and_bootstrap_for_all(pairs, table):
    cell = pairs[(pairs["method"] == "good") & (pairs["perturbation"] == "kind0") & (pairs["severity"] == 2)]
    expected = delong(-cell["rbo"].to_numpy(), cell["changed"].to_numpy(bool))
    found = row(table, method="good", perturbation="kind0", severity="2")
    assert (found["responsiveness_low"], found["responsiveness_high"]) == pytest.approx((expected.low, expected.high))
    replicates = {c.perturbation: r for c, r in pooled(pairs, resamples=200).items() if c.method == "good"}
    interval = replicates["kind0"].interval("responsiveness")
    found = row(table, method="good", perturbation="kind0", severity="all")
    assert (found["responsiveness_low"], found["responsiveness_high"]) == (interval.low, interval.high)


def test_a_constant_control_fools_rm_but_not_rm0(table):
    half = table[table["method"] == "half"]
    assert (half["rm"] == 0.5).all() and (half["rm0"] == 0).all() and (half["rm_low"] == 0.5).all()
    assert half["control"].all()


def test_row_order_and_other_methods_do_not_matter(pairs, table):
    shuffled = robustness_table(pairs.sample(frac=1, random_state=3), resamples=200)
    pd.testing.assert_frame_equal(shuffled, table)
    alone = robustness_table(pairs[pairs["method"] == "dull"], resamples=200)
    pd.testing.assert_frame_equal(alone, table[table["method"] == "dull"].reset_index(drop=True))
    other = robustness_table(pairs, resamples=200, seed=1)
    assert not np.array_equal(other["rm_low"], table["rm_low"]) and other["rm"].equals(table["rm"])


def test_flagged_pairs_are_left_out_and_an_empty_cell_keeps_its_row(pairs):
    holes = pairs.copy()
    holes.loc[(holes["method"] == "good") & (holes["severity"] == 1), ["rbo", "kappa"]] = np.nan
    first = (holes["method"] == "dull") & (holes["image"] == "000.jpg")
    holes.loc[first, "changed"] = pd.NA  # the image could not be read
    found = robustness_table(holes, resamples=20)
    nothing = row(found, method="good", perturbation="kind0", severity="1")
    assert nothing["n"] == 0 and math.isnan(nothing["flip_rate"]) and math.isnan(nothing["consistency"])
    assert not nothing["reliable"]
    assert row(found, method="good", perturbation="kind0", severity="all")["n"] == 60
    assert row(found, method="dull", perturbation="kind0", severity="2")["n"] == 59


def test_few_flips_are_nan_with_the_count(pairs):
    still = pairs.assign(changed=(pairs["image"] < "009.jpg").astype("boolean"))
    found = robustness_table(still, resamples=20)
    single, together = found[found["severity"] == "1"], found[found["severity"] == "all"]
    assert single["responsiveness"].isna().all() and single["rm_low"].isna().all() and (single["flips"] == 9).all()
    assert single["consistency"].notna().all()
    assert together["rm"].notna().all() and not together["reliable"].any()


@pytest.mark.parametrize("changed", [False, True])
def test_no_flips_and_all_flips(pairs, changed):
    found = robustness_table(pairs.assign(changed=changed), resamples=20)
    assert found["rm"].isna().all() and found["rm0"].isna().all() and not found["reliable"].any()
    assert (found["flip_rate"] == float(changed)).all() and found["consistency"].isna().all() == changed


def test_psnr_and_segments_are_means_of_what_is_finite(pairs):
    keys = ["model", "dataset", "image", "perturbation", "severity"]
    noise = pairs[keys].drop_duplicates().reset_index(drop=True)
    noise["psnr"] = 30.0 - noise["severity"]
    noise.loc[0, "psnr"] = np.inf
    sizes = pd.DataFrame({"dataset": "pets", "segmenter": "quickshift", "image": pairs["image"].unique()})
    sizes["segments"] = np.arange(len(sizes))
    found = robustness_table(pairs, noise, sizes, resamples=10)
    assert row(found, method="good", perturbation="kind0", severity="1")["psnr"] == 29
    assert row(found, method="good", perturbation="kind1", severity="all")["psnr"] == 28.5
    assert (found["segments"] == sizes["segments"].mean()).all()
    column = robustness_table(pairs.merge(sizes), resamples=10)
    assert (column["segments"] == sizes["segments"].mean()).all() and column["psnr"].isna().all()


def test_blocks_for_the_tests(pairs, table):
    blocks = rm_blocks(table)
    assert list(blocks.columns) == ["dull", "good"] and len(blocks) == 4
    assert "half" in rm_blocks(table, "rm0", controls=True)
    found = compared(blocks)
    assert found.friedman.n == 4 and next(iter(found.ranks)) == "good"


def test_image_blocks_compare_methods_on_the_same_conditions(pairs):
    blocks = image_blocks(pairs)
    assert len(blocks) <= 60 and list(blocks.columns) == ["dull", "good"]
    name = blocks.index[0][-1]
    kept = pairs[(pairs["image"] == name) & ~pairs["changed"].astype(bool) & (pairs["method"] == "good")]
    assert blocks.loc[blocks.index[0], "good"] == pytest.approx(kept["rbo"].mean())
    holes = pairs.copy()
    lost = kept.index[0]
    holes.loc[lost, "rbo"] = np.nan
    condition = pairs.loc[lost, ["perturbation", "severity"]]
    other = pairs[(pairs["image"] == name) & ~pairs["changed"].astype(bool) & (pairs["method"] == "dull")]
    other = other[(other[["perturbation", "severity"]] != condition).any(axis=1)]
    assert image_blocks(holes).loc[blocks.index[0], "dull"] == pytest.approx(other["rbo"].mean())


def test_wrong_frames_are_named(pairs):
    with pytest.raises(InvalidInput, match="Got none called 'kappa'"):
        robustness_table(pairs.drop(columns="kappa"))
    with pytest.raises(InvalidInput, match="twice"):
        robustness_table(pd.concat([pairs, pairs.iloc[:1]]))

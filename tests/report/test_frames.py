"""The pivot of rows into pairs, compared with rows written by hand and with pandas."""

import math

import pandas as pd
import pytest

from heatproof.errors import StoreError
from heatproof.report.frames import COMPANIONS, PAIRS, correct, flagged, mask_cosines, pairs, psnr, reasons, segments
from heatproof.report.source import open_source

from . import synthetic

WHERE = {"study": "noise-robustness", "model": "m", "dataset": "d", "layer": "l", "segmenter": "grid"}
PAIR = WHERE | {
    "method": "gradcam",
    "perturbation": "jpeg",
    "severity": 2,
    "image": "a/b c.jpg",
    "strength": 18.0,
}
OUTCOME = {"changed": True, "clean_class": 3, "perturbed_class": 5, "clean_probability": 0.9}


def stored(folder, records, plan='{"jobs": 1}'):
    """Rows written by hand, as a study folder."""
    filled = [{"control": False, "flag": "", "n": 0} | record for record in records]
    (folder / "rows").mkdir(parents=True)
    synthetic.as_rows(filled, seed=0).to_parquet(folder / "rows" / "only.parquet", index=False)
    (folder / "study.json").write_text(plan)
    return folder


def test_pairs_are_the_rows_side_by_side(tmp_path):
    values = {"rbo": 0.625, "kappa": 0.5, "l1": 0.125, "spearman": -0.25, "ssim": 0.75, "cosine": 0.875}
    records = [PAIR | OUTCOME | {"metric": m, "value": v} for m, v in values.items()]
    records.append(PAIR | OUTCOME | {"metric": "psnr", "value": 30.0, "method": "", "segmenter": ""})
    found = pairs(stored(tmp_path, records))
    assert tuple(found.columns) == PAIRS
    assert len(found) == 1
    row = found.iloc[0].to_dict()
    assert {name: row[name] for name in values} == values
    assert (row["image"], row["severity"], row["control"], row["flag"]) == ("a/b c.jpg", 2, False, "")
    assert (row["changed"], row["clean_class"], row["perturbed_class"]) == (True, 3, 5)


def test_the_columns_are_those_promised():
    promised = "model dataset layer segmenter image method control perturbation severity"
    promised += " rbo kappa l1 spearman ssim cosine changed clean_class perturbed_class flag"
    assert tuple(promised.split()) == PAIRS


def test_types_stay_when_everything_is_missing(tmp_path):
    found = pairs(stored(tmp_path, [PAIR | {"metric": "rbo", "value": math.nan, "flag": "empty file"}]))
    assert all(found[name].dtype == "float64" and found[name].isna().all() for name in COMPANIONS)
    assert found["changed"].dtype == "boolean"
    assert found["changed"].isna().all()
    assert (found["clean_class"].dtype, found["perturbed_class"].dtype) == ("Int32", "Int32")
    assert found["flag"].tolist() == ["empty file"]


def test_flags_of_one_pair_are_joined_and_no_number_is_lost(tmp_path):
    records = [
        PAIR | OUTCOME | {"metric": "rbo", "value": math.nan, "flag": "constant map"},
        PAIR | OUTCOME | {"metric": "l1", "value": 0.5, "flag": "clean: constant map"},
        PAIR | OUTCOME | {"metric": "ssim", "value": 0.25, "flag": "constant map"},
    ]
    row = pairs(stored(tmp_path, records)).iloc[0]
    assert row["flag"] == "clean: constant map; constant map"
    assert (row["l1"], row["ssim"]) == (0.5, 0.25)
    assert math.isnan(row["rbo"])


def test_the_same_number_twice_is_refused(tmp_path):
    records = [PAIR | OUTCOME | {"metric": "rbo", "value": v} for v in (0.5, 0.75)]
    with pytest.raises(StoreError, match=r"one row per metric.*Got 2 for.*method='gradcam'"):
        pairs(stored(tmp_path, records))


def test_pairs_equal_a_pivot_by_pandas(tmp_path):
    folder = synthetic.study(
        tmp_path,
        images=("a.jpg", "b.jpg"),
        segmenters=("quickshift", "slic"),
        models=("m1", "m2"),
        flagged={"b.jpg": "truncated"},
        gallery=0,
    )
    rows = pd.concat(pd.read_parquet(path) for path in sorted((folder / "rows").glob("*.parquet")))
    rows = rows[(rows["method"] != "") & (rows["perturbation"] != "")]
    key = list(PAIRS[:9])
    expected = rows.pivot(index=key, columns="metric", values="value").sort_index().reset_index()
    found = pairs(folder)
    pd.testing.assert_frame_equal(
        found[[*key, *COMPANIONS]], expected[[*key, *COMPANIONS]], check_dtype=False, check_names=False
    )
    both, methods = 2 * 2, len(synthetic.METHODS) + len(synthetic.CONTROLS)
    assert (found["flag"] == "truncated").sum() == both * methods * 3 * 5
    assert found.loc[found["flag"] != "", "rbo"].isna().all()


def test_equal_rows_give_an_equal_frame_whatever_the_shards(tmp_path):
    one, other = (synthetic.study(tmp_path / name, images=("a.jpg", "b.jpg"), gallery=0) for name in "ab")
    shards = sorted((other / "rows").glob("*.parquet"))
    everything = pd.concat(pd.read_parquet(path) for path in reversed(shards)).sample(frac=1, random_state=1)
    for path in shards:
        path.unlink()
    everything.to_parquet(other / "rows" / "x.parquet", index=False)
    pd.testing.assert_frame_equal(pairs(one), pairs(other))


def test_psnr_flagged_and_truth(tmp_path):
    folder = synthetic.study(tmp_path, images=("a.jpg", "b.jpg"), masks=True, flagged={"b.jpg": "no image"}, gallery=0)
    connection = open_source(folder).connection
    noise = psnr(connection)
    assert len(noise) == 2 * 3 * 5
    assert noise.loc[noise["image"] == "b.jpg", "psnr"].isna().all()
    assert flagged(connection).to_dict("records") == [
        {"dataset": "photographs", "image": "b.jpg", "reason": "no image"}
    ]
    masks = mask_cosines(connection)
    assert len(masks) == 2 * 6
    assert masks.loc[masks["image"] == "a.jpg", "cosine"].between(0, 1).all()


@pytest.mark.parametrize("missing", ["folder", "plan", "rows"])
def test_what_is_no_study_is_refused_with_what_to_do(tmp_path, missing):
    folder = tmp_path / "out"
    if missing != "folder":
        (folder / "rows").mkdir(parents=True)
    if missing == "rows":
        (folder / "study.json").write_text("{}")
    advice = "run` command again" if missing == "rows" else "--out` wrote"
    with pytest.raises(StoreError, match=advice):
        open_source(folder)


def test_segments_are_counted_once_per_image_and_flagged_ones_left_out(tmp_path):
    folder = synthetic.study(
        tmp_path, images=("a.jpg", "b.jpg"), segmenters=("slic", "grid"), flagged={"b.jpg": "no"}, gallery=0
    )
    found = segments(folder)
    assert found[["segmenter", "image"]].to_numpy().tolist() == [["grid", "a.jpg"], ["slic", "a.jpg"]]
    assert set(found["segments"]) == {118}


def test_accuracy_counts_clean_labelled_images_only(tmp_path):
    clean = WHERE | {"metric": "correct", "method": "", "segmenter": "", "perturbation": "", "severity": 0}
    records = [clean | {"image": f"{i}.jpg", "value": v} for i, v in enumerate((1.0, 1.0, 0.0, math.nan))]
    records.append(clean | {"image": "0.jpg", "value": 0.0, "perturbation": "jpeg", "severity": 1})
    found = correct(stored(tmp_path, records))
    assert found["n"].tolist() == [3]
    assert found["correct"].tolist() == pytest.approx([2 / 3])


def test_reasons_count_rows_of_usable_images(tmp_path):
    flat = {"flag": "constant map", "value": math.nan}
    records = [PAIR | flat | {"metric": metric, "severity": s} for metric in ("rbo", "kappa") for s in (1, 2)]
    records.append(PAIR | {"metric": "l1", "value": 0.1, "severity": 1})
    records.append(PAIR | {"metric": "rbo", "value": math.nan, "image": "gone.jpg", "flag": "empty file"})
    source = open_source(stored(tmp_path, records))
    (found,) = reasons(source.connection).to_dict("records")
    assert list(found["metrics"]) == ["kappa", "rbo"] and list(found["methods"]) == ["gradcam"]
    assert (found["flag"], found["images"], found["rows"]) == ("constant map", 1, 4)
    assert flagged(source.connection)["image"].tolist() == ["gone.jpg"]

"""Segments that are cut at the object's centre, in a whole noise study: with masks, with some, and without any."""

import numpy as np
import pytest
import torch
from PIL import Image

import heatproof
from heatproof.errors import InvalidStudy
from heatproof.studies.run import run
from heatproof.studies.store import connect

CUT = "split-object[of=grid]"


def segments_of(folder, name: str = CUT):
    return connect(folder).execute(
        "select image, flag, value, n from rows where metric = 'rbo' and segmenter = ? order by image", [name]
    ).df()  # fmt: skip


def few(small_plan, **settings):
    return small_plan(
        methods=["gradcam"], controls="none", perturbations=["gaussian-noise"], severities=[3], limit=4, **settings
    )


def test_an_image_without_a_usable_mask_is_flagged_and_the_others_are_cut(small_plan, photographs, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    there = np.zeros((100, 110), np.uint8)
    there[30:60, 40:80] = 255
    for index, drawn in enumerate((there, there, np.zeros_like(there))):  # of the fourth there is none
        Image.fromarray(drawn).save(masks / f"image {index}.png")
    datasets = [{"images": str(photographs), "masks": str(masks)}]
    run(few(small_plan, datasets=datasets, boundaries=True), tmp_path / "out")
    found = segments_of(tmp_path / "out").groupby("image").agg(list)
    whole = segments_of(tmp_path / "out", "grid").groupby("image").agg(list)
    for index in (0, 1):
        assert set(found["flag"].iloc[index]) == {""}
        assert set(whole["n"].iloc[index]) == {121}
        assert 121 < min(found["n"].iloc[index]) <= 121 + 8, "a line through the object cuts few cells"
    assert set(found["flag"].iloc[2]) == {"its mask is empty"} and np.isnan(found["value"].iloc[2]).all()
    assert set(found["flag"].iloc[3]) == {"there is no mask of this image"} and np.isnan(found["value"].iloc[3]).all()


def test_without_masks_the_cut_is_left_out_and_refused_where_it_is_asked_for(small_plan, tmp_path):
    run(few(small_plan, boundaries=True), tmp_path / "out")
    assert segments_of(tmp_path / "out").empty and len(segments_of(tmp_path / "out", "grid[shift=0.5]"))
    with pytest.raises(InvalidStudy, match="cuts at the object, so it needs masks"):
        run(few(small_plan, segmenters=["grid", "split-object"]), tmp_path / "other")


def test_in_python_the_masks_given_are_those_that_are_cut_at():
    model, x = heatproof.load_model("shapes"), torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 96, 96, dtype=torch.bool)
    masks[:, 30:60, 20:70] = True
    asked = {"metrics": ["rbo[segmenter=grid]", f'rbo[segmenter="{CUT}"]'], "reference": x.flip(3)}
    found = heatproof.score(model, x, "gradcam", masks=masks, **asked)
    values = found.to_pandas().pivot(index="image", columns="metric", values="value")
    assert values.notna().all(axis=None) and (values.iloc[:, 0] != values.iloc[:, 1]).all()
    without = heatproof.score(model, x, "gradcam", **asked).to_pandas()
    cut = without[without["metric"].str.contains("split-object")]
    assert cut["value"].isna().all() and cut["flag"].str.contains("cuts at the object, so it needs masks").all()

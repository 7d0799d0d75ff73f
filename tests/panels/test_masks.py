"""Masks in panels: outlines at the right place after any geometry, and the peak by the rule of the pointing game."""

import numpy as np
import pytest
import torch
from PIL import Image

import heatproof
from heatproof.attributions import ATTRIBUTIONS, attribution
from heatproof.errors import InvalidInput
from heatproof.panels.masks import PeakTally
from heatproof.panels.overlays import overlays
from heatproof.report.overlay import Look, outlined

from .. import nets
from ..test_class_names import Small

HIGH, WIDE = 30, 48  # the network sees a part of it: 24 × 24 after a resize to 24 × 38


@pytest.fixture(scope="module")
def model() -> heatproof.Model:
    return heatproof.wrap(nets.seeded(Small), size=24, resize=24, device="cpu", classes=["a", "b", "<i>", "d", "e"])


@pytest.fixture(scope="module", autouse=True)
def _maps():
    """`spot`: the highest pixel is the brightest one of the image. `flat`: a degenerate map."""
    attribution("spot", source="made up")(lambda x: x.sum(1))
    attribution("flat", source="made up")(lambda x: x.sum(1) * 0)
    yield
    for name in ("spot", "flat"):
        ATTRIBUTIONS.remove(name)


def photo(row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with a bright block, and the mask of a square about the middle of what the network sees."""
    image = np.full((HIGH, WIDE, 3), 20, np.uint8)
    image[row : row + 4, column : column + 4] = 255
    mask = np.zeros((HIGH, WIDE), bool)
    mask[10:20, 18:30] = True
    return image, mask


def test_an_outline_has_a_white_and_a_black_line_and_touches_nothing_else():
    image, mask = np.full((20, 20, 3), 128, np.uint8), np.zeros((20, 20), bool)
    mask[5:12, 8:] = True  # it goes on to the right border, where there is no edge
    drawn = outlined(image, mask)
    white, black = (drawn == 255).all(2), (drawn == 0).all(2)
    inner, outer = mask.copy(), np.zeros_like(mask)
    inner[6:11, 9:] = False
    outer[4, 8:] = outer[12, 8:] = outer[5:12, 7] = True
    assert (white == inner).all() and (black == outer).all()
    assert (drawn[~white & ~black] == 128).all() and (image == 128).all()
    assert outlined(image, None) is image and outlined(image, ~np.ones((5, 5), bool)) is image


def test_the_outline_lies_on_the_edge_after_resize_and_crop(model, tmp_path):
    """The mask is a bright rectangle of the image itself: its edge is where brightness changes."""
    _, mask = photo(0, 0)
    image = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, 2)
    shown = heatproof.show(model, Image.fromarray(image), "spot", 0, masks=[mask])
    entry = shown.entries[0]
    seen = entry.image.mean(2) >= 128
    assert entry.mask is not None and (entry.mask == seen).all() and 0 < seen.sum() < seen.size
    sizes = [drawn.size for _, drawn in overlays(entry, shown._job.work.asked.rows, Look(), Image.fromarray(image),
                                                 model.geometry, mask)]  # fmt: skip
    (_, drawn), *_ = overlays(
        entry, shown._job.work.asked.rows, Look(alpha=0), Image.fromarray(image), model.geometry, mask
    )
    part = np.asarray(drawn)
    assert sizes == [(30, 30)] and (part[10, 9:21] == 255).all() and (part[9, 9:21] == 0).all()
    shown.save(tmp_path / "saved")
    with np.load(next((tmp_path / "saved" / "maps").iterdir())) as arrays:
        assert (arrays["mask"] == entry.mask).all()
    page = (tmp_path / "saved" / "index.html").read_text()
    assert "spot: the peak lies on the ground truth in 1 of 1 image." in page and "Outline: ground truth" in page


def test_peaks_are_those_of_the_pointing_game(model, tmp_path):
    """On, off, shared by both sides of the edge; a degenerate map is no hit, an image without a mask is not counted."""
    made = [photo(13, 22), photo(1, 12), photo(13, 28), photo(13, 22), photo(13, 22)]
    images, masks = [image for image, _ in made], [mask for _, mask in made]
    images[3] = np.full_like(images[3], 90)
    masks[4] = None
    given = [Image.fromarray(image) for image in images]
    with pytest.warns(heatproof.errors.HeatproofWarning, match="one colour"):
        scores = heatproof.score(model, given, ["spot", "flat"], "pointing-game", target=0, masks=masks)
    shown = heatproof.show(model, given, ["spot", "flat"], 0, masks=masks, labels=[2] * 5)
    known = scores.values("spot", "pointing-game")[:4]
    assert ((known > 0) & (known < 1)).sum() == 1 and (known == 1).sum() == 1, "as the images were made"
    assert shown.peaks[:2] == [
        "spot: the peak lies on the <i> in 1 of 4 images (1 shared peak and 1 degenerate map).",
        "Other methods: flat 0 of 4 (4 degenerate maps).",
    ]
    page = shown.save(tmp_path / "saved").read_text()
    assert "lies on the &lt;i&gt; in" in page and "<i> in" not in page
    tally = PeakTally(shown._job.work.asked.rows)
    assert tally.sentences([]) == []


def test_masks_from_a_folder_go_by_name_and_wrong_ones_are_said(model, tmp_path):
    for folder in ("photos/x", "masks/x"):
        (tmp_path / folder).mkdir(parents=True)
    for number, place in enumerate(((13, 22), (1, 12))):
        image, mask = photo(*place)
        Image.fromarray(image).save(tmp_path / "photos" / "x" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / "x" / f"{number}.png")
    shown = heatproof.show(model, tmp_path / "photos", "spot", 0, masks=tmp_path / "masks")
    assert shown.peaks == ["spot: the peak lies on the ground truth in 1 of 2 images."]
    Image.fromarray(np.ones((3, 3), bool)).save(tmp_path / "masks" / "x" / "1.png")
    with pytest.warns(heatproof.errors.HeatproofWarning, match=r"mask of 1\.png is left out: 1\.png: is 3 × 3"):
        again = heatproof.show(model, tmp_path / "photos", "spot", 0, masks=tmp_path / "masks")
    assert again.peaks == ["spot: the peak lies on the ground truth in 1 of 1 image."]
    (tmp_path / "masks" / "x" / "0.png").rename(tmp_path / "masks" / "x" / "9.png")
    (tmp_path / "masks" / "x" / "1.png").unlink()
    with pytest.raises(InvalidInput, match="None of 2 images has one"):
        heatproof.show(model, tmp_path / "photos", "spot", 0, masks=tmp_path / "masks")
    with pytest.raises(InvalidInput, match=r"one mask for each of 2 images\. Got 1"):
        heatproof.show(model, torch.rand(2, 3, 24, 24), "spot", 0, masks=[None])

"""Masks from folders and boxes: names, formats, sizes, and the way through the model's geometry."""

import pickle

import numpy as np
import pytest
from PIL import Image

from heatproof.data.image_opener import open_mask
from heatproof.data.masks import Boxes, load_masks
from heatproof.errors import InvalidImage, InvalidInput
from heatproof.geometry import Geometry

SIZE = (12, 20)
TRUTH = np.zeros(SIZE, dtype=bool)
TRUTH[2:7, 3:11] = True


def saved(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(path, **options)
    return path


def as_image(kind: str) -> Image.Image:
    one, grey = TRUTH.astype(np.uint8), (TRUTH * 255).astype(np.uint8)
    if kind == "palette":
        image = Image.fromarray(one, "P")
        image.putpalette([0, 0, 0, 200, 30, 0])
        return image
    if kind == "alpha":  # the object is white, all around is white too but not to be seen
        return Image.fromarray(np.stack([np.full(SIZE, 255, np.uint8)] * 3 + [grey], -1))
    if kind == "colour":
        return Image.fromarray(np.stack([0 * grey, 0 * grey, grey], -1))
    if kind == "sixteen":
        return Image.fromarray(one.astype(np.uint16))
    return Image.fromarray({"one": one, "grey": grey, "bit": TRUTH}[kind])


@pytest.mark.parametrize("kind", ["one", "grey", "bit", "palette", "alpha", "colour", "sixteen"])
def test_what_is_not_black_is_the_object(tmp_path, kind):
    saved(tmp_path / "a.png", as_image(kind))
    found = load_masks(tmp_path).mask("a.jpg", SIZE)
    assert found.dtype == bool and np.array_equal(found, TRUTH)


def test_a_jpeg_is_cut_at_half_since_its_black_is_not_quite_black(tmp_path):
    big = TRUTH.repeat(8, 0).repeat(8, 1)
    path = saved(tmp_path / "a.jpg", (big * 255).astype(np.uint8), quality=70)
    assert (np.asarray(Image.open(path))[~big] > 0).any(), "compression leaves traces"
    assert (open_mask(path) == big).mean() > 0.999


@pytest.mark.parametrize(
    "array",
    [TRUTH, TRUTH.astype(np.int64) * 7, np.where(TRUTH, 0.1, 0.0), np.where(TRUTH, 1, np.nan), TRUTH[None],
     TRUTH[..., None]],
)  # fmt: skip
def test_arrays(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(load_masks(tmp_path).mask("a.jpg", SIZE), TRUTH)


@pytest.mark.parametrize(
    ("file", "identity"),
    [
        ("a.png", "a.jpg"),
        ("a.PNG", "a.jpg"),
        ("a.jpg.png", "a.jpg"),
        ("cats/a.png", "cats/a.jpg"),
        ("a.png", "cats/a.jpg"),
        ("photos/a.png", "/data/photos/a.jpg"),
        ("a.b.png", "a.b.jpg"),
    ],
)
def test_names(tmp_path, file, identity):
    saved(tmp_path / file, as_image("grey"))
    assert np.array_equal(load_masks(tmp_path).mask(identity, SIZE), TRUTH)


def test_the_nearest_name_counts_and_one_that_is_not_there_is_none(tmp_path):
    saved(tmp_path / "cats" / "a.png", as_image("grey"))
    saved(tmp_path / "a.png", Image.fromarray((~TRUTH * 255).astype(np.uint8)))
    masks = load_masks(tmp_path)
    assert np.array_equal(masks.mask("cats/a.jpg", SIZE), TRUTH)
    assert np.array_equal(masks.mask("dogs/a.jpg", SIZE), ~TRUTH)
    assert masks.mask("cats/b.jpg", SIZE) is None


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path):
    saved(tmp_path / "a.png", as_image("grey"))
    with pytest.raises(InvalidImage, match=r"a\.png: is 20 × 12 pixels, and its image cats/a\.jpg is 12 × 20"):
        load_masks(tmp_path).mask("cats/a.jpg", (20, 12))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"no image", "a.png: is not an image"),
        ("a.npy", b"no array", "a.npy: cannot be read"),
        ("a.png", b"", "is empty"),
    ],
)
def test_files_that_are_no_masks_are_refused_when_they_are_needed(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    masks = load_masks(tmp_path)
    assert masks.mask("b.jpg", SIZE) is None
    with pytest.raises(InvalidImage, match=said):
        masks.mask("a.jpg", SIZE)


@pytest.mark.parametrize("array", [np.zeros((2, 3, 4)), np.zeros(5), np.array([["a"]]), np.zeros((2, 2), complex)])
def test_arrays_that_are_no_masks_are_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InvalidImage, match="numbers \\(height, width\\)"):
        load_masks(tmp_path).mask("a.jpg", SIZE)


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path, monkeypatch):
    saved(tmp_path / "a.png", as_image("grey"))
    with pytest.raises(InvalidImage, match="over the limit of 200"):
        open_mask(tmp_path / "a.png", max_pixels=200)
    np.save(tmp_path / "b.npy", TRUTH)
    monkeypatch.setattr("heatproof.data.masks.MAX_PIXELS", 200)
    with pytest.raises(InvalidImage, match="240 values, over the limit of 200"):
        load_masks(tmp_path).mask("b.jpg", SIZE)


def test_a_pickle_is_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(InvalidImage, match="cannot be read"):
        load_masks(tmp_path).mask("a.jpg", SIZE)


def test_an_orientation_is_obeyed_as_in_images(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    saved(tmp_path / "a.png", as_image("grey"), exif=exif)
    assert np.array_equal(load_masks(tmp_path).mask("a.jpg", (20, 12)), np.rot90(TRUTH, -1))


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InvalidInput, match="at least one mask"):
        load_masks(tmp_path)
    with pytest.raises(InvalidInput, match="does not exist"):
        load_masks(tmp_path / "none")
    saved(tmp_path / "a.png", as_image("grey"))
    with pytest.raises(InvalidInput, match="folder of masks or a CSV"):
        load_masks(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", TRUTH)
    with pytest.raises(InvalidInput, match=r"a\.npy and a\.png"):
        load_masks(tmp_path)


def csv_of(tmp_path, *lines, header="file,x0,y0,x1,y1"):
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return path


def test_boxes_are_edges_and_several_are_one_object(tmp_path):
    masks = load_masks(csv_of(tmp_path, "a.jpg,3,2,11,7", "b.jpg,0,0,2,2", "b.jpg,1,1,3.6,2.4"))
    assert np.array_equal(masks.mask("a.jpg", SIZE), TRUTH)
    expected = np.zeros(SIZE, dtype=bool)
    expected[:2, :2] = expected[1, 1:4] = True  # the centre of pixel 3 is at 3.5, that of row 2 at 2.5
    assert np.array_equal(masks.mask("folder/b.jpg", SIZE), expected)
    assert masks.mask("c.jpg", SIZE) is None


def test_a_box_ends_with_its_image_and_one_beside_it_is_refused(tmp_path):
    masks = load_masks(csv_of(tmp_path, "a.jpg,-5,-5,4,999", "b.jpg,30,0,40,5"))
    expected = np.zeros(SIZE, dtype=bool)
    expected[:, :4] = True
    assert np.array_equal(masks.mask("a.jpg", SIZE), expected)
    with pytest.raises(InvalidImage, match=r"b\.jpg: its boxes hold no pixel of it, which is 20 × 12"):
        masks.mask("b.jpg", SIZE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.jpg,1,2,3", "four numbers.*line 2"),
        ("a.jpg,1,2,three,4", "four numbers.*x1='three'"),
        ("a.jpg,5,2,3,4", "x0 < x1 and y0 < y1.*got 5, 2, 3, 4"),
        ("a.jpg,1,2,nan,4", "x0 < x1"),
        (",1,2,3,4", "name an image.*line 2"),
    ],
)
def test_rows_that_are_no_boxes_are_refused_with_their_line(tmp_path, line, said):
    with pytest.raises(InvalidInput, match=said):
        load_masks(csv_of(tmp_path, line))


def test_csv_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InvalidInput, match="has no `x1` and no `y1`"):
        load_masks(csv_of(tmp_path, header="file,x0,y0"))
    with pytest.raises(InvalidInput, match="header only"):
        load_masks(csv_of(tmp_path))


def test_workers_can_have_them(tmp_path):
    saved(tmp_path / "a.png", as_image("grey"))
    folder, boxes = load_masks(tmp_path), Boxes({"a.jpg": [(3, 2, 11, 7)]})
    for masks in (folder, boxes):
        assert np.array_equal(pickle.loads(pickle.dumps(masks)).mask("a.jpg", SIZE), TRUTH)


def test_a_mask_goes_the_way_of_its_image(tmp_path):
    """A perfect map of an image that was resized and cropped is perfect: R's code squashed the mask instead."""
    rows = np.zeros((300, 400), dtype=np.uint8)
    rows[60:200, 250:330] = 255
    saved(tmp_path / "a.png", rows)
    geometry = Geometry((64, 64), 72)
    mask = geometry.mask(load_masks(tmp_path).mask("a.jpg", (300, 400))).numpy()
    shown = geometry.image(Image.fromarray(rows).convert("RGB"))[0].numpy()
    assert np.array_equal(mask, shown > 0.5) and mask.any()
    squashed = np.asarray(Image.fromarray(rows).resize((64, 64))) > 127
    assert (mask & squashed).sum() / np.sqrt(mask.sum() * squashed.sum()) < 0.8

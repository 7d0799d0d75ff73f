"""Segmenters: counts, independence of order, the cache in memory and on disk."""

import numpy as np
import pytest
import torch
from PIL import Image

from heatproof import segments
from heatproof.errors import HeatproofWarning, InvalidInput, NotApplicable, UnknownName
from heatproof.segments import SEGMENTERS, counts, segment


@pytest.fixture(autouse=True)
def forgotten():
    segments._memory.clear()


@pytest.fixture
def calls(monkeypatch):
    """Counts how often a segmenter really runs."""
    made = []
    entry = SEGMENTERS["grid"]

    def counted(x, **options):
        made.append(options)
        return entry.function(x, **options)

    monkeypatch.setitem(SEGMENTERS._entries, "grid", type(entry)("grid", counted, entry.needs, entry.options))
    return made


def image(n=1, side=64, seed=0):
    """Smooth colours with some edges."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 6, 6, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("name", list(SEGMENTERS))
def test_labels_run_without_gaps_and_images_do_not_mix(name):
    x, mask = image(3), object_in(64, 20, 12, 20, 30).expand(3, -1, -1)
    together = segment(x, name, mask=mask)
    assert together.dtype == torch.int64 and together.shape == (3, 64, 64)
    for i, labels in enumerate(together):
        assert torch.unique(labels).tolist() == list(range(int(counts(labels[None])[0])))
        segments._memory.clear()
        assert torch.equal(segment(x[i : i + 1], name, mask=mask[:1])[0], labels)
    assert not torch.equal(together[0], together[1]) or name == "grid"


def test_the_grid_is_rectangles():
    labels = segment(image(side=12), "grid[rows=2, columns=3]")[0]
    assert labels[0].tolist() == [0] * 4 + [1] * 4 + [2] * 4 and labels[6:, 0].tolist() == [3] * 6
    assert int(counts(segment(image(side=224), "grid"))[0]) == 121


def test_quickshift_scales_its_kernel_with_the_image(monkeypatch):
    import skimage.segmentation

    seen = []

    def spy(x, kernel_size, **_):
        seen.append(kernel_size)
        return np.zeros(x.shape[:2], np.int64)

    monkeypatch.setattr(skimage.segmentation, "quickshift", spy)
    for side in (224, 112, 448, 32):
        segment(torch.rand(1, 3, side, side))
    assert seen == pytest.approx([2.2, 1.1, 4.4, 1.0])


def test_felzenszwalb_is_tuned_to_the_count():
    x = image(side=112)
    x = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    tuned = [int(counts(segment(x, "felzenszwalb", {"count": count}))[0]) for count in (30, 60)]
    assert abs(tuned[0] - 30) <= 3 and abs(tuned[1] - 60) <= 6
    assert int(counts(segment(x, "felzenszwalb[count=0]"))[0]) not in tuned


def test_an_image_is_segmented_once(calls):
    x = image(2)
    first = segment(x, "grid")
    again = segment(x.flip(0), "grid")
    assert torch.equal(first, again.flip(0)) and len(calls) == 2
    segment(x, "grid", {"rows": 3})
    assert len(calls) == 4
    x[0, 0, 0, 0] = 0.123
    segment(x, "grid")
    assert len(calls) == 5


def test_the_memory_is_bounded_and_forgets_the_longest_unused(calls, monkeypatch):
    monkeypatch.setattr(segments, "REMEMBERED", 2)
    first, second, third = image(3, side=8).split(1)
    for x in (first, second, first, third):
        segment(x, "grid")
    assert len(calls) == 3 and len(segments._memory) == 2
    segment(first, "grid")
    assert len(calls) == 3
    segment(second, "grid")
    assert len(calls) == 4


def test_the_folder_outlives_the_memory(calls, tmp_path):
    x = image(side=24)
    first = segment(x, "grid", folder=tmp_path / "cache")
    segments._memory.clear()
    assert torch.equal(segment(x, "grid", folder=tmp_path / "cache"), first) and len(calls) == 1
    (file,) = (tmp_path / "cache").iterdir()  # nothing temporary left behind
    file.write_bytes(file.read_bytes()[:90])
    segments._memory.clear()
    with pytest.warns(HeatproofWarning, match="worked out again"):
        assert torch.equal(segment(x, "grid", folder=tmp_path / "cache"), first)
    segments._memory.clear()
    assert torch.equal(segment(x, "grid", folder=tmp_path / "cache"), first) and len(calls) == 2


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        segment(image(side=8), "grid", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("x", [torch.rand(3, 8, 8), torch.rand(1, 3, 4, 8, 8), torch.zeros(1, 3, 8, 8).byte()])
def test_wrong_shapes_are_named(x):
    with pytest.raises(InvalidInput, match="\\(N, C, H, W\\)"):
        segment(x)


def test_wrong_values_and_names_are_named():
    with pytest.raises(InvalidInput, match="\\[0, 1\\], not normalised"):
        segment(torch.randn(1, 3, 8, 8))
    with pytest.raises(InvalidInput, match="nan"):
        segment(torch.full((1, 3, 8, 8), float("nan")))
    with pytest.raises(UnknownName, match="quickshift"):
        segment(image(), "quickshit")
    with pytest.raises(UnknownName, match="kernel"):
        segment(image(), "quickshift[kernal=3]")


@pytest.mark.assets
def test_photographs_get_about_120_segments(assets):
    images = []
    for path in sorted((assets / "images").glob("*.JPEG"))[::50]:
        image = Image.open(path).convert("RGB")
        scale = 256 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        images.append(np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255)
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    for name, low, high in (("quickshift", 80, 135), ("slic", 90, 140), ("felzenszwalb", 112, 128)):
        found = counts(segment(x, name))
        assert found.min() >= low and found.max() <= high, (name, found.tolist())


def test_a_shifted_grid_has_its_borders_in_the_middle_of_the_cells():
    labels = segment(image(side=12), "grid[rows=2, columns=3, shift=0.5]")[0]
    assert labels[0].tolist() == [0] * 2 + [1] * 4 + [2] * 4 + [3] * 2
    assert labels[:, 0].tolist() == [0] * 3 + [4] * 6 + [8] * 3
    assert torch.equal(segment(image(side=12), "grid[shift=0]"), segment(image(side=12), "grid"))
    borders = segment(image(side=220), "grid[shift=0.5]")[0][0].diff().nonzero()[:, 0] + 1
    assert borders.tolist() == list(range(10, 220, 20))  # a cell is 20 pixels
    with pytest.raises(InvalidInput, match=r"in \[0, 1\)"):
        segment(image(side=12), "grid[shift=1]")


def slow_split(labels):
    """Each segment cut through its centroid across its longest axis, one pixel at a time, by numpy's eigenvectors."""
    halves = np.zeros(labels.shape, int)
    for label in np.unique(labels):
        pixels = np.argwhere(labels == label).astype(float)
        centred = pixels - pixels.mean(0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        along = axes[:, -1] if axes[1, -1] > 0 or (abs(axes[1, -1]) < 1e-12 and axes[0, -1] > 0) else -axes[:, -1]
        for (y, x), place in zip(pixels.astype(int), centred, strict=True):
            halves[y, x] = 2 * label + (round(float(place @ along), 6) > 0)
    return halves


def test_split_cuts_every_segment_across_its_longest_axis():
    x = image(side=24)
    wide = segment(x, 'split[of="grid[rows=2,columns=1]"]')[0]  # two rectangles, 24 wide and 12 high
    assert wide[0].tolist() == [0] * 12 + [1] * 12 and wide[12].tolist() == [2] * 12 + [3] * 12
    whole, halves = (segment(image(side=64), name)[0].numpy() for name in ("slic", "split[of=slic]"))
    assert len(np.unique(halves)) == 2 * len(np.unique(whole))
    slow = slow_split(whole)
    assert np.array_equal(np.unique(slow, return_inverse=True)[1].reshape(slow.shape), halves)


def test_split_leaves_single_pixels_whole_and_takes_quickshift_by_default():
    assert torch.equal(segment(image(side=4), 'split[of="grid[rows=4,columns=4]"]')[0].unique(), torch.arange(16))
    default, named = segment(image(side=64), "split"), segment(image(side=64), "split[of=quickshift]")
    assert torch.equal(default, named)
    with pytest.raises(UnknownName):
        segment(image(side=8), "split[of=quikshift]")


def object_in(side: int, top: int, left: int, height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(1, side, side, dtype=torch.bool)
    mask[:, top : top + height, left : left + width] = True
    return mask


def test_split_object_cuts_the_segments_that_touch_the_object_through_its_centre():
    x, name = image(side=24), 'split-object[of="grid[rows=3,columns=3]"]'
    labels = segment(x, name, mask=object_in(24, 2, 1, 4, 14))[0]  # rows 2–5, columns 1–14: its centre is at 7.5
    whole = segment(x, "grid[rows=3,columns=3]")[0]
    assert len(labels.unique()) == 9, "the line at column 7.5 is a border of the grid: nothing is cut"
    labels = segment(x, name, mask=object_in(24, 2, 1, 4, 10))[0]  # centre 5.5; touches the first two cells
    assert len(labels.unique()) == 10 and torch.equal(labels[8:].unique(), torch.arange(4, 10))
    first = labels[:8, :8]
    assert len(first[:, :6].unique()) == 1 and len(first[:, 6:].unique()) == 1 and first[0, 5] != first[0, 6]
    assert len(labels[:8, 8:16].unique()) == 1, "it lies beyond the line as a whole"
    tall = segment(x, name, mask=object_in(24, 1, 2, 10, 4))[0]  # its longest axis is vertical: cut across it
    assert len(tall[:6, :8].unique()) == 1 and tall[5, 0] != tall[6, 0]
    assert all(len(whole[labels == label].unique()) == 1 for label in labels.unique()), "segments are cut, never joined"


def test_split_object_needs_masks_of_the_right_shape():
    x = image(side=24)
    with pytest.raises(NotApplicable, match="'split-object' cuts at the object, so it needs masks"):
        segment(x, "split-object")
    for wrong in (torch.ones(1, 24, 24), torch.ones(1, 8, 8, dtype=torch.bool)):
        with pytest.raises(InvalidInput, match="`mask` must be bool"):
            segment(x, "split-object", mask=wrong)
    with pytest.raises(InvalidInput, match="needs no masks"):
        segment(x, "split-object[of=split-object]", mask=torch.ones(1, 24, 24, dtype=torch.bool))
    assert counts(segment(x, "split-object", mask=torch.zeros(1, 24, 24, dtype=torch.bool))).tolist() == [1]


def test_split_object_of_another_mask_is_another_label_map():
    x = image(side=24)
    one, two = (segment(x, "split-object[of=slic]", mask=object_in(24, 4, left, 8, 8)) for left in (2, 12))
    assert not torch.equal(one, two)
    assert torch.equal(one, segment(x, "split-object[of=slic]", mask=object_in(24, 4, 2, 8, 8)))

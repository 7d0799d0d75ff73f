"""Images with more than 8 bits: full precision, the range of black and white, transparency, in every kind of file."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof.data import load_images
from heatproof.data.image_opener import open_grey, open_image, open_mask, open_pixels
from heatproof.data.inputs import as_inputs
from heatproof.data.masks import load_masks
from heatproof.errors import HeatproofWarning, InvalidImage, InvalidInput
from heatproof.geometry import Geometry
from heatproof.pixels import Pixels, from_array, rgb

RNG = np.random.default_rng(0)
#: Every one of 16 bits is used, and no two pixels are equal.
DEEP = RNG.permutation(65536)[:768].astype(np.uint16).reshape(12, 64)
DEEP[0, 0], DEEP[0, 1] = 0, 65535
COLOUR = RNG.integers(0, 65536, (12, 20, 3)).astype(np.uint16)


def seen(image, **settings):
    """What the network sees of an image of its own size, `(H, W, 3)`."""
    image = from_array(image) if isinstance(image, np.ndarray) else image
    return Geometry((image.height, image.width), **settings).image(image).permute(1, 2, 0).numpy()


def read(path, **settings):
    return seen(open_pixels(path), **settings)


def png(rows, depth, colour, extra=b""):
    """A PNG from its parts, so that no library decides what is in it."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", rows.shape[1], len(rows), depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


# --- precision ---


def grey_files(folder):
    """The same 16-bit grey image in every kind of file."""
    Image.fromarray(DEEP).save(folder / "a.png")
    Image.fromarray(DEEP).save(folder / "lzw.tif", compression="tiff_lzw")
    (folder / "a.pgm").write_bytes(b"P5 64 12 65535\n" + DEEP.astype(">u2").tobytes())
    tifffile.imwrite(folder / "little.tif", DEEP, byteorder="<")
    tifffile.imwrite(folder / "big.tif", DEEP, byteorder=">")
    tifffile.imwrite(folder / "large.tif", DEEP, bigtiff=True)
    tifffile.imwrite(folder / "tiles.tif", DEEP, tile=(16, 16))
    tifffile.imwrite(folder / "deflated.tif", DEEP, compression="deflate", predictor=False)
    tifffile.imwrite(folder / "inverted.tif", 65535 - DEEP, photometric="miniswhite")
    np.save(folder / "a.npy", DEEP)
    np.save(folder / "swapped.npy", DEEP.astype(">u2"))
    return sorted(path.name for path in folder.iterdir())


def test_sixteen_bit_grey_keeps_its_precision_in_every_file(tmp_path):
    names = grey_files(tmp_path)
    assert len(names) == 11
    for name in names:
        found = read(tmp_path / name)
        np.testing.assert_allclose(found[..., 0], DEEP / 65535, atol=2e-7, err_msg=name)
        assert np.array_equal(found[..., 0], found[..., 2])


def test_sixteen_bit_colour_keeps_its_precision(tmp_path):
    (tmp_path / "a.png").write_bytes(png(COLOUR, 16, 2))
    tifffile.imwrite(tmp_path / "chunky.tif", COLOUR, photometric="rgb")
    tifffile.imwrite(tmp_path / "planar.tif", COLOUR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "deflated.tif", COLOUR, photometric="rgb", compression="deflate")
    np.save(tmp_path / "last.npy", COLOUR)
    np.save(tmp_path / "first.npy", COLOUR.transpose(2, 0, 1))
    for path in tmp_path.iterdir():
        np.testing.assert_allclose(read(path), COLOUR / 65535, atol=2e-7, err_msg=path.name)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f4"])
def test_floating_point_in_the_unit_range_is_read_as_it_is(tmp_path, kind):
    values = RNG.random((9, 17)).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.save(tmp_path / "a.npy", values)
    for name in ("a.tif", "a.npy"):
        np.testing.assert_allclose(read(tmp_path / name)[..., 1], values.astype(np.float32), atol=1e-7)
    np.testing.assert_allclose(seen(values)[..., 1], values.astype(np.float32), atol=1e-7)


def test_bytes_and_bits_in_arrays_equal_the_same_png(tmp_path):
    grey = RNG.integers(0, 256, (9, 17)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", grey)
    assert np.array_equal(read(tmp_path / "a.npy"), read(tmp_path / "a.png"))
    np.save(tmp_path / "bits.npy", grey > 100)
    assert np.array_equal(read(tmp_path / "bits.npy")[..., 0], (grey > 100).astype(np.float32))


def test_one_image_by_every_road_is_the_same(tmp_path):
    """A file, a PIL image, an array, a folder, the window applied by each: bit for bit."""
    Image.fromarray(DEEP).save(tmp_path / "a.png")
    for window in (None, (100.0, 40000.0), "auto"):
        geometry = Geometry((8, 24), (9, 27), "bicubic", window)
        roads = [
            as_inputs(item, geometry).batch(slice(0, 1))[0]
            for item in (tmp_path / "a.png", Image.open(tmp_path / "a.png"), DEEP, DEEP[None])
        ]
        roads.append(geometry.image(load_images(tmp_path).open(0)))
        assert all(torch.equal(roads[0], other) for other in roads[1:])


def test_eight_bits_stay_as_they_were(tmp_path):
    """What 8 bits hold goes through Pillow's own resize of bytes: in 8 bits, in 16, and with a window of 0 to 255."""
    colour = RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    plain, windowed = (Geometry((20, 30), (22, 33), window=w).image(open_pixels(tmp_path / "a.png"))
                       for w in (None, (0.0, 255.0)))  # fmt: skip
    assert torch.equal(plain, windowed)
    for other in (colour.astype(np.uint16) * 257, colour / 255, (colour / 255).astype(np.float32)):
        assert torch.equal(plain, Geometry((20, 30), (22, 33)).image(from_array(other)))


def test_exif_turns_deep_images_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(DEEP).save(tmp_path / "a.png", exif=exif)
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    np.testing.assert_allclose(read(tmp_path / "a.png")[..., 0], np.rot90(DEEP, -1) / 65535, atol=2e-7)
    np.testing.assert_allclose(read(tmp_path / "a.tif"), np.rot90(COLOUR, -1) / 65535, atol=2e-7)


# --- black and white ---


def test_a_window_says_what_is_black_and_white(tmp_path):
    """Twelve bits in a file of sixteen: the range of the type leaves it black, a window does not."""
    values = RNG.integers(0, 4096, (9, 17)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_allclose(read(tmp_path / "a.png", window=(0, 4095))[..., 0], values / 4095, atol=1e-6)
    cut = ((values - 1000.0) / 1000).clip(0, 1)
    np.testing.assert_allclose(read(tmp_path / "a.png", window=(1000, 2000))[..., 0], cut, atol=1e-6)
    low, high = np.percentile(values, (0.5, 99.5))
    expected = ((values - low) / (high - low)).clip(0, 1)
    np.testing.assert_allclose(read(tmp_path / "a.png", window="auto")[..., 0], expected, atol=1e-6)
    with pytest.warns(HeatproofWarning, match=r"uses 12 bits only.*--window low,high"):
        np.testing.assert_allclose(read(tmp_path / "a.png")[..., 0], values / 65535, atol=1e-6)


def test_signed_numbers_have_the_range_of_their_type_with_a_warning():
    values = np.array([[-32768, 0, 32767]], np.int16)
    with pytest.warns(HeatproofWarning, match="-32768 as black and 32767 as white"):
        np.testing.assert_allclose(seen(values)[0, :, 0], [0, 32768 / 65535, 1], atol=1e-6)
    np.testing.assert_allclose(seen(values, window=(-1000, 1000))[0, :, 0], [0, 0.5, 1])


@pytest.mark.parametrize(
    "values",
    [
        np.float32([[0, 200]]),
        np.float64([[-1, 1]]),
        np.int32([[0, 5]]),
        np.uint32([[0, 2**32 - 1]]),
        np.int64([[0, 1]]),
    ],
    ids=lambda values: str(values.dtype),
)
def test_a_range_that_nothing_says_is_refused_and_a_window_helps(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(
        InvalidImage, match=r"^a\.npy: holds .* numbers from .*Set `window=.*--window.*auto.*percentiles"
    ):
        read(tmp_path / "a.npy")
    low, high = float(values.min()), float(values.max())
    np.testing.assert_allclose(read(tmp_path / "a.npy", window=(low, high))[0, :, 0], [0, 1])


def test_values_that_are_not_finite_are_refused(tmp_path):
    values = RNG.random((4, 5)).astype(np.float32)
    values[1, 2], values[0, 0] = np.nan, np.inf
    np.save(tmp_path / "a.npy", values)
    for window in (None, "auto", (0.0, 1.0)):
        with pytest.raises(InvalidImage, match=r"^a\.npy: holds 2 values that are NaN or infinite\. Replace them"):
            read(tmp_path / "a.npy", window=window)


def test_an_image_of_one_value_is_black_under_auto():
    assert not seen(np.full((3, 4), 700, np.uint16), window="auto").any()


@pytest.mark.parametrize("window", [(1, 1), (2, 1), (0, np.nan), "wide", (1, 2, 3), 7])
def test_a_window_is_two_numbers_in_order_or_auto(window):
    with pytest.raises(InvalidInput, match=r"`window` must be two numbers.*or `auto`\. Got"):
        heatproof.wrap(nn.Conv2d(3, 2, 1), size=8, window=window)


# --- arrays ---


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5), (0, 5, 3)])
def test_other_shapes_are_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint16))
    with pytest.raises(InvalidImage, match=r"^a\.npy: An array must "):
        open_pixels(tmp_path / "a.npy")


def test_the_last_side_has_the_channels_where_it_can(tmp_path):
    """(3, 5, 3) is an image of 3 × 5 pixels, as of (H, W, 3)."""
    values = RNG.integers(0, 65536, (3, 5, 3)).astype(np.uint16)
    np.testing.assert_allclose(seen(values), values / 65535, atol=2e-7)


def test_what_is_no_number_is_refused(tmp_path):
    for name, values in (
        ("c", np.ones((4, 4), complex)),
        ("s", np.full((4, 4), "x")),
        ("d", np.zeros((2, 2), "M8[s]")),
    ):
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(InvalidImage, match="must hold numbers"):
            open_pixels(tmp_path / f"{name}.npy")
    np.save(tmp_path / "code.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidImage, match=r"^code\.npy: cannot be read"):
        open_pixels(tmp_path / "code.npy")


# --- transparency ---


def transparent(folder):
    """A grey-blue image, transparent at the left, half at the middle: in 8 and 16 bits, as PNG and TIFF."""
    rgba = np.zeros((4, 6, 4), np.uint16)
    rgba[..., :3], rgba[..., 3] = (20000, 30000, 60000), 65535
    rgba[:, :2, 3], rgba[:, 2:4, 3] = 0, 32768
    (folder / "deep.png").write_bytes(png(rgba, 16, 6))
    tifffile.imwrite(folder / "deep.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    before = rgba.copy()
    before[..., :3] = (rgba[..., :3] * (rgba[..., 3:] / 65535)).round()
    tifffile.imwrite(folder / "premultiplied.tif", before, photometric="rgb", extrasamples=["assocalpha"])
    Image.fromarray((rgba >> 8).astype(np.uint8)).save(folder / "eight.png")
    return rgba / 65535


@pytest.mark.parametrize(("background", "behind"), [("white", (1, 1, 1)), ("black", (0, 0, 0)), ("#ff0000", (1, 0, 0))])
def test_transparent_pixels_lie_on_the_background(tmp_path, background, behind):
    unit = transparent(tmp_path)
    expected = unit[..., :3] * unit[..., 3:] + np.array(behind) * (1 - unit[..., 3:])
    for path in tmp_path.iterdir():
        bits = 8 if path.name == "eight.png" else 16
        found = read(path, background=background)
        np.testing.assert_allclose(found, expected, atol=0.009 if bits == 8 else 4e-5, err_msg=path.name)


def test_transparency_that_is_ignored_leaves_the_stored_colours(tmp_path):
    """As `Image.convert("RGB")` of torchvision's loader does, for every mode with transparency."""
    unit = transparent(tmp_path)
    for name in ("deep.png", "deep.tif", "eight.png"):
        np.testing.assert_allclose(read(tmp_path / name, background="ignore"), unit[..., :3], atol=0.004, err_msg=name)
    opened = Image.open(tmp_path / "eight.png")
    for mode in ("RGBA", "LA", "PA"):
        image = opened.convert("P").convert(mode) if mode == "PA" else opened.convert(mode)
        found = rgb(image, background="ignore")
        assert isinstance(found, Image.Image) and found.mode == "RGB"
        assert found.tobytes() == image.convert("RGB").tobytes(), mode


def test_a_colour_that_stands_for_transparent_in_sixteen_bits(tmp_path):
    """tRNS of grey and of colour."""
    key = b"tRNS" + struct.pack(">HHH", *COLOUR[0, 0].tolist())
    key = struct.pack(">I", 6) + key + struct.pack(">I", zlib.crc32(key))
    (tmp_path / "a.png").write_bytes(png(COLOUR, 16, 2, key))
    found = read(tmp_path / "a.png")
    assert (found[0, 0] == 1).all() and np.allclose(found[1], COLOUR[1] / 65535, atol=2e-7)
    grey = Image.fromarray(DEEP)
    grey.save(tmp_path / "g.png", transparency=int(DEEP[3, 3]))
    found = read(tmp_path / "g.png")
    assert found[3, 3, 0] == 1 and np.isclose(found[3, 4, 0], DEEP[3, 4] / 65535)


def test_hidden_values_do_not_count_for_auto():
    """What lies under transparent pixels is not seen, and may be anything."""
    values = np.full((10, 10, 1), 500, np.uint16)
    values[:, 5:] = 1500
    values[0] = 60000
    alpha = np.ones((10, 10), np.float32)
    alpha[0] = 0
    found = rgb(Pixels(values, (0, 65535), alpha), "auto")
    assert isinstance(found, np.ndarray) and (found[1:, :5] == 0).all() and (found[1:, 5:] == 1).all()


def test_a_background_must_be_an_opaque_colour():
    for background in ("transparent-ish", "#11223344", 7):
        with pytest.raises(InvalidInput, match="`alpha_background` must be an opaque colour"):
            heatproof.wrap(nn.Conv2d(3, 2, 1), size=8, alpha_background=background)


# --- too large, or of a kind that is not read ---


def tiff_header(path, width, height, compression=1, data=b"", bits=16):
    """A little-endian TIFF of one strip that says it is `width` × `height`."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, 1), (273, 4, 8),
               (277, 3, 1), (278, 4, height), (279, 4, len(data))]  # fmt: skip
    start = 8 + len(data) + len(data) % 2
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e[:2], 1, e[2]) for e in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + data + b"\0" * (len(data) % 2) + body + b"\0" * 4)


def test_sizes_are_checked_before_pixels_are_read(tmp_path):
    tiff_header(tmp_path / "a.tif", 60_000, 60_000)
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": (60_000, 60_000)})
        file.truncate(60_000 * 60_000 * 2 + 200)  # sparse: on no disk
    rows = png(COLOUR, 16, 2)
    header = rows[:16] + struct.pack(">II", 60_000, 60_000) + rows[24:29]
    (tmp_path / "a.png").write_bytes(header + struct.pack(">I", zlib.crc32(header[12:29])) + rows[33:])
    for name in ("a.tif", "a.npy", "a.png"):
        with pytest.raises(InvalidImage, match=rf"^{name}: has (60000 × 60000 pixels, over the limit|far too many)"):
            open_pixels(tmp_path / name)


def test_a_strip_that_inflates_to_more_than_the_header_says_is_refused(tmp_path):
    tiff_header(tmp_path / "a.tif", 10, 10, 8, zlib.compress(bytes(10_000_000)))
    with pytest.raises(InvalidImage, match=r"^a\.tif: holds more pixels than its header says"):
        open_pixels(tmp_path / "a.tif")


def test_kinds_that_are_not_read_in_full_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "ink.tif", RNG.integers(0, 9, (5, 6, 4)).astype(np.uint16), photometric="separated")
    with pytest.raises(InvalidImage, match=r"^ink\.tif: is SEPARATED with 16 bits; save it in grey or RGB"):
        open_pixels(tmp_path / "ink.tif")
    tifffile.imwrite(tmp_path / "bands.tif", RNG.integers(0, 9, (5, 6, 7)).astype(np.uint16), photometric="minisblack",
                     planarconfig="contig")  # fmt: skip
    with pytest.raises(InvalidImage, match=r"^bands\.tif: has 7 channels, and the network takes images of 1 or 3"):
        open_image(tmp_path / "bands.tif")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "ink.tif").read_bytes()[:60])
    with pytest.raises(InvalidImage, match=r"^cut\.tif: "):
        open_pixels(tmp_path / "cut.tif")


# --- folders, masks, maps ---


def test_folders_hold_files_of_every_kind(tmp_path):
    names = grey_files(tmp_path)
    images = load_images(tmp_path)
    assert images.ids == names
    assert all((images.open(i).width, images.open(i).height) == (64, 12) for i in range(len(names)))
    assert open_image(tmp_path / "a.npy").mode == "RGB"


def test_masks_and_maps_of_sixteen_bits_keep_small_values(tmp_path):
    """A label image of few objects has small numbers: their upper bytes are all 0."""
    labels = np.zeros((6, 8, 3), np.uint16)
    labels[2:4, 3:5] = (3, 0, 0)
    (tmp_path / "a.png").write_bytes(png(labels, 16, 2))
    expected = labels.any(-1)
    assert np.array_equal(open_mask(tmp_path / "a.png"), expected)
    assert np.array_equal(load_masks(tmp_path).mask("a.jpg", (6, 8)), expected)
    grey = np.repeat(labels[..., :1], 3, 2)
    (tmp_path / "b.png").write_bytes(png(grey, 16, 2))
    assert np.array_equal(open_grey(tmp_path / "b.png"), grey[..., 0].astype(np.float32))


def test_mosaics_of_deep_images_take_the_window(tmp_path):
    """Cells are put together in the units of the files, so that a window means the same as for one image."""
    for number in range(4):
        (tmp_path / f"{number}").mkdir()
        np.save(tmp_path / f"{number}" / "a.npy", np.full((10, 12), 1000 * (number + 1), np.uint16))
    mosaic = load_images(f"mosaic:{tmp_path}").open(0)
    values = Geometry((448, 448), window=(0, 4000)).image(mosaic)[0]
    assert sorted(values[::224, ::224].flatten().tolist()) == pytest.approx([0.25, 0.5, 0.75, 1])
    Image.new("RGB", (9, 9)).save(tmp_path / "3" / "a.png")
    (tmp_path / "3" / "a.npy").unlink()
    with pytest.raises(InvalidImage, match="a mosaic needs images of one type"):
        load_images(f"mosaic:{tmp_path}").open(0)


# --- the public call ---


class Brightness(nn.Module):
    """Class 1 where the image is bright; a feature map for gradcam."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        pooled = self.features(x).mean((2, 3))
        bright = x.mean((1, 2, 3))
        return torch.stack([-bright, bright], 1) + 1e-3 * pooled[:, :2]


def brightness(**settings):
    torch.manual_seed(0)
    return heatproof.wrap(Brightness().eval(), mean=0.5, std=0.5, size=16, layer="features", **settings)


def test_the_prediction_follows_the_window_and_the_record_of_it(tmp_path):
    """Twelve bits in sixteen: black without a window, flagged and warned of; bright with one, and not flagged."""
    values = RNG.integers(2500, 4096, (16, 16)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dark = heatproof.explain(brightness(), tmp_path / "a.png", "gradcam")
    assert dark.target.tolist() == [0] and dark.image_flags == ["nearly one colour after preprocessing"]
    texts = [str(one.message) for one in caught if issubclass(one.category, HeatproofWarning)]
    assert any(text.startswith("Nearly one colour after preprocessing: ") and "a.png" in text for text in texts)
    bright = heatproof.explain(brightness(window=(0, 4095)), tmp_path / "a.png", "gradcam")
    assert bright.target.tolist() == [1] and bright.image_flags == [""]


def test_tensors_are_flagged_too_without_a_warning():
    x = torch.rand(2, 3, 16, 16)
    x[1] = 0.5
    flags = heatproof.explain(brightness(), x, "gradcam").image_flags
    assert flags == ["", "nearly one colour after preprocessing"]


def test_a_panel_notes_an_image_of_nearly_one_colour(tmp_path):
    np.save(tmp_path / "a.npy", np.full((16, 16), 30000, np.uint16))
    shown = heatproof.show(brightness(), tmp_path / "a.npy", "gradcam")
    assert shown.entries[0].note == "nearly one colour after preprocessing"
    page = shown.save(tmp_path / "out").read_text("utf-8")
    assert "The image is nearly one colour after preprocessing." in page
    assert "black and white of the file&#39;s type" in page or "black and white of the file's type" in page


def test_images_that_differ_below_eight_bits_are_not_taken_for_one_another(tmp_path):
    """An image explained before is known by what the network saw of it."""
    from heatproof.panels.show import checked_job, explained_into

    first = RNG.integers(0, 65535, (16, 16)).astype(np.uint16)
    np.save(tmp_path / "a.npy", first)
    model, out = brightness(window=(0, 65535)), tmp_path / "out"
    explained_into(out, checked_job(model, tmp_path / "a.npy"), heatproof.progress.Silent())
    np.save(tmp_path / "a.npy", first + 1)
    album = explained_into(out, checked_job(model, tmp_path / "a.npy"), heatproof.progress.Silent())
    assert album.kept == 0

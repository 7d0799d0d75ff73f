"""Files of every kind → RGB, or InvalidImage that names the file and the reason."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from torch import nn

import heatproof
from heatproof.attributions.stored import Stored
from heatproof.data import image_opener, load_images, open_image
from heatproof.data.image_opener import open_array
from heatproof.data.inputs import as_inputs
from heatproof.data.masks import load_masks
from heatproof.data.whole_files import Bounds
from heatproof.errors import InvalidImage
from heatproof.models import wrap
from heatproof.panels.image_sources import shots

RNG = np.random.default_rng(0)
#: A smooth image, 20 × 12, that tells every orientation from every other.
RAMP = np.stack(np.broadcast_arrays(np.arange(20) * 12, np.arange(12)[:, None] * 20, 90), -1).astype(np.uint8)


def saved(folder, name, image, **options):
    image.save(folder / name, **options)
    return folder / name


def pixels(path, **options):
    image = open_image(path, **options)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.fixture(autouse=True)
def pillow_untouched():
    """Pillow's settings belong to the user."""
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    yield
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """What each EXIF value means, as numpy turns of the stored rows (EXIF 2.3, 4.6.4)."""
    upright = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, "turned.png", Image.fromarray(RAMP), exif=exif)
    np.testing.assert_array_equal(pixels(path), upright[orientation](RAMP))


def test_an_orientation_that_makes_no_sense_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    path = saved(tmp_path, "odd.png", Image.fromarray(RAMP), exif=exif)
    np.testing.assert_array_equal(pixels(path), RAMP)
    broken = saved(tmp_path, "broken.jpg", Image.fromarray(RAMP), exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff")
    assert pixels(broken).shape == RAMP.shape


def test_grey_palette_bitmap_and_gif(tmp_path):
    grey = Image.fromarray(RAMP[..., 0])
    for name in ("g.png", "g.bmp", "g.tif", "g.pgm", "g.webp"):
        options = {"lossless": True} if name == "g.webp" else {}
        np.testing.assert_array_equal(pixels(saved(tmp_path, name, grey, **options)), RAMP[..., [0, 0, 0]])
    palette = Image.fromarray(RAMP).quantize(200)
    np.testing.assert_array_equal(pixels(saved(tmp_path, "p.png", palette)), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(RAMP[..., 0] > 100)
    assert bits.mode == "1"
    np.testing.assert_array_equal(pixels(saved(tmp_path, "b.png", bits))[..., 1], (RAMP[..., 0] > 100) * 255)
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    path = saved(tmp_path, "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    assert (pixels(path) == (255, 0, 0)).all()


def test_transparent_pixels_are_laid_on_white(tmp_path):
    rgba = np.dstack([np.full((4, 6, 3), (200, 0, 100), np.uint8), np.full((4, 6), 255, np.uint8)])
    rgba[:, :2, 3], rgba[:, 2:4, 3] = 0, 128
    seen = pixels(saved(tmp_path, "clear.png", Image.fromarray(rgba)))
    expected = {0: (255, 255, 255), 2: (227, 127, 177), 4: (200, 0, 100)}  # 255 + (c − 255) · 128 / 255
    for column, colour in expected.items():
        assert np.abs(seen[:, column].astype(int) - colour).max() <= 1
    la = Image.fromarray(rgba).convert("LA")
    assert (pixels(saved(tmp_path, "la.png", la))[:, 0] == 255).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert (pixels(saved(tmp_path, "hole.png", palette, transparency=1)) == 255).all()
    assert (pixels(saved(tmp_path, "whole.png", palette, transparency=0)) == (10, 20, 30)).all()
    key = Image.new("RGB", (4, 4), (1, 2, 3))
    assert (pixels(saved(tmp_path, "key.png", key, transparency=(1, 2, 3))) == 255).all()


def test_cmyk(tmp_path):
    """No ink is white; full cyan has no red."""
    ink = np.zeros((8, 16, 4), np.uint8)
    ink[:, 8:, 0] = 255
    for name, options in (("ink.jpg", {"quality": 100}), ("ink.tif", {})):
        seen = pixels(saved(tmp_path, name, Image.fromarray(ink, "CMYK"), **options))
        assert seen[:, 1].min() > 250 and seen[:, 14, 0].max() < 5 and seen[:, 14, 1:].min() > 250


def png(width, height, depth, colour, rows):
    """A PNG from its parts, so that no Pillow version decides what is in it."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)
    expected = np.repeat((values / 257).round().astype(np.uint8)[..., None], 3, 2)
    (tmp_path / "deep.png").write_bytes(png(6, 4, 16, 0, [row.astype(">u2").tobytes() for row in values]))
    np.testing.assert_array_equal(pixels(tmp_path / "deep.png"), expected)
    np.testing.assert_array_equal(pixels(saved(tmp_path, "deep.tif", Image.fromarray(values))), expected)
    (tmp_path / "deep.pgm").write_bytes(b"P5 6 4 65535\n" + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(pixels(tmp_path / "deep.pgm"), expected)
    rgb = np.repeat(values[..., None], 3, 2).astype(">u2")
    (tmp_path / "rgb.png").write_bytes(png(6, 4, 16, 2, [row.tobytes() for row in rgb]))
    np.testing.assert_array_equal(pixels(tmp_path / "rgb.png"), expected)


def test_numbers_without_a_known_white_are_refused(tmp_path):
    floats = saved(tmp_path, "f.tif", Image.fromarray(9 * RNG.random((5, 5), np.float32)))
    wide = saved(tmp_path, "i.tif", Image.fromarray(np.full((5, 5), 1 << 20, np.int32)))
    for path in (floats, wide):
        with pytest.raises(InvalidImage, match=rf"^{path.name}: .*nothing says which are black and white"):
            open_image(path)
        assert pixels(path, window=(0, 1 << 20)).shape == (5, 5, 3)


def test_one_pixel_opens(tmp_path):
    path = saved(tmp_path, "dot.png", Image.new("RGB", (1, 1), (5, 6, 7)))
    assert pixels(path).tolist() == [[[5, 6, 7]]]


def jpeg(size=(64, 48)):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.jpg", b"these are words, not an image\n" * 20, "is not an image in a known format"),
        ("cut.jpg", jpeg()[:-900], "is broken or cut off"),
        ("stump.jpg", jpeg()[:40], "is not an image|is broken or cut off"),
        (
            "cut.png",
            png(64, 64, 8, 0, RNG.integers(0, 256, (64, 64), np.uint8))[:-999],
            "is broken or cut off",
        ),
        ("noise.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is not an image|is broken or cut off"),
        ("empty.jpg", b"", "is empty"),
        # Pillow would start Ghostscript for this one.
        ("script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "is not an image"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_is_no_image_is_named_with_a_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidImage, match=rf"^{name}: ({reason})"):
        open_image(tmp_path / name)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InvalidImage, match=r"^gone\.jpg: missing file$"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(InvalidImage, match="cannot be read"):
        open_image(tmp_path)


@pytest.mark.parametrize("side", [10_001, 12_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_goes_off(tmp_path, side):
    """Just over our limit, over Pillow's warning, over its error: the same answer, and no warning leaks."""
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 0, [b""]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InvalidImage, match=r"^bomb\.png: has .*pixels.*make it smaller"):
            open_image(tmp_path / "bomb.png")


def test_the_limit_can_be_set(tmp_path):
    path = saved(tmp_path, "ramp.png", Image.fromarray(RAMP))
    assert pixels(path, max_pixels=240).shape == (12, 20, 3)
    with pytest.raises(InvalidImage, match=r"has 20 × 12 pixels, over the limit of 239"):
        open_image(path, max_pixels=239)


def test_names_that_are_not_text(tmp_path):
    path = tmp_path / "bad\udce9<b>'\" .jpg"
    path.write_bytes(b"words")
    with pytest.raises(InvalidImage) as caught:
        open_image(path)
    assert str(caught.value).encode() and str(caught.value).startswith("bad\\xe9<b>'\" .jpg: ")


# --- arrays ---


def test_an_array_is_read_as_it_was_saved(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    found = open_array(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, values)
    found[:] = 0  # a copy: the file stays
    np.testing.assert_array_equal(open_array(tmp_path / "a.npy"), values)


def test_an_array_that_says_it_is_huge_is_refused_before_it_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((12, 20)))
    assert open_array(tmp_path / "a.npy", 240).shape == (12, 20)
    with pytest.raises(InvalidImage, match=r"^a\.npy: has 240 values, over the limit of 239"):
        open_array(tmp_path / "a.npy", 239)
    with (tmp_path / "bomb.npy").open("wb") as file:  # 8 TB by its header, and on no disk
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    with pytest.raises(InvalidImage, match=r"^bomb\.npy: "):
        open_array(tmp_path / "bomb.npy")


def test_what_is_no_array_is_refused(tmp_path):
    np.save(tmp_path / "code.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_bytes(b"no array")
    (tmp_path / "empty.npy").touch()
    for name in ("code", "text", "empty", "missing"):
        with pytest.raises(InvalidImage, match=rf"^{name}\.npy: cannot be read"):
            open_array(tmp_path / f"{name}.npy")
    np.savez(tmp_path / "several.npz", np.zeros(2))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    with pytest.raises(InvalidImage, match="is an archive of several arrays"):
        open_array(tmp_path / "several.npy")


# --- one opener ---


def test_every_way_to_a_file_checks_its_size_first(tmp_path, monkeypatch):
    """An image for the engine, in a folder, for panels, as a mask and as a stored map: one opener, one reason."""
    saved = tmp_path / "a.png"
    Image.fromarray(np.zeros((12, 20), np.uint8)).save(saved)
    model = wrap(nn.Conv2d(3, 2, 1), size=8)
    decoded = image_opener._decoded
    monkeypatch.setattr(image_opener, "_decoded", lambda image, file, _: decoded(image, file, Bounds(239, 99)))
    ways = (
        lambda: as_inputs(saved, model.geometry).batch(slice(0, 1)),
        lambda: load_images(tmp_path).open(0),
        lambda: shots(saved, model)[0].open(),
        lambda: load_masks(tmp_path).mask("a.jpg", (12, 20)),
        lambda: Stored("maps", tmp_path)("a.jpg"),
    )
    for way in ways:
        with pytest.raises(InvalidImage, match=r"a\.png: has 20 × 12 pixels, over the limit of 239"):
            way()


def test_pillow_opens_files_in_one_place_only():
    source = Path(heatproof.__file__).parent
    found = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if "Image.open(" in path.read_text()}
    ours = {"perturbations/natural.py", "report/printing.py"}  # these decode what heatproof has encoded
    assert found == {"data/image_opener.py", *ours}

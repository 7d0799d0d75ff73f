"""Files that are made to do harm: bombs, huge headers, names that lead elsewhere or become code in a table."""

import contextlib
import io
import os
import struct
import time
import zipfile
import zlib

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from heatproof import cli, targets
from heatproof.archives import Archive
from heatproof.attributions.stored import Stored
from heatproof.class_names import checked_names
from heatproof.data import load_images
from heatproof.data.image_opener import header_size, open_array, open_grey, open_mask, open_pixels
from heatproof.data.labels import read_labels
from heatproof.data.masks import load_masks
from heatproof.errors import HeatproofWarning, InvalidImage, InvalidInput, InvalidStudy
from heatproof.files import without_formulas
from heatproof.paper_table import PaperCell, PaperRow, PaperTable
from heatproof.spelling import parse, scalar
from heatproof.studies.studyfile import read_settings

# --- YAML ---

BILLION = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP_ALIASES = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 80))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BILLION, r"line 4: aliases repeat more than 10,000 values"),
        (BILLION.replace("[", "{<<: ", 1).replace("]", "}", 1), "aliases|must be YAML"),
        ("a: &a [*a]\n", r"line 1: `\*a` holds itself"),
        ("a: " + "[" * 5000, r"line 1: lists and mappings lie more than 50 deep"),
        ("a: " + "{a: " * 5000, r"line 1: lists and mappings lie more than 50 deep"),
        (DEEP_ALIASES, r"lists and mappings lie more than 50 deep"),
        ("a: !!bool x\n", "must be YAML"),
        (f"a: {'9' * 5000}\n", "must be YAML"),
    ],
)
def test_yaml_grows_within_bounds(tmp_path, text, said):
    (tmp_path / "study.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(InvalidStudy, match=said) as refused:
        read_settings(tmp_path / "study.yaml")
    assert time.process_time() - start < 1 and len(str(refused.value)) < 500


def test_ordinary_anchors_work(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "base: &base {spec: shapes}\nmodels: [{<<: *base, name: a}, *base]\n"
        "more: [&other {name: b, size: 3}, {<<: *other, name: c}]\n"
    )
    settings, lines = read_settings(tmp_path / "study.yaml")
    assert settings["more"][1] == {"name": "c", "size": 3}  # what is merged may be changed
    assert settings["models"] == [{"spec": "shapes", "name": "a"}, {"spec": "shapes"}] and lines["models.1"] == 1


def test_a_study_file_of_gigabytes_is_not_read(tmp_path):
    with (tmp_path / "study.yaml").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(InvalidStudy, match="over the limit of 20,000,000"):
        read_settings(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{" * 5000, "9" * 100_000, "[&a [x], *a, *a]", "!!bool x", "0x" + "9" * 5000, "a: " * 500]
)
def test_a_value_of_a_spelling_is_text_where_it_is_too_much(text):
    start = time.process_time()
    assert isinstance(scalar(text), str) and time.process_time() - start < 1


def test_a_spelling_is_read_in_a_moment():
    start = time.process_time()
    for text in ("x[" + "a=" * 5000 + "]", "x@" + "a[1]" * 5000, "9" * 20_000, "x[a=" + '"' * 5000):
        with contextlib.suppress(InvalidInput):
            parse(text)
    assert time.process_time() - start < 1


def test_targets_of_absurd_numbers_are_no_rules():
    """`top999999999` would be a list of so many rules."""
    assert targets.one_by_one("top999999999") == ["top999999999"]
    assert not targets.is_rule("top999999999") and not targets.is_rule("9" * 5000)


# --- arrays ---


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + content


def archive(path, members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", kind) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
OBJECTS = "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npy(HUGE), "8,000,000,000,000 bytes, over the limit"),
        (npy(HUGE.replace("1000000, 1000000", "3000, 3000")), "says that it has 72,000,000 bytes, and holds"),
        (npy(OBJECTS, b"cos\nsystem\n"), "holds Python objects"),
        (npy(HUGE.replace("1000000,", "-1,")), "limit|cannot be read"),
        (npy("{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': ()}"), "cannot be read"),
        (b"no array", "cannot be read"),
    ],
)
def test_an_archive_is_checked_before_it_is_unpacked(tmp_path, content, said):
    path = archive(tmp_path / "maps.npz", {"a.npy": content})
    with Archive(path) as arrays, pytest.raises(InvalidImage, match=rf"^maps\.npz: `a` .*({said})"):
        arrays["a"]
    with pytest.raises(InvalidImage, match=said):
        Stored("mine", path)("a.png")


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    """Two kilobytes of a header that is true, and 1.6 GB of zeros packed to a thousandth."""
    path = tmp_path / "maps.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made, made.open("a.npy", "w") as member:
        member.write(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (20000, 10000), }"))
        for _ in range(16):
            member.write(bytes(1 << 20))
    start = time.process_time()
    with Archive(path) as arrays, pytest.raises(InvalidImage, match="1,600,000,000 bytes, over the limit"):
        arrays["a"]
    assert time.process_time() - start < 1
    with Archive(path, 1 << 40) as arrays, pytest.raises(InvalidImage, match="says that it has 1,600,000,000 bytes"):
        arrays["a"]


def test_archives_are_read_as_numpy_writes_them(tmp_path):
    maps = {
        "a.jpg": np.ones((2, 3), np.float16),
        "../b": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "c/d": "text",
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "maps.npz", **maps)
        with Archive(tmp_path / "maps.npz") as arrays:
            assert {name: np.asarray(value).tolist() for name, value in arrays.items()} == {
                name: np.asarray(value).tolist() for name, value in maps.items()
            }


def test_names_in_an_archive_lead_nowhere(tmp_path):
    path = archive(
        tmp_path / "maps.npz", {"../../up.npy": npy_of(np.ones((2, 2))), "/etc/x.npy": npy_of(np.ones((2, 2)))}
    )
    before = sorted(tmp_path.rglob("*"))
    maps = Stored("mine", path)
    assert maps("../../up.png") is None and maps("up") is None and sorted(tmp_path.rglob("*")) == before


def npy_of(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_maps_and_masks_lie_in_their_folder(tmp_path):
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "secret.npy", np.ones((2, 2)))
    np.save(tmp_path / "maps" / "a.npy", np.zeros((2, 2)))
    maps, masks = Stored("mine", tmp_path / "maps"), load_masks(tmp_path / "maps")
    for name in ("../secret.png", "..\\secret.png", str(tmp_path / "secret.png"), "x/../../secret.npy"):
        assert maps(name) is None and not maps.holds(name) and masks.mask(name, (2, 2)) is None
    assert maps("../a.png") is not None  # `..` is left out, and the name found in the folder


def test_huge_headers_are_refused_before_anything_is_read(tmp_path):
    (tmp_path / "a.npy").write_bytes(npy(HUGE))
    for opened in (open_array, open_pixels, open_grey, open_mask):
        with pytest.raises(InvalidImage, match=r"^a\.npy: "):
            opened(tmp_path / "a.npy")
    with pytest.raises(InvalidInput, match=r"must be a file that numpy can read"):
        Stored("mine", tmp_path / "a.npy", ("a", "b"))("a")


# --- images ---


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, kind: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "kind"), [(8, 0), (8, 2), (16, 0), (16, 2), (16, 4), (16, 6)])
def test_gigapixels_are_refused(tmp_path, bits, kind):
    (tmp_path / "a.png").write_bytes(png(60_000, 60_000, bits, kind, bytes(9)))
    with pytest.raises(InvalidImage, match=r"^a\.png: has (60000 × 60000|far too many) pixels"):
        open_pixels(tmp_path / "a.png")


def encoded(image, format, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_of_height(content: bytes, height: int) -> bytes:
    """A PNG whose header says another height, with a right sum."""
    return content[:8] + chunk(b"IHDR", content[16:20] + struct.pack(">I", height) + content[24:29]) + content[33:]


def tiff_of_height(content: bytes, height: int) -> bytes:
    """A little-endian TIFF whose header says another height (tag 257)."""
    at = next(at for kind in (3, 4) if (at := content.find(struct.pack("<HHI", 257, kind, 1))) > 0)
    return content[:at] + struct.pack("<HHII", 257, 4, 1, height) + content[at + 12 :]


RED = Image.new("RGB", (9, 6), (200, 9, 9))
BIG = 9_000_000


def sparse_files():
    """Files of a few hundred bytes that say, or hold, tens of millions of pixels: by format."""
    one = Image.new("L", (7000, 7000))
    raw = io.BytesIO()
    Image.fromarray(np.full((6, 9), 300, np.uint16)).save(raw, "TIFF")
    return {
        "png": png_of_height(encoded(RED, "PNG"), BIG),
        "one-bit.png": png_of_height(encoded(RED.convert("1"), "PNG"), BIG),
        "sixteen-bits.png": png(9, BIG, 16, 2, bytes(55 * 6)),
        "tif": tiff_of_height(encoded(RED, "TIFF"), BIG),
        "packed.tif": tiff_of_height(encoded(RED, "TIFF", compression="packbits"), BIG),
        "deep.tif": tiff_of_height(raw.getvalue(), BIG),
        "webp": encoded(one, "WEBP", lossless=True, method=0, quality=0),
        "jp2": (jp2 := encoded(RED, "JPEG2000"))[: (at := jp2.index(b"ihdr") + 4)]
        + struct.pack(">II", 9000, 9000) + jp2[at + 8 :],
        "gif": (gif := encoded(RED.convert("L"), "GIF"))[:6] + struct.pack("<HH", 9000, 9000) + gif[10:],
        "jpg": (jpg := encoded(RED, "JPEG"))[: (at := jpg.index(b"\xff\xc0") + 5)]
        + struct.pack(">HH", 9000, 9000) + jpg[at + 4 :],
        "bmp": (bmp := encoded(RED, "BMP"))[:18] + struct.pack("<II", 9000, 9000) + bmp[26:],
        "ppm": b"P6\n9000 9000\n255\n" + bytes(99),
    }  # fmt: skip


@pytest.mark.parametrize("ending", list(sparse_files()))
def test_a_file_that_is_too_small_for_its_pixels_is_refused_by_its_header(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(sparse_files()[ending])
    assert path.stat().st_size < 1000
    start = time.process_time()
    for opened in (open_pixels, open_mask, open_grey):
        with pytest.raises(InvalidImage, match=rf"^a\.{ending}: says that it has"):
            opened(path)
    assert time.process_time() - start < 0.5


def test_a_dicom_file_that_is_too_small_for_its_pixels_is_refused_by_its_header(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    one = pydicom.dataset.Dataset()
    one.Rows = one.Columns = 9000
    one.PhotometricInterpretation = "MONOCHROME2"
    one.file_meta = pydicom.dataset.FileMetaDataset()
    one.file_meta.TransferSyntaxUID = pydicom.uid.RLELossless
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = "1.2.3", "1.2.3.4"
    pydicom.dcmwrite(tmp_path / "a.dcm", one, enforce_file_format=True)
    with pytest.raises(InvalidImage, match=r"^a\.dcm: says that it has 9000 × 9000 pixels, and holds \d{3} bytes"):
        open_pixels(tmp_path / "a.dcm")


def test_a_part_that_says_it_is_larger_than_the_memory_is_broken(tmp_path):
    """JPEG 2000: a box of 2**62 bytes in the header; Pillow reads as many as it says (found by `make fuzz`)."""
    content = encoded(RED, "JPEG2000")
    at = content.index(b"jp2h") - 4
    box = struct.pack(">I4sQ", 1, b"jp2h", 2**62)
    (tmp_path / "a.jp2").write_bytes(content[:at] + box + content[at + 8 :])
    with pytest.raises(InvalidImage, match=r"^a\.jp2: is broken or cut off"):
        open_pixels(tmp_path / "a.jp2")
    assert header_size(tmp_path / "a.jp2") is None


def test_plain_images_of_one_colour_are_read(tmp_path):
    """What packs best, at the sizes of screens."""
    for name, options in (("a.png", {}), ("a.gif", {}), ("a.jpg", {}), ("a.webp", {"lossless": True})):
        Image.new("L", (2560, 1440)).save(tmp_path / name, **options)
        assert open_pixels(tmp_path / name).size == (2560, 1440)


@pytest.mark.parametrize(
    ("bits", "kind", "channels"), [(8, 0, 1), (8, 2, 3), (8, 6, 4), (16, 0, 1), (16, 2, 3), (16, 6, 4)]
)
def test_a_png_with_missing_rows_is_broken_and_not_black(tmp_path, bits, kind, channels):
    """Pillow reads it, with black rows."""
    row = b"\0" + b"\7" * (5 * channels * bits // 8)
    for rows, black in ((10, 0), (6, 4)):  # black rows that are there are read
        (tmp_path / "a.png").write_bytes(png(5, 10, bits, kind, row * rows + bytes(len(row)) * black))
        assert open_pixels(tmp_path / "a.png").size == (5, 10)
    for rows in (9, 6, 1):
        (tmp_path / "a.png").write_bytes(png(5, 10, bits, kind, row * rows))
        for opened in (open_pixels, open_mask):
            with pytest.raises(InvalidImage, match=rf"broken or cut off \(it holds {10 * rows} % of its pixels"):
                opened(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (9, 6), (17, 23)])
def test_an_interlaced_png_is_read_whole_or_not(tmp_path, size):
    """The seven passes of PNG 1.2, 2.6, written out by hand."""
    width, height = size
    values = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [values[y::dy, x::dx] for x, y, dx, dy in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)

    def written(content: bytes):
        body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        return tmp_path / "a.png"

    np.testing.assert_array_equal(open_grey(written(rows)), values)
    with pytest.raises(InvalidImage, match="broken or cut off"):
        open_grey(written(rows[:-1]))


def test_a_tiff_with_missing_strips_is_broken_and_not_black(tmp_path):
    """Pillow reads it, with black rows."""
    (tmp_path / "a.tif").write_bytes(tiff_of_height(encoded(RED, "TIFF", tiffinfo={278: 6}), 60))
    with pytest.raises(InvalidImage, match="says that it has 9 × 60 pixels, and holds 6 rows"):
        open_pixels(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [2, 4, 6])
@pytest.mark.parametrize("filters", range(5))
def test_sixteen_bits_are_read_whatever_the_filter(tmp_path, kind, filters):
    """Each row by one of PNG's five filters (PNG 1.2, 6), written out by hand."""
    channels = {2: 3, 4: 2, 6: 4}[kind]
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, channels)).astype(np.uint16)
    raw = values.astype(">u2").view(np.uint8).reshape(4, -1).astype(int)
    step = 2 * channels
    rows = b""
    for y, row in enumerate(raw):
        above = raw[y - 1] if y else np.zeros_like(row)
        left, corner = (np.concatenate([np.zeros(step, int), one[:-step]]) for one in (row, above))
        near = np.stack([left, above, corner])
        paeth = near[np.abs(left + above - corner - near).argmin(0), np.arange(len(row))]
        taken = (0, left, above, (left + above) // 2, paeth)[filters]
        rows += bytes([filters]) + ((row - taken) % 256).astype(np.uint8).tobytes()
    (tmp_path / "a.png").write_bytes(png(5, 4, 16, kind, rows))
    found = open_pixels(tmp_path / "a.png")
    colours = channels - (channels + 1) % 2
    np.testing.assert_array_equal(found.values, values[..., :colours])
    if channels > colours:
        np.testing.assert_allclose(found.alpha, values[..., -1] / 65535, rtol=1e-6)


def test_a_damaged_deep_png_is_an_error_and_not_the_end_of_the_process(tmp_path):
    """torchvision 0.30's decoder ends the process on a filter that does not exist."""
    for kind, channels in ((2, 3), (4, 2), (6, 4)):
        for filters in (5, 99, 255):
            (tmp_path / "a.png").write_bytes(png(5, 4, 16, kind, (bytes([filters]) + bytes(10 * channels)) * 4))
            with pytest.raises(InvalidImage, match=r"^a\.png: is broken or cut off"):
                open_pixels(tmp_path / "a.png")


def test_a_deflated_dicom_bomb_is_not_inflated(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset

    one = Dataset()
    one.Rows = one.Columns = 4
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = "1.2.3", "1.2.3.4"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, one, enforce_file_format=True)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    packed = b"".join(packer.compress(zeros) for _ in range(90)) + packer.flush()
    content = buffer.getvalue()
    head = content[: 144 + struct.unpack("<I", content[140:144])[0]]  # what is not deflated (PS3.10, 7.1)
    (tmp_path / "a.dcm").write_bytes(head + packed)
    with pytest.raises(InvalidImage, match=r"^a\.dcm: .*decompression bomb"):
        open_pixels(tmp_path / "a.dcm", max_pixels=10_000_000)


# --- files that are none, names that lead elsewhere ---


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "images").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("a.png", "b.npy"):
        (tmp_path / "images" / name).symlink_to(tmp_path / "pipe")
    with pytest.warns(HeatproofWarning, match="some links lead out of the folder"):
        images = load_images(tmp_path / "images")
    assert images.fingerprint
    for row in range(2):
        with pytest.raises(InvalidImage, match="it is no regular file"):
            images.open(row)
    for read, said in ((read_labels, "labels"), (load_masks, "masks"), (checked_names, "classes")):
        with pytest.raises(InvalidInput, match=f"`{said}` must be"):
            read(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="no regular file"):
        read_labels("/dev/zero")


def test_links_out_of_the_folder_are_followed_with_a_warning(tmp_path):
    (tmp_path / "images" / "more").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "more" / "a.png")
    (tmp_path / "images" / "inside.png").symlink_to("more/a.png")
    assert load_images(tmp_path / "images").ids == ["inside.png", "more/a.png"]  # no warning: it stays inside
    (tmp_path / "images" / "passwd.png").symlink_to("/etc/passwd")
    with pytest.warns(HeatproofWarning, match=r"lead out of the folder: passwd\.png\. They are followed"):
        images = load_images(tmp_path / "images")
    with pytest.raises(InvalidImage, match=r"^passwd\.png: is not an image in a known format$"):
        images.open(images.ids.index("passwd.png"))


def test_labels_lead_nowhere(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    names = ["a.png", "../secret.png", str(tmp_path / "secret.png")]
    (tmp_path / "labels.csv").write_text(
        "file,class_index\n" + "".join(f"{name},0\n" for name in [*names[:2], "b.png", "a.png"])
    )
    with pytest.raises(InvalidInput, match="are not in"):
        load_images(tmp_path / "images", tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text("file,class_index\na.png,0\n../secret.png,0\n")
    images = load_images(tmp_path / "images", tmp_path / "labels.csv")
    before = images.fingerprint
    (tmp_path / "secret.png").write_bytes(b"changed")
    assert load_images(tmp_path / "images", tmp_path / "labels.csv").fingerprint == before  # it was never looked at
    with pytest.raises(InvalidImage, match=r"secret\.png: missing file"):
        images.open(images.ids.index("../secret.png"))


def test_a_label_file_in_which_no_image_has_a_class(tmp_path):
    from heatproof.data.labels import labels_by_ending

    (tmp_path / "labels.csv").write_text("file,hen,cock\na.png,0,0\n")
    with pytest.raises(InvalidInput, match=r"gives no image a class: the first is 'a\.png'"):
        labels_by_ending(["a.png"], tmp_path / "labels.csv", True)


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_names_that_no_file_system_takes(name, tmp_path):
    for ask in (lambda: load_images(name), lambda: load_masks(name), lambda: Stored("mine", name)):
        with pytest.raises(InvalidInput):
            ask()
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"study": "score", "models": name, "datasets": name}))
    assert read_settings(tmp_path / "study.yaml")[0]["models"] == [name]


# --- names that become code where they are written ---

HOSTILE = ('=cmd|"/c calc"!A1', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "<script>alert(1)</script>", r"\input{/etc/passwd}")


def test_texts_of_tables_are_no_formulas():
    frame = pd.DataFrame({"image": [*HOSTILE, "plain", None], "=x": [-1.5, 2, 3, 4, 5, 6, 7, 8, np.nan]})
    frame["number"] = ["-1.5", "+3", "-inf", *["x"] * 6]
    written = without_formulas(frame)
    assert list(written["image"][:5]) == [f"'{name}" for name in HOSTILE[:5]]
    assert list(written["image"][5:8]) == [*HOSTILE[5:], "plain"]
    assert list(written.columns) == ["image", "'=x", "number"] and list(written["number"][:3]) == ["-1.5", "+3", "-inf"]
    assert written["'=x"].equals(frame["=x"].rename("'=x")) and frame["image"][0] == HOSTILE[0]


def test_a_paper_table_is_no_program():
    table = PaperTable(
        "a", HOSTILE[-1], ["method", HOSTILE[5]], [PaperRow(name, [PaperCell(name)]) for name in HOSTILE]
    )
    assert "\\input" not in table.to_latex().replace("\\textbackslash{}input", "")
    assert "<script>" not in table.to_markdown().replace("\\<script\\>", "")


def test_names_do_not_steer_the_terminal(tmp_path, capsys):
    name = "a\x1b]0;owned\x07\x1b[2Jb.yaml"
    with pytest.raises(SystemExit):
        cli.main(["run", str(tmp_path / name)])
    err = capsys.readouterr().err
    assert "\x1b" not in err and "\\x1b]0;owned\\x07" in err


def test_a_json_of_names_without_end(tmp_path):
    (tmp_path / "names.json").write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match="must be JSON"):
        checked_names(tmp_path / "names.json")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "group4"}], ids=str)
def test_a_tiff_of_any_orientation_is_whole(tmp_path, orientation, options):
    """Pillow turns the size of the image, and not that of its strips."""
    mode = "1" if options.get("compression") == "group4" else "L"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)).convert(mode)
    image.save(tmp_path / "a.tif", tiffinfo={274: orientation}, **options)
    turned = (30, 40) if orientation < 5 else (40, 30)
    assert open_pixels(tmp_path / "a.tif").size == turned
    assert open_mask(tmp_path / "a.tif").shape == turned[::-1]


@pytest.mark.parametrize("options", [{"format": "TIFF", "compression": "group4"}, {"format": "WEBP", "lossless": True}])
def test_an_empty_mask_of_a_large_scan_is_read(tmp_path, options):
    """A few hundred bytes for 15 million pixels."""
    side = 4000
    Image.new("1" if options["format"] == "TIFF" else "L", (side, side - 250)).save(tmp_path / "a.tif", **options)
    assert (tmp_path / "a.tif").stat().st_size < 3000
    assert not open_mask(tmp_path / "a.tif").any()

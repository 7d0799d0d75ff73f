"""The readers of `fuzz.py`: sound inputs for each, edits that damage them, and what reads the result."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fuzzed_words import BYTES, JSON, NUMPY_WORDS, PICKLE_WORDS, SIGNS, TEXT, YAML, ZIP
from PIL import Image

SIDE = (6, 9)
#: Whole numbers at which readers go wrong.
NUMBERS = (
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63,
    2**64,
    10**30,
)


class Reader(NamedTuple):
    """One reader: its name, its sound inputs, the words that edits put in, what reads an input, how damage is mended.

    `mended` makes the sums and lengths of a damaged input right again, so that the damage reaches what lies behind.
    """

    name: str
    inputs: Callable[[], Sequence[bytes]]
    words: Sequence[bytes]
    read: Callable[[bytes, Path], Any]
    mended: Callable[[bytes], bytes] | None = None


def case_of(reader: Reader, number: int) -> bytes:
    """The input of a case."""
    rng = random.Random(f"{reader.name} {number}")
    inputs = reader.inputs()
    content = inputs[rng.randrange(len(inputs))]
    for _ in range(1 + min(int(rng.expovariate(0.5)), 12)):
        content = edited(content, rng, reader.words, inputs)
    return reader.mended(content) if reader.mended and rng.random() < 0.7 else content


def edited(content: bytes, rng: random.Random, words: Sequence[bytes], inputs: Sequence[bytes]) -> bytes:
    """The content with one edit."""
    at = rng.randrange(len(content) + 1)
    end = min(len(content), at + 1 + int(rng.expovariate(0.1)))
    kind = rng.randrange(10)
    if kind == 0:
        return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    if kind == 1:
        flipped = bytes([content[at] ^ (1 << rng.randrange(8))]) if at < len(content) else b"\0"
        return content[:at] + flipped + content[at + 1 :]
    if kind == 2:
        return content[:at] + content[end:]
    if kind == 3:
        return content[:at] + rng.choice(words) + content[at:]
    if kind == 4:
        return content[:at] + rng.choice(words) + content[end:]
    if kind == 5:
        times = rng.choice((1, 1, 1, 2, 8, 64, 1000))
        return content[:at] + content[at:end] * (1 + times) + content[end:]
    if kind == 6:
        other = rng.choice(inputs)
        start = rng.randrange(len(other) + 1)
        return content[:at] + other[start : start + 1 + int(rng.expovariate(0.02))] + content[end:]
    if kind == 7:
        return (
            content[:at]
            if rng.random() < 0.3
            else content[:at] + bytes(rng.randrange(256) for _ in range(3)) + content[at:]
        )
    if kind == 8:
        return _number_in_text(content, rng)
    packed = struct.pack(rng.choice("<>") + rng.choice("BHIQ"), 0)
    value = rng.choice(NUMBERS) % 256 ** len(packed)
    return content[:at] + value.to_bytes(len(packed), rng.choice(("little", "big"))) + content[at + len(packed) :]


def _number_in_text(content: bytes, rng: random.Random) -> bytes:
    """One decimal number replaced by another."""
    starts = [i for i, c in enumerate(content[:4000]) if 48 <= c < 58 and not (i and 48 <= content[i - 1] < 58)]
    if not starts:
        return content
    at = end = rng.choice(starts)
    while end < len(content) and 48 <= content[end] < 58:
        end += 1
    return content[:at] + str(rng.choice(NUMBERS)).encode() + content[end:]


# --- spellings ---


def _spellings() -> Sequence[bytes]:
    texts = (
        *("gradcam", "gradcam@layer4", "gradcam@features[7][-1]", "refine:layercam@layer2+layer4[operator=product]"),
        *("road[ties=block,kept=20 50]", "deletion[steps=56]", "quickshift[kernel=3]", "gaussian[sigma=1e-2]"),
        *('split[of="slic[n_segments=30]"]', "rise[masks=8000]", 'x[a="\\"b,c\\\\",d=[1, 2, {"e": null}]]'),
        *("maps:nowhere", "quantus:Sparseness", "top3", "label:2", "predicted", "0", "a=b,c=.5,d=.inf"),
        *("x[a=2020-01-02,b=0x1F,c=1:30,d=~,e=[a, b]]", "gradcam=Grad-CAM (ours)", "rise.masks=8000"),
    )
    return [text.encode() for text in texts]


def _read_spelling(content: bytes, folder: Path) -> Any:
    import torch

    from heatproof import spelling, targets
    from heatproof.attributions import requested
    from heatproof.cli import options
    from heatproof.metrics.metric_request import parsed_metric
    from heatproof.perturbations import PERTURBATIONS
    from heatproof.segments import SEGMENTERS

    text = content.decode("utf-8", "surrogateescape")
    if "python:" in text or "quantus:" in text:
        text = text.replace(":", ";")
    names = ("a hen", "a cock")
    logits = torch.zeros(1, 4)
    answers = [
        lambda: requested([text]),
        lambda: parsed_metric(text),
        lambda: PERTURBATIONS.parse(text),
        lambda: SEGMENTERS.parse(text),
        lambda: targets.resolved(text, logits, [1], torch.zeros(1, dtype=torch.int64)),
        lambda: targets.with_indices(text, names),
        lambda: options.display_names([text]),
        lambda: options.pairs([text], "--setting"),
        lambda: options.method_options([text]),
        lambda: options.numbers("--mean", text, (1, 3)),
    ]
    spelling.listed(text), spelling.head(text)
    parsed = _or_refused(lambda: spelling.parse(text))
    if isinstance(parsed, spelling.Spelling):
        spelling.format(parsed.name, parsed.options, parsed.layers)
    start = zlib.crc32(content)  # three of the readers for each text: each looks for near misses, which takes long
    return [_or_refused(answers[(start + step) % len(answers)]) for step in (0, 3, 7)]


def _or_refused(ask: Callable[[], Any]) -> Any:
    from heatproof.errors import HeatproofError

    try:
        return ask()
    except HeatproofError as error:
        return str(error) and error


# --- study files ---

_STUDY = """study: noise-robustness
models:
  - timm:resnet18
  - spec: shapes
    name: small
    model_args: {num_classes: 3}
    mean: [0.5, .5, .5]
    std: .25
    size: 96
datasets:
  - shapes
  - images: photos
    labels: labels.csv
    masks: masks
methods: [gradcam, "refine:layercam@layer2+layer4", 'rise[masks=100]']
perturbations: [gaussian-noise, 'salt-and-pepper[amount=.1]']
segmenters: [quickshift, grid]
target: predicted
seed: 7
limit: 20
batch_size: 8
out: results
labels: {gradcam: Grad-CAM}
"""
_SCORE = """study: score
models: [&base {spec: shapes, layer: auto, name: b}, {<<: *base, name: a}]
datasets: shapes
metrics: [insertion, deletion, 'road[ties=block]']
metric_options: {deletion: {steps: 56}}
maps: [{name: mine, path: maps.npz}]
"""
_AUDIT = """study: audit
models: shapes
datasets: {images: shapes, name: "née"}
author: me
"""


def _studies() -> Sequence[bytes]:
    return [_STUDY.encode(), _SCORE.encode(), _AUDIT.encode(), b"[1, {a: b}]\n"]


def _read_study(content: bytes, folder: Path) -> Any:
    from heatproof.studies.plan import checked_plan
    from heatproof.studies.studyfile import read_settings

    path = folder / "study.yaml"
    path.write_bytes(content.replace(b"python:", b"python;"))
    settings, lines = read_settings(path)
    settings.pop("out", None)
    settings.pop("workers", None)
    return checked_plan(settings, lines, str(path))


# --- labels, boxes, names of classes ---


def _labels() -> Sequence[bytes]:
    return [
        b"file,class_index\na.png,0\nb/c.png,1\n",
        b"file,class_index,name\na.png,0,hen\nb.png,3;1,cock|tench\n",
        b'file,name\na.png,hen\n"b,c.png","a ""hen"""\n',
        "\ufefffile,label\r\na.png,7\r\nné.png,8\r\n".encode(),
        b"file,hen,cock\na.png,1,0\nb.png,,-1\n",
    ]


def _read_labels(content: bytes, folder: Path) -> Any:
    from heatproof.data.labels import labels_by_ending, read_labels

    path = folder / "labels.csv"
    path.write_bytes(content)
    _or_refused(lambda: labels_by_ending(["photos/a.png", "../../b.png"], path, True))
    return [_or_refused(lambda several=several: read_labels(path, several)) for several in (False, True)]


def _boxes() -> Sequence[bytes]:
    return [b"file,x0,y0,x1,y1\na.png,0,0,4,5\nb/a.png,1.5,2,3e0,9\n", b"y1,x1,y0,x0,file\n4,4,0,0,a\n"]


def _read_boxes(content: bytes, folder: Path) -> Any:
    from heatproof.data.masks import load_masks

    path = folder / "boxes.csv"
    path.write_bytes(content)
    return load_masks(path).mask("b/a.png", SIDE)


def _classes() -> Sequence[bytes]:
    return [
        b"hen\ncock\ntench, Tinca tinca\n", b'["hen", "cock"]', b'{"0": "hen", "1": ["n01", "cock"]}',
        b'{"id2label": {"0": "hen", "1": "cock"}}', b'{"hen": 0, "cock": 1}', b'{"label2id": {"hen": 0}}',
    ]  # fmt: skip


def _read_classes(content: bytes, folder: Path) -> Any:
    from heatproof.class_names import checked_names, class_index

    path = folder / ("names.json" if content[:1] in b"{[" else "names.txt")
    path.write_bytes(content)
    names = checked_names(path)
    return _or_refused(lambda: class_index(names[0], names))


# --- images, masks ---


def _encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@cache
def _images() -> Sequence[bytes]:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (*SIDE, 4), dtype=np.uint8)
    rgb, rgba, grey = Image.fromarray(colours[..., :3]), Image.fromarray(colours), Image.fromarray(colours[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    found = [
        _encoded(rgb, "PNG", exif=exif), _encoded(rgba, "PNG"), _encoded(rgb.quantize(7), "PNG", transparency=2),
        _encoded(grey, "PNG"), _encoded(Image.fromarray(colours[..., 0].astype(np.uint16) * 256), "PNG"),
        _encoded(grey.convert("1"), "PNG"), _deep_png(colours), _encoded(rgb, "JPEG", exif=exif),
        _encoded(rgb.convert("CMYK"), "JPEG"), _encoded(grey, "JPEG", progressive=True),
        _encoded(rgb, "GIF"), _encoded(rgb, "BMP"), _encoded(rgb, "PPM"), _encoded(grey, "PPM"),
        _encoded(rgba, "WEBP", lossless=True), _encoded(rgb, "TIFF"), _encoded(rgb, "TIFF", compression="tiff_lzw"),
        _encoded(rgb, "JPEG2000"), _npy(colours[..., :3]), _npy(colours[..., 0] / 255),
        *_tiffs(colours), *_dicoms(colours),
    ]  # fmt: skip
    return found


def _deep_png(colours: np.ndarray) -> bytes:
    import torch
    from torchvision.io import encode_png

    encoded = encode_png(torch.from_numpy(colours[..., :3]).permute(2, 0, 1).contiguous()).numpy().tobytes()
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours[..., :3].astype(np.uint16) * 257)
    head = encoded[16:24] + b"\x10\x02\0\0\0"
    return encoded[:8] + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _tiffs(colours: np.ndarray) -> Sequence[bytes]:
    import tifffile

    found = []
    for array, options in (
        (colours[..., :3].astype(np.uint16) * 257, {"photometric": "rgb"}),
        (colours[..., 0].astype(np.float32) / 255, {"photometric": "minisblack"}),
        (colours.astype(np.uint16), {"photometric": "rgb", "extrasamples": ["unassalpha"], "bigtiff": True}),
        (colours[..., :3].astype(np.uint16), {"photometric": "rgb", "compression": "zlib"}),
        (colours, {"photometric": "minisblack", "planarconfig": "contig"}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, **options)  # pyright: ignore[reportArgumentType]
        found.append(buffer.getvalue())
    return found


def _dicoms(colours: np.ndarray) -> Sequence[bytes]:
    try:
        import pydicom
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
    except ImportError:
        return []
    found = []
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        one = Dataset()
        one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = *SIDE, 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.WindowCenter, one.WindowWidth, one.RescaleSlope, one.RescaleIntercept = "40", "400", "1", "-1024"
        one.PixelData = (colours[..., 0].astype(np.uint16) * 16).tobytes()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = syntax
        one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        one.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        one["PixelData"].VR = "OW"
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, one, enforce_file_format=True)
        found.append(buffer.getvalue())
    return found


def _read_image(content: bytes, folder: Path) -> Any:
    from heatproof.data.image_opener import header_size, open_image, open_pixels
    from heatproof.geometry import Geometry

    path = folder / "image.png"
    path.write_bytes(content)
    header_size(path)
    _or_refused(lambda: open_image(path, window="auto"))
    opened = open_pixels(path)
    return Geometry((8, 8), 9).image(opened)


@cache
def _masks() -> Sequence[bytes]:
    mask = np.zeros(SIDE, bool)
    mask[2:4, 3:] = True
    whole = Image.fromarray(mask.astype(np.uint8) * 255)
    return [
        _encoded(whole, "PNG"), _encoded(whole.convert("1"), "PNG"), _encoded(whole.convert("LA"), "PNG"),
        _encoded(whole, "GIF"), _encoded(whole, "TIFF"), _encoded(whole, "BMP"), _npy(mask), _npy(mask[None]),
        _npy(mask.astype(np.float16)), _npy(mask.astype(">i8")), _npy(np.asfortranarray(mask)),
    ]  # fmt: skip


def _read_mask(content: bytes, folder: Path) -> Any:
    from heatproof.data.masks import MaskFolder

    path = folder / ("b.npy" if content[:2] == b"\x93N" else "b.png")
    path.write_bytes(content)
    return MaskFolder({"a": path}).mask("c/a.jpg", SIDE)


def _mended_image(content: bytes) -> bytes:
    """The lengths and sums of the chunks of a PNG made right, the length of the header of an array too."""
    if content[:6] == b"\x93NUMPY" and b"}" in content:
        end = content.index(b"}") + 1
        header = content[10:end] + b" " * (-(end + 1) % 64) + b"\n"
        return (
            content[:8]
            + struct.pack("<H", len(header) % 65536)
            + header
            + content[end:].lstrip(b" ").removeprefix(b"\n")
        )
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return content
    found, at = content[:8], 8
    while at + 8 <= len(content):
        length = min(struct.unpack(">I", content[at : at + 4])[0], len(content) - at - 8)
        found += _chunk(content[at + 4 : at + 8], content[at + 8 : at + 8 + length])
        at += length + 12
    return found


# --- maps made beforehand ---


def _npz(members: Sequence[tuple[str, bytes]], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


@cache
def _maps() -> Sequence[bytes]:
    one = np.arange(54, dtype=np.float32).reshape(SIDE)
    return [
        _npz([("a.jpg.npy", _npy(one)), ("../b.npy", _npy(one))]), _npz([("maps.npy", _npy(np.stack([one, one])))]),
        _npz([("a.npy", _npy(one.astype(np.float64)))], zipfile.ZIP_STORED), _npy(one), _npy(np.stack([one, one])),
        _npy(one[..., None]), _npy(one.astype(np.complex64)), *_masks()[:1],
    ]  # fmt: skip


def _read_map(content: bytes, folder: Path) -> Any:
    from heatproof.attributions.stored import Stored, as_map
    from heatproof.errors import HeatproofError
    from heatproof.geometry import Geometry

    kind = {b"PK": "npz", b"\x93N": "npy"}.get(content[:2], "png")
    path = folder / f"maps of {kind}" / f"a.{kind}"  # one folder for each kind: none is emptied
    if not path.parent.exists():
        path.parent.mkdir()
    path.write_bytes(content)
    answers = []
    for where in {"npz": (path,), "npy": (path, path.parent), "png": (path.parent,)}[kind]:
        name = "a" if where is path.parent else "c/a.jpg"  # in a folder each name that is not there costs 34 looks
        try:
            maps = Stored("mine", where, ("c/a.jpg", "d.jpg") if where is path else ())
            maps.names(), maps.holds(name), maps.fingerprint
            answers.append(as_map(maps(name), SIDE, Geometry((4, 4), 5)))
        except HeatproofError as error:
            answers.append(str(error))
    return answers


def _mended_map(content: bytes) -> bytes:
    """An archive whose members are damaged, and not the archive; with others a damaged header of a member."""
    if content[:2] != b"PK":
        return _mended_image(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        rng = random.Random(content)
        members = [("a.jpg.npy", edited(_npy(np.zeros(SIDE)), rng, NUMPY_WORDS, _maps()))]
    return _npz([(name, _mended_image(inside)) for name, inside in members])


# --- checkpoints ---


@cache
def _checkpoints() -> Sequence[bytes]:
    import torch
    from safetensors.torch import save

    weights = {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2)}
    found = [save(weights)]
    for content, options in (
        (weights, {}), ({"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}, {}),
        (weights, {"_use_new_zipfile_serialization": False}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        torch.save(content, buffer, **options)
        found.append(buffer.getvalue())
    return found


def _read_checkpoint(content: bytes, folder: Path) -> Any:
    from torch import nn

    from heatproof.models.checkpoint import load_weights

    path = folder / ("net.safetensors" if content[8:9] == b"{" else "net.pt")
    path.write_bytes(content)
    return load_weights(nn.Sequential(nn.Linear(3, 2)), path, "a network")


def _mended_checkpoint(content: bytes) -> bytes:
    """A torch file whose pickle is damaged, and not the archive around it; the right length of a safetensors header."""
    if content[8:9] == b"{" and b"}}" in content:
        end = content.index(b"}}") + 2
        return struct.pack("<Q", end - 8) + content[8:]
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:
        rng = random.Random(content)
        with zipfile.ZipFile(io.BytesIO(_checkpoints()[1])) as archive:
            members = [
                (
                    info.filename,
                    edited(inside, rng, PICKLE_WORDS, [inside]) if info.filename.endswith(".pkl") else inside,
                )
                for info in archive.infolist()
                for inside in [archive.read(info)]
            ]
    return _npz(members, zipfile.ZIP_STORED)


READERS = {
    reader.name: reader
    for reader in (
        Reader("spellings", _spellings, SIGNS, _read_spelling),
        Reader("studies", _studies, YAML, _read_study),
        Reader("labels", _labels, TEXT, _read_labels),
        Reader("boxes", _boxes, TEXT, _read_boxes),
        Reader("classes", _classes, JSON, _read_classes),
        Reader("images", _images, BYTES, _read_image, _mended_image),
        Reader("masks", _masks, BYTES, _read_mask, _mended_image),
        Reader("maps", _maps, ZIP, _read_map, _mended_map),
        Reader("checkpoints", _checkpoints, (*PICKLE_WORDS, *JSON), _read_checkpoint, _mended_checkpoint),
    )
}

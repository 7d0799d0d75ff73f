"""DICOM: rescale, window, inversion and colour as PS3.3 says, checked against its formulas by hand."""

import numpy as np
import pytest

from heatproof.data import dicom, load_images
from heatproof.data.image_opener import open_pixels
from heatproof.errors import InvalidImage, MissingExtra
from heatproof.geometry import Geometry

STORED = np.random.default_rng(0).integers(0, 4096, (10, 14)).astype(np.uint16)


def written(path, stored=STORED, kind="MONOCHROME2", bits=12, **more):
    """A DICOM file of one image."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = pydicom.Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.PhotometricInterpretation = kind
    made.Rows, made.Columns = stored.shape[:2]
    made.SamplesPerPixel = stored.shape[2] if stored.ndim == 3 else 1
    if stored.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * stored.dtype.itemsize, bits, bits - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.PixelData = stored.tobytes()
    for name, value in more.items():
        setattr(made, name, value)
    made.save_as(path, enforce_file_format=True)
    return path


def seen(path, window=None):
    image = open_pixels(path)
    return Geometry((image.height, image.width), window=window).image(image)[0].numpy()


def test_stored_bits_are_the_range_without_a_window(tmp_path):
    np.testing.assert_allclose(seen(written(tmp_path / "a.dcm")), STORED / 4095, atol=1e-6)


def test_the_window_of_the_file_in_rescaled_units(tmp_path):
    """C.11.2.1.2: linear between c − .5 − (w − 1) / 2 and c − .5 + (w − 1) / 2, of slope · stored + intercept."""
    path = written(
        tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=[40, 9], WindowWidth=[400, 9]
    )
    units = 2.0 * STORED - 1024
    low, high = 40 - 0.5 - 399 / 2, 40 - 0.5 + 399 / 2
    np.testing.assert_allclose(seen(path), ((units - low) / (high - low)).clip(0, 1), atol=1e-5)
    np.testing.assert_allclose(seen(path, (-1024, 3072)), ((units + 1024) / 4096).clip(0, 1), atol=1e-5)
    low, high = np.percentile(units, (0.5, 99.5))
    np.testing.assert_allclose(seen(path, "auto"), ((units - low) / (high - low)).clip(0, 1), atol=1e-5)


def test_other_functions_of_a_window(tmp_path):
    """C.11.2.1.3: exact linear, and a sigmoid."""
    centre = {"WindowCenter": 2000, "WindowWidth": 1000}
    exact = written(tmp_path / "a.dcm", VOILUTFunction="LINEAR_EXACT", **centre)
    np.testing.assert_allclose(seen(exact), ((STORED - 1500.0) / 1000).clip(0, 1), atol=1e-5)
    sigmoid = written(tmp_path / "b.dcm", VOILUTFunction="SIGMOID", **centre)
    np.testing.assert_allclose(seen(sigmoid), 1 / (1 + np.exp(-4 * (STORED - 2000.0) / 1000)), atol=1e-5)
    senseless = written(tmp_path / "c.dcm", WindowCenter=2000, WindowWidth=0)
    with pytest.raises(InvalidImage, match=r"^c\.dcm: .*--window low,high"):
        seen(senseless)
    np.testing.assert_allclose(seen(senseless, (0, 4095)), STORED / 4095, atol=1e-6)


def test_signed_values_and_monochrome1(tmp_path):
    signed = (STORED.astype(np.int16) - 2048).astype(np.int16)
    path = written(tmp_path / "a.dcm", signed, "MONOCHROME1")
    np.testing.assert_allclose(seen(path), 1 - (signed + 2048.0) / 4095, atol=1e-6)
    np.testing.assert_allclose(seen(path, (-2048, 2047)), 1 - (signed + 2048.0) / 4095, atol=1e-6)


def test_colour(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    image = open_pixels(written(tmp_path / "a.dcm", colour, "RGB", bits=8))
    found = Geometry((6, 8)).image(image).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, colour / 255, atol=1e-6)


def test_files_in_a_folder_and_without_an_ending(tmp_path):
    written(tmp_path / "a.dcm")
    assert load_images(tmp_path).ids == ["a.dcm"]
    np.testing.assert_allclose(seen(written(tmp_path / "IM0001")), STORED / 4095, atol=1e-6)


def test_what_is_refused(tmp_path):
    frames = written(tmp_path / "a.dcm", np.concatenate([STORED, STORED]), NumberOfFrames=2, Rows=10)
    with pytest.raises(InvalidImage, match=r"^a\.dcm: has 2 frames, .*Save the frame you mean"):
        open_pixels(frames)
    huge = written(tmp_path / "b.dcm", Rows=60_000, Columns=60_000)
    with pytest.raises(InvalidImage, match=r"^b\.dcm: has 60000 × 60000 pixels, over the limit"):
        open_pixels(huge)
    (tmp_path / "c.dcm").write_bytes(b"words")
    with pytest.raises(InvalidImage, match=r"^c\.dcm: is not DICOM"):
        open_pixels(tmp_path / "c.dcm")
    empty = written(tmp_path / "d.dcm")
    content = empty.read_bytes()
    empty.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidImage, match=r"^d\.dcm: "):
        open_pixels(empty)


def test_without_pydicom_the_error_has_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "find_spec", lambda name: None)
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    for way in (lambda: open_pixels(tmp_path / "a.dcm"), lambda: load_images(tmp_path)):
        with pytest.raises(MissingExtra, match=r"a\.dcm is DICOM.*pip install 'heatproof\[dicom\]'"):
            way()

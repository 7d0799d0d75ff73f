"""Maps made beforehand in a score study: every format, and every error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.attributions.stored import Stored, as_map
from heatproof.data.image_opener import open_grey
from heatproof.errors import HeatproofWarning, InvalidImage, InvalidInput, StoreError
from heatproof.studies import run
from heatproof.studies.plan import checked_plan
from heatproof.studies.processes import Processes
from heatproof.studies.score import ScorePlan
from heatproof.studies.store import connect

NAMES = [f"image {i}.png" for i in range(5)]


@pytest.fixture
def plan(photographs: Path) -> Callable[..., ScorePlan]:
    """A plan over five images of 110 × 100 pixels; keyword arguments replace settings."""

    def planned(**settings: Any) -> ScorePlan:
        base = {"study": "score", "models": "shapes", "datasets": str(photographs), "controls": "none",
                "metrics": ["average-drop", "complexity"], "batch_size": 2, "resamples": 100}  # fmt: skip
        return checked_plan({**base, **settings})

    return planned


@pytest.fixture
def maps() -> np.ndarray:
    """Five maps at the network's size."""
    return np.random.default_rng(0).random((5, 96, 96)).astype(np.float32)


def rows(folder: Path, metric: str = "average-drop"):
    return connect(folder).execute(
        "select image, method, value, flag from rows where metric = ? and method <> '' order by method, image", [metric]
    ).df()  # fmt: skip


def scored(plan: ScorePlan, folder: Path, workers: int = 1):
    run.run(plan, folder, workers=workers)
    return rows(folder)


def test_every_form_gives_the_numbers_of_the_public_call(plan, maps, photographs, tmp_path):
    np.savez(tmp_path / "named.npz", **dict(zip(NAMES, maps, strict=True)))
    np.savez(tmp_path / "stacked.npz", maps=maps)
    np.save(tmp_path / "array.npy", maps[:, None])
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, one in zip(NAMES, maps, strict=True):
        np.save(folder / f"{Path(name).stem}.npy", one)
    paths = [photographs / name for name in NAMES]
    wanted = heatproof.score(heatproof.load_model("shapes"), paths, {"theirs": maps}, ["average-drop", "complexity"])
    given = [str(tmp_path / name) for name in ("named.npz", "stacked.npz", "array.npy", "folder")]
    run.run(plan(maps=given), tmp_path / "out", executor=Processes(1))
    for metric in ("average-drop", "complexity"):
        found = rows(tmp_path / "out", metric)
        assert set(found["method"]) == {"named", "stacked", "array", "folder"}
        for _, group in found.groupby("method"):
            np.testing.assert_allclose(group["value"], wanted.values("theirs", metric), atol=1e-6)


def test_grey_images_with_8_and_16_bits_are_maps(plan, maps, tmp_path):
    """Sixteen bits tell apart what eight cannot: a map within one level of grey is no constant map."""
    for name, bits in (("eight", 8), ("sixteen", 16)):
        (tmp_path / name).mkdir()
        for image, one in zip(NAMES, maps, strict=True):
            values = (one * (2**bits - 1)).round().astype(np.uint8 if bits == 8 else np.uint16)
            Image.fromarray(values).save(tmp_path / name / image)
    (tmp_path / "faint").mkdir()
    for image, one in zip(NAMES, maps, strict=True):
        Image.fromarray((30000 + 200 * one).astype(np.uint16)).save(tmp_path / "faint" / image)
    np.save(tmp_path / "exact.npy", maps)
    names = ("eight", "sixteen", "faint", "exact.npy")
    found = scored(plan(maps=[str(tmp_path / name) for name in names]), tmp_path / "out")
    assert found["flag"].eq("").all()
    values = {name: group["value"].to_numpy() for name, group in found.groupby("method")}
    np.testing.assert_allclose(values["sixteen"], values["exact"], atol=1e-3)
    np.testing.assert_allclose(values["eight"], values["exact"], atol=2e-2)
    np.testing.assert_allclose(values["faint"], values["exact"], atol=2e-2)


def test_a_map_in_the_images_own_pixels_goes_where_the_image_goes(tmp_path):
    """Pytorch-grad-cam's users save overlays at the image's size; stretching them would shift every score."""
    model = heatproof.load_model("shapes")
    wide = np.zeros((100, 300), np.float32)
    wide[40:60, 140:160] = 1  # the centre stays in the centre crop
    shown = as_map(wide, (100, 300), model.geometry)
    image = model.geometry.image(Image.fromarray((np.stack([wide] * 3, -1) * 255).astype(np.uint8)))
    assert shown is not None
    np.testing.assert_allclose(shown, image[0].numpy(), atol=0.01)
    small = np.eye(7, dtype=np.float32)
    assert np.array_equal(
        as_map(small, (100, 300), model.geometry), small
    )  # already in the network's geometry; the engine upsamples it
    assert as_map(None, (1, 1), model.geometry) is None


@pytest.mark.parametrize("shape", [(1, 96, 96), (96, 96, 1), (3, 96, 96)])
def test_a_channel_dimension_is_allowed(shape):
    found = as_map(np.ones(shape), (50, 50), heatproof.load_model("shapes").geometry)
    assert found.shape == ((3, 96, 96) if shape[0] == 3 else (96, 96))


@pytest.mark.parametrize("array", [np.ones(5), np.ones((2, 2, 2, 2)), np.array(["a"]), np.ones((0, 4)),
                                   np.ones((96, 96, 3))])  # fmt: skip
def test_what_is_no_map_is_said(array):
    with pytest.raises(InvalidImage, match=r"a map must be an array \(H, W\)"):
        as_map(array, (50, 50), heatproof.load_model("shapes").geometry)


def test_missing_broken_and_coloured_maps_are_flagged_and_the_rest_is_scored(plan, maps, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    grey = [Image.fromarray((one * 255).astype(np.uint8)) for one in maps]
    grey[0].save(folder / "image 0.png")
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(folder / "image 1.png")
    (folder / "image 2.npy").write_bytes(b"no array")
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(folder / "image 3.png")
    with pytest.warns(HeatproofWarning, match=r"theirs holds no map of 'image 4.png'\."):
        found = scored(plan(maps=str(folder)), tmp_path / "out")
    flags = found["flag"].tolist()
    assert flags[0] == "" and flags[3] == "constant map" and flags[4] == "there is no map of this image"
    assert flags[1].startswith("its map cannot be used: image 1.png: is in colour")
    assert flags[2].startswith("its map cannot be used: image 2.npy: cannot be read")
    assert found["value"].isna().tolist() == [False, True, True, False, True]


def test_metrics_that_explain_again_are_flagged_for_maps_made_elsewhere(plan, maps, tmp_path):
    np.savez(tmp_path / "theirs.npz", maps)
    asked = plan(maps=f"a colleague={tmp_path / 'theirs.npz'}", methods="gradcam", metrics=["arcc", "max-sensitivity"])
    run.run(asked, tmp_path / "out", workers=1)
    for metric in ("coherency", "arcc", "max-sensitivity"):
        found = rows(tmp_path / "out", metric).set_index("method")
        assert set(found.loc["a colleague", "flag"]) == {"needs the method, and these maps were made elsewhere"}
        assert found.loc["a colleague", "value"].isna().all()
        assert found.loc["gradcam", "flag"].eq("").all()
    assert rows(tmp_path / "out", "road")["value"].notna().all()


def test_one_array_is_counted_against_the_images(plan, maps, tmp_path):
    np.savez(tmp_path / "theirs.npz", maps[:4])
    with pytest.raises(InvalidInput, match=r"one map for each image of photographs.*Got 4 maps .* for 5 images"):
        run.run(plan(maps=str(tmp_path / "theirs.npz")), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    np.savez(tmp_path / "whole.npz", maps)
    np.savez(tmp_path / "first.npz", maps[:3])
    given = [str(tmp_path / "whole.npz"), str(tmp_path / "first.npz")]
    found = scored(plan(maps=given, limit=3, sampling="first"), tmp_path / "out")
    assert len(found) == 6
    assert list(found["value"][:3]) == list(found["value"][3:])
    with pytest.raises(InvalidInput, match=r"The limit takes 3 that are not the first: give all 5, or set --sampling"):
        run.run(plan(maps=given, limit=3), tmp_path / "drawn")
    every = scored(plan(maps=given[:1]), tmp_path / "every").set_index("image")["value"]
    drawn = scored(plan(maps=given[:1], limit=3), tmp_path / "drawn").set_index("image")["value"]
    assert len(drawn) == 3
    assert list(drawn) == pytest.approx([every[image] for image in drawn.index], rel=1e-4)
    assert list(drawn.index) != list(every.index[:3])


def test_maps_of_other_images_are_refused_before_any_work(plan, maps, tmp_path):
    np.savez(tmp_path / "theirs.npz", a=maps[0], b=maps[1])
    with pytest.raises(InvalidInput, match=r"such as 'image 0.png' of photographs. It holds 'a', 'b'\."):
        run.run(plan(maps=str(tmp_path / "theirs.npz")), tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="It holds no maps"):
        run.run(plan(maps=str(tmp_path / "empty")), tmp_path / "out")
    (tmp_path / "broken.npz").write_bytes(b"nothing")
    with pytest.raises(InvalidInput, match="'broken' must be a file that numpy can read"):
        run.run(plan(maps=str(tmp_path / "broken.npz")), tmp_path / "out")
    with pytest.raises(InvalidInput, match=r"'nowhere' must be a folder .* There is no .*nowhere"):
        run.run(plan(maps=str(tmp_path / "nowhere")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_maps_are_refused_in_the_same_folder(plan, maps, tmp_path):
    np.savez(tmp_path / "theirs.npz", maps)
    scored(plan(maps=str(tmp_path / "theirs.npz")), tmp_path / "out")
    np.savez(tmp_path / "theirs.npz", maps[::-1])
    with pytest.raises(StoreError, match="the maps of theirs are not the same"):
        run.run(plan(maps=str(tmp_path / "theirs.npz")), tmp_path / "out")


def test_a_folder_of_images_is_a_method_too(photographs, maps, tmp_path):
    """`maps:FOLDER`, as `heatproof explain` and the noise study take it."""
    for name, one in zip(NAMES, maps, strict=True):
        Image.fromarray((one * 255).astype(np.uint8)).save(tmp_path / name)
    found = heatproof.explain(heatproof.load_model("shapes"), [photographs / NAMES[0]], [f"maps:{tmp_path}"])
    ATTRIBUTIONS.remove(f"maps:{tmp_path}")
    wanted = torch.from_numpy((maps[0] * 255).astype(np.uint8) / 255.0)
    wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
    torch.testing.assert_close(found[f"maps:{tmp_path}"][0].double(), wanted, atol=1e-5, rtol=0)


def test_an_array_goes_before_an_image_and_a_whole_name_before_its_stem(tmp_path):
    Image.fromarray(np.full((2, 2), 9, np.uint8)).save(tmp_path / "a.png")
    stored = Stored("m", tmp_path)
    assert stored("a.jpg").max() == 9 and stored("photos/a.jpg").max() == 9
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    assert stored("a.jpg").max() == 1
    Image.fromarray(np.full((2, 2), 5, np.uint8)).save(tmp_path / "a.jpg.png")
    assert stored("a.jpg").max() == 5
    assert stored.holds("a.jpg") and not stored.holds("b.jpg") and stored("b.jpg") is None


def test_grey_values_are_kept_as_they_are_stored(tmp_path):
    values = np.array([[0, 300], [40000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "16.png")
    assert np.array_equal(open_grey(tmp_path / "16.png"), values)
    Image.fromarray(np.array([[0.5, -2.0]], np.float32)).save(tmp_path / "float.tif")
    assert np.array_equal(open_grey(tmp_path / "float.tif"), [[0.5, -2.0]])
    Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).save(tmp_path / "neutral.jpg")
    assert np.abs(open_grey(tmp_path / "neutral.jpg") - 77).max() <= 2

"""The network behind the viewer: the same noise as a study, the same maps as `explain`, one pass to erase a region."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import heatproof
from heatproof import seeds
from heatproof.cli import main
from heatproof.errors import InvalidImage, InvalidInput, StoreError
from heatproof.imputation import imputed
from heatproof.live import joined
from heatproof.live.study_images import StudyImages
from heatproof.panels.image_sources import as_uint8
from heatproof.perturbations import PERTURBATIONS, Perturber
from heatproof.studies.cost import counted
from heatproof.view.live_collection import LiveCollection
from heatproof.view.opening import opened
from heatproof.view.viewer import Viewer

ASKED = {"methods": ["gradcam", "layercam"], "target": "predicted", "layers": None, "options": {}}


@pytest.fixture(scope="module")
def live():
    return joined.network("shapes", {}, "cpu", ["shapes"], {**ASKED, "limit": 6})


@pytest.fixture(scope="module")
def study(shared_folder) -> Path:
    def fill(folder: Path) -> None:
        with pytest.raises(SystemExit) as stopped:
            main(["run", "noise-robustness", "--model", "shapes", "--images", "shapes", "--limit", "4", "--methods",
                  "gradcam,layercam", "--controls", "none", "--perturbations", "gaussian-noise,fgsm", "--severities",
                  "1,3", "--segmenter", "grid", "--no-report", "--out", str(folder)])  # fmt: skip
        assert not stopped.value.code

    return shared_folder("view-real-study", fill)


def test_maps_are_those_of_explain(live):
    image = live.images[2][0]
    entry = live.explained(image)
    model = heatproof.load_model("shapes")
    x = torch.from_numpy(live.pixels(image)).permute(2, 0, 1)[None].float() / 255
    maps = heatproof.explain(model, x, ["gradcam", "layercam"])
    for name in ("gradcam", "layercam"):
        np.testing.assert_allclose(entry.blocks[0].maps[name].display, maps[name][0].numpy(), atol=1e-4)
    assert [method.key for method in live.methods] == ["gradcam", "layercam"]
    assert live.explained(image) is entry and live.knows(image) and not live.knows("other")


@pytest.mark.parametrize("kind", ["gaussian-noise", "fgsm"])
def test_noise_is_that_of_the_study(study, kind):
    """Pixels, prediction and maps at a stored severity, stored and live."""
    collection = opened(study, lambda: StudyImages(study))
    live = joined.beside(study, collection, "shapes", {}, "cpu", None, {**ASKED, "methods": None})
    assert not collection.notices and [one.key for one in live.methods] == ["gradcam", "layercam"]
    for key in range(4):
        stored, found = collection.shown(key, kind, 3), live.explained(collection.image_id(key), kind, 3)
        assert stored.entry.predicted.index == found.predicted.index
        assert stored.entry.predicted.probability == pytest.approx(found.predicted.probability, abs=1e-5)
        for name in ("gradcam", "layercam"):
            difference = stored.entry.blocks[0].maps[name].display - found.blocks[0].maps[name].display
            assert np.abs(difference).max() < 0.01, name
        if kind == "fgsm":
            assert "not stored" in stored.note or np.abs(stored.entry.image.astype(int) - found.image).max() <= 1
        else:
            assert np.abs(stored.entry.image.astype(int) - found.image).max() <= 1 and not stored.note


def test_erasing_is_one_pass_and_what_the_formula_says(live):
    image, region = live.images[1][0], np.zeros((96, 96), bool)
    region[20:50, 30:70] = True
    before = live.explained(image)
    target = before.predicted.index
    model = live._work.model
    with counted(model.module) as passes:
        found = live.erased(image, region, target)
    assert (passes.forward, passes.backward) == (1, 0)
    x = torch.from_numpy(live.pixels(image)).permute(2, 0, 1)[None].float() / 255
    z, mask = model.normalise(x), torch.from_numpy(region)[None]
    noise = torch.randn(z.shape[1:], generator=seeds.generator(0, image, "road"))
    filled = imputed(z, mask).images + 0.01 * noise * mask[:, None]
    with model.evaluating(), torch.no_grad():
        expected = model.probabilities(model.of_normalised(filled))[0, target]
    assert found.after.probability == pytest.approx(float(expected), abs=1e-5)
    assert found.before == before.blocks[0].answer
    np.testing.assert_array_equal(found.image[~region], live.pixels(image)[~region])
    seen = as_uint8(imputed(x, mask).images[0])
    assert np.abs(found.image.astype(int) - seen).max() <= 1  # normalising is affine
    other = live.erased(image, region, (target + 1) % 6)
    assert other.before.index == (target + 1) % 6 and 0 <= other.before.probability < found.before.probability
    with pytest.raises(InvalidInput, match="Something must be left"):
        live.erased(image, np.ones((96, 96), bool), target)


def test_a_live_slider_costs_one_forward_and_one_backward(live):
    with counted(live._work.model.module) as passes:
        live.explained(live.images[3][0], "gaussian-noise", 2)
    assert (passes.forward, passes.backward) == (1, 1)


def test_every_kind_of_noise_can_be_shown(live):
    assert live.kinds == list(PERTURBATIONS)
    for kind in live.kinds:
        if not kind.startswith(("pgd", "deepfool")):  # slow, and as fgsm
            assert not live.explained(live.images[0][0], kind, 2).flag, kind


def test_images_that_cannot_be_read_are_flagged_rows(tmp_path):
    for name in ("a.png", "c.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"no image")
    live = joined.network("shapes", {}, "cpu", [str(tmp_path)], ASKED)
    collection = LiveCollection(live)
    viewer = Viewer(collection, live)
    rows = collection.page(joined._everything()).rows
    broken = next(row.key for row in rows if row.name == "b.png")
    assert viewer.thumbnail(broken) is None and collection.shown(broken).entry.flag
    assert next(row for row in collection.page(joined._everything()).rows if row.key == broken).flags == ("broken",)
    assert viewer.brush(0) and collection.shown(0).entry.image.shape == (96, 96, 3)
    assert collection.page(joined._everything()).rows[0].predicted
    with pytest.raises(InvalidImage):
        live.pixels(live.images[broken][0])


def test_results_of_explain_beside_a_network(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)).save(images / "a.png")
    with pytest.raises(SystemExit):
        main(["explain", str(images), "--model", "shapes", "--out", str(tmp_path / "out")])
    collection = opened(tmp_path / "out")
    live = joined.beside(tmp_path / "out", collection, "shapes", {}, "cpu", None, {**ASKED, "methods": None})
    viewer = Viewer(collection, live)
    assert viewer.brush(0) and len(viewer.kinds) == len(PERTURBATIONS)
    wanted = ["gradcam"]
    assert viewer.shown(0, "", 0, wanted).entry is collection.shown(0).entry  # stored maps are not made again
    assert viewer.shown(0, "jpeg", 4, wanted).entry.image is not None
    strokes = [[(0.5, 0.5), (0.6, 0.6)]]
    text = viewer.erased(0, "", 0, strokes, 0.1, wanted)
    assert "Without this region the probability of" in text and "gradcam" in text
    assert "Something must be left" in viewer.erased(0, "", 0, strokes, 9, wanted)
    assert viewer.erased(0, "", 0, [], 0.1, wanted) == ""
    shutil.rmtree(images)
    with pytest.raises(StoreError, match="not where they were"):
        joined.beside(tmp_path / "out", collection, "shapes", {}, "cpu", None, {**ASKED, "methods": None})


def test_another_network_beside_a_study_is_said(study, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(study, folder)
    plan = json.loads((folder / "study.json").read_text("utf-8"))
    plan["models"][0]["fingerprint"] = "another"
    (folder / "study.json").write_text(json.dumps(plan), "utf-8")
    collection = opened(folder, lambda: StudyImages(folder))
    live = joined.beside(folder, collection, "shapes", {}, "cpu", None, {**ASKED, "methods": ["gradcam"]})
    assert "other weights" in collection.notices[-1]
    assert live.knows(collection.image_id(0))


def test_the_images_of_a_study(study, tmp_path):
    reader = StudyImages(study)
    collection = opened(study, lambda: reader)
    image = collection.image_id(0)
    pixels = reader.of("shapes", "shapes", image)
    assert pixels.shape == (96, 96, 3) and reader.names == ["shapes"]
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    noisy = as_uint8(Perturber(x, [image], 0).apply("gaussian-noise", 3)[0])
    assert np.abs(reader.perturbed("shapes", "shapes", image, "gaussian-noise", 3).astype(int) - noisy).max() <= 1
    assert reader.perturbed("shapes", "shapes", image, "pgd-linf", 3) is None
    for place, said in ((("shapes", "shapes", "nothing"), "is not in"), (("shapes", "other", image), "does not say")):
        with pytest.raises(InvalidImage, match=said):
            reader.of(*place)
    older = tmp_path / "older"
    shutil.copytree(study, older)
    (older / "study.yaml").unlink()
    assert StudyImages(older).names == []

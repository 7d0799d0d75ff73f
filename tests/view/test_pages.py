"""The page's parts: names are escaped and keep their direction, and what cannot be shown is said."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from heatproof.live.study_images import StudyImages
from heatproof.panels.explained_image import ClassProbability, ExplainedClass, ExplainedImage, Map, Method
from heatproof.view import choices, pages
from heatproof.view.drawing import SIDE, thumbnail, tiles
from heatproof.view.interface import Appearance, ListPage, ListRow, Shown, Wanted
from heatproof.view.study_collection import StudyCollection
from heatproof.view.viewer import Viewer

from .stores import CLASSES, KIND, NASTY


@pytest.fixture(scope="module")
def viewer(study) -> Viewer:
    return Viewer(StudyCollection(study, StudyImages(study)))


def decoded(source: str) -> np.ndarray:
    head, _, code = source.partition(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))).astype(float)


def test_every_name_is_escaped_and_isolated(viewer):
    look = Appearance([method.key for method in viewer.methods])
    whole = ""
    for name in NASTY:
        page = viewer.collection.page(Wanted(text=name, score="arcc"))
        whole += pages.listing(page, page.rows[0].key)
        whole += viewer.stage(page.rows[0].key, name, KIND, 3, look)
        whole += viewer.noise(page.rows[0].key, KIND, 3, (), look.methods)
        whole += pages.numbers(viewer.collection.numbers(page.rows[0].key))
    assert "<script" not in whole and "<img src=x" not in whole and "&lt;script&gt;" in whole
    assert "How well it &lt;holds&gt;." in whole
    for text in (NASTY[1], CLASSES[1]):
        assert re.search(rf"<bdi>[^<]*{re.escape(text)}", whole)
    assert "🦊 &amp; “fox”" in whole and "🐈 cat" in whole
    assert "heatproof view" in pages.heading(viewer.collection, viewer.hints)


def test_names_that_are_no_text_are_shown_as_far_as_they_go():
    page = ListPage((ListRow(0, b"caf\xe9.png".decode("utf-8", "surrogateescape")),), 1, 1)
    assert "caf?.png" in pages.listing(page, None)


def test_opacity_and_threshold():
    image = np.full((16, 16, 3), 200, np.uint8)
    field = np.tile(np.linspace(0, 1, 16, dtype=np.float32), (16, 1))
    answer = ClassProbability(0, "a", 0.5)
    shown = Shown(
        ExplainedImage("i", "i", image, answer, None, (ExplainedClass(answer, {"m": Map(np.ones((4, 4)), field)}),))
    )
    drawn = lambda **look: decoded(tiles(shown, [Method("m", "m")], Appearance(["m"], **look))[0].tiles[0].source)  # noqa: E731
    np.testing.assert_allclose(drawn(opacity=0.0), 200, atol=3)
    strong, half = drawn(opacity=1.0), drawn(opacity=0.5)
    np.testing.assert_allclose(half, (strong + 200) / 2, atol=8)
    cut = drawn(opacity=0.5, threshold=0.5)
    np.testing.assert_allclose(cut[:, :6], 200, atol=8)
    np.testing.assert_allclose(cut[:, 10:], half[:, 10:], atol=8)


def test_large_images_are_sent_small():
    image = np.zeros((2000, 1000, 3), np.uint8)
    entry = ExplainedImage("i", "i", image, ClassProbability(0))
    assert max(decoded(re.findall(r'src="([^"]+)"', pages.stage(
        Shown(entry), [], Appearance(), key=0, name="i", brush=False))[0]).shape) == SIDE  # fmt: skip
    assert len(thumbnail(image)) < 3000 and thumbnail(None)[:2] == b"\xff\xd8"


def test_what_cannot_be_shown_is_said(viewer):
    flagged = Shown(ExplainedImage("i", "i", flag="<is> no image"))
    text = pages.stage(flagged, [], Appearance(), key=3, name="i", brush=True)
    assert "could not be used: &lt;is&gt; no image" in text and "<canvas" not in text
    look = Appearance(["gradcam", "nothing"])
    assert "choose methods" in viewer.stage(0, "x", "", 0, Appearance([]))
    assert "No scores" in pages.numbers([]) and "No image passes" in pages.listing(ListPage((), 0, 9), None)
    assert viewer.stage(0, "x", "", 0, look).count("hp-over") == 1


def test_choices():
    methods = [Method("gradcam@a", "gradcam", ("a",)), Method("gradcam@b", "gradcam", ("b",)), Method("rise", "rise")]
    assert choices.titles(methods) == ["gradcam", "rise"] and choices.layers(methods) == ["a", "b"]
    assert choices.layers(methods[1:]) == []
    assert choices.chosen(methods, ["gradcam"], ["b"]) == [methods[1]]
    assert choices.chosen(methods, ["gradcam", "rise"], []) == methods
    assert choices.chosen(methods, ["rise"], ["b"]) == [methods[2]]
    assert choices.severities({"blur": [5, 1]}, (), "blur") == [0, 1, 5]
    assert choices.severities({}, ("blur",), "blur") == [0, 1, 2, 3, 4, 5]
    assert choices.nearest(2, [0, 1, 3]) == 1 and choices.nearest(4.9, [0, 1, 3]) == 3


def test_without_a_network_there_is_no_brush_and_one_sentence_says_why(viewer):
    assert not viewer.brush(0) and viewer.hints == [pages_hint(viewer)]
    assert "hp-brush" not in viewer.stage(0, "x", "", 0, Appearance(["gradcam"]))
    assert viewer.severities(KIND) == [0, 1, 3] and viewer.kinds == [KIND]
    assert viewer.noise(0, KIND, 0, (), ["gradcam"]).count("<tr") == 4


def pages_hint(viewer: Viewer) -> str:
    (hint,) = viewer.hints
    assert "heatproof view FOLDER --model" in hint
    return hint


def test_an_audits_decisions_stand_under_the_maps(study, tmp_path):
    import shutil

    folder = tmp_path / "audit"
    shutil.copytree(study, folder)
    (folder / "tables").mkdir()
    (folder / "tables" / "per_image.csv").write_text(
        "model,dataset,image,method,decision,reason\n"
        "net,set,00.png,gradcam,do not show,the prediction is <wrong>\nnet,set,00.png,eigencam,show,\n"
    )
    collection = StudyCollection(folder, StudyImages(study))
    key = collection.page(Wanted(text="00.png", score="arcc")).rows[0].key
    text = Viewer(collection).stage(key, "x", "", 0, Appearance(["gradcam", "eigencam"]))
    assert "do not show</summary>the prediction is &lt;wrong&gt;" in text and "show</summary>No reason" in text
    (folder / "tables" / "per_image.csv").write_text("other,columns\n1,2\n")
    assert not StudyCollection(folder, StudyImages(study)).shown(key).decisions

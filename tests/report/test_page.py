"""The page: complete, self-contained, escaped, the same bytes for the same rows; it states what is missing."""

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from heatproof.errors import StoreError
from heatproof.report import write_report, write_tables
from heatproof.report.drawing import svg
from heatproof.report.findings import Findings
from heatproof.report.gallery import _overlay, _side, cases
from heatproof.report.page import rendered
from heatproof.report.source import open_source
from heatproof.report.tables import robustness_tests

from . import synthetic
from .conftest import HOSTILE
from .reading import Page

SMALL = {"images": tuple(f"{i}.jpg" for i in range(40)), "perturbations": ("jpeg",), "severities": (2, 4)}


def findings_in(folder, **changes) -> Findings:
    """What is found in a made-up study."""
    return Findings(open_source(synthetic.study(folder, **(SMALL | {"gallery": 0} | changes))))


def page(folder, **changes) -> Page:
    """The page of a made-up study, without the files beside it."""
    return Page(rendered(findings_in(folder, **changes))[0])


@pytest.fixture(scope="module")
def told(hostile) -> Page:
    return Page((hostile / "report.html").read_text("utf-8"))


def test_hostile_names_stay_text(told):
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section"}
    allowed |= {"article", "h1", "h2", "h3", "p", "b", "strong", "small", "sup", "span", "a", "div", "ul", "li", "dl"}
    allowed |= {"dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "details"}
    allowed |= {"summary", "pre", "code", "svg", "g", "path", "text", "tspan", "defs", "use", "clippath", "rect"}
    allowed |= {"pattern", "title"}
    assert {tag for tag, _ in told.tags} <= allowed
    assert not told.all("script")
    assert not [name for _, attributes in told.tags for name in attributes if name.startswith("on")]
    for name in (*HOSTILE.images[:2], *HOSTILE.methods, *HOSTILE.models, *HOSTILE.datasets):
        assert name in told.text
    assert "<svg onload=alert(5)>" in told.text
    assert any("<i>hen</i>" in image["alt"] or 'quote"d' in image["alt"] for image in told.all("img"))


def test_the_page_asks_for_nothing_outside_itself(told, hostile):
    for tag, attributes in told.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background", "formaction"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), (tag, name)
    assert not re.search(r"https?:|//cdn|@import|url\((?!#)", told.html)
    assert str(hostile) not in told.html
    anchors = {a["href"][1:] for a in told.all("a")}
    assert anchors
    assert anchors <= {attributes.get("id") for _, attributes in told.tags}


def test_ids_are_used_once(told):
    ids = [attributes["id"] for _, attributes in told.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_tile_is_there_and_described(told):
    tiles = told.all("img")
    assert len(tiles) == HOSTILE.gallery * (1 + len(HOSTILE.methods)) * (1 + len(HOSTILE.severities))
    assert all(tile["alt"] for tile in tiles)
    first = Image.open(io.BytesIO(base64.b64decode(tiles[0]["src"].partition(",")[2])))
    assert (first.width, first.height) == (int(tiles[0]["width"]), int(tiles[0]["height"]))
    assert told.text.count("changed") >= HOSTILE.gallery  # changed predictions are marked in words too


def test_the_verdict_and_what_it_rests_on_are_told(told, hostile):
    findings = Findings(open_source(hostile))
    (verdict,) = findings.robustness.verdicts.values()
    assert verdict.sentence in told.text
    assert all(note in told.text for note in verdict.notes)
    for method in HOSTILE.methods:
        found = verdict.figures["rm"][method]
        assert f"{found.value:.2f} ({found.low:.2f}–{found.high:.2f})" in told.text


def test_strengths_are_told(told):
    assert re.search(r"<th[^>]*>fgsm</th>\s*<td>0.1</td><td>0.3</td><td>0.5</td>", told.html)


def test_flagged_images_are_listed_with_the_reason_and_their_count(told):
    assert "1 image was set aside" in told.text
    assert "41 of 42" in told.text


def test_what_was_run_can_be_run_again(told, hostile):
    plan = json.loads((hostile / "study.json").read_text())
    assert plan["command"] in told.text
    assert plan["version"] in told.text
    assert HOSTILE.masks
    assert "Do the maps show the object?" in told.text


def test_the_table_shows_the_numbers_of_the_csv(told, hostile):
    table = pd.read_csv(hostile / "tables" / "robustness.csv")
    pooled = table[table["severity"] == "all"]
    assert len(pooled) == 2 * 4
    shown = re.findall(r'<span class="value">([^<]*)', told.html)
    either = [{f"{row.rm:.2f}", f"{row.rm0:.2f}"} for row in pooled.itertuples() if row.rm == row.rm]
    assert len(shown) == len(pooled)
    for values in either:
        assert values & set(shown)


def test_the_same_rows_give_the_same_bytes(hostile, tmp_path):
    findings = write_tables(synthetic.study(tmp_path, HOSTILE))
    html, drawings = rendered(findings)
    assert html == (hostile / "report.html").read_text("utf-8")
    assert {p.name for p in (hostile / "figures").iterdir()} == {
        f"{one.name}.{e}" for one in drawings for e in ("svg", "pdf")
    }
    assert all((hostile / "figures" / f"{one.name}.svg").read_text("utf-8") == svg(one.draw()) for one in drawings)
    tables = sorted((hostile / "tables").iterdir())
    assert len(tables) == 7
    for path in tables:
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes(), path.name


def test_neither_torch_nor_pyplot_is_imported(reported):
    assert reported.imported == ""


def test_without_flips_it_says_so_and_why(tmp_path):
    shown = page(tmp_path, flips="none")
    assert "only 0 flips" in shown.text
    assert "No verdict" in shown.text
    assert "too few flips" in shown.text
    assert "nan" not in shown.text.lower().replace("explanation", "")


def test_every_prediction_flips(tmp_path):
    assert "only 0 held" in page(tmp_path, flips="all").text


def test_one_method_one_image_no_control_no_label(tmp_path):
    shown = page(tmp_path, images=("only.jpg",), methods={"gradcam": 0.5}, controls={}, labels=False)
    assert "Nothing can be compared" in shown.text
    assert "Right on these images" not in shown.text
    assert "No control was run" in shown.text or "No verdict" in shown.text


def test_nothing_but_flagged_images(tmp_path):
    shown = page(tmp_path, images=("a.jpg", "b.jpg"), flagged={"a.jpg": "empty file", "b.jpg": "no image"})
    assert "2 images were set aside" in shown.text
    assert "no usable pair" in shown.text


@pytest.mark.parametrize(
    ("missing", "says"), [(0, None), (1, "1 of 2 jobs is missing"), (3, "3 of 4 jobs are missing")]
)
def test_an_unfinished_study_has_a_banner(tmp_path, missing, says):
    shown = page(tmp_path, missing=missing, methods={"gradcam": 0.5}, controls={})
    assert ("Unfinished" in shown.text) == bool(missing)
    assert says is None or says in shown.text


def test_several_models_and_segmenters(tmp_path):
    found = findings_in(
        tmp_path,
        models=("m-one", "m-two"),
        datasets=("cats",),
        segmenters=("slic", "quickshift"),
        severities=(4,),
        methods={"gradcam": 0.6, "layercam": 0.7},
        controls={},
    )
    shown = Page(rendered(found)[0])
    assert shown.text.count("Robustness of each method") == 2
    for model in ("m-one", "m-two"):
        assert f"{model} on cats" in shown.text
    assert "All models and images together" in shown.text
    assert "segments by slic" in shown.text
    assert "segments by quickshift" not in shown.text  # only the plan's first segmenter is shown in full
    assert "W is not computed: 2 methods, at least 3 are needed" in shown.text
    table = robustness_tests(found)
    assert set(table.loc[table["test"] == "kendall-segmenters", "model"]) == {"m-one", "m-two"}
    assert (table["model"] == "(all)").any()


def test_an_overlay_is_half_image_half_colour():
    image = Image.fromarray(np.full((4, 4, 3), 100, np.uint8))
    dark = np.asarray(_overlay(image, np.zeros((2, 2), np.uint8)))
    bright = np.asarray(_overlay(image, np.full((2, 2), 255, np.uint8)))
    np.testing.assert_array_equal(dark[0, 0], [50, 50, 52])  # inferno starts at (0, 0, 4)
    np.testing.assert_array_equal(bright[0, 0], [176, 177, 132])  # and ends at (252, 255, 164)


def test_more_tiles_are_smaller():
    assert [_side(count) for count in (1, 700, 701, 1600, 4000, 5000)] == [144, 144, 112, 112, 80, 64]


@pytest.mark.parametrize("damage", ["index", "arrays", "key"])
def test_a_damaged_gallery_is_refused_with_what_to_do(tmp_path, damage):
    folder = synthetic.study(tmp_path, **SMALL, gallery=1)
    index = folder / "gallery" / "index.json"
    if damage == "index":
        index.write_text("[{")
    elif damage == "arrays":
        (folder / "gallery" / "case-00.npz").write_bytes(b"PK")
    else:
        index.write_text(json.dumps([{"file": "case-00.npz"}]))
    with pytest.raises(StoreError, match="Run the command of the study again: only what is damaged"):
        cases(folder)


def test_a_gallery_reads_no_file_outside_its_folder(tmp_path):
    folder = synthetic.study(tmp_path / "study", **SMALL, gallery=1)
    (folder / "gallery" / "case-00.npz").rename(tmp_path / "case-00.npz")
    index = folder / "gallery" / "index.json"
    index.write_text(index.read_text().replace("case-00.npz", "../../case-00.npz"))
    with pytest.raises(StoreError):
        cases(folder)


def test_a_report_that_cannot_be_written_is_a_clear_error(tmp_path):
    folder = synthetic.study(tmp_path, **SMALL, gallery=0)
    (folder / "tables").write_text("in the way")
    with pytest.raises(StoreError, match="tables"):
        write_report(folder)
    assert not (folder / "report.html").exists()

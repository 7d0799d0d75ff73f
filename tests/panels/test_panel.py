"""What a pixel of an overlay is, what a title may be, what a panel holds: drawn from arrays, no network."""

import base64
import io
import re
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from heatproof.errors import InvalidInput, UnknownName
from heatproof.panels import panel as drawing
from heatproof.panels.explained_image import (
    ClassProbability,
    ExplainedClass,
    ExplainedImage,
    Map,
    Method,
    as_arrays,
    from_arrays,
)
from heatproof.panels.panel import panel, panel_sheet, tile_size, wrapped
from heatproof.panels.sheet import png
from heatproof.report.overlay import Look, overlay
from heatproof.report.text_measure import font as face

GENERATOR = np.random.default_rng(0)


def image(height: int = 40, width: int = 60) -> np.ndarray:
    """Noise."""
    return GENERATOR.integers(0, 256, (height, width, 3), np.uint8)


def entry_of(shown: np.ndarray, methods: list[Method], classes: int = 1, flags: dict | None = None) -> ExplainedImage:
    """An entry with a ramp for every map."""
    ramp = np.broadcast_to(np.linspace(0, 1, shown.shape[1], dtype=np.float32), shown.shape[:2])
    answers = [ClassProbability(i, f"class number {i}", 0.5 / (i + 1)) for i in range(classes)]
    maps = {m.key: Map(ramp[::4, ::4] - 0.5, ramp, (flags or {}).get(m.key, "")) for m in methods}
    return ExplainedImage(
        "folder/a.png", "a.png", shown, answers[0], None, tuple(ExplainedClass(a, maps) for a in answers)
    )


# --- overlays ---


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["inferno", "viridis", "tab10"])
def test_a_pixel_is_the_colour_of_its_map_and_the_brightness_of_its_image(alpha, name):
    """One pixel at a time, by hand."""
    shown, layer = image(4, 5), GENERATOR.random((4, 5)).astype(np.float32)
    layer[0, 0], layer[0, 1] = 1, 0
    found = overlay(shown, layer, Look(name, alpha))
    for y, x in np.ndindex(4, 5):
        red, green, blue = (float(v) for v in shown[y, x])
        bright = 0.299 * red + 0.587 * green + 0.114 * blue
        colour = [255 * v for v in matplotlib.colormaps[name](round(255 * float(layer[y, x])) / 255)[:3]]
        wanted = [alpha * c + (1 - alpha) * bright for c in colour]
        assert np.abs(found[y, x] - wanted).max() <= 0.501
        beside = [alpha * c + (1 - alpha) * v for c, v in zip(colour, (red, green, blue), strict=True)]
        kept = overlay(shown, layer, Look(name, alpha), coloured=True)
        assert np.abs(kept[y, x] - beside).max() <= 0.501
    last = np.array(matplotlib.colormaps[name](1.0)[:3]) * 255
    grey = float(shown[0, 0] @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(found[0, 0] - (alpha * last + (1 - alpha) * grey)).max() <= 1


def test_the_default_colours_get_lighter_all_the_way():
    """Perceptually uniform: CIE lightness rises in even steps, and not as in a rainbow."""

    def lightness(name: str) -> np.ndarray:
        rgb = Look(name).palette / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
        return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)

    steps = np.diff(lightness(Look().colormap))
    assert (steps >= -0.2).all() and steps.std() < 0.15
    assert (np.diff(lightness("jet")) < -0.2).any(), "the test would see a rainbow"


def test_looks_are_checked_with_near_misses():
    with pytest.raises(UnknownName, match="'viridis'"):
        Look("virids")
    for alpha in (-0.1, 1.5, float("nan"), "much"):
        with pytest.raises(InvalidInput, match="0 … 1"):
            Look(alpha=alpha)  # type: ignore[arg-type]


# --- words ---


@pytest.mark.parametrize(
    "text",
    [
        "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias",
        "Taumatawhakatangihangakoauauotamateaturipukakapikimaungahoronukupokaiwhenuakitanatahu",
        "blocks.1.conv_dw+blocks.2.conv_dw+blocks.4.conv_dw+bn2",
        "a  b\nc",
        "ω",
        "",
    ],
)
@pytest.mark.parametrize("width", [5, 60, 224])
def test_no_title_is_cut_and_no_line_too_wide(text, width):
    lines = wrapped(text, width)
    assert "".join(line.text for line in lines).replace(" ", "") == "".join(text.split())
    font = face(drawing.TEXT)
    assert all(font.getlength(line.text) <= width or len(line.text) == 1 for line in lines)


def test_words_stay_whole_where_they_fit():
    lines = [line.text for line in wrapped("great white shark, tiger shark", 120)]
    assert len(lines) > 1 and " ".join(lines) == "great white shark, tiger shark"
    assert wrapped("refine:layercam", 80)[0].text == "refine:"


@pytest.mark.parametrize(
    ("p", "said"),
    [(1.0, "100 %"), (0.99996, "> 99.9 %"), (0.994, "99.4 %"), (0.42, "42 %"), (0.004, "0.4 %"), (1e-5, "< 0.1 %"),
     (0.0, "0 %"), (float("nan"), "no probability")],
)  # fmt: skip
def test_probabilities_never_round_to_what_they_are_not(p, said):
    assert ClassProbability(3, "hen", p).full == f"hen (3), {said}"
    assert ClassProbability(3, "", p).short == f"class 3, {said}"


# --- panels ---


def same(image: Image.Image, part: np.ndarray) -> list[tuple[int, int]]:
    """Where `part` lies in the image, exactly."""
    pixels, (height, width) = np.asarray(image).astype(int), part.shape[:2]
    rows, columns = np.nonzero((pixels == part[0, 0]).all(-1))
    return [
        (y, x)
        for y, x in zip(rows.tolist(), columns.tolist(), strict=True)
        if y + height <= len(pixels) and x + width <= pixels.shape[1]
        and (pixels[y : y + height, x : x + width] == part).all()
    ]  # fmt: skip


def test_a_panel_holds_the_image_every_map_and_one_colour_bar():
    shown = image(224, 300)
    methods = [Method("gradcam", "gradcam", ("layer4",)), Method("flat", "flat")]
    look = Look()
    entry = entry_of(shown, methods, 2, {"flat": "constant map"})
    drawn = panel(entry, (tuple(methods),), look)
    assert tile_size(shown) == (300, 224)
    assert len(same(drawn, overlay(shown, entry.blocks[0].maps["gradcam"].display, look))) == 2, "one for each class"
    assert len(same(drawn, shown)) == 3, "the image, and in place of each flat map"
    bar = np.asarray(Image.fromarray(look.palette[None]).resize((300, 12), Image.Resampling.BILINEAR))
    assert len(same(drawn, bar[1:-1, 1:-1])) == 1
    assert (bar[5, 0] == look.palette[0]).all() and (bar[5, -1] == look.palette[-1]).all()


def test_what_is_written_is_in_the_panel():
    name = "great white shark, white shark, man-eater, man-eating shark"
    method = Method("refine:gradcam", "refine:gradcam", ("stage1", "stage2"))
    maps = {method.key: Map(np.zeros((2, 2)), np.zeros((40, 60)), "the model gave non-finite output")}
    answer = ClassProbability(2, name, 0.42)
    sheet = panel_sheet(
        ExplainedImage("x/a.png", "a.png", image(), answer, answer, (ExplainedClass(answer, maps),)),
        ((method,),),
        Look(),
    )
    text = " ".join(" ".join(words.line.text for words in sheet.words).split())
    for part in ("a.png", f"Explained: {name} (2), 42 %", "refine:gradcam", "stage1 + stage2",
                 "great white shark, 42 %", "the model gave non-finite output"):  # fmt: skip
        assert "".join(part.split()) in "".join(text.split()), part


@pytest.mark.parametrize(("height", "width"), [(224, 224), (8, 300), (300, 8), (1, 1), (900, 1200)])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_panels_of_any_shape(height, width, count):
    methods = [Method(f"method-{i}", f"method-{i}", ("layer",)) for i in range(count)]
    drawn = panel(entry_of(image(height, width), methods), (tuple(methods),), Look())
    assert max(tile_size(image(height, width))) in range(224, 385)
    assert drawn.mode == "RGB" and drawn.width <= 8 * 400 + 500
    assert Image.open(io.BytesIO(png(drawn))).size == drawn.size


def test_rows_of_a_grid_keep_their_columns():
    stages = [Method(f"gradcam@{i}", "gradcam", (f"{i}",)) for i in range(4)]
    finer = [Method(f"refine:gradcam@{i}", "refine:gradcam", (f"{i}",)) for i in range(3)]
    shown, look = image(224, 224), Look()
    entry = entry_of(shown, [*stages, *finer])
    methods = same(panel(entry, (tuple(stages), tuple(finer)), look),
                  overlay(shown, entry.blocks[0].maps["gradcam@0"].display, look))  # fmt: skip
    columns = sorted({x for _, x in methods})
    assert len(columns) == 4 and [x for _, x in sorted(methods)] == [*columns, *columns[:3]]


@pytest.mark.parametrize(
    "name", ["a.png", "set-01/IMG_20240101-123456_a-very-long_name.of-a.photograph " * 2 + ".jpeg"]
)
@pytest.mark.parametrize("title", ["gradcam", "integrated-gradients[baseline=blur,steps=10]"])
def test_the_image_is_level_with_the_maps_and_the_name_is_one_line(name, title):
    methods = [Method("gradcam", "gradcam", ("layer4",)), Method("other", title, ("layer4",))]
    entry = replace(entry_of(image(224, 224), methods), name=name)
    sheet = panel_sheet(entry, (tuple(methods),), Look())
    first, *maps = (tile for tile in sheet.tiles if (tile.width, tile.height) == (224, 224))
    assert len(maps) == 2 and {tile.y for tile in maps} == {first.y}
    written = [words for words in sheet.words if words.line.text == " ".join(name.split())]
    assert len(written) == 1, "the name is whole, on one line"
    assert written[0].x + written[0].line.width <= sheet.width
    assert all(words.x + words.line.width <= sheet.width for words in sheet.words if words.anchor == "l")


def test_a_resolution_of_its_own_scales_all_and_is_stated():
    methods = [Method("gradcam", "gradcam", ("layer4",))]
    entry = entry_of(image(224, 224), methods)
    sheet = panel_sheet(entry, (tuple(methods),), Look())
    plain, fine = Image.open(io.BytesIO(sheet.png())), Image.open(io.BytesIO(sheet.png(288)))
    assert fine.size == (3 * plain.width, 3 * plain.height)
    assert fine.info["dpi"] == pytest.approx((288, 288), abs=0.1)
    tile = sheet.tiles[1]
    large = np.asarray(fine)[3 * tile.y : 3 * (tile.y + tile.height), 3 * tile.x : 3 * (tile.x + tile.width)]
    small = np.asarray(Image.fromarray(large).resize((224, 224), Image.Resampling.BOX)).astype(float)
    assert np.abs(small - np.asarray(tile.draw((224, 224)))).mean() < 12


def test_svg_and_pdf_hold_text_as_text_and_images_with_all_their_pixels():
    methods = [Method("gradcam", "gradcam$x$", ("layer4",))]
    shown = image(600, 500)
    entry = replace(entry_of(shown, methods), name="a_$b$.png")
    sheet = panel_sheet(entry, (tuple(methods),), Look())
    assert sheet.tiles[0].width < 500
    text = sheet.svg().decode()
    assert ">a_$b$.png</text>" in text and ">gradcam$x$</text>" in text
    coded = re.findall(r'xlink:href="data:image/png;base64,\s*([^"]+)"', text)
    found = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB")) for one in coded]
    wanted = overlay(shown, entry.blocks[0].maps["gradcam"].display, Look())
    for pixels in (shown, wanted):
        assert any(one.shape == pixels.shape and (one == pixels).all() for one in found)
    assert sheet.pdf().startswith(b"%PDF") and sheet.svg() == sheet.svg()


def test_drawing_leaves_matplotlib_as_it_was():
    import sys

    before = dict(matplotlib.rcParams)
    methods = [Method("a", "a")]
    panel(entry_of(image(), methods), (tuple(methods),), Look("cividis"))
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_an_image_that_could_not_be_read_says_why():
    drawn = np.asarray(panel(ExplainedImage("b.png", "b.png", flag="is empty (0 bytes)"), (), Look()))
    assert drawn.min() < 100 and drawn[0, 0].tolist() == [255, 255, 255]


def test_a_map_that_single_pixels_outshine_is_brightened_and_says_so():
    """Only where it is worked out pixel by pixel, and never RefineCAM's."""
    display = np.full((40, 50), 0.1, np.float32)
    display[0, 0] = 1
    shown, look, flat = image(40, 50), Look(), Method("gradient", "gradient")
    fine, coarse = Map(display[None].repeat(3, 0), display), Map(display[::4, ::4], display)
    below = Image.fromarray(shown)
    assert drawing.brightened(flat, fine) == "brightened 10 ×"
    drawn = np.asarray(drawing.over(below, flat, fine, look))
    assert (drawn == overlay(shown, np.ones((40, 50)), look)).all()
    for method, found in ((flat, coarse), (Method("refine:x", "refine:x", ("a", "b")), fine)):
        assert drawing.brightened(method, found) == ""
        assert (np.asarray(drawing.over(below, method, found, look)) == overlay(shown, display, look)).all()
    assert Map(display[None], np.sqrt(display * 4).clip(0, 1)).brightness_gain == 1


# --- files ---


@pytest.mark.parametrize("classes", [1, 3])
def test_arrays_hold_all_that_an_entry_does(classes):
    methods = [Method("gradcam++[compat=true]@a.b", "x"), Method("refine:é@l1+l2", "y")]
    entry = entry_of(image(), methods, classes, {methods[1].key: "constant map"})
    entry = ExplainedImage(
        **{**entry.__dict__, "label": ClassProbability(7, "", float("nan")), "refused": {"lrp": "no rule"}}
    )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **as_arrays(entry, {"digest": "d"}))
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as arrays:
        found, about = from_arrays(arrays)
    assert about["digest"] == "d"
    assert (found.id, found.name, found.predicted) == (entry.id, entry.name, entry.predicted)
    assert found.label is not None and found.label.index == 7 and found.refused == {"lrp": "no rule"}
    assert (found.image == entry.image).all()
    for one, other in zip(found.blocks, entry.blocks, strict=True):
        assert one.answer == other.answer and list(one.maps) == list(other.maps)
        for key in one.maps:
            assert one.maps[key].flag == other.maps[key].flag
            assert (one.maps[key].raw == other.maps[key].raw).all()
            assert (one.maps[key].display == other.maps[key].display).all()

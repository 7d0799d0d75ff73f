"""Maps to look through in a notebook: image, class, method, opacity and threshold to choose (extra `notebook`)."""

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from heatproof.errors import InvalidInput, MissingExtra
from heatproof.panels.explained_image import ExplainedImage, Method
from heatproof.panels.panel import over, resized, tile_size
from heatproof.plot.image_reading import chosen_rows, class_text, read_images
from heatproof.report.overlay import Look

#: The name of the choice that shows the image alone.
PLAIN = "(image)"


def widget(
    maps: Any,
    images: Any = None,
    *,
    rows: Any = None,
    labels: Mapping[str, str] | None = None,
    colormap: str = Look.colormap,
    alpha: float = Look.alpha,
    threshold: float = Look.threshold,
) -> Any:
    """Maps to look through in a notebook: menus of images, classes and methods, sliders of opacity and threshold.

    Args:
        maps, images, labels, colormap, alpha, threshold: as in `heatproof.plot.panel`.
        rows: which images, by position or by name; by default all that can be drawn.

    Returns:
        A box of ipywidgets, with `controls`, a mapping from `image`, `target`, `method`, `alpha` and `threshold` to the
        widgets; setting a value of one redraws the picture, the last child.

    Raises:
        MissingExtra: ipywidgets is not installed. InvalidInput: maps or images that cannot be drawn.

    Examples:
        >>> import heatproof, numpy as np
        >>> box = heatproof.plot.widget({"gradcam": np.eye(8)[None]}, np.ones((1, 32, 32)))
        >>> before = box.children[-1].value
        >>> box.controls["alpha"].value = 0.9
        >>> box.children[-1].value == before
        False
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise MissingExtra('A widget needs ipywidgets. Install it: pip install "heatproof[notebook]".') from error
    Look(colormap, alpha, threshold)  # refuses what is wrong
    entries = read_images(maps, images, _every(maps) if rows is None else rows, "widget")
    entries = [entry for entry in entries if entry.image is not None]
    if not entries:
        raise InvalidInput("Expected at least one image that could be explained. Got none.")
    named = labels or {}
    methods = list(dict.fromkeys(name for entry in entries for block in entry.blocks for name in block.maps))
    long = {"style": {"description_width": "initial"}}
    choices = {
        "image": ipywidgets.Dropdown(
            description="image", options=[(f"{i + 1}: {entry.name}", i) for i, entry in enumerate(entries)], **long
        ),
        "target": ipywidgets.Dropdown(description="class", options=_classes(entries[0]), **long),
        "method": ipywidgets.Dropdown(
            description="method", options=[*((named.get(m, m), m) for m in methods), (PLAIN, "")], **long
        ),
        "alpha": ipywidgets.FloatSlider(alpha, min=0, max=1, step=0.05, description="opacity", **long),
        "threshold": ipywidgets.FloatSlider(threshold, min=0, max=1, step=0.05, description="threshold", **long),
    }
    note = ipywidgets.Label()
    picture = ipywidgets.Image(format="png")

    def redraw(change: Any = None) -> None:
        entry = entries[choices["image"].value]
        if change is not None and change["owner"] is choices["image"]:
            choices["target"].options = _classes(entry)
        block = entry.blocks[choices["target"].value or 0]
        look = Look(colormap, choices["alpha"].value, choices["threshold"].value)
        picture.value, note.value = _drawn(entry, block, choices["method"].value, look)

    for choice in choices.values():
        choice.observe(redraw, names="value")
    redraw()
    single = len(entries[0].blocks) == 1
    shown = [choice for name, choice in choices.items() if not (name == "target" and single)]
    box = ipywidgets.VBox([ipywidgets.VBox(shown), note, picture])
    box.controls = choices  # type: ignore[attr-defined]
    return box


def _every(maps: Any) -> Any:
    """The positions of all images that can be drawn; None where `read_images` knows best."""
    ids = getattr(maps, "ids", None)
    if ids is None:
        first = next(iter(maps.values())) if isinstance(maps, Mapping) and len(maps) else None
        return None if first is None else list(range(len(first)))
    found = []
    for row in chosen_rows(list(range(len(ids))), ids):
        try:
            maps.image(row)
        except InvalidInput:
            continue
        found.append(row)
    return found or None


def _classes(entry: ExplainedImage) -> list[tuple[str, int]]:
    return [(class_text(block.answer) or f"{i + 1}", i) for i, block in enumerate(entry.blocks)]


def _drawn(entry: ExplainedImage, block: Any, method: str, look: Look) -> tuple[bytes, str]:
    """The picture as the bytes of a PNG file, and what stands above it."""
    assert entry.image is not None
    plain, note = resized(entry.image, None, tile_size(entry.image)), ""
    shown = block.maps.get(method)
    if shown is None or shown.flag:
        picture: Image.Image = plain
        note = shown.flag if shown is not None else "no map of this method" if method else ""
    else:
        picture = over(plain, Method(method, method), shown, look, entry.mask)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), note

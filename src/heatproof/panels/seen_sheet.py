"""A sheet of the images as a network sees them, each with its prediction."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from heatproof.class_names import class_text
from heatproof.panels.panel import GAP, MARGIN, SMALL, SPACE, TEXT, resized, tile_size, wrapped
from heatproof.panels.predictions import KEPT, Prediction
from heatproof.panels.sheet import Line, Sheet, Tile
from heatproof.report.style import CHANGED, FAINT, INK

#: The most images in a row.
ACROSS = 6


def seen_sheet(
    model: str,
    preprocessing: str,
    predictions: Sequence[Prediction],
    seen: Mapping[int, np.ndarray],
    classes: Sequence[str] | None,
) -> Sheet:
    """The images after resize and crop, before normalisation; below each its name, the prediction and what is expected.

    Wrong ones come first, so that a few among many are on the sheet. An image that could not be read has its reason.
    """
    order = sorted(range(len(predictions)), key=lambda row: not predictions[row].wrong)
    rows = order[:KEPT]
    sides = [tile_size(seen[row]) for row in rows if row in seen] or [(224, 224)]
    wide, high = max(w for w, _ in sides), max(h for _, h in sides)
    across = min(ACROSS, max(2, len(rows)))
    room = across * (wide + GAP) - GAP
    head = [Line(model, TEXT, INK, True), *wrapped(preprocessing, room, SMALL, FAINT)]
    if len(order) > KEPT:
        head.append(Line(f"{KEPT} of {len(order)} images, wrong ones first", SMALL, FAINT))
    captions = [_caption(predictions[row], wide, classes) for row in rows]
    lines = [captions[at : at + across] for at in range(0, len(captions), across)]
    texts = [max(sum(line.height for line in caption) for caption in line) for line in lines]
    top = MARGIN + sum(line.height for line in head) + GAP
    height = top + sum(high + SPACE + text + GAP for text in texts) + MARGIN
    sheet = Sheet(2 * MARGIN + room, math.ceil(height))
    sheet.write(head, MARGIN, MARGIN)
    y = top
    for line, text in enumerate(texts):
        for column in range(len(lines[line])):
            row, x = rows[line * across + column], MARGIN + column * (wide + GAP)
            if row in seen:
                image = seen[row]
                sheet.tiles.append(Tile(x, y, *tile_size(image), image.shape[1::-1], partial(resized, image, None)))
            sheet.write(lines[line][column], x, y + high + SPACE)
        y += high + SPACE + text + GAP
    return sheet


def _caption(one: Prediction, width: int, classes: Sequence[str] | None) -> list[Line]:
    name = wrapped(" ".join(one.image.split()), width, SMALL, FAINT)
    if one.flag or one.first is None:
        return [*name, *wrapped(one.flag or "no prediction", width, SMALL, CHANGED)]
    found = [*name, *wrapped(one.first.short, width, TEXT, INK, True)]
    if one.agrees is False and one.reference is not None:
        found += wrapped(f"reference: {class_text(classes, one.reference.index)}", width, SMALL, CHANGED)
    if one.right is False:
        found += wrapped(f"label: {class_text(classes, one.label)}", width, SMALL, CHANGED)
    return found

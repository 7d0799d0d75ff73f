"""Shapes as files: images, masks, labels, and the card."""

import csv
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heatproof.data.shapes import Shapes
from heatproof.data.shapes_card import Card, card_of, checked_images
from heatproof.errors import InvalidInput
from heatproof.files import friendly_os_errors, write_atomically
from heatproof.progress import Bar, Log, Silent

CARD = "card.json"


def write_shapes(shapes: Shapes, out: str | Path, progress: Bar | Log | Silent | None = None) -> Card:
    """Writes `images/NNNNN.png`, `masks/NNNNN.png` (255 where the class is decided), `labels.csv`, and the card.

    The files are the same bytes every time. Those that are there already are kept, so a stopped call goes on. The
    folder is input as it is: `--images OUT/images --labels OUT/labels.csv --masks OUT/masks`.

    Args:
        out: a new folder, or one of the same set.
        progress: told of each image; silent by default.

    Returns:
        The card, with its checks; it is also in `card.json` and `card.md`.

    Raises:
        InvalidInput: the folder holds something else.
    """
    folder, bar = Path(out), progress or Silent()
    _ = shapes.photographs  # backgrounds that cannot be used are an error before anything is written
    with friendly_os_errors(folder):
        _claim(folder, shapes)
        bar.stage("Drawing", shapes.n)
        for i in range(shapes.n):
            image, mask = (folder / kind / f"{i:05d}.png" for kind in ("images", "masks"))
            if not (image.exists() and mask.exists()):
                scene = shapes.scene(i)
                _write_image(mask, scene.mask.astype(np.uint8) * 255)
                _write_image(image, scene.pixels)
            bar.advance(1)
        _write_labels(folder, shapes)
        bar.stage("Checking", checked_images(shapes))
        card = card_of(shapes, bar.advance)
        _write_json(folder / CARD, card.as_json())
        write_atomically(folder / "card.md", lambda file: file.write(card.text().encode("utf-8")))
    return card


def _claim(folder: Path, shapes: Shapes) -> None:
    """Makes the folder of this set; InvalidInput where it is of another, or holds other things."""
    known = folder / CARD
    if known.is_file():
        if json.loads(known.read_text("utf-8")).get("fingerprint") != shapes.fingerprint:
            raise InvalidInput(f"`out` must be a new folder. {folder} holds another set of Shapes (card.json).")
    elif folder.is_dir() and any(folder.iterdir()):
        raise InvalidInput(f"`out` must be a new folder, or one of the same set. {folder} holds other files.")
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if not known.is_file():
        _write_json(known, {"fingerprint": shapes.fingerprint, "unfinished": True})


def _write_image(path: Path, pixels: np.ndarray) -> None:
    write_atomically(path, partial(Image.fromarray(pixels).save, format="PNG"))


def _write_labels(folder: Path, shapes: Shapes) -> None:
    names = shapes.class_names
    rows = [(f"{i:05d}.png", label, names[label]) for i, label in enumerate(shapes.labels) if label is not None]

    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("file", "class_index", "name"), *rows])
    write_atomically(folder / "labels.csv", lambda file: file.write(text.getvalue().encode("utf-8")))


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))

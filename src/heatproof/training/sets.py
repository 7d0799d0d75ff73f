"""Train, validation and test images."""

import os
from pathlib import Path
from typing import Any

from heatproof.data import Images, load_images, paper_shapes
from heatproof.errors import InvalidInput

SETS = ("train", "val", "test")


def shapes_sets(limit: int | None = None, size: int = 256, **more: Any) -> dict[str, Images]:
    """The three sets of Shapes; `limit` training images, and of the others as paper R has, or as many."""
    found: dict[str, Images] = {}
    for kind in SETS:
        whole = paper_shapes(kind, None, size, **more)
        count = whole.n if limit is None else limit if kind == "train" else min(whole.n, limit)
        found[kind] = paper_shapes(kind, count, size, **more)
    return found


def folder_sets(folder: str | os.PathLike, limit: int | None = None, seed: int = 0) -> dict[str, Images]:
    """The images of `folder/train`, `folder/val` and `folder/test`, with a subfolder for every class.

    Raises:
        InvalidInput: one of the three is missing.
    """
    missing = [kind for kind in SETS if not (Path(folder) / kind).is_dir()]
    if missing:
        raise InvalidInput(
            f"Images to train on must be `shapes`, or a folder with train, val and test. There is no "
            f"{Path(folder) / missing[0]}."
        )
    return {kind: load_images(Path(folder) / kind, limit=limit if kind == "train" else None, seed=seed, name=kind)
            for kind in SETS}  # fmt: skip

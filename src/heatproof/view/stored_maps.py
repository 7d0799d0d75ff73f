"""The maps that a study has kept: raw maps under every condition, small display maps, and those of its gallery."""

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heatproof.addresses import DAMAGED, load_arrays
from heatproof.panels.explained_image import Map

#: Why a stored map says nothing.
CONSTANT, NON_FINITE = "constant map", "non-finite map"


def displayed(raw: np.ndarray, size: tuple[int, int]) -> Map:
    """A raw map of a layer as it is shown at a size (height, width): ReLU, bilinear, scaled to [0, 1].

    What `attributions.display.display_maps` does with a map of form `cam`, without torch.
    """
    raw = np.asarray(raw, np.float32)
    if not np.isfinite(raw).all():
        return Map(raw, np.zeros(size, np.float32), NON_FINITE, True)
    field = Image.fromarray(np.maximum(raw, 0)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    shown = np.asarray(field, np.float32)
    low, high = float(shown.min()), float(shown.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return Map(raw, np.zeros(size, np.float32), CONSTANT, True)
    return Map(raw, (shown - low) / (high - low))


class StoredMaps:
    """The maps of a study's folder, a file at a time."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._shard = lru_cache(maxsize=2)(self._opened)
        self._cases = self._gallery()

    def of(self, job: str, place: tuple[str, str, str], condition: str, size: tuple[int, int]) -> dict[str, Map]:
        """Method → its map of an image; `place`: model, dataset and image; `job`: the key of its file."""
        image, shard = place[2], self._shard(job)
        found: dict[str, Map] = {}
        if "images" in shard and image in shard["images"] and condition in shard["conditions"]:
            row = list(shard["images"]).index(image)
            column = list(shard["conditions"]).index(condition)
            for number, method in enumerate(map(str, shard["methods"])):
                raw = shard["values"][number, column, row].astype(np.float32) * shard["scale"][number, column, row]
                if raw.ndim == 2:
                    found[method] = displayed(raw, size)
        if not condition and "display" in shard and image in shard["display_images"]:
            row = list(shard["display_images"]).index(image)
            for number, method in enumerate(map(str, shard["display_methods"])):
                found.setdefault(method, _of_bytes(shard["display"][number, row]))
        for method, stored in self._of_case(place, condition).items():
            found.setdefault(method, _of_bytes(stored))
        return found

    def pixels(self, place: tuple[str, str, str], condition: str = "") -> np.ndarray | None:
        """The image as the gallery has it, uint8 `(H, W, 3)`; None where it is not among its cases."""
        found = self._case(place, condition)
        return None if found is None else found[0]["images"][found[1]]

    def _opened(self, job: str) -> Mapping[str, np.ndarray]:
        """The arrays of a file; none where it is missing or damaged."""
        with suppress(*DAMAGED), load_arrays(self._folder / "maps" / f"{job}.npz") as arrays:
            return dict(arrays)
        return {}

    # --- the gallery ---

    def _gallery(self) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
        """Place → the cases that show it."""
        found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        with suppress(*DAMAGED):
            for case in json.loads((self._folder / "gallery" / "index.json").read_text("utf-8")):
                found.setdefault((case["model"], case["dataset"], case["image"]), []).append(case)
        return found

    def _case(self, place: tuple[str, str, str], condition: str) -> tuple[Any, int, list[str]] | None:
        """(arrays, column, methods) of a case that shows the image under a condition."""
        for case in self._cases.get(place, []):
            names = [column["condition"] for column in case["columns"]]
            if condition in names:
                path = self._folder / "gallery" / Path(case["file"]).name
                with suppress(*DAMAGED), load_arrays(path) as arrays:
                    return {name: arrays[name] for name in ("images", "maps")}, names.index(condition), case["methods"]
        return None

    def _of_case(self, place: tuple[str, str, str], condition: str) -> dict[str, np.ndarray]:
        found = self._case(place, condition)
        if found is None:
            return {}
        arrays, column, methods = found
        return {method: arrays["maps"][row, column] for row, method in enumerate(methods)}


def _of_bytes(stored: np.ndarray) -> Map:
    shown = stored.astype(np.float32) / 255
    flat = not shown.size or float(shown.max()) == float(shown.min())
    return Map(shown, shown, CONSTANT if flat else "", flat)

"""Masks of the objects in images that are shown: from a path, from arrays, or of the images' own set."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from heatproof.data.masks import Masks, load_masks
from heatproof.errors import HeatproofWarning, InvalidImage, InvalidInput
from heatproof.flags import Flag, Reason
from heatproof.geometry import Geometry
from heatproof.metrics.localisation import peak_on_mask
from heatproof.panels.explained_image import ExplainedImage, Map, Rows
from heatproof.panels.image_sources import ImageSource
from heatproof.statistics.peaks import Peaks, peak_sentences, place_of


def with_masks(found: Sequence[ImageSource], masks: Any) -> list[ImageSource]:
    """The images with masks, which replace those of their own set.

    Args:
        masks: a folder of masks or a CSV of boxes (`load_masks`), or an array for each image in its own pixels, None
            where there is none; of images that are a tensor, at their size.

    Raises:
        InvalidInput: masks of other images, or another number of them.
    """
    if isinstance(masks, str | os.PathLike):
        known = load_masks(masks)
        placed = [replace(shot, mask=_by_name(known, shot)) for shot in found]
        if found and not any(map(_there, placed, [known] * len(placed))):
            raise InvalidInput(
                f"`masks` must go by the names of the images, such as {found[0].name!r}. None of {len(found)} images "
                f"has one in {masks}."
            )
        return placed
    if isinstance(masks, torch.Tensor):
        masks = masks.detach().cpu().numpy()
    if not isinstance(masks, np.ndarray | Sequence) or len(masks) != len(found):
        got = type(masks).__name__ if not hasattr(masks, "__len__") else str(len(masks))
        raise InvalidInput(f"`masks` must be a path, or one mask for each of {len(found)} images. Got {got}.")
    arrays = [None if mask is None else np.asarray(mask).squeeze() > 0 for mask in masks]
    return [
        shot if mask is None else replace(shot, mask=partial(_array, mask, shot))
        for shot, mask in zip(found, arrays, strict=True)
    ]


def mask_of(shot: ImageSource, geometry: Geometry, size: tuple[int, int]) -> np.ndarray | None:
    """The mask of an image at the network's input, bool `size`; None without one. A bad mask is a warning."""
    own = own_mask(shot)
    if own is None or (own.shape == size and shot.original is None):
        return own
    if shot.original is None:
        warnings.warn(f"The mask of {shot.name} is left out: {_sizes(own.shape, size)}.", HeatproofWarning, 2)
        return None
    return geometry.mask(own).numpy()


def own_mask(shot: ImageSource) -> np.ndarray | None:
    """The mask in the image's own pixels; None without one that can be used."""
    if shot.mask is None:
        return None
    try:
        return shot.mask()
    except InvalidImage as error:
        warnings.warn(f"The mask of {shot.name} is left out: {error}.", HeatproofWarning, stacklevel=2)
        return None


class PeakTally:
    """Counts how often the peak of each method lies on the mask, image by image; keeps no image."""

    def __init__(self, rows: Rows):
        self._rows = rows
        self._found: dict[str, list[tuple[float, bool]]] = {}
        self._names: list[str] = []

    def add(self, entry: ExplainedImage) -> None:
        """Counts one image, if it has a mask; of several classes explained the first one counts."""
        if entry.mask is None or not entry.mask.any() or not entry.blocks:
            return
        block = entry.blocks[0]
        self._names.append(entry.label.name if entry.label is not None else "")
        for method in (method for row in self._rows for method in row):
            if (shown := block.maps.get(method.key)) is not None:
                self._found.setdefault(method.key, []).append((_decision(shown, entry.mask), shown.degenerate))

    def sentences(self, controls: Sequence[str]) -> list[str]:
        """Sentences on the peaks of all methods; none without masks."""
        peaks = {method: Peaks.of(decisions) for method, decisions in self._found.items()}
        return peak_sentences(peaks, controls, place=place_of(self._names))


def _decision(shown: Map, mask: np.ndarray) -> float:
    flag = Flag(Reason.CONSTANT if shown.degenerate else Reason.FAILED) if shown.flag else Flag(Reason.FINE)
    maps, inside = torch.from_numpy(shown.display)[None], torch.from_numpy(mask)[None]
    return float(peak_on_mask(maps, inside, [flag]))


def _by_name(masks: Masks, shot: ImageSource) -> Callable[[], np.ndarray | None]:
    def mask() -> np.ndarray | None:
        assert shot.original is not None
        image = shot.original()
        return masks.mask(_identity(shot), (image.height, image.width))

    return mask


def _identity(shot: ImageSource) -> str:
    return shot.place[0] if shot.place else shot.id


def _there(shot: ImageSource, masks: Masks) -> bool:
    try:
        return shot.original is not None and masks.mask(_identity(shot), (1, 1)) is not None
    except InvalidImage:  # there is a mask, of another size
        return True


def _array(mask: np.ndarray, shot: ImageSource) -> np.ndarray:
    if shot.original is not None:
        image = shot.original()
        if mask.shape != (image.height, image.width):
            raise InvalidImage(_sizes(mask.shape, (image.height, image.width)))
    return mask


def _sizes(mask: tuple[int, ...], image: tuple[int, ...]) -> str:
    return f"it has {' × '.join(map(str, mask))} pixels, and its image {' × '.join(map(str, image))}"

"""Images as users give them → batches `(N, C, H, W)` in [0, 1] with a name for each image.

Paths, PIL images, arrays and tensors are `Inputs`; folders, datasets and iterables are a `Stream` (`data.streams`).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from heatproof.data.image_paths import matching_files
from heatproof.data.input_form import InputForm, content_id, opened
from heatproof.data.items import as_rows, is_source
from heatproof.data.loading import is_set, load_images
from heatproof.data.streams import Stream, seen_pixels
from heatproof.errors import InvalidInput
from heatproof.flags import Reason
from heatproof.geometry import Geometry
from heatproof.memo import cached_property
from heatproof.pixels import Pixels
from heatproof.tensors import NEARLY_ONE_COLOUR, contrast


@dataclass(frozen=True)
class Inputs:
    """Images that are made tensors batch by batch; their names are worked out when they are first needed."""

    items: Sequence[Any] | torch.Tensor
    form: InputForm
    _contrast: dict[int, float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self.items)

    @property
    def geometry(self) -> Geometry:
        """How an image becomes the network's input."""
        return self.form.geometry

    @property
    def labels(self) -> None:
        """None: such images have no labels of their own."""

    @property
    def failed(self) -> dict[int, str]:
        """None of them: an image that cannot be read is an error."""
        return {}

    def ready(self, start: int, most: int) -> int:
        """How many images there are from row `start` on, `most` at the most."""
        return max(0, min(most, len(self) - start))

    def mask(self, row: int) -> None:
        """None: such images have no masks of their own."""

    @cached_property
    def ids(self) -> list[str]:
        """File names; for images without one, a hash of the content."""
        if isinstance(self.items, torch.Tensor):
            return [content_id(one) for one in self.items]
        return [str(item) if isinstance(item, str | os.PathLike) else content_id(item) for item in self.items]

    def size(self, row: int) -> tuple[int, int] | None:
        """(height, width) of an image in its own pixels; None for a tensor, which is never resized."""
        item = self.items[row]
        if isinstance(item, torch.Tensor):
            return None
        image: Any = opened(item)
        return image.height, image.width

    def opened(self, row: int) -> Any:
        """An image of PIL or `Pixels` at its own resolution and full precision; a tensor as it is."""
        return opened(self.items[row])

    def batch(self, rows: slice) -> torch.Tensor:
        """`(n, C, h, w)` float32 in [0, 1]."""
        if isinstance(self.items, torch.Tensor):
            return self.items[rows]
        made = torch.stack([self.form.one(opened(item)) for item in self.items[rows]])
        self._contrast.update(zip(range(len(self))[rows], contrast(made).tolist(), strict=True))
        return made

    def seen(self, row: int) -> np.ndarray:
        """An image as the network saw it, uint8 `(H, W, 3)`; InvalidInput for what is no image."""
        return seen_pixels(self.batch(slice(row, row + 1))[0])

    @property
    def flags(self) -> list[str]:
        """For each image why it is doubtful, empty where it is fine: it may be nearly one colour."""
        if isinstance(self.items, torch.Tensor):
            spans = contrast(self.items).tolist() if self.items.dim() == 4 else [1.0] * len(self)
        else:
            spans = [self._contrast[row] if row in self._contrast else self._opened_contrast(row)
                     for row in range(len(self))]  # fmt: skip
        return [Reason.ONE_COLOUR.value if span < NEARLY_ONE_COLOUR else "" for span in spans]

    def flat(self, rows: slice) -> list[str]:
        """The names of those files, PIL images or arrays among `rows` that are nearly one colour; after `batch`."""
        return [self.ids[row] for row in range(len(self))[rows] if self._contrast.get(row, 1.0) < NEARLY_ONE_COLOUR]

    def _opened_contrast(self, row: int) -> float:
        return float(contrast(self.batch(slice(row, row + 1)))[0])


def as_inputs(images: Any, form: InputForm | Geometry) -> Inputs | Stream:
    """Images in any form that `heatproof.explain` takes, for a network that takes images of `form`.

    Raises:
        InvalidInput: no image, a wrong shape, or values outside [0, 1].
    """
    form = form if isinstance(form, InputForm) else InputForm(form)
    if isinstance(images, torch.Tensor):
        return Inputs(form.checked(images), form)
    images = _set_of_images(as_rows(images)) if form.takes_images else images
    if is_source(images):
        return Stream(images, form)
    if not form.takes_images:
        raise form.no_files(images)
    items = _as_list(images)
    if not items:
        raise InvalidInput("Expected at least one image. Got none.")
    return Inputs(items, form)


def _set_of_images(images: Any) -> Any:
    """A folder or the name of a set as its images, a pattern as its files; else as given."""
    if isinstance(images, str | os.PathLike) and is_set(images):
        return load_images(images)
    if isinstance(images, str) and (files := matching_files(images)):
        return files
    if isinstance(images, list | tuple) and any(isinstance(one, str) for one in images):
        return [file for one in images for file in (matching_files(one) if isinstance(one, str) else ()) or [one]]
    if isinstance(images, list | tuple) and any(isinstance(i, str | os.PathLike) and is_set(i) for i in images):
        raise InvalidInput("A folder goes by itself, or give a list of files. Got a list that holds a folder.")
    return images


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, str | os.PathLike | Image.Image | Pixels):
        return [images]
    if isinstance(images, np.ndarray):
        return [images] if images.ndim <= 3 else list(images)
    if isinstance(images, list | tuple):
        return list(images)
    raise InvalidInput(
        "Expected paths, PIL images, arrays, a tensor (N, C, H, W), a folder, a Dataset or a DataLoader. Got "
        f"{type(images).__name__}."
    )

"""Paths, PIL images, arrays or a tensor → a batch `(N, 3, H, W)` in [0, 1] with a name for each image."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from heatproof.data.image_opener import open_pixels
from heatproof.errors import InvalidInput
from heatproof.flags import Reason
from heatproof.geometry import Geometry
from heatproof.memo import cached_property
from heatproof.pixels import Pixels, from_array
from heatproof.tensors import NEARLY_ONE_COLOUR, contrast


@dataclass(frozen=True)
class Inputs:
    """Images that are made tensors batch by batch; their names are worked out when they are first needed."""

    items: Sequence[Any] | torch.Tensor
    geometry: Geometry
    _contrast: dict[int, float] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def ids(self) -> list[str]:
        """File names; for images without one, a hash of the content."""
        if isinstance(self.items, torch.Tensor):
            return [_content_id(one.detach().cpu().numpy()) for one in self.items]
        return [_id(item) for item in self.items]

    def size(self, row: int) -> tuple[int, int] | None:
        """(height, width) of an image in its own pixels; None for a tensor, which is never resized."""
        item = self.items[row]
        if isinstance(item, torch.Tensor):
            return None
        opened = _opened(item)
        return opened.height, opened.width

    def opened(self, row: int) -> Image.Image | Pixels:
        """An image at its own resolution and full precision, unless the images are a tensor."""
        return _opened(self.items[row])

    def batch(self, rows: slice) -> torch.Tensor:
        """`(n, 3, h, w)` float32 in [0, 1]."""
        if isinstance(self.items, torch.Tensor):
            return self.items[rows]
        made = torch.stack([self.geometry.image(_opened(item)) for item in self.items[rows]])
        self._contrast.update(zip(range(len(self))[rows], contrast(made).tolist(), strict=True))
        return made

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


def as_inputs(images: Any, geometry: Geometry, shape: tuple[int, ...] | None = None) -> Inputs:
    """Paths, PIL images, arrays, lists of those, or a tensor `(N, 3, H, W)` in [0, 1].

    With `shape` `(channels, *spatial)`, of signals or volumes, only a float tensor of those is accepted, of any size.

    Raises:
        InvalidInput: no image, a wrong shape, or values outside [0, 1].
    """
    if shape is not None:
        return Inputs(_checked_volumes(images, shape), geometry)
    if isinstance(images, torch.Tensor):
        return Inputs(_checked_tensor(images), geometry)
    items = _as_list(images)
    if not items:
        raise InvalidInput("Expected at least one image. Got none.")
    return Inputs(items, geometry)


def _checked_volumes(values: Any, shape: tuple[int, ...]) -> torch.Tensor:
    fits = isinstance(values, torch.Tensor) and values.dim() == len(shape) + 1 and values.shape[1] == shape[0]
    if not fits or not values.numel() or not values.dtype.is_floating_point:
        got = f"{tuple(values.shape)} {values.dtype}" if isinstance(values, torch.Tensor) else type(values).__name__
        wanted = ", ".join(("N", str(shape[0]), *(f"side {i + 1}" for i in range(len(shape) - 1))))
        raise InvalidInput(f"Expected a float tensor ({wanted}), as the network takes it. Got {got}.")
    return values.float()


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray):
        return [images] if images.ndim <= 3 else list(images)
    if isinstance(images, Iterable):
        return list(images)
    raise InvalidInput(f"Expected paths, PIL images, arrays or a tensor (N, 3, H, W). Got {type(images).__name__}.")


def _checked_tensor(images: torch.Tensor) -> torch.Tensor:
    if images.dim() != 4 or images.shape[1] != 3:
        raise InvalidInput(f"A tensor of images must be (N, 3, H, W). Got {tuple(images.shape)}.")
    if not images.numel():
        raise InvalidInput("Expected at least one image. Got none.")
    if not images.dtype.is_floating_point:
        raise InvalidInput(f"A tensor of images must be floating point in [0, 1]. Got {images.dtype}.")
    low, high = float(images.detach().amin()), float(images.detach().amax())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise InvalidInput(
            f"A tensor of images must lie in [0, 1]; heatproof normalises it itself. Got {low:.3g} … {high:.3g}. "
            "Undo your own normalisation, or divide bytes by 255."
        )
    return images.float()


def _opened(item: Any) -> Image.Image | Pixels:
    """A path, a PIL image or an array as an image at its full precision."""
    if isinstance(item, str | os.PathLike):
        return open_pixels(Path(item))
    if isinstance(item, Image.Image | Pixels):
        return item
    if isinstance(item, torch.Tensor):
        raise InvalidInput("Give several tensors as one tensor (N, 3, H, W). Got a list that holds a tensor.")
    return from_array(np.asarray(item))


def _id(item: Any) -> str:
    if isinstance(item, str | os.PathLike):
        return str(item)
    return _content_id(np.asarray(item))


def _content_id(array: np.ndarray) -> str:
    """A name from the content, so that random numbers depend neither on order nor on batch."""
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()

"""What a network takes: the channels, the size and the range of its input, and how tensors are checked against it."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from heatproof.data.image_opener import open_pixels
from heatproof.errors import InvalidImage, InvalidInput
from heatproof.geometry import Geometry
from heatproof.pixels import Pixels, from_array

#: How far a tensor that was normalised may lie outside [0, 1] once mean and std are undone: rounding, and no more.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class InputForm:
    """The input of a network, and in which form tensors come.

    Attributes:
        geometry: how image files become its input.
        shape: `(channels, *spatial)` where tensors are taken as they are; None for images in [0, 1].
        mean, std: those with which tensors were normalised, where they come normalised; else None.
        classes: the names of its classes, where they are known.
    """

    geometry: Geometry
    shape: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: Sequence[str] | None = None

    @property
    def takes_images(self) -> bool:
        """Whether image files can be its input."""
        return self.shape is None or len(self.shape) == 3

    @property
    def channels(self) -> int:
        """The channels of its input."""
        return self.geometry.channels if self.shape is None else self.shape[0]

    @property
    def spatial(self) -> int:
        """The number of its spatial dims."""
        return 2 if self.shape is None else len(self.shape) - 1

    def checked(self, images: torch.Tensor) -> torch.Tensor:
        """A tensor of several images `(N, C, *spatial)`, as the network's `x`, float32.

        Raises:
            InvalidInput: another shape, or values outside [0, 1] where `x` lies there.
        """
        sides = "H, W" if self.spatial == 2 else ", ".join(f"side {i + 1}" for i in range(self.spatial))
        wanted = f"(N, {self.channels}, {sides})"
        if images.dim() != self.spatial + 2 or images.shape[1] != self.channels:
            raise InvalidInput(
                f"A tensor of {'images' if self.takes_images else 'inputs'} must be {wanted}. Got "
                f"{tuple(images.shape)}.{self._channel_advice(images)}"
            )
        if not images.numel():
            raise InvalidInput("Expected at least one image. Got none.")
        if self.shape is not None:
            if not images.dtype.is_floating_point:
                raise InvalidInput(f"Expected a float tensor {wanted}, as the network takes it. Got {images.dtype}.")
            return images.float()
        if images.dtype == torch.uint8:
            return images.float() / 255
        if not images.dtype.is_floating_point:
            raise InvalidInput(f"A tensor of images must be floating point in [0, 1], or bytes. Got {images.dtype}.")
        return self._in_unit(images.float())

    def _in_unit(self, images: torch.Tensor) -> torch.Tensor:
        undone = self.mean is not None and self.std is not None
        if undone:
            about = (1, -1, *[1] * self.spatial)
            mean, std = (torch.tensor(v, device=images.device).view(about) for v in (self.mean, self.std))
            images = images * std + mean
        low, high = torch.stack([images.detach().amin(), images.detach().amax()]).tolist()
        slack = _ROUNDING if undone else 0.0
        if low >= -slack and high <= 1 + slack:  # NaN fails
            return images.clamp(0, 1) if undone else images
        if undone:
            raise InvalidInput(
                f"`normalised=True` undoes the model's mean {self.mean} and std {self.std}, and the images must lie in "
                f"[0, 1] then. Got {low:.3g} … {high:.3g}. Give the model the mean and std of your own normalisation."
            )
        raise InvalidInput(
            f"A tensor of images must lie in [0, 1]; heatproof normalises it itself. Got {low:.3g} … {high:.3g}. "
            "If it is normalised with the model's mean and std, say `normalised=True`. Else undo your own "
            "normalisation, or divide bytes by 255."
        )

    def _channel_advice(self, images: torch.Tensor) -> str:
        if not self.takes_images or images.dim() != 4:
            return ""
        height, width = images.shape[2:]
        if images.shape[3] == self.channels:
            return " Move the channels to the second place, as in `images.permute(0, 3, 1, 2)`."
        return (
            f" For a network of {images.shape[1]} {'channel' if images.shape[1] == 1 else 'channels'} set "
            f"`input_shape=({images.shape[1]}, {height}, {width})`."
        )

    def one(self, image: Image.Image | Pixels | torch.Tensor | np.ndarray) -> torch.Tensor:
        """One image as `x` `(C, *spatial)`: files, PIL images and arrays by the geometry, tensors as they are.

        Raises:
            InvalidImage: values that are not finite or whose range is unknown, another number of channels.
            InvalidInput: as `checked`.
        """
        if isinstance(image, torch.Tensor):
            if self.shape is None and not image.isfinite().all():
                raise InvalidImage("the tensor has values that are not finite")
            whole = image[None] if self.spatial == 2 and image.dim() == 2 else image  # grey without its channel
            return self.checked(whole[None])[0]
        if not self.takes_images:
            raise self.no_files(image)
        return self.geometry.image(image)  # type: ignore[arg-type]

    def no_files(self, got: Any) -> InvalidInput:
        """The error for anything but a tensor where a network takes signals or volumes."""
        shape = ", ".join(map(str, self.shape or ()))
        return InvalidInput(f"Expected a float tensor (N, {shape}), as the network takes it. Got {type(got).__name__}.")


def opened(item: Any) -> Image.Image | Pixels | torch.Tensor:
    """A path, a PIL image or an array as an image at its full precision; a tensor as it is."""
    if isinstance(item, str | os.PathLike):
        return open_pixels(Path(item))
    if isinstance(item, Image.Image | Pixels | torch.Tensor):
        return item
    return from_array(np.asarray(item))


def content_id(image: Any) -> str:
    """A name from the content, so that random numbers depend neither on order nor on batch."""
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    content = image.tobytes() if isinstance(image, Pixels) else np.ascontiguousarray(np.asarray(image)).tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()

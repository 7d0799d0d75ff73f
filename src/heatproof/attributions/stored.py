"""Maps from outside: brought to the shape that maps have here, and looked up by the images' names."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from heatproof.archives import Archive, is_archive
from heatproof.code_fingerprint import code_fingerprint
from heatproof.data.image_opener import MAX_PIXELS, mapped_array, open_array, open_grey
from heatproof.data.image_paths import EXTENSIONS, names_for
from heatproof.errors import HeatproofWarning, InvalidImage, InvalidInput
from heatproof.files import exists, file_fingerprint
from heatproof.geometry import Geometry
from heatproof.memo import cached_property
from heatproof.tensors import one_channel, upsampled
from heatproof.transfers import on_device

#: Names of conditions that leave the image as it is.
CLEAN = ("", "clean")


def fitted(maps: Any, inputs: torch.Tensor, form: str, name: str) -> torch.Tensor:
    """The maps of a foreign method for `inputs` `(N, C, *size)` → `(N, *size)`, or `(N, C, *size)` for `rgb`.

    Raises:
        InvalidInput: no array, or not one map for each image.
    """
    try:
        found = maps if isinstance(maps, torch.Tensor) else torch.from_numpy(np.asarray(maps))
        found = on_device(found.detach(), inputs.device, torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidInput(f"{name!r} must give a tensor or an array of numbers. Got {type(maps).__name__}.") from None
    size = tuple(inputs.shape[2:])
    if found.dim() not in (len(size) + 1, len(size) + 2) or len(found) != len(inputs) or not found.numel():
        sides = ", ".join("HW" if len(size) == 2 else [f"side {i + 1}" for i in range(len(size))])
        raise InvalidInput(
            f"{name!r} must give one map for each of {len(inputs)} images: (N, {sides}) or (N, channels, {sides}). "
            f"Got {tuple(found.shape)}."
        )
    channels = found if found.dim() == len(size) + 2 else found[:, None]
    if form == "rgb":
        flat = upsampled(channels.flatten(0, 1), size)
        return flat.unflatten(0, channels.shape[:2])
    if channels.shape[1] == 1:
        return upsampled(channels[:, 0], size)
    return upsampled(channels.sum(1) if form == "signed" else one_channel(channels), size)


@dataclass(frozen=True)
class Stored:
    """Maps by the images' names: a mapping, a folder of `.npy` files or grey images, or an `.npz`.

    `order` are the names of all images, for an `.npz` or `.npy` of one array `(N, H, W)` in their order.
    """

    name: str
    where: Any
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.where, Mapping):
            if not self.where:
                raise InvalidInput(f"{self.name!r} must hold at least one map. Got none.")
            return
        path = Path(self.where)
        there = exists(path)
        if not there or (not path.is_dir() and not (path.is_file() and path.suffix.lower() in (".npz", ".npy"))):
            got = f"{path} is another file" if there else f"There is no {path!s:.200}"
            raise InvalidInput(
                f"{self.name!r:.200} must be a folder of .npy files or of grey images, or an .npz file. {got}."
            )

    @property
    def fingerprint(self) -> str:
        """A hash of the maps' names and contents: a study whose maps have changed is another study."""
        if isinstance(self.where, Mapping):
            return code_fingerprint(dict(self.where))
        return file_fingerprint(Path(self.where))

    @cached_property
    def arrays(self) -> Mapping[str, Any] | None:
        """The maps of a mapping or an `.npz`, by name; an `.npy` is one array with the name "". None for a folder.

        Raises:
            InvalidInput: a file that numpy cannot read.
        """
        if isinstance(self.where, Mapping):
            return self.where
        path = Path(self.where)
        if path.is_dir():
            return None
        try:
            return Archive(path) if is_archive(path) else {"": mapped_array(path)}
        except (OSError, InvalidImage) as error:
            raise InvalidInput(f"{self.name!r} must be a file that numpy can read. {path}: {error}.") from error

    @cached_property
    def stack(self) -> Any:
        """The array `(N, H, W)` or `(N, 1, H, W)` of all maps, where it is the only one; None where maps have names."""
        if self.arrays is None or len(self.arrays) != 1:
            return None
        key = next(iter(self.arrays))
        if any(key in names_for(identity) for identity in self.order):
            return None
        found = np.asarray(self.arrays[key]) if isinstance(self.where, Mapping) else self.arrays[key]
        return found if getattr(found, "ndim", 0) in (3, 4) else None

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {identity: position for position, identity in enumerate(self.order)}

    def __call__(self, identity: str, condition: str = "") -> Any:
        """The map of an image, or None: by its whole name, else without its first folders, each with or without suffix.

        Raises:
            InvalidImage: a file that is no map.
        """
        if self.order and self.stack is not None:
            position = self._positions.get(identity, len(self.stack))
            return self.stack[position] if condition in CLEAN and position < len(self.stack) else None
        before = "" if condition in CLEAN else f"{condition.replace(':', '-')}/"
        for key in names_for(identity):
            found = self._at(f"{before}{key}")
            if found is not None:
                return found
        return None

    def holds(self, identity: str) -> bool:
        """Whether there is a map of the clean image; it is not opened."""
        if self.order and self.stack is not None:
            return self._positions.get(identity, len(self.stack)) < len(self.stack)
        arrays = self.arrays
        if arrays is not None:
            return any(key in arrays for key in names_for(identity))
        return any(path.is_file() for key in names_for(identity) for path in self._files(key))

    def names(self) -> list[str]:
        """What the maps are called, in a folder those that lie in it directly."""
        if self.arrays is not None:
            return [str(key) for key in self.arrays]
        return [path.name for path in Path(self.where).iterdir() if path.suffix.lower() in EXTENSIONS]

    def _at(self, key: str) -> Any:
        if self.arrays is not None:
            return self.arrays.get(key)
        path = next(filter(Path.is_file, self._files(key)), None)
        if path is None:
            return None
        return open_array(path) if path.suffix == ".npy" else open_grey(path)

    def _files(self, key: str) -> Iterator[Path]:
        """Where the map of that name may lie: an array first, then an image."""
        folder = Path(self.where)
        yield from (folder / f"{key}{suffix}" for suffix in _SUFFIXES)
        if PurePosixPath(key).suffix.lower() in EXTENSIONS:
            yield folder / key


_IMAGES = sorted(EXTENSIONS - {".npy"})
_SUFFIXES = (".npy", *(spelt for suffix in _IMAGES for spelt in (suffix, suffix.upper())))


def looked_up(maps: Stored) -> Callable:
    """The method that gives the maps of the images asked for."""
    name = maps.name

    def method(x: torch.Tensor, ids: Sequence[str], condition: str) -> torch.Tensor:
        """Maps made beforehand, by the images' names; NaN where there is none, which is flagged."""
        if len(ids) != len(x):
            raise InvalidInput(f"{name!r} looks maps up by the images' names. Got {len(ids)} for {len(x)} images.")
        rows, missing = [], []
        for i, identity in enumerate(ids):
            try:
                found = maps(identity, condition)
            except InvalidImage as error:
                warnings.warn(f"{name}: {error}.", HeatproofWarning, stacklevel=2)
                found = x.new_full(x.shape[2:], torch.nan).cpu().numpy()
            if found is None:
                missing.append(identity)
                rows.append(x.new_full((1, *x.shape[2:]), torch.nan))
            else:
                rows.append(fitted(np.asarray(found)[None], x[i : i + 1], "display", name))
        if missing and condition in CLEAN:
            warnings.warn(
                f"{name} holds no map of {missing[0]!r}{' and others' if len(missing) > 1 else ''}.",
                HeatproofWarning,
                stacklevel=2,
            )
        return torch.cat(rows)

    return method


def as_map(found: Any, size: tuple[int, int], geometry: Geometry) -> np.ndarray | None:
    """What was stored for an image of that size (height, width) → `(h, w)` or `(channels, h, w)`; None if nothing.

    A map that has the image's own pixels goes through the resize and crop that the image goes through; any other
    is taken to show what the network sees.

    Raises:
        InvalidImage: no map.
    """
    if found is None:
        return None
    array = np.asarray(found)
    if array.size > MAX_PIXELS:
        raise InvalidImage(f"a map has at most {MAX_PIXELS:,} values; it is {array.shape}")
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or not array.size:
        raise InvalidImage(f"a map must be an array (H, W) of numbers; it is {array.shape} {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[0] > 3:
        raise InvalidImage(f"a map must be an array (H, W); it is {array.shape}")
    channels = np.array(array, dtype=np.float32).reshape(-1, *array.shape[-2:])
    if channels.shape[1:] == size and size != tuple(geometry.size):
        channels = torch.stack([geometry.map(channel) for channel in channels]).numpy()
    return channels if len(channels) > 1 else channels[0]

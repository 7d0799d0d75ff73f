"""Files, folders, patterns, arrays and tensors as single images, each opened when it is its turn."""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np
import torch

from heatproof.data import ImageFolder, Images, load_images
from heatproof.data.image_paths import printable
from heatproof.data.inputs import Inputs, as_inputs
from heatproof.data.labels import labels_by_ending
from heatproof.errors import InvalidInput
from heatproof.models import Model
from heatproof.seeds import derived_seed

#: The name of an image until it gets its path as name.
_PATH = "/"


@dataclass(frozen=True)
class ImageSource:
    """One image: its id, from which its random numbers come, how to open it, and its name for display.

    `flag`: why it cannot be explained, where that is known before it is opened.
    """

    id: str
    open: Callable[[], torch.Tensor]
    label: int | None = None
    flag: str = ""
    name: str = ""


def shots(
    images: Any, model: Model, labels: Sequence[int | None] | str | os.PathLike | None = None
) -> list[ImageSource]:
    """Files, folders, patterns (`photos/*.jpg`), `shapes`, PIL images, arrays, or a tensor `(N, 3, H, W)`.

    A file that is named twice counts once.

    Args:
        labels: one per image, or a CSV with the columns `file,class_index`.

    Raises:
        InvalidInput: no such images, a wrong number of labels, or a model for signals or volumes.
    """
    if not model.takes_images:
        raise InvalidInput(
            f"Only images can be shown. {model.name} takes input of shape {model.input_shape}. "
            "`heatproof.explain` gives the maps."
        )
    found = _with_names(list(_sources(images, model)))
    if labels is None:
        return found
    if isinstance(labels, str | os.PathLike):
        return _with_labels(found, labels)
    if len(labels) != len(found):
        raise InvalidInput(f"Expected one label for each of the {len(found)} images. Got {len(labels)}.")
    return [replace(shot, label=label) for shot, label in zip(found, labels, strict=True)]


def _with_names(found: list[ImageSource]) -> list[ImageSource]:
    """Images with names: paths without the folder that all share; images that are no file get a number."""
    parents = [PurePath(shot.id).parent for shot in found if shot.name == _PATH]
    common = os.path.commonpath(parents) if len({(path.is_absolute(), path.drive) for path in parents}) == 1 else ""
    named = []
    for i, shot in enumerate(found):
        path = PurePath(shot.id).relative_to(common).as_posix() if common and shot.name == _PATH else shot.id
        named.append(replace(shot, name={_PATH: path, "": f"image {i + 1}"}.get(shot.name, shot.name)))
    return named


def _sources(images: Any, model: Model) -> Iterable[ImageSource]:
    alone = isinstance(images, str | os.PathLike)
    if not alone and not (isinstance(images, list | tuple) and any(isinstance(i, str | os.PathLike) for i in images)):
        return _sources_of_inputs(images, model)
    seen: dict[Any, ImageSource] = {}
    for number, item in enumerate([images] if alone else images):
        path = isinstance(item, str | os.PathLike)
        for shot in _sources_of_path(item, model) if path else _sources_of_inputs([item], model):
            seen.setdefault(shot.id if path else number, shot)
    return seen.values()


def _sources_of_inputs(images: Any, model: Model) -> Iterable[ImageSource]:
    inputs = as_inputs(images, model.geometry)
    return [ImageSource(id, partial(_row, inputs, i)) for i, id in enumerate(inputs.ids)]


def _row(inputs: Inputs, i: int) -> torch.Tensor:
    return inputs.batch(slice(i, i + 1))[0]


def _sources_of_path(item: str | os.PathLike, model: Model) -> Iterable[ImageSource]:
    """The images of one path, pattern or name."""
    path = Path(item)
    if path.is_file():
        return [_file(item, model)]
    if path.is_dir() and not (isinstance(item, str) and re.fullmatch(r"shapes", item)):
        files = cast(ImageFolder, load_images(path))
        if model.classes and len(files.class_names or ()) != len(model.classes):  # folders that are not its classes
            return [_file(file, model) for file in files.paths]
        return [replace(_file(f, model), label=label) for f, label in zip(files.paths, files.labels, strict=True)]
    if isinstance(item, str) and item.partition(":")[0] == "shapes":
        images = load_images(item)
        return [
            ImageSource(id, partial(_open_item, images, i, model), label, name=id)
            for i, (id, label) in enumerate(zip(images.ids, images.labels, strict=True))
        ]
    if glob.has_magic(str(item)):
        found = glob.glob(str(item), recursive=True)  # noqa: PTH207 - may be absolute
        matches = [name for name in sorted(found) if Path(name).is_file()]
        if matches:
            return [_file(match, model) for match in matches]
    raise InvalidInput(
        "Images must be files, folders, patterns such as 'photos/*.jpg', or `shapes`. "
        f"There is no {printable(str(item))}."
    )


def _file(path: str | os.PathLike, model: Model) -> ImageSource:
    return ImageSource(printable(os.fspath(path)), partial(_read_file, path, model), name=_PATH)


def _read_file(path: str | os.PathLike, model: Model) -> torch.Tensor:
    return as_inputs([path], model.geometry).batch(slice(0, 1))[0]


def _open_item(images: Images, i: int, model: Model) -> torch.Tensor:
    return model.geometry.image(images.open(i))


def _with_labels(found: list[ImageSource], file: str | os.PathLike) -> list[ImageSource]:
    labels = labels_by_ending([shot.id for shot in found], file)
    return [replace(shot, label=label) for shot, label in zip(found, labels, strict=True)]


def as_bytes(x: torch.Tensor) -> np.ndarray:
    """`(3, H, W)` in [0, 1] → uint8 `(H, W, 3)`."""
    return (x.detach().permute(1, 2, 0) * 255).round().byte().cpu().numpy()


def stems(shots: Sequence[ImageSource]) -> list[str]:
    """A file name for each image: safe on every system, and unique even where only folders or case differ."""
    plain = [_safe(PurePath(s.name).stem if PurePath(s.name).suffix else s.name) for s in shots]
    count = Counter(name.casefold() for name in plain)
    return [
        name if count[name.casefold()] == 1 else f"{name}-{derived_seed(0, shot.id, shot.name) % 16**8:08x}"
        for shot, name in zip(shots, plain, strict=True)
    ]


def _safe(name: str) -> str:
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80] or "image"
    return f"{safe}-" if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", safe.partition(".")[0]) else safe

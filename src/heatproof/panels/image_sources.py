"""Files, folders, patterns, arrays and tensors as single images, each opened when it is its turn."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from heatproof.data import ImageFolder, Images, load_images
from heatproof.data.class_matching import label_match, names_for
from heatproof.data.folder import labelled_from_file
from heatproof.data.image_opener import open_pixels
from heatproof.data.image_paths import matching_files, printable
from heatproof.data.inputs import Inputs
from heatproof.data.labels import read_labels
from heatproof.data.loading import DRAWN_SETS
from heatproof.data.sampling import sample_text, sampled
from heatproof.data.streams import Stream
from heatproof.engine.call import model_inputs
from heatproof.errors import HeatproofWarning, InvalidInput
from heatproof.models import Model
from heatproof.pixels import Pixels, as_bytes, rgb
from heatproof.seeds import derived_seed
from heatproof.targets import checked_labels
from heatproof.tensors import as_seen

#: The name of an image until it gets its path as name.
_PATH = "/"


@dataclass(frozen=True)
class ImageSource:
    """One image: its id, from which its random numbers come, how to open it, and its name for display.

    `flag`: why it cannot be explained, where that is known before it is opened. `original`: how to open it at its own
    resolution, None for tensors. `place`: its id and class in the folder or set that it comes from, by which a limit
    chooses; the class of a folder need not be one of the network's. `mask`: how to get its mask, in its own pixels.
    `matching`: how its label was matched with the classes of the network, or why it was left out. `stored`: how to open
    its stored values, of a file.
    """

    id: str
    open: Callable[[], torch.Tensor]
    label: int | None = None
    flag: str = ""
    name: str = ""
    original: Callable[[], Image.Image] | None = None
    place: tuple[str, int | None] | None = None
    mask: Callable[[], np.ndarray | None] | None = None
    matching: str = ""
    stored: Callable[[], Any] | None = None


def limited_shots(
    found: Sequence[ImageSource], limit: int | None, seed: int, sampling: str
) -> tuple[list[ImageSource], str]:
    """The images that a limit takes, of a single folder those that a study takes; and how they were chosen."""
    places = [shot.place or (shot.id, shot.label) for shot in found]
    labels = [label if shot.label is None else shot.label for shot, (_, label) in zip(found, places, strict=True)]
    rows = sampled([id for id, _ in places], labels, limit, seed, sampling)
    return [found[row] for row in rows], sample_text(labels, [labels[row] for row in rows], seed, sampling)


def shots(
    images: Any,
    model: Model,
    labels: Sequence[int | str | None] | str | os.PathLike | None = None,
    normalised: bool = False,
) -> list[ImageSource]:
    """Files, folders, patterns (`photos/*.jpg`), `shapes`, PIL images, arrays, a tensor `(N, C, H, W)`, or a source
    that is read to its end: a Dataset, a DataLoader, an iterable (`heatproof.data.items`).

    A file that is named twice counts once.

    Args:
        labels: one per image, an index or a name, None or -1 for none; or a CSV with the columns
            `file,class_index`, `file,name`, or all three.
        normalised: as in `heatproof.explain`.

    Raises:
        InvalidInput: no such images, a wrong number of labels, or a model for signals or volumes.
    """
    if not model.takes_images:
        raise InvalidInput(
            f"Only images can be shown. {model.name} takes input of shape {model.input_shape}. "
            "`heatproof.explain` gives the maps."
        )
    if not isinstance(images, torch.Tensor):
        model.warn_as_given()
    found = _with_names(list(_sources(images, model, normalised)))
    if labels is None:
        return found
    if isinstance(labels, str | os.PathLike):
        return _with_labels(found, labels, model)
    if len(labels) != len(found):
        raise InvalidInput(f"Expected one label for each of the {len(found)} images. Got {len(labels)}.")
    known = checked_labels(labels, model.classes)
    return [replace(shot, label=label) for shot, label in zip(found, known, strict=True)]


def _with_names(found: list[ImageSource]) -> list[ImageSource]:
    """Images with names: paths without the folder that all share; images that are no file get a number."""
    parents = [PurePath(shot.id).parent for shot in found if shot.name == _PATH]
    common = os.path.commonpath(parents) if len({(path.is_absolute(), path.drive) for path in parents}) == 1 else ""
    named = []
    for i, shot in enumerate(found):
        path = PurePath(shot.id).relative_to(common).as_posix() if common and shot.name == _PATH else shot.id
        named.append(replace(shot, name={_PATH: path, "": f"image {i + 1}"}.get(shot.name, shot.name)))
    return named


def _sources(images: Any, model: Model, normalised: bool) -> Iterable[ImageSource]:
    alone = isinstance(images, str | os.PathLike)
    if not alone and not (isinstance(images, list | tuple) and any(isinstance(i, str | os.PathLike) for i in images)):
        inputs = model_inputs(images, model, normalised)
        return _sources_of_inputs(images, inputs, model) if isinstance(inputs, Inputs) else _sources_of_stream(inputs)
    seen: dict[Any, ImageSource] = {}
    for number, item in enumerate([images] if alone else images):
        path = isinstance(item, str | os.PathLike)
        for shot in _sources_of_path(item, model) if path else _sources([item], model, normalised):
            seen.setdefault(shot.id if path else number, shot)
    return seen.values()


def _sources_of_stream(stream: Stream) -> Iterable[ImageSource]:
    """All images of a source, read to its end: what is shown is held in memory anyway."""
    found: list[ImageSource] = []
    while stream.ready(len(found), 1):
        row = len(found)
        x = stream.batch(slice(row, row + 1))[0]
        flag = stream.failed.get(row, "")
        found.append(ImageSource(stream.ids[row], partial(_as_read, x), stream.labels[row], flag,
                                 stream.ids[row] if stream.named[row] else ""))  # fmt: skip
    return found


def _as_read(x: torch.Tensor) -> torch.Tensor:
    return x


def _sources_of_inputs(images: Any, inputs: Inputs, model: Model) -> Iterable[ImageSource]:
    return [
        ImageSource(id, partial(_row, inputs, i), original=_original(inputs, i, model))
        for i, id in enumerate(inputs.ids)
    ]


def _original(inputs: Inputs, i: int, model: Model) -> Callable[[], Image.Image] | None:
    """How to open an image that was given as a PIL image or an array; None for a tensor."""
    return None if isinstance(inputs.items[i], torch.Tensor) else partial(_rgb, partial(inputs.opened, i), model)


def _rgb(opened: Callable[[], Image.Image | Pixels], model: Model) -> Image.Image:
    """An image at its own resolution, with the window and the background of the model; 8 bits."""
    image = opened()
    if isinstance(image, Pixels) and image.values.shape[2] not in (1, 3):
        unit = torch.from_numpy(image.unit(model.geometry.window)).permute(2, 0, 1)
        return Image.fromarray(as_uint8(unit))
    return as_bytes(rgb(image, model.geometry.window, model.geometry.background))


def _row(inputs: Inputs, i: int) -> torch.Tensor:
    return inputs.batch(slice(i, i + 1))[0]


def _sources_of_path(item: str | os.PathLike, model: Model) -> Iterable[ImageSource]:
    """The images of one path, pattern or name."""
    path = Path(item)
    if path.is_file():
        return [_file(item, model)]
    if path.is_dir() and not (isinstance(item, str) and item in DRAWN_SETS):
        files = cast(ImageFolder, load_images(path))
        labels, how = _classes(files, model)
        return [
            replace(_file(file, model), label=label, place=(id, own), matching=how)
            for id, file, label, own in zip(files.ids, files.paths, labels, files.labels, strict=True)
        ]
    if isinstance(item, str) and item.partition(":")[0] in DRAWN_SETS:
        images = load_images(item)
        return [
            ImageSource(
                id,
                partial(_open_item, images, i, model),
                label,
                name=id,
                original=partial(_rgb, partial(images.open, i), model),
                mask=partial(images.mask, i),
            )
            for i, (id, label) in enumerate(zip(images.ids, _classes(images, model)[0], strict=True))
        ]
    if matches := matching_files(item):
        return [_file(match, model) for match in matches]
    raise InvalidInput(
        "Images must be files, folders, patterns such as 'photos/*.jpg', `shapes` or `creatures`. "
        f"There is no {printable(str(item))}."
    )


def _classes(images: Images, model: Model) -> tuple[list[int | None], str]:
    """The classes of the network that the labels stand for, and how they were matched, in words.

    There are none where those of the images are not the network's.
    """
    match = label_match(images, model.classes, model.named_by_images)
    if match.warning and not match.foreign:
        warnings.warn(match.warning, HeatproofWarning, stacklevel=2)
    return list(map(match, images.labels)), match.warning if match.left_out else match.how


def with_names(model: Model, images: Any, labels: Any) -> Model:
    """The model; where it has no names of its classes, with those of a folder for each class, or of a CSV of labels."""
    path = images[0] if isinstance(images, list | tuple) and len(images) == 1 else images
    if model.classes or not model.takes_images or not isinstance(path, str | os.PathLike):
        return model
    if isinstance(labels, str | os.PathLike):
        names = read_labels(labels)
        found = ImageFolder("", [], [], [], names.names, labels_by=names.labels_by)
    elif labels is None and Path(path).is_dir():
        found = load_images(Path(path))
    else:
        return model
    names = names_for(model, found)
    return model.with_classes(names, by_images=True) if names else model


def _file(path: str | os.PathLike, model: Model) -> ImageSource:
    name = printable(os.fspath(path))
    stored = partial(open_pixels, path)
    return ImageSource(
        name, partial(_read_file, path, model), name=_PATH, original=partial(_rgb, stored, model), stored=stored
    )


def _read_file(path: str | os.PathLike, model: Model) -> torch.Tensor:
    return model.geometry.image(open_pixels(path))


def _open_item(images: Images, i: int, model: Model) -> torch.Tensor:
    return model.geometry.image(images.open(i))


def _with_labels(found: list[ImageSource], file: str | os.PathLike, model: Model) -> list[ImageSource]:
    labels, how = _classes(labelled_from_file(ImageFolder("", [shot.id for shot in found], [], []), file), model)
    return [replace(shot, label=label, matching=how) for shot, label in zip(found, labels, strict=True)]


def as_uint8(x: torch.Tensor) -> np.ndarray:
    """`(C, H, W)` → uint8 `(H, W, 3)`; see `tensors.as_seen`."""
    return as_seen(x).cpu().numpy()


def stems(shots: Sequence[ImageSource]) -> list[str]:
    """A file name for each image: safe on every system, and unique even where only folders or case differ."""
    plain = [file_name(PurePath(s.name).stem if PurePath(s.name).suffix else s.name) for s in shots]
    count = Counter(name.casefold() for name in plain)
    return [
        name if count[name.casefold()] == 1 else f"{name}-{derived_seed(0, shot.id, shot.name) % 16**8:08x}"
        for shot, name in zip(shots, plain, strict=True)
    ]


def file_name(name: str) -> str:
    """A name that is safe as a file's on every system."""
    safe = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80] or "image"
    return f"{safe}-" if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", safe.partition(".")[0]) else safe

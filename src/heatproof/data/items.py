"""Images one by one from what people have them in: Datasets, DataLoaders, Hugging Face datasets, frames, iterables.

An element may be an image, `(image, label)`, `(image, label, id)`, or a mapping with an image and, if known, a label.
An image is a tensor, a PIL image, an array or a path; in a mapping, `path` may stand for it. Elements of a DataLoader,
and others whose images have one more dimension, are batches of these. An element that cannot be read becomes an item
with the reason.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from heatproof.class_names import name_text
from heatproof.data.images import Images
from heatproof.errors import InvalidImage, InvalidInput, warn
from heatproof.pixels import Pixels

#: Keys of a mapping that hold its image, its label and its name, in the order tried.
IMAGE_KEYS = ("image", "img", "pixel_values", "images", "x", "input", "picture")
PATH_KEYS = ("path", "file", "file_name", "filename", "file_path", "filepath", "image_path")
LABEL_KEYS = ("label", "labels", "class", "target", "fine_label", "y", "cls")
ID_KEYS = ("id", "image_id", "file_name", "filename", "path", "name")


@dataclass(frozen=True)
class Item:
    """One image of a source, not made a tensor yet.

    label: a class index, a name or None. id: its name, empty where the source has none. flag: why it cannot be used.
    """

    image: Any = None
    label: Any = None
    id: str = ""
    flag: str = ""
    mask: np.ndarray | None = None


def is_source(images: Any) -> bool:
    """Whether these are images that are read one after the other, and not paths, PIL images, arrays or a tensor."""
    if isinstance(images, str | os.PathLike | Image.Image | Pixels | np.ndarray | torch.Tensor | bytes):
        return False
    if isinstance(images, list | tuple):
        return any(isinstance(item, torch.Tensor | Mapping | list | tuple) for item in images)
    return isinstance(images, Iterable | Images) or hasattr(images, "__getitem__")


def as_rows(source: Any) -> Any:
    """The rows of a data frame, a mapping for each image; any other source as it is."""
    return source.to_dict("records") if hasattr(source, "iterrows") and hasattr(source, "to_dict") else source


def length(source: Any) -> int | None:
    """The number of images in a source; None where that is not known before the end."""
    if isinstance(source, Images):
        return len(source.ids)
    if isinstance(source, DataLoader):
        whole = isinstance(source.dataset, Sized) and not isinstance(source.dataset, IterableDataset)
        if not whole or source.drop_last or (source.batch_sampler is not None and _draws_a_part(source)):
            return None
        return len(source.dataset)  # type: ignore[arg-type]
    if isinstance(source, list | tuple):
        return None if _is_one_batch(source) or any(map(_batch_of, source)) else len(source)
    return len(source) if by_index(source) else None


def read_items(source: Any) -> Iterator[Item]:
    """The images of a source in its order; see the head of this file."""
    if isinstance(source, Images):
        return _of_images(source)
    if isinstance(source, DataLoader):
        return _of_loader(source)
    if isinstance(source, Mapping) or _is_one_batch(source):
        return _items_of(source)
    if isinstance(source, list | tuple) or not by_index(source):
        return _of_iterable(source)
    return _of_dataset(source)


def class_names_of(source: Any) -> list[str] | None:
    """The names of the classes in the order of their indices, where a source says them."""
    if isinstance(source, Images):
        return source.class_names
    features = getattr(source, "features", None)
    if isinstance(features, Mapping):
        key = next((key for key in LABEL_KEYS if hasattr(features.get(key), "names")), None)
        return list(features[key].names) if key else None
    names = getattr(source, "classes", None)
    if isinstance(names, list | tuple):
        return [name if isinstance(name, str) else name_text(name) for name in names]
    inner = getattr(source, "dataset", None)  # of a Subset, also of another one
    return None if inner is None or isinstance(inner, str) else class_names_of(inner)


# --- sources ---


def _of_images(images: Images) -> Iterator[Item]:
    for i, (id, label) in enumerate(zip(images.ids, images.labels, strict=True)):
        try:
            opened = images.open(i)
        except InvalidInput as error:
            yield Item(label=label, id=id, flag=images.flags.get(id) or str(error))
            continue
        try:
            mask = images.mask(i)
        except InvalidImage as error:
            warn(f"The mask of {id} is left out: {error}.")
            mask = None
        yield Item(opened, label, id, mask=mask)


def by_index(source: Any) -> bool:
    """Whether each image of a source can be read again by its index, as those of a Dataset."""
    there = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return there and not isinstance(source, IterableDataset | Mapping)


def _of_dataset(dataset: Any) -> Iterator[Item]:
    return (read_element(dataset, i) for i in range(len(dataset)))


def read_element(dataset: Any, i: int) -> Item:
    """Image `i` of a Dataset; an item with the reason where it cannot be read."""
    element = _Guarded(dataset)[i]
    return next(_items_of(element, batched=False))


def _of_iterable(elements: Any) -> Iterator[Item]:
    for element in elements:
        yield from _items_of(element)


class _Guarded:
    """A dataset whose broken items are their reasons; it can be pickled for the workers of a DataLoader."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: Any) -> Any:
        try:
            return self.dataset[i]
        except (KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:  # a dataset opens files by the user's own code
            return Item(flag=f"item {i} cannot be read ({_reason(error)})")


@dataclass(frozen=True)
class _GuardedCollate:
    """Batches of the user's `collate_fn` from the items that could be read, and where the others were.

    There is one batch; where images of unequal size cannot be stacked, one for each item.
    """

    collate: Any

    def __call__(self, elements: list[Any]) -> tuple[list[Any], list[Item | None]]:
        flags = [element if isinstance(element, Item) else None for element in elements]
        read = [element for element in elements if not isinstance(element, Item)]
        try:
            return ([self.collate(read)] if read else []), flags
        except RuntimeError:
            if len(read) < 2:
                raise
            return [self.collate([element]) for element in read], flags


def _of_loader(loader: DataLoader) -> Iterator[Item]:
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        yield from (item for batch in loader for item in _items_of(batch))
        return
    options = {"num_workers": loader.num_workers, "pin_memory": loader.pin_memory, "timeout": loader.timeout,
               "worker_init_fn": loader.worker_init_fn, "generator": loader.generator,
               "prefetch_factor": loader.prefetch_factor,
               "multiprocessing_context": loader.multiprocessing_context}  # fmt: skip
    guarded: Any = DataLoader(
        _Guarded(loader.dataset),  # type: ignore[arg-type]
        batch_sampler=loader.batch_sampler,
        collate_fn=_GuardedCollate(loader.collate_fn),
        **options,
    )
    for batches, flags in guarded:
        read = (item for batch in batches for item in _items_of(batch, batched=True))
        yield from (flag or next(read) for flag in flags)


def _draws_a_part(loader: DataLoader) -> bool:
    """Whether the sampler may draw another number of images than the dataset has."""
    sampler = getattr(loader.batch_sampler, "sampler", None)
    return not isinstance(sampler, Sized) or len(sampler) != len(loader.dataset)  # type: ignore[arg-type]


# --- elements ---


def _items_of(element: Any, batched: bool | None = None) -> Iterator[Item]:
    """The images of one element: one, or those of a batch."""
    if isinstance(element, Item):
        yield element
        return
    found = _parts(element)
    if not (_is_batch(found.image) if batched is None else batched):
        yield replace(found, label=_scalar(found.label), id="" if found.id is None else str(found.id))
        return
    images = list(found.image)
    labels, ids = _each(found.label, len(images), "labels"), _each(found.id, len(images), "names")
    for image, label, id in zip(images, labels, ids, strict=True):
        yield Item(image, _scalar(label), "" if id is None else str(id))


def _parts(element: Any) -> Item:
    """The image or the batch of images of an element, with label and name as they are; None for a missing name."""
    missing: Any = None
    if isinstance(element, Mapping):
        key = next((key for key in IMAGE_KEYS if key in element), None)
        if key is None:
            pictures = [key for key, value in element.items() if isinstance(value, Image.Image)]
            if len(pictures) > 1:
                raise InvalidInput(
                    f"A mapping must be one element of a dataset, with one image. Got {len(pictures)} images, called "
                    f"{', '.join(map(str, pictures[:3]))}. Give a list of images, or of rows such as "
                    "{'image': image, 'id': name}; where one is a mask, call the other `image`."
                )
            key = next(iter(pictures), None)
        if key is None:
            key = next((key for key in PATH_KEYS if key in element), None)
            if key is not None and not isinstance(element[key], str | os.PathLike):
                return Item(flag=f"its {key} is no path but {element[key]!r:.60}", id=missing)
        if key is None:
            raise InvalidInput(
                f"An element of a dataset must have an image, called {', '.join(IMAGE_KEYS[:3])}, or a path. Got "
                f"{', '.join(map(str, element)) or 'nothing'}. {_advice_on(element)}"
            )
        label, name = (next((element[k] for k in keys if k in element), None) for keys in (LABEL_KEYS, ID_KEYS))
        return Item(element[key], label, missing if name is None else name)
    if isinstance(element, tuple | list) and element and not _is_paths(element):
        if len(element) > 3:
            raise InvalidInput(
                f"An element of a dataset must be an image, (image, label) or (image, label, id). Got {len(element)} "
                "parts."
            )
        image, label, name = (*element, None, None)[:3]
        return Item(image, label, missing if name is None else name)
    return Item(element, None, missing)


def _advice_on(element: Mapping[Any, Any]) -> str:
    """What to do with a mapping without an image: it may hold whole datasets, as the splits of Hugging Face do."""
    name, value = next(iter(element.items()), ("", None))
    if hasattr(value, "column_names") or (by_index(value) and not isinstance(value, str | torch.Tensor | np.ndarray)):
        return f"Give one of its parts, such as images[{name!r}]."
    return "Rename its column, or give (image, label) pairs."


def _is_paths(element: Sequence[Any]) -> bool:
    """Whether a list holds images, and not an image with its label."""
    kinds = (str, os.PathLike, Image.Image)
    return isinstance(element, list) and all(isinstance(part, kinds) for part in element)


def _is_batch(image: Any) -> bool:
    if isinstance(image, torch.Tensor | np.ndarray):
        return image.ndim > 3
    return isinstance(image, list | tuple)


def _is_one_batch(source: Any) -> bool:
    """Whether a list is what a DataLoader gives, `[images, labels]`, and not a list of images."""
    if not isinstance(source, list | tuple) or not 2 <= len(source) <= 3:
        return False
    return all(isinstance(part, torch.Tensor) for part in source[:2]) and source[0].dim() > source[1].dim() == 1


def _batch_of(element: Any) -> bool:
    return not isinstance(element, Item) and _is_batch(_parts(element).image)


def _each(values: Any, count: int, what: str) -> list[Any]:
    if values is None:
        return [None] * count
    listed = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if len(listed) != count:
        raise InvalidInput(f"Expected {what} for each of the {count} images of a batch. Got {len(listed)}.")
    return listed


def _scalar(label: Any) -> Any:
    """A label as an integer or text; InvalidInput for anything else."""
    if label is None or isinstance(label, str):
        return label
    if isinstance(label, float) and math.isnan(label):  # a missing value of pandas
        return None
    try:
        if not isinstance(label, bool) and float(label) == int(label):
            return int(label)
    except (TypeError, ValueError):
        pass
    shape = getattr(label, "shape", None)
    got = repr(label) if shape is None else f"{type(label).__name__} {tuple(shape)}"
    picture = isinstance(label, Image.Image) or (shape is not None and len(shape) > 1 and min(shape) > 1)
    advice = "A mask goes to `masks`" if picture else "Of one-hot labels give `argmax(-1)`"
    raise InvalidInput(f"A label must be the index of a class. Got {got}. {advice}.")


def _reason(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__

"""A Dataset, a DataLoader or an iterable as a set of images for a study: read once for names, labels and content."""

import hashlib
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heatproof.data.class_matching import class_of, source_match
from heatproof.data.input_form import InputForm, content_id, opened
from heatproof.data.items import Item, as_rows, by_index, class_names_of, read_element, read_items
from heatproof.errors import InvalidImage, InvalidInput


@dataclass(frozen=True)
class CollectedImages:
    """The images of a source that is no folder; obeys `Images`. Made by `collected`.

    `held`: the images in memory; empty for a Dataset, of which each is read again when it is its turn.
    """

    source: Any
    form: InputForm
    name: str
    ids: list[str]
    labels: list[int | None]
    class_names: list[str] | None
    flags: dict[str, str]
    fingerprint: str
    held: Sequence[Any] = ()

    def open(self, i: int) -> Any:
        """Image `i`, of PIL or `Pixels`; a tensor is the network's input `(C, H, W)`.

        Raises InvalidImage where it cannot be read.
        """
        if self.ids[i] in self.flags:
            raise InvalidImage(self.flags[self.ids[i]])
        item = self.held[i] if self.held else read_element(self.source, i).image
        return _input(item, self.form)

    def mask(self, i: int) -> np.ndarray | None:
        """None: a Dataset does not say where the objects are."""
        return None


def collected(source: Any, form: InputForm, name: str = "images") -> CollectedImages:
    """The images of a source, read once; those of an iterable or a DataLoader are kept in memory.

    Raises:
        InvalidInput: no image, or tensors of another form than the network takes.
    """
    source = as_rows(source)
    again, names = by_index(source), class_names_of(source)
    match = source_match(source, form.classes)
    ids, labels, flags, held, digest = [], [], {}, [], hashlib.blake2b(digest_size=16)
    taken: set[str] = set()
    for number, item in enumerate(read_items(source)):
        content, flag, image = "", item.flag, item.image
        if not flag:
            try:
                image = _input(image, form)
                content = content_id(image)
            except InvalidInput as error:
                if not isinstance(error, InvalidImage) and len(flags) == number:
                    raise  # as in a stream
                flag = str(error)
        id = _unused(item, content, number, taken)
        ids.append(id)
        taken.add(id)
        labels.append(class_of(item.label, match, names, form.classes))
        flags |= {id: flag} if flag else {}
        held += [] if again else [image]
        digest.update(repr((id, labels[-1], content)).encode())
    if not ids:
        raise InvalidInput("Expected at least one image. Got none.")
    classes = list(form.classes) if form.classes else names
    return CollectedImages(source, form, name, ids, labels, classes, flags, digest.hexdigest(), held)


def _unused(item: Item, content: str, number: int, taken: Set[str]) -> str:
    """A name that no image before has: the source's, else one from the content."""
    name = item.id or content or f"image {number + 1}"
    return name if name not in taken else f"{name} ({number + 1})"


def _input(image: Any, form: InputForm) -> Any:
    """A tensor as the network's input; anything else as an image, which the model's geometry prepares."""
    found = opened(image)
    return form.one(found) if isinstance(found, torch.Tensor) else found

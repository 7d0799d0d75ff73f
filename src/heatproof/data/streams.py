"""Images that are read one after the other while they are explained: only those of one batch are held."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from heatproof.data.class_matching import class_of, source_match
from heatproof.data.input_form import InputForm, content_id, opened
from heatproof.data.items import Item, class_names_of, length, read_items
from heatproof.errors import InvalidImage, InvalidInput
from heatproof.flags import Reason
from heatproof.geometry import Geometry
from heatproof.tensors import NEARLY_ONE_COLOUR, as_seen, contrast

#: So many images are kept as bytes, to be drawn beneath their maps; of 224 × 224 pixels they take 10 MB.
KEPT = 64


def seen_pixels(x: torch.Tensor) -> np.ndarray:
    """The network's input `(C, H, W)` as people see it, uint8 `(H, W, 3)`; InvalidInput for what is no image."""
    if x.dim() != 3:
        raise InvalidInput(f"Maps are drawn over images (C, H, W). Got an input of the shape {tuple(x.shape)}.")
    return as_seen(x.float() / 255 if x.dtype == torch.uint8 else x).cpu().numpy()


class Stream:
    """A source of images in its order; the same interface as `Inputs`.

    `ready` reads the next images; only those are then there for `batch`. Images that cannot be read have a flag in
    `failed`, and are black in a batch. `named`: whether the source gave an image its id.
    """

    def __init__(self, source: Any, form: InputForm):
        self.form, self.count = form, length(source)
        self._items: Iterator[Item] = read_items(source)
        self._names, self._match = class_names_of(source), source_match(source, form.classes)
        self._window: dict[int, torch.Tensor] = {}
        self._rows = 0
        self._ended = False
        self.ids: list[str] = []
        self.named: list[bool] = []
        self.labels: list[int | None] = []
        self.failed: dict[int, str] = {}
        self._sizes: list[tuple[int, int] | None] = []
        self._masks: dict[int, Any] = {}
        self._contrast: dict[int, float] = {}
        self._seen: dict[int, np.ndarray] = {}

    @property
    def geometry(self) -> Geometry:
        """How an image file becomes the network's input."""
        return self.form.geometry

    def __len__(self) -> int:
        if self.count is None and not self._ended:
            raise InvalidInput(
                "The number of these images is not known before all are read. Give a list or a Dataset where labels, "
                "targets, masks or maps go with the images."
            )
        return self._rows if self._ended else self.count or 0

    def ready(self, start: int, most: int) -> int:
        """Reads up to `most` images from row `start` on; how many there are, 0 at the end."""
        assert start == self._rows, "a stream is read in its order"
        self._window = {}
        self._masks = {}
        while self._rows < start + most:
            item = next(self._items, None)
            if item is None:
                self._ended = True
                break
            self._take(item)
        if not self._rows and self._ended:
            raise InvalidInput("Expected at least one image. Got none.")
        if self._ended and self.count not in (None, self._rows):
            raise InvalidInput(f"Expected {self.count} images, as the dataset says. Got {self._rows}.")
        self._refuse_sizes()
        return self._rows - start

    def _take(self, item: Item) -> None:
        row, size = self._rows, None
        label, flag, id = item.label, item.flag, item.id
        if not flag:
            try:
                image = opened(item.image)
                x = self.form.one(image)
                size = None if isinstance(image, torch.Tensor) else (image.height, image.width)
                if self.form.takes_images:
                    self._contrast[row] = float(contrast(x[None])[0]) if x.isfinite().all() else 1.0
                self._window[row] = x
                if row < KEPT and self.form.takes_images and x.dim() == 3:
                    self._seen[row] = seen_pixels(x)
                id = id or content_id(image)
            except InvalidInput as error:
                if not isinstance(error, InvalidImage) and len(self.failed) == row:
                    raise  # the first that can be read: the form of all is probably wrong
                flag = str(error)
        self.failed |= {row: flag} if flag else {}
        self._masks[row] = item.mask
        self.named.append(bool(item.id))
        self.ids.append(id or f"image {row + 1}")
        self.labels.append(class_of(label, self._match, self._names, self.form.classes))
        self._sizes.append(size)
        self._rows += 1

    def _refuse_sizes(self) -> None:
        shapes = {tuple(x.shape) for x in self._window.values()}
        if len(shapes) > 1:
            raise InvalidInput(
                f"Images of a batch must have one size, as tensors are never resized. Got "
                f"{' and '.join(map(str, shapes))}. "
                "Resize them in the dataset or give PIL images; `score` takes them with batch_size=1."
            )

    def batch(self, rows: slice) -> torch.Tensor:
        """`(n, C, *spatial)` float32; an image that cannot be used is black."""
        like = next(iter(self._window.values()), None)
        empty = torch.zeros(self.form.shape or (self.form.channels, *self.form.geometry.size))
        empty = empty if like is None else torch.zeros_like(like)
        return torch.stack([self._window.get(row, empty) for row in range(self._rows)[rows]])

    def seen(self, row: int) -> np.ndarray:
        """An image as the network saw it, uint8 `(H, W, 3)`; InvalidInput where it is not kept."""
        if row in self._seen:
            return self._seen[row]
        why = self.failed.get(row) or f"only the first {KEPT} images of a folder, Dataset or iterable are kept"
        raise InvalidInput(f"Image {row} cannot be drawn: {why.rstrip('.')}. Give `images`, an array for each image.")

    def size(self, row: int) -> tuple[int, int] | None:
        """(height, width) of an image in its own pixels; None for a tensor, and for one that cannot be read."""
        return self._sizes[row]

    def mask(self, row: int) -> Any:
        """The mask that the source has of an image of the last batch; None where it has none."""
        return self._masks.get(row)

    @property
    def flags(self) -> list[str]:
        """For each image why it is doubtful or cannot be used, empty where it is fine."""
        return [
            self.failed.get(row) or (Reason.ONE_COLOUR.value if row in self._flat else "") for row in range(self._rows)
        ]

    @property
    def _flat(self) -> set[int]:
        return {row for row, span in self._contrast.items() if span < NEARLY_ONE_COLOUR}

    def flat(self, rows: slice) -> list[str]:
        """The names of those images among `rows` that are nearly one colour."""
        return [self.ids[row] for row in range(self._rows)[rows] if row in self._flat]

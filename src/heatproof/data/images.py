"""The interface of every source of images: a folder, a list, a named dataset, Shapes."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from heatproof.pixels import Pixels


@runtime_checkable
class Images(Protocol):
    """An ordered set of images, opened one at a time; can be pickled for worker processes.

    `ids` name the images in every result (a folder's: path relative to it, with `/`); `labels` hold a class
    index or None for each; `flags` maps the ids of images known to be unusable to the reason; `fingerprint`
    changes when the images or labels do.
    """

    @property
    def name(self) -> str: ...
    @property
    def ids(self) -> list[str]: ...
    @property
    def labels(self) -> list[int | None]: ...
    @property
    def class_names(self) -> list[str] | None: ...
    @property
    def flags(self) -> dict[str, str]: ...
    @property
    def fingerprint(self) -> str: ...

    def open(self, i: int) -> Image.Image | Pixels:
        """Image `i`: of PIL in any mode, or `Pixels` for more than 8 bits; raises InvalidImage where it cannot be read.

        A model's `geometry.image` makes the network's input of it.
        """
        ...

    def mask(self, i: int) -> np.ndarray | None:
        """Where the object is, bool `(height, width)` in the image's own pixels; None where unknown."""
        ...


def without_caches(owner: Any, caches: Sequence[str]) -> dict[str, Any]:
    """The state to pickle: everything but the caches."""
    return {key: value for key, value in owner.__dict__.items() if key not in caches}

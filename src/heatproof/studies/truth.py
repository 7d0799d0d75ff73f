"""Where the objects are in the pictures of a dataset: masks of a folder, or those the dataset has itself."""

from typing import Any

import torch

from heatproof.data import Pictures
from heatproof.geometry import Geometry


class Truth:
    """Masks for the pictures of one dataset; `masks` is a folder, or None for those of the dataset itself."""

    def __init__(self, masks: str | None, pictures: Pictures):
        self.masks, self.pictures = masks, pictures
        self._loaded: Any = None

    def mask(self, index: int, geometry: Geometry, size: tuple[int, int]) -> torch.Tensor | None:
        """Where the object of a picture of that size (height, width) is, as the network sees it; None if unknown.

        Raises:
            InvalidPicture: a mask that cannot be used.
        """
        found = self.own(index) if self.masks is None else self._folder().mask(self.pictures.ids[index], size)
        return None if found is None else geometry.mask(found)

    def own(self, index: int) -> Any:
        """What the dataset itself says of a picture."""
        return self.pictures.mask(index)

    @property
    def known(self) -> bool:
        """Whether there are masks at all."""
        return self.masks is not None or (bool(self.pictures.ids) and self.own(0) is not None)

    def _folder(self) -> Any:
        if self._loaded is None:
            from heatproof.data.masks import load_masks

            self._loaded = load_masks(self.masks)
        return self._loaded

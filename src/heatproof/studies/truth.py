"""Where the objects are in the pictures of a dataset: masks of a folder or boxes, or those the dataset has itself."""

from typing import Any

import torch

from heatproof.data import Pictures
from heatproof.data.masks import Masks, load_masks
from heatproof.errors import InvalidInput, InvalidPicture
from heatproof.geometry import Geometry


class Truth:
    """Masks for the pictures of one dataset; `masks` is a path (`load_masks`), None for those it has itself."""

    def __init__(self, masks: str | None, pictures: Pictures):
        self.masks, self.pictures = masks, pictures
        self._loaded: Masks | None = None

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
        """Whether there are masks at all.

        Raises:
            InvalidInput: masks that cannot be used, or none of any of the pictures.
        """
        if self.masks is None:
            return bool(self.pictures.ids) and self.own(0) is not None
        if not any(map(self._there, self.pictures.ids)):
            raise InvalidInput(
                f"`masks` must go by the names of the pictures, such as {self.pictures.ids[0]!r}. None of "
                f"{len(self.pictures.ids)} pictures has one in {self.masks}."
            )
        return True

    def _there(self, identity: str) -> bool:
        try:
            return self._folder().mask(identity, (1, 1)) is not None
        except InvalidPicture:  # there, and of another size
            return True

    def _folder(self) -> Masks:
        if self._loaded is None:
            assert self.masks is not None
            self._loaded = load_masks(self.masks)
        return self._loaded

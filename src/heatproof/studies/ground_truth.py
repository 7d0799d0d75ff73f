"""Masks of the objects in the images of a dataset: from a folder of masks, a CSV of boxes, or the dataset itself."""

import torch

from heatproof.data import Images
from heatproof.data.masks import Masks, load_masks
from heatproof.errors import InvalidImage, InvalidInput
from heatproof.geometry import Geometry


class GroundTruth:
    """Masks for the images of one dataset; `masks` is a path (`load_masks`), None for those of the dataset itself."""

    def __init__(self, masks: str | None, images: Images):
        self.masks, self.images = masks, images
        self._loaded: Masks | None = None

    def mask(self, index: int, geometry: Geometry, size: tuple[int, int]) -> torch.Tensor | None:
        """The mask of an image of that size (height, width), in the geometry of the network's input; None if missing.

        Raises:
            InvalidImage: a mask that cannot be used.
        """
        own = self.masks is None
        found = self.images.mask(index) if own else self._folder().mask(self.images.ids[index], size)
        return None if found is None else geometry.mask(found)

    @property
    def known(self) -> bool:
        """Whether some image has a mask, also one that cannot be read."""
        return any(map(self.known_of, range(len(self.images.ids))))

    def check(self) -> None:
        """Checks masks from a path before any work.

        Raises:
            InvalidInput: masks that cannot be used, or no mask of any image.
        """
        if self.masks is not None and not self.known:
            raise InvalidInput(
                f"`masks` must go by the names of the images, such as {self.images.ids[0]!r}. None of "
                f"{len(self.images.ids)} images has one in {self.masks}."
            )

    def known_of(self, index: int) -> bool:
        """Whether an image has a mask, also one that cannot be read."""
        try:
            own = self.masks is None
            found = self.images.mask(index) if own else self._folder().mask(self.images.ids[index], (1, 1))
        except InvalidImage:  # there is a mask, of another size, or one that cannot be read
            return True
        return found is not None

    def _folder(self) -> Masks:
        if self._loaded is None:
            assert self.masks is not None
            self._loaded = load_masks(self.masks)
        return self._loaded

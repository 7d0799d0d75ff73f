"""Any source of images as a torch Dataset, for training and for code that is not heatproof's."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from heatproof.data.images import Images
from heatproof.errors import InvalidInput
from heatproof.geometry import Geometry
from heatproof.memo import cached_property


@dataclass(frozen=True)
class ImageDataset(Dataset):
    """`(image, label)` of a source: the image `(C, h, w)` float32 in [0, 1], through `geometry`; can be pickled.

    Only images with a label are in it. `heatproof.explain` and a DataLoader take it as it is.

    Attributes:
        images: a folder (`load_images`), `Shapes`, or any other source.
        geometry: how images become the network's input, such as `model.geometry`.

    Raises:
        InvalidInput: no image has a label.
    """

    images: Images
    geometry: Geometry

    def __post_init__(self):
        if not len(self):
            raise InvalidInput(f"A Dataset for training needs labels. Got none for {self.images.name}.")

    @cached_property
    def rows(self) -> list[int]:
        """The rows of the source that are in it: those with a label that are not known to be broken."""
        bad = self.images.flags
        labelled = zip(self.images.ids, self.images.labels, strict=True)
        return [i for i, (id, label) in enumerate(labelled) if label is not None and id not in bad]

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes, where they are known."""
        return self.images.class_names

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        row = self.rows[i]
        label = self.images.labels[row]
        assert label is not None
        return self.geometry.image(self.images.open(row)), label

    def mask(self, i: int) -> torch.Tensor | None:
        """The ground truth of item `i` through the same geometry, bool `(h, w)`; None where it is unknown."""
        mask: np.ndarray | None = self.images.mask(self.rows[i])
        return None if mask is None else self.geometry.mask(mask)

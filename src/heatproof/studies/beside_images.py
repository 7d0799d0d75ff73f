"""What comes with the images of a job: masks, and maps made beforehand; a missing one has a flag that says why."""

import torch

from heatproof.attributions.stored import Stored, as_map, fitted
from heatproof.engine import GivenMaps
from heatproof.errors import InvalidImage
from heatproof.flags import FINE, Flag, Reason
from heatproof.geometry import Geometry
from heatproof.statistics.special_rows import GROUND_TRUTH
from heatproof.studies.jobs import Dataset, ImageBlock

#: Masks or maps, and for each image why there is none.
Flagged = tuple[torch.Tensor, list[Flag]]


def masks_of(dataset: Dataset, block: ImageBlock, geometry: Geometry) -> Flagged:
    """The masks `(n, h, w)` bool of the images, empty where there is none that can be used, and the reasons."""
    masks, flags = [], []
    for index, size in zip(block.indices, block.sizes, strict=True):
        mask, why = None, Flag(Reason.NO_MASK)
        try:
            mask = dataset.ground_truth.mask(index, geometry, size)
        except InvalidImage as error:
            why = Flag(Reason.NO_MASK, f"its mask cannot be used: {error}", error)
        flags.append(why if mask is None else FINE)
        masks.append(torch.zeros(geometry.size, dtype=torch.bool) if mask is None else mask)
    return torch.stack(masks), flags


def without_object(found: Flagged) -> list[Flag]:
    """Why an image has no object to cut at: no mask, or an empty one; `FINE` if it has one."""
    masks, flags = found
    empty = Flag(Reason.NO_MASK, "its mask is empty")
    return [
        flag or (FINE if any_ else empty) for flag, any_ in zip(flags, masks.flatten(1).any(1).tolist(), strict=True)
    ]


def maps_beside(
    dataset: Dataset, block: ImageBlock, geometry: Geometry, x: torch.Tensor, truth: Flagged | None = None
) -> list[tuple[GivenMaps, list[Flag]]]:
    """The maps made beforehand for the images, and the ground truth (`masks_of`) as a map where it is given."""
    found = [_stored_maps(maps, block, geometry, x) for maps in dataset.given]
    if truth is not None:
        masks, flags = truth
        found.append((GivenMaps(GROUND_TRUTH, masks.to(x), [bool(flag) for flag in flags]), flags))
    return found


def _stored_maps(maps: Stored, block: ImageBlock, geometry: Geometry, x: torch.Tensor) -> tuple[GivenMaps, list[Flag]]:
    """The maps made beforehand, NaN where none can be used, and the reasons."""
    found, reasons, absent = [], [], []
    for row, (identity, size) in enumerate(zip(block.ids, block.sizes, strict=True)):
        one, reason = None, FINE
        try:
            one = as_map(maps(identity), size, geometry)
            if one is not None:
                one = fitted(one[None], x[row : row + 1], "display", maps.name)[0]
        except InvalidImage as error:
            one, reason = None, Flag(Reason.NO_MAP, f"its map cannot be used: {error}", error)
        absent.append(one is None)
        reasons.append(reason)
        found.append(x.new_full(x.shape[2:], torch.nan) if one is None else one)
    return GivenMaps(maps.name, torch.stack(found), absent), reasons

"""What the rows of an output are: one for each image, or something else; read from two passes that differ in one image.

An output whose rows are images changes in the changed image's row and in no other. Where nothing changes, as in a text
tower, the output does not depend on the image; where other rows change too, as with attention across the batch, the
images are mixed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch

#: Three rows show which outputs keep the batch in front (Swin's windows do not), and whether the middle one mixes
#: with those before and after it.
ROWS = 3
#: The image that differs between the two passes.
CHANGED = 1
#: At most this many numbers of each row are compared.
SAMPLED = 1024
#: How far other rows may move, as a share of the changed image's, before they count as mixed with it. Dynamically
#: quantised networks round by the range of the whole batch, which is no mixing.
MIXED_SHARE, MIXED_SHARE_QUANTISED = 1e-3, math.inf


class Rows(Enum):
    """What the rows of an output are."""

    IMAGES = "one for each image, dependent on that image alone"
    FOLDED = "more or fewer than images"
    FIXED = "the same whatever the images are"
    MIXED = "dependent on several images"


@dataclass(frozen=True)
class Facts:
    """What the rows of every call of every module are, by the module's first name; `logits`: those of the logits.

    `mixing` is the first module whose output mixes images; empty where none does.
    """

    calls: Mapping[str, tuple[Rows, ...]]
    logits: Rows
    mixing: str


def sampled(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """`(ROWS, S)` numbers of an output, evenly spaced in each row; None where it has another number of rows."""
    if tensor is None or tensor.dim() < 2 or len(tensor) != ROWS or not tensor.is_floating_point():
        return None
    flat = tensor.detach().flatten(1)
    return flat[:, :: -(-flat.shape[1] // SAMPLED)].clone()  # what follows may write into it


def rows_between(before: torch.Tensor, after: torch.Tensor, share: float) -> Rows:
    """What the rows of an output are, from its samples in the two passes.

    A row has moved where its root mean square difference is above rounding, 4 ε of the output's own precision.
    """
    rounding = 4 * torch.finfo(before.dtype).eps
    before, after = before.double(), after.double()
    moved = (after - before).square().mean(1).sqrt()
    floor = rounding * float(before.square().mean().sqrt())
    own = float(moved[CHANGED])
    others = float(moved[[row for row in range(ROWS) if row != CHANGED]].max())
    if others > max(floor, share * own):
        return Rows.MIXED
    return Rows.FIXED if own <= floor else Rows.IMAGES

"""The registry of transformations, and what one is."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from heatproof.registry import Registry

#: The images' ids and one generator for each → another image of the same set for each, `(N, C, H, W)` in [0, 1].
Partners = Callable[[Sequence[str], Sequence[torch.Generator]], torch.Tensor]

#: A transformation gives the sampling grid `(N, H, W, 2)` of the new image, or the new images themselves.
GRID, IMAGES = "grid", "images"

TRANSFORMATIONS = Registry("transformation")


def transformation(name: str, *, form: str = GRID, moves: bool = True, **given: Any) -> Callable:
    """Registers a transformation.

    Args:
        form: what the function gives: `GRID` or `IMAGES`.
        moves: whether pixels move, so that masks go through it as images do; if not, masks stay as they are.
        given: aliases and source, as for a method.
    """
    return TRANSFORMATIONS.register(name, form=form, moves=moves, **given)

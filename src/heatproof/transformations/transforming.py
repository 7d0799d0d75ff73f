"""Applies a transformation to a batch of images, or to their masks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from heatproof import seeds
from heatproof.errors import InvalidInput
from heatproof.transfers import on_device
from heatproof.transformations.catalogue import GRID, TRANSFORMATIONS, Partners


def transformed(
    spelling: str,
    images: torch.Tensor,
    ids: Sequence[str],
    seed: int = 0,
    *,
    mask: bool = False,
    partners: Partners | None = None,
) -> torch.Tensor:
    """Images `(N, C, H, W)` in [0, 1] under a transformation, which may change their size.

    Random numbers depend on the seed, the image's id, the transformation and its option `seed` alone.

    Args:
        mask: these are masks, which are empty outside of the image; a transformation that moves no pixel, such as
            `mixup`, leaves them as they are.
        partners: gives another image of the same set for each, for `mixup`.

    Raises:
        UnknownName: a transformation or an option that does not exist. InvalidInput: an option out of range, or no
            `partners` where they are needed.
    """
    entry, options = TRANSFORMATIONS.parse(spelling)
    if mask and not entry.traits["moves"]:
        return images
    options = entry.checked_options(options)
    given = _given(entry.needs, images, ids, seed, f"{entry.name} {options.get('seed', '')}".strip(), partners)
    found = entry(given, options)
    if entry.traits["form"] == GRID:
        found = _sampled(images, found, mask)
    return found.clamp(0, 1)


def _given(
    needs: Sequence[str], images: torch.Tensor, ids: Sequence[str], seed: int, draw: str, partners: Partners | None
) -> dict[str, Any]:
    """The quantities that a transformation names; a partner is drawn apart from its other random numbers."""

    def partner() -> torch.Tensor:
        if partners is None:
            raise InvalidInput(
                f"`partners` must give other images to mix with. Got none for {draw.split()[0]!r}. A study takes them "
                "from its set of images."
            )
        return on_device(partners(ids, seeds.generators(seed, ids, "partner", draw)), images.device, images.dtype)

    suppliers: Mapping[str, Callable[[], Any]] = {
        "x": lambda: images,
        "generator": lambda: seeds.generators(seed, ids, "transformation", draw),
        "partner": partner,
    }
    return {need: suppliers[need]() for need in needs}


def _sampled(images: torch.Tensor, grid: torch.Tensor, mask: bool) -> torch.Tensor:
    """Images sampled at a grid, bilinear; beyond the border an image is its mean colour, and a mask is empty."""
    fill = torch.zeros_like(images[:, :, :1, :1]) if mask else images.mean((2, 3), keepdim=True)
    grid = on_device(grid, images.device, images.dtype)
    sampled = torch.nn.functional.grid_sample(images - fill, grid, align_corners=False)
    return sampled + fill

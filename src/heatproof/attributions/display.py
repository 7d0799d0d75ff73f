"""From a raw map to the display map in [0, 1] that people see and metrics score (protocols §1)."""

import torch

from heatproof.tensors import degenerate, minmax, upsampled


def display_maps(raw: torch.Tensor, form: str, size: tuple[int, ...]) -> torch.Tensor:
    """`(N, *spatial)` raw → `(N, *size)` in [0, 1]: `cam` = ReLU → bilinear upsampling → min-max; `display` = min-max.

    A constant or non-finite map gives zeros; `flags` says so.
    """
    if form == "cam":
        raw = upsampled(_rectified(raw), size)
    return minmax(raw)


def _rectified(raw: torch.Tensor) -> torch.Tensor:
    """ReLU, but −∞ becomes NaN: a map that overflowed says nothing, though its ReLU would look fine."""
    return raw.relu().masked_fill(raw == -torch.inf, torch.nan)


def flags(raw: torch.Tensor, form: str) -> list[str]:
    """One reason per map why it says nothing: `""` (fine), `non-finite map` or `constant map`."""
    finite = torch.isfinite(raw).flatten(1).all(1).tolist()
    constant = degenerate(_rectified(raw) if form == "cam" else raw).tolist()
    return [
        "" if not empty else "constant map" if whole else "non-finite map"
        for whole, empty in zip(finite, constant, strict=True)
    ]

"""From a raw map to the display map in [0, 1] that people see and metrics score (protocols §1)."""

import torch

from heatproof.flags import FINE, Flag, Reason
from heatproof.tensors import degenerate, minmax, one_channel, upsampled


def display_maps(
    raw: torch.Tensor,
    form: str,
    size: tuple[int, ...],
    *,
    upsample: str = "bilinear",
    channels: str = "abs-max",
    power: float = 1.0,
) -> torch.Tensor:
    """Raw maps `(N, *spatial)`, or `(N, C, *size)` of form `rgb`, → `(N, *size)` in [0, 1].

    `catalogue.FORMS` says what each form goes through. A constant or non-finite map gives zeros; `flags` says so.
    `power`: what the values in [0, 1] are raised to.
    """
    shown = _displayed_part(raw, form, channels)
    shown = minmax(upsampled(shown, size, upsample) if form == "cam" else shown)
    return shown if power == 1 else shown**power


def flags(raw: torch.Tensor, form: str, *, channels: str = "abs-max") -> list[Flag]:
    """For each map why it is degenerate, `CONSTANT` or `NON_FINITE`; `FINE` where it is not."""
    return flags_of(degeneracy(raw, form, channels=channels))


def degeneracy(raw: torch.Tensor, form: str, *, channels: str = "abs-max") -> torch.Tensor:
    """`flags` as numbers where the maps are, `(N,)` int8: 0 fine, 1 constant, 2 not finite."""
    shown = _displayed_part(raw, form, channels).flatten(1)
    extremes = torch.stack([shown.amin(1), shown.amax(1)], 1)
    return torch.where(torch.isfinite(extremes).all(1), degenerate(extremes), 2).to(torch.int8)


def flags_of(degeneracy: torch.Tensor) -> list[Flag]:
    """The flags that the numbers stand for."""
    return [_FLAGS[number] for number in degeneracy.tolist()]


_FLAGS = (FINE, Flag(Reason.CONSTANT), Flag(Reason.NON_FINITE))


def _displayed_part(raw: torch.Tensor, form: str, channels: str) -> torch.Tensor:
    """The part of a raw map that is displayed, before it is resized and scaled."""
    if form in ("cam", "signed"):
        return _relu_of(raw)
    return one_channel(raw, channels) if form == "rgb" else raw


def _relu_of(raw: torch.Tensor) -> torch.Tensor:
    """ReLU, but −∞ becomes NaN: a map that overflowed is degenerate, though its ReLU would look fine."""
    return raw.relu().masked_fill(raw == -torch.inf, torch.nan)

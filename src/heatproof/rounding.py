"""Rounding before ranking: to how many digits numbers are told apart, and why. Everything that ranks asks here.

The same network on the same image gives float32 numbers that differ in the last bits on another processor, with another
number of threads, or in a batch of another size: sums are taken in another order. A mean or a probability moves by as
little. A rank, a threshold or a yes or no moves all the way: pixels of a plateau change places, and a probability that
stays the same has risen or fallen. So whatever is ranked, sorted, counted as a tie or compared with a threshold is
rounded first, everywhere alike:

- numbers in [0, 1], such as display maps: to `STEP`, about six digits, `rounded(values)`;
- numbers on another scale: to six digits of the largest they are ranked with, `rounded(values, largest(values))`;
- what a network answers: logits to five digits of the largest, `ANSWER_STEP` (`behind_largest`, `top_class`), and a
  probability to what five digits of a logit leave of it (`rounded(p, logit_scale(p), ANSWER_STEP)`);
- scores by which methods are compared, which are made of such answers: to five digits of the largest;
- `a ≥ b`: the difference is rounded and compared with 0, `rounded(a - b) >= 0`. Equality, the case that does occur,
  then lies in the middle of what is rounded together, not at its border.

Why these: between vector widths, EfficientNet-Lite0's CAMs differ by 6e-8 in the median and 2e-6 at most, its logits of
up to 12 by 7e-6, its probabilities by 2e-6 p (1 − p). A coarser step would tie what a map does tell apart: 224² pixels
are about 2e-5 apart. The step is 1 / (2⁹ 3² 5² 7): halves, thirds, tenths, and means of a few of them such as 1/640 are
whole numbers of steps, and the last bit cannot move them. (Six decimals would put 1/640 right on a border.) Any other
plateau lies on a border by chance, one in about 20 of those that differ by 6e-8; its pixels then change places among
themselves and with those equal to six digits, and with no others.

The means of segments, which RBO, κ and Spearman rank, are defined by six decimals (`rankings.ranking`).

Works on NumPy arrays and on torch tensors, and imports torch only where it is handed a tensor.
"""

from typing import Any

import numpy as np

#: What numbers in [0, 1] are rounded to before they are ranked or compared with a threshold; about 1e-6.
STEP = 1 / 806_400
#: The same for what a network answers, where the rounding of all its layers adds up, and for scores; about 1e-5.
ANSWER_STEP = 10 * STEP
#: The size of usual logits, by which the rounding of a probability is measured.
LOGIT = 10.0


def rounded(values: Any, scale: Any = None, step: float = STEP) -> Any:
    """`values` to the nearest multiple of `step` or, where a `scale` is given, of `scale · step`.

    An array or tensor of floats gives one like it; NaN and infinities stay. `scale`: a number, or an array or tensor
    that broadcasts; 0 and what is not finite count as 1.
    """
    if scale is None:
        return _multiples(values, step)
    lib = _library(scale)
    unit = lib.where(lib.isfinite(scale) & (scale > 0), scale, lib.ones_like(scale)) if lib else scale or 1.0
    return _multiples(values / unit, step) * unit


def _multiples(values: Any, step: float) -> Any:
    steps = round(1 / step)
    return (values * steps).round() / steps


def largest(values: Any, axis: int | None = -1) -> Any:
    """The largest finite magnitude along `axis`, which stays (None: of all, a number); 0 where nothing is finite."""
    lib = _library(values)
    size = lib.where(lib.isfinite(values), lib.abs(values), lib.zeros_like(values))
    if not size.shape[axis or 0]:
        return 0.0
    return lib.amax(size) if axis is None else lib.amax(size, axis=axis, keepdims=True)


def logit_scale(p: Any) -> Any:
    """What a probability moves by while its logit moves by `LOGIT`, to first order: `10 p (1 − p)`."""
    return LOGIT * (p * (1 - p)).clip(1e-30)


def behind_largest(logits: Any) -> Any:
    """How far each logit of `(…, K)` lies behind the largest of its row: 0 or less, to five digits of the row.

    Of probabilities, give the logarithms.
    """
    top = _library(logits).amax(logits, axis=-1, keepdims=True)
    return rounded(logits - top, largest(logits), ANSWER_STEP)


def top_class(logits: Any) -> Any:
    """The class with the largest logit in each row of `(…, K)`; the first of those that are equal to it."""
    return behind_largest(logits).argmax(-1)


def _library(values: Any) -> Any:
    """numpy or torch, whichever the values are of; None for a plain number."""
    if isinstance(values, np.ndarray | np.generic):
        return np
    if isinstance(values, float | int):
        return None
    import torch

    return torch

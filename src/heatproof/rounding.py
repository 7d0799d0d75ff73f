"""Rounding before ranking: how many digits distinguish two numbers, and why. All code that ranks uses it.

The same network on the same image gives float32 numbers that differ in the last bits on another processor, with another
number of threads, or in a batch of another size, because sums are taken in another order. A mean or a probability
changes by as little. A rank or a comparison with a threshold can change completely: pixels of equal value swap ranks,
and an unchanged probability counts as risen or fallen. So whatever is ranked, sorted, counted as a tie or compared with
a threshold is rounded first, everywhere alike:

- numbers in [0, 1], such as display maps: to `STEP`, about six digits, `rounded(values)`;
- numbers on another scale: to six digits of the largest they are ranked with, `rounded(values, largest(values))`;
- outputs of a network: logits to five digits of the largest, `ANSWER_STEP` (`behind_largest`, `top_class`), and a
  probability to the precision that five digits of a logit give it (`rounded(p, logit_scale(p), ANSWER_STEP)`), the
  output of a network of values to five digits of itself (`answer_scale`);
- scores by which methods are compared, which are computed from such outputs: to five digits of the largest;
- `a ≥ b`: the difference is rounded and compared with 0, `rounded(a - b) >= 0`. Equality, the common case, then lies
  in the middle of a rounding interval, not at its border.

Why these steps: between vector widths, EfficientNet-Lite0's CAMs differ by 6e-8 in the median and 2e-6 at most, its
logits of up to 12 by 7e-6, its probabilities by 2e-6 p (1 − p). A coarser step would tie pixels that a map does
distinguish: the values of 224² pixels are about 2e-5 apart. The step is 1 / (2⁹ 3² 5² 7): halves, thirds, tenths, and
means of a few of them such as 1/640 are whole numbers of steps, and the last bit cannot move them. (Six decimals would
put 1/640 right on a border.) Any other plateau lies on a border by chance, one in about 20 of those that differ by
6e-8; its pixels then swap ranks among themselves and with those equal to six digits, and with no others.

The means of segments, which RBO, κ and Spearman rank, are defined by six decimals (`rankings.ranking`).

Works on NumPy arrays and on torch tensors, and imports torch only when it is given a tensor.
"""

from typing import Any

import numpy as np

#: What numbers in [0, 1] are rounded to before they are ranked or compared with a threshold; about 1e-6.
STEP = 1 / 806_400
#: The same for outputs of a network, where the rounding of all its layers adds up, and for scores; about 1e-5.
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
    """The largest finite magnitude along `axis`, which is kept (None: of all values); 0 where nothing is finite."""
    lib = _library(values)
    size = lib.where(lib.isfinite(values), lib.abs(values), lib.zeros_like(values))
    if not size.shape[axis or 0]:
        return 0.0
    return lib.amax(size) if axis is None else lib.amax(size, axis=axis, keepdims=True)


def logit_scale(p: Any) -> Any:
    """How much a probability changes when its logit changes by `LOGIT`, to first order: `10 p (1 − p)`."""
    return LOGIT * (p * (1 - p)).clip(1e-30)


def answer_scale(answers: Any, values: bool) -> Any:
    """The scale on which the target's scores are rounded: `logit_scale` of probabilities, the size of `values`."""
    return _library(answers).abs(answers) if values else logit_scale(answers)


def behind_largest(logits: Any) -> Any:
    """How far each logit of `(…, K)` lies behind the largest of its row: 0 or less, to five digits of the row.

    For probabilities, pass their logarithms.
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

"""RefineCAM: one map from those of several layers.

Domeniconi et al. 2026, eq. 7. Each layer's CAM → ReLU → min–max at layer resolution → upsampling to the input's size
→ min–max; these are combined over the layers, and the result is scaled to [0, 1].
"""

import math
from collections.abc import Callable, Sequence

import torch

from heatproof.tensors import minmax, one_channel, upsampled


def product(maps: torch.Tensor) -> torch.Tensor:
    """`Πa`, over the first dimension of `(L, N, *size)` maps in [0, 1]."""
    return maps.prod(0)


def geometric_mean(maps: torch.Tensor) -> torch.Tensor:
    """`(Πa)^(1/L)`: positions rank as in the product, with less extreme values."""
    return maps.prod(0).pow(1 / len(maps))


def inverse_exp_mean(maps: torch.Tensor) -> torch.Tensor:
    """`1 / ln(mean(exp(1/a)))`; by log-sum-exp, as float32 overflows where a < .0113. 0 where any a is 0."""
    return 1 / (torch.logsumexp(1 / maps, 0) - math.log(len(maps)))


OPERATORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "product": product,
    "geometric": geometric_mean,
    "inverse-exp": inverse_exp_mean,
}


def refined(
    raw: Sequence[torch.Tensor], form: str, size: tuple[int, ...], operator: str = "product", upsample: str = "bilinear"
) -> torch.Tensor:
    """Raw maps of several layers, `(N, *spatial)` each, in any order → `(N, *size)`, a map to be scaled to [0, 1].

    A base that is at the input's size already (`form` is not `cam`) is made one channel by `sum → abs` and not
    rectified, as paper R does. A layer with a degenerate map makes the result zero everywhere.
    """
    scaled = torch.stack([_at_input(one, form, size, upsample) for one in raw])
    return OPERATORS[operator](scaled)


def _at_input(raw: torch.Tensor, form: str, size: tuple[int, ...], upsample: str) -> torch.Tensor:
    if form == "cam":
        return minmax(upsampled(minmax(raw.relu()), size, upsample))
    return minmax(one_channel(raw, "sum-abs") if form == "rgb" else raw)

"""KernelSHAP: least squares over sets of features.

Draws come from torch's global generator: `torch.manual_seed` repeats them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from heatproof.compat.captum.calls import Tensor
from heatproof.compat.captum.lime import Lime, LinearModel

#: The weight of the full and the empty set of features in KernelSHAP, which stands for an infinite one.
FIXED = 1e6


class KernelShap(Lime):
    """KernelSHAP: least squares over sets of features from the Shapley kernel; the full and the empty one are fixed.

    Sets are drawn in pairs, one and what it leaves out, which lowers the error (Covert & Lee 2021); Captum draws each
    by itself.
    """

    def __init__(self, forward_func: Callable):
        from sklearn.linear_model import LinearRegression  # scikit-learn is slow to import

        super().__init__(forward_func, LinearModel(LinearRegression()), _fixes_ends, _shapley_sets)


def _fixes_ends(_inputs: Any, _perturbed: Any, drawn: Tensor, **_: Any) -> float:
    return FIXED if int(drawn.sum()) in (0, drawn.numel()) else 1.0


def _shapley_sets(inputs: Any, **options: Any) -> Iterator[Tensor]:
    """All features, none, and then sets of k of n with probability ∝ (n − 1) / (k (n − k)), any of a size alike."""
    number = options["num_interp_features"]
    yield torch.ones(1, number, dtype=torch.long)
    yield torch.zeros(1, number, dtype=torch.long)
    sizes = torch.arange(1, max(number, 2), dtype=torch.float64)
    chances = 1 / (sizes * (number - sizes)) if number > 1 else sizes
    while True:
        size = 1 + int(torch.multinomial(chances, 1))
        drawn = torch.zeros(1, number, dtype=torch.long)
        drawn[0, torch.randperm(number)[:size]] = 1
        yield drawn
        yield 1 - drawn

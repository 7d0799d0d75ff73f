"""First principal components of activations, by the names of pytorch-grad-cam.

`(N, C, *spatial)` → float32 `(N, *spatial)`. The arguments are not changed, and NaN counts as 0. The sign of a
component is that of the summed activation, where the original's is arbitrary.
"""

import numpy as np
import torch

from heatproof.attributions.eigen import eigencam, kpcacam, segeigencam
from heatproof.compat.missing import missing_names


def get_2d_projection(activation_batch: np.ndarray) -> np.ndarray:
    """The projection of every position on the first component over the channels."""
    return eigencam(_tensor(activation_batch)).float().numpy()


def get_2d_projection_kernel(
    activation_batch: np.ndarray, kernel: str = "sigmoid", gamma: float | None = None
) -> np.ndarray:
    """The first component of kernel PCA over the positions; `gamma=None` is one over the number of channels."""
    kernel = {"poly": "polynomial"}.get(kernel, kernel)
    return kpcacam(_tensor(activation_batch), kernel=kernel, gamma=gamma or 0.0).float().numpy()


def get_2d_projection_with_sign_correction(activation_batch: np.ndarray) -> np.ndarray:
    """As `get_2d_projection`, with the sign that makes the largest magnitude positive."""
    activations = _tensor(activation_batch)
    return segeigencam(activations, torch.ones_like(activations)).float().numpy()


def _tensor(activations: np.ndarray) -> torch.Tensor:
    return torch.nan_to_num(torch.tensor(activations), posinf=torch.inf, neginf=-torch.inf)


__getattr__ = missing_names(__name__, {})

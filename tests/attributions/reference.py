"""Slow references, written from the papers: loops over images and channels, in float64."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

Array = np.ndarray
At = tuple[int, int]


def quantities(module: nn.Module, z: torch.Tensor, layer: str, targets: list[int]) -> tuple[Array, Array, Array]:
    """Activations, gradients and logits of `z`, one image at a time, by autograd from the image on."""
    found: list[tuple[Array, Array, Array]] = []
    for one, target in zip(z, targets, strict=True):
        kept: list[torch.Tensor] = []

        def keep(_module: nn.Module, _inputs: object, output: torch.Tensor, kept=kept) -> torch.Tensor:
            kept.append(output)
            return output.clone()  # what follows may write in place

        handle = module.get_submodule(layer).register_forward_hook(keep)
        try:
            logits = module(one[None].detach().requires_grad_())
        finally:
            handle.remove()
        (gradient,) = torch.autograd.grad(logits[0, target], kept[0])
        found.append((kept[0][0].detach().numpy(), gradient[0].numpy(), logits[0].detach().numpy()))
    activations, gradients, logits = (np.stack(parts).astype(np.float64) for parts in zip(*found, strict=True))
    return activations, gradients, logits


def _summed(activations: Array, weights: Callable[[Array, At], float]) -> Array:
    """Σk w_k A_k for every image."""
    maps = []
    for n, image in enumerate(activations):
        total = np.zeros(image.shape[1:])
        for k, channel in enumerate(image):
            total += weights(channel, (n, k)) * channel
        maps.append(total)
    return np.stack(maps)


def gradcam(activations: Array, gradients: Array) -> Array:
    """Selvaraju et al. 2017, eq. 1 and 2 before the ReLU: α_k = (1/Z) Σ_places ∂y/∂A_k."""
    return _summed(activations, lambda _channel, at: sum(gradients[at].ravel()) / gradients[at].size)


def gradcam_plus_plus(activations: Array, gradients: Array) -> Array:
    """Chattopadhyay et al. 2018: eq. 19 for α and eq. 5 for w, α clamped to its range at signed maps."""

    def weight(channel: Array, at: At) -> float:
        total = 0.0
        for g in gradients[at].ravel():
            if g > 0:  # else relu(g) is 0
                alpha = g**2 / (2 * g**2 + max(channel.sum() * g**3, 0.0))
                total += alpha * g
        return total

    return _summed(activations, weight)


def gradcam_plus_plus_compat(activations: Array, gradients: Array) -> Array:
    """The same with 1e-6 in the denominator and no clamp."""

    def weight(channel: Array, at: At) -> float:
        total = 0.0
        for g in gradients[at].ravel():
            if g > 0:
                total += g**2 / (2 * g**2 + channel.sum() * g**3 + 1e-6) * g
        return total

    return _summed(activations, weight)


def hirescam(activations: Array, gradients: Array) -> Array:
    """Draelos & Carin 2020, eq. 3."""
    maps = [
        sum(g * a for g, a in zip(gs, image, strict=True)) for gs, image in zip(gradients, activations, strict=True)
    ]
    return np.stack(maps)


def xgradcam(activations: Array, gradients: Array) -> Array:
    """Fu et al. 2020, eq. 8."""
    return _summed(activations, lambda channel, at: (gradients[at] * channel).sum() / (channel.sum() + 1e-7))


def layercam(activations: Array, gradients: Array) -> Array:
    """Jiang et al. 2021, eq. 4 and 5 before the ReLU."""
    maps = []
    for gs, image in zip(gradients, activations, strict=True):
        total = np.zeros(image.shape[1:])
        for g, a in zip(gs, image, strict=True):
            total += np.where(g > 0, g, 0) * a
        maps.append(total)
    return np.stack(maps)


def gradcam_elementwise(activations: Array, gradients: Array) -> Array:
    """What each number adds to the output to first order, if it adds."""
    maps = np.zeros((len(activations), *activations.shape[2:]))
    for n, k, *position in np.ndindex(activations.shape):
        maps[(n, *position)] += max(0.0, gradients[(n, k, *position)] * activations[(n, k, *position)])
    return maps


def eigencam(activations: Array, signed: bool = True) -> Array:
    """Muhammad & Yeasin 2020 by the full SVD of the centred positions × channels matrix."""
    maps = []
    for image in activations:
        positions = image.reshape(len(image), -1).T
        centred = positions - positions.mean(0)
        _, _, directions = np.linalg.svd(centred, full_matrices=True)
        projection = centred @ directions[0]
        if signed and np.corrcoef(projection, positions.sum(1))[0, 1] < 0:
            projection = -projection
        maps.append(projection.reshape(image.shape[1:]))
    return np.stack(maps)


def ablationcam(module: nn.Module, z: torch.Tensor, layer: str, targets: list[int], compat: bool = False) -> Array:
    """Desai & Ramaswamy 2020, eq. 3: one whole forward for each channel, which a hook sets to zero."""
    activations, _, logits = quantities(module, z, layer, targets)

    def weight(_channel: Array, at: At) -> float:
        n, k = at

        def without(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            output[:, k] = 0
            return output

        handle = module.get_submodule(layer).register_forward_hook(without)
        try:
            with torch.no_grad():
                left = float(module(z[n : n + 1])[0, targets[n]])
        finally:
            handle.remove()
        y = logits[n, targets[n]]
        return (y - left) / (y if compat else abs(y))

    return _summed(activations, weight)


def half(height: int, width: int) -> Array:
    """One half; the first pixel 0, the last 1."""
    values = [0.5] * (height * width)
    values[0], values[-1] = 0.0, 1.0
    return np.array(values).reshape(height, width)


def ones(height: int, width: int) -> Array:
    """One; the first pixel 0."""
    values = [1.0] * (height * width)
    values[0] = 0.0
    return np.array(values).reshape(height, width)


def centre(height: int, width: int) -> Array:
    """A normal density about the middle, its deviation a quarter of the distance between opposite border pixels."""
    made = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            down = (i - (height - 1) / 2) / ((height - 1) / 4)
            across = (j - (width - 1) / 2) / ((width - 1) / 4)
            made[i, j] = math.exp(-(down**2 + across**2) / 2)
    return made


def edges(image: Array) -> Array:
    """Sobel magnitude of the channels' mean, border pixels repeated."""
    grey = np.pad(image.mean(0), 1, mode="edge")
    made = np.zeros(image.shape[1:])
    for i in range(made.shape[0]):
        for j in range(made.shape[1]):
            w = grey[i : i + 3, j : j + 3]
            across = (w[0, 2] + 2 * w[1, 2] + w[2, 2]) - (w[0, 0] + 2 * w[1, 0] + w[2, 0])
            down = (w[2, 0] + 2 * w[2, 1] + w[2, 2]) - (w[0, 0] + 2 * w[0, 1] + w[0, 2])
            made[i, j] = math.hypot(across, down)
    return made


def bilinear(small: Array, height: int, width: int) -> Array:
    """Each output pixel's centre carried back to the small map (`align_corners=False`), border repeated."""
    made = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * small.shape[0] / height - 0.5, 0), small.shape[0] - 1)
            x = min(max((j + 0.5) * small.shape[1] / width - 0.5, 0), small.shape[1] - 1)
            top, left = int(y), int(x)
            low, right = min(top + 1, small.shape[0] - 1), min(left + 1, small.shape[1] - 1)
            above = small[top, left] * (1 - x + left) + small[top, right] * (x - left)
            below = small[low, left] * (1 - x + left) + small[low, right] * (x - left)
            made[i, j] = above * (1 - y + top) + below * (y - top)
    return made


def display(raw: Array, height: int, width: int) -> Array:
    """ReLU, upsampling, min-max, of one map."""
    up = bilinear(np.where(raw > 0, raw, 0), height, width)
    return (up - up.min()) / (up.max() - up.min())

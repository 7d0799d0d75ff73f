"""Images and overlays, by the names of pytorch-grad-cam; without OpenCV."""

from collections.abc import Sequence

import numpy as np
import torch

from heatproof.compat.missing import missing_names
from heatproof.compat.pytorch_grad_cam.utils.factorization_image import (
    create_labels_legend,
    show_factorization_on_image,
)
from heatproof.errors import InvalidInput
from heatproof.registry import unknown
from heatproof.tensors import upsampled

#: OpenCV's numbers of the colour maps that Matplotlib has too; its `hot` and `pink` differ.
COLORMAPS = {
    0: "autumn",
    1: "bone",
    2: "jet",
    3: "winter",
    6: "summer",
    7: "spring",
    8: "cool",
    13: "magma",
    14: "inferno",
    15: "plasma",
    16: "viridis",
    17: "cividis",
    18: "twilight",
    19: "twilight_shifted",
    20: "turbo",
}
COLORMAP_JET = 2


def show_cam_on_image(
    img: np.ndarray,
    mask: np.ndarray,
    use_rgb: bool = False,
    colormap: int | str = COLORMAP_JET,
    image_weight: float = 0.5,
) -> np.ndarray:
    """A map over its image, uint8 `(H, W, 3)`: `(1 − image_weight)` heat + `image_weight` image, maximum 255.

    Args:
        img: `(H, W, 3)` in [0, 1].
        mask: `(H, W)` in [0, 1].
        use_rgb: the colours are RGB, as `img` should be; else BGR, the order of OpenCV.
        colormap: one of OpenCV's numbers (`cv2.COLORMAP_JET`), or a name of Matplotlib's.
    """
    if not 0 <= image_weight <= 1:
        raise InvalidInput(f"`image_weight` must lie in [0, 1]. Got {image_weight}.")
    if np.max(img) > 1:
        raise InvalidInput(f"`img` must be a float image in [0, 1]. Got values up to {np.max(img):.3g}.")
    heat = _colours(colormap)[(255 * np.asarray(mask)).astype(np.uint8)]
    heat = np.float32(heat if use_rgb else heat[..., ::-1]) / 255
    mixed = (1 - image_weight) * heat + image_weight * img
    return (255 * (mixed / np.max(mixed))).astype(np.uint8)


def _colours(colormap: int | str) -> np.ndarray:
    """256 colours, RGB in 0 … 255."""
    name = colormap if isinstance(colormap, str) else COLORMAPS.get(colormap, str(colormap))
    if name == "jet":  # OpenCV's, which is Octave's; Matplotlib's differs
        shade = 4 * np.arange(256) / 255
        parts = [np.minimum(shade - low, high - shade) for low, high in ((1.5, 4.5), (0.5, 3.5), (-0.5, 2.5))]
        return (255 * np.stack(parts, 1).clip(0, 1)).round().astype(np.uint8)
    from matplotlib import colormaps

    if name not in colormaps:
        raise unknown("colour map", name, [*COLORMAPS.values(), *map(str, COLORMAPS)])
    return (255 * colormaps[name](np.linspace(0, 1, 256))[:, :3]).round().astype(np.uint8)


def preprocess_image(
    img: np.ndarray, mean: Sequence[float] = (0.5, 0.5, 0.5), std: Sequence[float] = (0.5, 0.5, 0.5)
) -> torch.Tensor:
    """`(H, W, 3)`, bytes or floats in [0, 1] → `(1, 3, H, W)`, normalised."""
    pixels = torch.from_numpy(np.array(img)).permute(2, 0, 1)
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    shape = (-1, 1, 1)
    return ((pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape))[None].contiguous()


def deprocess_image(img: np.ndarray) -> np.ndarray:
    """Gradients as an image, uint8: scaled to mean ½ and standard deviation .1, clipped to [0, 1], times 255."""
    scaled = (img - np.mean(img)) / (np.std(img) + 1e-5)
    return (np.clip(scaled * 0.1 + 0.5, 0, 1) * 255).astype(np.uint8)


def scale_cam_image(cam: np.ndarray, target_size: tuple[int, int] | None = None) -> np.ndarray:
    """Each of the maps `(N, H, W)` scaled to [0, 1], then resized to `target_size` (width, height)."""
    maps = torch.from_numpy(np.float32(cam))
    sides = tuple(range(1, maps.dim()))
    maps = maps - maps.amin(sides, keepdim=True)
    maps = maps / (1e-7 + maps.amax(sides, keepdim=True))
    return (maps if target_size is None else upsampled(maps, tuple(target_size)[::-1])).numpy()


def scale_accross_batch_and_channels(tensor: np.ndarray, target_size: tuple[int, int]) -> np.ndarray:
    """Each channel `(N, C, H, W)` scaled to [0, 1] by itself, then resized to `target_size` (width, height)."""
    count, channels = tensor.shape[:2]
    scaled = scale_cam_image(np.asarray(tensor).reshape(count * channels, *tensor.shape[2:]), target_size)
    return scaled.reshape(count, channels, *scaled.shape[1:])


__all__ = [
    "create_labels_legend",
    "deprocess_image",
    "preprocess_image",
    "scale_accross_batch_and_channels",
    "scale_cam_image",
    "show_cam_on_image",
    "show_factorization_on_image",
]

__getattr__ = missing_names(__name__, {})

"""Concepts of a layer as colours over an image, by the names of pytorch-grad-cam; without OpenCV."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from heatproof.errors import InvalidInput


def create_labels_legend(concept_scores: np.ndarray, labels: Mapping[int, str], top_k: int = 2) -> list[str]:
    """For each concept its `top_k` classes as lines of text, `name:score`; up to three synonyms of a name are kept.

    Args:
        concept_scores: `(n_components, K)`.
        labels: the names of the classes, with synonyms divided by commas.
    """
    likeliest = np.argsort(concept_scores, axis=1)[:, ::-1][:, :top_k]
    return [
        "\n".join(f"{','.join(labels[int(k)].split(',')[:3])}:{scores[k]:.2f}" for k in classes)
        for scores, classes in zip(concept_scores, likeliest, strict=True)
    ]


def show_factorization_on_image(
    img: np.ndarray,
    explanations: np.ndarray,
    colors: Sequence[np.ndarray] | None = None,
    image_weight: float = 0.5,
    concept_labels: Sequence[str] | None = None,
) -> np.ndarray:
    """Every pixel in the colour of its strongest concept, as bright as that is, over the image.

    Args:
        img: RGB `(H, W, 3)` in [0, 1].
        explanations: `(n_components, H, W)` in [0, 1]; not changed.
        colors: RGB in [0, 1] for each concept; by default of Matplotlib's `gist_rainbow`.
        image_weight: the share of the image.
        concept_labels: a text for each concept, shown with its colour in a legend to the right.

    Returns:
        uint8 `(H, W, 3)`, twice as wide with a legend.
    """
    from matplotlib import colormaps
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    count = len(explanations)
    if explanations.shape[1:] != img.shape[:2]:
        raise InvalidInput(f"`explanations` must be of the size of `img`, {img.shape[:2]}. Got {explanations.shape}.")
    chosen = [colormaps["gist_rainbow"](i / count) for i in range(count)] if colors is None else list(colors)
    if len(chosen) != count:
        raise InvalidInput(f"`colors` must be one for each of the {count} concepts. Got {len(chosen)}.")
    hues = rgb_to_hsv(np.array([np.asarray(colour)[:3] for colour in chosen], np.float64))
    painted = hues[explanations.argmax(0)]
    painted[..., 2] = explanations.max(0).clip(0, 1)
    mixed = img * image_weight + hsv_to_rgb(painted) * (1 - image_weight)
    result = (255 * mixed).astype(np.uint8)
    return result if concept_labels is None else np.hstack((result, _legend(chosen, concept_labels, result.shape)))


def _legend(colors: Sequence, texts: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
    """Lines of the colours with their texts, uint8 of `shape`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(shape[1] / 100, shape[0] / 100), dpi=100)
    canvas, scale = FigureCanvasAgg(figure), shape[0] / 256
    lines = [Line2D([0], [0], color=colour, lw=5 * scale) for colour in colors]
    figure.legend(lines, texts, loc="center", frameon=False, fontsize=14 * scale / max(1, len(texts) / 6))
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    return np.asarray(drawn.resize((shape[1], shape[0])))

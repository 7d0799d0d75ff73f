"""Deep feature factorization (Collins et al. 2018): what a layer's channels share over images and positions."""

import sys
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import nn

from heatproof.ambient import neutral
from heatproof.attributions import parsed
from heatproof.compat.given_models import AsGiven, Reshape, checked
from heatproof.compat.pytorch_grad_cam.utils.image import (
    create_labels_legend,
    scale_cam_image,
    show_factorization_on_image,
)
from heatproof.engine import Batch, ResolvedMethod
from heatproof.errors import InvalidInput
from heatproof.models import resolve_layer
from heatproof.models.model import bare

#: The original keeps this in a folder; the module is its own.
sys.modules[f"{__name__}.deep_feature_factorization"] = sys.modules[__name__]


def dff(activations: np.ndarray, n_components: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative matrix factorization of activations `(N, C, h, w)`, channels × positions of all images.

    Each channel is shifted to a minimum of 0, and NaN counts as 0; the random start is fixed.

    Returns:
        The concepts `(C, n_components)`, with the shift added again, and their maps `(N, n_components, h, w)`.
    """
    from sklearn.decomposition import NMF

    count, channels = activations.shape[:2]
    matrix = np.nan_to_num(activations, posinf=np.inf, neginf=-np.inf).swapaxes(0, 1).reshape(channels, -1)
    offset = matrix.min(1, keepdims=True)
    factors = NMF(n_components=n_components, init="random", random_state=0)  # pyright: ignore[reportArgumentType]
    concepts = factors.fit_transform(matrix - offset) + offset
    maps = factors.components_.reshape(-1, count, *activations.shape[2:])
    return concepts, maps.swapaxes(0, 1)


class DeepFeatureFactorization:
    """The concepts of a layer and where they are: `(input_tensor, n_components) → concepts, maps[, outputs]`.

    Nothing is left in the model between calls.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str,
        reshape_transform: Reshape | None = None,
        computation_on_concepts: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ):
        """
        Args:
            reshape_transform: used where the layer gives a dict or a tuple; the grid of tokens is read from a tensor.
            computation_on_concepts: run on the concepts `(n_components, C)`, such as the classifier.
        """
        self.model, self.reshape_transform = model, reshape_transform
        self.computation_on_concepts = computation_on_concepts
        self._layer = resolve_layer(bare(model), target_layer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @neutral()
    def __call__(self, input_tensor: torch.Tensor, n_components: int = 16) -> tuple[Any, ...]:
        """
        Returns:
            The concepts `(C, n_components)`; a list with the maps `(n_components, H, W)` of each image, each in [0, 1];
            and the outputs for the concepts, where there is a computation on them.
        """
        inputs = checked(input_tensor)
        if inputs.dim() != 4:
            raise InvalidInput(f"Expected normalised images (N, C, H, W). Got {tuple(inputs.shape)}.")
        model = AsGiven(self.model, inputs.shape[1:], self.reshape_transform)
        methods = [ResolvedMethod(parsed("eigencam"), (self._layer,))]  # activations are all that it needs
        with model.evaluating(), torch.no_grad():
            activations = Batch.of(model, methods, inputs.to(model.device).float()).activations(self._layer)
        concepts, maps = dff(activations.cpu().numpy(), n_components)
        scaled = [scale_cam_image(one, (inputs.shape[3], inputs.shape[2])) for one in maps]
        if self.computation_on_concepts is None:
            return concepts, scaled
        with torch.no_grad():
            given = torch.from_numpy(np.float32(concepts.T)).to(model.device)
            return concepts, scaled, self.computation_on_concepts(given).cpu().numpy()


def run_dff_on_image(
    model: nn.Module,
    target_layer: nn.Module | str,
    classifier: Callable[[torch.Tensor], torch.Tensor],
    img_pil: Image.Image,
    img_tensor: torch.Tensor,
    reshape_transform: Reshape | None = None,
    n_components: int = 5,
    top_k: int = 2,
) -> np.ndarray:
    """An image beside the same image with its concepts in colour and their likeliest classes, uint8 `(H, W, 3)`.

    Args:
        model: with the names of the classes in `model.config.id2label`, as Hugging Face has them.
        img_tensor: the image as the model takes it, `(C, H, W)`.
    """
    labels: Mapping[int, str] = model.config.id2label  # type: ignore[assignment, union-attr]
    factorization = DeepFeatureFactorization(model, target_layer, reshape_transform, classifier)
    _, maps, outputs = factorization(img_tensor[None], n_components)
    legend = create_labels_legend(torch.from_numpy(outputs).softmax(-1).numpy(), labels, top_k)
    picture = np.asarray(img_pil.convert("RGB"))
    shown = show_factorization_on_image(picture / 255, maps[0], image_weight=0.3, concept_labels=legend)
    return np.hstack((picture, shown))

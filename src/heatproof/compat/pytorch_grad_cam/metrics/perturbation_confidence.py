"""The change of the targets' outputs when the images are perturbed by their maps."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.compat.given_models import AsGiven, checked, number
from heatproof.compat.missing import missing_names
from heatproof.compat.pytorch_grad_cam.base import checked_targets
from heatproof.errors import InvalidInput
from heatproof.passes import parts, rows_per_pass

#: Image `(C, H, W)` and map `(H, W)` → the perturbed image.
Perturbation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class PerturbationConfidenceMetric:
    """The targets' outputs on perturbed images, minus those on the images, for any `perturbation`."""

    def __init__(self, perturbation: Perturbation):
        self.perturbation = perturbation

    @neutral()
    def __call__(
        self,
        input_tensor: torch.Tensor,
        cams: np.ndarray | torch.Tensor,
        targets: Sequence[Callable[[Any], Any]],
        model: nn.Module,
        return_visualization: bool = False,
        return_diff: bool = True,
    ) -> Any:
        """Scores maps.

        Args:
            input_tensor: normalised images `(N, C, H, W)`.
            cams: their maps `(N, H, W)`.
            targets: one for each image, as for a CAM.
            return_visualization: the perturbed images, too.
            return_diff: the change of the outputs; otherwise the outputs on the perturbed images.

        Returns:
            float32 `(N,)`, or that and the images `(N, C, H, W)`.

        Raises:
            InvalidInput, InvalidTarget: maps or targets that do not fit the images.
        """
        images, maps = checked(input_tensor), as_maps(cams, input_tensor)
        found = checked_targets(targets, len(images))
        perturbed = torch.stack(
            [self.perturbation(image.cpu(), one).to(image) for image, one in zip(images, maps, strict=True)]
        )
        scores = outputs(model, perturbed, found)
        if return_diff:
            scores = scores - outputs(model, images, found)
        return (scores, perturbed) if return_visualization else scores


def outputs(model: nn.Module, images: torch.Tensor, targets: Sequence[Callable[[Any], Any]]) -> np.ndarray:
    """The targets' outputs of the images, float32 `(N,)`; in eval mode, without gradients."""
    given, found = AsGiven(model, images.shape[1:]), []
    with given.evaluating(), torch.no_grad():
        for part in parts(len(images), rows_per_pass(images)):
            rows = given.output(images[part].to(given.device))
            found += [float(number(target, row)) for target, row in zip(targets[part], rows, strict=True)]
    return np.array(found, np.float32)


def as_maps(cams: Any, images: torch.Tensor) -> torch.Tensor:
    """Maps on the CPU, `(N, H, W)`, of the size of the images."""
    maps = torch.as_tensor(np.asarray(cams.detach().cpu() if isinstance(cams, torch.Tensor) else cams))
    if maps.shape != (len(images), *images.shape[2:]):
        raise InvalidInput(
            f"`cams` must be one map for each image, {(len(images), *images.shape[2:])}. Got {tuple(maps.shape)}."
        )
    return maps


class RemoveMostRelevantFirst:
    """Imputes the most relevant pixels: `percentile` percent stay, or those up to Otsu's threshold (`auto`).

    Of n pixels exactly `⌈(n − 1) P / 100⌉` stay, also where values tie (there the choice is drawn, with a fixed seed);
    the original removes all pixels that tie at the threshold. With `auto` it removes the least relevant ones.
    """

    def __init__(self, percentile: float | str, imputer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]):
        if percentile != "auto" and not (isinstance(percentile, int | float) and 0 <= percentile <= 100):
            raise InvalidInput(f"`percentile` must lie in 0 … 100, or be 'auto'. Got {percentile!r}.")
        self.percentile, self.imputer = percentile, imputer

    def __call__(self, input_tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Image `(C, H, W)` and map `(H, W)` → the image with its pixels imputed."""
        return self.imputer(input_tensor, self._kept(mask).float())

    def _kept(self, mask: torch.Tensor) -> torch.Tensor:
        values = mask.detach().cpu().double().numpy()
        if self.percentile == "auto":
            from skimage.filters import threshold_otsu

            steps = (255 * values).astype(np.uint8)
            return torch.from_numpy(steps <= (threshold_otsu(steps) if np.ptp(steps) else 255)).to(mask.device)
        assert not isinstance(self.percentile, str)
        stay = math.ceil((values.size - 1) * self.percentile / 100 - 1e-9)
        order = np.lexsort((np.random.default_rng(0).permutation(values.size), values.ravel()))
        kept = np.zeros(values.size, bool)
        kept[order[:stay]] = True
        return torch.from_numpy(kept.reshape(values.shape)).to(mask.device)


class RemoveLeastRelevantFirst(RemoveMostRelevantFirst):
    """Imputes the least relevant pixels of an image; `percentile` percent stay."""

    def __call__(self, input_tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return super().__call__(input_tensor, 1 - mask)


class AveragerAcrossThresholds:
    """The mean of a metric, made anew with each percentile, over `percentiles`."""

    def __init__(self, imputer: Callable[[float], Any], percentiles: Sequence[float] = tuple(range(10, 100, 10))):
        self.imputer, self.percentiles = imputer, list(percentiles)

    @neutral()
    def __call__(self, input_tensor: torch.Tensor, cams: Any, targets: Any, model: nn.Module) -> np.ndarray:
        """As `PerturbationConfidenceMetric`, float32 `(N,)`; the images themselves are run once."""
        found = self.perturbed(input_tensor, cams, targets, model)
        images = checked(input_tensor)
        return found - outputs(model, images, checked_targets(targets, len(images))) if self._own else found

    def perturbed(self, input_tensor: torch.Tensor, cams: Any, targets: Any, model: nn.Module) -> np.ndarray:
        """The mean output on the perturbed images, `(N,)`; of a metric of another kind, the mean of what it gives."""
        more = {"return_diff": False} if self._own else {}
        metrics = map(self.imputer, self.percentiles)
        return np.mean(
            np.array([one(input_tensor, cams, targets, model, **more) for one in metrics], np.float32), axis=0
        )

    @property
    def _own(self) -> bool:
        return isinstance(self.imputer, type) and issubclass(self.imputer, PerturbationConfidenceMetric)


__getattr__ = missing_names(__name__, {})

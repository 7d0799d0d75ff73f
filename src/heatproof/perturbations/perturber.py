"""One batch and everything its perturbations share: noise fields, the clean gradient, DeepFool's step."""

from collections.abc import Sequence
from typing import Any

import torch

from heatproof import seeds
from heatproof.ambient import neutral, ordinary
from heatproof.errors import InvalidInput
from heatproof.memo import cached_property
from heatproof.perturbations.adversarial import ImageFunction, deepfool_step
from heatproof.perturbations.draws import Draws
from heatproof.perturbations.ladder import PERTURBATIONS, settings_at, strength_at


class Perturber:
    """Applies perturbations to one batch with common random numbers.

    The random numbers of an image depend on (seed, its id, the kind) only: not on the severity, the model,
    the batch it is in or the order of calls. What severities share is computed once: the noise fields of the
    kind last used, the gradient at the clean images, DeepFool's step. So visit all severities of a kind
    before the next kind; memory then stays at a few times the batch.

    `x` is `(N, C, H, W)` in [0, 1], `ids` one text per image. `loss_gradient` (images → gradient of the
    cross-entropy to the clean prediction, of the images' shape) and `class_scores` (images → differentiable
    logits) are needed by the attacks only. Raises InvalidInput where these do not fit.
    """

    def __init__(
        self,
        x: torch.Tensor,
        ids: Sequence[str],
        seed: int,
        loss_gradient: ImageFunction | None = None,
        class_scores: ImageFunction | None = None,
    ):
        self.x = _check_images(x)
        if len(ids) != len(x):
            raise InvalidInput(f"`ids` must name each of the {len(x)} images. Got {len(ids)}.")
        self.ids, self.seed = tuple(ids), seed
        self._given = {"loss_gradient": loss_gradient, "class_scores": class_scores}
        self._drawn: tuple[str, Draws] | None = None

    @neutral()
    def apply(self, kind: str, severity: float, *, extrapolate: bool = False) -> torch.Tensor:
        """The perturbed batch, `(N, C, H, W)` in [0, 1] on the batch's device; severity 0 is a copy.

        `kind` may carry options that are not its strength, as `pgd-linf[steps=20]`. Severities 1–5 are the
        table's, numbers between are interpolated, numbers up to 10 extrapolated where `extrapolate` allows it
        (`ladder.settings_at`). Raises UnknownName for a kind or option that does not exist, InvalidInput for
        a severity out of range, a strength given twice, or an attack without its callable.
        """
        entry, options = PERTURBATIONS.parse(kind)
        settings = settings_at(kind, severity, extrapolate=extrapolate)
        for option in settings.keys() & options.keys():
            raise InvalidInput(f"`{option}` of {entry.name!r} is set by the severity. Leave it out. Got {kind!r}.")
        if severity == 0:
            return self.x.clone()
        with torch.no_grad():
            quantities = [self._quantity(need, entry.name) for need in entry.needs]
            return entry.function(*quantities, **options, **settings)

    def strength(self, kind: str, severity: float, *, extrapolate: bool = False) -> float:
        """The main strength at a severity, in the kind's unit, for the result rows."""
        return strength_at(kind, severity, extrapolate=extrapolate)

    @cached_property
    def clean_gradient(self) -> torch.Tensor:
        """The loss gradient at the clean images, one pass for all strengths."""
        return self._gradient(self.x)

    @cached_property
    def minimal_step(self) -> torch.Tensor:
        """DeepFool's smallest step found, once for all strengths."""
        return deepfool_step(self.x, self._callable("class_scores"))

    def _quantity(self, need: str, kind: str) -> Any:
        if need == "generator":
            return self._draws(kind)
        if need == "loss_gradient":
            self._callable(need)
            return self._gradient
        return getattr(self, need)

    def _draws(self, kind: str) -> Draws:
        if self._drawn is None or self._drawn[0] != kind:
            self._drawn = (kind, Draws(seeds.generators(self.seed, self.ids, "perturbation", kind)))
        return self._drawn[1]

    def _gradient(self, images: torch.Tensor) -> torch.Tensor:
        """The given loss gradient, whatever gradient mode the caller is in."""
        with neutral(), torch.enable_grad():
            gradient = self._callable("loss_gradient")(ordinary(images).detach()).detach()
        if gradient.shape != images.shape:
            raise InvalidInput(
                f"`loss_gradient` must return the shape {tuple(images.shape)} of its images. "
                f"Got {tuple(gradient.shape)}."
            )
        return gradient

    def _callable(self, name: str) -> ImageFunction:
        given = self._given[name]
        if given is None:
            raise InvalidInput(f"This attack needs the network: give `{name}` to the Perturber. Got None.")
        return given


def psnr(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image in dB, `(N,)`: `10 log10(1 / mean (x − y)²)` over all values.

    Range (0, ∞] for images in [0, 1]; higher is nearer to the clean image, identical images give ∞.
    """
    if x.shape != y.shape:
        raise InvalidInput(f"`x` and `y` must have one shape. Got {tuple(x.shape)} and {tuple(y.shape)}.")
    return -10 * (x - y).flatten(1).square().mean(1).log10()


def _check_images(x: torch.Tensor) -> torch.Tensor:
    if x.dim() != 4 or not x.numel() or not x.is_floating_point():
        raise InvalidInput(f"`x` must be floats of shape (N, C, H, W). Got {x.dtype}, {tuple(x.shape)}.")
    low, high = torch.stack([x.detach().amin(), x.detach().amax()]).tolist()
    if not (low >= 0 and high <= 1):  # NaN fails too
        raise InvalidInput(f"`x` must lie in [0, 1]. Got values from {low:.4g} to {high:.4g}.")
    return x

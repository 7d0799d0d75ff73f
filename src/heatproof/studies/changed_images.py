"""The images of a block under the conditions of a study, and their masks: transformed first, then perturbed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from heatproof.data import Images
from heatproof.models import Model
from heatproof.perturbations import Perturber, strength_at
from heatproof.studies.conditions import Condition
from heatproof.studies.jobs import ImageBlock
from heatproof.studies.partners import partners
from heatproof.transformations import transformed


@dataclass
class ChangedImages:
    """The images `x` of a block of a set, changed.

    images: the whole set, from which mixup takes its partners. clean_class: gives the predictions `(n,)` that attacks
    try to change.
    """

    model: Model
    x: torch.Tensor
    block: ImageBlock
    images: Images
    seed: int
    clean_class: Callable[[], torch.Tensor]
    _perturbers: dict[str, Perturber] = field(default_factory=dict, init=False)

    def under(self, condition: Condition) -> torch.Tensor:
        """The images transformed, then perturbed.

        Raises:
            NotApplicable: there is no other image to mix them with.
        """
        if not condition.perturbation:
            return self._transformed(condition.transformation)
        with self.model.evaluating():
            return self._perturber(condition.transformation).apply(
                condition.perturbation, condition.level, extrapolate=condition.calibrated
            )

    def masks(self, masks: torch.Tensor, condition: Condition) -> torch.Tensor:
        """Masks `(n, H, W)` bool, transformed like the images."""
        if not condition.transformation:
            return masks
        shown = masks[:, None].to(self.x).expand(-1, self.x.shape[1], -1, -1)
        return transformed(condition.transformation, shown, self.block.ids, self.seed, mask=True)[:, 0] > 0.5

    def _transformed(self, name: str) -> torch.Tensor:
        others = partial(partners, self.images, self.model)
        return transformed(name, self.x, self.block.ids, self.seed, partners=others) if name else self.x

    def _perturber(self, name: str) -> Perturber:
        """One perturber for all conditions of a transformation, so that they share intermediate results."""
        if name not in self._perturbers:
            x = self._transformed(name)
            model, clean = self.model, self.clean_class
            gradient = lambda images: loss_gradient(model, images, clean())  # noqa: E731
            self._perturbers[name] = Perturber(x, self.block.ids, self.seed, gradient, model.logits)
        return self._perturbers[name]


def loss_gradient(model: Model, images: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """d cross-entropy to the clean prediction / d images; summed over the batch, so that images do not mix."""
    with model.evaluating(), torch.enable_grad():
        images = images.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model.logits(images), clean, reduction="sum")
        return torch.autograd.grad(loss, images)[0]


def strength_of(condition: Condition) -> float:
    """The main parameter of the perturbation, in its own unit."""
    return strength_at(condition.perturbation, condition.level, extrapolate=condition.calibrated)

"""How a network is trained: the numbers of a recipe, checked."""

import math
from dataclasses import dataclass

from heatproof.errors import InvalidInput, InvalidType
from heatproof.registry import unknown

#: Attacks that images may be trained under.
ATTACKS = ("pgd-linf",)


@dataclass(frozen=True)
class Recipe:
    """Fine-tuning as in paper R: AdamW, early stopping on the validation loss.

    Attributes:
        epochs: at most so many passes over the training images.
        patience: stop after so many epochs without a lower validation loss.
        batch_size: images in one step.
        lr, weight_decay: of AdamW.
        seed: of the order of the images, the mirroring, dropout, and the new classifier.
        adversarial: an attack that every training image goes through; empty: none.
        epsilon: the largest change of a value by the attack, of the range [0, 1].
        steps: steps of the attack.
    """

    epochs: int = 40
    patience: int = 7
    batch_size: int = 32
    lr: float = 1e-4
    weight_decay: float = 1e-4
    seed: int = 0
    adversarial: str = ""
    epsilon: float = 4 / 255
    steps: int = 4

    def __post_init__(self):
        for name in ("epochs", "patience", "batch_size", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidType(f"`{name}` must be an integer. Got {value!r}.")
            if value < 1:
                raise InvalidInput(f"`{name}` must be at least 1. Got {value}.")
        for name, lowest in (("lr", "above 0"), ("weight_decay", "at least 0"), ("epsilon", "above 0")):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and lowest == "above 0"):
                raise InvalidInput(f"`{name}` must be {lowest}. Got {value}.")
        if self.adversarial and self.adversarial not in ATTACKS:
            raise unknown("attack for training", self.adversarial, ATTACKS)

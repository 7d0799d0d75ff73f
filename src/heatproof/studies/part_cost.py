"""Images with parts for the count of passes: a network that follows the parts, so that all part metrics are taken."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from heatproof.data import Images
from heatproof.data.part_images import Contrast, PartImage, Parts, part_image
from heatproof.engine import PartAnswers, PartImages
from heatproof.errors import InvalidImage
from heatproof.flags import Flag
from heatproof.models import Model

#: How many images the passes are counted on: how many sets of parts a map asks for differs from image to image.
SAMPLES = 6
#: How many images are tried for these.
TRIED = 24


def part_samples(images: Images) -> list[PartImage]:
    """Up to six images of a set made of parts, spread over it, whose files can be read; none of another set."""
    count, found = len(images.ids), []
    for i in dict.fromkeys(k * count // TRIED for k in _spread(TRIED)):
        one = part_image(images, i)
        if one is None or len(found) == SAMPLES:
            break
        try:
            one.masks()
            one.without(frozenset())
        except InvalidImage:  # it is flagged when it is its turn
            continue
        found.append(one)
    return found


def _spread(count: int) -> Sequence[int]:
    """0 to `count` - 1 so that the first ones are far apart."""
    step = count // SAMPLES
    return [k for first in range(step) for k in range(first, count, step)]


@dataclass
class FollowedParts(PartAnswers):
    """Answers of the toy network, changed so that each of the three classes of a contrast follows its own parts.

    What is asked for, and so the passes, is as under a trained network.
    """

    contrast: Contrast | None = field(default=None)

    @classmethod
    def of(cls, model: Model, image: PartImage) -> tuple[torch.Tensor, "FollowedParts"]:
        """The image as the toy's input, `(1, C, H, W)`, and its parts."""
        x = model.geometry.image(image.without(frozenset()))[None]
        contrast = image.table.contrast(image.label)
        outputs = [0] * len(image.table.classes)
        if contrast is not None:
            outputs[contrast.first], outputs[contrast.second] = 1, 2
        logits = torch.zeros(1, 3)  # of the toy's three classes
        return x, cls(model, x, logits, PartImages([image], image.table, outputs), contrast=contrast)

    def answers(self, rows: Sequence[int], removed: Sequence[Parts]) -> list[torch.Tensor | Flag]:
        """As `PartAnswers.answers`; the logit of a class falls with the number of its parts that are removed."""
        found = super().answers(rows, removed)
        if self.contrast is None:
            return found
        own = (self.contrast.first_parts, self.contrast.second_parts)
        return [
            one if isinstance(one, Flag) else -torch.tensor([len(gone), *(len(gone & parts) for parts in own)]).double()
            for one, gone in zip(found, removed, strict=True)
        ]

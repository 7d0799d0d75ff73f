"""What the network answers where parts of the images are missing: each distinct image runs once for all methods."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from heatproof.data.part_images import PartImage, Parts, PartTable
from heatproof.errors import InvalidImage
from heatproof.flags import FINE, Flag, Reason
from heatproof.memo import cached_property
from heatproof.models import Model
from heatproof.passes import parts, rows_per_pass

#: The side of the square by which the mask of a part is dilated, in pixels of the network's input (Hesse et al. 2023).
DILATION = 5


@dataclass(frozen=True)
class PartImages:
    """The images of a batch by their parts.

    images: one for each row. table: the classes of the set. outputs: class of the table → the network's output.
    """

    images: Sequence[PartImage]
    table: PartTable
    outputs: Sequence[int]


@dataclass
class PartAnswers:
    """The parts of a batch of images under a model; what is worked out is kept.

    Attributes:
        x: `(N, C, H, W)`, the whole images. logits: `(N, K)`, theirs.
        passes: how many images with something removed have been run so far.
    """

    model: Model
    x: torch.Tensor
    logits: torch.Tensor
    given: PartImages
    passes: int = 0
    _known: dict[tuple[int, Parts], torch.Tensor | Flag] = field(default_factory=dict, init=False)

    def view(self) -> "PartView":
        """The parts as one metric sees them."""
        return PartView(self)

    @cached_property
    def things(self) -> list[tuple[str, ...]]:
        """For each image the names of its parts, then of its distractors."""
        return [(*self.given.table.parts, *image.distractors) for image in self.given.images]

    @cached_property
    def regions(self) -> tuple[torch.Tensor, list[Flag]]:
        """`(N, M, H, W)` bool, where each thing is seen, dilated; and why an image has no masks.

        M is the largest number of things; what an image has not is False everywhere.
        """
        most = max(map(len, self.things))
        found = torch.zeros(len(self.things), most, *self.x.shape[2:], dtype=torch.bool)
        flags = []
        for row, image in enumerate(self.given.images):
            try:
                masks = image.masks()
                moved = torch.stack([self.model.geometry.mask(np.asarray(masks[name])) for name in self.things[row]])
                found[row, : len(moved)] = moved
                flags.append(FINE)
            except InvalidImage as error:
                flags.append(Flag(Reason.NO_PART_IMAGE, str(error), error))
        grown = F.max_pool2d(found.flatten(0, 1)[:, None].float(), DILATION, 1, DILATION // 2) > 0
        return grown[:, 0].unflatten(0, found.shape[:2]).to(self.x.device), flags

    def answers(self, rows: Sequence[int], removed: Sequence[Parts]) -> list[torch.Tensor | Flag]:
        """The logits `(K,)` of images without some parts, or the flag of an image that is not there."""
        wanted = list(dict.fromkeys((row, gone) for row, gone in zip(rows, removed, strict=True)))
        self._run([one for one in wanted if one not in self._known])
        return [self._known[row, gone] for row, gone in zip(rows, removed, strict=True)]

    def _run(self, wanted: list[tuple[int, Parts]]) -> None:
        """Makes the images and gives them to the network, as many at a time as one pass takes."""
        for part in parts(len(wanted), rows_per_pass(self.x)):
            made: dict[tuple[int, Parts], torch.Tensor] = {}
            for row, gone in wanted[part]:
                if not gone:
                    self._known[row, gone] = self.logits[row].double()
                    continue
                try:
                    made[row, gone] = self.model.geometry.image(self.given.images[row].without(gone))
                except InvalidImage as error:
                    self._known[row, gone] = Flag(Reason.NO_PART_IMAGE, str(error), error)
            if made:
                with self.model.evaluating(), torch.no_grad():
                    z = self.model.normalise(torch.stack(list(made.values())).to(self.x))
                    answers = self.model.answers(z).double()
                self.passes += len(made)
                self._known.update(zip(made, answers, strict=True))


class PartView:
    """The parts of a batch of images for one metric, which remembers what was missing."""

    def __init__(self, of: PartAnswers):
        self._of = of
        self.missing: list[Flag] = [FINE] * len(of.given.images)

    @property
    def table(self) -> PartTable:
        """Which variant of every part each class has."""
        return self._of.given.table

    @property
    def labels(self) -> list[int]:
        """The class that the parts of each image make, as in the table."""
        return [image.label for image in self._of.given.images]

    @property
    def outputs(self) -> Sequence[int]:
        """Class of the table → the network's output."""
        return self._of.given.outputs

    @property
    def things(self) -> list[tuple[str, ...]]:
        """For each image the names of its parts, in the order of the table, then of its distractors."""
        return self._of.things

    @property
    def regions(self) -> torch.Tensor:
        """`(N, M, H, W)` bool: where each thing is seen, dilated by 5 × 5; False where an image has no such thing."""
        found, flags = self._of.regions
        self.missing = [one or flag for one, flag in zip(self.missing, flags, strict=True)]
        return found

    @property
    def readable(self) -> torch.Tensor:
        """`(N,)` bool: whether the masks of an image could be read."""
        return torch.tensor([not flag for flag in self._of.regions[1]], device=self._of.x.device)

    def logits(self, rows: Sequence[int], removed: Sequence[Parts]) -> torch.Tensor:
        """`(len(rows), K)` float64: the logits of images without some parts or distractors; NaN where none is there."""
        answers = self._of.answers(rows, removed)
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, Flag):
                self.missing[row] = self.missing[row] or answer
        empty = torch.full_like(self._of.logits[0], torch.nan, dtype=torch.float64)
        return torch.stack([empty if isinstance(one, Flag) else one for one in answers]) if answers else empty[None][:0]

"""A network behind the viewer: maps of an image as it is and under noise, and what it says without a region."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import PurePath

import numpy as np
import torch

from heatproof import seeds
from heatproof.ambient import neutral
from heatproof.errors import HeatproofError, InvalidImage, InvalidInput
from heatproof.imputation import imputed
from heatproof.models.preprocessing import preprocessing_facts
from heatproof.panels.explain_images import MapSettings, entries
from heatproof.panels.explained_image import ClassProbability, ExplainedImage, Method
from heatproof.panels.image_sources import as_uint8
from heatproof.panels.show import ShowRequest
from heatproof.perturbations import PERTURBATIONS, Perturber
from heatproof.progress import Silent
from heatproof.report.preprocessing import preprocessing_text
from heatproof.rounding import top_class
from heatproof.studies.changed_images import loss_gradient
from heatproof.view.interface import Erased

#: How many images are kept at hand as tensors, and how many with their maps.
OPENED, EXPLAINED = 8, 16
#: The noise that ROAD adds to imputed pixels, in `z`.
ROAD_NOISE = 0.01


class Network:
    """A model with the images of a request, as the viewer's `LiveNetwork`. Calls wait for each other."""

    def __init__(self, job: ShowRequest):
        self._work, self._shots = job.work, {shot.id: shot for shot in job.shots}
        model = job.work.model
        self.name = model.name
        self.facts = [
            ("Model", model.name),
            ("Preprocessing", preprocessing_text(preprocessing_facts(model.preprocessing))),
        ]
        self.kinds: list[str] = [] if model.of_values or not model.normalises else list(PERTURBATIONS)
        self._lock = threading.RLock()
        self._opened = lru_cache(maxsize=OPENED)(self._open)
        self._perturber = lru_cache(maxsize=2)(self._perturber_of)
        self._kept = lru_cache(maxsize=EXPLAINED)(self._explained)

    @property
    def methods(self) -> Sequence[Method]:
        """The methods asked for, as they are drawn."""
        return [method for row in self._work.asked.rows for method in row]

    @property
    def images(self) -> Sequence[tuple[str, str, str]]:
        """(id, name, why it cannot be used or empty) of every image."""
        return [(shot.id, shot.name or shot.id, shot.flag) for shot in self._shots.values()]

    @property
    def fingerprint(self) -> str:
        """That of the weights."""
        return self._work.model.fingerprint

    def knows(self, image: str) -> bool:
        """Whether it has the image of that id."""
        return image in self._shots

    def pixels(self, image: str) -> np.ndarray:
        """The image as the network sees it. InvalidImage where it cannot be read."""
        shot = self._shots[image]
        if shot.flag:
            raise InvalidImage(shot.flag)
        return as_uint8(shot.open())

    def explained(self, image: str, kind: str = "", severity: int = 0) -> ExplainedImage:
        """The image with its maps, as it is or under noise; of one that cannot be used an entry with the reason."""
        with self._lock:
            return self._kept(image, kind if severity else "", severity if kind else 0)

    @neutral()
    def erased(self, image: str, region: np.ndarray, target: int, kind: str = "", severity: int = 0) -> Erased:
        """What the network says without a region, filled as ROAD fills: from the pixels around it, with a little noise.

        One forward pass. Raises InvalidInput where nothing is left to fill from.
        """
        if region.all():
            raise InvalidInput("Something must be left of the image, from which the region is filled. Got all of it.")
        with self._lock:
            model, x = self._work.model, self._under(image, kind, severity)[None].to(self._work.model.device)
            before = self._answer(image, kind, severity, target)
            removed = torch.from_numpy(region.copy())[None].to(x.device)
            with model.evaluating(), torch.no_grad():
                z = model.normalise(x)
                noise = torch.randn(z.shape[1:], generator=seeds.generator(self._work.seed, image, "road"))
                plain, where = imputed(z, removed).images, removed[:, None].to(z.dtype)
                filled = plain + ROAD_NOISE * noise.to(z) * where
                logits = model.of_normalised(filled).detach().cpu()
            chances = model.probabilities(logits)[0]
            answer = lambda index: self._class(chances, index)  # noqa: E731
            predicted = target if model.of_values else int(top_class(logits[0]))
            seen = torch.where(removed[:, None], self._unnormalised(plain), x)[0].cpu()
            return Erased(before, answer(target), answer(predicted), as_uint8(seen))

    # --- one image ---

    def _explained(self, image: str, kind: str, severity: int) -> ExplainedImage:
        shot = self._shots[image]
        try:
            x = self._under(image, kind, severity)
        except InvalidImage as error:
            return ExplainedImage(shot.id, shot.name, flag=str(error).removeprefix(f"{PurePath(shot.id).name}: "))
        given = replace(shot, open=partial(_given, x), mask=None)
        try:
            return next(entries(self._of_image(image), [given], Silent()))[0]
        except HeatproofError as error:
            return ExplainedImage(shot.id, shot.name, flag=str(error))

    def _of_image(self, image: str) -> MapSettings:
        """The settings for one image; where there is a target for each, its own."""
        target = self._work.target
        if isinstance(target, str | int) or callable(target):
            return self._work
        row = list(self._shots).index(image)
        return replace(self._work, target=torch.as_tensor(target)[row : row + 1])

    def _open(self, image: str) -> torch.Tensor:
        shot = self._shots[image]
        if shot.flag:
            raise InvalidImage(shot.flag)
        return shot.open()

    def _under(self, image: str, kind: str, severity: int) -> torch.Tensor:
        """The image under noise, with the random numbers that a study of this seed has."""
        if not kind or not severity:
            return self._opened(image)
        with self._work.model.evaluating():
            return self._perturber(image).apply(kind, severity)[0].cpu()

    def _perturber_of(self, image: str) -> Perturber:
        model = self._work.model
        x = self._opened(image)[None].to(model.device)

        def clean() -> torch.Tensor:
            with model.evaluating(), torch.no_grad():
                return top_class(model.logits(x))

        known = lru_cache(maxsize=1)(clean)  # an attack asks for it, other noise does not
        gradient = lambda images: loss_gradient(model, images, known())  # noqa: E731
        return Perturber(x, [image], self._work.seed, gradient, model.logits)

    def _answer(self, image: str, kind: str, severity: int, target: int) -> ClassProbability:
        """The class explained as it was before; from the maps at hand where it is among them."""
        entry = self.explained(image, kind, severity)
        for block in entry.blocks:
            if block.answer.index == target:
                return block.answer
        model, x = self._work.model, self._under(image, kind, severity)[None]
        with model.evaluating(), torch.no_grad():
            logits = model.logits(x.to(model.device)).detach().cpu()
        return self._class(model.probabilities(logits)[0], target)

    def _unnormalised(self, z: torch.Tensor) -> torch.Tensor:
        """Normalised images back in [0, 1]."""
        model = self._work.model
        if not model.normalises:
            return z
        mean, std = (
            torch.tensor(one, dtype=z.dtype, device=z.device).view(1, -1, 1, 1) for one in (model.mean, model.std)
        )
        return (z * std + mean).clamp(0, 1)

    def _class(self, chances: torch.Tensor, index: int) -> ClassProbability:
        model, score = self._work.model, float(chances[index])
        name = model.class_name(index)
        return ClassProbability(index, name, value=score) if model.of_values else ClassProbability(index, name, score)


def _given(x: torch.Tensor) -> torch.Tensor:
    return x

"""The images of a study's folder, opened as its network saw them, without the network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heatproof.data import Images
from heatproof.data.class_matching import label_match
from heatproof.errors import HeatproofError, InvalidImage
from heatproof.geometry import Geometry
from heatproof.models import Model
from heatproof.panels.image_sources import ImageSource, as_uint8
from heatproof.perturbations import PERTURBATIONS, Perturber
from heatproof.studies.archive import IN_MEMORY, NAME
from heatproof.studies.datasets import images_of
from heatproof.studies.jobs import input_of
from heatproof.studies.settings import DatasetPlan, listed
from heatproof.studies.store import Store
from heatproof.studies.studyfile import read_settings

#: What an attack asks for: it cannot be drawn without the network.
OF_NETWORK = {"loss_gradient", "class_scores", "clean_gradient", "minimal_step"}


class StudyImages:
    """The images of a results folder, as the viewer's `Pixels`.

    images: where they are now, of a study with one dataset, in place of what the folder says.
    """

    def __init__(self, folder: Path, images: str | None = None):
        self._plan = Store(folder).plan() or {}
        self._settings = _datasets(folder, images)
        self._sets: dict[str, tuple[Images, dict[str, int]] | str] = {}

    def of(self, model: str, dataset: str, image: str) -> np.ndarray:
        """The image as the network saw it. InvalidImage where it is not there or cannot be read."""
        return as_uint8(self._input(model, dataset, image))

    def perturbed(self, model: str, dataset: str, image: str, kind: str, severity: int) -> np.ndarray | None:
        """The image under noise, with the study's own random numbers; None for an attack."""
        entry = PERTURBATIONS.parse(kind)[0]
        if OF_NETWORK & set(entry.needs):
            return None
        x = self._input(model, dataset, image)[None]
        return as_uint8(Perturber(x, [image], int(self._plan.get("seed") or 0)).apply(kind, severity)[0])

    def dataset(self, name: str) -> Images:
        """All images of a dataset. InvalidImage where they cannot be had."""
        return self._opened(name)[0]

    @property
    def names(self) -> Sequence[str]:
        """The datasets."""
        return list(self._settings)

    def _input(self, model: str, dataset: str, image: str) -> torch.Tensor:
        images, positions = self._opened(dataset)
        if image not in positions:
            raise InvalidImage(f"{image} is not in {images.name}")
        opened = images.open(positions[image])
        return opened if isinstance(opened, torch.Tensor) else self._geometry(model).image(opened)

    def _opened(self, dataset: str) -> tuple[Images, dict[str, int]]:
        if dataset not in self._sets:
            self._sets[dataset] = self._found(dataset)
        found = self._sets[dataset]
        if isinstance(found, str):
            raise InvalidImage(found)
        return found

    def _found(self, dataset: str) -> tuple[Images, dict[str, int]] | str:
        """The images with the position of each, or why there are none."""
        settings = self._settings.get(dataset)
        if settings is None:
            return f"the folder does not say where the images of {dataset} are."
        if isinstance(settings.images, str) and settings.images.startswith(IN_MEMORY):
            return "they were in memory when the study was run."
        try:
            images = images_of(settings)
        except (HeatproofError, OSError) as error:
            return str(error)
        return images, {name: at for at, name in enumerate(images.ids)}

    def _geometry(self, model: str) -> Geometry:
        return geometry_of(next((one for one in self._plan["models"] if one["name"] == model), {}))


def geometry_of(model: Mapping[str, Any]) -> Geometry:
    """The geometry that a plan records of a model. InvalidImage where it records none."""
    facts = model.get("preprocessing")
    if not facts:
        raise InvalidImage("the folder does not say how its images were resized.")
    resize, window = facts["resize"], facts.get("window")
    pair = lambda value: tuple(value) if isinstance(value, list) else value  # noqa: E731
    return Geometry(
        tuple(facts["size"]),
        None if resize == "none" else pair(resize),
        facts["interpolation"],
        pair(window),
        facts.get("alpha_background") or "white",
        int(facts.get("channels") or 3),
    )


def _datasets(folder: Path, images: str | None) -> dict[str, DatasetPlan]:
    """Name → the settings of every dataset that the folder's `study.yaml` names."""
    if not (folder / NAME).is_file():
        return {}
    found = [
        DatasetPlan(**(one if isinstance(one, Mapping) else {"images": one}))
        for one in listed(read_settings(folder / NAME)[0].get("datasets") or [])
    ]
    if images is not None and len(found) == 1:
        found = [found[0].model_copy(update={"name": found[0].label, "images": images})]
    return {one.label: one for one in found}


def sources(images: Images, model: Model) -> list[ImageSource]:
    """Images of a set as a live network takes them, under the names that a study's rows give them."""
    match = label_match(images, model.classes, model.named_by_images)
    return [
        ImageSource(
            name, _Opening(images, at, model), match(images.labels[at]), images.flags.get(name, ""), name=name,
            mask=None,
        )
        for at, name in enumerate(images.ids)
    ]  # fmt: skip


class _Opening:
    """Opens one image of a set for a model."""

    def __init__(self, images: Images, at: int, model: Model):
        self._images, self._at, self._model = images, at, model

    def __call__(self) -> torch.Tensor:
        return input_of(self._images.open(self._at), self._model)

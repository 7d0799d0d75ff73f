"""The jobs of a study, and the setup that a worker needs to do them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from heatproof.attributions import ATTRIBUTIONS, Request, requested
from heatproof.attributions.stored import Stored
from heatproof.data import Images
from heatproof.data.class_matching import further_labels, label_match
from heatproof.data.images import without_caches
from heatproof.data.mosaics import of_mosaics
from heatproof.data.part_images import made_of_parts
from heatproof.errors import InvalidImage
from heatproof.memo import cached_property
from heatproof.models import Model
from heatproof.studies.ground_truth import GroundTruth
from heatproof.studies.settings import DatasetPlan, MapsPlan, Plan
from heatproof.studies.study import Study, study_named
from heatproof.targets import with_indices
from heatproof.transfers import pinned


class Job(NamedTuple):
    """Images `start` to `stop` of one dataset under one model."""

    model: int
    dataset: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        """The name of its shard."""
        return f"m{self.model:02d}-d{self.dataset:02d}-{self.start:07d}"

    @property
    def about(self) -> str:
        """The job in words."""
        return f"images {self.start + 1} to {self.stop} of set {self.dataset + 1} under model {self.model + 1}"


class JobDone(NamedTuple):
    """A finished job: its key, the images that it sent through the network, and the processor's seconds.

    tails: from a layer on. probes: of noise, by which the network's layers were looked for, once in a worker.
    """

    key: str
    forward: float
    backward: float
    tails: float = 0.0
    seconds: float = 0.0
    probes: float = 0.0


@dataclass(frozen=True)
class Dataset:
    """The images of one dataset, not opened yet, with the masks and the maps made beforehand that go with them.

    Attributes:
        order: the ids of the whole set, of which a limit took the images, where there are maps made beforehand.
        sample: how the images were chosen, for people; empty where all were taken.
        shown: the positions of the images from which the gallery may take; None for all.
    """

    settings: DatasetPlan
    images: Images
    maps: tuple[MapsPlan, ...] = ()
    order: tuple[str, ...] = ()
    sample: str = ""
    shown: frozenset[int] | None = None

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """The masks of the objects, where there are any."""
        return GroundTruth(self.settings.masks, self.images)

    @cached_property
    def masked(self) -> bool:
        """Whether there are masks."""
        return self.ground_truth.known

    @property
    def mosaics(self) -> bool:
        """Whether the images are mosaics."""
        return of_mosaics(self.images)

    @property
    def parted(self) -> bool:
        """Whether the images are made of parts that can be removed."""
        return made_of_parts(self.images)

    @cached_property
    def given(self) -> list[Stored]:
        """The maps made beforehand; one array without names is in the order of the whole set."""
        return [Stored(one.label, one.path, self.order or tuple(self.images.ids)) for one in self.maps]

    def __getstate__(self) -> dict[str, Any]:
        return without_caches(self, ("ground_truth", "masked", "given"))


@dataclass(frozen=True)
class Setup:
    """What a worker needs to do jobs; it can be pickled.

    strengths: (model, dataset, perturbation) → calibrated levels. refused: for each model, method → why it is not
    applicable. plugins: methods and metrics that a new process cannot find (`heatproof.plugins`). declared: the study,
    where a new process cannot find it by its name. fingerprints: of each model's weights, which a worker compares.
    compiled: names of the models that run on a compiled copy where only logits are wanted. together: for each model how
    many conditions are explained in one pass; one by default. lower: names of the models that run under autocast.
    """

    plan: Plan
    layers: tuple[str, ...]
    datasets: tuple[Dataset, ...]
    folder: str
    version: str
    device: str
    strengths: Mapping[tuple[int, int, str], Sequence[float]] = field(default_factory=dict)
    refused: tuple[Mapping[str, str], ...] = ()
    plugins: tuple[bytes, ...] = ()
    declared: Study | None = None
    fingerprints: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()
    together: tuple[int, ...] = ()
    lower: tuple[str, ...] = ()

    @property
    def study(self) -> Study:
        """The study that is run."""
        return self.declared or study_named(self.plan.study)


@dataclass(frozen=True)
class ImageBlock:
    """The images of a job that could be opened, `x` `(n, C, H, W)`.

    failed: image → why it cannot be used. sizes: (height, width) of the image files. unlabelled: image → why it has no
    label that could be explained; other classes of it can be. further: for each image the labels after its first.
    """

    x: torch.Tensor
    ids: list[str]
    labels: list[int | None]
    indices: list[int]
    failed: dict[str, str]
    sizes: list[tuple[int, int]] = field(default_factory=list)
    unlabelled: Mapping[str, str] = field(default_factory=dict)
    further: Sequence[tuple[int, ...]] = ()

    def all_labels(self) -> list[list[int]]:
        """All labels of each image; none of an image whose label could not be explained."""
        further = self.further or [()] * len(self.ids)
        return [[] if one in self.unlabelled or label is None else [label, *more]
                for one, label, more in zip(self.ids, self.labels, further, strict=True)]  # fmt: skip

    def __getitem__(self, rows: slice) -> "ImageBlock":
        some = range(len(self.ids))[rows]
        return self if len(some) == len(self.ids) and not self.failed else self.only(some)

    def pinned(self, device: str) -> "ImageBlock":
        """The same in memory from which a GPU copies while the host goes on."""
        return replace(self, x=pinned(self.x, device))

    def only(self, rows: Sequence[int]) -> "ImageBlock":
        """Some of the images."""
        ids, labels, indices = [self.ids[row] for row in rows], [self.labels[row] for row in rows], self.indices
        sizes = [self.sizes[row] for row in rows] if self.sizes else []
        further = [self.further[row] for row in rows] if self.further else []
        return ImageBlock(
            self.x[list(rows)], ids, labels, [indices[row] for row in rows], {}, sizes, self.unlabelled, further
        )


def open_block(
    images: Images,
    indices: Iterable[int],
    model: Model,
    labelled: bool = False,
    most: int | None = None,
    unusable: Mapping[str, str] | None = None,
) -> ImageBlock:
    """Opens images; those that cannot be used are listed in `failed` with the reason.

    labelled: whether an image needs a label. most: stop after opening this many.
    unusable: image → why it must not be opened, beside those that the set flags.
    """
    tensors, sizes, kept, failed, unlabelled = [], [], [], {}, {}
    match, known_flags = label_match(images, model.classes), {**images.flags, **(unusable or {})}
    for index in indices:
        if len(kept) == most:
            break
        identity, label = images.ids[index], match(images.labels[index])
        if identity in known_flags:
            failed[identity] = known_flags[identity]
            continue
        if why := no_label(label, model):
            (failed if labelled else unlabelled)[identity] = why
            if labelled:
                continue
        try:
            image: Any = images.open(index)
            tensors.append(input_of(image, model))
        except InvalidImage as error:
            failed[identity] = images.flags.get(identity) or str(error)
            continue
        sizes.append(tuple(image.shape[1:]) if isinstance(image, torch.Tensor) else (image.height, image.width))
        kept.append(index)
    x = torch.stack(tensors) if tensors else torch.empty(0, *model.input_shape)
    ids, labels = [images.ids[i] for i in kept], [match(images.labels[i]) for i in kept]
    more = further_labels(images)
    known = lambda one: (label for label in map(match, one) if label is not None and not no_label(label, model))  # noqa: E731
    further = [tuple(known(more.get(id, ()))) for id in ids]
    return ImageBlock(x, ids, labels, kept, failed, sizes, unlabelled, further if more else ())


def no_label(label: int | None, model: Model) -> str:
    """Why the label cannot be explained; empty where it can."""
    if label is None:
        return "no label"
    if model.classes is not None and label >= len(model.classes):
        return f"label {label} is not among the model's {len(model.classes)} classes"
    return ""


def input_of(image: Any, model: Model) -> torch.Tensor:
    """The network's input `(C, h, w)`; InvalidImage for a tensor of another shape, as tensors are never resized."""
    if not isinstance(image, torch.Tensor):
        return model.geometry.image(image)
    if tuple(image.shape) != model.input_shape:
        raise InvalidImage(
            f"is a tensor of {tuple(image.shape)}, and the network takes {model.input_shape}; resize it in the Dataset"
        )
    return image


def all_requests(plan: Plan) -> list[Request]:
    """The methods of the plan, then the controls if the plan has them."""
    controls = [name for name, entry in ATTRIBUTIONS.items() if entry.traits["control"]]
    names = [*plan.methods, *(controls if plan.controls == "all" else [])]
    return requested(names) if names else []


def target_rule(target: str, names: Sequence[str] | None) -> int | str:
    """A target as `Batch` takes it: a class index, also of a class that is named, or the name of a rule.

    Raises:
        InvalidTarget: a name that is no rule, and not among the `names` of the model's classes.
    """
    return int(target) if target.isdigit() else with_indices(target, names)


def options_hash(options: Mapping[str, Any]) -> str:
    """A short hash of a method's options."""
    return hashlib.blake2b(repr(sorted(options.items())).encode(), digest_size=4).hexdigest()

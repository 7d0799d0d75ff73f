"""What the jobs of every study share: pictures of one dataset under one model, opened, and the methods placed there."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from heatproof.attributions import ATTRIBUTIONS, Request, requested
from heatproof.data import Pictures
from heatproof.engine import ResolvedMethod, resolve_layers
from heatproof.errors import InvalidPicture
from heatproof.flags import FINE, Flag, Reason, first_flags
from heatproof.models import Model, load_model
from heatproof.rounding import top_class
from heatproof.studies.rows import Rows
from heatproof.studies.settings import Plan


class Job(NamedTuple):
    """Pictures `start` to `stop` of one dataset under one model."""

    model: int
    dataset: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        """The name of its shard."""
        return f"m{self.model:02d}-d{self.dataset:02d}-{self.start:07d}"


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know once; plain enough to be sent to a process."""

    plan: Any  # a `Plan` of the study's own class
    layers: tuple[str, ...]
    pictures: tuple[Pictures, ...]
    folder: str
    version: str
    device: str
    begun: Any = None  # what the study worked out before its jobs (calibrated strengths)
    refused: tuple[Mapping[str, str], ...] = ()  # per model: method → why it cannot serve it
    foreign: tuple[Any, ...] = ()  # what a fresh process does not know (`Kind.parcels`)


@dataclass(frozen=True)
class Block:
    """The pictures of a job that could be opened, `x` `(n, 3, H, W)`, and why the others could not.

    `sizes` are the pictures' own, (height, width).
    """

    x: torch.Tensor
    ids: list[str]
    labels: list[int | None]
    indices: list[int]
    failed: dict[str, str]
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def __getitem__(self, rows: slice) -> "Block":
        return Block(self.x[rows], self.ids[rows], self.labels[rows], self.indices[rows], {}, self.sizes[rows])


class Workplace:
    """Models and methods of a study where its jobs are done; one model is held at a time."""

    def __init__(self, setup: Setup):
        self.setup = setup
        self.requests = all_requests(setup.plan)
        self._loaded: tuple[int, Model] | None = None
        self._places: dict[int, list[ResolvedMethod]] = {}

    def model(self, index: int) -> Model:
        """The model of that number."""
        if self._loaded is None or self._loaded[0] != index:
            self._loaded = None
            self._loaded = (index, load(self.setup.plan, index, self.setup.device))
        return self._loaded[1]

    def places(self, index: int) -> list[ResolvedMethod]:
        """The methods that serve the model of that number, and the layers they read there."""
        if index not in self._places:
            refused = self.refused(index)
            able = [request for request in self.requests if request.key not in refused]
            self._places[index] = resolve_layers(self.model(index), able, self.setup.layers[index])
        return self._places[index]

    def refused(self, index: int) -> Mapping[str, str]:
        """Method → why it cannot serve the model of that number."""
        return self.setup.refused[index] if self.setup.refused else {}

    def rows(self, job: Job) -> Rows:
        """No rows yet, with the columns that all rows of a job have in common."""
        plan = self.setup.plan
        return Rows(
            study=plan.study,
            model=plan.models[job.model].label,
            dataset=plan.datasets[job.dataset].label,
            layer=self.setup.layers[job.model],
            target=plan.target,
            seed=plan.seed,
            version=self.setup.version,
        )


def all_requests(plan: Plan) -> list[Request]:
    """The methods of the plan, then the controls where the plan wants them."""
    controls = [name for name, entry in ATTRIBUTIONS.items() if entry.traits["control"]]
    names = [*plan.methods, *(controls if plan.controls == "all" else [])]
    return requested(names) if names else []


def load(plan: Plan, index: int, device: str) -> Model:
    """The model of that number, as the plan says."""
    wanted = plan.models[index]
    settings = wanted.model_dump(exclude={"spec", "name", "layer"})
    return load_model(wanted.spec, device=device, name=wanted.label, **settings)


def rule(plan: Plan) -> int | str:
    """The plan's target as `Batch` takes it."""
    return int(plan.target) if plan.target.isdigit() else plan.target


def of_method(request: Request) -> dict[str, Any]:
    """The columns that say which method a row is about."""
    return {
        "method": request.name,
        "control": bool(request.entry.traits["control"]),
        "operator": request.operator,
        "options": options_hash(request.options),
    }


def at_layers(place: ResolvedMethod) -> dict[str, Any]:
    """The same with the layers that the method read, none for one that reads none."""
    return {**of_method(place.request), "layers": place.where if place.request.spatial else ""}


def options_hash(options: Mapping[str, Any]) -> str:
    """A short name for a method's options."""
    return hashlib.blake2b(repr(sorted(options.items())).encode(), digest_size=4).hexdigest()


def open_block(pictures: Pictures, indices: Sequence[int], model: Model, target: str) -> Block:
    """Opens pictures; one that cannot be used is named with the reason, and the rest goes on."""
    tensors, sizes, kept, failed = [], [], [], {}
    for index in indices:
        identity = pictures.ids[index]
        label = pictures.labels[index]
        if target == "label" and label is None:
            failed[identity] = "no label"
            continue
        if target == "label" and model.classes is not None and label is not None and label >= len(model.classes):
            failed[identity] = f"label {label} is not among the model's {len(model.classes)} classes"
            continue
        try:
            image = pictures.open(index)
        except InvalidPicture as error:
            failed[identity] = pictures.flags.get(identity) or str(error)
            continue
        tensors.append(model.geometry.picture(image))
        sizes.append((image.height, image.width))
        kept.append(index)
    x = torch.stack(tensors) if tensors else torch.empty(0, 3, *model.geometry.size)
    ids, labels = [pictures.ids[i] for i in kept], [pictures.labels[i] for i in kept]
    return Block(x, ids, labels, kept, failed, sizes)


def correctness(logits: torch.Tensor, labels: Sequence[int | None]) -> dict[str, Any]:
    """1 where the prediction is the label, 0 where not; NaN and flagged where there is no label."""
    predicted = top_class(logits).tolist()
    known = [label is not None for label in labels]
    values = [float(p == label) if ok else float("nan") for p, label, ok in zip(predicted, labels, known, strict=True)]
    return {
        "value": values,
        "flag": first_flags([FINE if ok else Flag(Reason.UNUSABLE, "no label") for ok in known], non_finite(logits)),
    }


def non_finite(logits: torch.Tensor) -> list[Flag]:
    """A flag for each picture on which the model gives NaN or infinity."""
    fine = torch.isfinite(logits).all(1).tolist()
    return [FINE if ok else Flag(Reason.NO_ANSWER) for ok in fine]


def numbers(values: torch.Tensor) -> np.ndarray:
    """A tensor as float64 numpy."""
    return values.detach().double().cpu().numpy()

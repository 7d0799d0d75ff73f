"""The noise-robustness study (paper N): one job is some pictures under one model, clean and under every condition.

A job makes the clean maps once, and for each perturbation and severity one forward and one head backward for all
methods together; segments are found once per picture. Whatever cannot be measured becomes a flagged row.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from heatproof.attributions import Request
from heatproof.data import Pictures
from heatproof.engine import Batch, Explanation, ReferenceMaps, evaluate, explanation, halved
from heatproof.flags import Flag, first_flags
from heatproof.metrics.localisation import mask_cosine
from heatproof.metrics.request import MetricRequest, parsed_metric
from heatproof.models import Model
from heatproof.perturbations import Perturber, psnr
from heatproof.rounding import top_class
from heatproof.studies.jobs import (
    Block,
    Job,
    Setup,
    Workplace,
    at_layers,
    correctness,
    non_finite,
    numbers,
    of_method,
    open_block,
    rule,
)
from heatproof.studies.plan import NoisePlan
from heatproof.studies.rows import Rows
from heatproof.studies.store import Store

#: Metrics of a pair of maps, in the order of the rows.
PAIR_METRICS = ("rbo", "kappa", "l1", "spearman", "ssim", "cosine")
#: Scores are stored to so many decimals, so that equal maps tie exactly and rounding noise ranks nothing.
DECIMALS = 12
#: Those that depend on the segments.
BY_SEGMENTS = ("rbo", "kappa", "spearman")


class Condition(NamedTuple):
    """One perturbation at one strength; `level` is the severity of the table, or a calibrated one between."""

    perturbation: str
    severity: int
    level: float

    @property
    def name(self) -> str:
        """The condition's part in the seeds of methods that draw random numbers."""
        return f"{self.perturbation}:{self.severity}"


def conditions(plan: NoisePlan, calibration: Mapping[str, Sequence[float]]) -> list[Condition]:
    """Every perturbation at every severity; all severities of a kind together, so that they share what they can."""
    found = []
    for kind in plan.perturbations:
        levels = calibration.get(kind) or plan.severities
        severities = range(1, len(levels) + 1) if kind in calibration else plan.severities
        found += [Condition(kind, s, float(level)) for s, level in zip(severities, levels, strict=True)]
    return found


def pair_metrics(plan: NoisePlan, segmenter: str) -> list[MetricRequest]:
    """The metrics of a pair under one segmenter, with the plan's options."""
    given = {"segmenter": segmenter, "ties": plan.ties, "p": plan.persistence}
    known = [parsed_metric(name) for name in PAIR_METRICS]
    return [parsed_metric(one.entry.name, {k: v for k, v in given.items() if k in one.options}) for one in known]


class NoiseStudy(Workplace):
    """Runs jobs: `study(job, advance)` writes the job's shard and returns its key."""

    def __init__(self, setup: Setup):
        super().__init__(setup)
        self.plan: NoisePlan = setup.plan
        self.pair_metrics = [(name, one) for name in self.plan.segmenters for one in pair_metrics(self.plan, name)]

    def __call__(self, job: Job, advance: Callable[[float], None]) -> str:
        model = self.model(job.model)
        pictures = self.setup.pictures[job.dataset]
        block = open_block(pictures, range(job.start, job.stop), model, self.plan.target)
        rows = self.rows(job)
        maps: list[StoredMaps] = []
        self._flag(rows, block.failed, self._planned(), self.requests, pictures=True)
        if len(block.ids):
            share = 1 / len(block.ids)
            for part_rows, part_maps in self._measured(job, model, pictures, block, lambda s: advance(s * share)):
                rows.extend(part_rows)
                maps.append(part_maps)
            for request in self.requests:
                if reason := self.refused(job.model).get(request.key):
                    because = dict.fromkeys(block.ids, f"not applicable: {reason}")
                    self._flag(rows, because, self.conditions(job), [request])
        advance(len(block.failed) / (job.stop - job.start) if not block.ids else 0.0)
        Store(self.setup.folder).write_shard(job.key, rows.table(), merged(maps))
        return job.key

    def conditions(self, job: Job) -> list[Condition]:
        """The conditions of a job: calibrated strengths belong to a model and a dataset."""
        prefix = f"{job.model}/{job.dataset}/"
        found = {k.removeprefix(prefix): v for k, v in (self.setup.begun or {}).items() if k.startswith(prefix)}
        return conditions(self.plan, found)

    def _measured(
        self, job: Job, model: Model, pictures: Pictures, block: Block, advance: Callable[[float], None]
    ) -> Iterator[tuple[Rows, "StoredMaps"]]:
        def work(rows: slice) -> tuple[Rows, StoredMaps]:
            part = Measured(self, job, model, pictures, block[rows])
            return part.run(advance)

        return halved(work, len(block.ids))

    def _flag(
        self,
        rows: Rows,
        why: Mapping[str, str],
        todo: Sequence[Condition],
        requests: Sequence[Request],
        pictures: bool = False,
    ) -> None:
        """Flagged rows of what could not be measured: pictures, or methods that do not serve the model."""
        if not why:
            return
        images, reasons = list(why), list(why.values())
        nothing = [float("nan")] * len(images)
        for condition in todo:
            about = {"perturbation": condition.perturbation, "severity": condition.severity, "flag": reasons}
            if pictures:
                rows.add(images, **about, metric="psnr", value=nothing)
            for request in requests:
                for segmenter in self.plan.segmenters:
                    for metric in PAIR_METRICS:
                        rows.add(images, **about, **of_method(request), segmenter=segmenter, metric=metric,
                                 value=nothing)  # fmt: skip

    def _planned(self) -> list[Condition]:
        """The conditions without their calibrated strengths."""
        if not self.plan.calibrate:
            return conditions(self.plan, {})
        levels = range(1, len(self.plan.calibrate) + 1)
        return [Condition(kind, level, float("nan")) for kind in self.plan.perturbations for level in levels]


@dataclass(frozen=True)
class StoredMaps:
    """Raw maps at layer resolution for later pictures: `values × scale`, `(methods, conditions, n, *spatial)`."""

    values: np.ndarray
    scale: np.ndarray
    methods: list[str]
    conditions: list[str]
    images: list[str]


def merged(parts: Sequence[StoredMaps]) -> dict[str, np.ndarray]:
    """The arrays of a job's `.npz`; nothing where there is no map at layer resolution."""
    parts = [part for part in parts if part.values.size]
    if not parts:
        return {}
    return {
        "values": np.concatenate([part.values for part in parts], axis=2),
        "scale": np.concatenate([part.scale for part in parts], axis=2),
        "methods": np.array(parts[0].methods),
        "conditions": np.array(parts[0].conditions),
        "images": np.array([image for part in parts for image in part.images]),
    }


class Measured:
    """Some pictures of a job, measured under every condition."""

    def __init__(self, study: NoiseStudy, job: Job, model: Model, pictures: Pictures, block: Block):
        self.study, self.job, self.model, self.pictures, self.block = study, job, model, pictures, block
        self.plan = study.plan
        self.layer = study.setup.layers[job.model]
        self.places = study.places(job.model)
        self.x = block.x.to(model.device)
        self.rows = Rows()
        self.stored = [p for p in self.places if p.request.form == "cam" and p.layers == (self.layer,)]

    def run(self, advance: Callable[[float], None]) -> tuple[Rows, StoredMaps]:
        """All rows of these pictures, and their raw maps."""
        todo = self.study.conditions(self.job)
        step = len(self.block.ids) / (1 + sum(cost(condition) for condition in todo))
        self._clean_rows()
        kept = [self._raw(self.clean)]
        advance(step)
        perturber = Perturber(self.x, self.block.ids, self.plan.seed, self._loss_gradient, self.model.logits)
        for condition in todo:
            kept.append(self._condition(perturber, condition))
            advance(step * cost(condition))
        values, scale = (np.stack(list(arrays), axis=1) for arrays in zip(*kept, strict=True))
        names = ["", *(condition.name for condition in todo)]
        return self.rows, StoredMaps(values, scale, [p.request.name for p in self.stored], names, self.block.ids)

    @cached_property
    def clean(self) -> Explanation:
        """The maps of the clean pictures."""
        return self.explained(self.x, "clean")

    @cached_property
    def clean_class(self) -> torch.Tensor:
        """`(n,)` predictions on the clean pictures; also what the attacks try to change."""
        return top_class(self.clean.logits)

    @cached_property
    def broken(self) -> list[Flag]:
        """Why a clean picture has no prediction, `""` where it has."""
        return non_finite(self.clean.logits)

    def explained(self, x: torch.Tensor, condition: str) -> Explanation:
        return explanation(self.batch(x, condition), self.places, survive=True)

    def batch(self, x: torch.Tensor, condition: str) -> Batch:
        """The images under a condition, for all methods."""
        return Batch.of(
            self.model,
            self.places,
            x,
            target_rule=rule(self.plan),
            ids=self.block.ids,
            seed=self.plan.seed,
            condition=condition,
            labels=self.block.labels,
            clean=None if condition == "clean" else self.clean_class,
        )

    def _loss_gradient(self, images: torch.Tensor) -> torch.Tensor:
        return loss_gradient(self.model, images, self.clean_class)

    def _clean_rows(self) -> None:
        """Accuracy where labels are known, and the agreement with the truth where there are masks."""
        about = self._prediction(self.clean)
        if any(label is not None for label in self.block.labels):
            self.rows.add(
                self.block.ids, metric="correct", **correctness(self.clean.logits, self.block.labels), **about
            )
        masks = [self.pictures.mask(index) for index in self.block.indices]
        if not any(mask is not None for mask in masks):
            return
        truth = torch.stack([self._mask(mask) for mask in masks]).to(self.x.device)
        for place in self.places:
            values = mask_cosine(self._reference.maps[place.key], truth)
            self.rows.add(self.block.ids, **at_layers(place), metric="mask-cosine", value=numbers(values),
                          flag=self.clean.flags[place.key], **about)  # fmt: skip

    def _mask(self, mask: np.ndarray | None) -> torch.Tensor:
        if mask is None:
            return torch.zeros(self.model.geometry.size, dtype=torch.bool)
        return self.model.geometry.mask(mask)

    def _condition(self, perturber: Perturber, condition: Condition) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one condition; returns the raw maps to keep."""
        calibrated = bool(self.plan.calibrate)
        with self.model.evaluating():
            y = perturber.apply(condition.perturbation, condition.level, extrapolate=calibrated)
        strength = perturber.strength(condition.perturbation, condition.level, extrapolate=calibrated)
        batch = self.batch(y, condition.name)
        found = explanation(batch, self.places, survive=True)
        about = {
            "perturbation": condition.perturbation,
            "severity": condition.severity,
            "strength": strength,
            **self._prediction(found),
        }
        broken = first_flags(self.broken, non_finite(found.logits))
        self.rows.add(self.block.ids, **about, metric="psnr", value=numbers(psnr(self.x, y)), flag=broken)
        if any(label is not None for label in self.block.labels):
            self.rows.add(self.block.ids, **about, metric="correct", **correctness(found.logits, self.block.labels))
        self._pair_rows(batch, found, about)
        return self._raw(found)

    @cached_property
    def _reference(self) -> ReferenceMaps:
        """The clean maps under all methods, prepared for many pairs."""
        return ReferenceMaps.of(self.x, self.clean)

    def _pair_rows(self, batch: Batch, found: Explanation, about: Mapping[str, Any]) -> None:
        """The metrics of every method's clean and perturbed maps, under every segmenter."""
        named = self.study.pair_metrics
        metrics = list({request.key: request for _, request in named}.values())
        scores = evaluate(batch, self.places, metrics, reference=self._reference, found=found, survive=True)
        for place, one in zip(self.places, scores, strict=True):
            outcomes = {outcome.metric: outcome for outcome in one.outcomes}
            for segmenter, request in named:
                outcome, by_segments = outcomes[request.key], request.entry.name in BY_SEGMENTS
                values = numbers(outcome.values).round(DECIMALS)
                values[[bool(flag) for flag in self.broken]] = np.nan
                self.rows.add(
                    self.block.ids,
                    **about,
                    **at_layers(place),
                    segmenter=segmenter,
                    metric=request.entry.name,
                    value=values,
                    flag=first_flags(self.broken, outcome.flags),
                    n=self._reference.counts(segmenter) if by_segments else 0,
                )

    def _prediction(self, found: Explanation) -> dict[str, Any]:
        """Columns with the prediction before and after; null where the model gave no number."""
        probability = self.model.probabilities(found.logits)
        clean = self.model.probabilities(self.clean.logits).gather(1, self.clean_class[:, None])[:, 0]
        now = top_class(found.logits)
        fine = [not text for text in first_flags(self.broken, non_finite(found.logits))]
        nullable = lambda values: [v if ok else None for v, ok in zip(values, fine, strict=True)]  # noqa: E731
        return {
            "changed": nullable((now != self.clean_class).tolist()),
            "clean_class": nullable(self.clean_class.tolist()),
            "perturbed_class": nullable(now.tolist()),
            "clean_probability": nullable(clean.tolist()),
            "perturbed_probability": nullable(probability.amax(1).tolist()),
        }

    def _raw(self, found: Explanation) -> tuple[np.ndarray, np.ndarray]:
        """Raw maps in half precision, each scaled by its largest magnitude: `(methods, n, *spatial)` and scales."""
        if not self.stored:
            return np.empty((0, 0), np.float16), np.empty((0, 0), np.float32)
        maps = [found.raw[place.key].float() for place in self.stored]
        whole = max((one.shape for one in maps), key=len)
        raw = torch.stack([one if one.shape == whole else torch.full_like(maps[0], torch.nan) for one in maps])
        scale = raw.flatten(2).abs().amax(2).nan_to_num(1.0, 1.0, 1.0).clamp_min(1e-30)
        values = raw / scale.view(*scale.shape, *[1] * (raw.dim() - 2))
        return values.cpu().numpy().astype(np.float16), scale.cpu().numpy()


def loss_gradient(model: Model, images: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """d cross-entropy to the clean prediction / d images; summed over the batch, so that rows do not mix."""
    with model.evaluating(), torch.enable_grad():
        images = images.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model.logits(images), clean, reduction="sum")
        return torch.autograd.grad(loss, images)[0]


def cost(condition: Condition) -> float:
    """A condition's passes, for the progress bar: PGD's ten steps weigh more than a blur."""
    if condition.perturbation.startswith("pgd"):
        return 22.0
    return 8.0 if condition.perturbation.startswith("deepfool") else 1.0

"""What a model answers, and when that has changed: another class, or a value that moved by more than a tolerance."""

from collections.abc import Sequence
from typing import Any

import torch

from heatproof import targets
from heatproof.data.sampling import sampled
from heatproof.errors import InvalidStudy, warn
from heatproof.flags import FINE, Flag, Reason, first_flags
from heatproof.models import Model
from heatproof.perturbations import PERTURBATIONS
from heatproof.rounding import ANSWER_STEP, rounded, top_class
from heatproof.studies.conditions import Condition
from heatproof.studies.jobs import Dataset, ImageBlock, open_block, target_rule
from heatproof.studies.loading import GIVEN, StudyModels
from heatproof.studies.settings import Plan

#: The tolerance where none is given, and on how many images of a set the range of the values is measured.
TOLERANCE, IMAGES = "10%", 256
#: The quantities that an attack needs.
ATTACK = frozenset({"loss_gradient", "clean_gradient", "minimal_step"})


def changed(
    model: Model, before: torch.Tensor, now: torch.Tensor, target: torch.Tensor, tolerance: float
) -> torch.Tensor:
    """Whether the answer changed, `(N,)` bool, from two outputs `(N, K)`.

    Of a classifier: whether another class is the most probable. Of a network of values: whether the column `target`
    `(N,)` moved by more than `tolerance`, to five digits of the value.
    """
    if not model.of_values:
        return top_class(now) != top_class(before)
    one, other = (values.double().gather(1, target[:, None])[:, 0] for values in (before, now))
    return rounded((other - one).abs() - tolerance, torch.maximum(one.abs(), other.abs()), ANSWER_STEP) > 0


def with_outputs(plan: Plan, models: StudyModels) -> Plan:
    """The plan, with the output of models that say themselves that it is a value."""
    found = []
    for index, one in enumerate(plan.models):
        own = one.spec.startswith((GIVEN, "python:")) and models(index).of_values
        found.append(one.model_copy(update={"output": "value"}) if own else one)
        if found[-1].tolerance is not None and found[-1].output != "value":
            raise InvalidStudy(f"`tolerance` goes with `output: value`. {one.label} gives logits.")
    return plan.model_copy(update={"models": tuple(found)})


def with_tolerances(plan: Plan, datasets: Sequence[Dataset], models: StudyModels) -> Plan:
    """The plan, with the tolerance of each network of values in its units, to three digits.

    Raises:
        InvalidStudy: per cent of values that are all equal. InvalidTarget: several columns of which none is named.
    """
    found = []
    for index, one in enumerate(plan.models):
        asked = TOLERANCE if one.tolerance is None else one.tolerance
        if one.output == "value" and isinstance(asked, str):
            share = float(asked.removesuffix("%")) / 100
            asked = float(f"{share * _range(plan, datasets, models(index)):.3g}")
        found.append(one.model_copy(update={"tolerance": asked}) if one.output == "value" else one)
    return plan.model_copy(update={"models": tuple(found)})


def _range(plan: Plan, datasets: Sequence[Dataset], model: Model) -> float:
    """The largest less the smallest value of the target on the clean images of all sets."""
    seen, size = [], plan.batch_size or 8
    for images in (dataset.images for dataset in datasets):
        rows = sampled(images.ids, images.labels, IMAGES, plan.seed, plan.sampling)
        for start in range(0, len(rows), size):
            block = open_block(images, rows[start : start + size], model)
            if not block.ids:
                continue
            with model.evaluating(), torch.no_grad():
                values = model.logits(block.x.to(model.device))
            target = targets.resolved(target_rule(plan.target, model.classes), values, values=True)
            own = values.double().gather(1, target[:, None])[:, 0]
            seen.append(own[torch.isfinite(own)].cpu())
    every = torch.cat(seen) if seen else torch.zeros(0)
    span = float(every.amax() - every.amin()) if len(every) else 0.0
    if not span > ANSWER_STEP * float(every.abs().amax() if len(every) else 1.0):
        looked_at = f"{len(every)} {'image' if len(every) == 1 else 'images'} looked at"
        raise InvalidStudy(
            f"The values of {model.name} do not differ over the {looked_at}, so there is no range of which to take per "
            "cent. Give `tolerance` (--tolerance) in units of the value."
        )
    return span


def is_attack(kind: str) -> bool:
    """Whether a perturbation leads away from the predicted class, by the network's own gradient."""
    return bool(ATTACK & set(PERTURBATIONS.parse(kind)[0].needs))


def all_values(plan: Plan) -> bool:
    """Whether every model is a network of values."""
    return all(one.output == "value" for one in plan.models)


def without_attacks(plan: Plan) -> Plan:
    """The plan of a noise study; of networks of values without the attacks that nobody named, with a warning."""
    named = "perturbations" in plan.model_fields_set
    kinds: tuple[str, ...] = plan.perturbations  # type: ignore[attr-defined]
    attacks = [kind for kind in kinds if is_attack(kind)]
    if named or not attacks or all(one.output != "value" for one in plan.models):
        return plan
    warn(f"Attacks lead away from a predicted class, which a value has not, and are left out: {', '.join(attacks)}.")
    return plan.model_copy(update={"perturbations": tuple(kind for kind in kinds if kind not in attacks)})


def refuse_attacks(plan: Plan, conditions: Sequence[Condition]) -> None:
    """InvalidStudy for an attack on a network of values."""
    values = next((one.label for one in plan.models if one.output == "value"), None)
    attacks = [one.perturbation for one in conditions if one.perturbation and is_attack(one.perturbation)]
    if values is not None and attacks:
        raise InvalidStudy(
            f"{attacks[0]!r} leads away from a predicted class, and the outputs of {values} are values. Leave it out "
            "of `perturbations`."
        )


def non_finite(logits: torch.Tensor) -> list[Flag]:
    """A flag for each image on which the model gives NaN or infinity."""
    fine = torch.isfinite(logits).all(1).tolist()
    return [FINE if ok else Flag(Reason.NO_ANSWER) for ok in fine]


def correctness(logits: torch.Tensor, block: ImageBlock) -> dict[str, Any]:
    """1 if the prediction is the label, or one of several; else 0.

    NaN and flagged without a label, flagged with non-finite logits.
    """
    further = block.further or [()] * len(block.ids)
    known = [label is not None for label in block.labels]
    answers = zip(top_class(logits).tolist(), block.labels, further, known, strict=True)
    values = [float(p == label or p in more) if ok else float("nan") for p, label, more, ok in answers]
    flags = [FINE if ok else Flag(Reason.UNUSABLE, "no label") for ok in known]
    return {"value": values, "flag": first_flags(flags, non_finite(logits))}

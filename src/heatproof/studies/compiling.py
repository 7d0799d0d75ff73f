"""Whether networks of a study run on compiled copies where only logits are wanted: decided once, and recorded."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from heatproof.errors import ModelError, warn
from heatproof.models import Model
from heatproof.models.compiled import pass_shape, why_not
from heatproof.studies.cost import Passes
from heatproof.studies.loading import StudyModels
from heatproof.studies.settings import Plan

#: The share of a pass that a compiled one saves at least (measured on one core: .12 ConvNeXt-T, .17–.29 ResNet-18, .38
#: EfficientNet-Lite0), and the seconds that it takes to compile.
GAIN, COMPILING = 0.12, 60.0
#: Fewer images than these under one model are not worth counting passes for.
FEW = 64


def asked_to_compile(plan: Plan, recorded: Mapping[str, Any] | None) -> list[str] | None:
    """The names of the models that run on compiled copies: asked for, or begun so; None where that is to be decided."""
    if plan.compile != "auto":
        return [one.label for one in plan.models] if plan.compile == "always" else []
    return None if recorded is None else list(recorded.get("compiled") or [])


def worth_compiling(plan: Plan, models: StudyModels, costs: Callable[[], Sequence[Passes]], images: int) -> list[str]:
    """The names of the models that are compiled because that saves time; a warning for one that cannot be.

    costs: the passes of an image under each model. images: under each model, with every condition.
    """
    if images < FEW or all(why_not(models(index)) for index in range(len(models))):
        return []
    found: list[str] = []
    for index, cost in enumerate(costs()):
        if _pays(models(index), cost.plain * images):
            label = plan.models[index].label
            try:
                models.compile([*found, label])
                models(index)
                found.append(label)
            except ModelError as error:
                models.compile(found)
                warn(f"{str(error).partition('. ')[0]}. The network runs as it is.")
    return found


def compile_all(models: StudyModels, names: Sequence[str]) -> None:
    """Compiles these models, so that workers find them in the cache.

    Raises:
        ModelError: one cannot be compiled on this machine.
    """
    models.compile(names)
    for index, one in enumerate(models.plan.models):
        if one.label in names:
            models(index)


def _pays(model: Model, passes: float) -> bool:
    """Whether compiling saves more time than it takes."""
    if why_not(model) or passes * GAIN < COMPILING:  # a pass of an image takes less than a second
        return False
    return passes * GAIN * seconds_of_pass(model) > COMPILING


def seconds_of_pass(model: Model) -> float:
    """Seconds of a pass for logits alone, for one image of a full pass: the fastest of three."""
    x, found = torch.full(pass_shape(model), 0.5, device=model.device), []
    with model.evaluating(), torch.no_grad():
        for _ in range(4):
            begin = time.perf_counter()
            model.logits(x)
            found.append((time.perf_counter() - begin) / len(x))
    return min(found[1:])

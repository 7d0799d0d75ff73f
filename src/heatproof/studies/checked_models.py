"""The models of a study, loaded and run once before any work, so that their errors come first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from heatproof import targets
from heatproof.engine import ResolvedMethod, chosen_layer, needs_by_layer, refusals, resolve_layers
from heatproof.errors import InvalidStudy
from heatproof.models import Model
from heatproof.models.capture import captured
from heatproof.models.head import linear_head
from heatproof.models.model_code import model_code
from heatproof.models.preprocessing import preprocessing_facts
from heatproof.models.row_checks import check_images, check_layers
from heatproof.quantities import of_variants
from heatproof.studies.conditions import Condition
from heatproof.studies.image_sizes import Sizes
from heatproof.studies.jobs import all_requests, target_rule
from heatproof.studies.loading import StudyModels
from heatproof.studies.settings import Plan


@dataclass(frozen=True)
class Checked:
    """Facts of a model that was loaded and run once.

    layers_read: method → the channels of its layers, of methods that read others than `layer`. sizes: of the
    images under every condition.
    """

    label: str
    layer: str
    channels: int
    linear: bool
    layers_read: Mapping[str, tuple[int, ...]]
    classes: int
    class_names: list[str] | None
    fingerprint: str
    code: str
    refused: Mapping[str, str]
    preprocessing: Mapping[str, Any]
    named_targets: Mapping[str, int]
    named_by_images: bool
    sizes: Sizes


def checked_model(plan: Plan, index: int, models: StudyModels, conditions: Sequence[Condition] = ()) -> Checked:
    """Loads a model and runs it once on a grey image, so that its errors come before the study begins."""
    model = models(index)
    requests = all_requests(plan)
    layer = chosen_layer(model, plan.models[index].layer, any(request.reads_default for request in requests))
    methods = resolve_layers(model, requests, layer)
    refused = _check_refusals(methods, model, bool(plan.given_maps))
    needs = needs_by_layer([method for method in methods if method.key not in refused])
    layers = [name for name, wanted in needs.items() if wanted.kept]
    graph = [name for name in layers if needs[name].graph]
    x = torch.full((1, *model.input_shape), 0.5, device=model.device)
    together, asked = plan.batch_size or 2, frozenset().union(*(wanted.names for wanted in needs.values()))
    check_layers(model, layers, tuple(x.shape[1:]), together)
    check_images(model, tuple(x.shape[1:]), together, variants=bool(of_variants(asked)))
    with model.evaluating():
        found = captured(model, x, layers, gradients=graph)
        logits = found.logits.detach()
        shown = found.activations(layer).detach() if layer in layers else None
        widths = {name: found.activations(name).shape[1] for name in layers}
        channels = 1 if shown is None else shown.shape[1]
        linear = shown is not None and linear_head(model.module, shown, logits, model.precision) is not None
        if graph:
            found.gradients_of(found.logits[:, 0], graph)
    for state in dict.fromkeys(condition.state for condition in conditions):
        models(index, state)  # an error here if it cannot be loaded
    named: dict[str, int] = {}
    for target in dict.fromkeys((plan.target, *(condition.target for condition in conditions if condition.target))):
        rule = target_rule(target, model.classes)
        if isinstance(rule, int) or rule.startswith("predicted:") or (model.of_values and target == plan.target):
            targets.resolved(rule, logits, values=model.of_values)
        if isinstance(rule, int) and not target.isdigit():
            named[target] = rule
    seen = preprocessing_facts(model.preprocessing)
    wanted = plan.models[index]
    code = model_code(model, wanted.spec)
    read = {one.key: tuple(widths.get(name, channels) for name in one.layers) for one in methods
            if one.request.spatial and one.layers != (layer,)}  # fmt: skip
    able = [method for method in methods if method.key not in refused]
    sizes = Sizes.of(model, able, conditions, plan.seed)
    return Checked(
        wanted.label, layer, channels, linear, read, logits.shape[1], model.classes, model.fingerprint, code, refused,
        seen, named, model.named_by_images, sizes,
    )  # fmt: skip


def _check_refusals(methods: Sequence[ResolvedMethod], model: Model, others: bool) -> dict[str, str]:
    """Method → why it is not applicable to the model. InvalidStudy if no method is, and there are no `others`."""
    refused = refusals(model, methods)
    real = [method.key for method in methods if not method.request.entry.traits["control"]]
    if not others and all(key in refused for key in real):
        why = "; ".join(f"{key}: {reason}" for key, reason in refused.items())
        raise InvalidStudy(f"Expected at least one method that can explain {model.name}. Got {why}.")
    return refused

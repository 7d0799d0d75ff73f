"""The methods asked for, with the layers that each reads in a model, and why one does not apply to it."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from heatproof.attributions import Request
from heatproof.errors import LayerError, NotApplicable
from heatproof.explained_output import Output
from heatproof.models import Model, resolve_layer
from heatproof.models.layers import nameable_calls
from heatproof.quantities import having

#: What begins the name of a stage, which each network has in layers of its own.
STAGE = "stage:"


@dataclass(frozen=True)
class ResolvedMethod:
    """A request and the layers it reads, shallow → deep; `layers` is that of the call where it names none."""

    request: Request
    layers: tuple[str, ...]

    @property
    def key(self) -> str:
        """The method's spelling in the results."""
        return self.request.key

    @property
    def where(self) -> str:
        """The layers as one text, for the column `layer` of rows."""
        return "+".join(self.layers)

    @property
    def costly(self) -> bool:
        """Whether it runs the network itself, beyond the shared forward and backward pass."""
        return bool(having(self.request.entry.needs, "runs"))


def chosen_layer(model: Model, layer: str | nn.Module, needed: bool = True) -> str:
    """The layer's name in the model: `auto` is the last feature map before pooling; unknown names get near misses.

    Where no method reads a layer none is looked for, and `auto` becomes an empty string.
    """
    if isinstance(layer, str) and layer == "auto":
        return model.last_layer if needed else ""
    return _layer_or_stage(model, layer)


def _layer_or_stage(model: Model, layer: str | nn.Module) -> str:
    """The name of a layer in the model; `stage:2` is the second of `Model.layers.stages`, from shallow to deep."""
    mark, _, number = layer.partition(STAGE) if isinstance(layer, str) else ("-", "", "")
    if mark or not number:
        return resolve_layer(model, layer)
    stages = model.layers.stages
    if not number.isdecimal() or not 1 <= int(number) <= len(stages):
        known = ", ".join(f"{STAGE}{i} = {name}" for i, name in enumerate(stages, 1))
        raise LayerError(f"A stage must be one of {known}, from shallow to deep. Got {layer!r}.")
    return stages[int(number) - 1]


def resolve_layers(model: Model, requests: Sequence[Request], layer: str) -> list[ResolvedMethod]:
    """The layers of every request: its own, all stages for RefineCAM, else `layer`.

    Raises UnknownName for a layer that does not exist, LayerError where RefineCAM finds fewer than two.
    """
    return [ResolvedMethod(request, _layers(model, request, layer)) for request in requests]


def _layers(model: Model, request: Request, layer: str) -> tuple[str, ...]:
    named = tuple(_layer_or_stage(model, name) for name in request.layers)
    if not request.refined:
        return named or (layer,)
    if len(named) > 1:
        return named
    try:
        stages = model.layers.stages
    except LayerError as error:
        calls = nameable_calls(model)
        if len(calls) < 2:
            raise
        spelling = f"refine:{request.entry.name}@{calls[0]}+{calls[-1]}"
        raise LayerError(f"{error} RefineCAM needs several: name them, shallow to deep, as in {spelling}.") from None
    if named and named[0] not in stages:
        raise LayerError(
            f"RefineCAM with one layer takes the deeper stages along. Expected one of {', '.join(stages)}. "
            f"Got {named[0]!r}. Name all layers, as in refine:{request.entry.name}@{named[0]}+{stages[-1]}."
        )
    return stages[stages.index(named[0]) :] if named else stages


def refusals(model: Model, methods: Sequence[ResolvedMethod], output: Output = "logit") -> dict[str, str]:
    """Method → why it does not apply to this network, layer or output, for those that do not; before any work."""
    found = {}
    for method in methods:
        if reason := _output_refused(method.request, output) or _model_refused(model, method):
            found[method.key] = reason
    return found


def _model_refused(model: Model, method: ResolvedMethod) -> str:
    applies = method.request.entry.traits.get("applies")
    if applies is None:
        return ""
    with model.evaluating():
        reasons = [applies(model, layer, method.request.options) for layer in method.layers]
    return next(filter(None, reasons), "")


def _output_refused(request: Request, output: Output) -> str:
    if callable(output) and having(request.entry.needs, "of_classes"):
        return "it needs an output that every class has, and `output` is a callable; take a gradient CAM"
    if output not in ("logit", "value") and request.entry.traits.get("logit_only"):
        return "it explains logits alone; leave `output` as it is"
    return ""


def refuse_inapplicable(model: Model, methods: Sequence[ResolvedMethod], output: Output = "logit") -> None:
    """Raises NotApplicable for the first method that does not apply."""
    for key, reason in refusals(model, methods, output).items():
        raise NotApplicable(f"{key!r} cannot explain {model.name}: {reason}.")

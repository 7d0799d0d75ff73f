"""heatproof's methods as the explanation function of Quantus (0.6.0), and heatproof's metrics with its signature.

from heatproof.compat.quantus import explain_func, metric

quantus.Sparseness()(model, x_batch, y_batch, explain_func=explain_func, explain_func_kwargs={"method": "layercam"})
metric("road")(model, x_batch, y_batch, a_batch)
quantus.evaluate({"road": metric("road"), "theirs": quantus.Sparseness()}, ...)

The other way round, Quantus's metrics in heatproof: `heatproof.metrics.quantus_metrics`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.attributions import display_maps, requested
from heatproof.attributions.foreign import FOREIGN_FORMS, register, unregister
from heatproof.compat.given_models import Wanted, as_rule, last_softmax, raw_maps, skipped
from heatproof.compat.missing import missing_names
from heatproof.compat.scoring import scored
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.locks import held
from heatproof.metrics.metric_request import parsed_metric
from heatproof.registry import unknown
from heatproof.tensors import upsampled


@neutral()
def explain_func(
    model: nn.Module,
    inputs: Any,
    targets: Any = None,
    method: str = "gradcam",
    layer: nn.Module | str = "auto",
    raw: bool = False,
    device: Any = None,
    softmax: bool | None = None,
    gc_layer: nn.Module | str | None = None,
    interpolate: Any = None,
    **options: Any,
) -> np.ndarray:
    """Explains normalised inputs `(N, C, H, W)`, array or tensor → float32 `(N, 1, H, W)`.

    Args:
        targets: one class for each input, or one for all; None: the most probable.
        method: a name, with layer and options in its spelling (`refine:layercam`, `rise[masks=1000]`).
        layer: a name or module; `auto` is the last feature map before pooling.
        raw: signed maps at the input's size (channels summed) in place of display maps in [0, 1].
        device: the model is moved there, as in Quantus; None leaves it where it is.
        softmax: True: the probability is explained; False: the logit, without an `nn.Softmax` that is the last module;
            None: what the network returns.
        gc_layer: Quantus's word for `layer`: a module or its name; of expressions only those of Quantus's examples,
            `model._modules.get('NAME')` and `list(model.named_modules())[NUMBER][1]`.
        interpolate: the size of the inputs, which maps always have.
        options: of the method.

    Raises:
        UnknownName: a method or an option that does not exist, with near misses.
    """
    if not isinstance(model, nn.Module):
        raise InvalidInput(f"`model` must be a torch.nn.Module. Got {type(model).__name__}.")
    if device is not None:
        model.to(device)
    some = torch.as_tensor(np.asarray(inputs) if not isinstance(inputs, torch.Tensor) else inputs).float()
    if interpolate is not None and tuple(np.atleast_1d(interpolate)) != tuple(some.shape[2:]):
        raise InvalidInput(f"`interpolate` must be the inputs' size {tuple(some.shape[2:])}. Got {interpolate!r}.")
    method, layer = _SAME_METHODS.get(method, method), _layer(model, layer, gc_layer)
    (request,) = requested({method: options})
    last = last_softmax(model)
    output = "probability" if softmax and last is None else "logit"
    with skipped(last if softmax is False else None):
        found = raw_maps(model, some, {method: options}, Wanted(as_rule(targets, len(some)), output), layer)
    maps, size = found.raw[method], tuple(some.shape[2:])
    if not raw:
        channels = str(request.options.get("channels", "abs-max"))
        shown = display_maps(maps, request.form, size, channels=channels, power=request.power)
    else:
        shown = maps.sum(1) if request.form == "rgb" else upsampled(maps, size)
    return shown[:, None].cpu().numpy()


#: Arguments of `explain_func` that are no options of a method and do not change which maps a metric gets.
_OF_THE_CALL = ("device", "raw", "softmax", "interpolate")
#: Names of Quantus's methods that differ from ours in more than their spelling.
_SAME_METHODS = {"LayerGradCam": "gradcam"}


#: Expressions of Quantus's own examples as `gc_layer`, which are read and not run: a name, or a number in the list.
_EXPRESSIONS = (r"model\._modules\.get\(['\"](.+)['\"]\)", r"list\(model\.named_modules\(\)\)\[(-?\d+)\]\[1\]")


def _layer(model: nn.Module, layer: Any, gc_layer: Any) -> Any:
    if gc_layer is None:
        return layer
    if layer != "auto":
        raise InvalidInput(f"Give `layer` or `gc_layer`, which mean the same. Got {layer!r} and {gc_layer!r}.")
    if not isinstance(gc_layer, str) or "(" not in gc_layer:
        return gc_layer
    by_name, by_number = (re.fullmatch(pattern, gc_layer.strip()) for pattern in _EXPRESSIONS)
    if by_name:
        return by_name[1]
    modules = list(model.modules())
    if not by_number or not -len(modules) <= int(by_number[1]) < len(modules):
        raise InvalidInput(
            f"`gc_layer` must be a module or its name, such as 'layer4': expressions are not run. Got {gc_layer!r}."
        )
    return modules[int(by_number[1])]


def metric(
    name: str, *, form: str = "display", mean: Any = None, std: Any = None, seed: int = 0, **options: Any
) -> "Metric":
    """A metric of heatproof's as a callable with Quantus's signature: one float for each image, NaN without a value.

    Args:
        name: a spelling (`heatproof list metrics`), with options in brackets or not.
        form: the maps of `a_batch` and `explain_func`: `display` (scaled to [0, 1], each map by itself; of several
            channels the largest magnitude), `signed` (channels summed, values below zero set to zero, then as
            `display`), or `rgb` (several channels, the largest magnitude).
        mean, std: of the normalisation of `x_batch`. Where neither is given, the fill `black` is zero, as `mean` is,
            and a metric that uses colours (`irof`, `sic`, …) is an error.
        options: of the metric.

    Raises:
        UnknownName: a metric, an option or a form that does not exist, with near misses.
    """
    if form not in FOREIGN_FORMS:
        raise unknown("`form`", str(form), FOREIGN_FORMS)
    return Metric(name, {"mean": mean, "std": std, "seed": seed}, form, options)


class Metric:
    """See `metric`. `evaluation_scores` are the values of the last call, as in Quantus."""

    def __init__(self, name: str, more: Mapping[str, Any], form: str, options: Mapping[str, Any]):
        self.request, self.form, self.more = parsed_metric(name, options), form, dict(more)
        self.evaluation_scores: list[float] = []

    @property
    def name(self) -> str:
        """The spelling, with the options that differ from their defaults."""
        return self.request.key

    @property
    def explains(self) -> bool:
        """Whether it explains other images too, and so needs `explain_func`."""
        return self.request.having("explains")

    @neutral()
    def __call__(
        self,
        model: nn.Module,
        x_batch: Any,
        y_batch: Any = None,
        a_batch: Any = None,
        s_batch: Any = None,
        channel_first: bool | None = None,
        explain_func: Callable | None = None,
        explain_func_kwargs: Mapping[str, Any] | None = None,
        model_predict_kwargs: Any = None,
        softmax: bool | None = None,
        device: Any = None,
        batch_size: int = 64,
        reference: Any = None,
        **others: Any,
    ) -> list[float]:
        """One number for each image.

        Args:
            x_batch: normalised, as the network takes them; `channel_first=False` for `(N, H, W, C)`.
            y_batch: classes; None: the most probable.
            a_batch: maps; None: `explain_func` makes them. Where the metric explains other images too, all maps are
                those of `explain_func`.
            s_batch: masks `(N, 1, H, W)`, for metrics of localisation.
            reference: for metrics of stability: the clean images, in the form of `x_batch`; with `a_batch`, their maps.

        Raises:
            InvalidInput: neither maps nor a function that makes them.
            NotApplicable: an unsupported argument.
        """
        if model_predict_kwargs or softmax is False or others.get("custom_batch") is not None:
            raise NotApplicable(
                "`model_predict_kwargs`, `custom_batch` and `softmax=False` are not served by heatproof's metrics: "
                "each says itself what it asks the network for (its option `of`, where it has one)."
            )
        if not isinstance(model, nn.Module):
            raise InvalidInput(f"`model` must be a torch.nn.Module. Got {type(model).__name__}.")
        if device is not None:
            model.to(device)
        z = _tensor(x_batch)
        z = z.movedim(-1, 1) if channel_first is False else z
        rule = "predicted" if y_batch is None else as_rule(y_batch, len(z))
        again = self.explains or a_batch is None
        if again and explain_func is None:
            raise InvalidInput(
                f"{self.name!r} explains other images too, so it needs `explain_func`. Got none."
                if self.explains
                else "Expected `a_batch`, or `explain_func` to make the maps. Got neither."
            )
        given = {**(explain_func_kwargs or {}), **({} if device is None else {"device": device})}
        maps = (
            _method_and_layer(model, explain_func, given, self.form)
            if again
            else nullcontext((_given_maps(a_batch, z, self.form), "auto"))
        )
        if reference is not None:
            reference = _tensor(reference) if again else _given_maps(reference, z, self.form)
        with maps as (methods, layer):
            found = scored(
                model, z, methods, [self.name], target=rule, masks=s_batch, layer=layer, batch_size=batch_size,
                reference=reference, **self.more,
            )  # fmt: skip
        self.evaluation_scores = found.values(found.methods[0], self.name).tolist()
        return self.evaluation_scores


def _tensor(given: Any) -> torch.Tensor:
    """A float32 tensor, from an array or a tensor on any device."""
    return (given.detach() if isinstance(given, torch.Tensor) else torch.as_tensor(np.asarray(given))).float()


def _given_maps(maps: Any, z: torch.Tensor, form: str) -> dict[str, torch.Tensor]:
    """Given maps, by the name `a_batch`."""
    array = _tensor(maps)
    if form == "signed":
        array = (array.sum(1) if array.dim() == z.dim() else array).relu()
    return {"a_batch": array}


@contextmanager
def _method_and_layer(model: nn.Module, explain: Any, given: Mapping[str, Any], form: str) -> Iterator[tuple[Any, Any]]:
    """The method that makes the maps, and its layer: ours by name, any other function registered for this call."""
    if explain is explain_func and given.get("softmax") is None:
        known = {key: value for key, value in given.items() if key not in _OF_THE_CALL}
        method, layer = known.pop("method", "gradcam"), known.pop("layer", "auto")
        layer = _layer(model, layer, known.pop("gc_layer", None))
        yield {_SAME_METHODS.get(method, method): known}, layer
        return

    def function(model, inputs, targets):
        made = explain(model=model, inputs=inputs.detach().cpu().numpy(), targets=targets.cpu().numpy(), **given)
        return _tensor(made)

    with held(_REGISTERED):
        name = register(_EXPLAINS, function, form=form)
        try:
            yield [name], "auto"
        finally:
            unregister(name)


#: Taken while such a function is registered: one thread at a time.
_REGISTERED = object()
#: The name of such a function while it is registered; seeds of random numbers depend on it.
_EXPLAINS = "explain_func of Quantus"


def _as_metric(name: str) -> str:
    """The advice for a class, which the names of Quantus's metrics are."""
    return f"Quantus's metrics are quantus:NAME in heatproof.score, such as quantus:{name}" if name[0].isupper() else ""


__getattr__ = missing_names(__name__, {"explain": "take explain_func"}, otherwise=_as_metric)

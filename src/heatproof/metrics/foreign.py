"""Metrics from elsewhere: functions of the user's, and metrics of Quantus.

    heatproof.register_metric("mine", fn, better="high")    a function in this process
    python:package.module:fn                                the same by name; it sets `fn.better = "high"` itself
    quantus:Sparseness                                      a metric of Quantus (`heatproof.metrics.quantus_metrics`)

A function names quantities of the engine, as every metric here does, or it is `fn(model, x_batch, y_batch, a_batch)`,
as in Quantus.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from heatproof.errors import InvalidInput
from heatproof.metrics import quantus_metrics
from heatproof.metrics.arrays import ForeignMetric, with_arrays
from heatproof.metrics.catalogue import BETTER, FAMILIES, METRICS, composite, metric
from heatproof.plugins import (
    PYTHON,
    Plugins,
    import_path,
    named_function,
    parameters_of,
    plain_options,
    required,
    takes,
)
from heatproof.registry import Entry

QUANTUS = "quantus:"

#: What a function in the style of Quantus may take besides its four arrays, by name.
ALSO = ("s_batch", "explain_func", "explain_func_kwargs", "channel_first", "device")

#: Attributes by which a function may describe itself: `fn.better = "low"`.
SAID = ("better", "range", "family", "passes", "source", "degenerate", "undefined", "one_by_one", "reads_truth")


def register_metric(
    name: str,
    function: Any,
    *,
    better: str | None = None,
    range: tuple[float | None, float | None] = (None, None),
    family: str = "fidelity",
    passes: str = "its own affair",
    source: str = "foreign",
    degenerate: float | None = math.nan,
    undefined: str = "the metric gave no number",
    aliases: Iterable[str] = (),
    one_by_one: bool = False,
) -> str:
    """Registers a foreign metric under a name, for `score` and for studies.

    Args:
        name: any that is not taken.
        function: one of
            a function whose positional parameters name quantities of the engine and whose keyword-only ones are its
            options: as `@heatproof.metrics.metric`, tensors in, `(N,)` values or a `Curve` out;
            a function `(model, x_batch, y_batch, a_batch)` → one number for each image: the module, normalised
            images `(N, C, H, W)`, classes `(N,)` and display maps `(N, 1, H, W)`, as arrays. It also gets
            `s_batch` (the masks), `explain_func`, `explain_func_kwargs`, `channel_first` or `device` where it names
            them. Further parameters with a default (bool, number, text) are the metric's options;
            a metric of Quantus, `quantus.Sparseness(abs=True)`, called with one image at a time.
        better: `high` or `low`; a metric of Quantus has its own direction by default.
        range, family, passes, source, undefined: as `heatproof list metrics` and the reports show them.
        degenerate: its value for a map that is constant or not finite; NaN by default; None: what the function gives.
        aliases: other spellings.
        one_by_one: the function is called with one image at a time, so that a value cannot depend on the neighbours,
            and random numbers from the global generators of torch and numpy belong to the image alone. Else they are
            seeded once for each batch.

    Returns:
        The name.

    Raises:
        InvalidInput: a name that is taken, something that is no metric, or no direction.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> def mean_of_map(maps):
        ...     return maps.flatten(1).double().mean(1)
        >>> heatproof.register_metric("mean-of-map", mean_of_map, better="low", range=(0, 1))
        'mean-of-map'
        >>> heatproof.score(heatproof.load_model("shapes"), demo_shapes(n=2), "gradcam", "mean-of-map")
        Scores(2 images, methods ['gradcam'], metrics ['mean-of-map'])
    """
    PLUGIN_METRICS.check_name(name)
    if isinstance(function, str):
        if not function.startswith(PYTHON):
            raise InvalidInput(f"A metric must be a function, or python:package.module:function. Got {function!r}.")
        function = named_function(function)
    spellings = (aliases,) if isinstance(aliases, str) else tuple(aliases)
    return PLUGIN_METRICS.register(
        ForeignMetric(
            name, function, better, range, family, passes, source, degenerate, undefined, spellings, one_by_one
        )
    )


def _from_python(spec: str) -> ForeignMetric:
    """The recipe of a function given by name: from its attributes, or from its entry if it is registered here."""
    function = named_function(spec)
    known = next((entry for entry in METRICS.values() if entry.function is function), None)
    declared = (
        dict(known.traits, source=known.source) if known else vars(function) if hasattr(function, "__dict__") else {}
    )
    return replace(ForeignMetric(spec, function), **{key: declared[key] for key in SAID if key in declared})


def _from_quantus(spec: str) -> ForeignMetric:
    kind = quantus_metrics.found_class(spec.removeprefix(QUANTUS))
    return ForeignMetric(f"{QUANTUS}{kind.__name__}", kind)


def _file(recipe: ForeignMetric) -> None:
    """Puts a recipe into the registry."""
    if recipe.parts:
        found = recipe.function
    elif quantus_metrics.belongs(recipe.function):
        recipe, found = quantus_metrics.described(recipe)
    elif not callable(recipe.function):
        raise InvalidInput(f"A metric must be a function, or one of Quantus. Got {type(recipe.function).__name__}.")
    elif (names := {p.name for p in required(recipe.function)}) and names <= set(METRICS.vocabulary):
        found = recipe.function
    else:
        found = _in_quantus_style(recipe)
        masked = "s_batch" in [p.name for p in parameters_of(recipe.function)]
        recipe = replace(recipe, reads_truth=masked if recipe.reads_truth is None else recipe.reads_truth)
    if recipe.better not in BETTER:
        hint = ' Write `function.better = "high"` or "low" below it.' if PLUGIN_METRICS.by_name(recipe.name) else ""
        raise InvalidInput(f"`better` of {recipe.name!r} must be 'high' or 'low'. Got {recipe.better!r}.{hint}")
    low, high = recipe.range
    details: dict[str, Any] = {"family": recipe.family, "better": recipe.better, "range": (low, high),
        "passes": recipe.passes, "degenerate": recipe.degenerate, "undefined": recipe.undefined,
        "source": recipe.source, "aliases": recipe.aliases, "foreign": recipe.foreign,
        "reads_truth": recipe.reads_truth}  # fmt: skip
    filed = partial(composite, parts=dict(recipe.parts)) if recipe.parts else metric
    filed(recipe.name, **details)(found)


# --- functions ---


def _in_quantus_style(recipe: ForeignMetric) -> Callable:
    """`function(model, x_batch, y_batch, a_batch, **options)` as a metric that names quantities."""
    name, function = recipe.name, recipe.function
    parameters = parameters_of(function)
    named = [p.name for p in parameters if p.name in ALSO]
    if not takes(function, 4, besides=ALSO):
        raise InvalidInput(
            f"{name!r} must take (model, x_batch, y_batch, a_batch), or quantities: {', '.join(METRICS.vocabulary)}. "
            f"Got ({', '.join(p.name for p in required(function))})."
        )
    options = plain_options(p for p in parameters[4:] if p.name not in ALSO)

    def called(module: Any, x: Any, y: Any, a: Any, also: dict[str, Any], chosen: dict[str, Any]) -> Any:
        with import_path(name):
            return function(module, x, y, a, **{key: also[key] for key in named}, **chosen)

    return with_arrays(recipe, called, options, "explain_func" in named, inspect.getdoc(function))


# --- plug-ins ---


def _recipe_of(entry: Entry) -> ForeignMetric:
    known = {key: entry.traits[key] for key in SAID if key in entry.traits}
    known |= {"parts": tuple(entry.traits.get("parts", {}).items()), "aliases": entry.aliases}
    known["foreign"] = entry.traits.get("foreign", False)
    return ForeignMetric(entry.name, entry.function, source=entry.source, **known)


#: Metrics of the user's own: by a call of `register_metric`, by `python:…`, and those of Quantus by `quantus:…`.
PLUGIN_METRICS = Plugins(
    __name__,
    METRICS,
    file=_file,
    described=_recipe_of,
    sources={"python:package.module:function": _from_python, "quantus:Metric": _from_quantus},
    families=("all", *FAMILIES),
)

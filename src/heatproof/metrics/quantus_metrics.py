"""Metrics of Quantus (0.6.0) as metrics here: `quantus:Sparseness`, or an object of theirs that is registered.

They are called with one image at a time, since they normalise by the maximum of whatever batch they get. Where one
gives several numbers for an image (a curve, one for each layer), the value is their mean. They get display maps, or
signed ones with `attributions=raw`; noise is drawn from the global generators, which are seeded by the image.
"""

import importlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Number
from typing import Any

import numpy as np

from heatproof.errors import InvalidInput, MissingExtra, NotApplicable
from heatproof.metrics.arrays import ForeignMetric, with_arrays
from heatproof.quiet import ignored_warnings
from heatproof.registry import fold, unknown

#: Quantus' categories → families here.
CATEGORIES = {
    "Faithfulness": "fidelity",
    "Axiomatic": "fidelity",
    "Robustness": "sensitivity",
    "Localisation": "localisation",
    "Complexity": "complexity",
    "Randomisation": "sanity",
}

#: Those that explain other images, targets or weights (a test reads this off their source).
EXPLAINS = frozenset(
    {
        *("AvgSensitivity", "Continuity", "EfficientMPRT", "InputInvariance", "LocalLipschitzEstimate"),
        *("MaxSensitivity", "MPRT", "RandomLogit", "RelativeInputStability", "RelativeOutputStability"),
        *("RelativeRepresentationStability", "SmoothMPRT"),
    }
)

#: Those that have no value for one image and its map.
ABSENT = {
    "Consistency": "compares the maps of different images with one another",
    "Focus": "is about mosaics of several images",
    "SensitivityN": "correlates over images",
    "Sufficiency": "compares the maps of different images with one another",
}

#: Arguments that are set here, and are no options.
_SETTLED = ("disable_warnings", "display_progressbar", "return_aggregate")

#: In a result by randomised layer, the key of the intact network.
_INTACT = "original"


def found_class(name: str) -> type:
    """The class of that name, or of the name that Quantus shows.

    Raises:
        MissingExtra: Quantus is not installed. UnknownName: it has no such metric.
    """
    try:
        known = importlib.import_module("quantus.helpers.constants").AVAILABLE_METRICS
    except ImportError as error:
        raise MissingExtra("quantus: metrics need Quantus. Install it: pip install quantus==0.6.0.") from error
    classes = {kind.__name__: kind for group in known.values() for kind in group.values()}
    spellings = {fold(title.strip()): kind for group in known.values() for title, kind in group.items()}
    spellings |= {fold(title): kind for title, kind in classes.items()}
    if fold(name) not in spellings:
        raise unknown("metric of Quantus", name, classes)
    return spellings[fold(name)]


def belongs(function: Any) -> bool:
    """Whether it is a metric of Quantus, or one made on its base class: an object or a class."""
    kind = function if isinstance(function, type) else type(function)
    return any(base.__module__ == "quantus.metrics.base" for base in kind.__mro__)


def described(recipe: ForeignMetric) -> tuple[ForeignMetric, Any]:
    """The recipe completed by what the metric states about itself, and the function of quantities that calls it.

    Raises:
        NotApplicable: a metric that has no value for one image (`ABSENT`).
    """
    kind = recipe.function if isinstance(recipe.function, type) else type(recipe.function)
    for base in kind.__mro__:
        if base.__name__ in ABSENT:
            raise NotApplicable(f"{base.__name__} of Quantus {ABSENT[base.__name__]}: no image has a value by itself.")
    direction = getattr(getattr(kind, "score_direction", None), "value", "")
    category = getattr(getattr(kind, "evaluation_category", None), "value", "")
    family, localises = CATEGORIES.get(category, recipe.family), category == "Localisation"
    recipe = replace(
        recipe,
        better=recipe.better or {"higher": "high", "lower": "low"}.get(direction),
        family=family,
        passes="as many as Quantus makes",
        source=f"Quantus, {kind.__name__}" if recipe.source == "foreign" else recipe.source,
        undefined="no mask, or no number from Quantus" if localises else "no number from Quantus",
        one_by_one=True,
        reads_truth=localises or category not in CATEGORIES,
    )
    again = any(base.__name__ in EXPLAINS for base in kind.__mro__)
    summary = f"{' '.join(str(getattr(kind, 'name', kind.__name__)).split())}, as Quantus computes it."
    made = _options(kind) if isinstance(recipe.function, type) else []
    which = [] if again else [_keyword("attributions", "display")]  # what is explained again is a display map
    called = _metric_calling(recipe, [p.name for p in made])
    found = with_arrays(recipe, called, [*made, *which, *_softmax(kind)], again, summary, localises, signed=not again)
    return recipe, found


def _metric_calling(recipe: ForeignMetric, made: list[str]) -> Any:
    def call(module: Any, x: Any, y: Any, a: Any, also: dict[str, Any], chosen: dict[str, Any]) -> float:
        metric = recipe.function
        if isinstance(metric, type):
            settled = {"disable_warnings": True, "display_progressbar": False}
            metric = metric(**{key: chosen[key] for key in made}, **settled)
        given = {key: value for key, value in chosen.items() if key not in made and value is not None}
        masks = {"s_batch": also.pop("s_batch")}
        if not masks["s_batch"].any():
            masks = {}
        with ignored_warnings(), np.errstate(all="ignore"):
            return one_number(metric(model=module, x_batch=x, y_batch=y, a_batch=a, **masks, **also, **given))

    return call


def one_number(given: Any) -> float:
    """The result of Quantus for one image → the number, or the mean of several; NaN where there is none."""
    numbers = [float(number) for number in _flat(given)]
    return float(np.mean(numbers)) if numbers else float("nan")


def _flat(given: Any) -> Iterator[Any]:
    if isinstance(given, Mapping):
        for key, value in given.items():
            if key != _INTACT:
                yield from _flat(value)
    elif isinstance(given, np.ndarray | list | tuple):
        for value in given:
            yield from _flat(value)
    elif isinstance(given, Number | np.bool_):
        yield given
    elif given is not None:
        raise InvalidInput(f"Expected numbers from Quantus. Got {type(given).__name__}.")


def _options(kind: type) -> list[inspect.Parameter]:
    """The arguments of a metric's constructor that a spelling can carry, as options."""
    parameters = inspect.signature(kind).parameters.values()
    plain = [p for p in parameters if p.default is None or isinstance(p.default, bool | int | float | str)]
    return [
        p.replace(kind=p.KEYWORD_ONLY, annotation=p.empty)
        for p in plain
        if p.name not in _SETTLED and not p.name.endswith(("_func", "_kwargs"))
    ]


def _softmax(kind: type) -> list[inspect.Parameter]:
    given = inspect.signature(kind.__call__).parameters.get("softmax")  # type: ignore[operator]
    return [_keyword("softmax", given.default)] if given is not None and isinstance(given.default, bool) else []


def _keyword(name: str, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)

"""The methods to show: by name, by family, at several layers; and which of them apply to the network."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from heatproof.attributions import ATTRIBUTIONS, Request, requested
from heatproof.attributions.catalogue import check_choice
from heatproof.attributions.method_request import REFINE
from heatproof.attributions.refine import OPERATORS
from heatproof.engine import ResolvedMethod, chosen_layer, refusals, resolve_layers
from heatproof.errors import InvalidInput, LayerError, NotApplicable
from heatproof.explained_output import Output
from heatproof.models import Model, resolve_layer
from heatproof.panels.explained_image import Method, Rows
from heatproof.registry import unknown
from heatproof.spelling import value_text

#: Names that stand for several methods.
FAMILIES = {
    "all": "every method that is no control",
    "cams": "every method whose map has the resolution of a layer",
}

Options = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Selection:
    """The methods that will run (`methods`), the rows in which they are drawn, and the methods that do not apply."""

    methods: tuple[ResolvedMethod, ...]
    rows: Rows
    refused: dict[str, str]
    layer: str


def selected(
    model: Model,
    methods: str | Iterable[str] | Mapping[str, Mapping[str, Any]],
    layer: str | nn.Module = "auto",
    layers: str | Sequence[str] | None = None,
    options: Options | None = None,
    output: Output = "logit",
) -> Selection:
    """Resolves names, options, layers and output, and raises their errors before any image is opened.

    Args:
        methods: as `heatproof.explain` takes them; also the names of `FAMILIES`.
        layers: `all`, or names: each method that reads a layer is shown at every one of them, plain and refined.
        options: method → options, for every method of that name among those asked for; `refine:NAME` for its refined
            forms only.

    Raises:
        UnknownName, InvalidInput, LayerError; NotApplicable where no method is left.
    """
    rows = [[request] for request in with_options(_list_requests(methods), options or {})]
    if layers is not None:
        stages = _stages(model, layers)
        rows = [_at_layers(row[0], stages) for row in rows]
    else:
        rows = [[row[0] for row in rows]]
    rows = _distinct(rows)
    spatial = any(request.reads_default for row in rows for request in row)
    refused: dict[str, str] = {}
    try:
        name = chosen_layer(model, layer, spatial)
    except LayerError as error:
        if all(request.spatial for row in rows for request in row):
            raise
        name, refused = "", {r.key: str(error).rstrip(".") for row in rows for r in row if r.spatial}
    resolved = {r.key: resolve_layers(model, [r], name)[0] for row in rows for r in row if r.key not in refused}
    refused |= refusals(model, list(resolved.values()), output)
    every = [request for row in rows for request in row]
    rows = [[request for request in row if request.key not in refused] for row in rows]
    if not any(rows):
        raise NotApplicable(f"No method asked for can explain {model.name}: {grouped(refused)}.")
    found = tuple(resolved[r.key] for row in rows for r in row)
    told = _once(every, refused) if layers is not None else refused
    return Selection(found, _drawing_rows([[resolved[r.key] for r in row] for row in rows]), told, name)


def _once(requests: Sequence[Request], refused: Mapping[str, str]) -> dict[str, str]:
    """A method that applies at no layer is named once, with the reason at the first."""
    served = {request.entry.name for request in requests if request.key not in refused}
    found: dict[str, str] = {}
    for request in requests:
        if request.key in refused:
            name = request.key if request.entry.name in served else request.entry.name
            found.setdefault(name, refused[request.key])
    return found


def grouped(refused: Mapping[str, str]) -> str:
    """`a, b: it has no attention; c: …`, each reason once."""
    return "; ".join(f"{', '.join(keys)}: {reason}" for reason, keys in by_reason(refused))


def by_reason(refused: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Reason → the methods that do not apply for it."""
    found: dict[str, list[str]] = {}
    for key, reason in refused.items():
        found.setdefault(reason, []).append(key)
    return list(found.items())


def _list_requests(methods: Any) -> list[Request]:
    """Requests in order; a method that a family adds appears once, where it is first named."""
    names = [methods] if isinstance(methods, str) else list(methods)
    own = [name for name in names if name not in FAMILIES]
    given = {name: methods[name] for name in own} if isinstance(methods, Mapping) else own
    requests = {request.key: request for request in requested(given)} if own or not names else {}
    taken = {request.name for request in requests.values()}
    found: list[Request] = []
    for name in names:
        if name not in FAMILIES:
            found.append(requests[name])
            continue
        members = [request for request in requested(_members(name)) if request.name not in taken]
        taken |= {request.name for request in members}
        found += members
    return found


def _members(family: str) -> list[str]:
    real = {name: entry for name, entry in ATTRIBUTIONS.items() if not entry.traits["control"]}
    return [name for name, entry in real.items() if family == "all" or entry.traits["form"] == "cam"]


def with_options(requests: list[Request], options: Options) -> list[Request]:
    """The requests with options set: method → options, `refine:method` for its refined forms only."""
    for spelling, given in options.items():
        refined = spelling.startswith(REFINE)
        name = ATTRIBUTIONS[spelling.removeprefix(REFINE)].name
        mine = [r for r in requests if r.entry.name == name and (r.refined or not refined)]
        if not mine:
            raise InvalidInput(
                f"Options go with a method that is asked for. Got {', '.join(given)} of {spelling!r}, and the methods "
                f"{', '.join(r.key for r in requests)}."
            )
        changed = {r.key: _with_changes(r, given, any(r.refined for r in mine)) for r in mine}
        requests = [changed.get(r.key, r) for r in requests]
    return requests


def _with_changes(request: Request, given: Mapping[str, Any], refined: bool) -> Request:
    own, operator = dict(given), request.operator
    if refined and "operator" in own:  # plain methods of the same name ignore it
        wanted = check_choice("operator", own.pop("operator"), OPERATORS)
        operator = wanted if request.refined else ""
    for option in own:
        if option not in request.entry.options:
            raise unknown(f"option of {request.entry.name!r}", option, request.entry.options or ["(it has none)"])
    checked = request.entry.checked_options({**request.options, **own})
    found = replace(request, options=checked, operator=operator)
    return found if found == request else replace(found, key=found.name)


def _stages(model: Model, layers: str | Sequence[str]) -> list[str]:
    known = list(model.layers.stages)
    if layers == "all":
        return known
    names = [resolve_layer(model, name) for name in ([layers] if isinstance(layers, str) else layers)]
    if not names or len(set(names)) < len(names):
        raise InvalidInput(f"`layers` must be `all`, or names of layers, each once. Got {layers!r}.")
    return sorted(names, key=known.index) if set(names) <= set(known) else names


def _at_layers(request: Request, stages: list[str]) -> list[Request]:
    """The method at every layer, then RefineCAM from each layer but the last; for a refined method only the latter."""
    if not request.spatial or request.layers:
        return [request]
    plain = [] if request.refined else [_placed_at(request, (stage,)) for stage in stages]
    from_here = [_placed_at(request, tuple(stages[i:]), request.operator or "product") for i in range(len(stages) - 1)]
    return [*plain, *from_here]


def _placed_at(request: Request, layers: tuple[str, ...], operator: str = "") -> Request:
    found = replace(request, layers=layers, operator=operator)
    return replace(found, key=found.name)


def _distinct(rows: list[list[Request]]) -> list[list[Request]]:
    """Without repetitions (`gradcam` and `refine:gradcam` both ask for the refined maps at `--layers all`)."""
    seen: set[str] = set()
    found = []
    for row in rows:
        found.append([r for r in row if not (r.name in seen or seen.add(r.name))])
    return [row for row in found if row]


def _drawing_rows(rows: list[list[ResolvedMethod]]) -> Rows:
    """Plain and refined maps of one method in a row each; methods with a single map share a row."""
    if len(rows) == 1:
        return (tuple(map(described, rows[0])),)
    found: list[list[Method]] = []
    alone: list[Method] = []
    for row in filter(None, rows):
        plain = [described(method) for method in row if not method.request.refined]
        refined = [described(method) for method in row if method.request.refined]
        if len(row) == 1:
            alone += plain or refined
        else:
            found += [part for part in (plain, refined) if part]
    return tuple(map(tuple, [*found, *([alone] if alone else [])]))


def described(method: ResolvedMethod) -> Method:
    """A method with the texts for titles and tables."""
    request = method.request
    title = replace(request, layers=()).name if request.layers else request.key
    options = {**request.options, **({"operator": request.operator} if request.refined else {})}
    return Method(
        method.key,
        title,
        method.layers if request.spatial else (),
        request.entry.summary,
        request.entry.source,
        ", ".join(f"{key}={value_text(value)}" for key, value in options.items()),
    )

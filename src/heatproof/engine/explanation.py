"""A set of methods run on one batch: raw maps by method, and what they say."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from heatproof.attributions import Request, display_maps, flags
from heatproof.attributions.refine import refined
from heatproof.engine.batch import Batch, Question, Site
from heatproof.errors import HeatproofError, LayerError, NotApplicable
from heatproof.models import Model, resolve_layer
from heatproof.outputs import Output

#: The flag of a picture on which the model gives NaN or infinity.
NO_ANSWER = "the model gave non-finite output"

#: What a method may ask for and still know nothing of the network.
UNINFORMED = frozenset({"x", "z", "generator"})

#: Quantities that hold an output of every class, which a callable `output` does not have.
OF_CLASSES = frozenset({"logits", "network", "forward", "tail"})

Flags = list[str] | list[list[str]]


@dataclass(frozen=True)
class Placed:
    """A request and the layers it reads, shallow → deep; `layers` is the batch's own where it reads none."""

    request: Request
    layers: tuple[str, ...]

    @property
    def key(self) -> str:
        """The spelling that the results carry."""
        return self.request.key

    @property
    def where(self) -> str:
        """What the rows' column `layer` holds."""
        return "+".join(self.layers)


@dataclass
class Explanation:
    """What the methods said of one batch, by the spelling asked for."""

    logits: torch.Tensor
    target: torch.Tensor
    raw: dict[str, torch.Tensor]
    flags: dict[str, Flags]
    size: tuple[int, ...]
    placed: dict[str, Placed]

    def display(self, key: str, upsample: str = "bilinear") -> torch.Tensor:
        """`(N, H, W)`, or `(N, T, H, W)`, in [0, 1]; zeros where the map is constant or not finite (see `flags`)."""
        request, raw = self.placed[key].request, self.raw[key]
        several = self.target.dim() == 2
        flat = raw.flatten(0, 1) if several else raw
        shown = display_maps(flat, request.form, self.size, upsample=upsample, channels=_channels(request))
        return shown.unflatten(0, raw.shape[:2]) if several else shown


def _channels(request: Request) -> str:
    return str(request.options.get("channels", "abs-max")) if request.form == "rgb" else "abs-max"


def placed(model: Model, requests: Sequence[Request], layer: str) -> list[Placed]:
    """The layers of every request: its own, all stages for RefineCAM, else `layer`.

    Raises UnknownName for a layer that does not exist, LayerError where RefineCAM finds fewer than two.
    """
    return [Placed(request, _layers(model, request, layer)) for request in requests]


def _layers(model: Model, request: Request, layer: str) -> tuple[str, ...]:
    named = tuple(resolve_layer(model, name) for name in request.layers)
    if not request.refined:
        return named or (layer,)
    if len(named) > 1:
        return named
    stages = model.layers.stages
    if named and named[0] not in stages:
        raise LayerError(
            f"RefineCAM with one layer takes the deeper stages along. Expected one of {', '.join(stages)}. "
            f"Got {named[0]!r}. Name all layers, as in refine:{request.entry.name}@{named[0]}+{stages[-1]}."
        )
    found = stages[stages.index(named[0]) :] if named else stages
    return found


def refusals(model: Model, places: Sequence[Placed], output: Output = "logit") -> dict[str, str]:
    """Method → why it cannot serve this network, layer or output, for those that cannot; before any work."""
    found = {}
    for place in places:
        if reason := _output_refused(place.request, output) or _place_refused(model, place):
            found[place.key] = reason
    return found


def _place_refused(model: Model, place: Placed) -> str:
    applies = place.request.entry.traits.get("applies")
    if applies is None:
        return ""
    with model.evaluating():
        reasons = [applies(model, layer, place.request.options) for layer in place.layers]
    return next(filter(None, reasons), "")


def _output_refused(request: Request, output: Output) -> str:
    if callable(output) and set(request.entry.needs) & OF_CLASSES:
        return "it needs an output that every class has, and `output` is a callable; take a gradient CAM"
    if output != "logit" and request.entry.traits.get("logit_only"):
        return "it explains logits alone; leave `output` as it is"
    return ""


def refuse_inapplicable(model: Model, places: Sequence[Placed], output: Output = "logit") -> None:
    """NotApplicable for the first method that cannot serve."""
    for key, reason in refusals(model, places, output).items():
        raise NotApplicable(f"{key!r} cannot explain {model.name}: {reason}.")


def explanation(
    batch: Batch, places: Sequence[Placed], *, survive: bool = False, upsample: str = "bilinear"
) -> Explanation:
    """Runs the methods on a batch.

    Args:
        survive: a method that raises gives NaN maps and a flag that says why, in place of an error that carries its
            name; running out of memory is an error always.
    """
    # Inside a caller's inference mode no gradient could be had, so it is left for the while.
    with batch.model.evaluating(), torch.inference_mode(False), torch.set_grad_enabled(batch.differentiable):
        raw: dict[str, list[torch.Tensor]] = {place.key: [] for place in places}
        failed: dict[str, str] = {}

        def run(question: Question, place: Placed) -> None:
            try:
                raw[place.key].append(_raw_map(question, place, upsample))
            except (torch.OutOfMemoryError, MemoryError):
                raise
            except Exception as error:
                if not survive or "not enough memory" in str(error) or "can't allocate memory" in str(error):
                    raise
                failed[place.key] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
                raw[place.key].append(_nothing(batch.x, place.request.form))

        if batch.adopts and (first := next((p for p in places if "forward" in p.request.entry.needs), None)):
            run(Question(batch), first)  # its forward is the batch's
        for question in batch.questions:  # resolves the target: a wrong one is an error before any other map is made
            for place in places:
                if len(raw[place.key]) > question.column:
                    continue  # the first
                if raw[place.key] and not place.request.targeted:
                    raw[place.key].append(raw[place.key][0])  # the same for every target
                else:
                    run(question, place)
        maps = {key: _together(parts, batch.target) for key, parts in raw.items()}
        said = {p.key: _reasons(batch, raw[p.key], p.request, failed.get(p.key, "")) for p in places}
        size = tuple(batch.x.shape[2:])
        return Explanation(batch.logits, batch.target, maps, said, size, {place.key: place for place in places})


def _nothing(x: torch.Tensor, form: str) -> torch.Tensor:
    """NaN in place of the raw maps of a method that failed."""
    places = (1,) * (x.dim() - 2)
    shape = {"cam": (len(x), *places), "rgb": tuple(x.shape)}.get(form, (len(x), *x.shape[2:]))
    return x.new_full(shape, torch.nan, dtype=torch.float32)


def _together(parts: list[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    return parts[0] if target.dim() == 1 else torch.stack(parts, 1)


def _reasons(batch: Batch, raw: list[torch.Tensor], request: Request, failed: str) -> Flags:
    """Why each map says nothing; where the model has no answer, no map that asks it can have one."""
    found = []
    for part in raw:
        found.append(
            [failed] * len(part) if failed else flags(part.detach(), request.form, channels=_channels(request))
        )
    if set(request.entry.needs) - UNINFORMED:
        answered = torch.isfinite(batch.logits.detach()).all(1).tolist()
        found = [[flag if fine else NO_ANSWER for flag, fine in zip(one, answered, strict=True)] for one in found]
    return found[0] if batch.target.dim() == 1 else [list(several) for several in zip(*found, strict=True)]


def _raw_map(question: Question, place: Placed, upsample: str) -> torch.Tensor:
    request = place.request
    maps = [_at(question, layer, request) for layer in place.layers]
    if not request.refined:
        return maps[0]
    size = tuple(question.batch.x.shape[2:])
    return refined(maps, request.entry.traits["form"], size, request.operator, upsample)


def _at(question: Question, layer: str, request: Request) -> torch.Tensor:
    given = Site(question, layer, request).given()
    try:
        return request.entry(given, request.options)
    except (HeatproofError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shapes = {k: tuple(v.shape) for k, v in given.items() if isinstance(v, torch.Tensor)}
        error.add_note(f"in method {request.key!r} at layer {layer!r}, given {shapes}")
        raise

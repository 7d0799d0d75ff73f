"""Metrics that are called with arrays, as in Quantus: `(model, x_batch, y_batch, a_batch)`, seeded and checked."""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from heatproof import seeds
from heatproof.ambient import callers_state
from heatproof.errors import InvalidInput
from heatproof.metrics.explain_func import explainer
from heatproof.models.plain import plain_module
from heatproof.plugins import declare
from heatproof.registry import unknown
from heatproof.tensors import upsampled


@dataclass(frozen=True)
class ForeignMetric:
    """The arguments of `register_metric` (a `plugins.Recipe`)."""

    name: str
    function: Any
    better: str | None = None
    range: tuple[float | None, float | None] = (None, None)
    family: str = "fidelity"
    passes: str = "its own affair"
    source: str = "foreign"
    degenerate: float | None = math.nan
    undefined: str = "the metric gave no number"
    aliases: tuple[str, ...] = ()
    one_by_one: bool = False
    parts: tuple[tuple[str, str], ...] = ()  # of a composite
    foreign: bool = True  # not one of those that a family stands for
    reads_truth: bool | None = None  # whether it looks at the mask; None: where it names a quantity that holds it


_NEEDS = ("z", "target", "maps", "mask", "network", "model", "generator")


def with_arrays(
    recipe: ForeignMetric,
    called: Callable[..., Any],
    options: Iterable[inspect.Parameter],
    again: bool,
    summary: str | None,
    needs_mask: bool = False,
    signed: bool = False,
) -> Callable:
    """A metric of quantities that calls `called(module, x, y, a, also, options)` with arrays, seeded.

    Args:
        again: it explains other images too, so it has no value for maps made elsewhere.
        needs_mask: called for one image at a time, it is NaN for an image without a mask.
        signed: it has the option `attributions`, which chooses its maps: `display` or `raw`.
    """

    def function(
        z, target, maps, mask, network, model, generator, explain=None, raw: Any = None, **chosen: Any
    ) -> torch.Tensor:
        module = plain_module(network, z)
        shown = _channels(maps, raw, chosen.pop("attributions")) if signed else maps[:, None]
        rows = [slice(i, i + 1) for i in range(len(z))] if recipe.one_by_one else [slice(0, len(z))]
        found = []
        for part in rows:
            if recipe.one_by_one and _hopeless(recipe, z[part], maps[part], mask[part], needs_mask):
                found.append(torch.full((1,), torch.nan, dtype=torch.float64))
                continue
            also = {
                "s_batch": mask[part][:, None].cpu().numpy(),
                "explain_func": explain and explainer(explain, model, network, part, recipe.name),
                "explain_func_kwargs": {},
                "channel_first": True,
                "device": str(z.device),
            }
            arrays = z[part].cpu().numpy(), target[part].cpu().numpy(), shown[part].float().cpu().numpy()
            with seeds.seeded(generator[part.start], z.device), torch.enable_grad(), callers_state():
                given = called(module, *(array.copy() for array in arrays), also, chosen)
            found.append(as_numbers(given, part.stop - part.start, recipe.name))
        return torch.cat(found).to(maps.device)

    positional = [*_NEEDS, *(["explain"] if again else []), *(["raw"] if signed else [])]
    return declare(function, positional, options, summary)


def _channels(maps: torch.Tensor, raw: torch.Tensor, which: str) -> torch.Tensor:
    """`(N, channels, *spatial)`: display maps, or the method's raw maps, at the image's size."""
    if which not in ("display", "raw"):
        raise unknown("`attributions`", str(which), ("display", "raw"))
    if which == "display":
        return maps[:, None]
    return raw if raw.dim() > maps.dim() else upsampled(raw, tuple(maps.shape[1:]))[:, None]


def _hopeless(recipe: ForeignMetric, z: torch.Tensor, maps: torch.Tensor, mask: torch.Tensor, needs_mask: bool) -> bool:
    """Whether no value is possible: a non-finite image, an empty mask, or a constant map without a formula."""
    constant = recipe.degenerate is not None and bool(maps.amin() == maps.amax())
    return constant or (needs_mask and not mask.any()) or not bool(torch.isfinite(z).all())


def as_numbers(given: Any, count: int, name: str) -> torch.Tensor:
    """The result of a metric → `(count,)` float64 on the CPU; InvalidInput for anything else."""
    if isinstance(given, torch.Tensor) and given.is_complex():
        raise InvalidInput(f"{name!r} must give real numbers. Got {given.dtype}.")
    try:
        found = given.detach().cpu() if isinstance(given, torch.Tensor) else np.asarray(given, dtype=np.float64)
        found = torch.as_tensor(found, dtype=torch.float64)
    except (TypeError, ValueError):
        raise InvalidInput(f"{name!r} must give one number for each image. Got {type(given).__name__}.") from None
    if found.numel() != count or found.dim() > 1:
        raise InvalidInput(f"{name!r} must give {count} numbers, one for each image. Got {tuple(found.shape)}.")
    return found.reshape(count)

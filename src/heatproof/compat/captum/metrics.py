"""`captum.metrics`: infidelity and maximum sensitivity of attributions.

`heatproof.score` has both for images, with flags for degenerate maps: `infidelity`, `max-sensitivity`.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch

from heatproof.ambient import neutral
from heatproof.compat.captum.base import sums
from heatproof.compat.captum.calls import (
    InvalidArgument,
    Tensor,
    Tensors,
    alike,
    baselines_of,
    explained,
    extra_of,
    inputs_of,
    one_number_a_row,
    output_of,
    repeated,
    repeated_target,
    tupled,
)
from heatproof.compat.missing import absent_modules, missing_names
from heatproof.passes import check_int, parts


def infidelity_perturb_func_decorator(multipy_by_inputs: bool = True) -> Callable:
    """Makes a `perturb_func` of a function that gives only perturbed inputs.

    The perturbation is then `inputs − perturbed`; where `multipy_by_inputs`, as for attributions that are multiplied by
    the inputs, or by their difference from the baselines, it is divided by those (by 1 where they are 0).
    """

    def decorator(function: Callable) -> Callable:
        @functools.wraps(function)
        def perturb(inputs: Any, baselines: Any = None) -> tuple[Any, Any]:
            given = function(inputs) if baselines is None else function(inputs, baselines)
            before, after = tupled(inputs), tupled(given)
            starts = tupled(baselines) if baselines is not None else (0,) * len(before)
            changes = tuple(x - y for x, y in zip(before, after, strict=True))
            if multipy_by_inputs:
                factors = (x - start for x, start in zip(before, starts, strict=True))
                changes = tuple(c / torch.where(f == 0, 1, f) for c, f in zip(changes, factors, strict=True))
            return alike(inputs, changes), given

        return perturb

    return decorator


@neutral()
def infidelity(
    forward_func: Callable,
    perturb_func: Callable,
    inputs: Any,
    attributions: Any,
    baselines: Any = None,
    additional_forward_args: Any = None,
    target: Any = None,
    n_perturb_samples: int = 10,
    max_examples_per_batch: int | None = None,
    normalize: bool = False,
) -> Tensor:
    """`E[(Σ p · a − (F(x) − F(x′)))²]` over perturbations p and perturbed inputs x′, `(N,)`; low is good.

    Args:
        perturb_func: `(inputs[, baselines])` → (perturbations, perturbed inputs); each input comes several times.
        attributions: of the inputs' shapes.
        n_perturb_samples: perturbations of each image.
        max_examples_per_batch: the most rows of a pass; None: all.
        normalize: the attributions are first multiplied by the factor that makes the value smallest.

    Source: Yeh et al. 2019, definition 2.1.
    """
    some, maps, extra = inputs_of(inputs), inputs_of(attributions), extra_of(additional_forward_args)
    if [one.shape for one in some] != [one.shape for one in maps]:
        shapes = [tuple(one.shape) for one in maps]
        raise InvalidArgument(f"Attributions must have the shapes of the inputs. Got {shapes}.")
    count = len(some[0])
    bases = None if baselines is None else baselines_of(baselines, some)
    products, losses = [], []
    with explained(forward_func), torch.no_grad():
        before = one_number_a_row(output_of(forward_func, some, target, extra)).flatten()
        for times in _batches(n_perturb_samples, count, max_examples_per_batch):
            given = repeated(some, times, count, each=True)
            more = () if bases is None else (alike(inputs, repeated(bases, times, count, each=True)),)
            perturbation, perturbed = (tupled(one) for one in perturb_func(alike(inputs, given), *more))
            goals = repeated_target(target, times, count, each=True)
            after = output_of(forward_func, perturbed, goals, repeated(extra, times, count, each=True)).flatten()
            spread = repeated(maps, times, count, each=True)
            for change, one in zip(perturbation, given, strict=True):
                if change.shape != one.shape:
                    got = f"{tuple(change.shape)} for {tuple(one.shape)}"
                    raise InvalidArgument(f"`perturb_func` must give perturbations of the inputs' shapes. Got {got}.")
            products.append(sums(tuple(c * m for c, m in zip(perturbation, spread, strict=True))).reshape(count, times))
            losses.append((before.repeat_interleave(times) - after).reshape(count, times))
    product, lost = torch.cat(products, 1), torch.cat(losses, 1)
    if normalize:
        size = (product**2).sum(1, keepdim=True)
        product = product * (product * lost).sum(1, keepdim=True) / torch.where(size == 0, 1, size)
    return ((product - lost) ** 2).mean(1)


def default_perturb_func(inputs: Any, perturb_radius: float = 0.02) -> Any:
    """The inputs plus uniform noise in ± `perturb_radius`, from torch's global generator."""
    changed = tuple(one + perturb_radius * (2 * torch.rand_like(one) - 1) for one in tupled(inputs))
    return alike(inputs, changed)


@neutral()
def sensitivity_max(
    explanation_func: Callable,
    inputs: Any,
    perturb_func: Callable = default_perturb_func,
    perturb_radius: float = 0.02,
    n_perturb_samples: int = 10,
    norm_ord: Any = "fro",
    max_examples_per_batch: int | None = None,
    **kwargs: Any,
) -> Tensor:
    """`max ‖E(x′) − E(x)‖ / ‖E(x)‖` over perturbed inputs x′, `(N,)`; low is good. Where E(x) is 0, ‖E(x′)‖.

    Args:
        explanation_func: `(inputs, **kwargs)` → attributions, such as `Saliency(model).attribute`.
        perturb_func: `(inputs[, perturb_radius])` → perturbed inputs; it gets each input several times in a row.
        n_perturb_samples: perturbations of each image.
        norm_ord: the order of the norm of an image's attributions, `fro` (2) or a number.
        max_examples_per_batch: the most rows of a pass; None: all.
        kwargs: of `explanation_func`; what has one entry for each row is repeated.

    Source: Yeh et al. 2019, definition 3.1.
    """
    some = inputs_of(inputs)
    count = len(some[0])
    order = 2 if norm_ord == "fro" else norm_ord
    clean = _flat(explanation_func(alike(inputs, some), **kwargs), count)
    size = torch.linalg.vector_norm(clean, order, dim=1)
    worst = torch.zeros_like(size)
    for times in _batches(n_perturb_samples, count, max_examples_per_batch):
        given = alike(inputs, repeated(some, times, count, each=True))
        takes_radius = len(inspect.signature(perturb_func).parameters) > 1
        perturbed = perturb_func(given, perturb_radius) if takes_radius else perturb_func(given)
        maps = _flat(explanation_func(perturbed, **_repeated_options(kwargs, times, count, some)), count * times)
        change = torch.linalg.vector_norm(maps - clean.repeat_interleave(times, 0), order, dim=1)
        worst = torch.maximum(worst, change.reshape(count, times).amax(1))
    return worst / torch.where(size == 0, 1, size)


def _flat(maps: Any, count: int) -> Tensor:
    return torch.cat([one.detach().reshape(count, -1) for one in tupled(maps)], 1)


def _batches(samples: int, count: int, most: int | None) -> Iterator[int]:
    """How many perturbations of every image go through the network together, pass by pass."""
    total = check_int("n_perturb_samples", samples)
    for part in parts(total, max(1, (most or total * count) // count)):
        yield part.stop - part.start


def _repeated_options(given: dict[str, Any], times: int, count: int, inputs: Tensors) -> dict[str, Any]:
    found = {name: repeated(value, times, count, each=True) for name, value in given.items()}
    if "target" in given:
        found["target"] = repeated_target(given["target"], times, count, each=True)
    return found


__all__ = ["default_perturb_func", "infidelity", "infidelity_perturb_func_decorator", "sensitivity_max"]
__getattr__ = missing_names(__name__, {})
absent_modules(__name__, dict.fromkeys(("_core", "_utils"), f"the names of Captum's metrics are in {__name__}"))

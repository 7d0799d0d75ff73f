"""How Captum calls a network: a function of one or several inputs, with further arguments, a target and baselines.

Inputs are tensors with one row for each image. A target is an integer or a tuple of indices for all rows, or a list or
tensor with one for each row; None where the output has one number a row.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.ambient import callers_state, ordinary
from heatproof.errors import InvalidInput, InvalidTarget, NotApplicable
from heatproof.models.capture import first_tensor
from heatproof.models.model import bare, evaluating
from heatproof.targets import miscounted

Tensor = torch.Tensor
Tensors = tuple[Tensor, ...]


class InvalidArgument(InvalidInput, AssertionError):
    """An argument that cannot be used; Captum raises an AssertionError there."""


class InvalidIndex(InvalidTarget, AssertionError):
    """A target that does not fit the output."""


def tupled(given: Any) -> tuple[Any, ...]:
    """A tuple or list as a tuple, anything else as a tuple of one."""
    return tuple(given) if isinstance(given, tuple | list) else (given,)


def inputs_of(given: Any) -> Tensors:
    """The inputs without their graphs; anything but tensors is an error."""
    found = tupled(given)
    if not found or not all(isinstance(one, Tensor) for one in found):
        kinds = ", ".join(type(one).__name__ for one in found)
        raise InvalidArgument(
            f"Expected a tensor (N, …), or a tuple of tensors, as the network takes them. Got {kinds}."
        )
    return tuple(ordinary(one).detach() for one in found)


def extra_of(additional_forward_args: Any) -> tuple[Any, ...]:
    """The further arguments of the network."""
    if additional_forward_args is None:
        return ()
    return additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)


def alike(given: Any, found: Tensors) -> Any:
    """A tuple where the inputs are one, else its only tensor."""
    return tuple(found) if isinstance(given, tuple | list) else found[0]


def baselines_of(given: Any, inputs: Tensors) -> Tensors:
    """Baselines of the inputs' shapes: from tensors of the same shape or one row, numbers, or None for zeros."""
    several = tupled(given) if given is not None else (0,) * len(inputs)
    if len(several) != len(inputs):
        raise InvalidArgument(f"Expected one baseline for each of the {len(inputs)} inputs. Got {len(several)}.")
    return tuple(_baseline(base, one) for base, one in zip(several, inputs, strict=True))


def _baseline(base: Any, one: Tensor) -> Tensor:
    if isinstance(base, Tensor):
        try:
            return ordinary(base).detach().to(one.device).expand_as(one)
        except RuntimeError:
            got = tuple(base.shape)
            text = f"A baseline must have the input's shape {tuple(one.shape)}, or one row. Got {got}."
            raise InvalidArgument(text) from None
    if base is None or isinstance(base, int | float):
        fits = isinstance(base, bool) or not isinstance(base, float) or one.is_floating_point()
        return torch.full_like(one, base or 0, dtype=one.dtype if fits else torch.get_default_dtype())
    raise InvalidArgument(f"A baseline must be a tensor or a number. Got {type(base).__name__}.")


def repeated(value: Any, times: int, count: int, *, each: bool) -> Any:
    """What belongs to `count` rows, for `times` as many: each row several times in a row, or all rows in turn.

    A tensor or list of one entry for each row; anything else stays. A tuple's parts are repeated.
    """
    if isinstance(value, tuple):
        return tuple(repeated(part, times, count, each=each) for part in value)
    if isinstance(value, Tensor) and value.dim() and len(value) == count:
        return value.repeat_interleave(times, 0) if each else value.repeat(times, *[1] * (value.dim() - 1))
    return value


def repeated_target(target: Any, times: int, count: int, *, each: bool) -> Any:
    """As `repeated`, for a target."""
    target = _plain(target)
    if isinstance(target, list):
        return [one for one in target for _ in range(times)] if each else target * times
    return repeated(target, times, count, each=each) if isinstance(target, Tensor) else target


def row_of(value: Any, row: int, count: int) -> Any:
    """The part of one row of what belongs to `count` rows, with the same rules as `repeated`."""
    if isinstance(value, tuple):
        return tuple(row_of(part, row, count) for part in value)
    return value[row : row + 1] if isinstance(value, Tensor) and value.dim() and len(value) == count else value


def row_of_target(target: Any, row: int, count: int) -> Any:
    """As `row_of`, for a target."""
    target = _plain(target)
    return target if isinstance(target, tuple) or not isinstance(target, list | Tensor) else target[row : row + 1]


def _plain(target: Any) -> Any:
    """An integer, a tuple, or a list or tensor of more than one; a single entry stands for all rows."""
    if isinstance(target, np.ndarray | np.integer):
        target = target.tolist()
    if isinstance(target, Tensor) and target.numel() == 1:
        return int(target)
    return target[0] if isinstance(target, list) and len(target) == 1 else target


def output_of(function: Callable, inputs: Tensors, target: Any = None, extra: tuple[Any, ...] = ()) -> Tensor:
    """The output for a target: `(N,)`, or whatever shape the function returns where there is no target."""
    called = bare(function) if isinstance(function, nn.Module) else function
    with callers_state():
        output = called(*inputs, *extra)
    if isinstance(output, int | float):
        output = torch.tensor(output, dtype=torch.float64 if isinstance(output, float) else torch.int64)
    found, _ = first_tensor(getattr(output, "logits", output))
    if found is None:
        raise InvalidArgument(f"Expected the function to return a tensor. Got {type(output).__name__}.")
    return selected(precise(found), target)


def precise(values: Tensor) -> Tensor:
    """The values in at least float32: a network may run under autocast, what comes after it does not."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def selected(output: Tensor, target: Any) -> Tensor:
    """The entry of every row of `(N, …)` that the target names, `(N, …)` without the dimensions it indexes."""
    target = _plain(target)
    if target is None:
        return output
    if not isinstance(target, Tensor | list):
        return output[(slice(None), *_indices(target, output))]
    if len(target) != len(output) or (isinstance(target, Tensor) and target.dim() != 1):
        shape = tuple(target.shape) if isinstance(target, Tensor) else (len(target),)
        raise InvalidIndex(str(miscounted(shape, len(output))))
    rows = target.tolist() if isinstance(target, Tensor) else target
    return torch.stack([output[(i, *_indices(one, output))] for i, one in enumerate(rows)])


def _indices(target: Any, output: Tensor) -> tuple[int, ...]:
    try:
        found = tuple(int(one) for one in tupled(target))
    except (TypeError, ValueError):
        raise InvalidIndex(
            f"A target must be an integer or a tuple of integers for each row. Got {target!r}."
        ) from None
    sizes = output.shape[1:]
    if len(found) > len(sizes):
        raise InvalidIndex(
            f"A target for outputs {tuple(output.shape)} has at most {len(sizes)} indices. Got {target!r}."
        )
    for index, size in zip(found, sizes, strict=False):
        if not -size <= index < size:
            raise InvalidIndex(f"Targets must lie in 0 … {size - 1}, the model's classes. Got {index}.")
    return found


def one_number_a_row(output: Tensor) -> Tensor:
    """The output, where it is one number for each row; else an error that asks for a target."""
    if output.dim() and output[0].numel() != 1:
        raise InvalidIndex(
            f"Expected a target, since the output has several numbers a row. Got outputs {tuple(output.shape)}. "
            "Give `target`, such as model(inputs).argmax(1)."
        )
    return output


def gradients(
    forward_fn: Callable, inputs: Any, target_ind: Any = None, additional_forward_args: Any = None
) -> Tensors:
    """The gradient of the target's output by every input. An input that the output does not use has zeros."""
    at = tuple(one.detach().requires_grad_() for one in floating(tupled(inputs)))
    with torch.enable_grad():
        # Not the leaves themselves: a network may write into what it is given.
        output = output_of(forward_fn, tuple(one * 1.0 for one in at), target_ind, extra_of(additional_forward_args))
        return gradients_by(one_number_a_row(output), at)


def gradients_by(output: Tensor, at: Tensors, of: str = "the inputs") -> Tensors:
    """The gradient of the summed output by tensors of its graph; zeros for one that it does not use."""
    if not output.requires_grad:
        raise NotApplicable(f"No gradient reaches {of} from the network's output.")
    return torch.autograd.grad(output.sum(), at, allow_unused=True, materialize_grads=True)


def floating(inputs: Tensors) -> Tensors:
    """The inputs, where all are floats; else an error."""
    for one in inputs:
        if not one.is_floating_point():
            raise InvalidArgument(f"Gradients need inputs of floats. Got {one.dtype}.")
    return inputs


def network_of(function: Any) -> nn.Module | None:
    """The module that a function is, or a method of; None where it cannot be told."""
    owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return owner if isinstance(owner, nn.Module) else None


@contextmanager
def explained(function: Any) -> Iterator[None]:
    """The network in eval mode, its parameters without gradients, and no other thread in it.

    A function that is no module is called as it is: what it calls cannot be known.
    """
    module = network_of(function)
    if module is None:
        yield
        return
    with evaluating(module):
        yield


def reported(name: str, done: int, total: int, shown: bool) -> None:
    """Writes the share done to the standard error stream, over the line before."""
    if shown:
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r{name} attribution: {100 * done // max(total, 1)}%{end}")

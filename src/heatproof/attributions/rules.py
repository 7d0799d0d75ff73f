"""Gradients by the image in which some functions have a rule of the method's own in place of their derivative.

A function mode finds the calls of these functions: in modules, as `F.relu`, in place, reused. No hook is set and no
module is changed, so there is nothing to restore.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from heatproof.errors import NotApplicable
from heatproof.models.observable import unseen
from heatproof.models.operations import Watching, hidden_parts, operation_name, tensors_in

Tensor = torch.Tensor
Function = Callable[..., Any]
#: The gradient at the output of a function → that at its input.
Back = Callable[[Tensor], Tensor]
#: (input, output, function) → its `Back`. The function takes the input alone, and writes into nothing. Input
#: and output hold only until the rule has returned: the network may write over them.
Rule = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Back]


def ruled_gradient(z: Tensor, forward, of_target, answer: "Answer") -> Tensor:
    """`∂ output of the target / ∂ z` with `answer` in place of every function. One forward, one backward pass."""
    return ruled_gradients((z,), lambda at: of_target(forward(at)), answer)[0]


def ruled_gradients(inputs: tuple[Tensor, ...], output: Callable[..., Tensor], answer: "Answer") -> tuple[Tensor, ...]:
    """`∂ output(*inputs) / ∂ input` for every input, as in `ruled_gradient`; zeros for one that is not used."""
    with torch.enable_grad():
        at = tuple(one.detach().requires_grad_() for one in inputs)
        with Watching(answer):
            found = output(*(one * 1.0 for one in at))
        # The backward pass runs outside the mode: the rules call torch functions too.
        return torch.autograd.grad(found.sum(), at, allow_unused=True, materialize_grads=True)


def refuse_hidden(method: str, module: nn.Module, output: Tensor) -> None:
    """Raises NotApplicable where the output's graph has functions that no rule can replace: they cannot be seen."""
    for name in hidden_parts(module, output):
        if name != _Ruled.__name__:
            raise NotApplicable(f"{method} cannot be used here: {unseen(name)}.")


#: (function, args, kwargs) → the result of the call.
Answer = Callable[[Function, tuple[Any, ...], dict[str, Any]], Any]


def answered_by(answer: Answer, names: Iterable[str]) -> Answer:
    """`answer` where one of the functions `names` (`operation_name`) is called on what depends on the image."""
    names = frozenset(names)

    def watched(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if operation_name(function, args, kwargs) in names and depends(args, kwargs):
            return answer(function, args, kwargs)
        return function(*args, **kwargs)

    return watched


def depends(*values: Any) -> bool:
    """Whether anything there depends on the image: parameters are frozen while a method runs."""
    return any(tensor.requires_grad for tensor in tensors_in(values))


def ruled(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], rule: Rule) -> Tensor:
    """Calls a function of one tensor, its first argument, with the rule as its backward; in place where the call is."""
    values, rest, named = first_and_rest(args, kwargs)
    given = values.detach()
    with torch.no_grad():
        work = given.clone() if _may_write(function, rest, named) else given
        output = function(work, *rest, **named)
        back = rule(given, output, lambda inputs: function(inputs.clone(), *rest, **named))
    return _Ruled.apply(values, (output,), back, output.data_ptr() == work.data_ptr())


def _may_write(function: Function, rest: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether a function may write into its first argument: `relu_`, `inplace=True`, by position too."""
    name = getattr(function, "__name__", "_")
    marked = name.endswith("_") and not name.endswith("__")
    return marked or "out" in named or any(value is True for value in (*rest, *named.values()))


def first_and_rest(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The tensor that a function works on, and its other arguments."""
    if args:
        return args[0], args[1:], kwargs
    name = "input" if "input" in kwargs else next(iter(kwargs))
    return kwargs[name], (), {key: value for key, value in kwargs.items() if key != name}


def routed(values: Tensor, output: Tensor, back: Back) -> Tensor:
    """`output`, with `back` as its backward pass to `values`."""
    return _Ruled.apply(values, (output,), back, False)


class _Ruled(torch.autograd.Function):
    """An output computed before (in a tuple: autograd takes a tensor that is returned unchanged for a view).

    In place it is written over the input.
    """

    @staticmethod
    def forward(ctx, values: Tensor, output: tuple[Tensor], back: Back, in_place: bool) -> Tensor:
        ctx.back = back
        if not in_place:
            return output[0]
        ctx.mark_dirty(values)
        return values.copy_(output[0])

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.back(gradients[0]), None, None, None


def slope(values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The derivative of an elementwise function."""
    with torch.enable_grad():
        at = values.detach().requires_grad_()
        output = function(at)
        return torch.autograd.grad(output, at, torch.ones_like(output))[0]

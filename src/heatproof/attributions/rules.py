"""Gradients by the picture in which some functions answer by a rule of a method's own, instead of their derivative.

The functions are met where they are called, by a function mode: as modules, as `F.relu`, in place, used again. No hook
is set and nothing is written into a module, so there is nothing to leave behind.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from heatproof.models.operations import Watching, operation_name, tensors_in

Tensor = torch.Tensor
Function = Callable[..., Any]
#: What goes back from the output of a function to its input.
Back = Callable[[Tensor], Tensor]
#: (input, output, function) → what goes back there. The function is of the input alone, and writes into nothing.
Rule = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor]], Back]


def ruled_gradient(z: Tensor, forward, of_target, answer: "Answer") -> Tensor:
    """`∂ output of the target / ∂ z` with `answer` in place of every function. One forward, one backward pass."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        with Watching(answer):
            outputs = forward(at * 1.0)
        # Backwards out of the mode: the rules call torch functions too.
        return torch.autograd.grad(of_target(outputs).sum(), at)[0]


#: (function, args, kwargs) → what the call gives.
Answer = Callable[[Function, tuple[Any, ...], dict[str, Any]], Any]


def by_rule(names: Iterable[str], rule: Rule) -> Answer:
    """`rule` where one of the functions `names` (`operation_name`) is called on what depends on the picture."""
    names = frozenset(names)

    def answer(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if operation_name(function, args, kwargs) in names and depends(args, kwargs):
            return ruled(function, args, kwargs, rule)
        return function(*args, **kwargs)

    return answer


def depends(*values: Any) -> bool:
    """Whether anything there depends on the picture: parameters are frozen while a method runs."""
    return any(tensor.requires_grad for tensor in tensors_in(values))


def ruled(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any], rule: Rule) -> Tensor:
    """Calls a function of one tensor, the first argument; backwards it goes by the rule. In place where the call is."""
    values, rest, named = first_and_rest(args, kwargs)
    kept = values.detach().clone()  # what follows may write over the input, and so may the function
    with torch.no_grad():
        work = kept.clone()
        output = function(work, *rest, **named)
    found = _Ruled.apply(values, (output,), rule(kept, output, lambda inputs: function(inputs.clone(), *rest, **named)))
    return values.copy_(found) if output.data_ptr() == work.data_ptr() else found


def first_and_rest(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """The tensor that a function works on, and its other arguments."""
    if args:
        return args[0], args[1:], kwargs
    name = "input" if "input" in kwargs else next(iter(kwargs))
    return kwargs[name], (), {key: value for key, value in kwargs.items() if key != name}


def routed(values: Tensor, output: Tensor, back: Back) -> Tensor:
    """`output`, from which `back` leads to `values`."""
    return _Ruled.apply(values, (output,), back)


class _Ruled(torch.autograd.Function):
    """An output worked out before (in a tuple: autograd takes a tensor that is handed through for a view)."""

    @staticmethod
    def forward(ctx, values: Tensor, output: tuple[Tensor], back: Back) -> Tensor:
        ctx.back = back
        return output[0]

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradients[0]), None, None


def slope(values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The derivative of an elementwise function."""
    with torch.enable_grad():
        at = values.detach().requires_grad_()
        output = function(at)
        return torch.autograd.grad(output, at, torch.ones_like(output))[0]

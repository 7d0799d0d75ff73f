"""Which functions a network computes with, and where: one forward pass of noise, listed function by function.

A list of modules is not enough: DenseNet calls `F.relu`, torchvision's ReLU6 is a `hardtanh`, and one `nn.ReLU` may
run three times. Methods that have special rules for some functions check here whether they apply to a network.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from heatproof.errors import ModelError
from heatproof.memo import PerModule
from heatproof.models.model import Model

#: Other names of the same functions (dunders without their underscores, in-place names without the last one).
_SAME = {
    **{other: name for name in ("add", "sub", "mul", "matmul") for other in (f"r{name}", f"i{name}")},
    **{"truediv": "div", "itruediv": "div", "divide": "div", "true_divide": "div", "rtruediv": "rdiv"},
    **{"concat": "cat", "concatenate": "cat", "multiply": "mul", "subtract": "sub", "negative": "neg"},
    **{"clip": "clamp", "swish": "silu", "special_expit": "sigmoid", "expit": "sigmoid"},
}

#: Activation functions as people write them.
ACTIVATIONS = {
    **{"relu": "ReLU", "relu6": "ReLU6", "leaky_relu": "LeakyReLU", "prelu": "PReLU", "rrelu": "RReLU", "elu": "ELU"},
    **{"selu": "SELU", "celu": "CELU", "gelu": "GELU", "silu": "SiLU", "mish": "Mish", "softplus": "Softplus"},
    **{"hardswish": "Hardswish", "hardsigmoid": "Hardsigmoid", "hardtanh": "Hardtanh", "tanh": "Tanh"},
    **{"sigmoid": "Sigmoid", "softsign": "Softsign"},
}

#: A rectifier, however it is written.
RELUS = frozenset({"relu", "relu6"})


@dataclass(frozen=True)
class Operation:
    """One call: the function's name (`operation_name`), the module it ran in, and its operands.

    `operands` are the positions of the tensors that depend on the image, among all tensors given (lists flattened).
    """

    name: str
    module: str
    kind: str
    operands: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} (in {self.module or self.kind})"


@dataclass(frozen=True)
class Operations:
    """All calls of one forward pass whose result depends on the image, in order.

    `runs`: how often each module ran. `hidden`: parts whose functions cannot be seen (TorchScript, or an
    `autograd.Function` of the user's).
    """

    calls: tuple[Operation, ...]
    runs: Mapping[str, int]
    hidden: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of all functions that ran."""
        return frozenset(call.name for call in self.calls)

    @property
    def activations(self) -> list[str]:
        """The activation functions, as people write them: `GELU`, `SiLU`."""
        return sorted({ACTIVATIONS[name] for name in self.names if name in ACTIVATIONS})


#: The operations of each module.
_LISTED = PerModule[Operations]()


def operations(model: Model) -> Operations:
    """The operations of a model: listed on noise the first time, kept as long as the module lives.

    Raises ModelError where the model does not run on images of its own geometry.
    """
    return _LISTED.found(model.module, None, lambda: _list_operations(model))


def operation_name(function: Callable, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> str:
    """One name for a function in all its spellings: `F.relu`, `Tensor.relu_`, `clamp(min=0)` → `relu`."""
    name = getattr(function, "__name__", "")
    name = name[2:-2] if name.startswith("__") else name.strip("_")
    name = _SAME.get(name, name)
    if name in _BOUNDS:
        return _rectifier(name, args, kwargs or {})
    if name == "batch_norm" and _argument(args, kwargs or {}, 5, "training", False):
        return "batch_norm by the batch"
    return name


#: Functions that are a rectifier with some bounds: where those are given, by position and by name, and the defaults.
_BOUNDS: dict[str, tuple[tuple[int, str, Any], tuple[int, str, Any]]] = {
    "clamp": ((1, "min", None), (2, "max", None)),
    "clamp_min": ((1, "min", None), (9, "", None)),
    "hardtanh": ((1, "min_val", -1.0), (2, "max_val", 1.0)),
    "threshold": ((1, "threshold", None), (9, "", None)),
}


def _rectifier(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    low, high = (_argument(args, kwargs, *bound) for bound in _BOUNDS[name])
    filled = _argument(args, kwargs, 2, "value", 0) if name == "threshold" else 0
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor) or low != 0 or filled != 0:
        return name
    return "relu" if high is None else "relu6" if high > 0 else name


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], at: int, name: str, default: Any) -> Any:
    return args[at] if len(args) > at else kwargs.get(name, default)


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """All tensors among arguments, also inside lists and dictionaries."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from tensors_in(list(values.values()))
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors_in(value)


class Watching(TorchFunctionMode):
    """While it is active, `answer(function, args, kwargs)` replaces every torch function: called by modules, as
    `F.relu`, on tensors or in place. Functions called inside `answer` are not replaced."""

    def __init__(self, answer: Callable[[Callable, tuple[Any, ...], dict[str, Any]], Any]):
        super().__init__()
        self.answer = answer

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.answer(func, args, kwargs or {})


def _list_operations(model: Model) -> Operations:
    calls: list[Operation] = []
    inside: list[tuple[str, str]] = []
    runs: Counter[str] = Counter()

    def answer(function: Callable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Parameters are frozen and the image is not: a tensor that requires a gradient depends on the image.
        given = list(tensors_in([args, kwargs]))
        operands = tuple(i for i, tensor in enumerate(given) if tensor.requires_grad)
        name = operation_name(function, args, kwargs) if operands else ""
        output = function(*args, **kwargs)
        if operands and any(tensor.requires_grad for tensor in tensors_in(output)):
            module, kind = inside[-1] if inside else ("", type(model.module).__name__)
            calls.append(Operation(name, module, kind, operands))
        return output

    noise = torch.rand((1, *model.input_shape), generator=torch.Generator().manual_seed(0)).to(model.device)
    try:
        with (
            model.evaluating(),
            torch.inference_mode(False),
            torch.enable_grad(),
            _track_modules(model.module, inside, runs),
        ):
            z = model.normalise(noise).requires_grad_() * 1.0  # no leaf: a network may write into what it is given
            with Watching(answer):
                logits = model.unwrap(model.output(z))
    except (torch.OutOfMemoryError, ModelError):
        raise
    except Exception as error:  # whatever a model raises on an input that does not suit it
        size = " × ".join(map(str, model.input_shape[1:]))
        raise ModelError(
            f"Expected {model.name!r} to run on inputs of {size}. It failed with {type(error).__name__}: {error}. "
            "Set `size` to what the model was built for."
        ) from error
    return Operations(tuple(calls), dict(runs), tuple(hidden_parts(model.module, logits)))


@contextmanager
def _track_modules(module: nn.Module, inside: list[tuple[str, str]], runs: Counter[str]) -> Iterator[None]:
    """Keeps `inside` at the modules that are running, outermost first, and counts their runs."""
    handles = []

    def entering(name: str, kind: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            inside.append((name, kind))
            runs[name] += 1

        return enter

    def leave(*_: Any) -> None:
        inside.pop()

    try:
        for name, part in module.named_modules():
            if not isinstance(part, torch.jit.ScriptModule):  # takes no hook, and its functions are hidden
                handles.append(part.register_forward_pre_hook(entering(name, type(part).__name__), prepend=True))
                handles.append(part.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


def hidden_parts(module: nn.Module, logits: torch.Tensor) -> Iterable[str]:
    """Parts whose functions cannot be seen: scripted modules, and functions with a derivative of the user's own.

    The latter are read from the graph of `logits`.
    """
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            yield name or part.original_name
            return  # the rest of what can be said is inside it
    seen, waiting = set(), [logits.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting.extend(following for following, _ in node.next_functions)
        if isinstance(node, torch.autograd.function.BackwardCFunction) or "DifferentiableGraph" in node.name():
            yield node.name().removesuffix("Backward")

"""What the operations of a network add that is not proportional to their input: biases, explicit and implicit.

The bias of an operation `y = f(x)` is `b = f(x) − J x`, with the Jacobian J at x. A convolution has its bias
parameter, a batch norm in eval mode `β − μ γ / √(σ² + ε)`, a ReLU zero, a ReLU6 six above its bound, and a GELU
`f(x) − f'(x) x`. The sum of all biases times their gradients, plus the input times its gradient, is exactly the output
(Srinivas & Fleuret 2019). Operations are found by their functions and not by modules, so that subclasses that do more
than their base, shared modules and functional code are all covered.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from heatproof.quiet import ignored_warnings

#: Where the channels of an operation's output are; empty where that is not known.
Channels = Literal["first", "last", ""]

#: Gets `(N, …)` bias times gradient of one operation, and where its channels are.
Visit = Callable[[torch.Tensor, Channels], None]


class Biases(TorchFunctionMode):
    """While it is active, every operation's bias times gradient goes to `visit` as the backward reaches it.

    The hooks are attached to the graph, so a backward frees all that they keep.
    """

    def __init__(self, visit: Visit):
        super().__init__()
        self._visit = visit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        known = _OPERATIONS.get(func)
        if known is None or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        bias_of, channels = known
        with torch.no_grad():
            bias = bias_of(func, args, kwargs)  # before the operation, which may write in place
        output = func(*args, **kwargs)
        if bias is not None and output.requires_grad:
            output.register_hook(_share_hook(bias, channels, self._visit))
        return output


def _share_hook(bias: torch.Tensor, channels: Channels, visit: Visit) -> Callable[[torch.Tensor], None]:
    """A hook that returns None, so that the gradient stays as it is, whatever `visit` returns."""

    def hook(gradient: torch.Tensor) -> None:
        visit(bias * gradient, channels)

    return hook


def _parameter(args: Any, kwargs: Mapping[str, Any], at: int, name: str, default: Any = None) -> Any:
    return args[at] if len(args) > at else kwargs.get(name, default)


def _over_channels(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`(C,)` as `(1, C, 1, …)`."""
    return values.view(1, -1, *[1] * (like.dim() - 2))


def _convolution(_func: Any, args: Any, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    bias = _parameter(args, kwargs, 2, "bias")
    return None if bias is None else _over_channels(bias, _parameter(args, kwargs, 0, "input"))


def _linear(_func: Any, args: Any, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    return _parameter(args, kwargs, 2, "bias")


def _batch_norm(func: Any, args: Any, kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    x, mean = _parameter(args, kwargs, 0, "input"), _parameter(args, kwargs, 1, "running_mean")
    variance = _parameter(args, kwargs, 2, "running_var")
    weight, bias = _parameter(args, kwargs, 3, "weight"), _parameter(args, kwargs, 4, "bias")
    if mean is None or _parameter(args, kwargs, 5, "training", False):
        return _curvature_bias(func, args, kwargs)
    shift = -mean / torch.sqrt(variance + _parameter(args, kwargs, 7, "eps", 1e-5))
    shift = shift if weight is None else shift * weight
    return _over_channels(shift if bias is None else shift + bias, x)


def _curvature_bias(func: Any, args: Any, kwargs: Mapping[str, Any]) -> torch.Tensor:
    """`f(x) − J x` of a function of one tensor: J x is the derivative of f(t x) by t, at one."""
    inputs = dict(kwargs)
    x = args[0] if args else inputs.pop("input")
    one = torch.ones((), dtype=x.dtype, device=x.device)
    with ignored_warnings(FutureWarning):  # torch.func scripts its own formulas, and warns of scripting
        found = torch.func.jvp(lambda t: func(t * x.detach(), *args[1:], **inputs), (one,), (one,))
    return found[0] - found[1]


def _product(_func: Any, args: Any, _kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The bias of a product of two factors that both depend on the image (a gate): `u v − (u v + u v)`."""
    if len(args) < 2 or not all(isinstance(factor, torch.Tensor) and factor.requires_grad for factor in args[:2]):
        return None
    return -(args[0] * args[1])


_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_CURVES = (
    *(F.gelu, F.silu, F.mish, F.elu, F.selu, F.celu, F.softplus, F.logsigmoid, F.softsign, F.tanhshrink),
    *(F.hardswish, F.hardsigmoid, F.hardtanh, F.relu6, F.sigmoid, F.tanh, F.softmax, F.softshrink, F.hardshrink),
    *(torch.sigmoid, torch.tanh, torch.clamp, torch.softmax),
    *(torch.Tensor.sigmoid, torch.Tensor.tanh, torch.Tensor.clamp, torch.Tensor.softmax),
    *(F.instance_norm,),
)
_PRODUCTS = (torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.mul_, torch.Tensor.__imul__)

_OPERATIONS: dict[Any, tuple[Callable[..., torch.Tensor | None], Channels]] = {
    **dict.fromkeys(_CONVOLUTIONS, (_convolution, "first")),
    **dict.fromkeys((F.batch_norm, F.group_norm), (_curvature_bias, "first")),
    **dict.fromkeys(_CURVES, (_curvature_bias, "")),
    **dict.fromkeys(_PRODUCTS, (_product, "")),
    F.batch_norm: (_batch_norm, "first"),
    F.layer_norm: (_curvature_bias, "last"),
    F.linear: (_linear, "last"),
}

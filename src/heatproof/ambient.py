"""Modes and defaults of torch that the caller has set, such as autocast: for the network, and for nothing else.

`neutral` stands around every public call. Inside, heatproof's own arithmetic is that of a fresh process: no autocast,
gradients on, new tensors are float32 on the CPU. `callers_state` stands around the network and around functions of the
user's: there autocast and defaults are as the caller had them. Gradients stay as the method needs them.

All of it belongs to the current thread. The default dtype of torch belongs to the whole process, so it is not set: a
function mode gives new tensors theirs.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

#: The devices for which an autocast is looked for.
DEVICES = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class _Caller:
    """The state of the caller: device type → dtype of its autocasts, whether those cache, and its defaults."""

    autocasts: Mapping[str, torch.dtype]
    cache: bool
    defaults: "_Defaults | None"


_caller: ContextVar[_Caller | None] = ContextVar("caller", default=None)


@contextmanager
def neutral() -> Iterator[None]:
    """heatproof's own arithmetic, whatever modes and defaults the caller has set. Also a decorator of functions.

    Inside another `neutral` it changes nothing, not even the grad mode.
    """
    known, autocasts = _caller.get(), _autocasts()
    if known is not None and not autocasts and not torch.is_inference_mode_enabled():
        yield
        return
    with ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        cache = torch.is_autocast_cache_enabled()
        for device in autocasts:
            stack.enter_context(torch.autocast(device, enabled=False))
        defaults = known.defaults if known else None
        if known is None and _unusual_defaults():
            defaults = stack.enter_context(_Defaults())
        token = _caller.set(_Caller(autocasts, cache, defaults))
        try:
            yield
        finally:
            _caller.reset(token)


@contextmanager
def callers_state() -> Iterator[None]:
    """The caller's autocast and defaults again, for the network and for functions of the user's."""
    caller = _caller.get()
    if caller is None or not (caller.autocasts or caller.defaults):
        yield
        return
    token = _caller.set(None)  # a call of heatproof's inside looks at the caller's state anew
    with ExitStack() as stack:
        for device, dtype in caller.autocasts.items():
            stack.enter_context(torch.autocast(device, dtype, cache_enabled=caller.cache))
        if caller.defaults:
            stack.enter_context(caller.defaults.left_alone())
        try:
            yield
        finally:
            _caller.reset(token)


@contextmanager
def network_autocast(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Inside, networks on that device run under autocast, as if the caller had set it; None changes nothing."""
    if dtype is None:
        yield
        return
    with torch.autocast(device.type, dtype), neutral():
        yield


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of the autocast under which a network on that device runs; None where there is none."""
    caller = _caller.get()
    return (_autocasts() if caller is None else caller.autocasts).get(device.type)


def ordinary(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy of one made in inference mode, which cannot be part of a graph."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def _autocasts() -> dict[str, torch.dtype]:
    return {device: torch.get_autocast_dtype(device) for device in DEVICES if torch.is_autocast_enabled(device)}


def _unusual_defaults() -> bool:
    return torch.get_default_dtype() != torch.float32 or torch.get_default_device().type != "cpu"


#: Functions whose floats have the default dtype where none is given.
_FLOATS = (
    *(torch.rand, torch.randn, torch.zeros, torch.ones, torch.empty, torch.eye, torch.linspace, torch.logspace),
    *(torch.bartlett_window, torch.blackman_window, torch.hamming_window, torch.hann_window, torch.kaiser_window),
    *(torch.fft.fftfreq, torch.fft.rfftfreq),
)
#: Further functions that put a tensor on the default device where none is given.
_MADE = (
    *(torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor, torch.full, torch.arange, torch.range),
    *(torch.randint, torch.randperm, torch.tril_indices, torch.triu_indices, torch.empty_strided),
    *(torch.sparse_coo_tensor, torch.sparse_csr_tensor, torch.sparse_csc_tensor),
)


class _Defaults(TorchFunctionMode):
    """While it is active, tensors made without a dtype or a device are float32 and on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self._dtype, self._active = torch.get_default_dtype(), True

    @contextmanager
    def left_alone(self) -> Iterator[None]:
        """The caller's defaults hold."""
        self._active = False
        try:
            yield
        finally:
            self._active = True

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if not self._active:
            return func(*args, **kwargs)
        if func in _FLOATS or func in _MADE:
            if kwargs.get("device") is None:
                source = args[0] if args and isinstance(args[0], torch.Tensor) else None
                kwargs["device"] = torch.device("cpu") if source is None else source.device
            if func in _FLOATS and kwargs.get("dtype") is None:
                kwargs["dtype"] = torch.float32
        found = func(*args, **kwargs)
        promoted = isinstance(found, torch.Tensor) and found.dtype == self._dtype != torch.float32
        return found.to(torch.float32) if promoted and not self._wanted(func, args, kwargs) else found

    def _wanted(self, func: Callable, args: Any, kwargs: Mapping[str, Any]) -> bool:
        """Whether a result has the dtype because the call named it, or because an argument has it."""
        named = getattr(func, "__name__", "") in ("double", "half", "bfloat16", "type")
        return named or any(map(self._has, (*args, *kwargs.values())))

    def _has(self, value: Any) -> bool:
        if isinstance(value, torch.dtype):
            return True
        if isinstance(value, torch.Tensor):
            return value.dtype == self._dtype or value.is_complex()
        if isinstance(value, np.ndarray):
            return value.dtype.kind == "f"
        return isinstance(value, tuple | list) and any(map(self._has, value))

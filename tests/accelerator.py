"""An accelerator that is none: tensors in the CPU's memory that say they are on `cuda:0` and refuse those of the CPU.

What a GPU refuses fails here in the same way: an operation on tensors of two devices, an array made of a tensor of the
device, a generator of the CPU that shall fill one. Numbers are computed as on the CPU, so that every path runs to its
end, also where it reads a number and goes on by it. `waiting` counts where the host would wait for the device.

`torch._subclasses.FakeTensorMode` has no numbers, and without a driver no gradients either: autograd asks CUDA for the
context of a device of a fake tensor (`hasPrimaryContext expects a valid device index`). So it can follow functions of
tensors alone; `test_fake_tensors.py` does that.
"""

import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._pytree import tree_flatten, tree_map

import heatproof

SOURCE = str(Path(heatproof.__file__).parent)
CPU, DEVICE = torch.device("cpu"), torch.device("cuda:0")
GENERATOR = torch.Generator
#: Functions that make tensors on the `device` named.
FACTORIES = ("arange", "as_tensor", "empty", "empty_like", "eye", "full", "full_like", "linspace", "logspace", "ones",
             "ones_like", "rand", "rand_like", "randint", "randn", "randn_like", "randperm", "scalar_tensor", "tensor",
             "zeros", "zeros_like", "hann_window", "tril_indices", "triu_indices")  # fmt: skip
METHODS = ("new_empty", "new_full", "new_ones", "new_tensor", "new_zeros")
#: Operations that take tensors of two devices: copies, and those of the device at an index on the CPU.
COPIES = ("copy_", "_to_copy")
INDEXED = ("index", "index_put_", "index_put", "_index_put_impl_", "index_fill_")
#: Operations after which the host has to know a number or a size, so that it waits for the device.
READS = {
    "_local_scalar_dense": "number", "equal": "comparison", "allclose": "comparison",
    "nonzero": "size", "masked_select": "size",
    "_unique2": "size", "unique_dim": "size", "unique_consecutive": "size", "bincount": "size",
    "_linalg_check_errors": "status", "_linalg_eigh": "status", "_linalg_svd": "status", "linalg_lstsq": "status",
    "linalg_eig": "status", "multinomial": "status",
}  # fmt: skip
#: Functions that carry numbers of the host to the device.
CARRIERS = ("as_tensor", "tensor", "new_tensor")
#: Functions of heatproof through which others call torch: the line that waits is that of their caller.
PASSED = ("on_host", "on_device", "possibly", "__torch_function__", "_without_rule", "watched",
          "compared", "answer")  # fmt: skip
#: (file, function, line, what for) → times.
Waits = Counter[tuple[str, str, int, str]]
_WATCHED: list[Waits] = []
#: Copies to the host that were not waited for: the copy, and what it will hold. Until then it holds other numbers.
_UNDERWAY: list[tuple[torch.Tensor, torch.Tensor]] = []


@contextmanager
def waiting() -> Iterator[Waits]:
    """Counts where heatproof waits for the device.

    What for: a `number`, a `comparison`, a `size` or a `status` of a result, a `mask` whose positions are an index, a
    copy `to host` or `to device`. These are the rules of torch's CUDA backend, where `torch.cuda.set_sync_debug_mode`
    warns: a copy that is not `non_blocking` waits, in either direction.
    """
    found: Waits = Counter()
    _WATCHED.append(found)
    try:
        yield found
    finally:
        _WATCHED.remove(found)


def _wait(kind: str) -> None:
    """Notes a wait at the innermost line of heatproof that asked for it; none outside."""
    if not _WATCHED:
        return
    frame = sys._getframe(1)
    while frame is not None and not (
        frame.f_code.co_filename.startswith(SOURCE) and frame.f_code.co_name not in PASSED
    ):
        frame = frame.f_back
    if frame is not None:
        file, function = frame.f_code.co_filename[len(SOURCE) + 1 :], frame.f_code.co_qualname
        for hidden in (".<locals>", ".<listcomp>", ".<genexpr>", ".<lambda>", ".<dictcomp>"):
            function = function.replace(hidden, "")
        for one in _WATCHED:
            one[file, function, frame.f_lineno, kind] += 1


def _note(func: Any, args: tuple, kwargs: dict) -> None:
    """Notes the wait of an operation, if it has one."""
    name = func.overloadpacket.__name__
    if name in READS:
        _wait(READS[name])
    elif name == "repeat_interleave" and kwargs.get("output_size") is None:
        _wait("size")
    elif name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
        _wait("to device" if isinstance(args[0], OnDevice) else "to host")
    elif name in INDEXED and name != "index_fill_":
        filled = name != "index" and args[2].numel() == 1  # CUDA fills such a mask without its positions
        for one in args[1]:
            if isinstance(one, OnDevice) and one.dtype in (torch.bool, torch.uint8) and not filled:
                _wait("mask")
            elif isinstance(one, torch.Tensor) and not isinstance(one, OnDevice) and isinstance(args[0], OnDevice):
                _wait("to device")


class OnDevice(torch.Tensor):
    """A tensor of the accelerator."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        _refuse_two_devices(func, args, kwargs or {})
        if _WATCHED:
            _note(func, args, kwargs or {})
        with torch._C._DisableTorchDispatch():
            found = func(*args, **(kwargs or {}))
        return tree_map(_placed, found)

    def numpy(self, *_args: Any, **_kwargs: Any) -> Any:
        """The error of a GPU's tensor."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def tolist(self) -> Any:
        """The numbers, brought to the host."""
        if self.numel():
            _wait("to host")
        return _plain(self).tolist()

    def __deepcopy__(self, memo: dict) -> "OnDevice":
        copied = _placed(_plain(self).clone()).requires_grad_(self.requires_grad)
        copied.__dict__.update(self.__dict__)
        memo[id(self)] = copied
        return copied

    def __repr__(self, **_more: Any) -> str:
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"


def _placed(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or isinstance(value, OnDevice):
        return value
    placed = torch.Tensor._make_subclass(OnDevice, value)
    for memory in _MEMORIES:
        memory.add(placed)
    return placed


class Memory:
    """The memory of the device: what tensors take of it, and the most that they took. Beyond `size` it runs out."""

    def __init__(self, size: int):
        self.size, self.used, self.peak, self.failures = size, 0, 0, 0
        self._storages: Counter[int] = Counter()

    def add(self, tensor: "OnDevice") -> None:
        """A tensor; several may share one piece of memory."""
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if not size:
            return
        self._storages[key] += 1
        if self._storages[key] == 1:
            self.used += size
        weakref.finalize(tensor, self._remove, key, size).atexit = False
        self.peak = max(self.peak, self.used)
        if self.used > self.size:
            self.failures += 1
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")

    def _remove(self, key: int, size: int) -> None:
        self._storages[key] -= 1
        if not self._storages[key]:
            del self._storages[key]
            self.used -= size

    def reset(self, _device: Any = None) -> None:
        """From now on `peak` is that of what follows."""
        self.peak = self.used


_MEMORIES: list[Memory] = []


@contextmanager
def memory(size: int) -> Iterator[Memory]:
    """While it lasts, the device has so many bytes; inside `accelerator`."""
    found = Memory(size)
    figures = {
        "mem_get_info": lambda _device=None: (size - found.used, size),
        "memory_allocated": lambda _device=None: found.used,
        "memory_reserved": lambda _device=None: found.used,
        "max_memory_allocated": lambda _device=None: found.peak,
        "reset_peak_memory_stats": found.reset,
    }
    with ExitStack() as stack:
        for name, figure in figures.items():
            stack.enter_context(patch.object(torch.cuda, name, figure))
        _MEMORIES.append(found)
        stack.callback(_MEMORIES.remove, found)
        yield found


def _autocast(autocast: Any) -> Any:
    """Autocast of the device is that of the CPU, where its numbers are."""

    class Autocast(autocast):
        def __init__(self, device_type: str, *args: Any, **kwargs: Any):
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return Autocast


def _plain(value: torch.Tensor) -> torch.Tensor:
    """The numbers as a tensor of the CPU, without a graph."""
    with torch._C._DisableTorchDispatch():
        return torch.Tensor._make_subclass(torch.Tensor, value.detach())


def _refuse_two_devices(func: Any, args: tuple, kwargs: dict) -> None:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    others = [one for one in tensors if not (isinstance(one, OnDevice) or one._is_zerotensor()) and one.dim()]
    if others and torch._C._current_graph_task_id() != -1:  # torch makes zeros there where it takes the numbers to be
        others = [one for one in others if one.any()]
    name = func.overloadpacket.__name__
    fine = name in COPIES or (name in INDEXED and isinstance(args[0], OnDevice))
    if others and not fine:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {name}.")


class _Copy(torch.autograd.Function):
    """A copy to the other device; the gradient goes the other way."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        ctx.there = isinstance(x, OnDevice)
        return _plain(x).clone() if ctx.there else _placed(x.clone())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return _placed(gradient) if ctx.there else _plain(gradient)


def _moved(x: torch.Tensor, device: torch.device | None, blocking: bool = True) -> torch.Tensor:
    """`x` on the device; None leaves it where it is."""
    there = isinstance(x, OnDevice)
    if device is None or there == (device.type == "cuda"):
        return x
    if blocking and x.numel():
        _wait("to host" if there else "to device")
    return _Copy.apply(x)


def _underway(x: torch.Tensor) -> torch.Tensor:
    """A copy to the host that is not there before `synchronize` is called."""
    arriving = _plain(x).clone()
    _UNDERWAY.append((arriving, arriving.clone()))
    if arriving.dtype is torch.bool:
        arriving.logical_not_()
    else:
        arriving.fill_(torch.nan if arriving.is_floating_point() else 77)
    return arriving


class Stream:
    """The stream of the device."""

    def __init__(self, _device: Any = None):
        pass

    def synchronize(self) -> None:
        """The host waits, and copies that were underway are there."""
        _wait("to host")
        for arriving, values in _UNDERWAY:
            arriving.copy_(values)
        _UNDERWAY.clear()


class _Generators(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, GENERATOR)


class _Generator(metaclass=_Generators):
    """A generator of the CPU, whatever device is named."""

    def __new__(cls, _device: Any = "cpu") -> Any:
        return GENERATOR()


def _device(value: Any) -> torch.device | None:
    if isinstance(value, torch.device) or (isinstance(value, str) and value.partition(":")[0] in ("cuda", "cpu")):
        return torch.device(value)
    return None


def _factory(make: Callable) -> Callable:
    """The function with `device=cuda` obeyed; a generator of the CPU is refused there."""

    @wraps(make)
    def made(*args: Any, **kwargs: Any) -> torch.Tensor:
        device = _device(kwargs.get("device"))
        if device is None or device.type != "cuda":
            if device is not None and args and isinstance(args[0], OnDevice):
                args = (_plain(args[0]), *args[1:])
            return make(*args, **kwargs)
        if isinstance(kwargs.get("generator"), GENERATOR):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if make.__name__ in CARRIERS and not (args and isinstance(args[0], OnDevice)):
            _wait("to device")
        return _placed(make(*args, **{**kwargs, "device": CPU}))

    return made


def _one_hot(one_hot: Callable) -> Callable:
    """It compares with a range that it makes itself, where the numbers are."""
    return lambda x, *args: _placed(one_hot(_plain(x), *args)) if isinstance(x, OnDevice) else one_hot(x, *args)


def _to(to: Callable) -> Callable:
    @wraps(to)
    def moved(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        given = [*args, *(kwargs.pop(name) for name in ("device", "other") if kwargs.get(name) is not None)]
        devices = [value.device if isinstance(value, torch.Tensor) else _device(value) for value in given]
        dtypes = [value.dtype for value in given if isinstance(value, torch.Tensor)]
        rest = [value for value in given if isinstance(value, torch.dtype)]
        blocking = not kwargs.pop("non_blocking", False)
        found = to(self, *dtypes, *rest, **kwargs) if dtypes or rest or kwargs else self
        device = next(filter(None, devices), None)
        if not blocking and isinstance(found, OnDevice) and device is not None and device.type == "cpu":
            return _underway(found)
        return _moved(found, device, blocking)

    return moved


def _of_cpu(about: Callable) -> Callable:
    """What is asked of the autocast of the device is that of the CPU; the CPU itself has none."""
    return lambda device: (
        about("cpu") if device == "cuda" else (False if "enabled" in about.__name__ else about(device))
    )


@contextmanager
def accelerator() -> Iterator[torch.device]:
    """While it lasts, there is a device `cuda`."""
    with ExitStack() as stack:
        for owner, names in ((torch, FACTORIES), (torch.Tensor, METHODS)):
            for name in names:
                stack.enter_context(patch.object(owner, name, _factory(getattr(owner, name))))
        for name, replaced in (
            ("to", _to(torch.Tensor.to)),
            ("cpu", lambda self, *_a, **_k: _moved(self, CPU)),
            ("cuda", lambda self, *_a, **_k: _moved(self, DEVICE)),
            ("type_as", lambda self, other: self.to(other)),
        ):
            stack.enter_context(patch.object(torch.Tensor, name, replaced))
        stack.enter_context(patch.object(torch.Tensor, "pin_memory", lambda self, *_a: self))
        stack.enter_context(patch.object(torch.cuda, "current_stream", Stream))
        for name, value in (("autocast", _autocast(torch.autocast)),
                            ("is_autocast_enabled", _of_cpu(torch.is_autocast_enabled)),
                            ("get_autocast_dtype", _of_cpu(torch.get_autocast_dtype))):  # fmt: skip
            stack.enter_context(patch.object(torch, name, value))
        stack.enter_context(patch.object(torch.cuda, "is_bf16_supported", lambda **_: True))
        for memory_figure in ("mem_get_info", "memory_allocated", "memory_reserved", "max_memory_allocated"):
            value = (1 << 30, 1 << 30) if memory_figure == "mem_get_info" else 0
            stack.enter_context(patch.object(torch.cuda, memory_figure, lambda _device=None, value=value: value))
        stack.enter_context(patch.object(torch.cuda, "reset_peak_memory_stats", lambda _device=None: None))
        # The global generator of the device is that of the CPU.
        stack.enter_context(patch.object(torch, "Generator", _Generator))
        stack.enter_context(patch.object(torch.cuda, "get_rng_state", lambda _device="cuda": torch.get_rng_state()))
        stack.enter_context(
            patch.object(torch.cuda, "set_rng_state", lambda state, _device="cuda": torch.set_rng_state(state))
        )
        functional = torch.nn.functional
        stack.enter_context(patch.object(functional, "one_hot", _one_hot(functional.one_hot)))
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        yield DEVICE

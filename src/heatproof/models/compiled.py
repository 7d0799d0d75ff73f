"""A compiled copy of a network, for passes from which nothing but the logits is wanted.

Metrics, ROAD, curves, RISE, ScoreCAM and LIME ask for logits of changed images: no gradient, no layer. PyTorch's
inductor fuses and freezes such passes; the logits agree to rounding. A network is compiled once for one shape
`(rows, C, *spatial)`; larger passes are split into such, somewhat smaller ones are filled up, and what is far smaller
runs as it is.

What is compiled is machine code. It lies in a folder of the user's (`heatproof.files.cache_folder`), from which workers
load it in a second or two, and never in a results folder, which may come from somebody else.
"""

import copy
import hashlib
import logging
import platform
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heatproof.ambient import autocast_dtype
from heatproof.errors import ModelError
from heatproof.files import cache_folder
from heatproof.models.model import Model
from heatproof.passes import rows_per_pass
from heatproof.quiet import ignored_warnings

#: How far the logits of the two may differ, as a share of the largest magnitude of the logits of the network itself.
TOLERANCE = 1e-4
#: The share of a full pass from which on fewer rows are filled up: a compiled pass takes .6 to .9 of an eager one.
FILLED = 0.75
#: The most rows of a pass: more gain nothing (Shapes takes 1.1 ms an image with 8, 1.1 with 16, 1.0 with 43), and
#: fewer are more often full.
ROWS = 8


class CompiledNetwork(nn.Module):
    """Normalised images of one shape → what the network returns; fewer images are repeated to that shape.

    Attributes:
        shape: of the images of a pass, `(rows, C, *spatial)`.
    """

    def __init__(self, run: Callable[[torch.Tensor], Any], shape: tuple[int, ...]):
        super().__init__()
        self.run, self.shape = run, shape

    def suits(self, z: torch.Tensor) -> bool:
        """Whether passes of these images may run here: their size, how many there are, and nobody wants a gradient."""
        wanted = torch.is_grad_enabled() and z.requires_grad
        plain = z.dtype is torch.float32 and z.device.type == "cpu" and autocast_dtype(z.device) is None
        return plain and not wanted and len(z) >= self.shape[0] * FILLED and tuple(z.shape[1:]) == self.shape[1:]

    def takes(self, z: torch.Tensor) -> bool:
        """Whether these images may run here as one pass."""
        return self.suits(z) and len(z) <= self.shape[0]

    def forward(self, z: torch.Tensor) -> Any:
        with torch.no_grad():
            return self.run(laid_out(filled(z, self.shape)))


def laid_out(z: torch.Tensor) -> torch.Tensor:
    """Images with their channels last in memory, which convolutions prefer; other inputs in one piece."""
    return z.contiguous(memory_format=torch.channels_last) if z.dim() == 4 else z.contiguous()


def with_compiled(model: Model, check: torch.Tensor | None = None) -> Model:
    """The same classifier with a compiled copy of its network; compiles it unless that was done before.

    Args:
        check: normalised images `(N, C, *spatial)` on which the two are compared, beside random ones.

    Raises:
        ModelError: it cannot be compiled, or its logits differ by more than `TOLERANCE`.
    """
    shape = pass_shape(model)
    twin = copy.copy(model)
    twin.compiled = CompiledNetwork(_loaded(model, shape), shape)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for z in (drawn, check):
        if z is not None:
            _compare(model, twin, filled(z.float(), shape))
    return twin


def pass_shape(model: Model) -> tuple[int, ...]:
    """The shape of a compiled pass: more images go through it one part after the other."""
    one = torch.empty(1, *model.input_shape)
    return (min(ROWS, rows_per_pass(one)), *model.input_shape)


def why_not(model: Model) -> str:
    """Why a network cannot be compiled on this machine; empty where nothing speaks against it."""
    if model.device.type != "cpu":
        return f"it is on {model.device.type}, and only networks on the CPU are compiled"
    if model.dtype is not torch.float32:
        return f"its weights are {str(model.dtype).removeprefix('torch.')}, and only float32 is compiled"
    if shutil.which(str(sysconfig.get_config_var("CXX") or "g++").split()[0]) is None and shutil.which("g++") is None:
        return "there is no C++ compiler (g++) on this machine"
    return ""


def check_compilable(model: Model) -> None:
    """ModelError where a network cannot be compiled on this machine."""
    if why := why_not(model):
        raise ModelError(f"{model.name} cannot be compiled: {why}. Leave --compile out, or take --compile never.")


def is_cached(model: Model) -> bool:
    """Whether the network has been compiled before, for passes of this shape and as many threads as are set."""
    return (cache_folder("compiled") / f"{_key(model, pass_shape(model))}.pt2").is_file()


def _loaded(model: Model, shape: tuple[int, ...]) -> Callable[[torch.Tensor], Any]:
    """The compiled network from the cache, compiled first if it is not there or cannot be read."""
    from filelock import FileLock

    check_compilable(model)
    folder = cache_folder("compiled")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_key(model, shape)}.pt2"
    with FileLock(folder / f"{path.stem}.lock"), ignored_warnings(), _quiet_tools():
        if path.is_file():
            try:
                return torch._inductor.aoti_load_package(str(path))
            except Exception:  # a damaged file, which raises errors of many types
                path.unlink()
        _compile(model, shape, path)
        return torch._inductor.aoti_load_package(str(path))


@contextmanager
def _quiet_tools() -> Iterator[None]:
    """Without the log line that there is no CUDA: networks are compiled for the CPU."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        yield
    finally:
        logger.setLevel(level)


def _key(model: Model, shape: tuple[int, ...]) -> str:
    """What machine code depends on: the network, the shape, the threads, PyTorch and the processor."""
    machine = (torch.__version__, torch.backends.cpu.get_cpu_capability(), platform.machine(), platform.processor())
    about = (model.fingerprint, str(model.module), shape, torch.get_num_threads(), *machine)
    return hashlib.blake2b(repr(about).encode(), digest_size=16).hexdigest()


def _compile(model: Model, shape: tuple[int, ...], path: Path) -> None:
    """Writes the compiled network to `path`."""
    from torch._inductor import config as inductor  # takes a second to import

    module = model.copied().module
    z = laid_out(torch.zeros(shape))
    with model.with_module(module).evaluating(), torch.no_grad(), ignored_warnings():
        try:
            if z.dim() == 4:
                module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            with inductor.patch({"freezing": True}), tempfile.TemporaryDirectory() as made:
                exported = torch.export.export(module, (z,))
                package = torch._inductor.aoti_compile_and_package(exported, package_path=str(Path(made) / "made.pt2"))
                part = path.with_name(f".{path.name}.part")
                shutil.copyfile(package, part)
                part.replace(path)
        except Exception as error:  # export and compilers raise errors of many types
            first = (str(error).strip().splitlines() or [""])[0]
            raise ModelError(f"{model.name} cannot be compiled: {type(error).__name__}: {first[:200]}") from error


def filled(z: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """These images, repeated to the rows of a pass."""
    if len(z) == shape[0]:
        return z
    return z.repeat(-(-shape[0] // len(z)), *[1] * (z.dim() - 1))[: shape[0]]


def _compare(model: Model, twin: Model, z: torch.Tensor) -> None:
    """ModelError where the compiled network gives other logits."""
    with model.evaluating(), torch.no_grad():
        wanted, got = model.of_normalised(z), twin.answers(z)
    largest = float(wanted.abs().max())
    error = float((wanted - got).abs().max())
    if not error <= TOLERANCE * max(largest, 1e-6):
        raise ModelError(
            f"{model.name}, compiled, gives other logits: they differ by {error:.2g}, where the largest is "
            f"{largest:.2g}. Take --compile never."
        )

"""The floor: how many network passes the mathematics needs, what plain ones take, and how both are measured.

Three kinds of passes: a *forward* builds no graph; a *head* pass is a forward without a graph up to the layer, with
one from there to the logits, and the gradient back to the layer; a *full* pass is a forward and the gradient back
to the image. `counting` sees which ones a piece of work really makes.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

Work = Callable[[], object]

#: Gradients that a kind of perturbation needs: at the clean image (once) and at each severity.
ATTACKS = {"fgsm": (1, 0), "pgd-linf": (0, 10), "pgd-l2": (0, 10)}


@dataclass
class Passes:
    """Passes of one batch, by kind."""

    forward: int = 0
    head: int = 0
    full: int = 0

    def items(self) -> Iterator[tuple[str, int]]:
        """The kinds that are there, with how many."""
        counts = ((kind.name, getattr(self, kind.name)) for kind in fields(self))
        return ((kind, count) for kind, count in counts if count)


def study_passes(perturbations: Mapping[str, bool], severities: int) -> Passes:
    """What one batch of a noise study needs, for `perturbations`: kind → whether it is an attack.

    One head pass for the clean images and one for every condition; for the attacks the gradients of `ATTACKS`.
    """
    unknown = [kind for kind, attack in perturbations.items() if attack and kind not in ATTACKS]
    if unknown:
        raise ValueError(f"Expected attacks with a known number of passes ({', '.join(ATTACKS)}). Got {unknown[0]}.")
    attacks = [ATTACKS[kind] for kind, attack in perturbations.items() if attack]
    full = sum(once + each * severities for once, each in attacks)
    return Passes(head=1 + len(perturbations) * severities, full=full)


def forward_pass(network: Callable, z: torch.Tensor) -> torch.Tensor:
    """A plain forward, no graph."""
    with torch.no_grad():
        return network(z)


def head_pass(trunk: Callable, head: Callable, z: torch.Tensor) -> torch.Tensor:
    """A forward and the gradient of the predicted logit at the layer between `trunk` and `head`."""
    with torch.no_grad():
        leaf = trunk(z)
    leaf = leaf.requires_grad_()
    with torch.enable_grad():
        score = head(leaf).amax(1).sum()
    return torch.autograd.grad(score, leaf)[0]


def full_pass(network: nn.Module, z: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A forward and the gradient of the cross-entropy at the input."""
    leaf = z.detach().requires_grad_()
    with torch.enable_grad():
        loss = nn.functional.cross_entropy(network(leaf), target, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


@dataclass
class Timing:
    """Seconds of one piece of work in each repetition: on the wall, and of the processor (all threads)."""

    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def run(self, work: Work) -> None:
        """One more repetition."""
        begin, used = time.perf_counter(), time.process_time()
        work()
        self.seconds.append(time.perf_counter() - begin)
        self.processor.append(time.process_time() - used)

    @property
    def median(self) -> float:
        """The middle repetition."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile; both the only value where there is one."""
        return quartiles(self.seconds)


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and the third quartile of at least one value."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


@contextmanager
def no_collection() -> Iterator[None]:
    """The garbage collector waits outside the clock."""
    gc.collect()
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def interleaved(
    works: Mapping[str, Work], repeats: int, warmups: int = 2, seldom: Mapping[str, int] | None = None
) -> dict[str, Timing]:
    """Runs the works in turn, A B A B …, so that whatever slows the machine slows all of them.

    Args:
        seldom: for works that take long, how many repetitions at most; these get one warm-up, spread over the rest.
    """
    seldom = dict(seldom or {})
    for name, work in works.items():
        for _ in range(1 if name in seldom else warmups):
            work()
    times = {name: Timing() for name in works}
    with no_collection():
        for number in range(repeats):
            for name, work in works.items():
                if name in seldom and not _due(number, repeats, seldom[name]):
                    continue
                times[name].run(work)
            gc.collect()
    return times


def _due(number: int, repeats: int, wanted: int) -> bool:
    """Whether repetition `number` is one of `wanted`, spread evenly over `repeats`."""
    return number * wanted // repeats != (number - 1) * wanted // repeats if number else True


@dataclass
class Made:
    """The passes a piece of work made: how many of each kind, and of how many images."""

    passes: Passes = field(default_factory=Passes)
    images: Passes = field(default_factory=Passes)

    def add(self, kind: str, rows: int, sign: int = 1) -> None:
        """One more pass of `rows` images."""
        setattr(self.passes, kind, getattr(self.passes, kind) + sign)
        setattr(self.images, kind, getattr(self.images, kind) + sign * rows)


@contextmanager
def counting(network: nn.Module) -> Iterator[Made]:
    """Counts every call of `network` by what becomes of it: a forward, a head pass, or a full pass.

    A call counts as a forward until a gradient comes back through its logits; a full pass is one whose input asked
    for a gradient. A second backward through the same logits counts again. Calls that replay a tail count as
    forwards here: `convolutions` tells those apart.
    """
    made = Made()

    def watch(_module: nn.Module, inputs: tuple, logits: torch.Tensor) -> None:
        kind = "full" if inputs[0].requires_grad else "head"
        made.add("forward", len(logits))
        state = {"first": True}

        def came_back(_gradient: torch.Tensor) -> None:
            if state.pop("first", False):
                made.add("forward", len(logits), -1)
            made.add(kind, len(logits))

        if logits.requires_grad:
            logits.register_hook(came_back)

    handle = network.register_forward_hook(watch)
    try:
        yield made
    finally:
        handle.remove()


@dataclass
class Convolutions(TorchDispatchMode):
    """Counts the convolutions that are really computed, and their backward passes: replayed modules compute none."""

    forward: int = 0
    backward: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.forward += name == "convolution"
        self.backward += name == "convolution_backward"
        return func(*args, **(kwargs or {}))

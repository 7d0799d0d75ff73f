"""Whether networks of a study run on compiled copies where only logits are wanted: decided once, and recorded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from heatproof.errors import ModelError, warn
from heatproof.models import Model
from heatproof.models.compiled import check_compilable, is_cached, pass_shape, why_not, with_compiled
from heatproof.studies.cost import Passes
from heatproof.studies.loading import StudyModels
from heatproof.studies.settings import Plan
from heatproof.studies.stopwatch import Stopwatch

#: The share of a pass that a compiled one is taken to save, before it is known: at least, by which is decided, and
#: usually, by which is predicted. Measured on one core: .12 ConvNeXt-T, .17–.30 ResNet-18, .35 Shapes, .38–.51
#: EfficientNet-Lite0.
LEAST, USUAL = 0.12, 0.25
#: Seconds that compiling takes, and that loading a copy from the cache may.
COMPILING, LOADING = 60.0, 5.0
#: Passes that are timed, of which the fastest counts; a first one loads what it needs.
RATED = 5
#: Fewer images than these under one model are not worth counting passes for.
FEW = 16

#: Why a network has a compiled copy, or none.
ASKED, PAYS = "asked for", "saves more than it takes"
REFUSED, IMPOSSIBLE = "refused", "impossible"
TOO_FEW, UNKNOWN, NONE = "too few images", "passes not counted", "no such passes"
TOO_DEAR = "saves less than it takes"


@dataclass(frozen=True)
class CompileChoice:
    """Whether the passes of a model from which only logits are wanted run on a compiled copy of its network, and why.

    Attributes:
        model: its label.
        compiled: the choice.
        because: one of the reasons of this module.
        passes: how many such passes of images all images need; 0 where they were not counted, in JSON null.
        gain: the share of a pass that a compiled one saves.
        measured: whether the gain was measured on the copy in the cache; else it is assumed.
        saved: seconds that it saves by this count: where the gain is assumed, at least.
        cached: whether the copy is in the cache.
        why_not: why the network cannot be compiled.
    """

    model: str
    compiled: bool
    because: str
    passes: float = 0.0
    gain: float = USUAL
    measured: bool = False
    saved: float = 0.0
    cached: bool = False
    why_not: str = ""

    @property
    def compiling(self) -> float:
        """Seconds that compiling takes before the first job."""
        return COMPILING if self.compiled and not self.cached else 0.0

    @property
    def facts(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "model": self.model, "compiled": self.compiled, "because": self.why_not or self.because,
            "passes": round(self.passes) or None, "share saved": round(self.gain, 3), "measured": self.measured,
            "cached": self.cached, "seconds of compiling": self.compiling,
        }  # fmt: skip


def asked_to_compile(plan: Plan, recorded: Mapping[str, Any] | None) -> list[str] | None:
    """The names of the models that run on compiled copies: asked for, or begun so; None where that is to be decided."""
    if plan.compile != "auto":
        return [one.label for one in plan.models] if plan.compile == "always" else []
    return None if recorded is None else list(recorded.get("compiled") or [])


def compile_choices(
    plan: Plan, models: StudyModels, costs: Callable[[], Sequence[Passes]], images: int
) -> list[CompileChoice]:
    """The choice for every model; nothing is compiled.

    costs: the passes of an image under each model; none where they cannot be counted. images: under each model.

    Raises:
        ModelError: `--compile always` of a network that cannot be compiled on this machine.
    """
    with threads(plan.threads):
        return [_choice(plan, index, models, costs, images) for index in range(len(models))]


def _choice(
    plan: Plan, index: int, models: StudyModels, costs: Callable[[], Sequence[Passes]], images: int
) -> CompileChoice:
    model, label = models(index), plan.models[index].label
    if plan.compile == "always":
        check_compilable(model)
    if why := why_not(model):
        return CompileChoice(label, False, IMPOSSIBLE, why_not=why)
    cached = is_cached(model)
    if plan.compile == "auto" and images < FEW:
        return CompileChoice(label, False, TOO_FEW, cached=cached)
    counted = costs()
    passes = counted[index].plain * images if counted else 0.0
    each = seconds_of_pass(model) if passes else 0.0
    # Loading a copy takes seconds, so it is measured only where it can save some.
    gain = gain_of(model) if cached and (plan.compile == "always" or passes * each > LOADING) else None
    saved = passes * each * (LEAST if gain is None else gain)
    pays = saved > (LOADING if cached else COMPILING)
    found = PAYS if pays else UNKNOWN if not counted else TOO_DEAR if passes else NONE
    because = {"always": ASKED, "never": REFUSED}.get(plan.compile, found)
    usual = USUAL if gain is None else gain
    compiled = because in (ASKED, PAYS)
    return CompileChoice(label, compiled, because, passes, usual, gain is not None, saved, cached)


def compile_chosen(models: StudyModels, choices: Sequence[CompileChoice]) -> list[str]:
    """Compiles the models of which that was chosen, and gives their names; a warning for one that cannot be."""
    found: list[str] = []
    for index, choice in enumerate(choices):
        if choice.compiled:
            try:
                models.compile([*found, choice.model])
                models(index)
                found.append(choice.model)
            except ModelError as error:
                models.compile(found)
                warn(f"{str(error).partition('. ')[0]}. The network runs as it is.")
    return found


def compile_all(models: StudyModels, names: Sequence[str]) -> None:
    """Compiles these models, so that workers find them in the cache.

    Raises:
        ModelError: one cannot be compiled on this machine.
    """
    models.compile(names)
    for index, one in enumerate(models.plan.models):
        if one.label in names:
            models(index)


def seconds_of_pass(model: Model) -> float:
    """Seconds of a pass for logits alone, for one image of a full pass: the fastest of some."""
    return seconds_of_passes([model])[0]


def seconds_of_passes(models: Sequence[Model]) -> list[float]:
    """The same of a network and its copies, which take turns."""
    found: list[list[float]] = [[] for _ in models]
    z = torch.zeros(pass_shape(models[0]), device=models[0].device)
    with models[0].evaluating(), torch.no_grad():
        for _ in range(1 + RATED):
            for model, seconds in zip(models, found, strict=True):
                with Stopwatch(model.device.type, torch.get_num_threads()) as watch:
                    model.answers(z)
                seconds.append(watch.seconds / len(z))
    return [min(seconds[1:]) for seconds in found]


def gain_of(model: Model) -> float | None:
    """The share of a pass that the copy in the cache saves; None where there is no copy that can be used."""
    try:
        eager, compiled = seconds_of_passes([model, with_compiled(model)])
    except ModelError:  # the run says why
        return None
    return max(0.0, 1 - compiled / eager)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch computes with so many threads inside; a compiled copy belongs to their number."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)

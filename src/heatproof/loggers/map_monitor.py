"""Maps of a few fixed images every so many steps of training, with their scores; training goes on as without them."""

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.attributions import requested
from heatproof.engine import dry_run
from heatproof.errors import InvalidInput, warn
from heatproof.explained_output import Output
from heatproof.loggers.chosen_loggers import loggers_of
from heatproof.loggers.logger import GuardedLogger
from heatproof.loggers.monitored_images import (
    MonitoredImages,
    Part,
    checked_settings,
    classifier,
    monitored_model,
)
from heatproof.loggers.step_maps import StepMaps, step_maps, step_panels, step_scalars, without_value
from heatproof.loggers.unchanged_training import unchanged_training
from heatproof.metrics.metric_request import MetricRequest, requested_metrics
from heatproof.models import Model
from heatproof.panels.selection import FAMILIES
from heatproof.passes import check_int

#: The metrics where none is named.
MONITORED_METRICS = ("arcc",)


class MapMonitor:
    """Explains a few fixed images every `every` steps of training, scores the maps, and logs both.

    The network is explained in eval mode. Training goes on bit for bit as without the monitor: modes, gradients,
    random generators, statistics of batch norm and autocast are as they were. In a distributed run only the process of
    rank 0 does anything. docs/training.md lists what is logged, and what it costs.

    Args:
        images: a tensor `(N, C, H, W)` as the network takes it, a Dataset of such tensors, or what `heatproof.explain`
            takes: paths, PIL images, a folder. They are opened once. A file that cannot be read is left out, with a
            warning.
        methods: as of `heatproof.show`.
        metrics: as of `heatproof.score`; none is allowed. Metrics of a reference or of parts are not.
        every: explain at the first call of `step`, and whenever a multiple of `every` is reached.
        logger: `tensorboard`, `wandb`, `mlflow`, a `Logger`, a SummaryWriter, a run, a logger of Lightning, or several;
            None keeps `history` alone.
        network: where the classifier is in the module given to `step`: the name of an attribute, or a function; by
            default it is the module itself.
        panels: draw the first so many images; all are scored.
        target, layer, labels, masks, output, seed, batch_size: as of `heatproof.explain` and `heatproof.show`, with one
            class for each image. `label` explains the same class at every step.
        normalised: tensors are normalised as in training. Where mean and std are known, from `settings` or from the
            network's configuration, they are undone, so that masked pixels are black or grey; else tensors are taken as
            they are. False: they lie in [0, 1].
        name: what the names in the log begin with.
        settings: of `heatproof.wrap`, such as `mean`, `std`, `size`, `classes`, `processor`, `multi_label`.

    Attributes:
        history: step → the numbers logged.

    Raises:
        UnknownName, InvalidInput, MissingExtra: when it is made.
        InvalidInput, InvalidTarget, LayerError, NotApplicable, ModelError: by `prepare`, or by the first `step`. Later
            errors are one warning, and so is a logger that fails.

    Examples:
        >>> import torch
        >>> from heatproof.loggers import MapMonitor
        >>> network = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        ...     torch.nn.Linear(8, 5),
        ... )
        >>> images = torch.randn(2, 3, 32, 32)
        >>> with MapMonitor(images, "gradcam", "deletion", every=2, logger=None) as monitor:
        ...     for step in range(5):  # a training step, then:
        ...         found = monitor.step(network, step)
        >>> sorted(monitor.history)
        [0, 2, 4]
        >>> sorted(monitor.history[0])[:2]
        ['heatproof/deletion/gradcam', 'heatproof/flagged/gradcam']
    """

    def __init__(
        self,
        images: Any,
        methods: str | Iterable[str] | Mapping[str, Mapping[str, Any]] = ("gradcam",),
        metrics: str | Iterable[str] | Mapping[str, Mapping[str, Any]] = MONITORED_METRICS,
        *,
        every: int = 500,
        logger: Any = "tensorboard",
        network: Part = None,
        panels: int = 8,
        target: Any = "predicted",
        layer: str | nn.Module = "auto",
        labels: Any = None,
        masks: Any = None,
        output: Output = "logit",
        seed: int = 0,
        batch_size: int = 16,
        normalised: bool = True,
        name: str = "heatproof",
        **settings: Any,
    ):
        self.every, self.panels = check_int("every", every), check_int("panels", panels, 0)
        self.batch_size, self.name = check_int("batch_size", batch_size), name
        self.metrics = metrics if isinstance(metrics, str | Mapping) else list(metrics)
        self.methods = methods if isinstance(methods, str | Mapping) else list(methods)
        _check_methods(self.methods)
        dry_run(self._requests(values=False))
        self._settings = checked_settings(settings)
        self._show = {"target": target, "layer": layer, "labels": labels, "masks": masks, "output": output,
                      "seed": seed, "batch_size": batch_size, "normalised": normalised}  # fmt: skip
        self._given, self._part = images, network
        self.loggers = [GuardedLogger(one) for one in loggers_of(logger)]
        self.history: dict[int, dict[str, float]] = {}
        self._images: MonitoredImages | None = None
        self._wanted: list[MetricRequest] = []
        self._previous: StepMaps | None = None
        self._last: int | None = None
        self._latest: tuple[Any, int] | None = None
        self._explained = self._warned = False

    def log_to(self, logger: Any) -> None:
        """Logs to these loggers from now on."""
        self.loggers = [GuardedLogger(one) for one in loggers_of(logger)]

    @neutral()
    def prepare(self, network: Any) -> None:
        """Checks methods, layers, targets and metrics for a network, and opens the images, before training begins.

        Args:
            network: a module on its device, also one inside DDP or `torch.compile`; or a `heatproof.Model`.

        Raises:
            InvalidInput, InvalidTarget, UnknownName, LayerError, NotApplicable, ModelError: what was expected.
        """
        found = classifier(network, self._part)
        module = found.module if isinstance(found, Model) else found
        if self._images is not None and self._images.work.model.module is module:
            self._images.follow(module)
            return
        with unchanged_training(module, self._show["seed"]):
            model = monitored_model(found, self._given, self._show["normalised"], self._settings)
            images = MonitoredImages.of(model, self._given, methods=self.methods, **self._show)
        self._wanted = self._requests(values=images.work.model.of_values)
        self._images, self._previous = images, None

    def due(self, step: int) -> bool:
        """Whether `step` is explained: the first one, and each in which a multiple of `every` is reached."""
        return self._last is None or (step != self._last and step // self.every != self._last // self.every)

    def step(self, network: Any, step: int, *, force: bool = False) -> dict[str, float] | None:
        """Explains the images where `step` is due, and logs maps and scores.

        Args:
            network: as of `prepare`. step: the number of training steps done. force: also where it is not due.

        Returns:
            The numbers logged, by name; None where the step is not due, or failed with a warning.

        Raises:
            As `prepare`, and whatever a method or a metric raises, the first time; never later.
        """
        if not is_first_process():
            return None
        self._latest = (network, step)
        if not (force or self.due(step)):
            return None
        self._last = step
        first = not self._explained
        try:
            found = self._explain(network, step)
        except Exception as error:
            if first:
                raise
            self._warn_of(error, step)
            return None
        self._explained = True
        return found

    def close(self, final: bool = True) -> None:
        """Explains the last step, unless it was, and closes the loggers that were opened here.

        A later `step` begins anew: it is explained, and compared with the maps of the last one.

        `final`: False leaves the last step out.
        """
        latest, self._latest = self._latest, None
        if final and latest is not None and latest[1] != self._last:
            self.step(*latest, force=True)
        self._latest = self._last = None
        for one in self.loggers:
            one.close()

    def __enter__(self) -> "MapMonitor":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(final=kind is None)

    @neutral()
    def _explain(self, network: Any, step: int) -> dict[str, float]:
        began = time.perf_counter()
        self.prepare(network)
        images = self._images
        assert images is not None
        with unchanged_training(images.work.model.module, images.work.seed):
            found = step_maps(images, self._wanted, self._previous, batch_size=self.batch_size, survive=self._explained)
            drawn = step_panels(images, found, self.name, self.panels) if self.loggers else []
        if not self._explained:
            for reason, scores in without_value(found).items():
                warn(f"No image has a value for {scores}: {reason.rstrip('.')}.")
        scalars = step_scalars(found, self._previous, images.methods, self.name)
        scalars[f"{self.name}/seconds"] = time.perf_counter() - began
        self._previous, self.history[step] = found, scalars
        for one in self.loggers:
            one.log(drawn, scalars, step)
        return scalars

    def _requests(self, values: bool) -> list[MetricRequest]:
        if not self.metrics:
            return []
        return requested_metrics(self.metrics, reference=False, values=values, mosaics=False, parted=False)

    def _warn_of(self, error: Exception, step: int) -> None:
        if self._warned:
            return
        self._warned = True
        text = " ".join(f"{type(error).__name__}: {error}".split())
        warn(
            f"No maps at step {step}: {text[:300].rstrip('.')}. Training goes on, and so do maps at later steps; "
            "a further failure gives no warning."
        )


def is_first_process() -> bool:
    """Whether this is the process of rank 0, or the only one."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not there or torch.distributed.get_rank() == 0


def _check_methods(methods: str | Sequence[str] | Mapping[str, Any]) -> None:
    """Raises UnknownName or InvalidInput for a name, an option or a layer's spelling that cannot be."""
    names = [methods] if isinstance(methods, str) else list(methods)
    if not names:
        raise InvalidInput("Expected at least one method. Got none.")
    own = [name for name in names if name not in FAMILIES]
    if own:
        requested({name: methods[name] for name in own} if isinstance(methods, Mapping) else own)

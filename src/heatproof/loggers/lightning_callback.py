"""A callback of Lightning that logs maps and scores while a network is trained."""

import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

from heatproof.errors import InvalidInput, MissingExtra
from heatproof.loggers.map_monitor import MapMonitor


def _callback_class() -> Any:
    """That of the package in use; their trainers take a callback of either."""
    names = ["lightning.pytorch", "pytorch_lightning"]
    for name in sorted(names, key=lambda name: name not in sys.modules):
        with suppress(ImportError):
            return import_module(name).Callback
    raise MissingExtra('LightningMapMonitor needs Lightning: pip install "heatproof[lightning]"')


Callback: Any = _callback_class()

#: Takes the loggers of the trainer.
AUTO = "auto"


class LightningMapMonitor(Callback):
    """Logs maps and scores of a few fixed images every `every` steps of the optimiser, at the start and at the end.

    For `lightning.pytorch` and `pytorch_lightning`. Training goes on bit for bit as without it. Only the process of
    rank 0 does anything. Gradient accumulation counts as in Lightning: steps are those of the optimiser.

    Args:
        args: as of `MapMonitor`: images, methods, metrics.
        logger: as of `MapMonitor`; by default the loggers of the trainer. Of these, loggers of TensorBoard, Weights &
            Biases and MLflow get maps and scores, others scores alone.
        network: the name of the attribute of the LightningModule that is the classifier, or a function of it; by
            default the LightningModule itself, whose `forward` gives logits.
        settings: further ones as of `MapMonitor`, such as `every`, `target`, `mean` and `std`.

    Attributes:
        monitor: the `MapMonitor`; `monitor.history` holds the numbers.

    Raises:
        UnknownName, InvalidInput, MissingExtra: when it is made, or before training begins.

    Examples:
        >>> import torch
        >>> from heatproof.loggers import LightningMapMonitor
        >>> callback = LightningMapMonitor(torch.randn(2, 3, 32, 32), ["gradcam", "layercam"], every=200)
        >>> # lightning.Trainer(callbacks=[callback]).fit(module, loader)
        >>> callback.monitor.every
        200
    """

    def __init__(self, *args: Any, logger: Any = AUTO, **settings: Any):
        super().__init__()
        self._auto = isinstance(logger, str) and logger == AUTO
        self.monitor = MapMonitor(*args, logger=None if self._auto else logger, **settings)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Checks everything that can be checked before training begins."""
        if not trainer.is_global_zero:
            return
        if self._auto:
            if not trainer.loggers:
                raise InvalidInput("The trainer has no logger. Give LightningMapMonitor a `logger`, or None.")
            self.monitor.log_to(list(trainer.loggers))
        self.monitor.prepare(pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Explains the images with the network as it is before the first step."""
        self._step(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
        """Explains the images where the step of the optimiser is due."""
        self._step(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Explains the images with the network as it is after the last step."""
        if trainer.is_global_zero:
            self.monitor.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Writes what is left."""
        if trainer.is_global_zero:
            self.monitor.close(final=False)

    def _step(self, trainer: Any, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.monitor.step(pl_module, trainer.global_step)

"""A callback of the Trainer of Hugging Face that logs maps and scores while a network is trained."""

import os
from pathlib import Path
from typing import Any

from heatproof.errors import InvalidInput, MissingExtra
from heatproof.loggers.chosen_loggers import LOGGERS
from heatproof.loggers.logger import Logger
from heatproof.loggers.map_monitor import MapMonitor
from heatproof.loggers.tensorboard_logger import TensorBoardLogger

try:
    from transformers.trainer_callback import TrainerCallback
except ImportError as error:
    raise MissingExtra('TrainerMapMonitor needs transformers: pip install "heatproof[hf]"') from error

#: Takes what the training arguments report to.
AUTO = "auto"


class TrainerMapMonitor(TrainerCallback):
    """Logs maps and scores of a few fixed images every `every` steps of the optimiser, at the start and at the end.

    For image-classification models of transformers and any other module that the Trainer trains. Training goes on bit
    for bit as without it. Only the process of rank 0 does anything. Gradient accumulation counts as in the Trainer:
    steps are those of the optimiser.

    Args:
        args: as of `MapMonitor`: images (tensors are `pixel_values`), methods, metrics.
        logger: as of `MapMonitor`; by default those of `report_to`: the active runs of Weights & Biases and MLflow,
            and for TensorBoard a run `heatproof` beside the Trainer's own (`$TENSORBOARD_LOGGING_DIR`, else
            `OUTPUT_DIR/runs`).
        settings: further ones as of `MapMonitor`, such as `every`, `target`, `processor` (the image processor, which
            says mean and std) and `network`, where the classifier is in the model.

    Attributes:
        monitor: the `MapMonitor`; `monitor.history` holds the numbers.

    Raises:
        UnknownName, InvalidInput, MissingExtra: when it is made, or before training begins.

    Examples:
        >>> import torch
        >>> from heatproof.loggers import TrainerMapMonitor
        >>> callback = TrainerMapMonitor(torch.randn(2, 3, 32, 32), "gradcam", every=200, logger=None)
        >>> # transformers.Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
        >>> callback.monitor.every
        200
    """

    def __init__(self, *args: Any, logger: Any = AUTO, **settings: Any):
        super().__init__()
        self._auto = isinstance(logger, str) and logger == AUTO
        self.monitor = MapMonitor(*args, logger=None if self._auto else logger, **settings)

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Checks everything, and explains the images with the network as it is before the first step."""
        if not state.is_world_process_zero:
            return
        if self._auto:
            self.monitor.log_to(reported_loggers(args))
        self.monitor.prepare(given["model"])
        self.monitor.step(given["model"], state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Explains the images where the step of the optimiser is due."""
        if state.is_world_process_zero:
            self.monitor.step(given["model"], state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Explains the images with the network as it is after the last step."""
        if state.is_world_process_zero:
            self.monitor.close()


def reported_loggers(args: Any) -> list[Logger]:
    """The loggers of the training arguments' `report_to`.

    Raises:
        InvalidInput: none of them takes images. MissingExtra: what it needs is missing.
    """
    names = [name for name in args.report_to or [] if name in LOGGERS]
    if not names:
        told = ", ".join(args.report_to or []) or "nothing"
        raise InvalidInput(
            f"`report_to` must hold one of {', '.join(LOGGERS)}. Got {told}. Or give TrainerMapMonitor a `logger`, or "
            "None."
        )
    folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or Path(args.output_dir) / "runs"
    return [
        TensorBoardLogger(Path(folder).expanduser() / "heatproof") if name == "tensorboard" else LOGGERS[name]()
        for name in names
    ]

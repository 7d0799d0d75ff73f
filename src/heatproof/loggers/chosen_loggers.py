"""Loggers by name, and loggers of other libraries, as `Logger`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from heatproof.errors import InvalidInput
from heatproof.loggers.logger import Logger
from heatproof.loggers.mlflow_logger import MLflowLogger
from heatproof.loggers.tensorboard_logger import TensorBoardLogger
from heatproof.loggers.wandb_logger import WandbLogger
from heatproof.registry import unknown

#: Name → logger.
LOGGERS: dict[str, Callable[[], Logger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MLflowLogger,
}


class ScalarLogger:
    """A logger of another library that takes numbers and no images, such as Lightning's `CSVLogger`."""

    def __init__(self, logger: Any):
        self.logger = logger

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Logs numbers by name."""
        self.logger.log_metrics(dict(values), step=step)

    def image(self, name: str, image: np.ndarray, step: int, caption: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Leaves the logger open, and writes what is left."""
        save = getattr(self.logger, "save", None)
        if callable(save):
            save()


def loggers_of(given: Any) -> list[Logger]:
    """Names, loggers, and those of other libraries, one or several, as loggers; None gives none.

    Raises:
        UnknownName: no such name. InvalidInput: an object that is no logger. MissingExtra: what it needs is missing.
    """
    if given is None:
        return []
    if isinstance(given, list | tuple):
        return [found for one in given for found in loggers_of(one)]
    if isinstance(given, str):
        if given not in LOGGERS:
            raise unknown("logger", given, LOGGERS)
        return [LOGGERS[given]()]
    found = given if isinstance(given, Logger) and not isinstance(given, type) else _of_another_library(given)
    if found is None:
        raise InvalidInput(
            f"`logger` must be one of {', '.join(LOGGERS)}, a SummaryWriter, a run of Weights & Biases or of MLflow, a "
            "logger of Lightning, or an object with the methods scalars(values, step), image(name, image, step, "
            f"caption) and close(). Got {_described(given)}."
        )
    return [found]


def _of_another_library(given: Any) -> Logger | None:
    """An object known by its methods: no library is imported for it."""
    if isinstance(given, type):
        return None
    if _has(given, "add_scalar", "add_image", "flush"):
        return TensorBoardLogger(writer=given)
    if _has(given, "log", "define_metric", "finish"):
        return WandbLogger(given)
    if _has(getattr(given, "info", None), "run_id"):
        return MLflowLogger(given.info.run_id)
    if _has(given, "log_metrics", "experiment"):
        inner = given.experiment
        if _has(inner, "log_batch", "log_image"):
            return MLflowLogger(given.run_id, client=inner)
        known = None if _has(inner, "log_metrics") else _of_another_library(inner)
        return known or ScalarLogger(given)
    return None


def _has(given: Any, *names: str) -> bool:
    return all(hasattr(given, name) for name in names)


def _described(given: Any) -> str:
    return f"the class {given.__name__}; make one, with brackets" if isinstance(given, type) else type(given).__name__

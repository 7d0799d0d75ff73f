"""Weights & Biases: a run, online or offline."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from heatproof.loggers.logger import needs_extra


class WandbLogger:
    """Logs to a run of Weights & Biases. With `WANDB_MODE=offline` it needs no server.

    Numbers have the axis `heatproof/step`, so they go together with code that logs with or without a step.

    Args:
        run: a run of yours, which stays open. By default the active one; where there is none, one is started at the
            first step and ended by `close`.
        init: arguments of `wandb.init` for a run of its own, such as `project` (`heatproof` by default) and `dir`.

    Raises:
        MissingExtra: wandb is not installed.

    Examples:
        >>> import os, tempfile
        >>> from heatproof.loggers import WandbLogger
        >>> logger = WandbLogger(mode="disabled", dir=tempfile.mkdtemp())
        >>> logger.scalars({"heatproof/deletion/gradcam": 0.4}, step=100)
        >>> logger.close()
    """

    def __init__(self, run: Any = None, **init: Any):
        if run is None:
            needs_extra("wandb", "Weights & Biases", "wandb")
        self._run, self._init, self._own = run, init, False
        self._axes: set[str] = set()

    @property
    def run(self) -> Any:
        """The run: the one given, the active one, or one that is started now."""
        if self._run is None:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its maker is told of crashes by default
            import wandb

            self._own = wandb.run is None
            self._run = wandb.init(**{"project": "heatproof", **self._init}) if self._own else wandb.run
        return self._run

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Logs numbers by name, together with the images of the step."""
        steps = {self._axis(name): step for name in values}
        self.run.log({**steps, **values})

    def image(self, name: str, image: np.ndarray, step: int, caption: str) -> None:
        """Logs an image, uint8 `(H, W, 3)`, with its caption; it is sent with the next numbers."""
        import wandb

        self.run.log({self._axis(name): step, name: wandb.Image(image, caption=caption)}, commit=False)

    def close(self) -> None:
        """Ends a run that it began itself."""
        if self._run is not None and self._own:
            self._run.finish()
            self._run, self._axes = None, set()

    def _axis(self, name: str) -> str:
        """The name of the step, `heatproof/step`, which is the axis of everything below `heatproof/`."""
        group = name.partition("/")[0]
        axis = f"{group}/step"
        if group not in self._axes:
            self.run.define_metric(axis, hidden=True)
            self.run.define_metric(f"{group}/*", step_metric=axis)
            self._axes.add(group)
        return axis

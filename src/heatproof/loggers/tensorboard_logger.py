"""TensorBoard: event files in a folder."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from heatproof.loggers.logger import needs_extra


class TensorBoardLogger:
    """Writes scalars and images to event files for TensorBoard.

    Panels hold prediction and label as text, since TensorBoard shows no captions.

    Args:
        folder: where event files go; by default `runs/DATE_HOST`, as of `SummaryWriter`. Made at the first step.
        writer: a `SummaryWriter` of yours in its place, which `close` flushes and does not close.

    Raises:
        MissingExtra: tensorboard is not installed.

    Examples:
        >>> import tempfile
        >>> from heatproof.loggers import TensorBoardLogger
        >>> logger = TensorBoardLogger(tempfile.mkdtemp())
        >>> logger.scalars({"heatproof/deletion/gradcam": 0.4}, step=100)
        >>> logger.close()
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, writer: Any = None):
        if writer is None:
            needs_extra("tensorboard", "TensorBoard", "tensorboard")
        self.folder, self._writer, self._own = folder, writer, writer is None

    @property
    def writer(self) -> Any:
        """The `SummaryWriter`; one of its own is opened at the first use."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(None if self.folder is None else os.fspath(self.folder))
            self.folder = self._writer.log_dir
        return self._writer

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Logs numbers by name and writes them to disk."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def image(self, name: str, image: np.ndarray, step: int, caption: str) -> None:
        """Logs an image, uint8 `(H, W, 3)`."""
        self.writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is left."""
        if self._writer is None:
            return
        if self._own:
            self._writer.close()
            self._writer = None
        else:
            self._writer.flush()

"""What a logger is, which are known by name, and one that may fail without stopping a training run."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import numpy as np

from heatproof.errors import MissingExtra, warn

#: After so many steps in a row at which a logger failed it is no longer called.
PATIENCE = 3


@runtime_checkable
class Logger(Protocol):
    """Where numbers and images of a training run go; an object of any class with these three methods is one.

    Examples:
        >>> class Printed:
        ...     def scalars(self, values, step):
        ...         print(step, dict(values))
        ...
        ...     def image(self, name, image, step, caption):
        ...         print(step, name, image.shape, caption)
        ...
        ...     def close(self):
        ...         print("closed")
        >>> from heatproof.loggers import Logger
        >>> isinstance(Printed(), Logger)
        True
    """

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Logs numbers by name, such as `heatproof/deletion/gradcam`; called once a step, after its images."""
        ...

    def image(self, name: str, image: np.ndarray, step: int, caption: str) -> None:
        """Logs one image, uint8 `(H, W, 3)`, with a line of text."""
        ...

    def close(self) -> None:
        """Writes what is left, and ends what the logger itself began."""
        ...


def needs_extra(module: str, name: str, extra: str) -> None:
    """Raises MissingExtra where a module is not installed, without importing it."""
    if find_spec(module) is None:
        raise MissingExtra(f'Logging to {name} needs {module}: pip install "heatproof[{extra}]"')


class GuardedLogger:
    """Calls a logger, and goes on where it fails: with one warning, however often.

    A server may be gone, or a disk full. What is left of the step is skipped. A logger that fails at its first step, or
    later at `PATIENCE` steps in a row, is no longer called: some wait minutes for their server every time.
    """

    def __init__(self, logger: Logger):
        self.logger = logger
        self.left_out = self._worked = self._warned = False
        self._failures = 0

    def log(self, images: Sequence[tuple[str, np.ndarray, str]], values: Mapping[str, float], step: int) -> bool:
        """Logs the images (name, pixels, caption) and the numbers of a step; whether all of it was logged."""
        if self.left_out:
            return False

        def work() -> None:
            for name, image, caption in images:
                self.logger.image(name, image, step, caption)
            self.logger.scalars(values, step)

        done = self._tried(work)
        self._worked = self._worked or done
        self._failures = 0 if done else self._failures + 1
        self.left_out = not self._worked or self._failures >= PATIENCE
        return done

    def close(self) -> None:
        """Closes the logger; one that is left out is given another chance by the steps after that."""
        self._tried(self.logger.close)
        self.left_out = False

    def _tried(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # whatever a server, a disk or a logger of the user's raises
            self._warn(error)
            return False
        return True

    def _warn(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        text = " ".join(f"{type(error).__name__}: {error}".split())
        warn(
            f"{type(self.logger).__name__} failed: {text[:300].rstrip('.')}. Training goes on. "
            + (
                f"It is left out after {PATIENCE} such steps in a row, without a further warning."
                if self._worked
                else "It is left out."
            )
        )

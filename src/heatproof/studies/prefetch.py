"""Opens the images of the next job in a thread while the network works on this one, where that is a GPU's.

On a CPU the thread would only take cores from the network. The images are the same bit for bit: `open_block` draws
nothing, and each image is opened once, by the thread or by the worker.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from heatproof.studies.jobs import ImageBlock, Job

#: Guesses that may turn out wrong before no more are made: jobs then come in another order.
WRONG = 2


def worthwhile(device: str) -> bool:
    """Whether opening images beside the network takes nothing from it."""
    return torch.device(device).type == "cuda"


def of_files(images: Any) -> bool:
    """Whether images are files, which two threads can open at once; a Dataset of a user's may hold one open handle."""
    while getattr(images, "source", None) is not None:
        images = images.source
    return bool(getattr(images, "paths", None))


class NextImages:
    """The images of the next job, opened ahead."""

    def __init__(self, opened: Callable[[Job], ImageBlock]):
        self._opened, self._wrong = opened, 0
        self._pool = ThreadPoolExecutor(1, "next images")
        self._next: tuple[Job, Future[ImageBlock]] | None = None

    def begin(self, job: Job, count: int) -> None:
        """Begins with the job that follows this one in a set of `count` images, if there is one."""
        follows = Job(job.model, job.dataset, job.stop, min(count, 2 * job.stop - job.start))
        if follows.start < follows.stop and self._wrong < WRONG and self._next is None:
            self._next = follows, self._pool.submit(self._opened, follows)

    def take(self, job: Job) -> ImageBlock | None:
        """The images of a job; None where others were opened, or an error was raised, which opening again will say."""
        known, self._next = self._next, None
        if known is None:
            return None
        if known[0] != job:
            self._wrong += 1
            known[1].cancel()
            return None
        return None if known[1].exception() else known[1].result()

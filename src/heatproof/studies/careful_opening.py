"""Images that end the process that opens them: found by opening each in a process of its own.

A broken file is an error that is caught and becomes a flagged row. One that crashes its decoder takes the process with
it, and every later attempt too. So a job that was begun and did not end has its images opened here first.
"""

import multiprocessing
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from heatproof.data import Images
from heatproof.studies.processes import how_it_ended, without_interrupts

#: Seconds that the process may take to start, and to open one image.
START, OPEN = 120.0, 60.0


def crashing_images(images: Images, indices: Sequence[int]) -> dict[str, str]:
    """The ids of the images that end or hang the process that opens them, each with the reason."""
    found: dict[str, str] = {}
    left = [index for index in indices if images.ids[index] not in images.flags]
    while left:
        opened, why = _opened(images, left)
        if why is None:
            return found
        if why:
            found[images.ids[left[opened]]] = why
        left = left[opened + 1 :] if why else []
    return found


def _opened(images: Images, indices: Sequence[int]) -> tuple[int, str | None]:
    """How many images a new process opened, and what ended it: None for nothing, "" where it did not start."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_open_each, args=(theirs, images, list(indices)))
    with without_interrupts():
        process.start()
    theirs.close()
    opened = -1  # the first message says that it has started
    try:
        while opened < len(indices):
            if not ours.poll(START if opened < 0 else OPEN):
                return max(0, opened), "" if opened < 0 else f"opening it takes longer than {OPEN:g} s"
            ours.recv()
            opened += 1
        return opened, None
    except (EOFError, OSError):
        process.join(5)
        return max(0, opened), "" if opened < 0 else f"the process that opens it {how_it_ended(process.exitcode)}"
    finally:
        process.kill()
        process.join(5)
        ours.close()


def _open_each(pipe: Any, images: Images, indices: Sequence[int]) -> None:
    """Opens the images one by one, and says so after each."""
    pipe.send(None)
    for index in indices:
        with suppress(Exception):  # an image that cannot be read is flagged where it is used
            np.asarray(images.open(index))
        pipe.send(None)
    time.sleep(START)  # the other end closes

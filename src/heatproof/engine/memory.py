"""Work on a batch that is halved where memory runs out."""

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")

#: The messages of PyTorch's CPU allocator on Linux, and on Windows.
_CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and any(text in str(error) for text in _CPU_ALLOCATOR))


def halved(work: Callable[[slice], T], count: int) -> Iterator[T]:
    """`work(slice)` over `count` rows; where memory runs out, the rows are halved and tried again, down to one."""
    pending = [slice(0, count)]
    while pending:
        rows = pending.pop(0)
        try:
            done = work(rows)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error) or rows.stop - rows.start < 2:
                raise
            middle = (rows.start + rows.stop) // 2
            pending[:0] = [slice(rows.start, middle), slice(middle, rows.stop)]
        else:
            yield done
            continue
        gc.collect()  # what the pass left behind may refer to itself, and so is kept until then
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

"""Warnings that are ignored for a while, in any number of threads at once.

`warnings.catch_warnings` saves the filters of the whole process and puts them back. Two threads that do this at once
can leave the wrong ones for good, so here the first thread saves them and the last one puts them back.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_filters = warnings.catch_warnings()
_inside = 0


@contextmanager
def ignored_warnings(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignores warnings of that category."""
    global _filters, _inside
    with _lock:
        if _inside == 0:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
        _inside += 1
        warnings.simplefilter("ignore", category)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _filters.__exit__(None, None, None)

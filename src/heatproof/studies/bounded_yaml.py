"""YAML from anywhere, read within bounds: a short file must not become values without end.

A file may repeat a part of itself by an alias (`&a` and `*a`). Aliases of lists of aliases repeat a word a billion
times from ten lines. So the file is looked through before anything is made of it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import yaml

from heatproof.errors import InvalidStudy

#: The most bytes of a file, how deep its lists and mappings may lie in one another, and how many values aliases repeat.
MOST_BYTES, DEEPEST, MOST_REPEATED = 20_000_000, 50, 10_000

T = TypeVar("T")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str, about: Callable[[Any], T]) -> tuple[Any, T]:
    """The value of a YAML text, and what `about` says of its node, which knows the lines.

    Raises:
        yaml.YAMLError: no YAML. InvalidStudy: beyond a bound; ValueError and others: a value that cannot be, such as
        `!!bool x`.
    """
    _refuse_unbounded(text)
    loader = _LOADER(text)
    try:
        node = loader.get_single_node()
        found = about(node)  # before the values are made, which writes what `<<` merges into the node
        return (None if node is None else loader.construct_document(node)), found
    finally:
        loader.dispose()


def _refuse_unbounded(text: str) -> None:
    """InvalidStudy for a text that lies too deep in itself, or repeats too much."""
    open_: list[tuple[str | None, int, int]] = []  # anchor, values, and depth below, of the lists that are not closed
    known: dict[str, tuple[int, int]] = {}
    repeated = 0
    for event in yaml.parse(text, Loader=_LOADER):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((anchor, 1, 0))
            size, below = 0, 0
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == one for one, _, _ in open_):
                raise _refused(event, f"`*{anchor}` holds itself")
            size, below = known.get(str(anchor), (0, 0))
            repeated += size
        elif isinstance(event, yaml.CollectionEndEvent):
            name, size, below = open_.pop()
            if name:
                known[name] = size, below
        elif isinstance(event, yaml.ScalarEvent):
            size, below = 1, 0
            if anchor:
                known[anchor] = 1, 0
        else:
            continue
        if open_ and not isinstance(event, yaml.CollectionStartEvent):
            name, before, deep = open_[-1]
            open_[-1] = name, before + size, max(deep, below + 1)
        if len(open_) + below > DEEPEST:
            raise _refused(event, f"lists and mappings lie more than {DEEPEST} deep in one another")
        if repeated > MOST_REPEATED:
            raise _refused(event, f"aliases repeat more than {MOST_REPEATED:,} values")


def _refused(event: Any, why: str) -> InvalidStudy:
    return InvalidStudy(f"line {event.start_mark.line + 1}: {why}. Write the settings out")

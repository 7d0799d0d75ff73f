"""Names of classes: read from a file, looked up by a name that a user types, matched with other names of the classes.

Two names are equal where they differ only in case, and in spaces, underscores and dashes between words. A name may hold
several, with commas (`tench, Tinca tinca`): each of them stands for the class, unless another class has it too.
"""

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from heatproof.errors import InvalidInput, InvalidTarget
from heatproof.files import refuse_unusual

#: The most bytes of a file of names.
MOST_BYTES = 100_000_000
#: The most names that an error lists.
LISTED = 5


def checked_names(given: Any) -> tuple[str, ...]:
    """Names by index: from a list, a mapping (index → name, or name → index), or a file of either.

    Raises:
        InvalidInput: a file that cannot be read, no name, an empty name in a file or a mapping, or indices that are not
            0, 1, 2 …
    """
    if isinstance(given, str | os.PathLike):
        return _read(Path(given))
    if isinstance(given, Mapping):
        return _by_index(given, "the mapping")
    if not isinstance(given, Sequence):
        raise InvalidInput(
            f"`classes` must be a list of names, a mapping from index to name, or a file. Got {given!r:.200}."
        )
    return _some([name_text(name) for name in given], "the list", empty=True)


def name_text(given: Any) -> str:
    """A name as text; several of one class, as in lists of ImageNet, with commas, without an identifier of WordNet.

    Raises:
        InvalidInput: neither text nor a number, nor a list of them.
    """
    if isinstance(given, list | tuple) and given and all(isinstance(part, str) for part in given):
        return ", ".join(given[1:] if len(given) > 1 and re.fullmatch(r"n[0-9]+", given[0]) else given)
    if isinstance(given, str | int | float):
        return str(given)
    raise InvalidInput(f"`classes` must hold a name, or a list of names, for each class. Got {given!r:.200}.")


def name_of(names: Sequence[str] | None, index: int | None) -> str:
    """The name of a class; empty where it has none."""
    return names[index] if names and index is not None and 0 <= index < len(names) else ""


def class_text(names: Sequence[str] | None, index: int | None) -> str:
    """A class for people: `hen (8)`, or `class 8` where it has no name."""
    return named(name_of(names, index), index)


def named(name: str | None, index: int | None) -> str:
    """A class by name and index: `hen (8)`, or `class 8` without a name."""
    return f"{name} ({index})" if name else f"class {index}"


def class_index(text: str, names: Sequence[str]) -> int:
    """The index of the class with that name.

    Raises:
        InvalidTarget: no class has the name, or several have; the message lists the nearest names, or those classes.
    """
    found = _Lookup.of(tuple(names)).indices(text)
    if len(found) > 1:
        which = ", ".join(class_text(names, index) for index in found[:LISTED])
        raise InvalidTarget(f"A class name must stand for one class. Got {text!r}: {which}. Give the index.")
    if not found:
        near = nearest_names(text, names)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" Names: {_some_of(names)}."
        raise InvalidTarget(f"No class is called {text!r}.{hint} An index may be given too.")
    return found[0]


def nearest_names(text: str, names: Sequence[str]) -> list[str]:
    """The names most like a text, best first."""
    spellings = {spelling: name for name in reversed(names) for spelling in (*_synonyms(name), _folded(name))}
    matches = difflib.get_close_matches(_folded(text), spellings, n=LISTED, cutoff=0.5)
    return list(dict.fromkeys(spellings[match] for match in matches))


def matched(names: Sequence[str], others: Sequence[str]) -> dict[int, int] | None:
    """Index → index of the same class among `others`; None unless every name is there, each as another class.

    Empty names are left out.
    """
    known = _Lookup.of(tuple(others))
    found = {index: known.indices(name) for index, name in enumerate(names) if name}
    if not found or any(len(indices) != 1 for indices in found.values()):
        return None
    pairs = {index: indices[0] for index, indices in found.items()}
    return pairs if len(set(pairs.values())) == len(pairs) else None


def unmatched(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """The names that stand for no class among `others`, or for several."""
    known = _Lookup.of(tuple(others))
    return [name for name in names if name and len(known.indices(name)) != 1]


def places(name: str, others: Sequence[str]) -> set[int]:
    """The classes among `others` that a name may stand for: as a whole, or by one of the several names it holds."""
    known = _Lookup.of(tuple(others))
    return {index for text in (name, *name.split(",")) for index in known.indices(text)}


class _Lookup:
    """The classes by their names as a whole, and by each of several names."""

    def __init__(self, names: Sequence[str]):
        self._whole: dict[str, list[int]] = {}
        self._parts: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            self._whole.setdefault(_folded(name), []).append(index)
            for part in dict.fromkeys(_synonyms(name)):
                self._parts.setdefault(part, []).append(index)

    @classmethod
    @lru_cache(maxsize=16)
    def of(cls, names: tuple[str, ...]) -> "_Lookup":
        return cls(names)

    def indices(self, text: str) -> list[int]:
        """The classes of that name; a whole name goes before one of several."""
        wanted = _folded(text)
        return (self._whole.get(wanted) or self._parts.get(wanted) or []) if wanted else []


def _synonyms(name: str) -> list[str]:
    return [folded for part in name.split(",") if (folded := _folded(part))]


def _folded(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def _some_of(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")


def _read(path: Path) -> tuple[str, ...]:
    """JSON (a list, index → name or name → index, or a configuration with `id2label`), or one name a line."""
    try:
        refuse_unusual(path, MOST_BYTES)
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise InvalidInput(f"`classes` must be a readable file of class names. {path}: {why}.") from None
    if path.suffix.lower() != ".json" and not text.lstrip().startswith(("[", "{")):
        lines = text.rstrip().split("\n") if text.strip() else []
        return _some([line.strip() for line in lines], str(path))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # the second for brackets in brackets without end
        raise InvalidInput(f"`classes` must be JSON, or one name a line. {path}: {error}.") from None
    if isinstance(found, Mapping):
        return _by_index(found.get("id2label", found.get("label2id", found)), str(path))
    if not isinstance(found, list):
        raise InvalidInput(f"`classes` must hold a list, or names by index. {path} holds {type(found).__name__}.")
    return _some([name_text(name) for name in found], str(path))


def _by_index(given: Any, where: str) -> tuple[str, ...]:
    """The names of index → name, or of name → index (`label2id`, `class_to_idx`)."""
    try:
        if _is_reversed(given):
            given = {index: name for name, index in reversed(given.items())}
        found = {int(index): name_text(name) for index, name in given.items()}
    except InvalidInput:
        raise
    except (AttributeError, TypeError, ValueError):
        raise InvalidInput(f"`classes` must have whole numbers as indices, such as 0: cat. Got {where}.") from None
    if missing := sorted(set(range(len(found))) - set(found)):
        raise InvalidInput(f"`classes` must name every class from 0 on. {where} has no class {missing[0]}.")
    return _some([found[index] for index in range(len(found))], where)


def _is_reversed(given: Any) -> bool:
    numbered = all(isinstance(index, int) and not isinstance(index, bool) for index in given.values())
    return numbered and not all(re.fullmatch(r"-?[0-9]+", str(name)) for name in given)


def _some(names: Sequence[str], where: str, empty: bool = False) -> tuple[str, ...]:
    """The names; InvalidInput for none, and for an empty one unless `empty` ones stand for classes without a name."""
    if not any(map(str.strip, names)) or not (empty or all(map(str.strip, names))):
        number = next((index for index, name in enumerate(names) if not name.strip()), None)
        got = "no name" if number is None else f"an empty name for class {number}"
        raise InvalidInput(f"`classes` must hold a name for each class. Got {got} in {where}.")
    return tuple(names)


def several_in_words(targets: Sequence[str]) -> str:
    """Several classes of each image in words: `all labels of an image`, `the 3 most probable classes`, or as they are.

    targets: rules of `heatproof.targets` that each name one class, such as `label`, `label:2`.
    """
    count = len(targets)
    for rule, words in (("label", "all labels of an image"), ("predicted", f"the {count} most probable classes")):
        if count > 1 and list(targets) == [rule, *(f"{rule}:{number}" for number in range(2, count + 1))]:
            return words
    return ", ".join(targets)

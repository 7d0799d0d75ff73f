"""What in a study file runs code: such a file from elsewhere is refused, unless the command line allows it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from heatproof import spelling
from heatproof.errors import InvalidInput, InvalidStudy
from heatproof.plugins import PYTHON

#: Fields whose values are for people.
_WORDS = ("name", "author", "date", "commit", "classes", "labels", "masks", "images", "root", "out", "path")
#: Arguments of transformers' models that run code which comes with a model, with the values that do not.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "trust_remote_code": (False, None),
    "weights_only": (True, None),
    "code_revision": (None,),
    "use_kernels": (False, None),
    "kernel_config": (None,),
}
#: The argument whose value may be a repository of code, as `owner/name`.
_KERNEL = "attn_implementation"


def refuse_code(settings: Mapping[str, Any], lines: Mapping[str, int], source: str) -> None:
    """InvalidStudy where the settings of a file would run code; it names the line, and how to allow it."""
    found = next(code_in(settings), None)
    if found is None:
        return
    field, what = found
    line = lines.get(field, lines.get(field.partition(".")[0]))
    where = f", line {line}" if line else ""
    raise InvalidStudy(
        f"{source}{where}: `{field}` runs code: {what:.120}. A study file may come from elsewhere, so its code is not "
        "run without a word. If the file and the code are yours, or you have read them, add --allow-code."
    )


def code_in(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every field of a file's settings that runs code, with what it names."""
    yield from _visit(settings, "")


def _visit(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inside in value.items():
            field = f"{path}.{key}".lstrip(".")
            if (why := _argument(str(key), inside)) is not None:
                yield field, why
            elif key not in _WORDS or isinstance(inside, Mapping) or not _plain(inside):
                if _names_code(str(key)):
                    yield field, str(key)
                yield from _visit(inside, field)
    elif isinstance(value, list | tuple):
        for index, inside in enumerate(value):
            yield from _visit(inside, f"{path}.{index}")
    elif isinstance(value, str) and _names_code(value):
        yield path, value


def _plain(value: Any) -> bool:
    """Whether a value is text, or a list of texts."""
    return all(isinstance(one, str) for one in (value if isinstance(value, list | tuple) else [value]))


def _argument(key: str, value: Any) -> str | None:
    if key == "allow_pickle_code" and value not in (False, None):
        return "a checkpoint that is a pickle"
    if key in _HARMLESS and value not in _HARMLESS[key]:
        return f"{key}={value!r}"
    return f"{key}={value!r}" if key == _KERNEL and "/" in str(value) else None


def _names_code(text: str) -> bool:
    """Whether `python:` stands in a text, or in a value of its options however it is quoted."""
    if PYTHON in text.casefold():
        return True
    if "\\" not in text:
        return False
    decoded = re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    if PYTHON in decoded.casefold():
        return True
    try:
        options = spelling.parse(text).options
    except InvalidInput:
        return False
    return any(isinstance(value, str) and value != text and _names_code(value) for value in options.values())

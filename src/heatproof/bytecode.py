"""What a function's bytecode says: the names it looks up, those it writes, and the modules it imports when it runs."""

import dis
import importlib.util
import types
from collections.abc import Iterator

#: Methods of lists, dictionaries and sets that change them.
CHANGES = frozenset(
    {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear"}
    | {"appendleft", "popleft"}
)
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF")


def written_names(code: types.CodeType) -> set[str]:
    """The global and enclosing names that a function writes, or whose list, dictionary or set it changes."""
    found, steps = set[str](), list(dis.get_instructions(code))
    for number, step in enumerate(steps):
        if step.opname in ("STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL"):
            found.add(step.argval)
        owner = steps[number - 2 if step.opname == "STORE_SUBSCR" else number - 1] if number > 1 else step
        changed = step.opname == "STORE_SUBSCR" or (
            step.opname in ("LOAD_METHOD", "LOAD_ATTR") and step.argval in CHANGES
        )
        if changed and owner.opname in _LOADS:
            found.add(owner.argval)
    return found.union(*map(written_names, _inner(code)))


def _inner(code: types.CodeType) -> list[types.CodeType]:
    return [one for one in code.co_consts if isinstance(one, types.CodeType)]


def named_in(code: types.CodeType) -> set[str]:
    """Every name that a function and those inside it look up."""
    return set(code.co_names).union(*map(named_in, _inner(code)))


def imports_in(code: types.CodeType, package: str) -> Iterator[str]:
    """The full names of the modules that a function imports when it runs."""
    steps = list(dis.get_instructions(code))
    for number, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            level = steps[number - 2].argval if number > 1 else 0
            dots = "." * level if isinstance(level, int) else ""
            yield importlib.util.resolve_name(f"{dots}{step.argval}", package) if dots and package else step.argval
    for one in _inner(code):
        yield from imports_in(one, package)


def attributes_set(code: types.CodeType) -> set[str]:
    """The attributes that a function sets."""
    found = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_ATTR"}
    return found.union(*map(attributes_set, _inner(code)))

"""Objects of the user's own by name, `package.module:object`, looked for from the current folder too."""

import importlib
import inspect
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heatproof.errors import HeatproofError, InvalidInput
from heatproof.registry import unknown


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """The current folder comes first on the import path for the while."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def imported(module_name: str, path: str, problem: type[HeatproofError]) -> Any:
    """The object at `path` (`function`, `Class.method`) in a module.

    Raises:
        problem: there is no such module. UnknownName: the module has no such object.
    """
    return _attribute(_module(module_name, problem), path, module_name)


def _module(name: str, problem: type[HeatproofError]) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise problem(
            f"Expected to import {name!r} from {Path.cwd()} or an installed package. There is no "
            f"{error.name!r}. Run from the folder that holds it, or install it."
        ) from error


def _attribute(found: Any, path: str, module_name: str) -> Any:
    for step in path.split("."):
        if not hasattr(found, step):
            known = [n for n, v in vars(found).items() if callable(v) and not n.startswith("_")]
            raise unknown(f"function in {module_name}", step, known or ["(none)"])
        found = getattr(found, step)
    return found


def named_function(spec: str, prefix: str = "python:") -> Callable:
    """The function that `python:package.module:function` names.

    Raises:
        InvalidInput: no such module, one that raises when imported, or something that is no function.
        UnknownName: the module has no such function.
    """
    module, colon, path = spec.removeprefix(prefix).partition(":")
    if not colon or not module or not path:
        raise InvalidInput(f"Expected python:package.module:function. Got {spec!r}.")
    try:
        with current_folder_importable():
            found = imported(module, path, InvalidInput)
    except HeatproofError:
        raise
    except Exception as error:  # whatever a user's own code raises when it is imported
        raise InvalidInput(f"{spec} cannot be imported. It raised {type(error).__name__}: {error}.") from error
    if not callable(found):
        raise InvalidInput(f"{spec} must be a function. Got {type(found).__name__}.")
    return found


def parameters_of(function: Callable) -> list[inspect.Parameter]:
    """Of any callable; none where it has no signature to read."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # what is written in C has no signature
        return []


def required(function: Callable) -> list[inspect.Parameter]:
    """Parameters that a position fills and that have no default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in parameters_of(function) if p.kind in kinds and p.default is p.empty]


def parcel(recipe: Any, name: str, kind: str) -> bytes:
    """What a worker process needs to know of a `kind` (`method`, `metric`) of the user's own, for `unpacked` there.

    Raises:
        InvalidInput: one that cannot be sent (a lambda, a function of a notebook).
    """
    why = "it was defined in a notebook or at the prompt"
    try:
        found = pickle.dumps(recipe)
        if b"__main__" not in found or hasattr(sys.modules["__main__"], "__file__"):
            return found
    except Exception as error:  # pickle raises what it likes
        why = str(error)
    raise InvalidInput(
        f"The {kind} {name!r} must be importable for several worker processes: {why}. "
        "Take one worker (--workers 1, `workers=1`), or put it in a file and name it python:module:function."
    )


def unpacked(sent: bytes) -> Any:
    """What `parcel` was given; its module may lie in the current folder."""
    with current_folder_importable():
        return pickle.loads(sent)

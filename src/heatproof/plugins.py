"""Plug-ins: methods, metrics and models of the user's own, registered, found by name, and sent to worker processes.

    python:package.module:object       found by its name, from the current folder too, in every process
    Plugins(registry, …)               what was registered by a call; `exported` is what a worker process needs of it
    imported(…)                        registers in the worker process what `exported` gave

`attributions.foreign` and `metrics.foreign` put methods and metrics into their registries.
"""

import importlib
import inspect
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from heatproof.code_fingerprint import code_fingerprint
from heatproof.errors import HeatproofError, InvalidInput
from heatproof.registry import Entry, Registry, unknown

#: The prefix of a name that gives a module and an object in it.
PYTHON = "python:"


class Recipe(Protocol):
    """The arguments of a registering call, so that a worker process can repeat it; it can be pickled."""

    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=Recipe)

#: Module that made it → the plug-ins of one kind, for `imported`.
_KINDS: dict[str, "Plugins[Any]"] = {}


class Plugins(Generic[R]):
    """The plug-ins of one kind (`method`, `metric`) and the recipes of those registered in this process.

    Args:
        home: the module that makes this object (`__name__`); a worker process imports it.
        registry: where they are registered; its `kind` is the word in error messages.
        file: puts a recipe into the registry.
        described: the recipe of an entry that a decorator registered.
        sources: form of a name that says where the plug-in is (`python:package.module:function`) → its recipe.
        families: names that stand for several entries, and that no plug-in may take.
    """

    def __init__(
        self,
        home: str,
        registry: Registry,
        *,
        file: Callable[[R], None],
        described: Callable[[Entry], R],
        sources: Mapping[str, Callable[[str], R]],
        families: Iterable[str] = (),
    ):
        self.home, self.registry, self.families = home, registry, tuple(families)
        self._file, self._described, self._forms = file, described, tuple(sources)
        self._sources = {f"{form.partition(':')[0]}:": found for form, found in sources.items()}
        self.recipes: dict[str, R] = {}
        _KINDS[home] = self

    def check_name(self, name: str) -> None:
        """InvalidInput for a name that cannot stand in a spelling, or that is the name of a family."""
        kind = self.registry.kind
        if not isinstance(name, str) or not name.strip() or set(name) & set("@[],") or ":" in name:
            raise InvalidInput(f"A {kind}'s name must be text without @ [ ] , and a colon. Got {name!r}.")
        if name.strip().lower() in self.families:
            raise InvalidInput(f"{name!r} names a family of {kind}s. Take another name.")

    def register(self, recipe: R) -> str:
        """Puts a recipe into the registry, and keeps it for worker processes; returns its name."""
        self._file(recipe)
        self.recipes[recipe.name] = recipe
        return recipe.name

    def unregister(self, name: str) -> None:
        """Removes what was registered under a name."""
        self.registry.remove(name)
        self.recipes.pop(name, None)

    def by_name(self, name: str) -> bool:
        """Whether the name itself says where the plug-in is."""
        return name.startswith(tuple(self._sources))

    def register_from(self, spec: str) -> str:
        """Registers the plug-in that a name such as `python:package.module:function` gives, once; returns its name.

        Raises:
            InvalidInput, UnknownName: the name has no known prefix, or nothing is there.
        """
        if self._is_registered(spec):
            return spec
        found = next((self._sources[prefix] for prefix in self._sources if spec.startswith(prefix)), None)
        if found is None:
            raise InvalidInput(f"Expected {', or '.join(self._forms)}. Got {spec!r}.")
        recipe = found(spec)
        if not self._is_registered(recipe.name):
            self._file(recipe)
        return recipe.name

    def _is_registered(self, name: str) -> bool:
        """Whether exactly this name is registered: a registry folds case, and two names may differ in case alone."""
        return name in self.registry and self.registry[name].name == name

    # --- worker processes ---

    def exported(self, entries: Iterable[Entry]) -> tuple[bytes, ...]:
        """These entries, packed for `imported` in a worker process.

        heatproof's own entries, and those whose name says where they are, need no packing.

        Raises:
            InvalidInput: one that cannot be pickled (a lambda, a function of a notebook).
        """
        return tuple(self._pickled(entry) for entry in entries if self._only_here(entry))

    def _only_here(self, entry: Entry) -> bool:
        return not self.by_name(entry.name) and self.of_user(entry)

    def of_user(self, entry: Entry) -> bool:
        """Whether an entry is a plug-in: given by name, registered by a call, or by a decorator outside heatproof."""
        return self.by_name(entry.name) or entry.name in self.recipes or not made_here(entry)

    def code(self, entry: Entry) -> str:
        """A fingerprint of a plug-in's code and declared facts (`heatproof.code_fingerprint`); empty for others."""
        return entry_code(entry) if self.of_user(entry) else ""

    def _pickled(self, entry: Entry) -> bytes:
        recipe = self.recipes.get(entry.name) or self._described(entry)
        why = "it was defined in a notebook or at the prompt"
        try:
            found = pickle.dumps((self.home, recipe))
            if b"__main__" not in found or hasattr(sys.modules["__main__"], "__file__"):
                return found
        except Exception as error:  # pickle raises errors of many types
            why = str(error)
        raise InvalidInput(
            f"The {self.registry.kind} {entry.name!r} must be importable for several worker processes: {why}. "
            "Take one worker (--workers 1, `workers=1`), or put it in a file and name it python:module:function."
        )

    def _imported(self, recipe: R) -> None:
        if recipe.name not in self.registry:  # importing the module of its function may have registered it already
            self.register(recipe)


def imported(exports: Iterable[bytes]) -> None:
    """Registers plug-ins of any kind that `exported` packed in another process; those known here are left alone."""
    for sent in exports:
        with current_folder_importable():
            home, recipe = pickle.loads(sent)
            importlib.import_module(home)
        _KINDS[home]._imported(recipe)


def made_here(entry: Entry) -> bool:
    """Whether the function of an entry is heatproof's own."""
    return (getattr(entry.function, "__module__", "") or "").startswith("heatproof.")


def entry_code(entry: Entry) -> str:
    """A fingerprint of an entry's function with all code of the user's that it reaches, and of its declared facts."""
    with current_folder_importable():
        return code_fingerprint(entry.function, dict(entry.traits), dict(entry.options))


# --- objects by name ---


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Puts the current folder first on the import path inside the `with` block."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def import_path(name: str) -> AbstractContextManager[None]:
    """The import path for calling a plug-in: with the current folder where it was imported by name."""
    return current_folder_importable() if name.startswith(PYTHON) else nullcontext()


def named_object(spec: str, problem: type[HeatproofError] = InvalidInput, noun: str = "function") -> Any:
    """The object that `python:package.module:object` names (`function`, `Class.method`).

    Errors that the module raises on import pass through unchanged.

    Raises:
        problem: no such spelling, or no such module. UnknownName: the module has no such object.
    """
    module, colon, path = spec.removeprefix(PYTHON).partition(":")
    if not colon or not module or not path:
        raise problem(f"Expected python:package.module:{noun}. Got {spec!r}.")
    with current_folder_importable():
        return _attribute(_module(module, problem), path, module)


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


def named_function(spec: str) -> Callable:
    """The function that `python:package.module:function` names.

    Raises:
        InvalidInput: no such module, one that raises when imported, or something that is no function.
        UnknownName: the module has no such function.
    """
    try:
        found = named_object(spec)
    except HeatproofError:
        raise
    except Exception as error:  # whatever a user's own code raises when it is imported
        raise InvalidInput(f"{spec} cannot be imported. It raised {type(error).__name__}: {error}.") from error
    if not callable(found):
        raise InvalidInput(f"{spec} must be a function. Got {type(found).__name__}.")
    return found


# --- signatures ---


def parameters_of(function: Callable) -> list[inspect.Parameter]:
    """The parameters of a callable; none where its signature cannot be read."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a function written in C has no signature
        return []


def required(function: Callable) -> list[inspect.Parameter]:
    """The positional parameters without a default."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in parameters_of(function) if p.kind in kinds and p.default is p.empty]


def takes(function: Callable, count: int, besides: Sequence[str] = ()) -> bool:
    """Whether `count` positional arguments fill all required parameters but those in `besides`, which come by name."""
    parameters, wanted = parameters_of(function), [p.name for p in required(function)]
    starred = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    alone = [name for name in wanted if name not in besides]
    return not parameters or len(alone) == count or (starred and len(wanted) < count)


def plain_options(parameters: Iterable[inspect.Parameter]) -> list[inspect.Parameter]:
    """The parameters whose default a spelling can express (bool, number, text), as keyword-only options."""
    plain = [p for p in parameters if isinstance(p.default, bool | int | float | str)]
    return [p.replace(kind=p.KEYWORD_ONLY) for p in plain]


def declare(
    function: Callable, needs: Iterable[str], options: Iterable[inspect.Parameter], doc: str | None
) -> Callable:
    """`function` with the signature that a registry reads: the quantities it needs, and its options."""
    given = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in needs]
    function.__signature__ = inspect.Signature([*given, *options])  # type: ignore[attr-defined]
    function.__doc__ = doc
    return function

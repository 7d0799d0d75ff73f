"""Names of another library that heatproof does not have: the error says what to use instead."""

import dis
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from heatproof.errors import UnknownName
from heatproof.registry import near_misses


class MissingAttribute(UnknownName, AttributeError):
    """Raised for `module.name`, so that `hasattr` is False and `getattr` with a default gives the default."""


class MissingImport(UnknownName, ImportError):
    """Raised for `from module import name`: Python would replace the text of an AttributeError by its own."""


def missing_names(
    module: str,
    advice: Mapping[str, str],
    known: Callable[[], Iterable[str]] | None = None,
    otherwise: Callable[[str], str] = lambda _: "",
) -> Callable[[str], Any]:
    """A module's `__getattr__`, which raises for every name: `__getattr__ = missing_names(__name__, {…})`.

    Args:
        module: the module's name.
        advice: names that the other library has → what to use instead, as the end of a sentence.
        known: the names that may have been meant; None: the public ones of the module.
        otherwise: the advice for a name that `advice` does not have; empty: near misses among the known ones.

    Raises:
        MissingImport: in `from module import name`, an ImportError.
        MissingAttribute: elsewhere, an AttributeError. Both are an UnknownName.
    """

    def __getattr__(name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(_absent(module, name))
        if said := advice.get(name) or otherwise(name):
            text = _without(name, said)
        else:
            names = known() if known else _public(sys.modules[module])
            text = f"{_absent(module, name)}. {near_misses(name, names)}"
        raise (MissingImport if _is_imported() else MissingAttribute)(text)

    return __getattr__


def _absent(module: str, name: str) -> str:
    return f"module {module!r} has no attribute {name!r}"


def _public(module: ModuleType) -> Iterable[str]:
    """Its `__all__`, or else what is defined there."""
    own = [name for name, one in vars(module).items() if getattr(one, "__module__", None) == module.__name__]
    return getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]


def _without(name: str, advice: str) -> str:
    return f"heatproof has no {name}: {advice}."


class _AbsentModules(MetaPathFinder):
    """Comes after all finders: an import of an absent module, or of a part of one, is an error with advice."""

    def __init__(self) -> None:
        self.advice: dict[str, str] = {}

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> None:
        if advice := self.advice.get(fullname):
            raise MissingImport(_without(fullname.removeprefix("heatproof.compat."), advice))


_ABSENT_MODULES = _AbsentModules()


def absent_modules(package: str, advice: Mapping[str, str]) -> None:
    """Makes `import package.name` an error that says what to use, for modules that the other library has.

    Args:
        package: the package's name, or that of a module which is a package in the other library.
        advice: names of modules → what to use instead, as the end of a sentence.
    """
    vars(sys.modules[package]).setdefault("__path__", [])  # Python looks for modules in packages alone
    _ABSENT_MODULES.advice.update({f"{package}.{name}": said for name, said in advice.items()})
    if _ABSENT_MODULES not in sys.meta_path:
        sys.meta_path.append(_ABSENT_MODULES)


def _is_imported() -> bool:
    """Whether the code that asks for the attribute is at a `from module import name`."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name == "__getattr__":
        frame = frame.f_back
    at = frame.f_lasti
    return at >= 0 and frame.f_code.co_code[at] == dis.opmap["IMPORT_FROM"]

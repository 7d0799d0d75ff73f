"""Names of another library that heatproof does not have: the error says what to use instead."""

import dis
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from heatproof.errors import UnknownName
from heatproof.registry import unknown


class MissingAttribute(UnknownName, AttributeError):
    """Raised for `module.name`, so that `hasattr` is False and `getattr` with a default gives the default."""


class MissingImport(UnknownName, ImportError):
    """Raised for `from module import name`: Python would replace the text of an AttributeError by its own."""


def missing_names(
    module: str, advice: Mapping[str, str], known: Callable[[], Iterable[str]] | None = None
) -> Callable[[str], Any]:
    """A module's `__getattr__`, which raises for every name: `__getattr__ = missing_names(__name__, {…})`.

    Args:
        module: the module's name.
        advice: names that the other library has → what to use instead, as the end of a sentence.
        known: the names that may have been meant; None: the public ones of the module.

    Raises:
        MissingImport: in `from module import name`, an ImportError.
        MissingAttribute: elsewhere, an AttributeError. Both are an UnknownName.
    """

    def __getattr__(name: str) -> Any:
        if name in advice:
            text = f"heatproof has no {name}: {advice[name]}."
        elif name.startswith("_"):
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        else:
            names = known() if known else _public(sys.modules[module])
            text = str(unknown(f"part of {module}", name, names))
        raise (MissingImport if _is_imported() else MissingAttribute)(text)

    return __getattr__


def _public(module: ModuleType) -> Iterable[str]:
    return getattr(module, "__all__", None) or [one for one in vars(module) if not one.startswith("_")]


def _is_imported() -> bool:
    """Whether the code that asks for the attribute is at a `from module import name`."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_name == "__getattr__":
        frame = frame.f_back
    at = frame.f_lasti
    return at >= 0 and frame.f_code.co_code[at] == dis.opmap["IMPORT_FROM"]

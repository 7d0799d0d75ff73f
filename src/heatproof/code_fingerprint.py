"""A fingerprint of a user's own code: equal where the code computes the same, and another where it does not.

It covers what a function, a class or an object reaches: its bytecode, defaults, closure and attributes; the functions,
classes and constants that it names in its own module, in the user's other modules and in the notebook; and the bytes of
arrays and tensors. Comments, docstrings and line numbers do not count. Installed packages count by name and version.
What the code itself writes (a counter, a cache) is its state and is left out.
"""

import functools
import hashlib
import importlib
import importlib.util
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from heatproof import bytecode

#: Methods that make an object: the attributes they set are its options.
_MAKERS = ("__init__", "__post_init__", "__new__", "__setstate__")
_ATOMS = (type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range, slice, PurePath)


def code_fingerprint(*things: Any) -> str:
    """A hash of functions, classes, objects and values, with all code of the user's that they reach."""
    return _Reader().of(things).hex()


def is_own(module: str) -> bool:
    """Whether a module is the user's own: not of heatproof, of Python, or of an installed package."""
    top = module.partition(".")[0]
    if top == "__main__":
        return True
    if not top or top == "heatproof" or top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"} & set(PurePath(file).parts)


class _Reader:
    """Hashes objects one after another; each is read once."""

    def __init__(self) -> None:
        self._known: dict[int, bytes] = {}
        self._open: list[Any] = []
        self._alive: list[Any] = []

    def of(self, thing: Any) -> bytes:
        """The hash of one object."""
        if isinstance(thing, _ATOMS):
            return self._hash(type(thing).__name__, repr(thing))
        if id(thing) in self._known:
            return self._known[id(thing)]
        if any(thing is other for other in self._open):
            return self._hash("inside itself", type(thing).__name__)
        self._open.append(thing)
        try:
            found = self._hash(*self._parts(thing))
        finally:
            self._open.pop()
        self._alive.append(thing)  # an id is not used again while the object lives
        self._known[id(thing)] = found
        return found

    def _hash(self, *parts: Any) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
            digest.update(f"{len(data)}:".encode())
            digest.update(data)
        return digest.digest()

    def _all(self, things: Iterable[Any]) -> bytes:
        return self._hash(*map(self.of, things))

    def _parts(self, thing: Any) -> Iterator[Any]:
        """What decides one object, as text and hashes."""
        yield type(thing).__qualname__
        if isinstance(thing, types.FunctionType):
            yield from self._function(thing)
        elif isinstance(thing, types.CodeType):
            yield from self._code(thing, "")
        elif isinstance(thing, type):
            yield from self._class(thing)
        elif isinstance(thing, types.MethodType):
            yield self._all((thing.__func__, thing.__self__))
        elif isinstance(thing, functools.partial):
            yield self._all((thing.func, thing.args, thing.keywords))
        elif isinstance(thing, Mapping):
            yield from sorted(self._all(pair) for pair in thing.items())
        elif isinstance(thing, set | frozenset):
            yield from sorted(map(self.of, thing))
        elif isinstance(thing, tuple | list):
            yield from map(self.of, thing)
        elif isinstance(thing, types.ModuleType):
            yield from self._module(thing, set(vars(thing)) if is_own(thing.__name__) else set())
        elif isinstance(thing, Enum):
            yield from (self.of(type(thing)), thing.name)
        elif hasattr(thing, "__array__") or hasattr(thing, "state_dict"):
            yield from self._array(thing) if hasattr(thing, "__array__") else self._network(thing)
        else:
            yield from self._instance(thing)

    def _function(self, function: types.FunctionType) -> Iterator[Any]:
        code, own = function.__code__, is_own(function.__module__ or "")
        state = bytecode.written_names(code)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        yield from (self.of(_content(cell)) for name, cell in cells if name not in state)
        yield self._all((function.__defaults__, function.__kwdefaults__))
        if not own:
            yield from _named(function)
            yield self.of(getattr(function, "__wrapped__", None))
            return
        yield from self._code(code, function.__doc__)
        hidden = ("__wrapped__", "__signature__")
        yield self.of({key: value for key, value in vars(function).items() if key not in hidden})
        yield from self._named_in(bytecode.named_in(code) - state, function.__globals__)
        package = function.__globals__.get("__package__") or ""
        for name in sorted(set(bytecode.imports_in(code, package))):
            yield from self._module(_imported(name), bytecode.named_in(code))

    def _code(self, code: types.CodeType, doc: str | None) -> Iterator[Any]:
        yield from (code.co_code, code.co_names, code.co_freevars, code.co_exceptiontable)
        arguments = code.co_argcount + code.co_kwonlyargcount
        yield from (code.co_varnames[:arguments], code.co_posonlyargcount, code.co_kwonlyargcount)
        for number, constant in enumerate(code.co_consts):
            yield self.of(None if number == 0 and doc is not None and constant == doc else constant)

    def _named_in(self, names: Iterable[str], known: Mapping[str, Any]) -> Iterator[Any]:
        """Those of `names` that a module defines, with what they stand for."""
        names = set(names)
        for name in sorted(names & known.keys()):
            yield name
            value = known[name]
            yield from self._module(value, names) if isinstance(value, types.ModuleType) else [self.of(value)]

    def _module(self, module: Any, names: Iterable[str]) -> Iterator[Any]:
        """A module of the user's by what is named of it; any other by name and version."""
        if not isinstance(module, types.ModuleType):
            return
        yield module.__name__ if module.__name__ != "__main__" else ""
        if not is_own(module.__name__):
            yield getattr(sys.modules.get(module.__name__.partition(".")[0]), "__version__", "")
        elif not any(module is other for other in self._open):
            self._open.append(module)
            wanted = {name for name in names if not name.startswith("__")}
            yield from self._named_in(wanted, vars(module))
            self._open.pop()

    def _class(self, kind: type) -> Iterator[Any]:
        if not is_own(kind.__module__):
            yield from _named(kind)
            return
        yield self._all(base for base in kind.__bases__ if base is not object)
        for name, value in sorted(vars(kind).items()):
            value = _undressed(value)
            if isinstance(value, types.FunctionType) or not name.startswith(("__", "_abc_impl")):
                yield from (name, self.of(value))
        yield _without_addresses(repr(getattr(kind, "model_fields", "")))  # the fields of settings

    def _array(self, thing: Any) -> Iterator[Any]:
        """The values of an array or a tensor."""
        import numpy as np

        thing = thing.detach().cpu() if hasattr(thing, "detach") else thing
        thing = thing.float() if "bfloat16" in str(getattr(thing, "dtype", "")) else thing
        array = np.asarray(thing)
        yield from (array.dtype, array.shape)
        yield self.of(array.tolist()) if array.dtype.hasobject else np.ascontiguousarray(array).tobytes()

    def _network(self, module: Any) -> Iterator[Any]:
        """A network or an optimiser: its text, its state, and the code and the settings of the user's own parts."""
        yield _without_addresses(repr(module))
        yield self.of(dict(module.state_dict()))
        for part in module.modules() if hasattr(module, "modules") else ():
            if is_own(type(part).__module__):
                yield from (self.of(type(part)), self._attributes(part))

    def _instance(self, thing: Any) -> Iterator[Any]:
        kind = type(thing)
        yield self.of(kind)
        known = getattr(thing, "fingerprint", None) if kind.__module__.startswith("heatproof.") else None
        if isinstance(known, str):
            yield known
        elif is_own(kind.__module__) or kind.__module__.startswith("heatproof."):
            yield self._attributes(thing)
        elif isinstance(wrapped := getattr(thing, "__wrapped__", None), Callable):
            yield self.of(wrapped)
        else:
            text = repr(thing) if len(repr(thing)) < 100_000 else ""
            yield "" if " at 0x" in text else text

    def _attributes(self, thing: Any) -> bytes:
        """The attributes of an object that its methods do not change."""
        kind, slots = type(thing), [slot for one in type(thing).__mro__ for slot in getattr(one, "__slots__", ())]
        values = {**{name: getattr(thing, name) for name in slots if hasattr(thing, name)},
                  **getattr(thing, "__dict__", {})}  # fmt: skip
        skipped = {*_cached(kind), *(_of_every_network() if hasattr(thing, "state_dict") else ())}
        for one in (one for one in kind.__mro__ if is_own(one.__module__)):
            methods = (_undressed(value) for name, value in vars(one).items() if name not in _MAKERS)
            for method in (one for one in methods if isinstance(one, types.FunctionType)):
                skipped |= bytecode.attributes_set(method.__code__)
        return self.of({name: value for name, value in values.items() if name not in skipped})


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _named(thing: Any) -> tuple[str, str, str]:
    """Name, and version of the package, of something that is installed."""
    module = str(getattr(thing, "__module__", "") or "")
    version = getattr(sys.modules.get(module.partition(".")[0]), "__version__", "")
    return module, str(getattr(thing, "__qualname__", "")), "" if module.startswith("heatproof") else str(version)


def _undressed(value: Any) -> Any:
    """The function of a static or class method, a property or a cached property."""
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    for inner in ("__func__", "func", "__wrapped__"):
        found = getattr(value, inner, None)
        if isinstance(found, types.FunctionType):
            return found
    return value


def _of_every_network() -> set[str]:
    """The attributes that every `torch.nn.Module` has, such as its parts and hooks."""
    from torch import nn

    return set(vars(nn.Module()))


def _cached(kind: type) -> set[str]:
    known = {name: value for one in kind.__mro__ for name, value in vars(one).items()}
    return {name for name, value in known.items() if isinstance(value, functools.cached_property)}


def _without_addresses(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _imported(name: str) -> Any:
    """A module of the user's own that a function imports when it runs; None for any other, and for one that fails."""
    try:
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            parts = set(PurePath(spec.origin or "").parts) if spec else {"site-packages"}
            if {"site-packages", "dist-packages"} & parts or name.partition(".")[0] in sys.stdlib_module_names:
                return None
        return importlib.import_module(name) if is_own(name) else None
    except Exception:  # whatever a module of the user's raises; the call itself will show it
        return None

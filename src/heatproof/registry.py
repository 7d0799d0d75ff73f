"""Names → functions. Positional parameters are the quantities a function needs, keyword-only ones its options."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from heatproof import quantities, spelling
from heatproof.errors import InvalidInput, UnknownName

_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names most like `name`, best first."""
    known = list(known)
    folded = {fold(k): k for k in known}
    matches = difflib.get_close_matches(fold(name), folded, n=count, cutoff=0.5)
    return [folded[m] for m in matches]


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """The error for a name that does not exist, with near misses."""
    return UnknownName(f"No {kind} is called {name!r}. {near_misses(name, known)}")


def near_misses(name: str, known: Iterable[str]) -> str:
    """The sentence with the names that may have been meant, or with those that exist."""
    known = sorted(known)
    if near := nearest(name, known):
        return f"Did you mean {' or '.join(map(repr, near))}?"
    return f"Known: {', '.join(known[:40])}{', …' if len(known) > 40 else ''}."


def fold(name: str) -> str:
    """A name in lower case, without separators, and with one spelling of `++`."""
    plain = re.sub(r"[\s_\-]", "", name.lower())
    return re.sub(r"(?<=cam)pp$", "++", plain.replace("plusplus", "++"))


@dataclass(frozen=True)
class Entry:
    """One registered function and what its signature promises."""

    name: str
    function: Callable[..., Any]
    needs: tuple[str, ...]
    options: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    source: str = ""
    traits: Mapping[str, Any] = field(default_factory=dict)
    own: frozenset[str] = frozenset()

    def __call__(self, given: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
        """Calls the function with the quantities it needs and those of the options that are its own."""
        needed = {need: given[need] for need in self.needs}
        return self.function(**needed, **{k: v for k, v in options.items() if k in self.own})

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def checked_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options with defaults filled in; one that does not exist, or is of another kind, is an error."""
        for option, value in options.items():
            if option not in self.options:
                raise unknown(f"option of {self.name!r}", option, self.options or ["(it has none)"])
            kind = _kind(self.options[option])
            if kind and kind != _kind(value):
                raise InvalidInput(f"`{option}` of {self.name!r} must be {kind}. Got {value!r}.")
        return {**self.options, **options}

    def described(self) -> dict[str, Any]:
        """What `heatproof list --json` prints."""
        plain = {k: v for k, v in self.traits.items() if isinstance(v, str | int | float | bool | list | tuple)}
        return {
            "name": self.name,
            "needs": list(self.needs),
            "options": dict(self.options),
            "source": self.source,
            "summary": self.summary,
            "aliases": list(self.aliases),
            **plain,
        }


class Registry(Mapping[str, Entry]):
    """A name → Entry mapping that resolves aliases and spellings, and rejects a name that is taken.

    `kind` is the kind of function, one of `quantities.USERS`.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self.vocabulary = quantities.vocabulary(kind)
        self._entries: dict[str, Entry] = {}
        self._spellings: dict[str, str] = {}

    def register(
        self,
        name: str,
        *,
        aliases: Iterable[str] = (),
        source: str = "",
        extra: Mapping[str, Any] | None = None,
        vocabulary: Mapping[str, str] | None = None,
        **traits: Any,
    ) -> Callable:
        """Decorator: registers the function under `name`; its signature is checked against the vocabulary here.

        `extra` are options that other code reads: they are listed with the function's own, and are not passed to it.
        `vocabulary` replaces the registry's own for this one function.
        """

        def file(function: Callable) -> Callable:
            words = self.vocabulary if vocabulary is None else vocabulary
            needs, own = _contract(self.kind, name, function, words)
            entry = Entry(
                name, function, needs, {**own, **(extra or {})}, tuple(aliases), source, traits, frozenset(own)
            )
            for written in (name, *entry.aliases):
                taken = self._spellings.get(fold(written))
                if taken is not None:
                    raise InvalidInput(
                        f"The {self.kind} name {written!r} is taken by {taken!r}. Register under another name."
                    )
            self._entries[name] = entry
            self._spellings.update({fold(written): name for written in (name, *entry.aliases)})
            return function

        return file

    def remove(self, name: str) -> None:
        """Takes a registered name out again (for tests and notebooks)."""
        entry = self[name]
        del self._entries[entry.name]
        self._spellings = {s: n for s, n in self._spellings.items() if n != entry.name}

    def parse(self, text: str) -> tuple[Entry, dict[str, Any]]:
        """`name[option=value,…]` → the entry and the options named there, checked."""
        found = spelling.parse(text)
        if found.layers:
            raise InvalidInput(f"A {self.kind} has no layer. Got {text!r}. Leave `@{'+'.join(found.layers)}` out.")
        entry = self[found.name]
        entry.checked_options(found.options)
        return entry, dict(found.options)

    def __getitem__(self, name: str) -> Entry:
        found = self._spellings.get(fold(name))
        if found is None:
            raise unknown(self.kind, name, self._entries)
        return self._entries[found]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and fold(name) in self._spellings

    def __iter__(self):
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _contract(
    kind: str, name: str, function: Callable, vocabulary: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Needs and options of a signature; an unknown quantity is an error here, not at the first run."""
    needs, options = [], {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                raise InvalidInput(f"Option `{parameter.name}` of {kind} {name!r} must have a default. Got none.")
            options[parameter.name] = parameter.default
        elif parameter.name in vocabulary and parameter.kind not in _STARRED:
            needs.append(parameter.name)
        else:
            raise unknown(f"quantity (asked for by {kind} {name!r})", parameter.name, vocabulary)
    return tuple(needs), options


def _kind(value: Any) -> str:
    """The kind of value that an option's default asks for; empty where it allows any (None, a list)."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Real):
        return "a number"
    return "text" if isinstance(value, str) else ""

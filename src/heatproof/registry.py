"""Names → functions. Positional parameters are the quantities a function needs, keyword-only ones its options."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from heatproof.errors import InvalidInput, UnknownName

#: The closed vocabulary of quantities (design.md): what a method, a perturbation or a metric may ask for.
VOCABULARY: Mapping[str, str] = {
    "x": "image in [0, 1], (N, 3, H, W)",
    "z": "normalised image, as the network sees it, (N, 3, H, W)",
    "logits": "(N, K)",
    "target": "class explained, (N,)",
    "activations": "at the layer, (N, C, *spatial)",
    "gradients": "of the target's output by the activations, (N, C, *spatial)",
    "gradients_of": "utility → its gradients by the activations, (N, C, *spatial)",
    "input_gradients": "of the target's output by the normalised image, (N, 3, H, W)",
    "hvp": "utility → product of its Hessian with the activations, (N, C, *spatial)",
    "head": "(K, C) weights where the logits are a linear layer on pooled activations, else None",
    "tail": "activations at a layer → logits",
    "score": "normalised images and the rows they are variants of → output of the target",
    "network": "the network as a module: normalised images → (N, K) outputs",
    "forward": "the same for the images themselves, a function: their logits are then known without another forward",
    "of_target": "(N, K) outputs → those of the classes explained, (N,)",
    "calibration": "source → mean and deviation of the activations over other images",
    "explain": "images → display maps of the method under test",
    "maps": "display maps in [0, 1], (N, H, W)",
    "raw": "signed maps as the method made them",
    "ranks": "ties → rank of every pixel in the map, 0 the most important, (N, H, W)",
    "p": "probability of the target, (N,)",
    "q": "fill → probability of the target on the masked image, (N,)",
    "nothing": "fill, of → score of the target on the picture of nothing but fill, (N,)",
    "masked_probabilities": "fill → probability of every class on the masked image, (N, K)",
    "probabilities": "normalised images → probability of every class",
    "curve": "fill, steps … → score of the target while pixels go or return, (N, steps + 1)",
    "removal": "fractions … → probability of the target on imputed images, most and least relevant first",
    "information": "thresholds, ties → size and probabilities of the picture while its pixels return (XRAI)",
    "shifts": "samples, radius → relative change of the map under noise, (N, samples)",
    "model": "the classifier",
    "mask": "truth, (N, H, W)",
    "segments": "segmenter → label maps, (N, H, W)",
    "seed": "of the study",
    "shared": "a store for answers of the network that no map has a part in: worked out for the first method alone",
    "generator": "one seeded generator per image",
    "ids": "the names of the images",
    "condition": "what was done to the images, as text: empty or `clean` where nothing was",
    "loss_gradient": "images → gradient of the cross-entropy to the clean prediction",
    "clean_gradient": "that gradient at the clean images, computed once for all strengths",
    "minimal_step": "the smallest step found that changes the prediction (DeepFool), once for all strengths",
}


_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names most like `name`, best first."""
    known = list(known)
    folded = {fold(k): k for k in known}
    matches = difflib.get_close_matches(fold(name), folded, n=count, cutoff=0.5)
    return [folded[m] for m in matches]


def unknown(kind: str, name: str, known: Iterable[str]) -> UnknownName:
    """The one sentence for a name that does not exist."""
    known = sorted(known)
    near = nearest(name, known)
    listing = ", ".join(known[:40]) + (", …" if len(known) > 40 else "")
    hint = f"Did you mean {' or '.join(repr(n) for n in near)}?" if near else f"Known: {listing}."
    return UnknownName(f"No {kind} is called {name!r}. {hint}")


def fold(name: str) -> str:
    """A spelling without case, separators and the many ways to write `++`."""
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
    """A name → Entry mapping that resolves aliases and spellings, and refuses a name twice.

    `vocabulary` names the quantities that this registry's engine can supply.
    """

    def __init__(self, kind: str, vocabulary: Iterable[str] = VOCABULARY):
        self.kind = kind
        self.vocabulary = {name: VOCABULARY[name] for name in vocabulary}
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
        """Decorator: files the function under `name`; its signature is checked against the vocabulary here.

        `extra` are options that others than the function read: they appear with its own, and are not passed to it.
        `vocabulary` stands in place of the registry's own for this one function.
        """

        def file(function: Callable) -> Callable:
            words = self.vocabulary if vocabulary is None else vocabulary
            needs, own = _contract(self.kind, name, function, words)
            entry = Entry(
                name, function, needs, {**own, **(extra or {})}, tuple(aliases), source, traits, frozenset(own)
            )
            for spelling in (name, *entry.aliases):
                taken = self._spellings.get(fold(spelling))
                if taken is not None:
                    raise InvalidInput(
                        f"The {self.kind} name {spelling!r} is taken by {taken!r}. Register under another name."
                    )
            self._entries[name] = entry
            self._spellings.update({fold(spelling): name for spelling in (name, *entry.aliases)})
            return function

        return file

    def remove(self, name: str) -> None:
        """Takes a registered name out again (for tests and notebooks)."""
        entry = self[name]
        del self._entries[entry.name]
        self._spellings = {s: n for s, n in self._spellings.items() if n != entry.name}

    def parse(self, spelling: str, *, checked: bool = True) -> tuple[Entry, dict[str, Any]]:
        """`name[option=value,…]` → the entry and the options named there, values read as YAML scalars."""
        match = re.fullmatch(r"\s*([^\[\]]+?)\s*(?:\[(.*)\])?\s*", spelling)
        if not match:
            raise InvalidInput(f"Expected `name` or `name[option=value,…]`. Got {spelling!r}.")
        entry, options = self[match[1]], {}
        for item in filter(None, (part.strip() for part in (match[2] or "").split(","))):
            key, equals, value = item.partition("=")
            if not equals:
                raise InvalidInput(f"Expected `option=value` in {spelling!r}. Got {item!r}.")
            options[key.strip()] = _scalar(value)
        if checked:
            entry.checked_options(options)
        return entry, options

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
    """What an option's default says of its values; empty where it says nothing (None, a list)."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Real):
        return "a number"
    return "text" if isinstance(value, str) else ""


def _scalar(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)

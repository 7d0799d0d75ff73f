"""A requested metric and its options, and how a list of spellings becomes requests.

The same spelling everywhere — in Python, on the command line, in study files and in the rows:

    road                                 with the options of its paper
    average-drop[fill=mean]              with an option
    fidelity, family:complexity          all metrics of a family; `complexity` and `road` alone are metrics
    all                                  all metrics
    quantus:Sparseness, python:my.module:fn    metrics from elsewhere (`heatproof.metrics.foreign`)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from heatproof import spelling
from heatproof.errors import InvalidInput
from heatproof.metrics.catalogue import FAMILIES, METRICS
from heatproof.metrics.composites import PAIR_COMPOSITES
from heatproof.metrics.foreign import PLUGIN_METRICS
from heatproof.quantities import belonging, having
from heatproof.registry import Entry, fold, unknown

#: The name for every metric, and the prefix that marks a family.
ALL, FAMILY = "all", "family:"

NO_REFERENCE = (
    "{!r} compares maps with reference maps. Got none. Give `reference=` to `heatproof.score`, or run the study "
    "noise-robustness, where the clean images are the reference."
)


@dataclass(frozen=True)
class MetricRequest:
    """One metric and its options; `key` is the canonical spelling, which the results carry.

    `parts` are what a composite is made of, by the name of its parameter.
    """

    entry: Entry
    options: Mapping[str, Any]
    parts: Mapping[str, "MetricRequest"] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The registered name, and the options that are no defaults."""
        options = {k: v for k, v in self.options.items() if v != self.entry.options[k]}
        return spelling.format(self.entry.name, {k: _as_number(v) for k, v in options.items()})

    @property
    def family(self) -> str:
        """One of `catalogue.FAMILIES`."""
        return self.entry.traits["family"]

    def having(self, fact: str) -> bool:
        """Whether it, or a part of it, names a quantity for which a field of the table of quantities holds."""
        return any(having(one.entry.needs, fact) for one in (self, *self.parts.values()))

    @property
    def paired(self) -> bool:
        """Whether it compares a map with its reference."""
        return any(belonging(one.entry.needs, "pair") for one in (self, *self.parts.values()))

    @property
    def of_mosaics(self) -> bool:
        """Whether it means something on mosaics alone; elsewhere it repeats another metric."""
        return bool(self.entry.traits.get("mosaics"))

    @property
    def better(self) -> str:
        """`high` or `low`."""
        return self.entry.traits["better"]

    def facts(self) -> dict[str, Any]:
        """What a reader of the scores must know, as plain values for JSON."""
        return {
            "better": self.better,
            "range": list(self.entry.traits["range"]),
            "family": self.family,
            "summary": self.entry.summary,
            "source": self.entry.source,
            "parts": [part.key for part in self.parts.values()],
        }


def requested_metrics(
    metrics: str | Iterable[str] | Mapping[str, Mapping[str, Any]],
    *,
    parts: bool = True,
    reference: bool = True,
    mosaics: bool = True,
) -> list[MetricRequest]:
    """`"road"`, `["arcc", "fidelity"]`, `"all"` or `{"road": {"ties": "block"}}` → requests, each once.

    Args:
        parts: whether the parts of a composite are requested too, before it.
        reference: whether there are reference maps. Without them metrics of pairs are left out of families, and are an
            error by name.
        mosaics: whether the images may be mosaics. If not, metrics that need those are left out of families.

    Raises:
        UnknownName: a metric or an option that does not exist, with near misses.
        InvalidInput: nothing requested, options of a family, or nothing but metrics of pairs without a reference.
    """
    given = dict(metrics) if isinstance(metrics, Mapping) else {}
    spellings = [metrics] if isinstance(metrics, str) else list(metrics)
    if not spellings:
        raise InvalidInput(f"Expected at least one metric. Got none. Known: {', '.join(METRICS)}.")
    found: dict[str, MetricRequest] = {}
    for text in spellings:
        if not isinstance(text, str):
            raise InvalidInput(f"Metrics must be names, or a mapping from name to options. Got {type(text).__name__}.")
        for request in _meant(text, given.get(text) or {}):
            if request.paired and not reference:
                if _family(text):
                    continue
                raise InvalidInput(NO_REFERENCE.format(request.key))
            if request.of_mosaics and not mosaics and _family(text):
                continue
            for one in [*(request.parts.values() if parts else ()), request]:
                found.setdefault(one.key, one)
    if not found:
        raise InvalidInput(NO_REFERENCE.format(", ".join(spellings)))
    return list(found.values())


def _meant(text: str, options: Mapping[str, Any]) -> list[MetricRequest]:
    family = _family(text)
    if text not in METRICS and fold(text) in map(fold, PAIR_COMPOSITES):
        raise InvalidInput(
            f"{text!r} has one value for many pairs of maps, and none for a map. heatproof run noise-robustness writes "
            "it to tables/robustness.csv."
        )
    if family and not options:
        chosen = [name for name, entry in METRICS.items() if not entry.traits.get("foreign")]
        return [parsed_metric(n) for n in chosen if family == ALL or METRICS[n].traits["family"] == family]
    if family:
        raise InvalidInput(f"Options go with one metric. Got {dict(options)} for the family {text!r}.")
    return [parsed_metric(text, options)]


def _family(text: str) -> str:
    """A name that is both a metric's and a family's is the metric's, unless `family:` says otherwise."""
    name = text.strip().removeprefix(FAMILY)
    if text.startswith(FAMILY) and name not in FAMILIES:
        raise unknown("family of metrics", name, FAMILIES)
    if text in METRICS:
        return ""
    return next((family for family in (ALL, *FAMILIES) if fold(family) == fold(name)), "")


def _as_words(entry: Entry, option: str, value: Any) -> Any:
    """Numbers as text, for an option that takes a list as text: `kept=50`, `{"kept": (20, 50)}`."""
    if not isinstance(entry.options.get(option), str) or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return f"{value:g}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _as_number(value: Any) -> Any:
    """Text that is one number, as the number, so that it is spelled `kept=50`, without quotes."""
    if not isinstance(value, str):
        return value
    number = spelling.scalar(value)
    plain = isinstance(number, int | float) and not isinstance(number, bool)
    return number if plain and f"{number:g}" == value else value


def parsed_metric(text: str, options: Mapping[str, Any] | None = None) -> MetricRequest:
    """One spelling → its request; `options` go over those in brackets."""
    asked = spelling.parse(text)
    if asked.layers:
        raise InvalidInput(f"A metric has no layer. Got {text!r}. Leave `@{'+'.join(asked.layers)}` out.")
    name = asked.name
    entry = METRICS[PLUGIN_METRICS.register_from(name) if PLUGIN_METRICS.by_name(name) else name]
    given = {**asked.options, **(options or {})}
    chosen = entry.checked_options({k: _as_words(entry, k, v) for k, v in given.items()})
    parts = {part: parsed_metric(text) for part, text in entry.traits.get("parts", {}).items()}
    return MetricRequest(entry, chosen, parts)

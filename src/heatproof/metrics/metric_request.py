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
from heatproof.errors import InvalidInput, NotApplicable, warn
from heatproof.memo import cached_property
from heatproof.metrics.catalogue import FAMILIES, METRICS, SAME, UNITS
from heatproof.metrics.composites import PAIR_COMPOSITES
from heatproof.metrics.foreign import PLUGIN_METRICS
from heatproof.quantities import belonging, having
from heatproof.registry import Entry, fold, unknown

#: The metrics where none is named: the score of paper R with its parts, and the two curves of RISE.
DEFAULT_METRICS = ("arcc", "insertion", "deletion")

#: The name for every metric, and the prefix that marks a family.
ALL, FAMILY = "all", "family:"

NO_REFERENCE = (
    "{!r} compares maps with reference maps. Got none. Give `reference=` to `heatproof.score`, or run the study "
    "noise-robustness, where the clean images are the reference."
)

NO_PARTS = (
    "{!r} needs images made of parts that can be removed. Got none. Run the study parts, or score on creatures "
    "or funnybirds:FOLDER."
)


@dataclass(frozen=True)
class MetricRequest:
    """One metric and its options; `key` is the canonical spelling, which the results carry.

    `parts` are what a composite is made of, by the name of its parameter.
    """

    entry: Entry
    options: Mapping[str, Any]
    parts: Mapping[str, "MetricRequest"] = field(default_factory=dict)

    @cached_property
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
    def of_parts(self) -> bool:
        """Whether it needs images made of removable parts."""
        return "parts" in self.entry.needs

    @property
    def reads_truth(self) -> bool:
        """Whether it, or a part of it, reads the ground truth: masks, or the parts of the object.

        A metric of arrays names the mask whether it looks at it or not, so it says it by a trait (`arrays`).
        """
        own = self.entry.traits.get("reads_truth")
        seen = bool(having(self.entry.needs, "truth")) if own is None else bool(own)
        return seen or any(part.reads_truth for part in self.parts.values())

    @property
    def refusal_of_values(self) -> str:
        """Why it has no meaning for a network of values, as a phrase; empty where it has one."""
        traits = self.entry.traits
        if traits.get("foreign") and self.options.get("softmax"):
            return "it takes a softmax; set softmax=False"
        if self.options.get("of") == "probability":
            return "of=probability needs a probability; take of=logit, which is the value itself"
        refused = traits.get("values", SAME) not in (SAME, UNITS)
        part = next((why for one in self.parts.values() if (why := one.refusal_of_values)), "")
        return traits["values"] if refused else part

    @property
    def in_units(self) -> bool:
        """Whether it is in units of the value, for a network of values."""
        return self.entry.traits.get("values") == UNITS

    @property
    def better(self) -> str:
        """`high` or `low`."""
        return self.entry.traits["better"]

    def facts(self, values: bool = False) -> dict[str, Any]:
        """What a reader of the scores must know, as plain values for JSON; `values`: of a network of values."""
        units = values and self.in_units
        return {
            "better": self.better,
            "range": [None, None] if units else list(self.entry.traits["range"]),
            **({"unit": "that of the value"} if units else {}),
            "family": self.family,
            "summary": self.entry.summary.replace("probability", "value") if values else self.entry.summary,
            "source": self.entry.source,
            "reads_truth": self.reads_truth,
            "parts": [part.key for part in self.parts.values()],
        }


def requested_metrics(
    metrics: str | Iterable[str] | Mapping[str, Mapping[str, Any]],
    *,
    parts: bool = True,
    reference: bool = True,
    values: bool = False,
    mosaics: bool = True,
    parted: bool = True,
) -> list[MetricRequest]:
    """`"road"`, `["arcc", "fidelity"]`, `"all"` or `{"road": {"ties": "block"}}` → requests, each once.

    Args:
        parts: whether the parts of a composite are requested too, before it.
        reference: whether there are reference maps. Without them metrics of pairs are left out of families, and are an
            error by name.
        values: whether the network is one of values. Metrics that need a probability are then left out of families and
            of `DEFAULT_METRICS`, with a warning, and are an error by name.
        mosaics: whether the images may be mosaics. If not, metrics that need those are left out of families.
        parted: whether the images may be made of removable parts. If not, metrics that need those are left out of
            families.

    Raises:
        NotApplicable: a metric that needs a probability, of a network of values.
        UnknownName: a metric or an option that does not exist, with near misses.
        InvalidInput: nothing requested, options of a family, or nothing but metrics of pairs without a reference.
    """
    given = dict(metrics) if isinstance(metrics, Mapping) else {}
    spellings = [metrics] if isinstance(metrics, str) else list(metrics)
    if not spellings:
        raise InvalidInput(f"Expected at least one metric. Got none. Known: {', '.join(METRICS)}.")
    found: dict[str, MetricRequest] = {}
    left: dict[str, str] = {}
    whole: list[str] = []  # families without their metrics of parts
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
            if request.of_parts and not parted and _family(text):
                whole += [text]
                continue
            if values and (why := request.refusal_of_values):
                if not (_family(text) or metrics is DEFAULT_METRICS):
                    raise NotApplicable(f"{request.key!r} has no meaning for a network of values: {why}.")
                left[request.key] = why
                named = {one.key: one for one in request.parts.values() if not one.refusal_of_values}
                found |= {key: one for key, one in named.items() if parts and key not in found}
                continue
            for one in [*(request.parts.values() if parts else ()), request]:
                found.setdefault(one.key, one)
    if left:
        warn(left_out_of_values(left))
    if not found and left:
        raise NotApplicable(f"No metric asked for has a meaning for a network of values. {left_out_of_values(left)}")
    if not found and whole:
        raise InvalidInput(NO_PARTS.format(whole[0]))
    if not found:
        raise InvalidInput(NO_REFERENCE.format(", ".join(spellings)))
    return list(found.values())


def left_out_of_values(left: Mapping[str, str]) -> str:
    """The sentence about metrics that a network of values does not have: key → why."""
    return (
        f"Metrics without a meaning for a network of values are left out: "
        f"{'; '.join(f'{key} ({why})' for key, why in left.items())}."
    )


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

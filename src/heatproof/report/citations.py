r"""What a paper says of a study: a paragraph in plain words with `\cite`, and the BibTeX entries that it needs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heatproof.bibliography import bibtex, is_ours, keys_of
from heatproof.class_names import several_in_words
from heatproof.paper_table import latex

#: The entries of the statistics that every study uses, and of the intervals.
WILCOXON, HOLM, FRIEDMAN, INTERVALS = (
    *("wilcoxon1945individual", "holm1979simple", "friedman1937use", "hesterberg2015bootstrap"),
)
#: The entry of the robustness metric.
ROBUSTNESS = "sarkar2025noise"
#: The words for a target that is a rule.
TARGETS = {
    "predicted": "the predicted class",
    "clean": "the class predicted on the clean image",
    "label": "the class of the label",
    "least": "the least probable class",
}


@dataclass(frozen=True)
class Sources:
    """Where each part of a study is from: name → `source`, for the names that the study holds."""

    methods: Mapping[str, str]
    controls: Mapping[str, str]
    segmenters: Mapping[str, str]
    perturbations: Mapping[str, str]
    transformations: Mapping[str, str]
    study: str


@dataclass
class Citations:
    """The paragraph and the entries. uncited: parts of the study without an entry, which are not heatproof's."""

    paragraph: str = ""
    keys: list[str] = field(default_factory=list)
    uncited: list[str] = field(default_factory=list)

    @property
    def bibtex(self) -> str:
        """All entries that the paragraph cites."""
        return bibtex(self.keys)

    def cited(self, *sources: str) -> str:
        r"""`~\cite{…}` of everything that some sources cite; empty where they cite nothing."""
        return self.cite(*(key for source in sources for key in keys_of(source)))

    def cite(self, *keys: str) -> str:
        r"""`~\cite{…}` of some keys."""
        self.keys += [key for key in keys if key not in self.keys]
        return rf"~\cite{{{','.join(dict.fromkeys(keys))}}}" if keys else ""

    def named(self, sources: Mapping[str, str], labels: Mapping[str, str] | None = None) -> str:
        """Names with their citations, as a list in words."""
        found = []
        for name, source in sources.items():
            if not keys_of(source) and not is_ours(source):
                self.uncited.append(name)
            shown = (labels or {}).get(name)
            called = f"{latex(shown)} ({latex(name)})" if shown else latex(name)
            found.append(called + self.cited(source))
        return f"{', '.join(found[:-1])} and {found[-1]}" if len(found) > 1 else "".join(found)


def citations(plan: Mapping[str, Any], sources: Sources) -> Citations:
    """The paragraph and the entries of a study, from its `study.json`."""
    found = Citations()
    found.paragraph = " ".join(_sentences(plan, sources, found))
    return found


def _sentences(plan: Mapping[str, Any], sources: Sources, found: Citations) -> Iterator[str]:
    labels = plan.get("labels") or {}
    yield from _subject(plan, sources, found)
    if sources.methods:
        yield f"The methods were {found.named(sources.methods, labels)}."
    if maps := [str(one.get("name")) for one in plan.get("maps") or ()]:
        found.uncited += maps
        yield f"Maps made beforehand were scored too: {_listed(list(map(latex, maps)))}."
    if sources.controls:
        yield (
            f"Maps that are uninformed on purpose were controls: {found.named(sources.controls, labels)}. A metric "
            "that cannot tell one of them from the best method counts as fooled."
        )
    facts = plan.get("metric_facts") or {}
    if facts:
        yield f"The metrics were {found.named({name: str(f.get('source') or '') for name, f in facts.items()})}."
    yield from _conditions(plan, sources, found)
    yield from _statistics(plan, found)
    yield f"Random numbers were seeded with {plan.get('seed', 0)}; versions: {latex(str(plan.get('version') or ''))}."


def _subject(plan: Mapping[str, Any], sources: Sources, found: Citations) -> Iterator[str]:
    models = [_model(one) for one in plan.get("models") or ()]
    sets = [_images(one, (plan.get("samples") or {}).get(one.get("name"))) for one in plan.get("datasets") or ()]
    after = found.cited(sources.study)
    yield (
        f"We evaluated heatmaps of {_listed(models)} on {_listed(sets)} with the study {latex(str(plan.get('study')))} "
        f"of heatproof{after}."
    )
    target = str(plan.get("target") or "predicted")
    if pooled := list(plan.get("pooled_targets") or ()):
        yield f"The classes explained were {latex(several_in_words(pooled))}; scores are means over an image's classes."
        return
    yield f"The class explained was {TARGETS.get(target, f'class {latex(target)}')}."


def _model(facts: Mapping[str, Any]) -> str:
    layer = f" (layer {latex(str(facts['layer']))})" if facts.get("layer") else ""
    return latex(str(facts.get("name"))) + layer


def _images(facts: Mapping[str, Any], sample: str | None) -> str:
    count = facts.get("image_count")
    images = f"{count:,} {'image' if count == 1 else 'images'} of " if isinstance(count, int) else ""
    return f"{images}{latex(str(facts.get('name')))}{f' ({latex(sample)})' if sample else ''}"


def _conditions(plan: Mapping[str, Any], sources: Sources, found: Citations) -> Iterator[str]:
    if sources.perturbations:
        severities = ", ".join(map(str, plan.get("severities") or ()))
        rates = ", ".join(f"{100 * rate:g}" for rate in plan.get("calibrate") or ())
        strengths = f"strengths that flip {rates} per cent of the predictions" if rates else f"severities {severities}"
        yield f"Images were perturbed by {found.named(sources.perturbations)}, at {strengths}."
    if sources.transformations:
        yield f"Images were transformed by {found.named(sources.transformations)}."
    if sources.segmenters:
        yield f"Maps were ranked over segments made by {found.named(sources.segmenters)}."


def _statistics(plan: Mapping[str, Any], found: Citations) -> Iterator[str]:
    resamples = int(plan.get("resamples") or 1000)
    yield (
        f"Intervals are 95 per cent bootstrap intervals by image ({resamples:,} resamples, expanded percentile"
        f"{found.cite(INTERVALS)})."
    )
    yield (
        f"Methods were compared in pairs by Wilcoxon's signed-rank test{found.cite(WILCOXON)}, paired, with Holm's "
        f"correction{found.cite(HOLM)} over all pairs at 5 per cent, and all together by Friedman's "
        f"test{found.cite(FRIEDMAN)}; methods with equal maps count as one."
    )
    if plan.get("perturbations"):
        yield (
            f"By the robustness metric{found.cite(ROBUSTNESS)} the pairs are tested over the conditions (perturbation "
            "and severity), and two methods differ only where simultaneous bootstrap bounds by image find a difference "
            "too."
        )
    if reference := plan.get("reference"):
        called = (plan.get("labels") or {}).get(reference, reference)
        yield f"{latex(str(called))} was compared with every other method, with Holm's correction over these tests."


def _listed(texts: Sequence[str]) -> str:
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else "".join(texts)

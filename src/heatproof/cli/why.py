"""`heatproof why NAME`: what a method, metric, perturbation or segmenter does, and what is known to mislead in it."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import typer

from heatproof.cli.listing import interval


class Explained(NamedTuple):
    """One thing of that name: a line that says what it is, paragraphs of plain text, and its traps."""

    title: str
    paragraphs: list[str]
    traps: tuple[str, ...]


def why(name: Annotated[str, typer.Argument(help="A method, control, metric, perturbation or segmenter.")]) -> None:
    """Say in plain words what a method or a metric does, and what is known to mislead in it."""
    from rich.console import Console
    from rich.text import Text

    found = list(explained(name))
    console = Console(highlight=False, soft_wrap=False)
    for position, one in enumerate(found):
        if position:
            console.print()
        console.print(Text(one.title, "bold"))
        for paragraph in one.paragraphs:
            console.print()
            console.print(Text(paragraph))
        if one.traps:
            console.print()
            console.print(Text("Known to mislead", "bold"))
            for trap in one.traps:
                console.print(_item(trap))
            console.print()
            console.print(Text("The runs behind these sentences, with intervals and commands: docs/claims.md."))


def explained(name: str) -> Iterator[Explained]:
    """Everything that has the name: a metric and a perturbation may share one.

    Raises:
        UnknownName: nothing has it; with near misses among all names.
    """
    from heatproof.attributions import ATTRIBUTIONS
    from heatproof.metrics import METRICS
    from heatproof.metrics.composites import PAIR_COMPOSITES
    from heatproof.perturbations import PERTURBATIONS
    from heatproof.registry import Registry, unknown
    from heatproof.segments import SEGMENTERS
    from heatproof.traps import METHOD_TRAPS, METRIC_TRAPS

    registries: list[tuple[Registry, Mapping[str, tuple[str, ...]]]] = [
        (ATTRIBUTIONS, METHOD_TRAPS), (METRICS, METRIC_TRAPS), (PERTURBATIONS, {}), (SEGMENTERS, {})
    ]  # fmt: skip
    here = [(registry.kind, registry[name], traps) for registry, traps in registries if name in registry]
    composite = PAIR_COMPOSITES.get(name.lower())
    if not here and composite is None:
        known = [*(one for registry, _ in registries for one in registry), *PAIR_COMPOSITES]
        raise unknown("method, metric, perturbation or segmenter", name, known)
    for kind, entry, traps in here:
        yield Explained(_title(kind, entry), _paragraphs(entry), traps.get(entry.name, ()))
    if composite is not None:
        title = f"{name.lower()}: metric of pairs, in {interval(*composite.range)}, higher is better"
        parts = " and ".join(composite.parts)
        text = [
            composite.summary,
            f"One value for a method under a perturbation, made of {parts} of every pair of maps.",
        ]
        yield Explained(title, text, METRIC_TRAPS.get(name.lower(), ()))


def _item(text: str) -> Any:
    """An item of a list, its further lines under its first."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    grid.add_row("-", text.replace("[", r"\["))
    return grid


def _title(kind: str, entry: Any) -> str:
    traits = entry.traits
    if kind == "metric":
        better = "higher" if traits["better"] == "high" else "lower"
        return f"{entry.name}: metric ({traits['family']}), in {interval(*traits['range'])}, {better} is better"
    if kind == "method" and traits["control"]:
        return f"{entry.name}: control, a map that is uninformed on purpose"
    return f"{entry.name}: {kind}"


def _paragraphs(entry: Any) -> list[str]:
    """The docstring without its marks of code, line breaks only between paragraphs and list items; then the facts."""
    text = (inspect.getdoc(entry.function) or "").replace("`", "")
    found = []
    for paragraph in text.split("\n\n"):
        head, _, rest = paragraph.partition("\n")
        if head in ("Args:", "Raises:"):
            items: list[str] = []
            for line in rest.splitlines():
                indented = len(line) - len(line.lstrip())
                if indented > 4 and items:
                    items[-1] += f" {line.strip()}"
                else:
                    items.append(f"  {line.strip()}")
            found.append("\n".join(["Options:" if head == "Args:" else "Refused:", *items]))
        else:
            found.append(" ".join(paragraph.split()))
    facts = (
        [f"Defaults: {', '.join(f'{key}={value}' for key, value in entry.options.items())}."] if entry.options else []
    )
    facts += [f"Also called {', '.join(entry.aliases)}."] if entry.aliases else []
    facts += [f"Source: {entry.source}."] if entry.source else []
    return [*found, *([" ".join(facts)] if facts else [])]

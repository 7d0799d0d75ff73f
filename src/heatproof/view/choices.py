"""What can be chosen on the page, and which maps a choice names."""

from collections.abc import Mapping, Sequence

from heatproof.panels.explained_image import ExplainedImage, Method

#: Maps that are shown before anybody has chosen.
FIRST = 4


def title(method: Method) -> str:
    """A method without its layer: what a choice calls it."""
    return " ".join(filter(None, (method.name, method.settings)))


def titles(methods: Sequence[Method]) -> list[str]:
    """The methods without their layers, each once."""
    return list(dict.fromkeys(map(title, methods)))


def layers(methods: Sequence[Method]) -> list[str]:
    """The layers that methods read, each once; empty where no method is there at more than one."""
    if len(titles(methods)) == len(methods):
        return []
    return list(dict.fromkeys(method.where for method in methods if method.where))


def first_titles(methods: Sequence[Method], entry: ExplainedImage) -> list[str]:
    """The first methods that have a map of an image."""
    there = entry.blocks[0].maps if entry.blocks else {}
    return (titles([method for method in methods if method.key in there]) or titles(methods))[:FIRST]


def chosen(methods: Sequence[Method], wanted: Sequence[str], at: Sequence[str]) -> list[Method]:
    """The methods of these titles at these layers; at any where none is named."""
    return [one for one in methods if title(one) in wanted and (not at or not one.where or one.where in at)]


def severities(known: Mapping[str, Sequence[int]], live: Sequence[str], kind: str) -> list[int]:
    """The severities of a kind of noise that can be shown, 0 first; a live network has all."""
    return list(range(6)) if kind in live else [0, *sorted(known.get(kind, ()))]


def nearest(severity: float, offered: Sequence[int]) -> int:
    """The offered severity that is nearest, the milder of two."""
    return min(offered, key=lambda one: (abs(one - severity), one))

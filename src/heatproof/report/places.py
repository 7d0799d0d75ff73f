"""Sections of which there is one for each model and set of images: anchors, titles, answers."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

from heatproof.report.blocks import Answer, Section
from heatproof.report.frames import slug

One = TypeVar("One")


class Place(NamedTuple):
    """Where a section stands among those of the page's models and sets of images.

    where: `MODEL on DATASET`. suffix: the end of its anchors and of the names of its figures; empty for the only one.
    first, last, several: whether it is the first or the last, and whether there are others.
    """

    where: str
    suffix: str
    first: bool
    last: bool

    @property
    def several(self) -> bool:
        return not (self.first and self.last)

    def named(self, text: str) -> str:
        """A title that names the model and the images where there are several."""
        return f"{text}{' ' if text.endswith('?') else ': '}{self.where}" if self.several else text

    def answer(self, verdict: Any) -> Answer:
        """The sentence and the notes of a verdict, for this place."""
        return Answer(verdict.sentence, verdict.notes, self.where if self.several else "")

    def section(self, anchor: str, title: str, nav: str, nav_of_several: str = "", **parts: Any) -> Section:
        """A section with this anchor, title and name in the contents; `parts` are the other attributes of `Section`.

        nav_of_several: its name in the contents where there are others; by default that of the only one and `where`.
        """
        nav = nav_of_several if self.several and nav_of_several else self.named(nav)
        return Section(id=f"{anchor}{self.suffix}", title=self.named(title), nav=nav, **parts)


def places(
    items: Iterable[One], setting: Callable[[Any], tuple[str, ...]] = lambda one: one.setting
) -> Iterator[tuple[Place, One]]:
    """Each item with its place; `setting`: the model and the dataset of an item come first in it."""
    found = list(items)
    for position, one in enumerate(found):
        model, dataset, *_ = setting(one)
        suffix = "" if len(found) == 1 else f"-{position + 1:02d}-{slug(model)}"
        yield Place(f"{model} on {dataset}", suffix, position == 0, position == len(found) - 1), one

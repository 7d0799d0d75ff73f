"""The sections of a page and the blocks in them; `templates/blocks.html` draws each kind of block.

A section is made by a function from `Findings` to a `Section`, to several, or to None if there is nothing to show.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from markupsafe import Markup
from matplotlib.figure import Figure

from heatproof.report import drawing


@dataclass(frozen=True)
class Answer:
    """A verdict at the top of the page.

    sentence, details: the verdict and its notes. where: the models and images it holds for, empty for all.
    """

    sentence: str
    details: Sequence[str] = ()
    where: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: its anchor. title: its heading. nav: its name in the contents, the title by default.
        blocks: what it shows; without any it is not drawn, and has answers, warnings or facts only.
        anchors: further lines of the contents, as (id, name).
        answers, warnings: at the top of the page. facts: (name, value) below them.
        words: words of `glossary.WORDS` that it uses. definitions: (heading, ((word, meaning), …)) of its own.
    """

    id: str = ""
    title: str = ""
    blocks: Sequence[Any] = ()
    nav: str = ""
    anchors: Sequence[tuple[str, str]] = ()
    answers: Sequence[Answer] = ()
    warnings: Sequence[str] = ()
    facts: Sequence[tuple[str, str]] = ()
    words: Collection[str] = ()
    definitions: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()


@dataclass(frozen=True)
class Text:
    """A paragraph; `look`: empty, `kind` (faint, above) or `caption`. Markup is drawn as it is, text is escaped."""

    kind: ClassVar[str] = "text"
    text: str
    look: str = ""


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str
    id: str = ""


@dataclass(frozen=True)
class Legend:
    """The meaning of the marks in a table."""

    kind: ClassVar[str] = "legend"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Details:
    """Blocks that are hidden until the reader opens them; `long` ones are left out in print."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: Sequence[Any]
    long: bool = False


@dataclass(frozen=True)
class SheetRow:
    """One row of a sheet; `control` greys it."""

    cells: Sequence[str]
    control: bool = False


@dataclass(frozen=True)
class Sheet:
    """A plain table: header, rows, and which columns hold words (set left)."""

    kind: ClassVar[str] = "sheet"
    caption: str
    header: Sequence[str]
    rows: Sequence[SheetRow]
    texts: Collection[int] = frozenset({0})
    captioned: bool = True


def sheet(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence],
    texts: Collection[int] = (),
    controls: Collection[str] = (),
    captioned: bool = True,
) -> Sheet:
    """A sheet from rows of ready texts; rows whose first cell is one of `controls` are greyed."""
    lines = tuple(SheetRow(tuple(str(cell) for cell in row), row[0] in controls) for row in rows)
    return Sheet(caption, tuple(header), lines, frozenset({0, *texts}), captioned)


@dataclass(frozen=True)
class Drawing:
    """A figure of the page, drawn on first use, and written to `name`.svg and `name`.pdf.

    Attributes:
        caption: what it shows, in words; also its text for screen readers.
        draw: makes the figure that is written to files.
        panels: name → makes one panel; if there are any, the page shows them and fits them to the screen's width.
        key: makes the legend of the panels.
    """

    name: str
    caption: str
    draw: Callable[[], Figure]
    panels: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)
    key: Callable[[], Figure] | None = None

    @cached_property
    def figure(self) -> Figure:
        """The whole figure."""
        return self.draw()

    @cached_property
    def svg(self) -> str:
        """The whole figure as an SVG file."""
        return drawing.svg(self.figure)

    @cached_property
    def shown(self) -> list[Markup]:
        """The SVG elements on the page."""
        if not self.panels:
            return [Markup(drawing.inline(self.svg, self.caption, self.name))]
        return [
            Markup(drawing.inline(drawing.svg(draw()), f"{self.caption} {part}", f"{self.name}-{number}"))
            for number, (part, draw) in enumerate(self.panels.items())
        ]

    @cached_property
    def legend(self) -> Markup | None:
        """The legend of the panels as an SVG element."""
        if self.key is None:
            return None
        return Markup(drawing.inline(drawing.svg(self.key()), "Key to the lines", f"{self.name}-key"))

    def files(self) -> Iterator[tuple[str, bytes]]:
        """File name and content."""
        yield f"{self.name}.svg", self.svg.encode("utf-8")
        yield f"{self.name}.pdf", drawing.pdf(self.figure)


@dataclass(frozen=True)
class Figures:
    """Drawings one below the other; `look`: empty, `abreast` or `wide`; `hidden` ones are only written to files."""

    kind: ClassVar[str] = "figures"
    drawings: Sequence[Drawing]
    look: str = ""
    hidden: Sequence[Drawing] = ()


def drawings_in(blocks: Iterable[Any]) -> Iterator[Drawing]:
    """Every drawing of some blocks, those inside `Details` too."""
    for block in blocks:
        if isinstance(block, Figures):
            yield from (*block.drawings, *block.hidden)
        elif isinstance(block, Details):
            yield from drawings_in(block.blocks)

"""Tables for papers: rows of ready texts → LaTeX with booktabs, and Markdown.

The best value of a column is bold. A value that is not significantly different from it carries `TIE`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from heatproof.errors import InvalidInput

#: The mark of a value that cannot be told from the best of its column, and of a column that a control fools.
TIE, FOOLED = "≈", "†"
#: What may stand beside a mean: nothing, its 95 % interval, or the standard deviation over the images.
SPREADS = ("none", "interval", "std")

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "_%&#${}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "\u00a0": "~",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "→": r"$\rightarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "∞": r"$\infty$",
    "½": r"$\frac12$",
    "²": "$^2$",
    "₀": "$_0$",
    "†": r"$^\dagger$",
    "⚑": r"$^\dagger$",
    "★": r"$\star$",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    "α": r"$\alpha$",
    "κ": r"$\kappa$",
    "χ": r"$\chi$",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
}
#: Points: the width of a column of a two-column page and of the page, of a letter of 10 points and of one of
#: \\scriptsize on average, and of the space between two columns of a table.
COLUMN_WIDTH, PAGE_WIDTH, LETTER, SMALL_LETTER, BETWEEN = 234.0, 486.0, 5.0, 3.6, 12.0

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~$])")


@dataclass(frozen=True)
class PaperCell:
    """A value as text, with what stands beside it.

    beside: an interval such as `0.55–0.70`, or with `plus_minus` a deviation. best, tie: whether it is the best of its
    column, or cannot be told from it.
    """

    text: str
    beside: str = ""
    plus_minus: bool = False
    best: bool = False
    tie: bool = False


@dataclass(frozen=True)
class PaperRow:
    """A line of a table; lines of controls stand below a rule."""

    name: str
    cells: Sequence[PaperCell]
    control: bool = False


@dataclass(frozen=True)
class PaperTable:
    """A table for a paper; every text is plain and is escaped where it is written.

    name: of its file, and of its LaTeX label. head: the names of the columns, that of the first included. notes:
    sentences below it, which explain its marks. words: columns that hold words (set left); the first does.
    """

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[PaperRow]
    notes: Sequence[str] = ()
    words: Sequence[int] = (0,)

    @property
    def width(self) -> float:
        """About how wide it is in LaTeX, in points, at 10 points."""
        widths = [LETTER * len(name) for name in self.head]
        for row in self.rows:
            cells = [LETTER * len(row.name), *map(_cell_width, row.cells)]
            widths = [max(pair) for pair in zip(widths, cells, strict=True)]
        return sum(widths) + BETWEEN * (len(widths) - 1)

    def to_latex(self) -> str:
        r"""A `table` environment; it needs `\usepackage{booktabs}` and no other package.

        A table that is wider than a column of a two-column page is a `table*`, which spans both columns there and is a
        `table` in other documents. One that is wider than such a page is set smaller.
        """
        kind = "table*" if self.width > COLUMN_WIDTH else "table"
        columns = "".join("l" if number in (0, *self.words) else "r" for number in range(len(self.head)))
        lines = [
            rf"\begin{{{kind}}}[{'tp' if kind == 'table*' else 'tbp'}]",
            r"\centering",
            *([r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"] if self.width > PAGE_WIDTH else ()),
            rf"\caption{{{latex(self.caption)}}}",
            rf"\label{{tab:{_label(self.name)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _latex_line([latex(name) for name in self.head]),
            r"\midrule",
        ]
        before = False
        for number, row in enumerate(self.rows):
            if row.control and not before and number:
                lines.append(r"\midrule")
            before = row.control
            lines.append(_latex_line([latex(row.name), *map(_latex_cell, row.cells)]))
        lines += [r"\bottomrule", r"\end{tabular}"]
        if self.notes:
            lines.append(rf"\par\smallskip{{\footnotesize {latex(' '.join(self.notes))}\par}}")
        return "\n".join([*lines, rf"\end{{{kind}}}"]) + "\n"

    def to_markdown(self) -> str:
        """A table of GitHub's Markdown, with the caption above and the notes below."""
        sides = [":--" if number in (0, *self.words) else "--:" for number in range(len(self.head))]
        lines = [[markdown(name) for name in self.head], sides]
        lines += [[markdown(row.name), *map(_markdown_cell, row.cells)] for row in self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        notes = markdown(" ".join(self.notes))
        return "\n\n".join(part for part in (markdown(self.caption), table, notes) if part) + "\n"


def checked_spread(spread: str) -> str:
    """InvalidInput for a spread that does not exist."""
    if spread not in SPREADS:
        raise InvalidInput(f"`spread` must be {', '.join(SPREADS[:-1])} or {SPREADS[-1]}. Got {spread!r}.")
    return spread


def latex(text: str) -> str:
    r"""A text for LaTeX: special signs escaped, line breaks as spaces; `[` and `*` do not follow `\\` bare."""
    written = "".join(_LATEX.get(sign, sign) for sign in text.replace("\n", " "))
    return f"{{{written[0]}}}{written[1:]}" if written[:1] in ("[", "*") else written


def markdown(text: str) -> str:
    """A text for Markdown: signs that have a meaning there are escaped, line breaks become spaces."""
    return _MARKDOWN.sub(r"\\\1", text.replace("\n", " "))


def _latex_line(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _latex_cell(cell: PaperCell) -> str:
    value = latex(cell.text)
    value = rf"\textbf{{{value}}}" if cell.best else value
    value += r"$^{\approx}$" if cell.tie else ""
    if not cell.beside:
        return value
    beside = latex(cell.beside)
    return rf"{value} $\pm$ {beside}" if cell.plus_minus else rf"{value} {{\scriptsize ({beside})}}"


def _cell_width(cell: PaperCell) -> float:
    letter = LETTER if cell.plus_minus else SMALL_LETTER
    return LETTER * len(cell.text) + (letter * (len(cell.beside) + 3) if cell.beside else 0.0)


def _markdown_cell(cell: PaperCell) -> str:
    value = markdown(cell.text)
    value = f"**{value}**" if cell.best else f"{value} {TIE}" if cell.tie else value
    if not cell.beside:
        return value
    beside = markdown(cell.beside)
    return f"{value} ± {beside}" if cell.plus_minus else f"{value} ({beside})"


def _label(name: str) -> str:
    """A name as part of a label: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "table"

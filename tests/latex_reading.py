"""A strict reader of the LaTeX that tables are written in: no engine is needed to see that a table would be set."""

import re
from dataclasses import dataclass

#: The commands that a table may use; each is of LaTeX itself or of booktabs.
KNOWN = frozenset(
    (
        *("begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "textbf", "scriptsize"),
        *("footnotesize", "smallskip", "par", "textbackslash", "textasciitilde", "textasciicircum", "textless"),
        *("textgreater", "textbar", "dots", "pm", "times", "cdot", "leq", "geq", "approx", "rightarrow", "uparrow"),
        *("setlength", "tabcolsep"),
        *("downarrow", "infty", "frac", "dagger", "star", "surd", "alpha", "kappa", "chi", "Delta", "Sigma"),
    )
)
_TOKEN = re.compile(r"\\([A-Za-z]+|.)|([{}$&%#_^~])|([^\\{}$&%#_^~]+)", re.DOTALL)


@dataclass(frozen=True)
class Read:
    """A table as LaTeX would see it: its columns, and the source of each cell by row."""

    columns: str
    rows: list[list[str]]
    caption: str
    notes: str


def read_table(text: str) -> Read:
    """Reads one `table` environment. AssertionError where LaTeX would stop or set something else."""
    _check_signs(text)
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lrc]+)\}", text)
    body = text.partition(columns + "}\n")[2].partition(r"\end{tabular}")[0]
    lines = [line for line in body.splitlines() if line not in (r"\toprule", r"\midrule", r"\bottomrule")]
    assert body.startswith("\\toprule\n") and body.endswith("\\bottomrule\n")
    rows = []
    for line in lines:
        assert line.endswith(r" \\"), line
        assert line[:1] not in "[*", "an optional argument of the row before"
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r" \\"))])
    assert {len(row) for row in rows} == {len(columns)}
    caption = text.partition(r"\caption{")[2].partition("}\n\\label")[0]
    return Read(columns, rows, caption, text.partition(r"\footnotesize ")[2].partition(r"\par}")[0])


def _check_signs(text: str) -> None:
    """Braces, environments and formulas in pairs; special signs escaped; known commands only."""
    depth, formula, environments = 0, False, []
    assert "".join(match[0] for match in _TOKEN.finditer(text)) == text
    for command, sign, plain in _TOKEN.findall(text):
        if command.isalpha():
            assert command in KNOWN, command
        elif command:
            assert command in r"\_%&#${}", command
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
        formula ^= sign == "$"
        assert sign not in "%#" or not sign, f"a bare {sign}"
        assert formula or sign not in ("_", "^"), f"{sign} outside a formula"
        assert not set(plain) & set("≈†⚑★−±×≤≥↑↓₀κχ"), plain
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        assert kind == "begin" or environments.pop() == name
        environments += [name] if kind == "begin" else []
    assert not depth and not formula and not environments

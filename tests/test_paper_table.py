"""Tables for papers: escaped, balanced, as many cells as columns, marks where they belong."""

import pytest

from heatproof.display_names import checked_labels
from heatproof.errors import InvalidInput, UnknownName
from heatproof.paper_table import PaperCell, PaperRow, PaperTable, checked_spread, latex, markdown

from .latex_reading import read_table

SPECIAL = r"a_b%c&d#e$f{g}h~i^j\k<l>m|n"


def table(**changes) -> PaperTable:
    rows = [
        PaperRow("ours", [PaperCell("0.72", "0.70–0.74", best=True), PaperCell("−1.0")]),
        PaperRow("theirs", [PaperCell("0.71", "0.69–0.73", tie=True), PaperCell("–")]),
        PaperRow("random", [PaperCell("0.10"), PaperCell("0.0")], control=True),
    ]
    given = {"name": "a table", "caption": "Scores.", "head": ["method", "road ↑", "drop ↓"], "rows": rows}
    return PaperTable(**{**given, **changes})


def test_marks_in_latex():
    text = table(notes=["≈: p ≥ .05."]).to_latex()
    found = read_table(text)
    assert found.columns == "lrr"
    assert found.rows[0] == ["method", r"road $\uparrow$", r"drop $\downarrow$"]
    assert found.rows[1] == ["ours", r"\textbf{0.72} {\scriptsize (0.70--0.74)}", "$-$1.0"]
    assert found.rows[2] == ["theirs", r"0.71$^{\approx}$ {\scriptsize (0.69--0.73)}", "--"]
    assert r"\label{tab:a-table}" in text
    assert found.notes == r"$\approx$: p $\geq$ .05."
    assert text.index("theirs") < text.rindex(r"\midrule") < text.index("random")


def test_plus_minus():
    rows = [PaperRow("ours", [PaperCell("0.72", "0.11", plus_minus=True, best=True)])]
    found = table(rows=rows, head=["method", "road"])
    assert read_table(found.to_latex()).rows[1][1] == r"\textbf{0.72} $\pm$ 0.11"
    assert "**0.72** ± 0.11" in found.to_markdown()


def test_special_signs_are_escaped_everywhere():
    rows = [PaperRow(SPECIAL, [PaperCell(SPECIAL)]), PaperRow("[x]", [PaperCell("1")]), PaperRow("*y", [PaperCell("")])]
    text = table(name=SPECIAL, caption=SPECIAL, head=[SPECIAL, "[y]"], rows=rows, notes=[SPECIAL]).to_latex()
    found = read_table(text)
    written = (
        r"a\_b\%c\&d\#e\$f\{g\}h\textasciitilde{}i\textasciicircum{}j\textbackslash{}k"
        r"\textless{}l\textgreater{}m\textbar{}n"
    )
    assert found.rows[0][0] == found.rows[1][0] == found.rows[1][1] == found.caption == found.notes == written
    assert [row[0] for row in found.rows[2:]] == ["{[}x]", "{*}y"]
    assert latex("two\nlines") == "two lines"


def test_a_strict_reader_sees_faults():
    for fault in ("a_b", "50%", "x & y", "{", r"\foo{}", "≈"):
        with pytest.raises(AssertionError):
            read_table(table().to_latex().replace("theirs", fault))


def test_markdown():
    lines = table().to_markdown().splitlines()
    assert lines[2:7] == [
        "| method | road ↑ | drop ↓ |",
        "| :-- | --: | --: |",
        "| ours | **0.72** (0.70–0.74) | −1.0 |",
        "| theirs | 0.71 ≈ (0.69–0.73) | – |",
        "| random | 0.10 | 0.0 |",
    ]
    assert markdown("a|b*c_d") == r"a\|b\*c\_d"


def test_an_unknown_spread_is_refused():
    with pytest.raises(InvalidInput, match=r"`spread` must be none, interval or std\. Got 'sd'"):
        checked_spread("sd")


def test_labels():
    methods = ["gradcam", "layercam", "random"]
    assert checked_labels({"Layer-CAM": " LayerCAM (ours) "}, methods) == {"layercam": "LayerCAM (ours)"}
    with pytest.raises(UnknownName, match="Did you mean 'layercam'"):
        checked_labels({"layrcam": "x"}, methods)
    with pytest.raises(InvalidInput, match="'gradcam' and 'layercam' would both be called 'CAM'"):
        checked_labels({"gradcam": "CAM", "layercam": "CAM"}, methods)
    with pytest.raises(InvalidInput, match="'gradcam' and 'random' would both be called 'gradcam'"):
        checked_labels({"random": "gradcam"}, methods)
    with pytest.raises(InvalidInput, match="must be one line of text"):
        checked_labels({"gradcam": "  "}, methods)


def test_a_wide_table_spans_both_columns():
    """A `table` is one column wide in a two-column paper; one wider than the page is set smaller too."""
    assert r"\begin{table}[tbp]" in table().to_latex()
    rows = [PaperRow("a method of ours", [PaperCell("0.7213", "0.7011–0.7412") for _ in range(3)])]
    wide = table(head=["method", "road", "drop", "arcc"], rows=rows).to_latex()
    assert r"\begin{table*}[tp]" in wide and r"\end{table*}" in wide and "tabcolsep" not in wide
    rows = [PaperRow("a method of ours", [PaperCell("0.7213", "0.7011–0.7412") for _ in range(6)])]
    wider = table(head=["method", *"abcdef"], rows=rows).to_latex()
    assert r"\setlength{\tabcolsep}{3pt}" in wider
    read_table(wide)
    read_table(wider)

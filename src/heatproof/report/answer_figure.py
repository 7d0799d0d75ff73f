"""The answers of an audit as a figure: methods × questions, with a sign in every cell."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from heatproof.report.drawing import Paper, drawn, figure
from heatproof.report.legend import Styles, escaped, line_height, method_axis, names_beside, room_of
from heatproof.report.style import CHANGED, FAINT, LINE, UNCHANGED
from heatproof.report.text_measure import text_width, wrapped_to
from heatproof.statistics.audit_answers import FAIL, OPEN, PASS

#: Answer → sign and colour; signs differ too, for readers who see no colour and for print in grey.
SIGNS = {PASS: ("✓", UNCHANGED), FAIL: ("✗", CHANGED), OPEN: ("?", FAINT)}
WORDS = "✓ passes   ✗ fails   ? cannot be told on these images   – not asked"


@drawn
def answer_figure(
    answers: Mapping[str, Mapping[str, str]],
    questions: Sequence[str],
    methods: Sequence[str],
    looks: Styles,
    recommended: str = "",
    note: str = "",
    paper: Paper | None = None,
) -> Figure:
    """Which method passed which question; the name of the recommended one is bold.

    answers: method → question → `pass`, `fail` or `cannot be told`.
    """
    names = names_beside(methods, looks, paper)
    beside, row = room_of(names)
    size, across = matplotlib.rcParams["font.size"], max(1, len(questions))
    width = paper.width if paper else beside + 0.4 + 0.95 * across
    cell = (width - beside - 0.2) / across
    heads = [wrapped_to(question, cell - 0.05, size * 0.9) for question in questions]
    words = [word for question in questions for word in question.replace("-", "- ").split()]
    upright = any(text_width(word, size * 0.9) > cell - 0.05 for word in words)
    heads = list(questions) if upright else heads
    deep = max((text_width(head, size * 0.9) for head in heads), default=0.2) if upright else (
        max((head.count("\n") + 1 for head in heads), default=1) * line_height(size * 0.9)
    )  # fmt: skip
    below = [wrapped_to(text, width - 0.1, size * 0.834) for text in (WORDS, note) if text]
    lines = sum(text.count("\n") + 1 for text in below)
    high = max(row, 1.9 * size / 72) * len(methods) + deep + 0.2 + lines * line_height(size * 0.834)
    canvas = figure(width, high, paper)
    axis = canvas.subplots()
    for position, method in enumerate(methods):
        for column, question in enumerate(questions):
            sign, color = SIGNS.get(str(answers.get(method, {}).get(question)), ("–", FAINT))
            style = {"ha": "center", "va": "center", "color": color, "fontsize": 1.2 * size}
            axis.text(column + 0.5, position + 0.5, sign, **style)
        axis.axhline(position + 1, color=LINE, linewidth=0.5)
    method_axis(axis, methods, looks, names, cells=True)
    if recommended in methods:
        axis.get_yticklabels()[list(methods).index(recommended)].set_fontweight("bold")
    axis.set_xlim(0, across)
    axis.set_xticks([column + 0.5 for column in range(len(questions))], list(map(escaped, heads)),
                    rotation=90 if upright else 0, fontsize=size * 0.9)  # fmt: skip
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    canvas.supxlabel(escaped("\n".join(below)), fontsize=size * 0.834, color=FAINT)
    return canvas

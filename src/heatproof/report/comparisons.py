"""Tests between methods as blocks of a page: the Friedman test in words, rank diagrams, every pair of methods."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from heatproof.report.blocks import Details, Drawing, Figures, Heading, Text, sheet
from heatproof.report.numbers import number, probability
from heatproof.report.rank_figure import critical_difference_figure
from heatproof.report.style import Style
from heatproof.statistics.paired import Comparison

#: Words of the glossary that these blocks use.
WORDS = ("Average rank", "Critical distance, Friedman, Kendall's W", "Cannot be told apart")


class Tested(NamedTuple):
    """Methods compared by one quantity.

    file: the diagram's file name. name: the quantity as the page writes it. block: the blocks of the tests in words,
    such as `images`.
    """

    file: str
    name: str
    block: str
    comparison: Comparison


def comparison_blocks(
    tests: Sequence[Tested], looks: Mapping[str, Style], heading: str = "Are the methods really different?"
) -> Iterator[Any]:
    """The blocks of some tests."""
    yield Heading(heading)
    if not tests:
        yield Text("Nothing can be compared: there is one method, or no image or condition that all methods share.")
    yield from (Text(_in_words(test)) for test in tests)
    yield Figures([_diagram(test, looks) for test in tests], "abreast")
    yield from map(_pairwise, tests)


def _diagram(test: Tested, looks: Mapping[str, Style]) -> Drawing:
    found = test.comparison
    caption = (
        f"Average rank by {test.name} over {found.friedman.n} {test.block}. Methods joined by a bar cannot be told "
        "apart (Nemenyi, 5 %)."
    )
    draw = lambda: critical_difference_figure(found.ranks, found.distance, found.cliques, looks, _friedman(found))  # noqa: E731
    return Drawing(test.file, caption, draw)


def _pairwise(test: Tested) -> Details:
    rows = [
        (p.first, p.second, f"{p.n} ({p.ties})", probability(p.p), probability(p.p_holm), number(p.effect))
        for p in test.comparison.pairs
    ]
    caption = (
        f"Pairs of methods by {test.name}: Wilcoxon signed-rank, Holm-corrected; effect > 0 where the first is better"
    )
    header = ("first", "second", f"{test.block} (ties)", "p", "p (Holm)", "effect")
    return Details(caption, [sheet(caption, header, rows, {1}, captioned=False)])


def _friedman(comparison: Comparison) -> str:
    """The test in one line, for the top of the diagram."""
    test, p = comparison.friedman, probability(comparison.friedman.p)
    equals = p if p.startswith("<") else f"= {p}"
    return f"Friedman χ² = {number(test.statistic, 1)}, p {equals}; Kendall's W = {number(test.w)}"


def _in_words(tested: Tested) -> str:
    """The result of the Friedman test in a sentence, for readers who do not know the test."""
    test = tested.comparison.friedman
    differ = "cannot be tested"
    if not math.isnan(test.p):
        differ = "differ by more than chance" if test.p < 0.05 else "do not differ by more than chance"
    dropped = f" ({test.dropped} more had no number for some method)" if test.dropped else ""
    over = f"By {tested.name}, over {test.n} {tested.block}{dropped}"
    return f"{over}, the methods {differ}: {_friedman(tested.comparison)}."

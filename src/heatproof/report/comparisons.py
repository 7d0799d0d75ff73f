"""Tests between methods as blocks of a page: the Friedman test in words, rank diagrams, every pair of methods."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from heatproof.report.blocks import Details, Drawing, Figures, Heading, Text, sheet
from heatproof.report.numbers import number, probability
from heatproof.report.rank_figure import rank_figure
from heatproof.report.style import Style
from heatproof.statistics.paired import LEAST_METHODS, Comparison

#: Words of the glossary that these blocks use.
WORDS = ("Average rank", "Friedman, Kendall's W", "Cannot be told apart")


class Tested(NamedTuple):
    """Methods compared by one quantity.

    file: the diagram's file name. name: the quantity as the page writes it. block: the blocks of the tests in words,
    such as `images`. asks: the question that these tests answer. decides: whether the sentence at the top rests on
    them. pooled: whether the bootstrap of the figures over all conditions must confirm a difference.
    """

    file: str
    name: str
    block: str
    comparison: Comparison
    asks: str
    decides: bool = False
    pooled: bool = False

    @property
    def test(self) -> str:
        """How two methods are told apart."""
        wilcoxon = "Wilcoxon's test with Holm's correction over all pairs"
        if not self.pooled:
            return wilcoxon
        alone = "the bootstrap by image alone, as there are too few conditions for Wilcoxon's test"
        return f"{wilcoxon}, and the bootstrap by image" if self.comparison.able else alone


def comparison_blocks(
    tests: Sequence[Tested], looks: Mapping[str, Style], heading: str = "Are the methods really different?"
) -> Iterator[Any]:
    """The blocks of some tests."""
    yield Heading(heading)
    if not tests:
        yield Text("Nothing can be compared: there is one method, or no image or condition that all methods share.")
    yield from (Text(_in_words(test)) for test in tests)
    if len(tests) > 1:
        yield Text(_several(tests))
    yield Figures([_diagram(test, looks) for test in tests], "abreast")
    yield from map(_pairwise, tests)


def _diagram(test: Tested, looks: Mapping[str, Style]) -> Drawing:
    found = test.comparison
    caption = (
        f"Average rank by {test.name} over {found.friedman.n} {test.block}. Methods thick on one bar cannot be told "
        f"apart ({test.test}, 5 %)."
    )
    draw = lambda: rank_figure(found.ranks, found.cliques, looks, test.name, friedman_text(found, test.block))  # noqa: E731
    return Drawing(test.file, caption, draw)


def _pairwise(test: Tested) -> Details:
    apart = test.comparison.apart
    rows = [
        (p.first, p.second, f"{p.n} ({p.ties})", probability(p.p), probability(p.p_holm), number(p.effect),
         "yes" if frozenset((p.first, p.second)) in apart else "no")
        for p in test.comparison.pairs
    ]  # fmt: skip
    caption = (
        f"Pairs of methods by {test.name}: Wilcoxon signed-rank, Holm-corrected; effect > 0 where the first is better; "
        f"told apart by {test.test}"
    )
    header = ("first", "second", f"{test.block} (ties)", "p", "p (Holm)", "effect", "told apart")
    return Details(caption, [sheet(caption, header, rows, {1, 6}, captioned=False)])


def _several(tests: Sequence[Tested]) -> str:
    """Why tests by different quantities may give different answers."""
    deciding = next((test.name for test in tests if test.decides), "")
    rests = f" The sentence at the top answers that of {deciding}." if deciding else ""
    return (
        "Each of these quantities asks a question of its own, so they can put the methods in different orders, and "
        f"tell different ones apart.{rests}"
    )


def friedman_text(comparison: Comparison, block: str) -> str:
    """The test in one line, for the top of the diagram.

    block: what its blocks are, in the plural; empty where the sentence before says how many were left out.
    """
    test, p = comparison.friedman, probability(comparison.friedman.p)
    if (count := len(comparison.methods)) < LEAST_METHODS:
        return f"Friedman's test is not computed: {count} methods, at least {LEAST_METHODS} are needed"
    equals = p if p.startswith("<") else f"= {p}"
    left = f"; {test.dropped} of {test.n + test.dropped} {block} left out" if test.dropped and block else ""
    return f"Friedman χ² = {number(test.statistic, 1)}, p {equals}; Kendall's W = {number(test.w)}{left}"


def _in_words(tested: Tested) -> str:
    """The question, and the result of the Friedman test in a sentence, for readers who do not know the test."""
    test = tested.comparison.friedman
    differ = "cannot be tested"
    if not math.isnan(test.p):
        differ = "differ by more than chance" if test.p < 0.05 else "do not differ by more than chance"
    dropped = f" ({test.dropped} more have no number for some method)" if test.dropped else ""
    over = f"By {tested.name}, over {test.n} {tested.block}{dropped}"
    found = friedman_text(tested.comparison, "")
    return f"{tested.asks} {over}, the methods {differ}: {found}."

"""The reference method against every other, as blocks of a page: a sentence, and a table of all tests."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from heatproof.report.blocks import Heading, Sheet, Text, sheet
from heatproof.report.numbers import number, probability
from heatproof.statistics.reference_tests import ReferenceTests

TEXT = (
    "The reference against every other method on the same blocks, by Wilcoxon's signed-rank test. Holm's correction is "
    "over the other methods, for each quantity by itself. “effect” above 0 is in favour of the reference; “better” and "
    "“worse” need a p below .05 and means in the same order."
)
CONFIRMED = (
    " By RM and RM₀ the bootstrap by image must find the difference too; it decides alone where conditions are few."
)


def reference_blocks(
    reference: str,
    found: Mapping[str, ReferenceTests],
    sentence: str,
    names: Mapping[str, str] | None = None,
    confirmed: bool = False,
) -> Iterator[Any]:
    """The blocks; none without tests. names: quantity → as the page writes it. confirmed: by a second test."""
    if found:
        yield Heading("One method against every other")
        yield Text(sentence)
        yield Text(TEXT + (CONFIRMED if confirmed else ""))
        yield _table(reference, found, names or {})


def _table(reference: str, found: Mapping[str, ReferenceTests], names: Mapping[str, str]) -> Sheet:
    lines = []
    for quantity, one in found.items():
        digits = _digits(one.means[name] for name in (one.reference, *one.tests))
        for other, test in one.tests.items():
            means = (number(one.means[name], digits) for name in (one.reference, other))
            counts = f"{test.n} ({test.ties})"
            p = (probability(test.p), f"{probability(test.p_holm)}{stars(test.p_holm)}")
            line = (names.get(quantity, quantity), other, *means, counts, *p, number(test.effect), one.answer(other))
            lines.append(line)
    header = ("by", "other method", reference, "the other", "blocks (ties)", "p", "p (Holm)", "effect", "reference is")
    caption = f"{reference} against every other method; * p < .05, ** p < .01, *** p < .001 after Holm's correction"
    return sheet(caption, header, lines, {1, 8})


def _digits(means: Iterable[float]) -> int:
    """So many decimals that the means of methods that differ are seen to differ: 3 to 6."""
    known = [mean for mean in means if math.isfinite(mean)]
    span = max(known, default=0.0) - min(known, default=0.0)
    return min(max(math.ceil(-math.log10(span)) + 1, 3), 6) if span > 0 else 3


def stars(p: float) -> str:
    """`*`, `**` or `***` for a p below .05, .01, .001."""
    return "" if not p < 0.05 else " ***" if p < 0.001 else " **" if p < 0.01 else " *"

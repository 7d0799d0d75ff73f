"""Which methods share the top, which quantities the controls fooled, and one sentence that says so (protocols §9, §11).

N's RM decides, unless a control fools it; then RM₀ decides; then RM₀ within severities (see `stratified_auc`:
pooled over severities, an edge detector seems to respond). If that is fooled too, nothing decides. Two methods are told
apart where two tests find a difference: Wilcoxon with Holm over the blocks (perturbation × severity), whose p values
are too small because blocks share images, *and* the difference of the pooled figures, bootstrapped by image with
simultaneous bounds for all pairs of methods. Where the blocks are too few for Wilcoxon's test, the bootstrap decides
alone. The sentence, the bars of the rank diagram and the marks of the table follow from this one decision.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from heatproof.rounding import rounded
from heatproof.statistics.equal_maps import EqualMaps, equal_pairs
from heatproof.statistics.intervals import QUANTITIES, Interval, Replicates
from heatproof.statistics.paired import Comparison, compared
from heatproof.statistics.reference_tests import ReferenceTests, reference_tests
from heatproof.statistics.robustness_evidence import PooledCells, highest_first
from heatproof.statistics.robustness_sentence import DECIDING, RobustnessFacts, notes, sentence
from heatproof.statistics.robustness_tables import Cell, fooled_cells, image_blocks, pooled, rm_blocks

#: Quantities by which every real method is compared with every control.
BESIDE = ("consistency", "within")


@dataclass(frozen=True)
class Verdict:
    """A sentence and its evidence; higher is better in all figures.

    by: the quantity that decided, "rm" or "rm0"; None where none could. within: RM₀ was taken within severities.
    best: highest by that. top: it and the methods that cannot be told from it at `level`, best first; empty where even
    the best does not respond (its AUC is not above .5). Of methods with equal maps (`equal`) the first stands for all
    in the sentence, in `top` and in the tests; the other attributes name them all.

    fooled: quantity → controls that are not significantly worse than the best real method (bootstrap by image).
    figures: quantity → method → interval of the mean over the pooled cells; controls included. beside: the same of
    `BESIDE`, over the cells in which every real method has that quantity (consistency needs no changed prediction).
    beats: quantity of `BESIDE` → real method → the controls that it is significantly higher than (one-sided, corrected
    for all real methods). behind: the same for controls that are significantly higher (corrected for all methods and
    controls). support: quantity of `BESIDE` → method → images behind it: those with a pair whose prediction held; for
    `within` the fewer of these and of those with a pair whose prediction changed. comparisons: "rm" and "rm0" → the
    tests over blocks, with the pairs that can be told apart (RM₀ within severities if that decided); none without
    blocks. references: "rm", "rm0" and "rbo" → the tests of the reference against every other method, where there is a
    reference. notes: remarks beside the sentence.
    """

    sentence: str
    notes: tuple[str, ...]
    by: str | None
    within: bool
    best: str | None
    top: tuple[str, ...]
    fooled: Mapping[str, tuple[str, ...]]
    figures: Mapping[str, Mapping[str, Interval]]
    beside: Mapping[str, Mapping[str, Interval]]
    beats: Mapping[str, Mapping[str, tuple[str, ...]]]
    behind: Mapping[str, Mapping[str, tuple[str, ...]]]
    support: Mapping[str, Mapping[str, int]]
    controls: tuple[str, ...]
    comparisons: Mapping[str, Comparison]
    references: Mapping[str, ReferenceTests]
    equal: EqualMaps
    n: int
    images: int
    cells: int
    level: float
    seed: int
    resamples: int

    @property
    def comparison(self) -> Comparison | None:
        """The tests by the quantity that decided, by RM₀ where none did; None without blocks."""
        return self.comparisons.get("rm" if self.by == "rm" else "rm0")


@dataclass(frozen=True)
class PairFacts:
    """What a verdict needs to know of the pairs of one segmenter, without methods that another stands for.

    cells: the pooled cells (`robustness_tables.pooled`). names: real methods and controls; real methods without any
    usable pair are left out, unless all are. without: the real methods that have none. images, given: the number of
    images for which a real method has an RBO, and of all. support: see `Verdict.support`. rbo: the RBO of each image
    and method (`robustness_tables.image_blocks`), made where it is asked for.
    """

    cells: Mapping[Cell, Replicates]
    names: tuple[tuple[str, ...], tuple[str, ...]]
    without: tuple[str, ...]
    images: int
    given: int
    support: Mapping[str, Mapping[str, int]]
    rbo: Callable[[], pd.DataFrame]

    @classmethod
    def of(cls, pairs: Any, resamples: int, seed: int) -> "PairFacts":
        """The facts from a frame of pairs."""
        control, usable = pairs["control"].astype(bool), pairs["rbo"].notna() & pairs["changed"].notna()
        real, controls, known = (pairs["method"][rows].astype(str).unique()
                                 for rows in (~control, control, ~control & usable))  # fmt: skip
        return cls(
            pooled(pairs, resamples=resamples, seed=seed),
            *named(real, controls, known),
            _images(pairs, used=True),
            _images(pairs, used=False),
            _support(pairs),
            lambda: image_blocks(pairs, "rbo"),
        )


def named(
    real: Iterable[str], controls: Iterable[str], known: Iterable[str]
) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], tuple[str, ...]]:
    """`PairFacts.names` and `without`, from real methods, controls, and the real methods with a usable pair."""
    names = tuple(sorted(known) or sorted(real)), tuple(sorted(controls))
    return names, tuple(sorted({*real} - {*names[0]}))


def verdict_on(
    pairs: pd.DataFrame,
    table: pd.DataFrame,
    *,
    segmenter: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    equal: EqualMaps | None = None,
    reference: str = "",
) -> Verdict:
    """The verdict on the pairs of a study, or of a part of it (one model, say), and their robustness table.

    With several segmenters only one is used (they share images and predictions): `segmenter`, else quickshift,
    else the first. `reference`: a method to compare with every other. `equal`: the methods that are one arm; by default
    those whose values are equal in all pairs.
    Errors: InvalidInput for frames without the columns of `robustness_tables.robustness_table`.
    """
    names = sorted(pairs["segmenter"].astype(str).unique())
    chosen = segmenter or ("quickshift" if "quickshift" in names or not names else names[0])
    pairs, table = (_of_segmenter(frame, chosen) for frame in (pairs, table))
    equal = equal_pairs(pairs) if equal is None else equal
    facts = PairFacts.of(equal.kept(pairs), resamples, seed)
    return verdict_from(facts, table, equal, resamples=resamples, seed=seed, level=level, reference=reference)


def verdict_from(
    facts: PairFacts,
    table: pd.DataFrame,
    equal: EqualMaps,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    reference: str = "",
) -> Verdict:
    """`verdict_on` from the facts of the pairs and the robustness table of one segmenter."""
    table = equal.kept(table)
    evidence = _evidence(facts.cells, facts.names, level, seed)
    figures = {q: {m: evidence.interval(m, q) for m in (*evidence.real, *evidence.controls)} for q in QUANTITIES}
    fooled = {q: evidence.fooled_by(q) for q in QUANTITIES} if evidence.conditions else {}
    having = {q: evidence.without_the_unmeasured(q).where_all_have(q) for q in BESIDE}
    beside = {q: {m: one.interval(m, q) for m in (*one.real, *one.controls)} for q, one in having.items()}
    beats = {q: {m: equal.named(_beaten(one, m, q)) for m in one.real} for q, one in having.items()}
    behind = {q: {m: equal.named(_ahead(one, m, q)) for m in one.real} for q, one in having.items()}
    by = next((q for q in DECIDING if q in fooled and not fooled[q]), None)
    ranks_by = by or DECIDING[-1]
    references = dict(_references(evidence, facts.rbo, table, ranks_by, equal.arm(reference))) if reference else {}
    comparisons = dict(_comparisons(evidence, table, ranks_by)) if len(evidence.real) > 1 else {}
    best, top = _top(evidence, figures[ranks_by], comparisons, ranks_by) if fooled else (None, ())
    if best and not rounded(np.float64(figures["within"][best].low - 0.5)) > 0:
        top = ()
    left = sorted({*facts.without, *facts.names[0]} - {*evidence.real})
    about = RobustnessFacts(
        evidence, figures, fooled, comparisons.get("rm" if by == "rm" else "rm0"), facts.images, facts.given, by, best,
        top, tuple(left), tuple(fooled_cells(table, by)),
    )  # fmt: skip
    return Verdict(
        sentence=sentence(about),
        notes=(*equal.notes(), *notes(about)),
        by="rm0" if by == "rm0_within" else by,
        within=by == "rm0_within",
        best=best if by else None,
        top=top if by else (),
        fooled={quantity: equal.named(names) for quantity, names in fooled.items()},
        figures=_spread(equal, figures),
        beside=_spread(equal, beside),
        beats=_spread(equal, beats),
        behind=_spread(equal, behind),
        support=_spread(equal, facts.support),
        controls=equal.named(evidence.controls),
        comparisons=comparisons,
        references=references,
        equal=equal,
        n=sum(found.point.n for cell in evidence.cells.values() for found in cell.values()),
        images=facts.images,
        cells=len(evidence.conditions),
        level=level,
        seed=seed,
        resamples=resamples,
    )


def _spread(equal: EqualMaps, values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Quantity → method → value, also for the methods that another stands for."""
    return {quantity: equal.spread(of) for quantity, of in values.items()}


def _images(pairs: Any, used: bool) -> int:
    """The number of images, or with `used` of those for which a real method has an RBO."""
    found = pairs[pairs["rbo"].notna() & ~pairs["control"].astype(bool)] if used else pairs
    return len(found[["dataset", "image"]].drop_duplicates())


def _of_segmenter(frame: Any, segmenter: str) -> Any:
    return frame[frame["segmenter"].astype(str) == segmenter]


def _support(pairs: Any) -> dict[str, dict[str, int]]:
    """Quantity of `BESIDE` → method → images behind it; see `Verdict.support`."""
    usable = pairs[pairs["rbo"].notna() & pairs["changed"].notna()]
    changed = usable["changed"].astype(bool)
    held, moved = ({str(method): len(rows[["dataset", "image"]].drop_duplicates())
                    for method, rows in part.groupby("method", observed=True)}
                   for part in (usable[~changed], usable[changed]))  # fmt: skip
    return {"consistency": held, "within": {method: min(n, moved.get(method, 0)) for method, n in held.items()}}


def _evidence(
    found: Mapping[Cell, Replicates], names: tuple[tuple[str, ...], tuple[str, ...]], level: float, seed: int
) -> PooledCells:
    """The pooled cells; only conditions in which every real method has an RM count, so that all are compared alike."""
    cells: dict[tuple, dict[str, Replicates]] = {}
    for cell, replicates in found.items():
        cells.setdefault((cell.model, cell.dataset, cell.layer, cell.perturbation), {})[cell.method] = replicates
    real, controls = names
    evidence = PooledCells(real, controls, cells, level, seed)
    return evidence.where_all_have("rm")


def _beaten(evidence: PooledCells, method: str, quantity: str) -> tuple[str, ...]:
    """The controls that a method is significantly higher than, each by itself, one-sided, corrected for all methods."""
    strict = 1 - 2 * (1 - evidence.level) / max(1, len(evidence.real))
    return tuple(c for c in evidence.controls if evidence.worse([c], method, quantity, strict))


def _ahead(evidence: PooledCells, method: str, quantity: str) -> tuple[str, ...]:
    """The controls that are significantly higher than a method, one-sided, corrected for all methods and controls."""
    strict = 1 - 2 * (1 - evidence.level) / max(1, len(evidence.real) * len(evidence.controls))
    return tuple(c for c in evidence.controls if evidence.worse([method], c, quantity, strict))


def _comparisons(evidence: PooledCells, table: pd.DataFrame, by: str):
    """The tests over blocks by RM and by RM₀, with the pairs that the two tests together tell apart.

    Where the blocks are too few for Wilcoxon's test to be significant for every pair, the bootstrap decides alone.
    """
    for name, quantity in (("rm", "rm"), ("rm0", "rm0_within" if by == "rm0_within" else "rm0")):
        blocks = rm_blocks(table, quantity)
        if blocks.shape[1] < 2 or blocks.dropna().empty:
            continue
        found = compared(blocks, alpha=1 - evidence.level)
        apart = evidence.apart(quantity)
        yield name, replace(found, apart=apart & found.apart if found.able else apart)


def _references(evidence: PooledCells, rbo: Callable[[], pd.DataFrame], table: pd.DataFrame, by: str, reference: str):
    """The tests of a reference against every other method, by RM and RM₀ as `_comparisons`, and by RBO over images."""
    others = [name for name in evidence.real if name != reference]
    both = [*((reference, name) for name in others), *((name, reference) for name in others)]
    for name, quantity in (("rm", "rm"), ("rm0", "rm0_within" if by == "rm0_within" else "rm0")):
        found = reference_tests(rm_blocks(table, quantity), reference, level=evidence.level)
        if found is not None and reference in evidence.real:
            yield name, found.confirmed(evidence.separated(both, quantity))
    if (found := reference_tests(rbo(), reference, level=evidence.level)) is not None:
        yield "rbo", found


def _top(
    evidence: PooledCells, figures: Mapping[str, Interval], comparisons: Mapping[str, Comparison], by: str
) -> tuple[str, tuple[str, ...]]:
    """The best real method by its pooled figure; and it with those that cannot be told from it, best first."""
    order = highest_first(evidence.real, {name: figures[name].value for name in evidence.real})
    best, found = order[0], comparisons.get("rm" if by == "rm" else "rm0")
    apart = found.apart if found else evidence.apart(by)
    return best, (best, *(name for name in order[1:] if frozenset((best, name)) not in apart))

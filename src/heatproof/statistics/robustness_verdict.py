"""Which methods share the top, which quantities the controls fooled, and one sentence that says so (protocols §9, §11).

N's RM decides, unless a control fools it; then RM₀ decides; then RM₀ within severities (see `stratified_auc`:
pooled over severities, an edge detector seems to respond). If that is fooled too, nothing decides. A method
shares the top unless two tests find it worse than the best: Wilcoxon with Holm over the blocks (perturbation ×
severity), whose p values are too small because blocks share images, *and* the difference of the pooled figures,
bootstrapped by image with simultaneous bounds for all methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from heatproof.rounding import rounded
from heatproof.statistics.intervals import QUANTITIES, Interval, Replicates, percentiles
from heatproof.statistics.paired import Comparison, compared, is_worse
from heatproof.statistics.robustness import COMPUTED, RELIABLE
from heatproof.statistics.robustness_tables import Cell, pooled, rm_blocks
from heatproof.statistics.wording import counted, left_out, listed, number

#: The names of quantities in sentences.
NAMES = {
    "consistency": "consistency",
    "responsiveness": "responsiveness",
    "rm": "RM",
    "rm0": "RM₀",
    "within": "responsiveness within severities",
    "rm0_within": "RM₀ within severities",
}
#: The quantities that may decide, in this order: N's, ours, and ours over pairs of one severity only.
DECIDING = ("rm", "rm0", "rm0_within")
#: Quantities by which every real method is compared with every control.
BESIDE = ("consistency", "within")
#: With fewer blocks Wilcoxon's test cannot reach 5 % (two-sided, six differences of one sign: p = .03).
BLOCKS = 6
#: With fewer images a note calls the verdict an indication.
IMAGES = 50


@dataclass(frozen=True)
class Verdict:
    """A sentence and its evidence; higher is better in all figures.

    by: the quantity that decided, "rm" or "rm0"; None where none could. within: RM₀ was taken within severities.
    best: highest by that. top: it and the methods that cannot be told from it at `level`, best first; empty
    where even the best does not respond (its AUC is not above .5). fooled: quantity → controls that are not
    significantly worse than the best real method (bootstrap by image). figures: quantity → method →
    interval of the mean over the pooled cells; controls included. beside: the same of `BESIDE`, over the cells in which
    every real method has that quantity (consistency needs no changed prediction). beats: quantity of `BESIDE` → real
    method → the controls that it is significantly higher than (one-sided, corrected for all real methods). behind: the
    same for controls that are significantly higher (corrected for all methods and controls). support: quantity of
    `BESIDE` → method → images behind it: those with a pair whose prediction held; for `within` the fewer of these and
    of those with a pair whose prediction changed. comparison: the tests over blocks, None without blocks. notes:
    remarks beside the sentence.
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
    comparison: Comparison | None
    n: int
    images: int
    cells: int
    level: float
    seed: int
    resamples: int


@dataclass(frozen=True)
class _Evidence:
    """The pooled cells: a condition is a cell without its method; values are means over the conditions."""

    real: tuple[str, ...]
    controls: tuple[str, ...]
    cells: Mapping[tuple, Mapping[str, Replicates]]
    level: float
    seed: int
    conditions: tuple[tuple, ...] = field(default=())

    def mean(self, method: str, quantity: str, conditions: Sequence[tuple]) -> tuple[float, np.ndarray]:
        """Point value and resamples `(resamples,)` of a method's mean over conditions."""
        found = [self.cells[c][method] for c in conditions]
        point = float(np.mean([getattr(one.point, quantity) for one in found]))
        return point, np.mean([one.values[quantity] for one in found], axis=0)

    def has(self, method: str, condition: tuple, quantity: str) -> bool:
        """Whether the method has a value there."""
        found = self.cells[condition].get(method)
        return found is not None and not np.isnan(getattr(found.point, quantity))

    def where_all_have(self, quantity: str) -> "_Evidence":
        """The same over the cells in which every real method has the quantity."""
        found = [c for c in self.cells if self.real and all(self.has(m, c, quantity) for m in self.real)]
        return replace(self, conditions=tuple(sorted(found)))

    def without_the_unmeasured(self, quantity: str) -> "_Evidence":
        """The same without the real methods that have the quantity nowhere, so that they exclude no cell."""
        return replace(self, real=tuple(m for m in self.real if any(self.has(m, c, quantity) for c in self.cells)))

    def worse(self, methods: Sequence[str], best: str, quantity: str, level: float | None = None) -> set[str]:
        """Which of `methods` are significantly worse than `best`, paired by image, at `level` for all together.

        Simultaneous bounds (max-T): a difference counts where it exceeds its standard error by more than
        the largest studentised deviation of any of the differences does in `level` of the resamples.
        """
        points, values, names = [], [], []
        for method in methods:
            shared = [c for c in self.conditions if self.has(method, c, quantity) and self.has(best, c, quantity)]
            if shared:
                one, other = self.mean(best, quantity, shared), self.mean(method, quantity, shared)
                points.append(one[0] - other[0])
                values.append(one[1] - other[1])
                names.append(method)
        if not names:
            return set()
        point, drawn = rounded(np.array(points)), rounded(np.array(values))
        drawn = drawn[:, ~np.isnan(drawn).any(0)]
        error = drawn.std(1) if drawn.shape[1] else np.full(len(names), np.inf)
        scale = np.where(rounded(error) > 0, error, np.inf)  # equal methods: no difference, no error
        deviation = np.abs((drawn - point[:, None]) / scale[:, None]).max(0)
        reach = np.quantile(deviation, level or self.level) if len(drawn.T) else 0
        return {name for name, bound in zip(names, point - reach * error, strict=True) if rounded(bound) > 0}

    def interval(self, method: str, quantity: str) -> Interval:
        """The method's mean over those of `conditions` in which it has a value."""
        where = [c for c in self.conditions if self.has(method, c, quantity)]
        if not where:
            return Interval(np.nan, np.nan, np.nan, 0, self.level, self.seed)
        value, values = self.mean(method, quantity, where)
        pairs = sum(self.cells[c][method].point.n for c in where)
        return Interval(value, *percentiles(values, self.level), pairs, self.level, self.seed)


def verdict_on(
    pairs: pd.DataFrame,
    table: pd.DataFrame,
    *,
    segmenter: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Verdict:
    """The verdict on the pairs of a study, or of a part of it (one model, say), and their robustness table.

    With several segmenters only one is used (they share images and predictions): `segmenter`, else quickshift,
    else the first. Errors: InvalidInput for frames without the columns of `robustness_tables.robustness_table`.
    """
    names = sorted(pairs["segmenter"].astype(str).unique())
    chosen = segmenter or ("quickshift" if "quickshift" in names or not names else names[0])
    pairs, table = (_of_segmenter(frame, chosen) for frame in (pairs, table))
    evidence = _evidence(pooled(pairs, resamples=resamples, seed=seed), _names(pairs), level, seed)
    images, given = _images(pairs, used=True), _images(pairs, used=False)
    figures = {q: {m: evidence.interval(m, q) for m in (*evidence.real, *evidence.controls)} for q in QUANTITIES}
    fooled = {q: _fooling_controls(evidence, figures[q], q) for q in QUANTITIES} if evidence.conditions else {}
    having = {q: evidence.without_the_unmeasured(q).where_all_have(q) for q in BESIDE}
    beside = {q: {m: one.interval(m, q) for m in (*one.real, *one.controls)} for q, one in having.items()}
    beats = {q: {m: _beaten(one, m, q) for m in one.real} for q, one in having.items()}
    behind = {q: {m: _ahead(one, m, q) for m in one.real} for q, one in having.items()}
    by = next((q for q in DECIDING if q in fooled and not fooled[q]), None)
    comparison = _comparison(table, "rm" if by == "rm" else "rm0", 1 - level) if len(evidence.real) > 1 else None
    ranks_by = by or DECIDING[-1]
    best, top = _top(evidence, figures[ranks_by], comparison, ranks_by) if fooled else (None, ())
    if best and not rounded(np.float64(figures["within"][best].low - 0.5)) > 0:
        top = ()
    left = sorted({*pairs.loc[~pairs["control"].astype(bool), "method"].astype(str)} - {*evidence.real})
    about = _RobustnessFacts(evidence, figures, fooled, comparison, images, given, by, best, top, tuple(left))
    return Verdict(
        sentence=_sentence(about),
        notes=tuple(_notes(about)),
        by="rm0" if by == "rm0_within" else by,
        within=by == "rm0_within",
        best=best if by else None,
        top=top if by else (),
        fooled=fooled,
        figures=figures,
        beside=beside,
        beats=beats,
        behind=behind,
        support=_support(pairs),
        controls=evidence.controls,
        comparison=comparison,
        n=sum(found.point.n for cell in evidence.cells.values() for found in cell.values()),
        images=images,
        cells=len(evidence.conditions),
        level=level,
        seed=seed,
        resamples=resamples,
    )


def _images(pairs: Any, used: bool) -> int:
    """The number of images, or with `used` of those for which a real method has an RBO."""
    found = pairs[pairs["rbo"].notna() & ~pairs["control"].astype(bool)] if used else pairs
    return len(found[["dataset", "image"]].drop_duplicates())


def _of_segmenter(frame: Any, segmenter: str) -> Any:
    return frame[frame["segmenter"].astype(str) == segmenter]


def _names(pairs: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Real methods and controls; real methods without any usable pair are left out, unless all are."""
    control, usable = pairs["control"].astype(bool), pairs["rbo"].notna() & pairs["changed"].notna()
    real, controls, known = (sorted(pairs["method"][rows].astype(str).unique())
                             for rows in (~control, control, ~control & usable))  # fmt: skip
    return tuple(known or real), tuple(controls)


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
) -> _Evidence:
    """The pooled cells; only conditions in which every real method has an RM count, so that all are compared alike."""
    cells: dict[tuple, dict[str, Replicates]] = {}
    for cell, replicates in found.items():
        cells.setdefault((cell.model, cell.dataset, cell.layer, cell.perturbation), {})[cell.method] = replicates
    real, controls = names
    evidence = _Evidence(real, controls, cells, level, seed)
    return evidence.where_all_have("rm")


def _order_methods(methods: Sequence[str], figures: Mapping[str, Interval]) -> list[str]:
    """Highest first, equal ones by name."""
    return sorted(methods, key=lambda m: (-np.nan_to_num(rounded(np.float64(figures[m].value)), nan=-np.inf), m))


def _fooling_controls(evidence: _Evidence, figures: Mapping[str, Interval], quantity: str) -> tuple[str, ...]:
    """Controls not significantly worse than the best real method; those without any value fool nothing."""
    best = _order_methods(evidence.real, figures)[0]
    present = [c for c in evidence.controls if not np.isnan(figures[c].value)]
    worse = evidence.worse(present, best, quantity)
    return tuple(control for control in present if control not in worse)


def _beaten(evidence: _Evidence, method: str, quantity: str) -> tuple[str, ...]:
    """The controls that a method is significantly higher than, each by itself, one-sided, corrected for all methods."""
    strict = 1 - 2 * (1 - evidence.level) / max(1, len(evidence.real))
    return tuple(c for c in evidence.controls if evidence.worse([c], method, quantity, strict))


def _ahead(evidence: _Evidence, method: str, quantity: str) -> tuple[str, ...]:
    """The controls that are significantly higher than a method, one-sided, corrected for all methods and controls."""
    strict = 1 - 2 * (1 - evidence.level) / max(1, len(evidence.real) * len(evidence.controls))
    return tuple(c for c in evidence.controls if evidence.worse([method], c, quantity, strict))


def _comparison(table: pd.DataFrame, quantity: str, alpha: float) -> Comparison | None:
    blocks = rm_blocks(table, quantity)
    if blocks.shape[1] < 2 or blocks.dropna().empty:
        return None
    return compared(blocks, alpha=alpha)


def _top(
    evidence: _Evidence, figures: Mapping[str, Interval], comparison: Comparison | None, by: str
) -> tuple[str, tuple[str, ...]]:
    """The best real method by its pooled figure; and it with those that cannot be told from it, best first."""
    order = _order_methods(evidence.real, figures)
    best = order[0]
    worse = evidence.worse(order[1:], best, by)

    def shares(method: str) -> bool:
        if method not in worse:
            return True
        if comparison is None or comparison.friedman.n < BLOCKS:
            return False
        return not is_worse(comparison.pair(best, method), evidence.level)

    return best, (best, *(m for m in order[1:] if shares(m)))


@dataclass(frozen=True)
class _RobustnessFacts:
    """The values from which the sentence and the notes are made."""

    evidence: _Evidence
    figures: Mapping[str, Mapping[str, Interval]]
    fooled: Mapping[str, tuple[str, ...]]
    comparison: Comparison | None
    images: int
    given: int
    by: str | None
    # Where nothing decides, by the last of DECIDING: the sentence names the leaders even where none is recommended.
    best: str | None
    top: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def percent(self) -> str:
        return f"{100 * self.evidence.level:g} %"


def _sentence(about: _RobustnessFacts) -> str:
    """One sentence for a reader who knows no statistics."""
    evidence = about.evidence
    if not evidence.real:
        return f"No verdict: there {'are only controls' if evidence.controls else 'is no method'} to judge."
    if not evidence.conditions:
        return f"No verdict: {_too_few(evidence)}."
    models, kinds = ({c[part] for c in evidence.conditions} for part in (0, 3))
    where = f"On {counted(about.images, 'image')} under {counted(len(kinds), 'perturbation')}"
    where += f" and {len(models)} models" if len(models) > 1 else ""
    if about.by is None or about.best is None:
        fakes, figure = about.fooled["rm0_within"], about.figures["rm0_within"]
        leading = [f"{m} ({number(figure[m].value)})" for m in about.top] or ["the best"]
        told = (
            f"even by {NAMES['rm0_within']} {listed(leading)} cannot be told from {listed(fakes)}, {_blind(len(fakes))}"
        )
        return f"{where} no method can be recommended: {told}."
    if not about.top:
        area = about.figures["within"][about.best]
        return (
            f"{where} no method can be recommended: not even for {about.best} is it shown that its maps change more "
            "when the prediction changes than when it stays, at equal severity (responsiveness "
            f"{number(area.value)}, {about.percent} interval from {number(area.low)}, where 0.5 is chance)."
        )
    figure = about.figures[about.by]
    values = ", ".join(number(figure[m].value) for m in about.top)
    rest = len(evidence.real) - len(about.top)
    if len(evidence.real) == 1:
        value = f"{NAMES[about.by]} {values}"
        return f"{where} there is one method, {about.best} ({value}), and nothing to compare it with."
    if not rest and len(about.top) > 1:
        ends = [f"{m} {number(figure[m].value)}" for m in (about.top[0], about.top[-1])]
        by = f"by {NAMES[about.by]} (from {ends[0]} to {ends[1]})"
        return f"{where} no method can be told from the others at {about.percent} confidence, {by}."
    holds = "holds" if len(about.top) == 1 else "hold"
    told = _confidence(len(about.top), rest, about.percent)
    shaky = any(not evidence.cells[c][m].point.reliable for c in evidence.conditions for m in about.top)
    holds = f"seem{'s' if len(about.top) == 1 else ''} to hold" if shaky else holds
    return f"{where} {listed(about.top)} {holds} up best ({NAMES[about.by]} {values}){told}."


def _confidence(top: int, rest: int, percent: str) -> str:
    if top == 1:
        others = "the other method" if rest == 1 else f"each of the other {rest} methods"
        return f"; it beats {others} at {percent} confidence"
    others = "the other method is" if rest == 1 else f"the other {rest} methods are"
    return f"; they cannot be told apart, {others} worse at {percent} confidence"


def _too_few(evidence: _Evidence) -> str:
    """Why no cell has a responsiveness: flips too rare, or too common, or no pair at all."""
    points = [found.point for cell in evidence.cells.values() for m, found in cell.items() if m in evidence.real]
    if not any(p.n for p in points):
        return "no pair of maps could be compared (every row is flagged)"
    most = max(points, key=lambda p: min(p.flips, p.n - p.flips))
    few = min(most.flips, most.n - most.flips)
    if few >= COMPUTED:
        return "no perturbation has enough changed and unchanged predictions for all methods alike"
    kind, cure = ("changed", "stronger") if most.flips <= most.n - most.flips else ("stayed the same", "weaker")
    return (
        f"no perturbation has {COMPUTED} predictions with a usable map that {kind} (at most {few}), so it cannot be "
        f"tested whether the maps follow them; add images or take {cure} severities"
    )


def _notes(about: _RobustnessFacts):
    """Remarks on the limits of the evidence."""
    evidence = about.evidence
    if about.left:
        yield left_out(about.left)
    left = len(evidence.cells) - len(evidence.conditions)
    if any(about.fooled.values()):
        by = listed([f"{NAMES[q]} ({', '.join(names)})" for q, names in about.fooled.items() if names])
        instead = f"; {NAMES[about.by]} decides instead of RM" if about.by in DECIDING[1:] else ""
        yield f"Fooled: a control, {_blind(1)}, cannot be told from the best method by {by}{instead}."
    if about.by == "rm0_within":
        yield (
            "Stronger noise changes more predictions and changes every map that depends on the image, so pooled over "
            "severities such a map seems to follow the prediction; compared at equal severity it does not."
        )
    if evidence.conditions and not evidence.controls:
        yield "No control was run, so it is not known whether these figures can be fooled."
    if left and evidence.real:
        are = "perturbation was" if left == 1 else "perturbations were"
        yield f"{left} {are} left out: fewer than {COMPUTED} changed or unchanged predictions for some method."
    test = about.comparison.friedman if about.comparison else None
    if len(evidence.real) < 2 or not evidence.conditions:
        pass
    elif test is None or test.n < BLOCKS:
        blocks = f"Only {counted(test.n, 'block')}" if test else "No block"
        yield f"{blocks} of perturbation and severity: the verdict rests on the bootstrap by image alone."
    else:
        yield "Blocks share images, so their p values are too small: the bootstrap must confirm that a method is worse."
    if about.images < about.given:
        yield f"{about.given - about.images} of {counted(about.given, 'image')} could not be measured for any method."
    shaky = {c for c in evidence.conditions if any(not evidence.cells[c][m].point.reliable for m in evidence.real)}
    if shaky:
        of = f"under {len(shaky)} of {counted(len(evidence.conditions), 'perturbation')}"
        yield f"Unreliable: fewer than {RELIABLE} changed or unchanged predictions {of}."
    if about.images < IMAGES:
        yield f"Only {counted(about.images, 'image')}: take this as an indication."


def _blind(controls: int) -> str:
    """The property that all controls share."""
    return f"which {'does' if controls == 1 else 'do'} not depend on the network"

"""The verdict of a noise study in words: one sentence for a reader who knows no statistics, and its limits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from heatproof.statistics.intervals import Interval
from heatproof.statistics.paired import Comparison
from heatproof.statistics.robustness import COMPUTED, RELIABLE
from heatproof.statistics.robustness_evidence import PooledCells
from heatproof.statistics.robustness_tables import FooledCell
from heatproof.statistics.wording import IMAGES, confidence, counted, left_out, listed, number, tested_together

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
#: The most cells that a note names.
NAMED = 6


@dataclass(frozen=True)
class RobustnessFacts:
    """The values from which the sentence and the notes are made."""

    evidence: PooledCells
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
    cells: tuple[FooledCell, ...]

    @property
    def percent(self) -> str:
        """The level of intervals."""
        return f"{100 * self.evidence.level:g} %"

    @property
    def sure(self) -> str:
        """`at 95 % confidence`, or what may be said of a few images."""
        blocks = self.comparison.friedman.n if self.comparison else 0
        return confidence(self.images, blocks, self.evidence.level)

    @property
    def tests(self) -> str:
        """The tests behind the verdict, what they are corrected for, and how the controls fare."""
        methods = len(self.evidence.real)
        by = "the bootstrap by image"
        if self.comparison is not None and self.comparison.able:
            by = f"Wilcoxon's test with Holm's correction and {by}"
        told = tested_together(methods * (methods - 1) // 2, self.evidence.level, by)
        figure = self.figures[self.by or DECIDING[-1]]
        present = [name for name in self.evidence.controls if not np.isnan(figure[name].value)]
        if not present or self.best is None:
            return told
        count = len(present)
        them = "the control is" if count == 1 else f"{'both' if count == 2 else f'all {count}'} controls are"
        return f"{told}; {them} worse than {self.best}"


def sentence(about: RobustnessFacts) -> str:
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
            f"{where} no method can be recommended: for {about.best}, the best by {NAMES[about.by]}, it is not shown "
            "that its maps change more "
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
        return f"{where} no method can be told from {about.best}, which is the best {by} ({about.tests})."
    holds = "holds" if len(about.top) == 1 else "hold"
    told = _told(about.top, rest, about.sure)
    shaky = any(not evidence.cells[c][m].point.reliable for c in evidence.conditions for m in about.top)
    holds = f"seem{'s' if len(about.top) == 1 else ''} to hold" if shaky else holds
    return f"{where} {listed(about.top)} {holds} up best ({NAMES[about.by]} {values}){told} ({about.tests})."


def _told(top: Sequence[str], rest: int, sure: str) -> str:
    """The methods that the best beats, and those that cannot be told from it."""
    best, *near = top
    if not near:
        others = "the other method" if rest == 1 else f"each of the other {rest} methods"
        return f"; it beats {others} {sure}"
    others = "the other method is" if rest == 1 else f"the other {rest} methods are"
    return f"; {listed(near)} cannot be told from {best}, {others} worse than {best} {sure}"


def _too_few(evidence: PooledCells) -> str:
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


def notes(about: RobustnessFacts) -> Iterator[str]:
    """Remarks on the limits of the evidence."""
    evidence = about.evidence
    if about.left:
        yield left_out(about.left)
    left = len(evidence.cells) - len(evidence.conditions)
    if any(about.fooled.values()):
        by = listed([f"{NAMES[q]} ({', '.join(names)})" for q, names in about.fooled.items() if names])
        instead = f"; {NAMES[about.by]} decides instead of RM" if about.by in DECIDING[1:] else ""
        yield f"Fooled: a control, {_blind(1)}, cannot be told from the best method by {by}{instead}."
    if about.cells and about.by:
        yield _in_cells(about.cells, NAMES[about.by])
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
    elif about.comparison is None or test is None or not about.comparison.able:
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


def _in_cells(cells: Sequence[FooledCell], name: str) -> str:
    """The single cells that a control fools, whatever it does on the mean."""
    several = len({(cell.model, cell.dataset) for cell in cells}) > 1
    where = [f"{cell.text} of {cell.model} on {cell.dataset}" if several else cell.text for cell in cells]
    more = f" and {len(where) - NAMED} more" if len(where) > NAMED else ""
    return (
        f"Fooled in single cells by {name}, whatever the mean says: {'; '.join(where[:NAMED])}{more}. There the best "
        "method is not shown to be better than a map that does not depend on the network."
    )


def _blind(controls: int) -> str:
    """The property that all controls share."""
    return f"which {'does' if controls == 1 else 'do'} not depend on the network"

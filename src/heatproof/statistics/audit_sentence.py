"""What an audit found, in words: the sentence that a page begins with, and the notes beside it."""

from collections.abc import Iterator, Sequence

from heatproof.statistics.audit_answers import CURES, FAIL, OPEN, PASS, POINTS, AuditFindings, Finding
from heatproof.statistics.peaks import Peaks
from heatproof.statistics.wording import IMAGES, counted, listed, number


def sentence(found: AuditFindings) -> str:
    """The result in one sentence: what to show, what was found of it, and below which probability not to show it."""
    where = f"on {counted(found.images, 'image')}"
    if not found.findings or not found.images:
        return "No verdict: no method has a number."
    if found.recommended is None:
        best = next(iter(found.findings))
        return f"No heatmap can be recommended {where}. Nearest is {best}: {_in_words(found, best)}."
    layer = found.layers.get(found.recommended, found.layer)
    place = layer if "layer" in layer else f"layer {layer}"  # `layer4`, but `layer 16`
    layer = f" at {place}" if layer and "@" not in found.recommended else ""
    least = "" if found.least is None else f"; do not show it where the prediction is below {percent(found.least)}"
    return f"Show {found.recommended}{layer}. {where.capitalize()} {_in_words(found, found.recommended)}{least}."


def percent(share: float) -> str:
    """`60 %`."""
    return f"{100 * share:.3g} %"


def _in_words(found: AuditFindings, method: str) -> str:
    """The questions that a method passes, that it fails, and that are open, in words."""
    given = found.findings[method].values()
    peak = found.peaks.get(method)
    passed = [f"{one.question.true}{_by(one, peak)}" for one in given if one.answer == PASS]
    failed = [one.question.false for one in given if one.answer == FAIL]
    unsure = [one.question.true for one in given if one.answer == OPEN]
    parts = [f"it {listed(passed)}"] if passed else []
    parts += [f"it {listed(failed)}"] if failed else []
    parts += [f"whether it {listed(unsure)} cannot be told"] if unsure else []
    return "; ".join(parts)


def _by(finding: Finding, peak: Peaks | None) -> str:
    """In brackets, what a pass of `faithful`, `stable` or `points at the object` rests on."""
    passed = [one for one in finding.evidence if one.answer == PASS]
    if finding.question.name == "faithful":
        return f" (better than every control by {listed([one.what for one in passed])})"
    if finding.question.name == POINTS and passed:
        hits = f"; its peak lies on it in {peak.text} {'image' if peak.images == 1 else 'images'}" if peak else ""
        return f" (better than every control by {listed([one.what for one in passed])}{hits})"
    if finding.question.name == "stable" and passed:
        one = passed[0]
        return f" ({one.what} {number(one.value)} where the prediction held, {one.against} maps {number(one.other)})"
    return ""


def notes(found: AuditFindings) -> Iterator[str]:
    """The notes beside the sentence: what would settle what cannot be told, other methods, what to be careful of."""
    yield from _settling(found)
    if len(found.fit) > 1:
        others = listed(found.fit[1:])
        order = "The first has the most passes, then the best mean rank over the scores"
        yield f"Also fit to be shown: {others}. {order}."
    unfit = [method for method in found.findings if method not in found.fit]
    if found.recommended and unfit:
        yield f"Not fit to be shown on this evidence: {listed(unfit)}."
    for method, reason in found.refused.items():
        yield f"{method} is not applicable to this model: {reason}."
    if found.images < IMAGES:
        yield f"Only {counted(found.images, 'image')}: take this as an indication."


def _settling(found: AuditFindings) -> Iterator[str]:
    """What would settle the open answers of the method that the sentence names, with the number of images."""
    named = found.recommended or next(iter(found.findings), None)
    if named is None or not found.images:
        return
    for needs, cure in CURES.items():
        unsure = [one for one in found.findings[named].values() if one.needs == needs]
        if unsure:
            names = listed([one.question.name for one in unsure])
            yield f"What cannot be told of {named} ({names}) might be settled by {cure}{_numbers(unsure)}."


def _numbers(unsure: Sequence[Finding]) -> str:
    """`: about 60 images for responds`; says so where no number can be named."""
    told = [f"about {_rounded(one.enough):,} images for {one.question.name}" for one in unsure if one.enough]
    lost = [one.question.name for one in unsure if not one.enough and one.needs in ("images", "flips")]
    parts = [f": {listed(told)}"] if told else []
    if lost:
        told_of = f" for {listed(lost)}" if told else ""
        parts.append(f"; no number can be named{told_of} from what was found")
    return "".join(parts)


def _rounded(count: int) -> int:
    """Two digits, upwards: more would say too much."""
    step = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step

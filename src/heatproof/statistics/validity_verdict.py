"""The verdict on the metrics of one model and set of images: which to believe, in plain words (protocols §9, §11)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from heatproof.statistics.fooled_matrix import BY_MEANS, BY_RANKS, FooledCell, fooling_controls, untested_controls
from heatproof.statistics.paired import PairTest, is_worse
from heatproof.statistics.rescaled_maps import Rescaling
from heatproof.statistics.special_rows import TRUTH
from heatproof.statistics.validity import IMAGES, METHODS, WITHIN, Validity
from heatproof.statistics.wording import LEARNT, confidence, counted, images_of, listed, number


@dataclass(frozen=True)
class ValidityVerdict:
    """What can be said of the metrics.

    believed: the metrics that no control fools and that agree with the ground truth better than chance, best first;
    top: the first of them and those that cannot be told from it. fooled: metric → controls. against: metrics that order
    maps against the ground truth. applies: whether the network has learnt the images, so that the ground truth applies.
    """

    sentence: str
    notes: tuple[str, ...]
    believed: tuple[str, ...]
    top: tuple[str, ...]
    fooled: Mapping[str, tuple[str, ...]]
    against: tuple[str, ...]
    applies: bool


@dataclass(frozen=True)
class ValidityFacts:
    """The evidence on one model and set of images.

    seeing: the metrics that read the ground truth themselves, which are never recommended. truth: metric → the test of
    the best method against the ground truth scored as a map. used, given: images that the network classifies right (all
    of them without labels), and all. unknown: images without a label or a prediction, where others have them. accuracy:
    None where it is not known.
    """

    dataset: str
    validity: Validity
    cells: Sequence[FooledCell]
    rescalings: Sequence[Rescaling]
    truth: Mapping[str, PairTest]
    seeing: frozenset[str]
    methods: int
    controls: Sequence[str]
    used: int
    given: int
    accuracy: float | None
    unknown: int = 0
    level: float = 0.95

    @property
    def metrics(self) -> list[str]:
        """The metrics that were held against the ground truth, those that read it left out."""
        return [str(name) for name in dict.fromkeys(self.validity.table["metric"]) if name not in self.seeing]


def validity_verdict(facts: ValidityFacts) -> ValidityVerdict:
    """The verdict, with its sentence and notes."""
    fooled = {m: names for m, names in fooling_controls(facts.cells).items() if m in facts.metrics}
    open_controls = untested_controls(facts.cells, facts.metrics, facts.controls)
    tests = facts.validity.above_chance
    agreeing = [m for m in facts.metrics if m in tests and is_worse(tests[m], facts.level)]
    against = tuple(m for m in facts.metrics if m in tests and is_worse(tests[m].turned, facts.level))
    order = facts.validity.comparison.order if facts.validity.comparison else tuple(agreeing)
    blank = [m for m in facts.metrics if len(open_controls.get(m, ())) == len(facts.controls)]
    believed = tuple(m for m in order if m in agreeing and m not in fooled and m not in blank)
    apart = facts.validity.comparison.apart if facts.validity.comparison else frozenset()
    top = tuple(m for m in believed if frozenset((believed[0], m)) not in apart)
    found = _Found(fooled, open_controls, blank, agreeing, against, believed, top)
    applies = facts.accuracy is None or facts.accuracy >= LEARNT
    return ValidityVerdict(
        _sentence(facts, found, applies), tuple(_notes(facts, found)), believed, top, fooled, against, applies
    )


@dataclass(frozen=True)
class _Found:
    """The metrics sorted out. open: metric → controls that are not tested. blank: metrics without a tested control."""

    fooled: Mapping[str, tuple[str, ...]]
    open: Mapping[str, tuple[str, ...]]
    blank: Sequence[str]
    agreeing: Sequence[str]
    against: Sequence[str]
    believed: Sequence[str]
    top: Sequence[str]


def _sentence(facts: ValidityFacts, found: _Found, applies: bool) -> str:
    known = min(facts.used, facts.validity.known)
    over = f"over {counted(facts.methods, 'method')},"
    if not applies:
        return (
            f"The network classifies {100 * (facts.accuracy or 0):.0f} % of these images right: it has not learnt "
            f"them, so their ground truth does not apply to its maps, and no metric is recommended."
        )
    if facts.methods < METHODS or known < IMAGES:
        return (
            f"On {images_of(known, facts.dataset)}, {over} no correlation with the ground truth is computed, so no "
            f"metric is recommended: it needs at least {METHODS} methods, and {IMAGES} images that have a ground truth "
            "and that the network classifies right."
        )
    if not found.believed:
        return f"On {images_of(known, facts.dataset)}, {over} no metric can be recommended: {_reasons(facts, found)}."
    top = found.top
    first = facts.validity.value(top[0], WITHIN)
    images = int(first["images"])
    agree, them = ("agrees", "it") if len(top) == 1 else ("agree", "them")
    missing = {name for metric in top for name in found.open.get(metric, ())}
    which = f"no control that was tested fools {them}" if missing else f"no control fools {them}"
    return (
        f"On {images_of(images, facts.dataset)}, {over} {listed(list(top))} {agree} best with the ground truth (rank "
        f"correlation over the methods of an image {number(first['value'])} on average for {top[0]}, 95 % interval "
        f"{number(first['low'])} to {number(first['high'])}), and {which} {confidence(images, images, facts.level)}."
    )


def _reasons(facts: ValidityFacts, found: _Found) -> str:
    """Why no metric is recommended, of the reasons that occur; what no test found is not said to be absent."""
    tests = facts.validity.above_chance
    rest = [m for m in facts.metrics if m not in found.fooled and m not in found.against]
    reasons = {
        "is fooled by a control": found.fooled,
        "orders maps against the ground truth": [m for m in found.against if m not in found.fooled],
        "is found by no test to agree with the ground truth beyond chance": [
            m for m in rest if m in tests and m not in found.agreeing
        ],
        "is not tested, for want of images or values": [m for m in rest if m not in tests or m in found.blank],
    }
    there = [reason for reason, metrics in reasons.items() if metrics]
    return f"each {', or '.join(there)}" if there else "every metric asked for reads the ground truth itself"


def _notes(facts: ValidityFacts, found: _Found) -> Iterator[str]:
    if rest := [m for m in found.believed if m not in found.top]:
        yield f"{listed(rest)} agree{'s' if len(rest) == 1 else ''} with it less, and can be believed too."
    if found.fooled:
        told = listed([f"{metric} (by {listed(list(names))})" for metric, names in found.fooled.items()])
        yield f"Fooled, and not to be believed here: {told}. No test finds these controls worse than the best method."
    yield from _agreement_notes(facts, found)
    if found.blank:
        yield f"Not known whether a control fools {listed(found.blank)}: no control, too few images, or no values."
    partly = [f"{m} by {listed(list(names))}" for m, names in found.open.items() if m not in found.blank]
    if partly:
        yield f"Not tested, for want of images or values, whether a control fools {listed(partly)}."
    split = [f"{cell.metric} from {cell.control}" for cell in facts.cells
             if cell.verdict in (BY_RANKS, BY_MEANS) and cell.metric not in facts.seeing]  # fmt: skip
    if split:
        yield f"One test alone tells {listed(split[:6])}{' and others' if len(split) > 6 else ''}: see the matrix."
    yield from _rescaling_notes(facts.rescalings)
    low = [m for m, test in facts.truth.items() if m not in facts.seeing and is_worse(test, facts.level)]
    if low:
        yield (
            f"{listed(low)} score{'s' if len(low) == 1 else ''} the best method above the ground truth itself. The "
            "network may need only a part of the object, or the metric rewards something else than the object."
        )
    yield _tests_note(facts)
    yield from _images_left_out(facts)
    if facts.accuracy is None:
        yield "The images have no labels, so it is not known whether the network has learnt them."


def _agreement_notes(facts: ValidityFacts, found: _Found) -> Iterator[str]:
    """The metrics that no test finds to agree, those that order maps the other way, and those that are not tested."""
    tests = facts.validity.above_chance
    idle = [m for m in facts.metrics
            if m in tests and m not in (*found.agreeing, *found.against, *found.fooled)]  # fmt: skip
    if idle:
        values = [(m, facts.validity.value(m, WITHIN)) for m in idle]
        told = [f"{m} ({number(v['value'])}, {number(v['low'])} to {number(v['high'])})" for m, v in values]
        yield (
            "No test finds agreement with the ground truth beyond chance, which may be there all the same: "
            f"{listed(told)}."
        )
    if found.against:
        order = "orders" if len(found.against) == 1 else "order"
        yield f"{listed(list(found.against))} {order} maps against the ground truth."
    left = [m for m in facts.metrics if m not in tests]
    if left and facts.methods >= METHODS and facts.validity.known >= IMAGES:
        reasons = [str(facts.validity.value(m, WITHIN)["why"]).removeprefix("not computed: ") for m in left]
        told = [f"{m} ({why or 'too few images'})" for m, why in zip(left, reasons, strict=True)]
        yield f"Agreement with the ground truth not tested: {listed(told)}."


def _images_left_out(facts: ValidityFacts) -> Iterator[str]:
    """How many images are left out, and why."""
    wrong = facts.given - facts.used - facts.unknown
    are = lambda count: "is" if count == 1 else "are"  # noqa: E731
    if wrong and facts.accuracy is not None:
        yield (
            f"{counted(wrong, 'image')} of {facts.given} that the network classifies wrong {are(wrong)} left out: "
            "its ground truth is not what it used."
        )
    if facts.unknown and facts.accuracy is not None:
        yield f"{counted(facts.unknown, 'image')} without a label or a prediction {are(facts.unknown)} left out."
    if bare := facts.used - facts.validity.known:
        yield f"{counted(bare, 'image')} without a ground truth {are(bare)} left out, as where a crop empties the mask."
    lacking = [(m, facts.validity.known - int(facts.validity.value(m, WITHIN)["images"])) for m in facts.metrics]
    told = [f"{m} ({count})" for m, count in lacking if count]
    if told:
        yield (
            f"Images without a rank correlation, as fewer than {METHODS} methods have a value or all have the same, "
            f"are left out of {facts.validity.known}: {listed(told)}."
        )


def _tests_note(facts: ValidityFacts) -> str:
    tests, pairs = facts.validity.above_chance, facts.validity.comparison
    told = f"Tests at {100 * (1 - facts.level):g} %, paired by image."
    if tests:
        told += (
            f" Metrics: Wilcoxon's signed-rank test of their correlations, Holm over {counted(len(tests), 'metric')}"
        )
        told += " for agreement beyond chance"
        told += f", and over {counted(len(pairs.pairs), 'pair')} of metrics." if pairs else "."
    else:
        told += " No correlation is tested."
    if facts.cells:
        told += " Controls: that test and " if tests else " Controls: Wilcoxon's signed-rank test and "
        told += "a permutation test of means against the best method, Holm over both for all controls of a metric."
    return told


def _rescaling_notes(found: Sequence[Rescaling]) -> Iterator[str]:
    for arm in dict.fromkeys(one.arm for one in found):
        here = {one.metric: one for one in found if one.arm == arm}
        blind = [one.metric for one in here.values() if one.blind and one.metric != TRUTH]
        truth = here.get(TRUTH)
        if blind and truth is not None and not truth.blind:
            yield (
                f"{listed(blind)} cannot tell {truth.method} from {arm}, which orders the pixels alike, while the "
                f"cosine with the ground truth moves from {number(truth.plain)} to {number(truth.rescaled)}: "
                f"{'it reads' if len(blind) == 1 else 'they read'} the order alone."
            )

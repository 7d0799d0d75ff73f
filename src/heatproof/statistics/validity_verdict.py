"""The verdict on the metrics of one model and set of images: which to believe, in plain words (protocols §9, §11)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from heatproof.statistics.fooled_matrix import BY_MEANS, BY_RANKS, FooledCell, fooling_controls, untested_metrics
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
    the best method against the ground truth scored as a map. used, given: images that count, and all. accuracy: None
    where it is not known.
    """

    dataset: str
    validity: Validity
    cells: Sequence[FooledCell]
    rescalings: Sequence[Rescaling]
    truth: Mapping[str, PairTest]
    seeing: frozenset[str]
    methods: int
    controls: int
    used: int
    given: int
    accuracy: float | None
    level: float = 0.95

    @property
    def metrics(self) -> list[str]:
        """The metrics that were held against the ground truth, those that read it left out."""
        return [str(name) for name in dict.fromkeys(self.validity.table["metric"]) if name not in self.seeing]


def validity_verdict(facts: ValidityFacts) -> ValidityVerdict:
    """The verdict, with its sentence and notes."""
    fooled = {m: names for m, names in fooling_controls(facts.cells).items() if m in facts.metrics}
    untested = untested_metrics(facts.cells, facts.metrics)
    tests = facts.validity.above_chance
    agreeing = [m for m in facts.metrics if m in tests and is_worse(tests[m], facts.level)]
    against = tuple(m for m in facts.metrics if m in tests and is_worse(tests[m].turned, facts.level))
    order = facts.validity.comparison.order if facts.validity.comparison else tuple(agreeing)
    believed = tuple(m for m in order if m in agreeing and m not in fooled and m not in untested)
    apart = facts.validity.comparison.apart if facts.validity.comparison else frozenset()
    top = tuple(m for m in believed if frozenset((believed[0], m)) not in apart)
    applies = facts.accuracy is None or facts.accuracy >= LEARNT
    sentence = _sentence(facts, believed, top, applies)
    notes = tuple(_notes(facts, fooled, against, untested, believed, top))
    return ValidityVerdict(sentence, notes, believed, top, fooled, against, applies)


def _sentence(facts: ValidityFacts, believed: Sequence[str], top: Sequence[str], applies: bool) -> str:
    where = f"On {images_of(facts.used, facts.dataset)}, over {counted(facts.methods, 'method')},"
    if not applies:
        return (
            f"The network classifies {100 * (facts.accuracy or 0):.0f} % of these images right: it has not learnt "
            f"them, so their ground truth does not apply to its maps, and no metric is recommended."
        )
    if facts.methods < METHODS or facts.used < IMAGES:
        return (
            f"{where} nothing is computed: a correlation needs at least {METHODS} methods and {IMAGES} images that the "
            "network classifies right."
        )
    if not believed:
        return (
            f"{where} no metric can be believed: each is fooled by a control, or does not agree with the ground truth."
        )
    first = facts.validity.value(believed[0], WITHIN)
    sure = confidence(facts.used, facts.used, facts.level)
    agree, them = ("agrees", "it") if len(top) == 1 else ("agree", "them")
    return (
        f"{where} {listed(list(top))} {agree} best with the ground truth (rank correlation over the methods of an "
        f"image {number(first['value'])} on average for {believed[0]}, 95 % interval {number(first['low'])} to "
        f"{number(first['high'])}), and no control fools {them} {sure}."
    )


def _notes(
    facts: ValidityFacts,
    fooled: Mapping[str, tuple[str, ...]],
    against: Sequence[str],
    untested: Sequence[str],
    believed: Sequence[str],
    top: Sequence[str],
) -> Iterator[str]:
    if rest := [m for m in believed if m not in top]:
        yield f"{listed(rest)} agree{'s' if len(rest) == 1 else ''} with it less, and can be believed too."
    if fooled:
        told = listed([f"{metric} (by {listed(list(names))})" for metric, names in fooled.items()])
        yield f"Fooled, and not to be believed here: {told}. No test finds these controls worse than the best method."
    idle = [m for m in facts.metrics if m not in (*believed, *fooled, *against, *untested)]
    if idle:
        yield f"No agreement with the ground truth beyond chance: {listed(idle)}."
    if against:
        yield f"{listed(list(against))} order{'s' if len(against) == 1 else ''} maps against the ground truth."
    if untested:
        yield f"Not known whether a control fools {listed(list(untested))}: no control, too few images, or no values."
    split = [f"{cell.metric} from {cell.control}" for cell in facts.cells if cell.verdict in (BY_RANKS, BY_MEANS)]
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
    if facts.used < facts.given and facts.accuracy is not None:
        yield (
            f"{counted(facts.given - facts.used, 'image')} of {facts.given} that the network classifies wrong "
            f"{'is' if facts.given - facts.used == 1 else 'are'} left out: its ground truth is not what it used."
        )
    if facts.accuracy is None:
        yield "The images have no labels, so it is not known whether the network has learnt them."


def _tests_note(facts: ValidityFacts) -> str:
    pairs = len(facts.validity.comparison.pairs) if facts.validity.comparison else 0
    return (
        f"Tests at {100 * (1 - facts.level):g} %, paired by image. Metrics: Wilcoxon's signed-rank test of their "
        f"correlations, Holm over {counted(pairs, 'pair')} of metrics, and over {len(facts.metrics)} metrics for "
        "agreement beyond chance. Controls: that test and a permutation test of means against the best method, "
        f"Holm over both for all {counted(facts.controls, 'control')} of a metric."
    )


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

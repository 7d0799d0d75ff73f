"""The questions of an audit, the answers to them, and the evidence behind an answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from heatproof.statistics.peaks import Peaks
from heatproof.statistics.wording import listed, number

PASS, FAIL, OPEN = "pass", "fail", "cannot be told"
#: The confidence level of all tests of one question together.
LEVEL = 0.95
#: The share of the images on which a method must have a value; else a method that fails on hard ones would look better.
COVERED = 0.8
#: What an open answer needs → in words.
CURES = {
    "images": "more images",
    "flips": "more images or stronger noise",
    "controls": "a run with controls",
}
#: The question about masks, and the metric that says where the peak of each map lies.
POINTS, PEAK = "points at the object", "pointing-game"
#: The only control that is unstable on purpose: its maps are drawn anew for every image.
RANDOM = "random"


@dataclass(frozen=True)
class Question:
    """A question about every method.

    Attributes:
        name: its name in the table. asks: the question in full. true, false: the words for a pass, for a fail.
        metrics: the metrics that answer it.
        bar: the threshold for the metrics, in place of the controls (lower is better).
        quantity: of the noise study (`robustness_verdict`), in place of metrics.
        controls: the controls that the quantity is compared with; empty for all.
        needed: a method that fails it is not recommended.
    """

    name: str
    asks: str
    true: str
    false: str
    metrics: tuple[str, ...] = ()
    bar: float | None = None
    quantity: str = ""
    controls: tuple[str, ...] = ()
    needed: bool = True

    @property
    def rule(self) -> str:
        """The condition for a pass, in words."""
        if self.bar is not None:
            return f"{listed(self.metrics)} below {self.bar:g}; a map that ignores the network and the class stays at 1"
        if self.metrics:
            of = f"at least {most(self.metrics)} of " if len(self.metrics) > 1 else ""
            other = " (tested together), and worse than a control by none of them" if of else ""
            return f"better than every control by {of}{listed(self.metrics)}{other}"
        against = f"than {listed(self.controls)} maps" if self.controls else "than every control"
        quantity = {"consistency": "RBO where the prediction held", "within": "responsiveness at equal severity"}
        return f"higher {quantity[self.quantity]} {against}"


QUESTIONS = (
    Question(
        name="faithful",
        asks="Does the model need what the map shows?",
        true="was faithful",
        false="was not faithful",
        metrics=("road", "insertion", "deletion-mean"),
    ),
    Question(
        name="stable",
        asks="Does the map stay under noise while the prediction stays?",
        true="was stable under noise",
        false="was not stable under noise",
        quantity="consistency",
        controls=(RANDOM,),
    ),
    Question(
        name="responds",
        asks="Does the map change when the prediction changes?",
        true="responded when the prediction changed",
        false="did not respond when the prediction changed",
        quantity="within",
    ),
    Question(
        name="depends on the weights",
        asks="Does the map change when the weights are drawn anew?",
        true="depended on the weights",
        false="hardly depended on the weights",
        metrics=("mprt",),
        bar=0.5,
    ),
    Question(
        name="depends on the class",
        asks="Does the map change when another class is asked for?",
        true="depended on the class",
        false="hardly depended on the class",
        metrics=("random-logit",),
        bar=0.5,
    ),
    Question(
        name=POINTS,
        asks="Does the map show the object?",
        true="pointed at the object",
        false="did not point at the object",
        metrics=("energy", "mask-cosine"),
        needed=False,
    ),
)


@dataclass(frozen=True)
class Evidence:
    """One metric, or one quantity, of one method.

    value: mean over the images, or the quantity. against: the control that comes closest, or the bar; other: its value.
    raw: the largest p of the tests of being better than the controls; p: the same after Holm's correction over the
    methods, of a fail the p of a control being better (NaN for a bootstrap). n: images. why: the reason where the
    images are too few or there is nothing to compare with. needs: of an open answer, a key of `CURES`, empty where
    nothing would help.
    """

    method: str
    what: str
    answer: str
    value: float
    against: str
    other: float
    p: float
    n: int
    raw: float = np.nan
    why: str = ""
    needs: str = ""

    @property
    def text(self) -> str:
        """In short: `road 0.39, centre 0.31`, with a question mark where the difference may be chance."""
        if self.why:
            return self.why
        beside = f"{self.against} {number(self.other)}".strip()
        return f"{self.what} {number(self.value)}, {beside}{' ?' if self.answer == OPEN else ''}"


@dataclass(frozen=True)
class Finding:
    """The answer to one question for one method.

    why: a line for each metric. p: of the test of all metrics together, after Holm's correction over the methods.
    needs: of an open answer, a key of `CURES`, empty where nothing would help. enough: about how many images would
    settle an open answer (`settling.enough_images`); None where no number can be named.
    """

    question: Question
    method: str
    answer: str
    why: tuple[str, ...]
    evidence: tuple[Evidence, ...] = ()
    p: float = np.nan
    needs: str = ""
    enough: int | None = None


@dataclass(frozen=True)
class AuditFindings:
    """The findings on one model and dataset, and the recommendation.

    findings: method → question → finding, the methods with the most passes first. recommended: the method to show, None
    where no method is fit; fit: all methods that may be shown. sentence, notes: the result in words. least: the
    probability below which the map should not be shown, None where none was found or needed. peaks: method → how often
    its peak lies on the ground truth, empty without masks.
    """

    model: str
    dataset: str
    layer: str
    findings: Mapping[str, Mapping[str, Finding]]
    recommended: str | None
    sentence: str
    notes: tuple[str, ...]
    fit: tuple[str, ...]
    images: int
    layers: Mapping[str, str]
    refused: Mapping[str, str]
    least: float | None = None
    peaks: Mapping[str, Peaks] = field(default_factory=dict)

    def verdict(self, method: str) -> str:
        """`recommended`, `fit to be shown`, or `not fit`, with the reason."""
        if method == self.recommended:
            return "recommended"
        if method in self.fit:
            return "fit to be shown"
        return f"not fit: {self.reason_against(method)}"

    def reason_against(self, method: str) -> str:
        """Why a method is not fit to be shown: the questions that it fails, or what is not shown of it."""
        given = self.findings.get(method, {})
        failed = [name for name, one in given.items() if one.answer == FAIL and one.question.needed]
        if failed:
            return f"fails “{listed(failed)}”"
        if "faithful" not in given or given["faithful"].answer != PASS:
            return "not shown to be faithful"
        return "no value for changed weights or another class"

    def beaten(self, method: str) -> tuple[int, int]:
        """How many of the scores that are compared with controls are better than all of them; of how many."""
        given = [e for one in self.findings[method].values() for e in one.evidence if one.question.bar is None]
        return sum(e.answer == PASS for e in given), len(given)


def most(metrics: Sequence[str]) -> int:
    """How many of the metrics must show it: one of one, both of two, two of three."""
    return len(metrics) // 2 + 1


def at_least(r: int, p: Sequence[float]) -> float:
    """The p of "at least r of these hold": `(m − r + 1) p₍r₎`; NaN where fewer are known."""
    known = sorted(value for value in p if not np.isnan(value))
    return min(1.0, (len(known) - r + 1) * known[r - 1]) if len(known) >= r else np.nan

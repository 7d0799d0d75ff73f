"""Why a map or a score has no value, or only a stated one: a reason for code, and text for people.

A `Flag` is text, so rows, tables and pages hold it as it is; it also carries its typed `reason`, and the error where
one was raised. Code decides by the reason; nothing reads the text back.
"""

from collections.abc import Iterable, Sequence
from enum import Enum

#: The word with which the flag of a saturated row begins.
SATURATED = "saturated"


class Reason(Enum):
    """The kinds of reasons; the value is the default text of a flag."""

    FINE = ""
    CONSTANT = "constant map"
    NON_FINITE = "non-finite map"
    NO_ANSWER = "the model gave non-finite output"
    NO_MAP = "there is no map of this image"
    MADE_ELSEWHERE = "needs the method, and these maps were made elsewhere"
    NO_MASKS = "no masks were given"
    NO_MASK = "there is no mask of this image"
    NO_PARTS = "these images are not made of parts that can be removed"
    NO_PART_IMAGE = "an image or a mask of its parts is missing"
    NO_REFERENCE = "there is no reference map"
    NOT_APPLICABLE = "not applicable"
    UNDEFINED = "the formula has no value here"
    UNUSABLE = "the image cannot be used"
    ONE_COLOUR = "nearly one colour after preprocessing"
    SATURATED = f"{SATURATED}: no masking moved the probability of 0 or 1"
    FAILED = "the method or metric raised an error"


#: Reasons of a degenerate map, for which a metric may state a value.
DEGENERATE = frozenset({Reason.CONSTANT, Reason.NON_FINITE})
#: Reasons with which a row keeps a value.
VALUED = DEGENERATE | {Reason.SATURATED}


class Flag(str):
    """The text of a reason; empty, and so false, where there is no problem.

    Attributes:
        reason: the kind of reason.
        error: what was raised, for `FAILED` and `NOT_APPLICABLE`; else None.
    """

    reason: Reason
    error: BaseException | None

    def __new__(cls, reason: Reason, text: str = "", error: BaseException | None = None) -> "Flag":
        made = super().__new__(cls, text or reason.value)
        made.reason, made.error = reason, error
        return made

    def __reduce__(self) -> tuple:
        return Flag, (self.reason, str(self), None)

    @classmethod
    def of_error(cls, error: BaseException, reason: Reason = Reason.FAILED) -> "Flag":
        """The error's class and first line; for `NOT_APPLICABLE` the first line alone."""
        first = f"{error}".strip().splitlines() or [""]
        text = first[0] if reason is Reason.NOT_APPLICABLE else f"{type(error).__name__}: {first[0]}"
        return cls(reason, text, error)

    @property
    def degenerate(self) -> bool:
        """Whether the map is constant or not finite."""
        return self.reason in DEGENERATE

    @property
    def valued(self) -> bool:
        """Whether a row with this flag may keep its value."""
        return self.reason in VALUED

    def after(self, words: str) -> "Flag":
        """The same flag with `words` before its text; an empty flag stays empty."""
        return Flag(self.reason, f"{words}{self}", self.error) if self else self


FINE = Flag(Reason.FINE)


def first_flags(*flags: Sequence[Flag]) -> list[Flag]:
    """For each image the first flag that is not empty."""
    return [next(filter(None, options), FINE) for options in zip(*flags, strict=True)]


def absent_flags(absent: Sequence[bool], flags: Sequence[Flag]) -> list[Flag]:
    """`NO_MAP` for each image of which there is no map, else its flag."""
    return [Flag(Reason.NO_MAP) if missing else flag for missing, flag in zip(absent, flags, strict=True)]


def as_text(flags: Iterable) -> list:
    """Flags as plain strings, for users; nested lists stay nested."""
    return [str.__str__(flag) if isinstance(flag, str) else as_text(flag) for flag in flags]

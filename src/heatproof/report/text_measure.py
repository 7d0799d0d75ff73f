"""Text as the figures and panels draw it: the font, the width of a line, and text broken into lines that fit."""

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

#: The size at which widths are measured, in pixels; they are proportional to the size of the text.
_MEASURED = 64


@lru_cache(maxsize=64)
def font(size: float, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font that comes with matplotlib: it is on every machine and covers most alphabets."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size)


def text_width(text: str, size: float) -> float:
    """The width in inches of the longest line, in the font of the figures at `size` points."""
    return size / 72 * max((_ems(line) for line in text.split("\n")), default=0.0)


@lru_cache(maxsize=4096)
def _ems(line: str) -> float:
    """The width of a line in units of the size of its text."""
    return font(_MEASURED).getlength(line) / _MEASURED


def broken(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Lines of which each fits: broken at spaces, else after punctuation, else anywhere; nothing is cut off."""
    lines, rest = [], " ".join(text.split())
    while rest:
        count = _characters_that_fit(rest, fits)
        lines.append(rest[:count].rstrip())
        rest = rest[count:].lstrip()
    return lines


def wrapped_to(text: str, room: float, size: float) -> str:
    """The text at `size` points in lines of at most `room` inches."""
    return "\n".join(broken(text, lambda part: text_width(part, size) <= room))


def _characters_that_fit(text: str, fits: Callable[[str], bool]) -> int:
    """How many characters go on the first line, at least one."""
    if fits(text):
        return len(text)
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(text[:middle].rstrip()) else (low, middle - 1)
    breaks = [match.end() for match in re.finditer(r"\s+|[-_/+@,:.](?=\S)|(?=[\[(])", text[: low + 1])]
    spaces = [end for end in breaks if text[end - 1 : end].isspace() and 0 < end <= low + 1]
    others = [end for end in breaks if low / 2 <= end <= low and end > 0]
    return (spaces or others or [low])[-1]

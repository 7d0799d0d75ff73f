"""Numbers and lists in the sentences of verdicts."""

from collections.abc import Sequence

import numpy as np

#: With fewer images, or without a block that all methods share, no sentence speaks of confidence: the tests may miss a
#: difference, and a few images say little about others of the same sort.
IMAGES = 50
#: Below this accuracy a network has not learnt the images, and their ground truth says nothing about its maps.
LEARNT = 0.9


def confidence(images: int, blocks: int, level: float) -> str:
    """`at 95 % confidence`; with fewer than `IMAGES` images, or no complete block, `on these images`."""
    return f"at {100 * level:g} % confidence" if images >= IMAGES and blocks else "on these images"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def number(value: float) -> str:
    """Two decimals, as in 0.31; a true minus sign."""
    return "not known" if np.isnan(value) else f"{value:.2f}".replace("-", "−")


def left_out(methods: Sequence[str]) -> str:
    """A note on methods without any value."""
    one = len(methods) == 1
    return f"{listed(methods)} {'has' if one else 'have'} no value, and {'is' if one else 'are'} left out."


def counted(number: int, noun: str) -> str:
    """`1 image`, `1,200 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def images_of(number: int, dataset: str) -> str:
    """`24 images of shapes`; `24 images` where the set has no other name."""
    return counted(number, "image") + ("" if dataset == "images" else f" of {dataset}")


def tested_together(pairs: int, level: float, tests: str) -> str:
    """`10 pairs of methods tested together at 5 %, by …`: what a verdict is corrected for."""
    return f"{counted(pairs, 'pair')} of methods tested together at {round(100 * (1 - level), 6):g} %, by {tests}"

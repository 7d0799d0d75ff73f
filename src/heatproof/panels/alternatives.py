"""Which other preprocessing agrees better with labels or a reference: the usual mistakes, tried one after another."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heatproof.geometry import default_resize
from heatproof.models.preprocessing import Preprocessing
from heatproof.panels.predictions import Prediction

#: What networks are trained with, besides the present mean and std: red, green, blue, of images in [0, 1].
NORMALISATIONS: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # ImageNet, of torchvision and timm
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # Inception and many transformers
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # values in [0, 1]
    ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),  # bytes
    ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),  # Caffe: bytes less the mean
)
#: The shares of each side that a centre crop keeps; None squashes to the input size.
CROPS = (0.875, 0.95, 1.0, None)
FILTERS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Alternative:
    """Another preprocessing, and for which images its predictions agree with what is expected.

    `closeness`: the mean probability of the expected class, or where the reference has probabilities, 1 less the mean
    difference from them. It decides between alternatives that agree on equally many images.
    """

    preprocessing: Preprocessing
    answers: tuple[bool, ...]
    closeness: float

    @property
    def agreeing(self) -> int:
        """The number of images."""
        return sum(self.answers)

    @property
    def total(self) -> int:
        """The number of images with an answer."""
        return len(self.answers)

    def beats_by_chance(self, other: "Alternative") -> float:
        """The p-value of McNemar's exact one-sided test that it agrees on more of the same images than another."""
        from scipy.stats import binomtest

        gained = sum(a and not b for a, b in zip(self.answers, other.answers, strict=True))
        lost = sum(b and not a for a, b in zip(self.answers, other.answers, strict=True))
        return float(binomtest(gained, gained + lost, alternative="greater").pvalue) if gained + lost else 1.0

    @property
    def key(self) -> tuple[int, float]:
        """What is compared; rounded, so that a tie is a tie on every machine."""
        return self.agreeing, round(self.closeness, 4)


def judged(preprocessing: Preprocessing, found: Sequence[Prediction]) -> Alternative:
    """How predictions agree with the reference, or with the labels where there is none."""
    answers = [one.right if one.agrees is None else one.agrees for one in found]
    known = tuple(answer for answer in answers if answer is not None)
    near = [
        one.of_expected if one.difference is None else 1 - one.difference
        for one in found
        if one.of_expected is not None
    ]
    return Alternative(preprocessing, known, sum(near) / len(near) if near else 0.0)


def searched(
    start: Alternative, predict: Callable[[Preprocessing], Sequence[Prediction]], advance: Callable[[float], Any]
) -> list[Alternative]:
    """The alternatives tried, the best first: mean and std with either channel order, then the crop, then the filter.

    Each step begins at the best of the one before, so 15 are tried at most and not their 80 combinations.
    """
    best, tried = start, {_seen(start.preprocessing): start}
    for step in (_normalisations, _crops, _filters):
        for other in step(best.preprocessing):
            if _seen(other) not in tried:
                tried[_seen(other)] = judged(other, predict(other))
            advance(1)
        best = max(tried.values(), key=lambda one: (one.key, one is start))
    return sorted((one for one in tried.values() if one is not start), key=lambda one: one.key, reverse=True)


#: How many preprocessings a search looks at.
STEPS = 2 * (len(NORMALISATIONS) + 1) + len(CROPS) + len(FILTERS)


def _normalisations(base: Preprocessing) -> Iterator[Preprocessing]:
    for order in ("rgb", "bgr"):
        for mean, std in ((base.mean, base.std), *NORMALISATIONS):
            yield replace(base, mean=mean, std=std, channel_order=order)


def _crops(base: Preprocessing) -> Iterator[Preprocessing]:
    for share in CROPS:
        resize = None if share is None else default_resize(base.geometry.size, share)
        yield replace(base, geometry=replace(base.geometry, resize=resize))


def _filters(base: Preprocessing) -> Iterator[Preprocessing]:
    for name in FILTERS:
        yield replace(base, geometry=replace(base.geometry, interpolation=name))


def _seen(preprocessing: Preprocessing) -> Preprocessing:
    rounded = lambda values: tuple(round(value, 5) for value in values)  # noqa: E731
    return replace(
        preprocessing, mean=rounded(preprocessing.mean), std=rounded(preprocessing.std), classes=None, assumed=()
    )


def as_options(before: Preprocessing, after: Preprocessing) -> str:
    """The options of the command line that make one preprocessing of another."""
    found = []
    turned = slice(None, None, -1 if after.channel_order == "bgr" else 1)
    if (before.mean, before.std) != (after.mean, after.std) or before.channel_order != after.channel_order:
        large = 255 if max(after.std) < 0.02 else 1
        mean, std = (",".join(f"{value * large:.6g}" for value in values[turned]) for values in (after.mean, after.std))
        found.append(f"--mean {mean} --std {std}" + (" --value-range 255" if large == 255 else ""))
    if before.channel_order != after.channel_order:
        found.append(f"--channel-order {after.channel_order}")
    resize = after.geometry.resize
    if before.geometry.resize != resize:
        text = ",".join(map(str, resize)) if isinstance(resize, tuple) else resize
        found.append(f"--resize {'none' if text is None else text}")
    if before.geometry.interpolation != after.geometry.interpolation:
        found.append(f"--interpolation {after.geometry.interpolation}")
    return " ".join(found)

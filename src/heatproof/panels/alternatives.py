"""Which other preprocessing agrees better with labels or a reference: the usual mistakes, tried one after another."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heatproof.geometry import default_resize
from heatproof.models.preprocessing import Preprocessing, for_channels
from heatproof.panels.predictions import Prediction
from heatproof.pixels import Pixels
from heatproof.windows import IGNORED, Window

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
#: The most windows that are tried.
WINDOWS = 2
#: What is behind transparent pixels; most training code takes their stored colours.
BACKGROUNDS = ("white", IGNORED)
#: How far the same network on the same images may differ from a reference of another machine, in a probability.
NEAR = 1e-4


@dataclass(frozen=True)
class Alternative:
    """Another preprocessing, and for which images its predictions agree with what is expected.

    `closeness`: the mean probability of the expected class, or where the reference has probabilities, 1 less the mean
    difference from them. It decides between alternatives that agree on equally many images. `farthest`: the largest
    difference from a probability of the reference, 0 where it has none.
    """

    preprocessing: Preprocessing
    answers: tuple[bool, ...]
    closeness: float
    farthest: float = 0.0

    @property
    def perfect(self) -> bool:
        """Whether it agrees on all images, with the probabilities of the reference too, where it has any."""
        return self.agreeing == self.total and self.farthest <= NEAR

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
    told = [one for one in found if one.reference is not None or one.label is not None]
    answers = tuple(bool(one.right if one.agrees is None else one.agrees) for one in told)
    near = [
        one.of_expected if one.difference is None else 1 - one.difference
        for one in found
        if one.of_expected is not None
    ]
    farthest = max((one.difference for one in found if one.difference is not None), default=0.0)
    return Alternative(preprocessing, answers, sum(near) / len(near) if near else 0.0, farthest)


def searched(
    start: Alternative,
    predict: Callable[[Preprocessing], Sequence[Prediction]],
    advance: Callable[[float], Any],
    resized: bool = True,
    windows: Sequence[Window] = (),
) -> list[Alternative]:
    """The alternatives tried, the best first.

    First each step by itself from the present preprocessing: the window, mean and std, the channel order with them, the
    crop, the filter, what is behind transparency. Then, where none of these agrees perfectly, the steps one after
    another, each from the best so far. So a single mistake is found as such, and several are found with some forty
    trials and not with all combinations. Of two that agree alike, the one that changes less is better.

    `resized`: whether the images can be resized otherwise; of tensors only mean, std and the order can be wrong.
    `windows`: those to try, of `likely_windows`.
    """

    def _windows(base: Preprocessing) -> Iterator[Preprocessing]:
        for window in windows[:WINDOWS]:
            yield replace(base, geometry=replace(base.geometry, window=window))

    steps = (_windows, *_STEPS) if resized else (_normalisations,)
    tried = {_seen(start.preprocessing): start}

    def take(step: Callable[[Preprocessing], Iterator[Preprocessing]], base: Preprocessing) -> None:
        for other in step(base):
            if _seen(other) not in tried:
                tried[_seen(other)] = judged(other, predict(other))
            advance(1)

    def best() -> Alternative:
        return max(tried.values(), key=lambda one: (one.key, -_changes(start.preprocessing, one.preprocessing)))

    for step in steps:
        take(step, start.preprocessing)
    if resized and not best().perfect:
        for step in steps:
            take(step, best().preprocessing)
    found = [one for one in tried.values() if one is not start]
    return sorted(found, key=lambda one: (one.key, -_changes(start.preprocessing, one.preprocessing)), reverse=True)


def likely_windows(images: Iterable[Any]) -> tuple[Window, ...]:
    """The windows that images of 16 bits may have in place of the present one: the bits that they use, and `auto`.

    Empty where an image has 8 bits, or is of another type, whose black and white are known.
    """
    highest = 0
    for image in images:
        if not isinstance(image, Pixels) or image.values.dtype.kind not in "ui" or image.values.dtype.itemsize != 2:
            return ()
        highest = max(highest, int(image.values.max()))
    if not highest:
        return ()
    bits = max(8, highest.bit_length())
    return ((0.0, float(2**bits - 1)), "auto") if bits < 16 else ("auto",)


def _normalisations(base: Preprocessing) -> Iterator[Preprocessing]:
    count = base.geometry.channels
    for order in ("rgb", "bgr") if count == 3 else ("rgb",):
        for mean, std in ((base.mean, base.std), *NORMALISATIONS):
            mean, std = for_channels(mean, count), for_channels(std, count)
            yield replace(base, mean=mean, std=std, channel_order=order)


def _crops(base: Preprocessing) -> Iterator[Preprocessing]:
    for share in CROPS:
        resize = None if share is None else default_resize(base.geometry.size, share)
        yield replace(base, geometry=replace(base.geometry, resize=resize))


def _filters(base: Preprocessing) -> Iterator[Preprocessing]:
    for name in FILTERS:
        yield replace(base, geometry=replace(base.geometry, interpolation=name))


def _backgrounds(base: Preprocessing) -> Iterator[Preprocessing]:
    if base.geometry.channels in (1, 3):  # else transparency is a channel
        for name in BACKGROUNDS:
            yield replace(base, geometry=replace(base.geometry, background=name))


_STEPS = (_normalisations, _crops, _filters, _backgrounds)
#: The most preprocessings that a search looks at.
STEPS = 2 * (2 * (len(NORMALISATIONS) + 1) + len(CROPS) + len(FILTERS) + len(BACKGROUNDS) + WINDOWS)


def _changes(before: Preprocessing, after: Preprocessing) -> int:
    """How many of mean and std, channel order, resize, filter, window and background are others."""
    one, two = before.geometry, after.geometry
    return sum((
        (before.mean, before.std) != (after.mean, after.std),
        before.channel_order != after.channel_order,
        one.resize != two.resize,
        one.interpolation != two.interpolation,
        one.window != two.window,
        one.background != two.background,
    ))  # fmt: skip


def _seen(preprocessing: Preprocessing) -> Preprocessing:
    rounded = lambda values: tuple(round(value, 5) for value in values)  # noqa: E731
    return replace(
        preprocessing, mean=rounded(preprocessing.mean), std=rounded(preprocessing.std), classes=None, assumed=()
    )


def as_options(before: Preprocessing, after: Preprocessing) -> str:
    """The options of the command line that make one preprocessing of another, in place of all like them.

    Mean and std come with their units and their order, so that those given before cannot change their meaning.
    """
    found = []
    if (window := after.geometry.window) != before.geometry.window and window is not None:
        found.append(f"--window {window if isinstance(window, str) else ','.join(f'{value:g}' for value in window)}")
    turned = slice(None, None, -1 if after.channel_order == "bgr" else 1)
    if (before.mean, before.std, before.channel_order) != (after.mean, after.std, after.channel_order):
        units = 255 if max(after.std) < 0.02 else 1
        mean, std = (",".join(f"{value * units:.6g}" for value in values[turned]) for values in (after.mean, after.std))
        order = f" --channel-order {after.channel_order}" if len(after.mean) == 3 else ""
        found.append(f"--mean {mean} --std {std} --value-range {units}{order}")
    resize = after.geometry.resize
    if before.geometry.resize != resize:
        text = ",".join(map(str, resize)) if isinstance(resize, tuple) else resize
        found.append(f"--resize {'none' if text is None else text}")
    if before.geometry.interpolation != after.geometry.interpolation:
        found.append(f"--interpolation {after.geometry.interpolation}")
    if before.geometry.background != after.geometry.background:
        found.append(f"--alpha-background {after.geometry.background}")
    return " ".join(found)

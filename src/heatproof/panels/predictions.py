"""What a network predicts for images, beside labels and a reference; the table of `heatproof check`."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

from heatproof.class_names import class_index
from heatproof.data.csv_rows import csv_rows, image_name
from heatproof.data.labels import by_ending
from heatproof.engine import halved
from heatproof.errors import InvalidImage, InvalidInput, InvalidTarget
from heatproof.files import with_formula
from heatproof.models import Model
from heatproof.models.one_output import warn_of_values
from heatproof.models.probability_outputs import warn_of_probabilities
from heatproof.panels.explained_image import ClassProbability
from heatproof.panels.image_sources import ImageSource
from heatproof.rounding import top_class
from heatproof.tensors import as_seen

#: How far a probability may differ from the reference, where the same network sees the same image on another machine.
PROBABILITY_TOLERANCE = 0.02
#: The images kept for the sheet, of those predicted as expected and of the others.
KEPT = 48
#: The columns of a reference that name a class, in the order tried.
CLASS_COLUMNS = ("class_index", "predicted", "name")


@dataclass(frozen=True)
class Expected:
    """What a reference says of an image: the class, and its probability where it is known."""

    index: int
    probability: float | None = None


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image; `flag` says why there is none.

    Attributes:
        image: its name. size: (height, width) of the file, None for tensors.
        first, second: the two most probable classes.
        of_expected: the probability that the network gives to the class of the reference, or where there is none to
            the label.
    """

    image: str
    size: tuple[int, int] | None = None
    first: ClassProbability | None = None
    second: ClassProbability | None = None
    label: int | None = None
    reference: Expected | None = None
    of_expected: float | None = None
    flag: str = ""

    @property
    def right(self) -> bool | None:
        """Whether the label is predicted; None where either is unknown."""
        return None if self.label is None or self.first is None else self.first.index == self.label

    @property
    def agrees(self) -> bool | None:
        """Whether the class of the reference is predicted; None where there is no reference."""
        if self.reference is None:
            return None
        return self.first is not None and self.first.index == self.reference.index

    @property
    def wrong(self) -> bool:
        """Whether there is no prediction, or another one than expected."""
        return bool(self.flag) or self.agrees is False or self.right is False

    @property
    def difference(self) -> float | None:
        """How far its probability lies from that of the reference; None where either is unknown."""
        told = self.reference.probability if self.reference else None
        return None if told is None or self.of_expected is None else abs(self.of_expected - told)

    @property
    def cells(self) -> dict[str, Any]:
        """The row of the table."""
        first, second = self.first, self.second
        decimals = lambda answer: round(answer.probability, 6) if answer else None  # noqa: E731
        return {
            "file": self.image,
            "height": self.size[0] if self.size else None,
            "width": self.size[1] if self.size else None,
            "class_index": first.index if first else None,
            "name": first.name if first else "",
            "probability": decimals(first),
            "second": second.index if second else None,
            "second_name": second.name if second else "",
            "second_probability": decimals(second),
            "label": self.label,
            "reference": self.reference.index if self.reference else None,
            "reference_probability": self.reference.probability if self.reference else None,
            "flag": self.flag,
        }


@dataclass(frozen=True)
class Range:
    """What goes into the network: mean and standard deviation over all images and channels, and the extremes."""

    mean: float
    std: float
    low: float
    high: float

    @property
    def doubt(self) -> str:
        """Why it is unlike what networks are trained on; empty where it is not.

        Inputs are trained at a mean near 0 and a standard deviation near 1, or in [0, 1].
        """
        if self.high - self.low > 20:
            return "values as large as those of bytes; networks are mostly trained on values within about ±3"
        if abs(self.mean) > 2 or self.std > 3:
            return "far from mean 0 and standard deviation 1, on which networks are mostly trained"
        return "nearly constant" if self.std < 0.02 else ""


def predictions(
    model: Model, shots: Sequence[ImageSource], expected: Sequence[Expected | None], batch_size: int, progress: Any
) -> tuple[list[Prediction], Range | None, dict[int, np.ndarray]]:
    """The prediction for each image, the range of what went in, and images as seen, uint8 `(H, W, 3)`, by position.

    One forward pass for each image. One that cannot be read has a flag. The images kept are at most `KEPT` of those
    that are predicted as expected, and as many of the others.
    """
    found: dict[int, Prediction] = {}
    moments: list[tuple[float, float, float, float, int]] = []
    seen: dict[int, np.ndarray] = {}
    kept = {True: 0, False: 0}
    for rows, x in _batches(shots, expected, found, batch_size):
        with model.evaluating(), torch.no_grad():
            given = x.to(model.device)
            logits = torch.cat(list(halved(lambda part, given=given: model.logits(given[part]), len(given))))
            z = model.normalise(given).double()
        moments.append((float(z.sum()), float(z.square().sum()), float(z.amin()), float(z.amax()), z.numel()))
        warn_of_values(model, logits)
        warn_of_probabilities(model, logits)
        finite = torch.isfinite(logits).all(1).tolist()
        top = top_class(logits).tolist()
        for at, (row, one) in enumerate(zip(rows, model.probabilities(logits), strict=True)):
            if finite[at]:
                found[row] = _prediction(model, shots[row], expected[row], one, top[at])
            else:
                found[row] = Prediction(
                    shots[row].name, label=shots[row].label, reference=expected[row], flag="logits that are not finite"
                )
            if kept[found[row].wrong] < KEPT:
                kept[found[row].wrong] += 1
                seen[row] = as_seen(x[at]).numpy()
        progress.advance(len(rows))
    told = [found[row] for row in range(len(shots))]
    return told, _range(moments), seen


def _batches(
    shots: Sequence[ImageSource], expected: Sequence[Expected | None], found: dict[int, Prediction], size: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Images of one size together; those that cannot be read go into `found` with a flag."""
    waiting: dict[tuple[int, ...], list[tuple[int, torch.Tensor]]] = {}
    for row, shot in enumerate(shots):
        try:
            if shot.flag:
                raise InvalidImage(shot.flag)
            x = shot.open()
        except InvalidImage as error:
            reason = str(error).removeprefix(f"{PurePath(shot.id).name}: ")
            found[row] = Prediction(shot.name, label=shot.label, reference=expected[row], flag=reason)
            continue
        batch = waiting.setdefault(tuple(x.shape), [])
        batch.append((row, x))
        if len(batch) == size:
            yield _together(waiting.pop(tuple(x.shape)))
    yield from map(_together, waiting.values())


def _together(batch: list[tuple[int, torch.Tensor]]) -> tuple[list[int], torch.Tensor]:
    return [row for row, _ in batch], torch.stack([x for _, x in batch])


def _prediction(
    model: Model, shot: ImageSource, expected: Expected | None, probabilities: torch.Tensor, first: int
) -> Prediction:
    others = probabilities.clone()
    others[first] = -1
    second = int(others.argmax())
    size = None
    if shot.original is not None:
        with suppress(InvalidImage):
            original = shot.original()
            size = original.height, original.width
    label = None if shot.label is None or shot.label < 0 else shot.label  # −1: not labelled
    wanted = label if expected is None else expected.index
    if wanted is not None and not 0 <= wanted < len(probabilities):
        what = "`labels` name" if expected is None else "`reference` names"
        raise InvalidInput(f"{what} class {wanted} for {shot.name}. {model.name} has {len(probabilities)} classes.")
    return Prediction(
        shot.name,
        size,
        ClassProbability(first, model.class_name(first), float(probabilities[first])),
        ClassProbability(second, model.class_name(second), float(probabilities[second])),
        label,
        expected,
        None if wanted is None else float(probabilities[wanted]),
    )


def _range(moments: Sequence[tuple[float, float, float, float, int]]) -> Range | None:
    if not moments:
        return None
    sums, squares, lows, highs, counts = zip(*moments, strict=True)
    mean = sum(sums) / sum(counts)
    return Range(mean, max(sum(squares) / sum(counts) - mean**2, 0) ** 0.5, min(lows), max(highs))


def read_reference(path: str | os.PathLike, shots: Sequence[ImageSource], model: Model) -> list[Expected | None]:
    """The predictions of a CSV for these images, matched by the end of the path; None where it says nothing.

    Columns: `file`; the class as `class_index`, `predicted` or `name`; `probability`, if known. The `check.csv` of an
    earlier check is such a file.

    Raises:
        InvalidInput, InvalidTarget: a file that cannot be used, or that names none of the images.
    """
    known: dict[str, Expected] = {}
    for row, line in csv_rows(path, ("file",), "reference"):
        column = next((name for name in CLASS_COLUMNS if name in row), None)
        if column is None:
            raise InvalidInput(
                f"`reference` must have one of the columns {', '.join(CLASS_COLUMNS)}. {line.partition(',')[0]} has "
                f"{', '.join(map(str, row))}."
            )
        row = {name: with_formula(value) if isinstance(value, str) else value for name, value in row.items()}
        if text := (row[column] or "").strip():
            known[image_name(row, line)] = Expected(_class(text, model, line), _probability(row, line))
    found = [by_ending(shot.id, known) for shot in shots]
    if not any(found):
        raise InvalidInput(
            f"`reference` must name the images. It names {next(iter(known), 'none')!r}; the first image is "
            f"{shots[0].id!r}."
        )
    return found


def _class(text: str, model: Model, line: str) -> int:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number >= 0 and number.is_integer():  # pandas writes 3.0 in a column with gaps
        return int(number)
    if not model.classes:
        raise InvalidInput(
            f"A class must be a whole number from 0 up, because {model.name} has no names of classes. {line}: got "
            f"{text!r}."
        )
    try:
        return class_index(text, model.classes)
    except InvalidTarget as error:
        raise InvalidTarget(f"{line}: {error}") from None


def _probability(row: Any, line: str) -> float | None:
    text = (row.get("probability") or "").strip()
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise InvalidInput(f"`probability` must lie in 0 … 1. {line}: got {text!r}.")
    return found

"""`heatproof.check`: what a network sees of images and predicts for them, and whether that is what it should."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.engine import as_model
from heatproof.errors import InvalidInput
from heatproof.files import without_formulas, write_atomically
from heatproof.geometry import Geometry
from heatproof.models import Model
from heatproof.models.preprocessing import Preprocessing, preprocessing_facts
from heatproof.panels.alternatives import STEPS, Alternative, as_options, judged, likely_windows, searched
from heatproof.panels.image_sources import ImageSource, limited_shots, shots, with_names
from heatproof.panels.predictions import PROBABILITY_TOLERANCE, Prediction, Range, predictions, read_reference
from heatproof.panels.seen_sheet import seen_sheet
from heatproof.progress import Silent, reported
from heatproof.quiet import ignored_warnings
from heatproof.report.preprocessing import preprocessing_text

#: With fewer images in a reference, one that agrees on all of them may do so by chance.
FEWEST = 4
#: Images on which other preprocessings are tried: each costs one forward pass of each.
TRIED_ON = 64
#: Images whose stored values say which windows are tried.
OPENED = 16


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        model: the model's name.
        preprocessing: how an image becomes its input.
        assumed: what of it nobody gave.
        predictions: one for each image.
        inputs: the range of what went into the network, None where no image was read.
        alternatives: other preprocessings that were tried, the best first; empty where none had to be.
        start: how the present preprocessing agrees on the images on which others were tried.
        sample: how a limit chose the images.
        classes: the names of the classes, None where there are none.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> found = heatproof.check(heatproof.load_model("shapes"), demo_shapes(n=6))
        >>> found.sentences[0]
        '6 of 6 labels are predicted (100 %).'
        >>> found.preprocessing.split(";")[0]
        'squashed to 96 × 96 (height × width), bilinear'
    """

    model: str
    preprocessing: str
    assumed: tuple[str, ...]
    predictions: Sequence[Prediction]
    inputs: Range | None
    start: Alternative | None = None
    alternatives: Sequence[Alternative] = ()
    sample: str = ""
    classes: Sequence[str] | None = None
    _seen: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def table(self) -> Any:
        """A data frame, a row for each image: the two most probable classes, the label, the reference, a flag."""
        import pandas as pd

        frame = pd.DataFrame([one.cells for one in self.predictions])
        whole = [name for name in ("height", "width", "class_index", "second", "label", "reference") if name in frame]
        return frame.astype(dict.fromkeys(whole, "Int64"))

    @property
    def right(self) -> tuple[int, int]:
        """The number of images whose label is predicted, and of images with a label."""
        return _counted([one.right for one in self.predictions])

    @property
    def agreeing(self) -> tuple[int, int]:
        """The number of images for which the class of the reference is predicted, and of images with a reference."""
        return _counted([one.agrees for one in self.predictions])

    @property
    def difference(self) -> float | None:
        """The largest difference from a probability of the reference; None where it has none."""
        return max((one.difference for one in self.predictions if one.difference is not None), default=None)

    @property
    def agrees(self) -> bool:
        """Whether some image was read, and every image of the reference was, with its class and its probability within
        the tolerance.
        """
        told = [one for one in self.predictions if one.reference is not None]
        some = any(not one.flag for one in self.predictions)
        return some and all(one.agrees for one in told) and (self.difference or 0.0) <= PROBABILITY_TOLERANCE

    @property
    def better(self) -> Alternative | None:
        """The alternative that agrees on more images, or nearer, than chance explains; None where there is none.

        A gain must be larger than noise: McNemar's exact test at 5 %, corrected for the number of alternatives. Beside
        a reference a preprocessing that agrees on all of several images is better too, and one that agrees on as many
        images with nearer probabilities.
        """
        if not self.alternatives or self.start is None:
            return None
        best = self.alternatives[0]
        if any(one.agrees is not None for one in self.predictions):
            whole = best.agreeing == best.total and best.total >= FEWEST
            if whole and best.key > self.start.key:
                return best
        return best if best.beats_by_chance(self.start) * STEPS <= 0.05 else None

    @property
    def sentences(self) -> list[str]:
        """The findings in words, the answer first."""
        found = []
        if self.agreeing[1]:
            count, total = self.agreeing
            gap = "" if self.difference is None else f"; probabilities differ by at most {self.difference:.2g}"
            far = (self.difference or 0.0) > PROBABILITY_TOLERANCE
            gap += f", more than the {PROBABILITY_TOLERANCE:g} that rounding explains" if far else ""
            found.append(f"{count} of {total} predictions agree with the reference{gap}.")
        if self.right[1]:
            count, total = self.right
            found.append(f"{count} of {total} labels are predicted ({100 * count / total:.0f} %).")
            found += self._no_better_than_guessing
        if not found:
            found.append("Nothing to compare with: give `reference` (--reference) or labels.")
        if unread := [one.image for one in self.predictions if one.flag]:
            more = ", …" if len(unread) > 3 else ""
            found.append(
                f"{len(unread)} of {len(self.predictions)} images have no prediction: {', '.join(unread[:3])}{more}."
            )
        if self.start is not None:
            best = self.better
            if best is not None:
                options = as_options(self.start.preprocessing, best.preprocessing)
                nearer = best.agreeing == self.start.agreeing
                now = "as many as now, with nearer probabilities" if nearer else f"and {self.start.agreeing} now"
                found.append(f"Of {best.total} images {best.agreeing} agree with {options}, {now}.")
            elif self.alternatives:
                cause = ": the weights, the classes or the files may differ" if not self.agrees else ""
                found.append(f"None of {len(self.alternatives)} other preprocessings is better beyond chance{cause}.")
        found += self._transparency_decides
        if self.inputs is not None and self.inputs.doubt:
            found.append(f"What goes into the network is doubtful: {self.inputs.doubt}.")
        if self.assumed:
            found.append(f"Assumed, because nobody gave it: {', '.join(self.assumed)}.")
        return found

    @property
    def _no_better_than_guessing(self) -> list[str]:
        """A sentence where the most frequent label, guessed for every image, would be right as often."""
        labels = [one.label for one in self.predictions if one.right is not None]
        guess = max(map(labels.count, set(labels)))
        if len(set(labels)) < 2 or self.right[0] > guess:
            return []
        return [
            f"That is no better than guessing: one class for all images is right for {guess}. Other sizes are never "
            "tried, and of means and standard deviations only common ones: give those of the training (--size, --mean, "
            "--std). Or the order of the classes (--classes) or the weights are others."
        ]

    @property
    def _transparency_decides(self) -> list[str]:
        """A sentence where what is behind transparent pixels, and nothing else, changes how many images agree.

        No test: the images are the same, so a prediction that changes does so for this reason.
        """
        if self.start is None or self.better is not None:
            return []
        start = self.start.preprocessing
        for one in self.alternatives:
            only = replace(one.preprocessing.geometry, background=start.geometry.background)
            if replace(one.preprocessing, geometry=only) == start and one.answers != self.start.answers:
                return [
                    f"Transparency matters: of {one.total} images {one.agreeing} agree with "
                    f"{as_options(start, one.preprocessing)}, and {self.start.agreeing} now. Choose as in training."
                ]
        return []

    @property
    def picture(self) -> Any:
        """What the network sees of the first images, with its predictions: an image of PIL."""
        return self._sheet.image()

    @property
    def _sheet(self) -> Any:
        return seen_sheet(self.model, self.preprocessing, self.predictions, self._seen, self.classes)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes `check.csv` and `seen.png`; returns the picture's path. The table can be a reference elsewhere."""
        target, text = Path(folder), io.StringIO()
        without_formulas(self.table).to_csv(text, index=False)
        write_atomically(target / "check.csv", lambda file: file.write(text.getvalue().encode("utf-8", "replace")))
        drawing = self._sheet.png()
        write_atomically(target / "seen.png", lambda file: file.write(drawing))
        return target / "seen.png"

    def __str__(self) -> str:
        lines = [*self.sentences, f"{self.model}: {self.preprocessing}."]
        if self.inputs is not None:
            one = self.inputs
            lines.append(
                f"Into the network go values of mean {one.mean:.2f} and standard deviation {one.std:.2f}, from "
                f"{one.low:.2f} to {one.high:.2f}."
            )
        return "\n".join(lines)


def _counted(answers: Sequence[bool | None]) -> tuple[int, int]:
    known = [answer for answer in answers if answer is not None]
    return sum(known), len(known)


@neutral()
def check(
    model: Model | nn.Module,
    images: Any,
    *,
    reference: str | os.PathLike[str] | None = None,
    labels: Sequence[int | None] | str | os.PathLike[str] | None = None,
    limit: int | None = None,
    sampling: str = "stratified",
    seed: int = 0,
    batch_size: int = 32,
    alternatives: bool | None = None,
    progress: Any = False,
) -> Check:
    """What a network sees of images and predicts for them, beside labels and predictions made elsewhere.

    Wrong preprocessing gives plausible predictions and plausible maps, only worse ones. This shows it: the images as
    they reach the network, the range of their values, the predictions. Where predictions do not agree with the
    reference, or some labels are not predicted, the usual mistakes are tried on at most 64 of the images: other means
    and standard deviations, RGB in place of BGR, another crop or a squash, another filter, transparency ignored, and
    for images of 16 bits another window.

    Args:
        model: a model, or a module, which is wrapped with the defaults of `wrap`.
        images: what `show` takes.
        reference: a CSV of predictions by the training code: `file`, and `class_index` or `name`; `probability` too, if
            known. The `check.csv` of an earlier check is one.
        labels: one for each image, or a CSV with the columns `file,class_index`; a folder's own by default.
        limit, sampling, seed: only so many images, chosen as in a study.
        alternatives: True tries other preprocessings in any case, False never.
        progress: as in `heatproof.explain`.

    Returns:
        A `Check`; `print` it for the findings, `.save(folder)` for the picture and the table.

    Raises:
        InvalidInput, InvalidTarget: images, labels or a reference that cannot be used, or a network of values.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> found = heatproof.check(heatproof.load_model("shapes"), demo_shapes(n=6))
        >>> found.right  # of six images with a label
        (6, 6)
    """
    model = with_names(as_model(model), images, labels)
    if model.of_values:
        raise InvalidInput(
            f"A check compares classes, and {model.name} is a network of values. `show` shows its values."
        )
    if batch_size < 1:
        raise InvalidInput(f"`batch_size` must be at least 1. Got {batch_size}.")
    found, sample = limited_shots(shots(images, model, labels), limit, seed, sampling)
    expected = [None] * len(found) if reference is None else read_reference(reference, found, model)
    with reported(progress) as bar:
        return _checked(
            model, images, labels, found, sample, expected, reference is not None, batch_size, alternatives, bar
        )


def _checked(
    model: Model,
    images: Any,
    labels: Any,
    found: Sequence[ImageSource],
    sample: str,
    expected: Sequence[Any],
    referred: bool,
    batch_size: int,
    alternatives: bool | None,
    progress: Any,
) -> Check:
    """The check of images that are ready to be opened; `referred`: predictions of a reference are expected."""
    progress.stage("Predicting", len(found))
    told, inputs, seen = predictions(model, found, expected, batch_size, progress)
    seen_by_network = preprocessing_text(preprocessing_facts(model.preprocessing))
    checked = Check(
        model.name, seen_by_network, model.preprocessing.assumed, told, inputs, None, (), sample, model.classes, seen
    )
    answered = [i for i, one in enumerate(told) if one.of_expected is not None][:TRIED_ON]
    perfect = checked.agrees if referred else checked.right[0] == checked.right[1]
    if not answered or alternatives is False or (perfect and alternatives is None):
        return checked
    start = judged(model.preprocessing, [told[i] for i in answered])
    progress.stage("Trying other preprocessings", STEPS)

    files = all(found[i].original is not None for i in answered)
    prepared: dict[Geometry, list[ImageSource]] = {}

    def resized(geometry: Geometry) -> list[ImageSource]:
        """The images as a geometry makes them, opened once for all means and filters that are tried with it."""
        if geometry not in prepared:
            prepared.clear()  # 64 images of 224² take 40 MB
            sources = {source.id: source for source in found}
            if files:
                changed = model.with_preprocessing(replace(model.preprocessing, geometry=geometry))
                with ignored_warnings():  # of labels: the same as before
                    sources = {source.id: source for source in shots(images, changed, labels)}
            chosen = [sources[found[i].id] for i in answered]
            prepared[geometry] = [replace(one, open=partial(_held, one.open()), original=None) for one in chosen]
        return prepared[geometry]

    def predict(other: Preprocessing) -> Sequence[Prediction]:
        changed, told = model.with_preprocessing(other), [expected[i] for i in answered]
        with ignored_warnings():  # of a preprocessing that nobody asked for
            return predictions(changed, resized(other.geometry), told, batch_size, Silent())[0]

    stored = [source.stored for source in (found[i] for i in answered[:OPENED]) if source.stored is not None]
    windows = likely_windows(open_values() for open_values in stored)
    return replace(checked, start=start, alternatives=searched(start, predict, progress.advance, files, windows))


def _held(x: torch.Tensor) -> torch.Tensor:
    return x

"""A study's folder as a collection: images, maps and scores that are stored there."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import heatproof
from heatproof.errors import InvalidImage, StoreError
from heatproof.panels.explained_image import ClassProbability, ExplainedClass, ExplainedImage, Method
from heatproof.report.source import open_source
from heatproof.studies.store import Store
from heatproof.view.index import ImageIndex
from heatproof.view.interface import ListPage, Number, Pixels, Shown, Wanted
from heatproof.view.stored_maps import StoredMaps

#: How many images are kept at hand with their maps, and how many without.
KEPT, SEEN = 12, 64
_PREDICTION = """
SELECT max(perturbed_class), max(perturbed_probability), max(clean_class), max(clean_probability),
       max(value) FILTER (metric = 'value'), max(CASE WHEN metric = 'target-class' THEN value END)
FROM {here} WHERE model = ? AND dataset = ? AND image = ? AND method = '' AND perturbation = ? AND severity = ?
"""
_EXPLAINED = """
SELECT max(value) FROM {here} WHERE model = ? AND dataset = ? AND image = ? AND method = '' AND metric = 'target-class'
       AND perturbation = ? AND severity = ?
"""


class StudyCollection:
    """The results of a study. `pixels`: what opens its images, None where nothing can.

    Raises:
        StoreError: no study, no finished rows, or rows that this version cannot read.
    """

    def __init__(self, folder: Path, pixels: Pixels | None = None):
        self.plan, self._reader = Store(folder).plan() or {}, pixels
        try:
            source = open_source(folder)
            source.connection.close()
            self._names: Mapping[str, Sequence[str]] = self.plan.get("class_names") or {}
            self._index = ImageIndex(folder, self.plan.get("metric_facts") or {}, self._names)
        except StoreError:
            raise
        except Exception as error:  # DuckDB's own: columns that are not there, files that are none
            version = self.plan.get("version", "an unknown version") if isinstance(self.plan, dict) else "?"
            raise StoreError(
                f"The rows of {folder} cannot be read ({type(error).__name__}: {str(error).splitlines()[0]}). They "
                f"were written by {version}; this is heatproof {heatproof.__version__}. Run the study again in a new "
                "folder."
            ) from error
        self._maps = StoredMaps(folder)
        self._kept = lru_cache(maxsize=KEPT)(self._shown)
        self._numbers = lru_cache(maxsize=SEEN)(self._index.numbers)
        self._seen = lru_cache(maxsize=SEEN)(self._pixels)
        self.title = f"{self.plan.get('study', 'study')}: {folder}"
        self.facts = _facts(self.plan)
        self.notices = [*_notices(source), *self._without_images(folder)]
        self._methods = _methods(self.plan, self._index)
        self._kinds, self._scores, self._filters = self._noise(), self._index.metrics, self._index.filters

    @property
    def methods(self) -> Sequence[Method]:
        """The methods, those that are no control first."""
        return self._methods

    @property
    def kinds(self) -> Mapping[str, Sequence[int]]:
        """Kind of noise → the severities measured."""
        return self._kinds

    @property
    def scores(self) -> Sequence[str]:
        """The metrics measured."""
        return self._scores

    @property
    def filters(self) -> Sequence[str]:
        """The filters that the rows can answer."""
        return self._filters

    def page(self, wanted: Wanted) -> ListPage:
        """A page of the list."""
        return self._index.page(wanted)

    def neighbour(self, key: int, step: int, wanted: Wanted) -> tuple[int, int] | None:
        """(key, page) of the image `step` further."""
        return self._index.neighbour(key, step, wanted)

    def image_id(self, key: int) -> str:
        """The image's name in the rows, from which its random numbers come."""
        return self._index.place(key)[2]

    def name(self, key: int) -> str:
        """The image, with its model and dataset where there are several."""
        model, dataset, image, _ = self._index.place(key)
        return self._index.name(model, dataset, image)

    def pixels(self, key: int) -> np.ndarray | None:
        """The image as the network saw it; None where it cannot be opened any more."""
        return self._seen(key, "", 0)[0]

    def shown(self, key: int, kind: str = "", severity: int = 0) -> Shown:
        """The image with its stored maps."""
        return self._kept(key, kind if severity else "", severity if kind else 0)

    def numbers(self, key: int) -> Sequence[Number]:
        """All scores of the image."""
        return self._numbers(key)

    def prediction(self, key: int, kind: str = "", severity: int = 0) -> ClassProbability | None:
        """What was predicted; None where nothing was."""
        model, dataset, image, _ = self._index.place(key)
        found = self._index.own(key, _PREDICTION, model, dataset, image, kind, severity)[0]
        now, probability, clean, at_clean, value, target = found
        index, chance = (now, probability) if kind else (clean, at_clean)
        if value is not None:
            return ClassProbability(int(target or 0), "", value=value)
        if index is None:
            return None
        names = self._names.get(model) or ()
        name = str(names[index]) if index < len(names) else ""
        return ClassProbability(int(index), name, float("nan") if chance is None else chance)

    def _noise(self) -> dict[str, list[int]]:
        """Kind of noise → the severities measured, in the order of the plan."""
        found = self._index.noise
        order = [kind for kind in self.plan.get("perturbations") or () if kind in found]
        return {kind: found[kind] for kind in dict.fromkeys([*order, *found])}

    # --- one image ---

    def _shown(self, key: int, kind: str, severity: int) -> Shown:
        *place, file = self._index.place(key)
        model, dataset, image = place
        condition = f"{kind}:{severity}" if kind else ""
        pixels, note = self._seen(key, kind, severity)
        size = (pixels.shape[0], pixels.shape[1]) if pixels is not None else self._size(model)
        maps = self._maps.of(Path(file).stem, (model, dataset, image), condition, size)
        predicted = self.prediction(key, kind, severity)
        if pixels is None:
            pixels = np.full((*size, 3), 128, np.uint8)
        flag, wrong = self._index.ask("SELECT why, wrong FROM images WHERE key = ?", key)[0]
        if flag or predicted is None:
            return Shown(ExplainedImage(image, image, flag=flag or "the network gave no prediction"), note)
        if not maps:
            note = f"{note} No map of this image is stored.".strip()
        answer = self._explained(key, kind, severity) or predicted
        entry = ExplainedImage(image, image, pixels, predicted, blocks=(ExplainedClass(answer, maps),))
        return Shown(entry, note, bool(wrong) and not kind, {} if kind else self._index.decisions(key))

    def _explained(self, key: int, kind: str, severity: int) -> ClassProbability | None:
        """The class explained, where it is another than the predicted one."""
        model, dataset, image, _ = self._index.place(key)
        found = self._index.own(key, _EXPLAINED, model, dataset, image, kind, severity)[0][0]
        predicted = self.prediction(key, kind, severity)
        if found is None or predicted is None or predicted.value is not None or int(found) == predicted.index:
            return None
        names = self._names.get(model) or ()
        return ClassProbability(int(found), str(names[int(found)]) if int(found) < len(names) else "")

    def _pixels(self, key: int, kind: str, severity: int) -> tuple[np.ndarray | None, str]:
        """The image under noise, and what is to be said of it; None where it cannot be had."""
        model, dataset, image, _ = self._index.place(key)
        place, condition = (model, dataset, image), f"{kind}:{severity}" if kind else ""
        why = ""
        if self._reader is not None:
            try:
                if not kind:
                    return self._reader.of(model, dataset, image), ""
                if kind not in (self.plan.get("calibrate") or ()):
                    found = self._reader.perturbed(model, dataset, image, kind, severity)
                    if found is not None:
                        return found, ""
            except InvalidImage as error:
                why = f"The image cannot be opened: {error}"
        stored = self._maps.pixels(place, condition)
        if stored is not None:
            return stored, ""
        if kind and (clean := self._pixels(key, "", 0)[0]) is not None:
            return clean, f"The image under {kind} is not stored. Its map is shown over the image without noise."
        return None, why or "The image is not stored here, and its file is not known. Its maps are shown on grey."

    def _size(self, model: str) -> tuple[int, int]:
        """The size of the network's input."""
        with suppress(KeyError, TypeError, ValueError, StopIteration):
            plan = next(one for one in self.plan["models"] if one["name"] == model)
            height, width = plan["preprocessing"]["size"]
            return int(height), int(width)
        return 224, 224

    def _without_images(self, folder: Path) -> list[str]:
        """A sentence where the first image cannot be opened."""
        pixels, note = self._seen(0, "", 0)
        return [f"{note} Put the images back to see them, or name their folder with --images."] if (
            pixels is None and self._index.ask("SELECT why FROM images WHERE key = 0")[0][0] == ""
        ) else []  # fmt: skip


def _facts(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the page says of the study."""
    names = lambda kind: ", ".join(str(one.get("name")) for one in plan.get(kind) or ())  # noqa: E731
    count = sum(one.get("image_count") or 0 for one in plan.get("datasets") or ())
    facts = (("Model", names("models")), ("Images", f"{count} of {names('datasets')}" if count else names("datasets")),
             ("Class explained", ", ".join(plan.get("pooled_targets") or [str(plan.get("target") or "")])))  # fmt: skip
    return [(name, value) for name, value in facts if value]


def _notices(source: Any) -> list[str]:
    """Sentences on results that are not whole, not of one class of each image, or of another version."""
    found = []
    if source.plan.get("pooled_targets"):
        found.append(
            f"Maps and numbers here are of the first class explained ({source.plan.get('target')}). The tables of the "
            "study hold means over all classes of an image."
        )
    if source.missing:
        found.append(
            f"This study is not finished: {source.done} of {source.jobs} jobs are done. The same command goes on with "
            "it."
        )
    version = str(source.plan.get("version") or "").partition(",")[0].removeprefix("heatproof ").strip()
    if version != heatproof.__version__:
        found.append(
            f"Written by heatproof {version or 'of an unknown version'}; this is {heatproof.__version__}. What that "
            "version did not store is not shown."
        )
    return found


def _methods(plan: Mapping[str, Any], index: ImageIndex) -> list[Method]:
    """The methods of the rows in the order of the plan, controls last."""
    found = index.methods
    order = [name for name in plan.get("methods") or () if name in found]
    order += sorted((name for name in found if name not in order), key=lambda name: (found[name][0], name))
    return [Method(name, name, tuple(filter(None, found[name][1].split("+")))) for name in order]

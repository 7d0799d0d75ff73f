"""The results of one image: the predicted class and the maps of every method; as objects, and as arrays of a file."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from heatproof.class_names import named
from heatproof.spelling import head


@dataclass(frozen=True)
class Method:
    """A method as it was run: its key in the results, its title, the layers it read, shallow → deep."""

    key: str
    title: str
    layers: tuple[str, ...] = ()
    summary: str = ""
    source: str = ""
    options: str = ""

    @property
    def name(self) -> str:
        """The title without its options."""
        return head(self.title)

    @property
    def settings(self) -> str:
        """The options in the title."""
        return self.title.removeprefix(self.name).strip().removeprefix("[").removesuffix("]").replace(",", ", ")

    @property
    def where(self) -> str:
        """The layers in words; empty for a method that reads none."""
        return " + ".join(self.layers)


#: The order in which maps are drawn: each row begins a line of a panel.
Rows = tuple[tuple[Method, ...], ...]


@dataclass(frozen=True)
class ClassProbability:
    """A class, its name where the model has names, and its probability.

    Of a network of values: a column of the output, and its `value`; there is then no probability.
    """

    index: int
    name: str = ""
    probability: float = math.nan
    value: float | None = None

    @property
    def text(self) -> str:
        """`tench (0)`."""
        return named(self.name, self.index)

    @property
    def full(self) -> str:
        """`tench (0), 98 %`; of a value `58.31 (output 0)`."""
        if self.value is not None:
            return f"{self.percent} ({self.name or 'output'} {self.index})"
        return f"{self.text}, {self.percent}"

    @property
    def short(self) -> str:
        """The first of several names: `great white shark, 42 %`; of a value `output 0: 58.31`."""
        if self.value is not None:
            return f"{self.name or f'output {self.index}'}: {self.percent}"
        return f"{self.name.split(',')[0].strip() or f'class {self.index}'}, {self.percent}"

    @property
    def percent(self) -> str:
        """The probability in per cent, with a decimal near 0 and 100; a value in its units."""
        if self.value is not None:
            return f"{self.value:.4g}"
        p = self.probability
        if not math.isfinite(p):
            return "no probability"
        if 0 < p < 0.0005:
            return "< 0.1 %"
        if 0.9995 <= p < 1:
            return "> 99.9 %"
        return f"{100 * p:.1f} %" if 0 < p < 0.01 or 0.99 < p < 1 else f"{100 * p:.0f} %"


#: The file of a folder that says of every image what a list needs.
INDEX = "index.json"
#: The share of pixels that brightening may push beyond the end of the colour bar.
OUTLIER_SHARE = 0.005


@dataclass(frozen=True)
class Map:
    """One map: raw at the layer's resolution, display in [0, 1] at the image's.

    `flag`: why it says nothing, empty where it does. `degenerate`: whether it is constant or not finite.
    """

    raw: np.ndarray
    display: np.ndarray
    flag: str = ""
    degenerate: bool = False

    @property
    def brightness_gain(self) -> float:
        """The factor by which a map is drawn brighter because a few pixels are much larger than all others; at least 1.

        It is `1 / q` where q, the quantile `1 − OUTLIER_SHARE` of the display map, lies between 0 and ½. It is 1
        otherwise, for maps with a flag, and for maps whose resolution is not the image's.
        """
        if self.raw.shape[-2:] != self.display.shape or self.flag:
            return 1.0
        high = float(np.quantile(self.display, 1 - OUTLIER_SHARE))
        return 1 / high if 0 < high < 0.5 else 1.0


@dataclass(frozen=True)
class ExplainedClass:
    """One class explained, with its maps by the methods' keys."""

    answer: ClassProbability
    maps: Mapping[str, Map]


@dataclass(frozen=True)
class ExplainedImage:
    """One image. `flag` says why it could not be explained; then the other results are empty.

    Its random numbers come from `id`; `name` is for display. `image` is the network's input, uint8 `(H, W, 3)`;
    `refused`: methods that turned out not to apply to this network, with the reasons.
    `note`: why the image is doubtful. `mask`: bool `(H, W)`, where the object is; None where that is not known.
    """

    id: str
    name: str = ""
    image: np.ndarray | None = None
    predicted: ClassProbability | None = None
    label: ClassProbability | None = None
    blocks: tuple[ExplainedClass, ...] = ()
    flag: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    mask: np.ndarray | None = None

    @property
    def says_something(self) -> bool:
        """Whether any map has no flag."""
        return any(not found.flag for block in self.blocks for found in block.maps.values())


def as_arrays(entry: ExplainedImage, about: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of `NAME.npz`.

    `image` uint8 `(H, W, 3)`; `mask` bool `(H, W)` where there is one; `target` and `probability` (of a network of
    values `value`), one for each class explained; `raw/METHOD` and
    `display/METHOD`, with a first dimension over the classes where there are several; `about`, a JSON text.
    """
    assert entry.image is not None and entry.predicted is not None
    arrays: dict[str, np.ndarray] = {
        "image": entry.image,
        "target": np.array([block.answer.index for block in entry.blocks]),
    }
    answers = [block.answer for block in entry.blocks]
    if answers[0].value is None:
        arrays["probability"] = np.array([one.probability for one in answers])
    else:
        arrays["value"] = np.array([one.value for one in answers])
    for key in entry.blocks[0].maps:
        maps = [block.maps[key] for block in entry.blocks]
        arrays[f"raw/{key}"] = _together([found.raw for found in maps])
        arrays[f"display/{key}"] = _together([found.display for found in maps])
    if entry.mask is not None:
        arrays["mask"] = entry.mask
    told = {
        "id": entry.id,
        "name": entry.name,
        "predicted": _as_json(entry.predicted),
        "label": entry.label and _as_json(entry.label),
        "classes": [_as_json(block.answer) for block in entry.blocks],
        "methods": list(entry.blocks[0].maps),
        "flags": {key: [block.maps[key].flag for block in entry.blocks] for key in entry.blocks[0].maps},
        "degenerate": {key: [block.maps[key].degenerate for block in entry.blocks] for key in entry.blocks[0].maps},
        "refused": dict(entry.refused),
        "note": entry.note,
        **about,
    }
    arrays["about"] = np.array(json.dumps(told, ensure_ascii=False))
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[ExplainedImage, dict[str, Any]]:
    """The entry of such arrays, and their `about`."""
    about = json.loads(str(arrays["about"]))
    several = len(about["classes"]) > 1
    blocks = []
    for number, told in enumerate(about["classes"]):
        maps = {}
        for key in about["methods"]:
            raw, display = arrays[f"raw/{key}"], arrays[f"display/{key}"]
            maps[key] = Map(
                raw[number] if several else raw,
                display[number] if several else display,
                about["flags"][key][number],
                about["degenerate"][key][number],
            )
        blocks.append(ExplainedClass(_answer(told), maps))
    label = about["label"] and _answer(about["label"])
    entry = ExplainedImage(
        about["id"],
        about["name"],
        arrays["image"],
        _answer(about["predicted"]),
        label,
        tuple(blocks),
        refused=about["refused"],
        note=about["note"],
    )
    return entry, about


def summary(entry: ExplainedImage) -> dict[str, Any]:
    """What a list of images says of one: id, name, prediction, label, flag, and how alike its maps are.

    `correlation`: the mean of Pearson's correlations of all pairs of maps of the first class that have no flag; None
    with fewer than two.
    """
    told: dict[str, Any] = {"id": entry.id, "name": entry.name, "flag": entry.flag}
    if entry.predicted is None:
        return told
    chance, label = entry.predicted.probability, entry.label
    return {
        **told,
        "predicted": entry.predicted.short,
        "probability": chance if math.isfinite(chance) else None,
        "label": label and label.index,
        "wrong": label is not None and label.index != entry.predicted.index,
        "correlation": _mean_correlation(entry.blocks[0].maps.values()) if entry.blocks else None,
    }


def _mean_correlation(maps: Iterable[Map]) -> float | None:
    fields = [found.display.ravel() for found in maps if not found.flag]
    if len(fields) < 2 or len({field.size for field in fields}) > 1:
        return None
    pairs = np.corrcoef(np.stack(fields))[np.triu_indices(len(fields), 1)]
    return round(float(np.mean(pairs)), 6) if np.isfinite(pairs).all() else None


def _together(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.stack(parts)


def _as_json(answer: ClassProbability) -> list[Any]:
    """A class as a list for JSON, which has no NaN: a missing probability is None. A value is a fourth number."""
    told = [answer.index, answer.name, answer.probability if math.isfinite(answer.probability) else None]
    return told if answer.value is None else [*told, answer.value if math.isfinite(answer.value) else None]


def _answer(told: Iterable[Any]) -> ClassProbability:
    index, name, probability, *value = told
    missing = lambda number: math.nan if number is None else number  # noqa: E731
    return ClassProbability(index, name, missing(probability), missing(value[0]) if value else None)

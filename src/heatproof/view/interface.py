"""What the viewer asks of its parts: images with their maps, pixels, and a network that answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from heatproof.panels.explained_image import ClassProbability, ExplainedImage, Method

#: Rows of a page of the list.
PAGE = 24
#: The flags of a row, by which the list is filtered: name → what it says.
CHANGED, WRONG, LOW, APART, BROKEN = "changed", "wrong", "low", "apart", "broken"
FILTERS: Mapping[str, str] = {
    CHANGED: "Prediction changes under noise",
    WRONG: "Prediction is wrong",
    LOW: "Low score",
    APART: "Methods disagree",
    BROKEN: "Could not be used",
}
#: Orders of the list: name → label.
ORDERS: Mapping[str, str] = {
    "name": "Name",
    "probability": "Probability, lowest first",
    "fragile": "Changes under the mildest noise first",
    "score": "Score, worst first",
    "apart": "Disagreement, largest first",
}


@dataclass(frozen=True)
class Wanted:
    """What the list shows: filters (all must hold), a text in the name, an order, a score, and a page from 0."""

    filters: frozenset[str] = frozenset()
    text: str = ""
    order: str = "name"
    score: str = ""
    page: int = 0


class ListRow(NamedTuple):
    """An image of the list.

    Attributes:
        key: its number in the collection. flags: names of `FILTERS`. why: why it could not be used.
        turns_at: the lowest severity of noise at which the prediction changes; 0 where it is not known to.
    """

    key: int
    name: str
    predicted: str = ""
    flags: tuple[str, ...] = ()
    why: str = ""
    turns_at: int = 0


class ListPage(NamedTuple):
    """A page of the list. `total`: images that pass the filters; `of`: all images; `number`: the page, from 0."""

    rows: tuple[ListRow, ...]
    total: int
    of: int
    number: int = 0

    @property
    def pages(self) -> int:
        """The number of pages, at least one."""
        return max(1, -(-self.total // PAGE))


@dataclass(frozen=True)
class Shown:
    """An image with its maps, as it is or under noise.

    Attributes:
        note: what is not as one would expect, in a sentence.
        wrong: whether the prediction is known to be wrong.
        decisions: method → an audit's decision on its map of this image, and the reason.
    """

    entry: ExplainedImage
    note: str = ""
    wrong: bool = False
    decisions: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class Number(NamedTuple):
    """A score of one image. `better_than`: the share of the other images of `n` that score worse; NaN if unknown."""

    metric: str
    method: str
    value: float
    flag: str = ""
    better_than: float = float("nan")
    n: int = 0
    summary: str = ""
    condition: str = ""


class Collection(Protocol):
    """Images with their maps: those of a results folder, or those that a live network explains when asked."""

    title: str
    facts: list[tuple[str, str]]
    notices: list[str]

    @property
    def methods(self) -> Sequence[Method]:
        """The methods with maps, those that are no control first."""
        ...

    @property
    def kinds(self) -> Mapping[str, Sequence[int]]:
        """Kind of noise → the severities whose maps are known, without 0."""
        ...

    @property
    def scores(self) -> Sequence[str]:
        """The metrics by which the list can be sorted."""
        ...

    @property
    def filters(self) -> Sequence[str]:
        """The filters that this collection can answer."""
        ...

    def page(self, wanted: Wanted) -> ListPage:
        """A page of the list."""
        ...

    def neighbour(self, key: int, step: int, wanted: Wanted) -> tuple[int, int] | None:
        """(key, page) of the image `step` further in the list; None beyond its ends or where it is empty."""
        ...

    def image_id(self, key: int) -> str:
        """The id from which the random numbers of an image come."""
        ...

    def name(self, key: int) -> str:
        """The name of an image for people."""
        ...

    def pixels(self, key: int) -> np.ndarray | None:
        """The image as the network sees it, uint8 `(H, W, 3)`; None where it cannot be had."""
        ...

    def shown(self, key: int, kind: str = "", severity: int = 0) -> Shown:
        """The image with its maps, as it is or under noise."""
        ...

    def numbers(self, key: int) -> Sequence[Number]:
        """All scores of the image."""
        ...


class Pixels(Protocol):
    """Opens the images that a study was run on. The room `live` has one; torch is loaded when it is first asked."""

    def of(self, model: str, dataset: str, image: str) -> np.ndarray:
        """The image as the network saw it, uint8 `(H, W, 3)`.

        Raises:
            InvalidImage: it is not there, or cannot be read.
        """
        ...

    def perturbed(self, model: str, dataset: str, image: str, kind: str, severity: int) -> np.ndarray | None:
        """The image under noise, as the study perturbed it; None for an attack, which needs the network.

        Raises:
            InvalidImage: as `of`.
        """
        ...


@dataclass(frozen=True)
class Erased:
    """What a network says of an image of which a region was erased.

    before, after: the class explained, with its probability. predicted: the prediction afterwards.
    image: uint8 `(H, W, 3)`, the region filled.
    """

    before: ClassProbability
    after: ClassProbability
    predicted: ClassProbability
    image: np.ndarray


class LiveNetwork(Protocol):
    """A network that explains images when it is asked."""

    name: str
    kinds: list[str]
    facts: list[tuple[str, str]]

    @property
    def methods(self) -> Sequence[Method]:
        """The methods, with the layers they read."""
        ...

    @property
    def images(self) -> Sequence[tuple[str, str, str]]:
        """(id, name, why it cannot be used or empty) of every image."""
        ...

    def knows(self, image: str) -> bool:
        """Whether it has the image of that id."""
        ...

    def pixels(self, image: str) -> np.ndarray:
        """The image as the network sees it, uint8 `(H, W, 3)`. InvalidImage where it cannot be read."""
        ...

    def explained(self, image: str, kind: str = "", severity: int = 0) -> ExplainedImage:
        """The image with its maps, as it is or under noise; one forward and one backward pass for most methods."""
        ...

    def erased(self, image: str, region: np.ndarray, target: int, kind: str = "", severity: int = 0) -> Erased:
        """What it says without a region, bool `(H, W)`, which is filled from the pixels around it."""
        ...


@dataclass(frozen=True)
class Appearance:
    """What is drawn of the maps, and how.

    Attributes:
        methods: their keys. classes: positions of the classes explained; all where it is empty.
        opacity: the share of the map's colour. threshold: where a map is below it, the image stands alone.
    """

    methods: Sequence[str] = ()
    classes: Sequence[int] = ()
    opacity: float = 0.5
    threshold: float = 0.0

"""Images that a network explains when they are looked at, as a collection; and results beside a network."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from heatproof.errors import InvalidImage
from heatproof.panels.explained_image import Method
from heatproof.view.interface import BROKEN, ListPage, ListRow, LiveNetwork, Number, Shown, Wanted
from heatproof.view.listing import Summary, filtered, neighbour_of, page_of, usable_filters

#: How many images, their maps included, are kept at hand.
KEPT = 16


class LiveCollection:
    """The images of a live network, without stored results."""

    def __init__(self, live: LiveNetwork):
        self._live = live
        self._every = [
            Summary(ListRow(key, name, "", (BROKEN,) if why else (), why))
            for key, (_, name, why) in enumerate(live.images)
        ]
        self._kept = lru_cache(maxsize=KEPT)(self._explained)
        self.title = f"live: {live.name}"
        self.facts = [*live.facts, ("Images", str(len(self._every)))]
        self.notices: list[str] = []

    @property
    def methods(self) -> Sequence[Method]:
        """The methods of the network."""
        return self._live.methods

    @property
    def kinds(self) -> Mapping[str, Sequence[int]]:
        """None is stored."""
        return {}

    @property
    def scores(self) -> Sequence[str]:
        """None is stored."""
        return ()

    @property
    def filters(self) -> Sequence[str]:
        """Only that for broken images, where there are any."""
        return usable_filters(self._every, [])

    def page(self, wanted: Wanted) -> ListPage:
        """A page of the list."""
        return page_of(filtered(self._every, wanted), len(self._every), wanted.page)

    def neighbour(self, key: int, step: int, wanted: Wanted) -> tuple[int, int] | None:
        """(key, page) of the image `step` further."""
        return neighbour_of(filtered(self._every, wanted), key, step)

    def image_id(self, key: int) -> str:
        """The image's id."""
        return self._live.images[key][0]

    def name(self, key: int) -> str:
        """The image's name."""
        return self._every[key].row.name

    def pixels(self, key: int) -> np.ndarray | None:
        """The image as the network sees it; None where it cannot be read, which the list then says."""
        try:
            return self._live.pixels(self.image_id(key))
        except InvalidImage as error:
            self._learn(key, str(error))
            return None

    def shown(self, key: int, kind: str = "", severity: int = 0) -> Shown:
        """The image, explained."""
        return self._kept(key, kind if severity else "", severity if kind else 0)

    def numbers(self, key: int) -> Sequence[Number]:
        """None: nothing was scored."""
        return ()

    def _explained(self, key: int, kind: str, severity: int) -> Shown:
        entry = self._live.explained(self.image_id(key), kind, severity)
        if entry.flag:
            self._learn(key, entry.flag)
        elif not kind and entry.predicted is not None:
            row = self._every[key].row
            self._every[key] = Summary(row._replace(predicted=entry.predicted.short), entry.predicted.probability)
        return Shown(entry)

    def _learn(self, key: int, why: str) -> None:
        row = self._every[key].row
        self._every[key] = Summary(row._replace(flags=(BROKEN,), why=why))

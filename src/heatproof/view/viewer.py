"""What the page answers to: one image, its maps as stored or as a live network makes them, noise, and a region."""

from collections.abc import Sequence

import numpy as np

from heatproof.errors import HeatproofError
from heatproof.panels.explained_image import ExplainedClass, ExplainedImage, Method
from heatproof.view import choices, pages
from heatproof.view.interface import Appearance, Collection, LiveNetwork, Shown, Wanted
from heatproof.view.regions import region_answer, region_of

#: How to switch on what needs a network, and what needs results.
WITHOUT_LIVE = (
    "To try other noise and to erase regions, start the viewer with the network too: heatproof view FOLDER --model …"
)
WITHOUT_RESULTS = "To see scores and filters too, name a folder of results: heatproof view FOLDER --model …"


class Viewer:
    """A collection, with or without a live network, as the page asks for it."""

    def __init__(self, collection: Collection, live: LiveNetwork | None = None):
        self.collection, self.live = collection, live
        beside = [one for one in (live.methods if live else ()) if one.key not in {m.key for m in collection.methods}]
        self.methods: list[Method] = [*collection.methods, *beside]

    @property
    def hints(self) -> list[str]:
        """How to switch on what is not there."""
        return [*([] if self.live else [WITHOUT_LIVE]), *([] if self.collection.scores else [WITHOUT_RESULTS])][:1]

    @property
    def kinds(self) -> list[str]:
        """The kinds of noise that can be shown, those stored first."""
        live = [kind for kind in (self.live.kinds if self.live else ()) if kind not in self.collection.kinds]
        return [*self.collection.kinds, *live]

    def severities(self, kind: str) -> list[int]:
        """The severities of a kind that can be shown, 0 first."""
        return choices.severities(self.collection.kinds, self.live.kinds if self.live else (), kind)

    def brush(self, key: int) -> bool:
        """Whether regions of an image can be erased."""
        return self.live is not None and self.live.knows(self.collection.image_id(key))

    def shown(self, key: int, kind: str, severity: int, wanted: Sequence[str] = ()) -> Shown:
        """An image with its maps: as they are stored, or live where some that are wanted are not."""
        stored = not severity or severity in self.collection.kinds.get(kind, ())
        found = self.collection.shown(key, kind, severity) if stored else None
        if self.live is None or not self.brush(key):
            return found or Shown(self.collection.shown(key).entry, f"{kind} {severity} is not stored for this image.")
        there = set(found.entry.blocks[0].maps) if found and found.entry.blocks else set()
        needed = {one.key for one in self.live.methods} & set(wanted)
        if found is not None and (found.entry.flag or (there and needed <= there)):
            return found
        live = self.live.explained(self.collection.image_id(key), kind, severity)
        return Shown(_joined(live, found.entry if found else None))

    def stage(self, key: int, name: str, kind: str, severity: int, look: Appearance) -> str:
        """The image and its maps as HTML."""
        shown = self.shown(key, kind, severity, look.methods)
        noise = f"{kind}, severity {severity}" if severity and kind else ""
        return pages.stage(shown, self.methods, look, key=key, name=name, brush=self.brush(key), noise=noise)

    def noise(self, key: int, kind: str, severity: int, seen: Sequence[int], methods: Sequence[str]) -> str:
        """The table of noise as HTML. `seen`: the severities that a live network was asked for."""
        if not kind:
            return ""
        steps = sorted({0, severity, *self.collection.kinds.get(kind, ()), *seen})
        if steps == [0]:
            return pages.noise([], methods, 0, kind)
        found = [(step, self.shown(key, kind if step else "", step, methods)) for step in steps]
        return pages.noise(pages.noise_lines(found[0][1], found, methods), methods, severity, kind)

    def erased(
        self,
        key: int,
        kind: str,
        severity: int,
        strokes: Sequence,
        radius: float,
        wanted: Sequence[str],
        column: int = 0,
    ) -> str:
        """What a region that was erased did, as HTML; empty without a region."""
        shown = self.shown(key, kind, severity, wanted).entry
        if shown.image is None or not shown.blocks or not strokes:
            return ""
        region = region_of(strokes, radius, (shown.image.shape[0], shown.image.shape[1]))
        block = shown.blocks[min(column, len(shown.blocks) - 1)]
        methods = [one for one in self.methods if one.key in wanted]
        if not region.any():
            return ""
        found = None
        if self.live is not None and self.brush(key):
            if region.all():
                return pages.problem("Something must be left of the image, from which the region is filled.")
            try:
                found = self.live.erased(self.collection.image_id(key), region, block.answer.index, kind, severity)
            except HeatproofError as error:
                return pages.problem(str(error))
        return pages.erased(region_answer(region, block, methods, found), found)

    def thumbnail(self, key: int) -> np.ndarray | None:
        """The image, for the list."""
        return self.collection.pixels(key)

    def first(self) -> int:
        """The image that is shown first: the first of the list that can be used."""
        page = self.collection.page(Wanted(score=next(iter(self.collection.scores), "")))
        return next((row.key for row in page.rows if not row.why), page.rows[0].key)


def _joined(live: ExplainedImage, stored: ExplainedImage | None) -> ExplainedImage:
    """A live entry, with the stored maps of the same class that the network was not asked for."""
    if stored is None or not stored.blocks or not live.blocks:
        return live
    first, other = live.blocks[0], stored.blocks[0]
    if first.answer.index != other.answer.index:
        return live
    blocks = (ExplainedClass(first.answer, {**other.maps, **first.maps}), *live.blocks[1:])
    return ExplainedImage(live.id, live.name, live.image, live.predicted, live.label, blocks, live.flag, note=live.note)

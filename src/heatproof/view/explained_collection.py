"""The folder of `heatproof explain` as a collection: one file of maps for each image."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from heatproof.archives import Archive
from heatproof.errors import StoreError
from heatproof.panels.explained_image import INDEX, ExplainedImage, Method, from_arrays, summary
from heatproof.view.interface import APART, BROKEN, LOW, WRONG, ListPage, ListRow, Number, Shown, Wanted
from heatproof.view.listing import Summary, filtered, neighbour_of, page_of, usable_filters

#: How many images, their maps included, are kept at hand.
KEPT = 16
#: Maps whose mean correlation is in the lowest share disagree.
TENTH = 0.1


class ExplainedCollection:
    """The results of `heatproof explain`.

    Raises:
        StoreError: the folder holds no maps.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        told = list(_summaries(folder))
        if not told:
            raise StoreError(f"{folder} holds no maps. Name the folder that `heatproof explain … --out` wrote.")
        self._files = [str(one["file"]) for one in told]
        self._ids = [str(one["id"]) for one in told]
        self._every = _listed(told)
        self._kept = lru_cache(maxsize=KEPT)(self._opened)
        self._details: dict[str, Any] = {}
        self.title = f"explain: {folder}"
        self.facts: list[tuple[str, str]] = []
        self.notices: list[str] = []
        self._methods = self._of_first()
        apart = [APART] if any(APART in one.row.flags for one in self._every) else []
        wrong = [WRONG] if any(one.get("label") is not None for one in told) else []
        self._filters = usable_filters(self._every, [*wrong, *apart])

    @property
    def methods(self) -> Sequence[Method]:
        """The methods whose maps are there."""
        return self._methods

    @property
    def kinds(self) -> Mapping[str, Sequence[int]]:
        """None: these maps are of the images as they are."""
        return {}

    @property
    def scores(self) -> Sequence[str]:
        """None: nothing was scored."""
        return ()

    @property
    def filters(self) -> Sequence[str]:
        """What the files can answer."""
        return [one for one in self._filters if one != LOW]

    def page(self, wanted: Wanted) -> ListPage:
        """A page of the list."""
        return page_of(filtered(self._every, wanted), len(self._every), wanted.page)

    def neighbour(self, key: int, step: int, wanted: Wanted) -> tuple[int, int] | None:
        """(key, page) of the image `step` further."""
        return neighbour_of(filtered(self._every, wanted), key, step)

    def image_id(self, key: int) -> str:
        """The image's id."""
        return self._ids[key]

    def name(self, key: int) -> str:
        """The image's name."""
        return self._every[key].row.name

    def pixels(self, key: int) -> np.ndarray | None:
        """The image as the network saw it; None where its file is damaged."""
        return self._kept(key).image

    def shown(self, key: int, kind: str = "", severity: int = 0) -> Shown:
        """The image with its maps."""
        return Shown(self._kept(key))

    def numbers(self, key: int) -> Sequence[Number]:
        """None."""
        return ()

    def _opened(self, key: int) -> ExplainedImage:
        row, name = self._every[key].row, self._files[key]
        if not name:
            return ExplainedImage(self._ids[key], row.name, flag=row.why)
        path = self._folder / "maps" / Path(name).name
        try:
            with Archive(path) as arrays:
                return from_arrays(arrays)[0]
        except Exception as error:  # a file of any content
            return ExplainedImage(self._ids[key], row.name, flag=_damaged(path, error))

    def _of_first(self) -> list[Method]:
        """The methods of the first file that can be read; its model and output become facts."""
        for name in filter(None, self._files):
            try:
                with Archive(self._folder / "maps" / Path(name).name) as arrays:
                    about = json.loads(str(arrays["about"]))
                details = about.get("details") or {}
                self.facts = [("Model", str(about.get("model", ""))), ("Images", str(len(self._every)))]
                return [_method(key, details.get(key) or {}) for key in about["methods"]]
            except Exception:
                continue
        raise StoreError(f"No file of maps in {self._folder / 'maps'} can be read. Run `heatproof explain` again.")


def _method(key: str, details: Mapping[str, Any]) -> Method:
    layers = tuple(details.get("layers") or ())
    title = key.partition("@")[0] if "@" in key and layers else key
    return Method(key, title, layers, options=str(details.get("options", "")))


def _damaged(path: Path, error: Exception) -> str:
    return f"its maps cannot be read ({path.name}: {type(error).__name__})"


def _summaries(folder: Path) -> Iterator[dict[str, Any]]:
    """What the index says of each image; without an index, what each file says."""
    index = folder / INDEX
    if index.is_file():
        try:
            yield from json.loads(index.read_text("utf-8"))
            return
        except (OSError, ValueError):
            pass
    for path in sorted((folder / "maps").glob("*.npz")):
        try:
            with Archive(path) as arrays:
                yield {**summary(from_arrays(arrays)[0]), "file": path.name}
        except Exception as error:
            yield {"id": path.stem, "name": path.stem, "file": path.name, "flag": _damaged(path, error)}


def _listed(told: Sequence[Mapping[str, Any]]) -> list[Summary]:
    """The rows of the list; maps that correlate least are called apart."""
    alike = [one.get("correlation") for one in told]
    known = [value for value in alike if value is not None]
    least = float(np.quantile(known, TENTH)) if len(known) > 1 else -math.inf
    found = []
    for key, (one, value) in enumerate(zip(told, alike, strict=True)):
        marks = ((WRONG, bool(one.get("wrong"))), (APART, value is not None and value < least),
                 (BROKEN, bool(one.get("flag"))))  # fmt: skip
        row = ListRow(key, str(one["name"]), str(one.get("predicted") or ""), tuple(m for m, on in marks if on),
                      str(one.get("flag") or ""))  # fmt: skip
        probability = one.get("probability")
        found.append(Summary(row, math.nan if probability is None else probability,
                             math.nan if value is None else 1 - value))  # fmt: skip
    return found

"""Plots of maps over images: a panel of methods, layers and classes; an image before and after a change."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from heatproof.display_names import checked_labels, method_called
from heatproof.errors import InvalidInput
from heatproof.panels.explained_image import ExplainedClass, ExplainedImage, Map, Method
from heatproof.panels.panel import brightened, over, resized
from heatproof.plot.image_grid import GridTile, image_grid, most_across
from heatproof.plot.image_reading import Rows, class_text, read_images
from heatproof.plot.paper import Width, chosen_methods, paper_of
from heatproof.plot.score_reading import leading
from heatproof.report.overlay import Look
from heatproof.statistics.score_tables import figure as number

#: Where a column ends above the others, as that of an image that could not be read.
_EMPTY = GridTile(partial(Image.new, "RGB", color="white"), (1, 1))


def panel(
    maps: Any,
    images: Any = None,
    *,
    rows: Rows = None,
    methods: str | Iterable[str] | None = None,
    scores: Any = None,
    metrics: str | Iterable[str] | None = None,
    reference: str = "",
    labels: Mapping[str, str] | None = None,
    names: bool = True,
    across: Literal["methods", "images"] = "methods",
    width: Width = "page",
    colormap: str = Look.colormap,
    alpha: float = Look.alpha,
    threshold: float = Look.threshold,
) -> Figure:
    """Images with the maps of several methods, layers and classes over them: a row for each image and class explained,
    or with `across="images"` a column.

    The image stands first. Under it are its name and the class; under a map its scores, and in orange why a map says
    nothing (it is then the plain image). A row with more maps than fit the width goes on below.

    Args:
        maps: what `heatproof.explain` or `heatproof.show` returned, the folder of `heatproof explain`, or a mapping
            from names to arrays `(N, H, W)` in [0, 1], or `(N, T, H, W)` for T classes.
        images: an array `(H, W, 3)`, `(H, W)` or `(3, H, W)` for each image, bytes or in [0, 1]; a PIL image or a
            tensor. Needed for arrays; otherwise the images as the network saw them.
        rows: which images, by position or by name; by default the first four.
        methods: those to draw, in this order; by default all.
        scores: what `heatproof.score` returned for the same images. metrics: those to write, by default the first two.
        reference: a method whose name is bold.
        labels: method → display name.
        names: write the names of images and classes.
        across: what lies side by side: `methods`, a row for each image; or `images`, a row for each method, as a slide
            wants it where there are few methods.
        width: `column` (3.25 inches), `page` (6.75 inches) or inches.
        colormap: a name of matplotlib's. alpha: the share of the map's colour over the grey image, in [0, 1].
        threshold: in [0, 1]; where a map is lower, the grey image stays as it is.

    Returns:
        A matplotlib figure of that width.

    Raises:
        InvalidInput: maps or images that cannot be drawn, an image that is not there, or another `across`.
        UnknownName: a method, a metric or a colour map that is not there, with near misses.

    Examples:
        >>> import heatproof, numpy as np
        >>> maps = {"gradcam": np.linspace(0, 1, 64).reshape(1, 8, 8), "mine": np.zeros((1, 8, 8))}
        >>> figure = heatproof.plot.panel(maps, np.zeros((1, 32, 32, 3)), width="column")
        >>> [text.get_text() for text in figure.texts][1:3]
        ['gradcam', 'mine']
    """
    if across not in ("methods", "images"):
        raise InvalidInput(f"`across` must be methods or images. Got {across!r}.")
    paper, look = paper_of(width), Look(colormap, alpha, threshold)
    entries = read_images(maps, images, rows, "panel")
    there = _methods_of(entries)
    named = checked_labels(labels or {}, there) if there else {}
    shown = chosen_methods(methods, there, labels=named) if there else []
    thick = chosen_methods(reference, there, labels=named)[0] if reference else ""
    written = _Written.of(scores, metrics)
    grid = []
    for entry in entries:
        if entry.image is None:
            grid.append([_plain(np.full((32, 32, 3), 235, np.uint8), _name(entry) if names else "", flag=entry.flag)])
            continue
        for block in entry.blocks:
            said = (_name(entry), class_text(block.answer)) if names else ()
            tiles = [GridTile(partial(resized, entry.image, entry.mask), _size(entry), "image", said)]
            for method in shown:
                if method in block.maps:
                    tile = _tile(entry, block, method, look, named.get(method, method))
                    below = (*tile.below, *written.of_map(entry.id, method))
                    tiles.append(tile._replace(below=below, bold=method == thick))
            grid.append(tiles)
    return image_grid(grid if across == "methods" else _turned(grid, most_across(paper)), paper, look)


def before_after(
    before: Any,
    after: Any = None,
    images: Any = None,
    *,
    methods: str | Iterable[str] | None = None,
    rows: Rows = None,
    labels: Mapping[str, str] | None = None,
    titles: tuple[str, str] = ("before", "after"),
    names: bool = True,
    width: Width = "column",
    colormap: str = Look.colormap,
    alpha: float = Look.alpha,
    threshold: float = Look.threshold,
) -> Figure:
    """What a change does to maps: of the image (noise, an attack), or of the method (a CAM and its RefineCAM).

    With `before` and `after`, maps of the same images in the same order: the image and its maps before, then the image
    and its maps after; it is said where the class explained has changed. With `before` alone: the image and the maps of
    two `methods`.

    Args:
        before, after: as `maps` of `heatproof.plot.panel`.
        images: as in `panel`, for arrays; with `after` a pair of these, (before, after).
        methods: with `after` one or more, by default the first; without it two, by default the first two.
        rows: which images, by position or by name; by default the first four.
        labels: method → display name.
        titles: what stands above the images before and after, such as `("clean", "JPEG")`.
        names, width, colormap, alpha, threshold: as in `panel`.

    Returns:
        A matplotlib figure of that width.

    Raises:
        InvalidInput: maps of different numbers of images, or a number of methods other than two.
        UnknownName: a method that is not there, with near misses.

    Examples:
        >>> import heatproof, numpy as np
        >>> maps = {"layercam": np.eye(8)[None], "refine:layercam": np.eye(8)[None, ::-1]}
        >>> figure = heatproof.plot.before_after(maps, images=np.ones((1, 32, 32)))
        >>> [text.get_text() for text in figure.texts][:3]
        ['image', 'layercam', 'refine:layercam']
    """
    paper, look = paper_of(width), Look(colormap, alpha, threshold)
    first, second = (images, None) if after is None else (None, None) if images is None else tuple(images)
    old = read_images(before, first, rows, "before_after")
    new = old if after is None else read_images(after, second, rows, "before_after")
    if len(old) != len(new):
        raise InvalidInput(f"`before` and `after` must be maps of the same images. Got {len(old)} and {len(new)}.")
    there = [method for method in _methods_of(old) if method in _methods_of(new)]
    shown = _changed_methods(methods, there, after is None)
    named = checked_labels(labels or {}, there)
    grid = []
    for one, other in zip(old, new, strict=True):
        for place, block in enumerate(one.blocks):
            tiles = [_plain_of(one, titles[0] if after is not None else "image", block, names)]
            tiles += [_tile(one, block, method, look, named.get(method, method)) for method in shown]
            if after is not None and place < len(other.blocks):
                changed = other.blocks[place]
                moved = changed.answer.index != block.answer.index
                tile = _plain_of(other, titles[1], changed, names)
                below = (class_text(changed.answer),) if names else ()  # the name stands under the first image
                tiles.append(tile._replace(flag="class changed" if moved else "", below=below))
                tiles += [_tile(other, changed, method, look, named.get(method, method)) for method in shown]
            grid.append(tiles)
    if not grid:
        raise InvalidInput("Expected at least one image that could be explained. Got none.")
    return image_grid(grid, paper, look)


def _turned(grid: Sequence[Sequence[GridTile]], most: int) -> list[list[GridTile]]:
    """Rows become columns, at most so many side by side, of equal numbers; a title stands before its row alone."""
    lines = math.ceil(len(grid) / most)
    wide = math.ceil(len(grid) / lines)
    turned = []
    for start in range(0, len(grid), wide):
        part = grid[start : start + wide]
        for place in range(max(map(len, part))):
            tiles = [row[place] if place < len(row) else _EMPTY for row in part]
            title = next(tile.title for tile in tiles if tile.title)
            turned.append([tile._replace(title="" if i else title) for i, tile in enumerate(tiles)])
    return turned


def _changed_methods(methods: Any, there: list[str], alone: bool) -> list[str]:
    """The methods of `before_after`, as many as it draws."""
    if not there:
        raise InvalidInput("`before` and `after` must have a method in common. Got none.")
    found = chosen_methods(methods, there) if methods is not None else there[: 2 if alone else 1]
    if alone and len(found) != 2:
        raise InvalidInput(f"Maps alone are compared between two `methods`. Got {len(found)}: {', '.join(found)}.")
    return found


def _methods_of(entries: list[ExplainedImage]) -> list[str]:
    return list(dict.fromkeys(method for entry in entries for block in entry.blocks for method in block.maps))


def _tile(entry: ExplainedImage, block: ExplainedClass, method: str, look: Look, title: str) -> GridTile:
    """A map over its image; a degenerate one as the plain image with the reason."""
    shown = block.maps[method]
    draw = partial(_image, entry) if shown.flag else partial(_overlaid, entry, method, shown, look)
    bright = brightened(Method(method, method), shown)
    return GridTile(draw, _size(entry), title, (bright,) if bright else (), shown.flag)


def _image(entry: ExplainedImage, size: tuple[int, int]) -> Image.Image:
    assert entry.image is not None
    return resized(entry.image, entry.mask, size)


def _overlaid(entry: ExplainedImage, method: str, shown: Map, look: Look, size: tuple[int, int]) -> Image.Image:
    assert entry.image is not None
    return over(resized(entry.image, None, size), Method(method, method), shown, look, entry.mask)


def _plain_of(entry: ExplainedImage, title: str, block: ExplainedClass, names: bool) -> GridTile:
    said = (_name(entry), class_text(block.answer)) if names else ()
    return GridTile(partial(_image, entry), _size(entry), title, said)


def _plain(pixels: np.ndarray, name: str, flag: str) -> GridTile:
    return GridTile(partial(resized, pixels, None), (pixels.shape[1], pixels.shape[0]), "image", (name,), flag)


def _size(entry: ExplainedImage) -> tuple[int, int]:
    assert entry.image is not None
    return entry.image.shape[1], entry.image.shape[0]


def _name(entry: ExplainedImage) -> str:
    """The last part of a path."""
    return " ".join(entry.name.replace("\\", "/").rpartition("/")[2].split())


class _Written:
    """The scores that stand under maps."""

    def __init__(self, values: Mapping[tuple[str, str, str], float], metrics: list[str]):
        self.values, self.metrics = values, metrics

    @classmethod
    def of(cls, scores: Any, metrics: str | Iterable[str] | None) -> "_Written":
        """Of `heatproof.score`; InvalidInput for anything else, UnknownName for a metric that is not there."""
        if scores is None:
            if metrics is not None:
                raise InvalidInput("`metrics` are written from `scores`. Give what heatproof.score returned.")
            return cls({}, [])
        if not hasattr(scores, "rows"):
            raise InvalidInput(f"`scores` must be what heatproof.score returned. Got {type(scores).__name__}.")
        given = [metrics] if isinstance(metrics, str) else metrics
        wanted = leading(scores.metrics, scores.facts)[:2] if given is None else [
            method_called(str(name), scores.metrics, "metric of these scores") for name in given
        ]  # fmt: skip
        return cls({(row.image, row.method, row.metric): row.value for row in scores.rows}, wanted)

    def of_map(self, image: str, method: str) -> tuple[str, ...]:
        """`arcc 0.712` for each metric that has a row."""
        found = ((metric, self.values.get((image, method, metric))) for metric in self.metrics)
        return tuple(f"{metric} {number(value)}" for metric, value in found if value is not None)

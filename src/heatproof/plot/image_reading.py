"""Images with maps as the plots read them: from `heatproof.explain`, `heatproof.show`, a folder of maps, or arrays."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from heatproof.archives import Archive
from heatproof.errors import InvalidInput
from heatproof.panels.explained_image import ClassProbability, ExplainedClass, ExplainedImage, Map, from_arrays
from heatproof.plot.paper import refused
from heatproof.plot.stored_results import folder_of

#: Without `rows`, so many images are drawn.
FIRST = 4
#: The id of an image without a name: a hash of its content, which tells a reader nothing.
_HASH = re.compile(r"[0-9a-f]{16}")

Rows = int | str | Sequence[int | str] | None


def read_images(maps: Any, images: Any, rows: Rows, function: str) -> list[ExplainedImage]:
    """The images that `rows` names, by default the first four, each with its maps by class and method.

    Raises:
        InvalidInput: no maps, a folder without any, no images to draw them over, or a row that is not there.
    """
    if hasattr(maps, "entries") and hasattr(maps, "not_applicable"):
        entries = list(maps.entries)
        return [entries[row] for row in chosen_rows(rows, [one.id for one in entries])]
    if isinstance(maps, Mapping) and len(maps):
        return _of_maps(maps, images, rows)
    folder = folder_of(maps)
    if folder is None:
        raise refused(
            function, maps, "the maps of heatproof.explain, the gallery of heatproof.show, the folder of `heatproof "
            "explain`, or a mapping from a name to maps (N, H, W)",
        )  # fmt: skip
    files = sorted((folder / "maps").glob("*.npz"))
    if not files:
        raise InvalidInput(f"Expected a folder of `heatproof explain --out`, with maps/*.npz. Got {str(folder)!r}.")
    stems = [file.stem for file in files]
    return [_stored(files[row]) for row in chosen_rows(rows, stems)]


def _stored(file: Any) -> ExplainedImage:
    with Archive(file) as arrays:
        return from_arrays(arrays)[0]


def chosen_rows(rows: Rows, ids: Sequence[str]) -> list[int]:
    """The positions of images named by position or by name, by default of the first four.

    Raises:
        InvalidInput: one that is not there.
    """
    if rows is None:
        return list(range(min(FIRST, len(ids))))
    found = []
    for row in [rows] if isinstance(rows, int | str) else rows:
        if isinstance(row, str) and row in ids:
            found.append(list(ids).index(row))
        elif not isinstance(row, str) and -len(ids) <= int(row) < len(ids):
            found.append(int(row) % len(ids))
        else:
            raise InvalidInput(f"`rows` must name images by position, 0 … {len(ids) - 1}, or by name. Got {row!r}.")
    if not found:
        raise InvalidInput("`rows` must name at least one image. Got none.")
    return found


def _of_maps(maps: Mapping[str, Any], images: Any, rows: Rows) -> list[ExplainedImage]:
    """Of `heatproof.explain`, or of a mapping from names to arrays."""
    arrays = {str(name): _checked(str(name), array) for name, array in maps.items()}
    count = len(next(iter(arrays.values())))
    if uneven := [name for name, array in arrays.items() if len(array) != count]:
        raise InvalidInput(
            f"All maps must be of the same {count} images. Got {len(arrays[uneven[0]])} of {uneven[0]!r}."
        )
    explained = hasattr(maps, "target") and hasattr(maps, "flags")
    if images is None and not hasattr(maps, "image"):
        raise InvalidInput("Maps in arrays are drawn over images. Give `images`, one for each map.")
    if images is not None and len(images) != count:
        raise InvalidInput(f"Expected one image for each of {count} maps. Got {len(images)}.")
    ids = list(maps.ids) if explained else [str(row) for row in range(count)]  # type: ignore[attr-defined]
    return [_entry(maps, arrays, images, row, ids[row], explained) for row in chosen_rows(rows, ids)]


def _checked(name: str, array: Any) -> np.ndarray:
    found = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array, np.float32)
    if found.ndim not in (3, 4):
        raise InvalidInput(f"The maps of {name!r} must be (N, H, W), or (N, T, H, W) for T classes. Got {found.shape}.")
    known = found[np.isfinite(found)]
    if known.size and not (known.min() >= 0 and known.max() <= 1 + 1e-6):
        raise InvalidInput(
            f"The maps of {name!r} must lie in [0, 1], as heatproof.explain gives them without `raw`. Got values from "
            f"{known.min():.3g} to {known.max():.3g}."
        )
    return found


def _entry(
    maps: Any, arrays: Mapping[str, np.ndarray], images: Any, row: int, id: str, explained: bool
) -> ExplainedImage:
    flags = (lambda name: maps.flags[name][row]) if explained else (lambda name: "")
    if images is None and explained and maps.image_flags[row] and not _readable(maps, row):
        return ExplainedImage(id, id, flag=maps.image_flags[row])
    image = maps.image(row) if images is None else as_pixels(images[row])
    targets = np.atleast_1d(np.asarray(maps.target[row].cpu())).tolist() if explained else [None]
    several = next(iter(arrays.values())).ndim == 4
    if several and not explained:
        targets = [None] * next(iter(arrays.values())).shape[1]
    blocks = []
    for column, target in enumerate(targets):
        drawn = {}
        for name, array in arrays.items():
            flag = flags(name)
            display = array[row, column] if several else array[row]
            text = str(flag[column] if isinstance(flag, list) else flag) or _degenerate(display)
            spatial = not explained or name in maps.layers
            drawn[name] = Map(display[:1, :1] if spatial else display, display, text, bool(text))
        blocks.append(ExplainedClass(_answer(maps, target), drawn))
    name = f"image {row + 1}" if _HASH.fullmatch(id) or not explained else id
    return ExplainedImage(id, name, image, None, None, tuple(blocks))


def _readable(maps: Any, row: int) -> bool:
    return int(np.atleast_1d(np.asarray(maps.target[row].cpu()))[0]) >= 0


def _degenerate(display: np.ndarray) -> str:
    """Why a map says nothing, of maps that carry no flags."""
    if not np.isfinite(display).all():
        return "not finite"
    return "constant" if display.size and display.min() == display.max() else ""


def _answer(maps: Any, target: int | None) -> ClassProbability:
    if target is None:
        return ClassProbability(-1)
    names = getattr(maps, "classes", None)
    return ClassProbability(int(target), str(names[target]) if names and 0 <= target < len(names) else "")


def class_text(answer: ClassProbability) -> str:
    """The class explained: the first of its names, or its index; empty where it is not known."""
    return answer.name.split(",")[0].strip() or (f"class {answer.index}" if answer.index >= 0 else "")


def as_pixels(image: Any) -> np.ndarray:
    """An image in any form as uint8 `(H, W, 3)`.

    Raises:
        InvalidInput: another shape, or floating-point values outside [0, 1].
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    found = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if found.ndim == 3 and found.shape[0] in (1, 3) and found.shape[-1] not in (1, 3, 4):
        found = found.transpose(1, 2, 0)
    found = found[..., None] if found.ndim == 2 else found
    if found.ndim != 3 or found.shape[-1] not in (1, 3, 4):
        raise InvalidInput(f"An image must be (H, W), (H, W, 3) or (3, H, W). Got {found.shape}.")
    if found.dtype != np.uint8:
        if not (found.min() >= 0 and found.max() <= 1):
            raise InvalidInput(
                f"An image must be bytes, or numbers in [0, 1]. Got values from {found.min():.3g} to {found.max():.3g}."
            )
        found = np.rint(255 * found).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(found[..., :3], (*found.shape[:2], 3)))

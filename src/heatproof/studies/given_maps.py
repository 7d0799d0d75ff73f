"""Checks of maps made beforehand and of masks, before any work."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from heatproof.attributions.stored import Stored
from heatproof.data.image_paths import names_for
from heatproof.errors import InvalidImage, InvalidInput, warn
from heatproof.studies.datasets import images_of
from heatproof.studies.jobs import Dataset
from heatproof.studies.measures import Measures, needs_mask


def warn_without_masks(measures: Measures, datasets: Sequence[Dataset]) -> None:
    """Warns of metrics that will have no values because there are no masks."""
    needing = [request.key for measure, request in measures.taken if needs_mask(request) and not measure.optional]
    if needing and not any(dataset.masked for dataset in datasets):
        warn(f"No masks, so {', '.join(needing)} will have no values. --masks says where the objects are.")


def check_given(dataset: Dataset) -> None:
    """Checks that maps made beforehand belong to the images of a dataset; warns if some images have none.

    Raises:
        InvalidInput: one array with a number of maps other than the number of images, or no map of any image.
    """
    ids, label = list(dataset.images.ids), dataset.settings.label
    for maps in dataset.given:
        if maps.stack is not None:
            _check_count(maps, dataset, len(ids))
            continue
        missing = [identity for identity in ids if not _there(maps, identity)]
        if len(missing) == len(ids):
            raise InvalidInput(
                f"{maps.name!r} must hold maps by the names of the images, such as {next(names_for(ids[0]))!r} of "
                f"{label}. {_inside(maps)}."
            )
        if missing:
            more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
            warn(f"{maps.name} holds no map of {missing[0]!r}{more}.")


def _check_count(maps: Stored, dataset: Dataset, count: int) -> None:
    """Checks that one array has as many maps as there are images, with or without the limit."""
    stack = maps.stack
    whole = count if len(stack) == count else len(images_of(dataset.settings, None).ids)
    if len(stack) not in (count, whole):
        raise InvalidInput(
            f"{maps.name!r} must hold one map for each image of {dataset.settings.label}, in their order. "
            f"Got {len(stack)} maps {tuple(stack.shape)} for {whole} images. "
            "Name maps by their images in an .npz, and none needs to be there."
        )


def _there(maps: Stored, identity: str) -> bool:
    try:
        return maps.holds(identity)
    except InvalidImage:
        return True  # there, and flagged when it is scored


def _inside(maps: Stored) -> str:
    names = sorted(maps.names())
    if not names:
        return "It holds no maps"
    return f"It holds {', '.join(map(repr, names[:3]))}{', …' if len(names) > 3 else ''}"


def fingerprint(path: Path) -> str:
    """A hash of a file, or of the names, sizes and first bytes of a folder's files."""
    digest = hashlib.blake2b(digest_size=16)
    for file in [path] if path.is_file() else _files(path):
        digest.update(repr((file.relative_to(path).as_posix(), file.stat().st_size)).encode())
        with file.open("rb") as opened:
            if path.is_dir():
                digest.update(opened.read(64 * 1024))
                continue
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))

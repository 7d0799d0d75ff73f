"""Checks of maps made beforehand and of masks, before any work."""

from collections.abc import Sequence

from heatproof.attributions.stored import Stored
from heatproof.data.image_paths import names_for
from heatproof.errors import InvalidImage, InvalidInput, InvalidStudy, warn
from heatproof.studies.jobs import Dataset
from heatproof.studies.measures import Measures, needs_mask


def warn_of_missing(measures: Measures, datasets: Sequence[Dataset]) -> None:
    """Warns of metrics without values because there are no masks, and of those left out because there is no mosaic.

    Raises:
        InvalidStudy: a segmenter that cuts at the masks, and a dataset without.
    """
    for measure, request in measures.taken:
        for name in (one.settings.label for one in datasets if not one.masked):
            if request.paired and needs_mask(request) and not measure.optional:
                raise InvalidStudy(
                    f"The segmenter {measure.segmenter!r} cuts at the object, so it needs masks. Got none for {name}: "
                    "give --masks, or take another segmenter."
                )
    of_mosaics = [request.key for _, request in measures.taken if request.of_mosaics]
    without = [dataset.settings.label for dataset in datasets if not dataset.mosaics]
    if of_mosaics and without:
        warn(f"{', '.join(of_mosaics)} is left out for {', '.join(without)}: there are no mosaics.")
    needing = [
        request.key
        for measure, request in measures.taken
        if needs_mask(request) and not measure.optional and not request.entry.traits.get("foreign")  # it may do without
    ]
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
    """Checks that one array has as many maps as the set has images, or as a limit takes of its beginning."""
    stack, whole = maps.stack, len(dataset.order) or count
    first = dataset.images.ids == list(dataset.order[:count] or dataset.images.ids)
    if len(stack) == whole or (len(stack) == count and first):
        return
    got = f"Got {len(stack)} maps {tuple(stack.shape)} for {whole} images. "
    if len(stack) == count:
        got += f"The limit takes {count} that are not the first: give all {whole}, or set --sampling first. "
    raise InvalidInput(
        f"{maps.name!r} must hold one map for each image of {dataset.settings.label}, in their order. {got}"
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

"""The pictures of a study's datasets, not opened yet; files named one by one are a dataset too."""

from dataclasses import replace
from pathlib import PurePosixPath

from heatproof.data import PictureFolder, Pictures, load_pictures, pictures_from_list
from heatproof.data.files import printable
from heatproof.data.labels import read_labels
from heatproof.errors import InvalidInput
from heatproof.studies.settings import DatasetPlan, Plan


def opened(plan: Plan) -> tuple[Pictures, ...]:
    """The pictures of every dataset, the first `limit` of each."""
    return tuple(loaded(dataset, plan.limit) for dataset in plan.datasets)


def loaded(dataset: DatasetPlan, limit: int | None) -> Pictures:
    """The pictures of one dataset."""
    if not isinstance(dataset.images, str):
        return listed_files(dataset.images, dataset.labels, limit, dataset.label)
    return load_pictures(dataset.images, dataset.labels, dataset.root, limit, dataset.download, name=dataset.label)


def listed_files(paths: tuple[str, ...], labels: str | None, limit: int | None, name: str) -> PictureFolder:
    """These files in this order; a label is found by the path as it ends."""
    found = pictures_from_list(paths, name)
    known = read_labels(labels) if labels else {}
    classes = [_ending(identity, known) for identity in found.ids]
    if known and not any(label is not None for label in classes):
        raise InvalidInput(
            f"`labels` must name the pictures. {printable(labels or '')} names {next(iter(known))!r}, and no picture: "
            f"the first is {found.ids[0]!r}."
        )
    return replace(found, ids=found.ids[:limit], paths=found.paths[:limit], labels=classes[:limit])


def _ending(identity: str, known: dict[str, int]) -> int | None:
    parts = PurePosixPath(identity).parts
    endings = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((known[ending] for ending in endings if ending in known), None)

"""The images of a study's datasets, not opened yet; a list of files is a dataset too."""

from dataclasses import replace

from heatproof.data import ImageFolder, Images, images_from_list, load_images
from heatproof.data.labels import labels_by_ending
from heatproof.studies.jobs import Dataset
from heatproof.studies.settings import DatasetPlan, Plan


def open_datasets(plan: Plan) -> tuple[Dataset, ...]:
    """Every dataset of a study, the first `limit` images of each."""
    return tuple(Dataset(one, images_of(one, plan.limit), plan.given_maps) for one in plan.datasets)


def images_of(dataset: DatasetPlan, limit: int | None) -> Images:
    """The images of one dataset."""
    if not isinstance(dataset.images, str):
        return listed_files(dataset.images, dataset.labels, limit, dataset.label)
    return load_images(dataset.images, dataset.labels, dataset.root, limit, dataset.download, name=dataset.label)


def listed_files(paths: tuple[str, ...], labels: str | None, limit: int | None, name: str) -> ImageFolder:
    """These files in this order; labels are matched by the end of the path (`labels_by_ending`)."""
    found = images_from_list(paths, name)
    classes = labels_by_ending(found.ids, labels) if labels else found.labels
    return replace(found, ids=found.ids[:limit], paths=found.paths[:limit], labels=classes[:limit])

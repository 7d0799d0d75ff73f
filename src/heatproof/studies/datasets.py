"""The images of a study's datasets, not opened yet; a list of files is a dataset too."""

from heatproof.data import Images, images_from_list, load_images
from heatproof.data.folder import labelled_from_file
from heatproof.data.image_paths import matching_files
from heatproof.data.sampling import limited, sample_text, sampled
from heatproof.studies.jobs import Dataset
from heatproof.studies.maps import KEPT
from heatproof.studies.settings import DatasetPlan, Plan

#: Images of this process that a plan names by `given:NAME`; workers in other processes do not have them.
GIVEN_IMAGES: dict[str, Images] = {}


def open_datasets(plan: Plan) -> tuple[Dataset, ...]:
    """Every dataset of a study, with the images of each that its limit takes."""
    return tuple(_opened(one, plan) for one in plan.datasets)


def _opened(settings: DatasetPlan, plan: Plan) -> Dataset:
    whole = images_of(settings)
    images = limited(whole, plan.limit, plan.seed, plan.sampling)
    return Dataset(
        settings,
        images,
        plan.given_maps,
        order=tuple(whole.ids) if plan.given_maps else (),
        sample=sample_text(whole.labels, images.labels, plan.seed, plan.sampling),
        shown=frozenset(sampled(images.ids, images.labels, KEPT, plan.seed, plan.sampling)),
    )


def images_of(dataset: DatasetPlan) -> Images:
    """All images of one dataset; of a list of files, labels are matched by the end of the path (`labels_by_ending`)."""
    if isinstance(dataset.images, str) and dataset.images.startswith("given:"):
        return GIVEN_IMAGES[dataset.images.removeprefix("given:")]
    files = dataset.images
    if isinstance(files, str):
        files = matching_files(files)
    if isinstance(dataset.images, str) and not files:
        return load_images(dataset.images, dataset.labels, dataset.root, None, dataset.download, name=dataset.label)
    found = images_from_list(files, dataset.label)
    return labelled_from_file(found, dataset.labels, several=True) if dataset.labels else found

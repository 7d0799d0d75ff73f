"""Names of classes in a study: those of class folders for a model that has none, and which class a label stands for."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from heatproof.data.class_matching import further_labels, label_match, names_for
from heatproof.errors import warn
from heatproof.studies.jobs import Dataset
from heatproof.studies.loading import StudyModels
from heatproof.studies.settings import Plan


class Named(Protocol):
    """A model of a study that was loaded once."""

    @property
    def label(self) -> str: ...
    @property
    def class_names(self) -> list[str] | None: ...
    @property
    def named_by_images(self) -> bool: ...


def with_class_names(plan: Plan, datasets: Sequence[Dataset], models: StudyModels) -> Plan:
    """The plan with the names that the sets of images give to the classes of models without names."""
    for index in range(len(plan.models)):
        model = models(index)
        names = next((names for one in datasets if (names := names_for(model, one.images))), None)
        if names:
            named = list(plan.models)
            named[index] = named[index].model_copy(update={"classes": tuple(names)})
            plan = plan.model_copy(update={"models": tuple(named)})
            models.adopt(index, names, plan)
    return plan


def facts_about_classes(plan: Plan, datasets: Sequence[Dataset], checked: Sequence[Named]) -> dict[str, Any]:
    """What `study.json` holds about classes: names by model, how labels were matched, and labels that were moved; the
    class of all images, where they have one label.

    Warns where the names of a set of images are not those of the model.
    """
    how: dict[str, str] = {}
    moved: dict[str, Mapping[int, int]] = {}
    alone: dict[str, int | None] = {}
    for dataset in datasets:
        for model in checked:
            match = label_match(dataset.images, model.class_names, model.named_by_images)
            where = f"{model.label} on {dataset.settings.label}"
            if match.how:
                how[where] = match.how
            if match.classes:
                moved[where] = dict(match.classes)
            if match.warning:
                warn(match.warning)
            labels = set(map(match, dataset.images.labels))
            if len(labels) == 1 and None not in labels and not further_labels(dataset.images):
                alone[where] = labels.pop()
    facts: dict[str, Any] = {
        "class_names": {model.label: model.class_names for model in checked if model.class_names},
        "labels_matched": how,
        "labelled_class": alone,
    }
    return {name: value for name, value in facts.items() if value} | ({"label_classes": moved} if moved else {})

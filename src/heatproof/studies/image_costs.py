"""The passes of one image of a study under each of its models, counted before any work."""

from collections.abc import Sequence
from dataclasses import replace

from heatproof.errors import warn
from heatproof.studies.checked_models import Checked
from heatproof.studies.conditions import Condition
from heatproof.studies.cost import Explained, Passes, passes_of_image
from heatproof.studies.explained_classes import share_with_class
from heatproof.studies.jobs import Dataset, all_requests
from heatproof.studies.measures import Measures
from heatproof.studies.part_cost import part_samples
from heatproof.studies.settings import Plan
from heatproof.studies.study import Study


def image_costs(
    study: Study, plan: Plan, measures: Measures, datasets: Sequence[Dataset], checked: Sequence[Checked]
) -> list[Passes]:
    """What an image of these datasets costs under each model, counted on a toy network; empty where that fails."""
    masked, mosaics = any(one.masked for one in datasets), any(one.mosaics for one in datasets)
    first, *others = study.all_conditions(plan)
    parts = next((part_samples(one.images) for one in datasets if one.parted), [])

    def passes(explained: Explained, conditions: Sequence[Condition]) -> Passes:
        shares = [share_with_class(one.target, datasets) for one in conditions]
        return passes_of_image(explained, measures, conditions, masked, mosaics, parts, shares)

    found = []
    for model in checked:
        able = [one for one in all_requests(plan) if one.key not in model.refused]
        explained = Explained(able, model.channels, model.linear, model.layers_read)
        try:
            refused = {one.name: model.sizes.refused_under(one) for one in others}
            needed = passes(explained, [first, *(one for one in others if refused[one.name] == frozenset())])
            for names in {one for one in refused.values() if one}:  # some methods have no map of images of that size
                fewer = replace(explained, requests=[one for one in able if one.key not in names])
                alike = [one for one in others if refused[one.name] == names]
                needed += passes(fewer, [first, *alike]) + passes(fewer, [first]) * -1
            found.append(needed)
        except Exception as error:  # what fails on a small image may well run on those of the study
            warn(f"The passes that an image needs could not be counted: {type(error).__name__}.")
            return []
    return found

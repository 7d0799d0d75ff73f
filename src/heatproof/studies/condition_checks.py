"""Checks of a study's conditions before any work, and all that decides the numbers of one, as text."""

from collections.abc import Sequence

import torch

from heatproof import targets
from heatproof.errors import InvalidInput, InvalidStudy, UnknownName
from heatproof.files import file_fingerprint
from heatproof.perturbations import PERTURBATIONS
from heatproof.studies.changed_images import strength_of
from heatproof.studies.conditions import RANDOMISED, Condition
from heatproof.transformations import transformed


def check_conditions(conditions: Sequence[Condition]) -> None:
    """Checks every name in the conditions.

    Raises:
        UnknownName: a perturbation, a transformation or an option that does not exist.
        InvalidInput: a severity out of range, a target that is no rule and no class, a checkpoint that is
            not there.
    """
    for condition in conditions:
        if condition.perturbation:
            PERTURBATIONS.parse(condition.perturbation)
        if condition.perturbation and condition.flip_rate is None:
            strength_of(condition)
        if condition.transformation:
            check_transformation(condition.transformation)
        if condition.target:
            targets.refuse_several(condition.target)
        if condition.checkpoint and not condition.checkpoint.is_file():
            raise InvalidStudy(
                f"A model's state must be {RANDOMISED!r} or a checkpoint. There is no {condition.checkpoint}."
            )


def check_transformation(spelling: str) -> None:
    """Applies a transformation to a small grey image, as its options are checked where it is applied.

    Raises:
        UnknownName, InvalidInput: about its name or its options. Any other error on that image is ignored.
    """
    grey = torch.full((1, 3, 8, 8), 0.5)
    try:
        transformed(spelling, grey, [""], partners=lambda ids, generators: grey)
    except (UnknownName, InvalidInput):
        raise
    except Exception:  # a transformation of the user's own may be for other images
        return


def fingerprint_of(condition: Condition) -> str:
    """A condition with all that decides its numbers, the contents of a checkpoint included."""
    level = condition.level if condition.flip_rate is None else condition.flip_rate
    weights = f" {file_fingerprint(condition.checkpoint)}" if condition.checkpoint else ""
    return f"{condition.name or 'reference'}{f' {level:g}' if condition.perturbation else ''}{weights}"

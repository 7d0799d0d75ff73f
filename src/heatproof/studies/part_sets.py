"""The images of a study by their parts, matched with the classes of a network."""

from collections.abc import Sequence
from typing import Any

from heatproof.data.class_matching import label_match
from heatproof.data.part_images import PartImage, part_image, part_table
from heatproof.engine import PartImages
from heatproof.errors import InvalidInput


def images_by_parts(images: Any, indices: Sequence[int], classes: Sequence[str] | None) -> PartImages:
    """These images of a set that is made of parts, with their parts.

    classes: the names of the network's classes; the classes of the set are matched with them as labels are.

    Raises:
        InvalidInput: a class of the set that the network has not.
    """
    table = part_table(images)
    assert table is not None
    match = label_match(images, classes)
    outputs = [match(label) for label in range(len(table.classes))]
    count = len(classes) if classes is not None else len(outputs)
    if any(one is None or one >= count for one in outputs):
        raise InvalidInput(
            f"The network must have the {len(outputs)} classes of {images.name}. Got {count} classes, to which they "
            "cannot be matched. Take a network trained on these images."
        )
    found: list[PartImage | None] = [part_image(images, index) for index in indices]
    return PartImages(
        [one for one in found if one is not None], table, [int(one) for one in outputs if one is not None]
    )

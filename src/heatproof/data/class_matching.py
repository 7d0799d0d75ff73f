"""Which class of a network a label of a set of images stands for: by the names of the classes where both have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heatproof.class_names import class_index, class_text, matched, unmatched
from heatproof.data.folder import ImageFolder
from heatproof.data.images import Images
from heatproof.errors import InvalidInput


@dataclass(frozen=True)
class LabelMatch:
    """How labels become classes of a network.

    Attributes:
        classes: label → class, for the labels that stand for another class than their number.
        by_name: whether the classes are the network's: their names are, or the user gave its indices.
        how: for people, of a folder or a CSV; empty where there are no names to compare.
        warning: what may be wrong, for people; empty where nothing is.
    """

    classes: Mapping[int, int] = field(default_factory=dict)
    by_name: bool = False
    how: str = ""
    warning: str = ""

    def __call__(self, label: int | None) -> int | None:
        """The class that a label stands for."""
        return label if label is None else self.classes.get(label, label)


#: How labels became classes, for people.
BY_NAME = "matched with the model by the names of the classes"
ALPHABETICAL = "class indices by the alphabetical order of the names"


def label_match(images: Images, names: Sequence[str] | None, adopted: bool = False) -> LabelMatch:
    """The match of the labels of some images with the classes of a network.

    Labels that are positions of names (subfolders in alphabetical order, a CSV of names, the classes of a dataset)
    become the classes of those names where every name is one of the network's. Otherwise they stay as they are.

    Args:
        names: of the network's classes; None where they are not known.
        adopted: the network had no names, and `names` are those of the images (`names_for`).

    Raises:
        InvalidInput: a CSV that gives both index and name, where the network has that name at another index; a CSV of
            names alone for a network without names.
        InvalidTarget: a CSV of names, one of which is no class of the network.
    """
    own, source = images.class_names, source_of(images)
    if not own or all(label is None for label in images.labels):
        return LabelMatch()
    given = source.labels_by if isinstance(source, ImageFolder) else None
    if given == "index":
        _refuse_contradiction(own, names or ())
        return LabelMatch(by_name=True)
    if given == "name" and not names:
        raise InvalidInput(
            f"`labels` gives names of {len(own)} classes, and the model has no names, or another number of outputs. "
            "Set `classes` (--classes FILE), or give `class_index`."
        )
    pairs = matched(own, names or ()) if not adopted else None
    if pairs is not None:
        moved = {label: index for label, index in pairs.items() if label != index}
        return LabelMatch(moved, True, "" if given is None else BY_NAME)
    if given is None:
        return LabelMatch()
    return LabelMatch(how=ALPHABETICAL, warning="" if adopted or not names else _warning(images, own, names, given))


def _warning(images: Images, own: Sequence[str], names: Sequence[str], given: str) -> str:
    strange = unmatched(own, names)
    if given == "name" and strange:
        class_index(strange[0], names)  # an error, with the nearest names
    what = ", ".join(map(repr, strange[:3])) + (", …" if len(strange) > 3 else "") if strange else "two of one class"
    first = ", ".join(class_text(own, index) for index in range(min(2, len(own))))
    return (
        f"Labels of {images.name} are {ALPHABETICAL}, such as {first}: not all names are those of the model ({what}). "
        "If its classes have another order, labels are wrong."
    )


def source_of(images: Any) -> Any:
    """The source that a subset, or a mosaic, takes its images from."""
    while hasattr(images, "source"):
        images = images.source
    return images


def _refuse_contradiction(own: Sequence[str], names: Sequence[str]) -> None:
    for index, name in enumerate(own):
        found = matched([name], names) or {0: index}
        if found[0] != index:
            raise InvalidInput(
                f"`labels` must give the model's own indices. There {name!r} is class {index}; in the model that is "
                f"{class_text(names, index)}, and {name!r} is class {found[0]}. Correct `class_index`, or leave the "
                "column out: images are then matched by `name`."
            )


def names_for(model: Any, images: Images) -> list[str] | None:
    """The names that a set of images gives to the classes of a `Model` without names; None where it gives none.

    A folder for each class, or a CSV of names, gives them where there are as many as the network has outputs; a CSV
    with indices wherever they are among the outputs. Classes that a CSV does not name have an empty name.
    """
    names, source = images.class_names, source_of(images)
    if model.classes or not names or not isinstance(source, ImageFolder):
        return None
    if source.labels_by == "index" and len(names) <= model.outputs:
        return [*names, *[""] * (model.outputs - len(names))]
    return list(names) if len(names) == model.outputs else None

"""Which class of a network a label of a set of images stands for: by the names of the classes where both have them.

The one rule for folders, CSVs, Datasets and all other sources. Where every name of the images is one of the network's,
the names decide. Where they are not, and some name is the network's at another index, or the numbers of names differ,
the indices of the images are known to be others than the network's: all labels are left out, with a warning. Where
nothing speaks against it, labels are taken as the network's indices, with a warning. A negative label, such as -1,
means no label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heatproof.class_names import class_index, class_text, matched, places, unmatched
from heatproof.data.folder import ImageFolder
from heatproof.data.images import Images
from heatproof.data.items import class_names_of
from heatproof.errors import InvalidInput, InvalidTarget, warn


@dataclass(frozen=True)
class LabelMatch:
    """How labels become classes of a network.

    Attributes:
        classes: label → class, for the labels that stand for another class than their number.
        by_name: whether the classes are the network's: their names are, or the user gave its indices.
        how: for people, of a folder or a CSV; empty where there are no names to compare.
        warning: what may be wrong, for people; empty where nothing is.
        left_out: the labels are not the network's classes, so no image has a label.
        foreign: they are left out, and no name is one of the network's: the folders may be no classes at all. A caller
            that does not need labels may then say nothing.
    """

    classes: Mapping[int, int] = field(default_factory=dict)
    by_name: bool = False
    how: str = ""
    warning: str = ""
    left_out: bool = False
    foreign: bool = False

    def __call__(self, label: int | None) -> int | None:
        """The class that a label stands for; None for no label, as a negative one."""
        return None if label is None or label < 0 or self.left_out else self.classes.get(label, label)


#: How labels became classes, for people.
BY_NAME = "matched with the model by the names of the classes"
ALPHABETICAL = "class indices by the alphabetical order of the names"
IN_ORDER = "class indices in the order of the dataset"


def label_match(images: Images, names: Sequence[str] | None, adopted: bool = False) -> LabelMatch:
    """The match of the labels of some images with the classes of a network.

    Labels that are positions of names (subfolders in alphabetical order, a CSV of names, the classes of a dataset)
    become the classes of those names where every name is one of the network's. Otherwise the head of this file says
    what they become.

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
    return _name_match(own, names, given, images.name, adopted)


def source_match(source: Any, names: Sequence[str] | None) -> LabelMatch:
    """The match of the labels of any source of images (`data.items`), and its warning.

    Raises:
        InvalidInput, InvalidTarget: as `label_match`.
    """
    own = class_names_of(source)
    if isinstance(source, Images):
        match = label_match(source, names)
    else:
        match = _name_match(own, names, None, "the images", False) if own else LabelMatch()
    if match.warning:
        warn(match.warning)
    return match


def class_of(label: int | str | None, match: LabelMatch, own: Sequence[str] | None, names: Sequence[str] | None) -> Any:
    """The network's class of a label, an index or a name; None where it has none.

    Args:
        own: the names of the classes of the source. names: those of the network.

    Raises:
        InvalidInput: a name that is no class of the network.
    """
    if not isinstance(label, str):
        return match(label)
    try:
        return class_index(label, names or own or ())
    except InvalidTarget as error:
        known = str(error) if names or own else "Give the model `classes`, or integers."
        raise InvalidInput(
            f"A label must be the index of a class, or one of the model's class names. Got {label!r}. {known}"
        ) from None


def _name_match(
    own: Sequence[str], names: Sequence[str] | None, given: str | None, title: str, adopted: bool
) -> LabelMatch:
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
    how = "" if given is None else ALPHABETICAL
    if adopted or not names:
        return LabelMatch(how=how)
    if len(own) == len(names) and all(not name or i in places(name, names) for i, name in enumerate(own)):
        return LabelMatch(by_name=True, how="" if given is None else BY_NAME)
    return _unmatched(own, names, given, title, how)


def _unmatched(own: Sequence[str], names: Sequence[str], given: str | None, title: str, how: str) -> LabelMatch:
    strange = unmatched(own, names)
    if given == "name" and strange:
        class_index(strange[0], names)  # an error, with the nearest names
    what = ", ".join(map(repr, strange[:3])) + (", …" if len(strange) > 3 else "") if strange else "two of one class"
    elsewhere = [index for index, name in enumerate(own) if (found := places(name, names)) and index not in found]
    if elsewhere or len(own) != len(names):
        why = f"there are {len(own)} names, and the model has {len(names)}"
        if elsewhere:
            index = elsewhere[0]
            there = class_text(names, min(places(own[index], names)))
            why = f"{own[index]!r} is number {index}, and in the model {there}"
        warning = (
            f"Labels of {title} are left out: not all names are those of the model ({what}), and {why}. Give names of "
            "the model's classes, a CSV with `class_index`, or the model's names in the order of its outputs "
            "(`classes`, --classes FILE)."
        )
        foreign = not elsewhere and not any(places(name, names) for name in own)
        return LabelMatch(warning=warning, left_out=True, foreign=foreign)
    first = ", ".join(class_text(own, index) for index in range(min(2, len(own))))
    warning = (
        f"Labels of {title} are {how or IN_ORDER}, such as {first}: not all names are those of the model ({what}). "
        "If its classes have another order, labels are wrong."
    )
    return LabelMatch(how=how, warning=warning)


def source_of(images: Any) -> Any:
    """The source that a subset, or a mosaic, takes its images from."""
    while hasattr(images, "source"):
        images = images.source
    return images


def further_labels(images: Any) -> Mapping[str, tuple[int, ...]]:
    """Id → the labels after the first, of images with several."""
    return getattr(source_of(images), "further", {})


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

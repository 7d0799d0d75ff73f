"""Images by what a user types: a folder, or a name such as `shapes`, `torchvision:OxfordIIITPet` or `mosaic:FOLDER`."""

import os
from pathlib import Path

from heatproof.data.folder import images_from_folder
from heatproof.data.images import Images
from heatproof.data.sampling import limited
from heatproof.errors import InvalidInput
from heatproof.registry import unknown

#: FunnyBirds' test images: all, every fifth (for validation), and the others.
FUNNYBIRDS = ("funnybirds", "funnybirds-val", "funnybirds-test")
#: What comes before the colon in the name of a set of images.
NAMED_SETS = ("shapes", "creatures", "torchvision", "mosaic", *FUNNYBIRDS)
#: Of these, the names of sets that are drawn.
DRAWN_SETS = ("shapes", "creatures")


def load_images(
    images: str | os.PathLike,
    labels: str | os.PathLike | None = None,
    root: str | os.PathLike | None = None,
    limit: int | None = None,
    download: bool = False,
    name: str | None = None,
    *,
    seed: int = 0,
    sampling: str = "stratified",
) -> Images:
    """Images, in the order of their ids.

    `images` is a folder, `shapes` or `shapes:SPLIT` (the demo's images, with masks), `creatures`
    or `creatures:SPLIT` (images made of removable parts), `funnybirds:FOLDER` (the test images of FunnyBirds;
    `funnybirds-val:FOLDER` is every fifth of them, `funnybirds-test:FOLDER` the others), `torchvision:NAME`
    (test data of that name under `root`, fetched only with `download=True`), or `mosaic:` before one of these: mosaics
    of 2 × 2 labelled images of different classes, with the target's cell as mask. A folder called `shapes` is
    `./shapes`. A folder's labels come from the CSV `labels` (`file,class_index`), else from its subfolders
    when every image lies in one of at least two: the class index is the subfolder's position in sorted order,
    empty ones counted. Labelled files that do not exist become flagged images. `name` is the dataset's
    name in the results.

    `limit` takes so many images: drawn by `seed`, some of every class (`sampling="stratified"`), or the first ones
    (`sampling="first"`); see `heatproof.data.sampling`.

    Raises InvalidInput for a folder that does not exist, cannot be read or holds no image, a label file
    that cannot be used or of which most rows name files that are not there, and a limit below 1; UnknownName
    for a dataset or split that does not exist.
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"`limit` must be at least 1. Got {limit}.")
    return limited(_all_images(images, labels, root, download, name), limit, seed, sampling)


def is_set(images: str | os.PathLike) -> bool:
    """Whether a text or path is a folder, or names a set of images: `shapes`, `torchvision:NAME` and so on."""
    if Path(images).is_dir():
        return True
    kind, colon, _ = images.partition(":") if isinstance(images, str) else ("", "", "")
    return kind in NAMED_SETS and (kind in DRAWN_SETS or bool(colon)) and not Path(images).exists()


def _all_images(
    images: str | os.PathLike,
    labels: str | os.PathLike | None,
    root: str | os.PathLike | None,
    download: bool,
    name: str | None,
) -> Images:
    kind, _, rest = images.partition(":") if isinstance(images, str) else ("", "", "")
    if kind == "mosaic" and rest:
        from heatproof.data.mosaics import Mosaics

        return Mosaics(_all_images(rest, labels, root, download, None), title=name or "")
    if kind not in NAMED_SETS:
        return images_from_folder(Path(images), labels, name)
    if labels is not None:
        raise InvalidInput(f"`labels` must be left out for {images!r}, which has labels of its own. Got {labels}.")
    if kind == "torchvision":
        from heatproof.data.named import named_images

        return named_images(rest, root, download, name)
    if kind in FUNNYBIRDS:
        from heatproof.data.funnybirds import FunnyBirds

        return FunnyBirds.of(rest, kind.partition("-")[2], name or "")
    return _drawn(kind, rest or "test", name)


def _drawn(kind: str, split: str, name: str | None) -> Images:
    from heatproof.data.creatures import IMAGES, demo_creatures
    from heatproof.data.shapes import DEMO_IMAGES, demo_shapes

    splits = DEMO_IMAGES if kind == "shapes" else IMAGES
    if split not in splits:
        raise unknown(f"split of {kind}", split, splits)
    title = name or ""
    return demo_shapes(split, title=title) if kind == "shapes" else demo_creatures(split, title=title)

"""Images from a folder, or from a list of files."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from heatproof.data.dicom import ENDINGS, refuse_without_pydicom
from heatproof.data.image_opener import open_pixels
from heatproof.data.image_paths import EXTENSIONS, image_files, printable, subfolders
from heatproof.data.labels import by_ending, labels_by_ending, read_labels
from heatproof.errors import InvalidImage, InvalidInput
from heatproof.files import refuse_unusual
from heatproof.memo import cached_property
from heatproof.pixels import Pixels

MISSING = "missing file"
_HEAD = 64 * 1024


@dataclass(frozen=True)
class ImageFolder:
    """Files with ids and labels; obeys `Images`. Made by `images_from_folder` and `images_from_list`.

    `labels_by`: what a CSV gives, `index` or `name`; empty for a folder of each class. Labels that are not indices are
    the positions of the names in sorted order. `further`: id → the labels after the first, of images with several.
    """

    name: str
    ids: list[str]
    paths: list[Path]
    labels: list[int | None]
    class_names: list[str] | None = None
    flags: dict[str, str] = field(default_factory=dict)
    labels_by: str = ""
    further: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A hash of ids, labels, and each file's length and first 64 KiB (all of it would take too long)."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for id, label, path in zip(self.ids, self.labels, self.paths, strict=True):
            # A label file may name what lies outside the folder: it is missing, and is not looked at.
            row = id, label, (-1, "") if self.flags.get(id) == MISSING else _content(path)
            digest.update(repr(row).encode())
        if self.further:
            digest.update(repr(sorted(self.further.items())).encode())
        return digest.hexdigest()

    def open(self, i: int) -> Image.Image | Pixels:
        """Image `i` at its full precision; raises InvalidImage where it is missing, broken or too large."""
        if self.ids[i] in self.flags:
            raise InvalidImage(f"{self.ids[i]}: {self.flags[self.ids[i]]}")
        return open_pixels(self.paths[i])

    def mask(self, i: int) -> np.ndarray | None:
        """None: a folder does not say where the objects are."""
        return None


def images_from_folder(folder: Path, labels: str | os.PathLike | None = None, name: str | None = None) -> ImageFolder:
    """The images below a folder, in the order of their ids; labels and errors as `load_images` states."""
    files = _by_id(folder)
    if not files:
        raise InvalidInput(
            f"`images` must hold at least one image. None is in {printable(folder)}. Known endings: "
            f"{' '.join(sorted(EXTENSIONS))}."
        )
    if medical := next((name for name in files if name.lower().endswith(ENDINGS)), None):
        refuse_without_pydicom(medical)  # before any work
    _refuse_masks_among(folder, list(files))
    class_names, known = _class_folders(folder, list(files))
    missing: set[str] = set()
    labels_by, further = "", {}
    if labels is not None:
        file = read_labels(labels, several=True)
        class_names, known, labels_by, further = file.names, file.labels, file.labels_by, file.further
        missing = _labels_without_file(known, files, labels, folder)
    ids = sorted({*files, *missing})
    return ImageFolder(
        name=name or printable(folder.resolve().name) or "images",
        ids=ids,
        paths=[files.get(id, folder / id) for id in ids],
        labels=[known.get(id) for id in ids],
        class_names=class_names,
        flags={id: MISSING for id in ids if id in missing},
        labels_by=labels_by,
        further={id: more for id, more in further.items() if id in files},
    )


def labelled_from_file(images: ImageFolder, path: str | os.PathLike, several: bool = False) -> ImageFolder:
    """The same files with the labels of a CSV, matched by the end of the path (`labels_by_ending`).

    several: whether an image may have several labels.
    """
    labels, file = labels_by_ending(images.ids, path, several)
    more = {id: found for id in images.ids if (found := by_ending(id, file.further))}
    return replace(images, labels=labels, class_names=file.names, labels_by=file.labels_by, further=more)


def images_from_list(paths: Iterable[str | os.PathLike], name: str = "images") -> ImageFolder:
    """These files in this order, unlabelled; ids are the paths as given. InvalidInput for none, or one named twice."""
    files = [Path(path) for path in paths]
    ids = [printable(path.as_posix()) for path in files]
    twice = sorted({id for id in ids if ids.count(id) > 1})
    if not ids or twice:
        raise InvalidInput(
            f"`paths` must name at least one file, each once. Got {f'{twice[0]} twice' if twice else 'none'}."
        )
    flags = {id: MISSING for id, path in zip(ids, files, strict=True) if not path.exists()}
    return ImageFolder(name, ids, files, [None] * len(ids), None, flags)


def _by_id(folder: Path) -> dict[str, Path]:
    """Id → path of every image below `folder`."""
    paths = image_files(folder)
    files = {printable(path.relative_to(folder).as_posix()): path for path in paths}
    if len(files) != len(paths):  # a literal `\\xe9` beside the byte it stands for
        raise InvalidInput(f"File names must differ when printed. Two in {printable(folder)} do not: rename one.")
    return files


def _refuse_masks_among(folder: Path, ids: list[str]) -> None:
    """A folder of `images` and their `masks`, as `heatproof data shapes` writes it, is no set of two classes."""
    kinds = {kind: {Path(id).stem for id in ids if id.startswith(f"{kind}/")} for kind in ("images", "masks")}
    if not kinds["images"] & kinds["masks"] or len(subfolders(folder)) != 2:
        return
    there = printable(folder)
    labels = f", its labels {there}/labels.csv (--labels)" if (folder / "labels.csv").is_file() else ""
    raise InvalidInput(
        f"`images` must be a folder of images alone. {there} holds images and their masks. Give {there}/images as the "
        f"images, and {there}/masks as their masks (--masks){labels}."
    )


def _class_folders(folder: Path, ids: list[str]) -> tuple[list[str] | None, dict[str, int]]:
    """Class names, and id → index, where the layout is one subfolder per class; otherwise none.

    A single subfolder is no class (`photos/JPEGImages/…`), nor are subfolders beside images.
    """
    names = [printable(name) for name in subfolders(folder)]
    if len(names) < 2 or any("/" not in id for id in ids):
        return None, {}
    index = {name: i for i, name in enumerate(names)}
    return names, {id: index[id.partition("/")[0]] for id in ids}


def _labels_without_file(
    known: dict[str, int], files: dict[str, Path], labels: str | os.PathLike, folder: Path
) -> set[str]:
    """Labelled images without a file; InvalidInput for more than half: folder and labels do not belong together."""
    missing = set(known) - set(files)
    if 2 * len(missing) > len(known):
        raise InvalidInput(
            f"`labels` must name files relative to `images`. {len(missing)} of the {len(known)} in "
            f"{printable(labels)} are not in {printable(folder)}, such as {min(missing)!r} (there is "
            f"{min(files)!r}). Check both."
        )
    return missing


def _content(path: Path) -> tuple[int, str]:
    """Length and hash of the beginning; (-1, '') for a file that cannot be read."""
    try:
        refuse_unusual(path)
        with path.open("rb") as file:
            head = hashlib.blake2b(file.read(_HEAD), digest_size=16).hexdigest()
            return os.fstat(file.fileno()).st_size, head
    except OSError:
        return -1, ""

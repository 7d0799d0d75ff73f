"""torchvision's classification datasets by name; nothing is downloaded unless asked for."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from heatproof.data.image_paths import printable
from heatproof.data.images import without_caches
from heatproof.errors import InvalidImage, InvalidInput
from heatproof.memo import cached_property
from heatproof.pixels import Pixels, plain
from heatproof.registry import fold, unknown

_TEST = {"split": "test"}
#: Name → the arguments that select its test (or only) images.
NAMED: Mapping[str, Mapping[str, Any]] = {
    "Caltech101": {},
    "Caltech256": {},
    "CIFAR10": {"train": False},
    "CIFAR100": {"train": False},
    "Country211": _TEST,
    "DTD": _TEST,
    "EuroSAT": {},
    "FashionMNIST": {"train": False},
    "FGVCAircraft": _TEST,
    "Flowers102": _TEST,
    "Food101": _TEST,
    "GTSRB": _TEST,
    "ImageNet": {"split": "val"},
    "Imagenette": {"split": "val"},
    "MNIST": {"train": False},
    "OxfordIIITPet": _TEST,
    "PCAM": _TEST,
    "RenderedSST2": _TEST,
    "StanfordCars": _TEST,
    "STL10": _TEST,
    "SUN397": {},
    "SVHN": _TEST,
}
#: Where torchvision's datasets keep their labels, in the order tried.
_LABELS = ("targets", "_labels", "labels", "y")


@dataclass(frozen=True)
class NamedImages:
    """The images of a torchvision dataset; obeys `Images`. Made by `named_images`."""

    dataset: str
    root: str
    name: str
    ids: list[str]
    labels: list[int | None]
    class_names: list[str] | None

    @property
    def flags(self) -> dict[str, str]:
        return {}

    @property
    def fingerprint(self) -> str:
        """A hash of name, labels and the pixels of the first and the last image."""
        digest = hashlib.blake2b(repr((self.dataset, self.labels)).encode(), digest_size=16)
        for i in (0, len(self.ids) - 1):
            try:
                digest.update(self.open(i).tobytes())
            except InvalidImage as error:  # a broken image is flagged when it is its turn
                digest.update(str(error).encode())
        return digest.hexdigest()

    def open(self, i: int) -> Image.Image | Pixels:
        """Image `i` at its full precision; raises InvalidImage where its file is broken."""
        try:
            return plain(self._source[i][0])
        except Exception as error:  # as `open_image`: decoders fail in every way
            raise InvalidImage(f"{self.ids[i]}: is broken or cut off ({error})") from error

    def mask(self, i: int) -> np.ndarray | None:
        """None: no masks are read for these datasets."""
        return None

    @cached_property
    def _source(self) -> Any:
        return _open_dataset(self.dataset, self.root, download=False)

    def __getstate__(self) -> dict[str, Any]:
        return without_caches(self, ["_source"])


def named_images(spec: str, root: str | os.PathLike | None, download: bool, name: str | None = None) -> NamedImages:
    """`torchvision:SPEC`: the test images of the dataset SPEC in the folder `root`.

    Raises UnknownName with near misses; InvalidInput where no `root` is given or the data is not there.
    """
    spellings = {fold(known): known for known in NAMED}
    if fold(spec) not in spellings:
        raise unknown("torchvision dataset", spec, NAMED)
    dataset = spellings[fold(spec)]
    if root is None:
        raise InvalidInput(f"`root` must be the folder that holds torchvision's {dataset}. Got none.")
    source = _open_dataset(dataset, os.fspath(root), download)
    ids = [f"{dataset}/{i:06d}" for i in range(len(source))]
    title = name or f"torchvision:{dataset}"
    return NamedImages(dataset, str(Path(root)), title, ids, _labels(source), _class_names(source))


def _labels(source: Any) -> list[int | None]:
    """The labels, without decoding images where the dataset holds its labels apart."""
    held = next((values for key in _LABELS if (values := getattr(source, key, None)) is not None), None)
    if held is None and hasattr(source, "_samples"):
        held = [label for _, label in source._samples]
    if held is None or len(held) != len(source):
        held = [source[i][1] for i in range(len(source))]
    return [int(label) if int(label) >= 0 else None for label in held]  # -1 of STL10 is unlabelled


def _class_names(source: Any) -> list[str] | None:
    names = getattr(source, "classes", None) or getattr(source, "categories", None)
    # ImageNet's are tuples of synonyms.
    return [name if isinstance(name, str) else ", ".join(name) for name in names] if names else None


def _open_dataset(dataset: str, root: str, download: bool) -> Any:
    import torchvision.datasets

    # torchvision's ImageNet has no `download`: its archives are fetched by hand.
    options = dict(NAMED[dataset]) if dataset == "ImageNet" else {**NAMED[dataset], "download": download}
    try:
        return getattr(torchvision.datasets, dataset)(root, **options)
    except (RuntimeError, OSError, ModuleNotFoundError) as error:
        todo = "Check the connection and `root`" if download else "Download it first (`download=True`, --download)"
        if dataset == "ImageNet":
            todo = "Put ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz there"
        raise InvalidInput(
            f"`root` must hold torchvision's {dataset}. {printable(root)} does not ({error}). {todo}."
        ) from error

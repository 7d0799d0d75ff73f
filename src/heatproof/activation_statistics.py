"""Mean and std of a layer's activations over reference images: computed once for each model and layer, then cached.

Sources:

    dead-leaves     256 procedural images: no files are needed, and no image under test is among them
    FOLDER          the images in a folder
    FILE            what `heatproof.calibrate` wrote

Statistics of images are cached in a folder of the user's (`cache_folder`), one file for each model, layer and source.
"""

import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from heatproof.ambient import neutral
from heatproof.data import load_images
from heatproof.data.input_form import InputForm
from heatproof.data.inputs import as_inputs
from heatproof.data.shape_drawing import dead_leaves
from heatproof.errors import HeatproofWarning, InvalidImage, InvalidInput, StoreError
from heatproof.files import cache_folder
from heatproof.geometry import Geometry
from heatproof.models import Model, resolve_layer, wrap
from heatproof.models.moments import Calibration, calibrated, fingerprint
from heatproof.progress import reported
from heatproof.seeds import derived_seed

DEAD_LEAVES = "dead-leaves"
#: Number of procedural images in a calibration, and the batch size.
LEAVES, BATCH = 256, 16

#: The calibrations loaded last, by file or by key: methods look theirs up for every batch.
_KEPT: dict[str, Calibration] = {}
_MOST = 8
_lock = threading.Lock()


@neutral()
def calibrate(
    model: Model | nn.Module,
    images: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    layer: str | nn.Module = "auto",
    batch_size: int = BATCH,
    progress: Any = False,
) -> Calibration:
    """Mean and std of a layer's activations over images, for methods that compare activations with them.

    Args:
        model: from `load_model` or `wrap`, or a bare module.
        images: a folder, or anything that `explain` takes; not the images to be explained. The authors of IBA
            advise 10,000; a few hundred are enough.
        out: a file to write; give its path as `source` afterwards, `iba[source=FILE]`.
        layer, progress: as in `explain`.

    Raises:
        InvalidInput: fewer than two images, images of several sizes, or activations that are not finite.
        StoreError: `out` cannot be written.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> found = heatproof.calibrate(heatproof.load_model("shapes"), demo_shapes("train", n=16))
        >>> found.mean.shape  # at the layer explained
        torch.Size([128, 6, 6])
    """
    model = wrap(model) if isinstance(model, nn.Module) else model
    name = model.last_layer if isinstance(layer, str) and layer == "auto" else resolve_layer(model.module, layer)
    if batch_size < 1:
        raise InvalidInput(f"`batch_size` must be at least 1. Got {batch_size}.")
    if isinstance(images, str | os.PathLike) and Path(images).is_dir():
        opened = load_images(images)
        batches, count = _openable_batches(model, opened, batch_size), len(opened.ids)
    else:
        shape = None if model.normalises else model.input_shape
        inputs = as_inputs(images, InputForm(model.geometry, shape, classes=model.classes))
        batches, count = _batches(inputs, batch_size), inputs.count or 0
    with reported(progress) as bar:
        bar.stage("Calibrating", count)
        found = calibrated(model, name, _told(batches, bar))
    if out is not None:
        found.save(Path(out))
    return found


def _told(batches: Iterator[torch.Tensor], bar: Any) -> Iterator[torch.Tensor]:
    """The batches, each told to the progress when it is done with."""
    for x in batches:
        yield x
        bar.advance(len(x))


def calibration_of(model: Model, layer: str, source: str = DEAD_LEAVES) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std, each `(C, *spatial)`, of the activations at `layer` over the images of `source`.

    Raises:
        InvalidInput: a source that does not exist, or a file made for another model or layer.
    """
    if source != DEAD_LEAVES and Path(source).is_file():
        state = Path(source).stat()
        key = f"{Path(source).resolve()} {state.st_mtime_ns} {state.st_size}"
        found = _cached_calibration(key, lambda: Calibration.load(source)).check(model, layer)
    else:
        identity, batches = _images(model, source)
        key = hashlib.blake2b(f"{fingerprint(model)} {layer} {identity}".encode(), digest_size=16).hexdigest()
        found = _cached_calibration(
            key, lambda: _load_or_compute(model, layer, cache_folder("calibration") / f"{key}.safetensors", batches)
        )
    return found.mean, found.std


def _cached_calibration(key: str, made: Callable[[], Calibration]) -> Calibration:
    found = _KEPT.get(key)
    if found is None:
        found = made()
        with _lock:
            while len(_KEPT) >= _MOST:
                _KEPT.pop(next(iter(_KEPT)))
            _KEPT[key] = found
    return found


def _load_or_compute(
    model: Model, layer: str, path: Path, batches: Callable[[], Iterator[torch.Tensor]]
) -> Calibration:
    """The calibration cached at `path`; computed and cached where the file is missing or cannot be used."""
    if path.is_file():
        try:
            return Calibration.load(path).check(model, layer)
        except InvalidInput:
            pass
    found = calibrated(model, layer, batches())
    try:
        found.save(path)
    except StoreError as error:
        warnings.warn(f"The calibration is not kept for the next time. {error}", HeatproofWarning, stacklevel=2)
    return found


def _images(model: Model, source: str) -> tuple[str, Callable[[], Iterator[torch.Tensor]]]:
    """A text that identifies the images of a source, and a function that yields them in batches."""
    if source == DEAD_LEAVES:
        if not model.normalises or model.geometry.channels not in (1, 3):
            raise InvalidInput(
                f"`source` must be a file that heatproof.calibrate wrote, as {model.name!r} takes no images in colour "
                f"or grey. Got {source!r}."
            )
        return f"{DEAD_LEAVES} {LEAVES} {_of_bytes(model)}", lambda: _leaves(model)
    if not Path(source).is_dir():
        raise InvalidInput(
            f"`source` must be {DEAD_LEAVES!r}, a folder of images, or a file that heatproof.calibrate wrote. "
            f"There is nothing at {source!r}."
        )
    images = load_images(source)
    return f"folder {images.fingerprint} {model.geometry}", lambda: _openable_batches(model, images, BATCH)


def _of_bytes(model: Model) -> Geometry:
    """The model's geometry for procedural images: a window is for the user's files."""
    return replace(model.geometry, window=None)


def _leaves(model: Model) -> Iterator[torch.Tensor]:
    geometry = _of_bytes(model)
    side = max(geometry.resize) if isinstance(geometry.resize, tuple) else geometry.resize or max(geometry.size)
    for first in range(0, LEAVES, BATCH):
        yield torch.stack([geometry.image(_leaf(side, i)) for i in range(first, min(first + BATCH, LEAVES))])


def _leaf(side: int, i: int) -> Image.Image:
    stream = np.random.Generator(np.random.PCG64(derived_seed(0, str(i), "calibration")))
    return Image.fromarray(dead_leaves(side, stream))


def _batches(inputs: Any, batch_size: int) -> Iterator[torch.Tensor]:
    """Batches of all images that can be used."""
    start = 0
    while count := inputs.ready(start, batch_size):
        x = inputs.batch(slice(start, start + count))
        kept = [i for i in range(count) if start + i not in inputs.failed]
        if kept:
            yield x[kept]
        start += count


def _openable_batches(model: Model, images: Any, batch_size: int) -> Iterator[torch.Tensor]:
    """Batches of all images that can be opened."""
    batch = []
    for i in range(len(images.ids)):
        try:
            batch.append(model.geometry.image(images.open(i)))
        except InvalidImage:
            continue
        if len(batch) == batch_size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)

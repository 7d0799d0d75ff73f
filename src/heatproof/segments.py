"""Superpixels: one label map per clean image, cached by the image's content and the settings.

Paper N scores maps by the mean in each superpixel of the clean image, about 120 of them; QuickShift is its
default. scikit-image does the segmenting; ours are the scaling to small images, the tuning and the cache.

Counts on ten photographs (shorter side 8/7 of the square cut out of it), mean (lowest to highest):

    side              96           112          128          160          224          256          384
    quickshift    112 (92–140)  94 (77–113) 114 (96–138) 112 (95–129) 109 (85–127) 111 (90–132) 110 (90–125)
    slic          132 (122–142) 130 (118–139)   –        128 (105–141) 123 (93–136)     –            –
    felzenszwalb  119 (114–126) 118 (114–124)   –        121 (116–125) 120 (114–126)    –            –

QuickShift takes .22 s for 224² on one core (.01 s for 96², 1.6 s for 384²: the fourth power of the side),
SLIC and one run of Felzenszwalb .06 s. All three release the GIL, so threads can overlap them.
"""

import hashlib
import math
import os
import tempfile
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heatproof.errors import HeatproofWarning, InvalidInput, NotApplicable
from heatproof.registry import Registry
from heatproof.rounding import rounded
from heatproof.transfers import on_device, on_host

SEGMENTERS = Registry("segmenter")

#: The side for which N's settings are meant; lengths scale with side / 224, areas with its square.
REFERENCE_SIDE = 224
#: Part of the cache key: raise it when a segmenter here changes its result.
VERSION = 1
#: Label maps kept in memory (100 KB each at 224²).
REMEMBERED = 64

_SKIMAGE = version("scikit-image")
_memory: OrderedDict[str, np.ndarray] = OrderedDict()
_lock = threading.Lock()


def segment(
    x: torch.Tensor,
    name: str = "quickshift",
    options: Mapping[str, Any] | None = None,
    folder: str | os.PathLike | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Label maps `(N, H, W)` int64 of images `x` `(N, C, H, W)` in [0, 1]; labels run from 0 to n − 1.

    Images of another number of channels than three are segmented as grey images: by the mean of their channels.
    `name` may carry options, as `quickshift[kernel=3]`; `options` come on top. `folder`: where label maps are
    also kept on disk, shared by processes and runs. `mask`: where the objects are, `(N, H, W)` bool, for segmenters
    that need it. The result depends on nothing but image, mask and settings.
    Errors: UnknownName for a segmenter or an option; InvalidInput for images or masks of another shape or range;
    NotApplicable for a segmenter that needs masks where there are none.
    """
    entry, spelled = SEGMENTERS.parse(name)
    settings = entry.checked_options({**spelled, **(options or {})})
    device = x.device
    x = on_host([x])[0]
    _check(x)
    x = x if x.shape[1] == 3 else x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    images = x.detach().to("cpu", torch.float32).permute(0, 2, 3, 1).contiguous().numpy()
    masks: list[np.ndarray | None] = [None] * len(images)
    if needs_mask(name):
        masks = list(_checked_masks(mask, x, entry.name))
    labels = [
        _cached_segments(image, entry.name, settings, folder, one) for image, one in zip(images, masks, strict=True)
    ]
    return on_device(torch.from_numpy(np.stack(labels).astype(np.int64)), device)


def counts(segments: torch.Tensor) -> torch.Tensor:
    """How many segments each label map of `(N, H, W)` has, `(N,)` int64."""
    return segments.flatten(1).amax(1) + 1


def needs_mask(name: str) -> bool:
    """Whether a segmenter, by its spelling, needs to know where the objects are."""
    return "mask" in SEGMENTERS.parse(name)[0].needs


@SEGMENTERS.register("quickshift", source="Vedaldi & Soatto 2008; paper N")
def quickshift(x, *, kernel=2.2, max_dist=200.0, ratio=0.2):
    """QuickShift, about 110 segments; `kernel` is for 224² and scales with the side of `x`, down to 1.

    Ties are broken by noise of scikit-image's `rng`, here 0, and all is computed in float64: scikit-image's default
    seed, 42, and float32 give other segments, and with them other scores.

    Without the scaling, 2.2 gives 28 segments at 112² and 341 at 384². scikit-image takes no kernel below 1,
    so images under about 100 pixels a side get fewer.
    """
    from skimage.segmentation import quickshift as run

    size = max(1.0, kernel * _scale(x))
    return run(x, kernel_size=size, max_dist=max_dist, ratio=ratio, rng=0)  # pyright: ignore[reportArgumentType]


@SEGMENTERS.register("slic", source="Achanta et al. 2012; paper N")
def slic(x, *, n_segments=160, compactness=10.0, sigma=1.0):
    """SLIC, about 123 segments at its default 160; the count hardly depends on the image's size."""
    from skimage.segmentation import slic as run

    return run(x, n_segments=n_segments, compactness=compactness, sigma=sigma, start_label=0)


@SEGMENTERS.register("felzenszwalb", source="Felzenszwalb & Huttenlocher 2004; paper N")
def felzenszwalb(x, *, scale=100.0, sigma=0.5, min_size=60, count=120):
    """Felzenszwalb, `scale` bisected for each image (log axis, 10 to 10,000) towards `count` segments.

    At a fixed scale of 100, photographs get 49 to 224 segments. `scale` is the first try; the search stops within 5 %
    of `count` or after ten runs, and keeps the nearest. `count=0` keeps `scale` as it is. `min_size` is for 224² and
    scales with the image's area.
    """
    smallest = max(1, round(min_size * _scale(x) ** 2))
    if not count:
        return _felzenszwalb(x, scale, sigma, smallest)
    low, high, tried = math.log(10.0), math.log(10_000.0), math.log(scale)
    nearest: tuple[float, np.ndarray] | None = None
    for _ in range(10):
        labels = _felzenszwalb(x, math.exp(tried), sigma, smallest)
        found = int(labels.max()) + 1
        if nearest is None or abs(found - count) < nearest[0]:
            nearest = abs(found - count), labels
        if abs(found - count) <= 0.05 * count:
            break
        low, high = (tried, high) if found > count else (low, tried)
        tried = (low + high) / 2
    assert nearest is not None
    return nearest[1]


@SEGMENTERS.register("grid", source="ours, for tests and for images without edges")
def grid(x, *, rows=11, columns=11, shift=0.0):
    """Equal rectangles, 121 by default, whatever the image shows. Fewer where the image has fewer pixels.

    `shift`, in [0, 1): the grid is moved up and to the left by so much of a cell, so that a row and a column of cells
    are cut in two by the image's edge: `grid[shift=0.5]` has its borders where `grid` has the middle of its cells.
    """
    if not 0 <= shift < 1:
        raise InvalidInput(f"`shift` must be in [0, 1), a share of a cell. Got {shift}.")
    height, width = x.shape[:2]
    down, across = (
        np.floor(np.arange(size) * cells / size + shift + 1e-9).astype(np.int64)  # a border is reached, not missed
        for size, cells in ((height, rows), (width, columns))
    )
    return down[:, None] * (columns + 1) + across[None, :]


@SEGMENTERS.register("split", source="ours, after paper N's question about borders that cut through objects")
def split(x, *, of="quickshift"):
    """The segments of another segmenter, each cut in two through its centroid, across its longest axis.

    A segment that covers an object is so cut through the object's centre; an object of several segments is not cut at
    its own centre, for that see `split-object`. A segment of one pixel stays whole. `of`: the other segmenter, with
    options in brackets or not, `split[of=slic]`.
    """
    whole = _whole_segments(x, of)
    return 2 * whole + _far_half(whole)


@SEGMENTERS.register("split-object", source="ours, after paper N's question about borders that cut through objects")
def split_object(x, mask, *, of="quickshift"):
    """The segments of another segmenter, those cut in two that a line through the object's centre crosses.

    The line goes through the centroid of the object's mask, across its longest axis. Segments without a pixel of the
    object stay whole, and so do those that the line does not cross: few are cut (4 of 112 on average in docs/claims.md,
    run H), so that little change is to be expected. `of`: the other segmenter, with options in brackets or not,
    `split-object[of=slic]`.
    """
    whole = _whole_segments(x, of)
    touched = np.isin(whole, whole[mask])
    return 2 * whole + (touched & _far_half(np.zeros_like(whole), mask))


def _whole_segments(x: np.ndarray, of: str) -> np.ndarray:
    """The segments of another segmenter that sees the image alone, int64."""
    entry, options = SEGMENTERS.parse(of)
    if "mask" in entry.needs:
        raise InvalidInput(f"`of` must be a segmenter that needs no masks. Got {of!r}.")
    return _cached_segments(x.astype(np.float32), entry.name, entry.checked_options(options), None).astype(np.int64)


def _far_half(groups: np.ndarray, counting: np.ndarray | None = None) -> np.ndarray:
    """Where a pixel lies beyond the line through its group's centroid, across the group's longest axis: bool.

    groups: labels `(H, W)`. counting: the pixels that decide centroid and axis; all by default, and at least one.
    """
    down, across = (part.ravel() for part in np.indices(groups.shape))
    labels, weights = groups.ravel(), np.ones(groups.size) if counting is None else counting.ravel().astype(np.float64)
    pixels = np.bincount(labels, weights)
    dy, dx = (part - (np.bincount(labels, weights * part) / pixels)[labels] for part in (down, across))
    squares, others, mixed = (np.bincount(labels, weights * part) for part in (dx * dx, dy * dy, dx * dy))
    size = np.maximum(squares + others, 1.0)
    angle = 0.5 * np.arctan2(rounded(2 * mixed / size), rounded((squares - others) / size))
    beyond = rounded(dx * np.cos(angle)[labels] + dy * np.sin(angle)[labels]) > 0
    return beyond.reshape(groups.shape)


def _felzenszwalb(x: np.ndarray, scale: float, sigma: float, min_size: int) -> np.ndarray:
    from skimage.segmentation import felzenszwalb as run

    return run(x, scale=scale, sigma=sigma, min_size=min_size)


def _scale(x: np.ndarray) -> float:
    """The image's side relative to 224: the geometric mean of height and width."""
    return math.sqrt(x.shape[0] * x.shape[1]) / REFERENCE_SIDE


def _check(x: torch.Tensor) -> None:
    if x.dim() != 4 or not x.is_floating_point() or x.numel() == 0:
        raise InvalidInput(
            f"`x` must be a float tensor (N, C, H, W) with at least a pixel. Got {x.dtype} {tuple(x.shape)}."
        )
    low, high = float(x.detach().amin()), float(x.detach().amax())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise InvalidInput(f"`x` must lie in [0, 1], not normalised. Got {low:.3g} to {high:.3g}.")


def _checked_masks(mask: torch.Tensor | None, x: torch.Tensor, name: str) -> np.ndarray:
    """`(N, H, W)` bool."""
    if mask is None:
        raise NotApplicable(f"The segmenter {name!r} cuts at the object, so it needs masks. Got none.")
    shape = (len(x), *x.shape[2:])
    if mask.dtype != torch.bool or tuple(mask.shape) != shape:
        raise InvalidInput(f"`mask` must be bool {shape}. Got {mask.dtype} {tuple(mask.shape)}.")
    return mask.detach().cpu().numpy()


def _cached_segments(
    image: np.ndarray,
    name: str,
    settings: Mapping[str, Any],
    folder: str | os.PathLike | None,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """The label map from memory, else from `folder`, else computed and stored in both.

    An empty mask gives a single segment: there is nothing to cut at.
    """
    if mask is not None and not mask.any():
        return np.zeros(image.shape[:2], np.uint8)
    key = _key(image, name, settings, mask)
    with _lock:
        if key in _memory:
            _memory.move_to_end(key)
            return _memory[key]
    path = Path(folder) / f"{key}.npy" if folder is not None else None
    labels = _read_segments(path, image.shape[:2]) if path else None
    if labels is None:
        given = {"x": image.astype(np.float64), "mask": mask}
        entry = SEGMENTERS[name]
        labels = _contiguous(entry.function(*(given[need] for need in entry.needs), **settings))
        if path:
            _write(path, labels)
    with _lock:
        _memory[key] = labels
        while len(_memory) > REMEMBERED:
            _memory.popitem(last=False)
    return labels


def _contiguous(labels: np.ndarray) -> np.ndarray:
    """Labels 0 … n − 1 without gaps, in the smallest unsigned type that holds them."""
    unique, inverse = np.unique(labels, return_inverse=True)
    return inverse.reshape(labels.shape).astype(np.min_scalar_type(len(unique) - 1))


def _key(image: np.ndarray, name: str, settings: Mapping[str, Any], mask: np.ndarray | None) -> str:
    """A hash of the pixels, the mask, the settings and the versions that decide the result."""
    about = f"{VERSION}|{_SKIMAGE}|{name}|{sorted(settings.items())!r}|{image.shape}"
    masked = b"" if mask is None else mask.tobytes()
    return hashlib.blake2b(about.encode() + image.tobytes() + masked, digest_size=16).hexdigest()


def _read_segments(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """A label map from disk; None where there is none. A damaged file gives a warning and None."""
    try:
        labels = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        labels, reason = None, str(error)
    else:
        reason = f"a label map of shape {labels.shape}"
    if labels is None or labels.shape != tuple(shape):
        warnings.warn(
            f"Expected a label map of shape {tuple(shape)} in {path}. Got {reason}. It is worked out again.",
            HeatproofWarning,
            stacklevel=2,
        )
        return None
    return labels


def _write(path: Path, labels: np.ndarray) -> None:
    """Written under a temporary name and renamed, so that no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, labels, allow_pickle=False)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

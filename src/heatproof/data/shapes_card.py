"""A data card of Shapes: what is in a set, and checks that its ground truth can be trusted."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.stats import binomtest

from heatproof.data.clutter import Scene
from heatproof.data.shapes import SPLITS, Shapes
from heatproof.geometry import Geometry

#: Images of a set that a check looks at; all of a smaller set.
CHECKED = 600
#: Images of each other split whose backgrounds are compared.
_COMPARED = 48
#: Images on which the geometries are checked.
_ALIGNED = 24
#: Below this probability under chance a probe is said to know the class.
#: The fewest images of each class for a probe.
_EACH = 10
_LEVEL = 0.01
#: A value of the network's input that differs by more has changed.
_VISIBLE = 0.1
#: The least share of a perfect map and the mask that agree.
_PERFECT = 0.98
#: How images reach networks: those of paper R, without a crop, not square, and the whole image squeezed.
GEOMETRIES: Mapping[str, Geometry] = {
    "shorter side 256, crop 224": Geometry((224, 224), 256),
    "shorter side 235, crop 224": Geometry((224, 224), 235),
    "shorter side 224, no crop": Geometry((224, 224), 224),
    "160 × 224 of the middle": Geometry((160, 224), 256),
    "squeezed to 192 × 256": Geometry((192, 256), None),
}


@dataclass(frozen=True)
class Check:
    """One check of a set: `value` beside its `limit`, in words in `what`."""

    name: str
    what: str
    value: float
    limit: float
    passed: bool


@dataclass(frozen=True)
class Card:
    """What is in a set of Shapes, and its checks; `skipped`: the check that is not computed, and why."""

    facts: Mapping[str, Any]
    checks: tuple[Check, ...]
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check passes."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For `card.json`."""
        return {**self.facts, "checks": [asdict(check) for check in self.checks], "not_computed": self.skipped}

    def text(self) -> str:
        """For people, as Markdown."""
        rows = [f"| {name.replace('_', ' ')} | {_shown(value)} |" for name, value in self.facts.items()]
        checks = [
            f"| {'passed' if check.passed else '**failed**'} | {check.what} | {check.value:.3g} | {check.limit:.3g} |"
            for check in self.checks
        ]
        checks += [f"| not computed | {self.skipped} | | |"] if self.skipped else []
        head = ["", "| | check | value | limit |", "|---|---|---|---|"]
        return "\n".join(["# Shapes: data card", "", "| | |", "|---|---|", *rows, *head, *checks, ""])


def card_of(shapes: Shapes, advance: Callable[[float], None] = lambda _: None) -> Card:
    """The card of a set; up to 600 of its images are drawn once more for the checks.

    Checks: what is outside the mask does not tell the class, no background is in another split, and a map of the pixels
    that the network sees change with the object is the mask, up to interpolated edges, whatever the geometry.

    Args:
        advance: called with 1 after each of the `checked_images`.
    """
    names, count = shapes.class_names, checked_images(shapes)
    share, clues, backgrounds = [], [], []
    shares: dict[str, list[float]] = {name: [] for name in GEOMETRIES}
    for i in range(count):
        scene = shapes.scene(i)
        share.append(float(scene.mask.mean()))
        clues.append(_clues(scene.hidden))
        backgrounds.append(_digest(scene.background))
        for name, geometry in GEOMETRIES.items() if i < _ALIGNED else ():
            shares[name].append(perfect_agreement(scene, geometry))
        advance(1)
    counts = Counter(names[label] for label in shapes.labels if label is not None)
    facts = {
        "split": shapes.split,
        "images": shapes.n,
        "size": shapes.size,
        "shape_sizes": [f"{low}–{high}" for low, high in shapes.shape_sizes],
        "seed": shapes.seed,
        "clutter": sorted(shapes.clutter),
        "backgrounds": f"{len(shapes.photographs)} files" if shapes.backgrounds else "procedural dead leaves",
        "images_by_class": {name: counts.get(name, 0) for name in names},
        "ground_truth_share": {"least": min(share), "median": float(np.median(share)), "most": max(share)},
        "fingerprint": shapes.fingerprint,
        "source": "Paper R, section 3.4",
    }
    stacked = {clue: np.stack([one[clue] for one in clues]) for clue in clues[0]}
    probed = independence(stacked, np.array(shapes.labels[:count], int), len(names))
    skipped = "" if probed else f"class-background independence: fewer than {_EACH} images of each class"
    checks = (*probed, disjointness(shapes, backgrounds), *map(_alignment, shares, shares.values()))
    return Card(facts, checks, skipped)


def checked_images(shapes: Shapes) -> int:
    """How many images the checks draw."""
    return min(shapes.n, CHECKED)


def independence(clues: Mapping[str, np.ndarray], labels: np.ndarray, classes: int) -> list[Check]:
    """Probes that see images without the pixels that decide the class must be at chance.

    Kernel ridge regressions on each of the `clues`, name → `(N, D)`, fitted on the first half and tested on the second.
    The limit is the accuracy that guessing reaches once in 100 sets, by any of the probes. None for fewer than
    `_EACH` images of each class.
    """
    if len(labels) < _EACH * classes:
        return []
    half, chance = len(labels) // 2, 1 / classes
    count = len(labels) - half
    level = _LEVEL / len(clues)
    limit = next(k for k in range(count + 2) if k > count or binomtest(k, count, chance, "greater").pvalue < level)
    checks = []
    for name, features in clues.items():
        hits = int((_answers(features, labels[:half], classes) == labels[half:]).sum())
        what = f"accuracy of a probe of {name} that does not see the ground truth's pixels (chance {chance:.3f})"
        checks.append(Check("class-background independence", what, hits / count, limit / count, hits < limit))
    return checks


def _answers(features: np.ndarray, known: np.ndarray, classes: int) -> np.ndarray:
    """Classes of the rows after those with `known` labels: ridge regression with a Gaussian kernel of median width."""
    fitted = features[: len(known)]
    scaled = (features - fitted.mean(0)) / (fitted.std(0) + 1e-6)
    lengths, near = (scaled**2).sum(1), scaled[: len(known)]
    squared = np.maximum(lengths[:, None] + lengths[: len(known)] - 2 * scaled @ near.T, 0)
    among = squared[: len(known)][~np.eye(len(known), dtype=bool)]
    kernel = np.exp(-squared / max(float(np.median(among)), 1e-12))
    wanted = np.eye(classes)[known] - 1 / classes
    weights = np.linalg.solve(kernel[: len(known)] + 1e-2 * np.eye(len(known)), wanted)
    return np.round(kernel[len(known) :] @ weights, 9).argmax(1)


def _clues(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What a probe sees of an image: colours on a 12 × 12 grid, and the quantiles of each channel."""
    small = np.asarray(Image.fromarray(pixels).resize((12, 12), Image.Resampling.BOX), np.float64).ravel()
    spread = np.quantile(pixels.reshape(-1, 3), np.linspace(0, 1, 9), axis=0).ravel()
    return {"colours on a grid": small / 255, "quantiles of colours": spread / 255}


def disjointness(shapes: Shapes, backgrounds: Iterable[str]) -> Check:
    """No background of the set is one of another split: whole files of a folder, pixels of procedural ones.

    backgrounds: digests of those of the set.
    """
    mine = {digest for digest, _ in shapes.photographs} or set(backgrounds)
    shared = 0
    for split in set(SPLITS) - {shapes.split}:
        other = replace(shapes, split=split, n=_COMPARED)
        theirs = {digest for digest, _ in other.photographs}
        shared += len(mine & (theirs or {_digest(other.background(i)) for i in range(_COMPARED)}))
    return Check("split disjointness", "backgrounds that are in another split too", shared, 0, shared == 0)


def _digest(pixels: np.ndarray) -> str:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()


def perfect_agreement(scene: Scene, geometry: Geometry) -> float:
    """The share of a perfect map and the mask that agree, up to interpolated edges; NaN without ground truth in sight.

    The perfect map is read off the network's input: where it changes by more than .1 when the ground truth's pixels
    are replaced by the background. Interpolation blurs an edge over two pixels of the image or of the input, whichever
    are larger; a pixel of either that has one of the other so near agrees.
    """
    mask = geometry.mask(scene.mask)
    bare, there = (geometry.image(Image.fromarray(one)) for one in (scene.hidden, scene.pixels))
    changed = (there - bare).abs().amax(0) > _VISIBLE
    if not mask.any() or not changed.any():
        return math.nan
    scale = max(1.0, max(there.shape[1] / scene.mask.shape[0], there.shape[2] / scene.mask.shape[1]))
    reach = math.ceil(2 * scale)
    alone = (mask & ~_widened(changed, reach)) | (changed & ~_widened(mask, reach))
    return 1 - float(alone.sum() / (mask | changed).sum())


def _widened(mask: torch.Tensor, reach: int) -> torch.Tensor:
    return F.max_pool2d(mask[None, None].float(), 2 * reach + 1, 1, reach)[0, 0] > 0


def _alignment(geometry: str, shares: Sequence[float]) -> Check:
    known = [share for share in shares if not math.isnan(share)]
    value = float(np.mean(known)) if known else math.nan
    what = f"agreement of a perfect map with the mask, up to interpolated edges, {geometry}"
    return Check("mask alignment", what, value, _PERFECT, value >= _PERFECT)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)

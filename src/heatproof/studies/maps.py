"""The maps that a job stores beside its rows, in `maps/KEY.npz`.

    values, scale      raw maps at layer resolution under every condition, half precision: `values × scale`,
                       `(methods, conditions, n, *spatial)`, of the methods that read the study's own layer; NaN
                       under conditions that give the network images of another size
    display            display maps of some images, uint8 `(methods, n, h, w)`, 255 for 1, for a study with one
                       condition: its gallery then needs no network

`methods`, `conditions`, `images` and `display_methods`, `display_images` name the entries along the axes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from heatproof.transfers import on_host

#: Display maps are stored for KEPT images of a dataset, which are chosen as a limit chooses, with a longest side of at
#: most SIDE pixels.
KEPT, SIDE = 128, 112


@dataclass
class KeptMaps:
    """Maps of some images of a job; `arrays` joins several.

    raw: the raw maps of all methods, for each condition; display: method → maps of `shown`.
    """

    images: Sequence[str] = ()
    methods: Sequence[str] = ()
    conditions: Sequence[str] = ()
    raw: list[list[torch.Tensor]] = field(default_factory=list)
    shown: Sequence[str] = ()
    display: dict[str, np.ndarray] = field(default_factory=dict)

    def add_raw(self, maps: Sequence[torch.Tensor]) -> None:
        """The raw maps `(n, *spatial)` of all methods under the next condition."""
        if maps:
            self.raw.append([one.float() for one in on_host(maps)])

    def add_display(self, method: str, maps: torch.Tensor) -> None:
        """The display maps `(n, *size)` of a method on the images of `shown`."""
        self.display[method] = small(maps)


def arrays(parts: Sequence[KeptMaps]) -> dict[str, np.ndarray]:
    """The arrays of a job's file; empty without maps."""
    found: dict[str, np.ndarray] = {}
    raw = [part for part in parts if part.raw]
    if raw:
        whole = max((one.shape[1:] for part in raw for one in part.raw[0]), key=math.prod)  # of the reference
        packed = [[half_precision(maps, whole) for maps in part.raw] for part in raw]
        for position, name in enumerate(("values", "scale")):
            found[name] = np.concatenate([np.stack([one[position] for one in part], 1) for part in packed], 2)
        found |= {"methods": np.array(raw[0].methods), "conditions": np.array(raw[0].conditions)}
        found["images"] = np.array([image for part in raw for image in part.images])
    display = [part for part in parts if part.display]
    if display:
        methods = list(display[0].display)
        found["display"] = np.stack([np.concatenate([part.display[method] for part in display]) for method in methods])
        found["display_methods"] = np.array(methods)
        found["display_images"] = np.array([image for part in display for image in part.shown])
    return found


def half_precision(maps: Sequence[torch.Tensor], whole: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The maps divided by their largest magnitudes, float16 `(methods, n, *spatial)`; the magnitudes `(methods, n)`.

    A map of another shape is that of a method that failed, or of an image of another size, and becomes NaN.
    """
    blank = torch.full((len(maps[0]), *whole), torch.nan)
    raw = torch.stack([one if one.shape == blank.shape else blank for one in maps])
    scale = raw.flatten(2).abs().amax(2).nan_to_num(1.0, 1.0, 1.0).clamp_min(1e-30)
    values = raw / scale.view(*scale.shape, *[1] * (raw.dim() - 2))
    return values.cpu().numpy().astype(np.float16), scale.cpu().numpy()


def small(maps: torch.Tensor) -> np.ndarray:
    """Display maps as uint8, averaged over blocks so that the longest side is at most SIDE."""
    scale = min(1.0, SIDE / max(maps.shape[1:]))
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in maps.shape[1:])
        maps = torch.nn.functional.adaptive_avg_pool2d(maps[:, None].float(), (height, width))[:, 0]
    return (maps * 255).round().byte().cpu().numpy()

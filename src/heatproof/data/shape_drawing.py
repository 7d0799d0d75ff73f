"""What Shapes are drawn of: figures, colours that stand out, and procedural backgrounds.

Only `Generator.random`, elementary arithmetic, square roots and cosines decide a pixel, so an image is the same on
every machine.
"""

import math

import numpy as np

CLASSES = (
    "circle-filled",
    "square-filled",
    "triangle-filled",
    "circle-outline",
    "square-outline",
    "triangle-outline",
)
#: Contrast rule: at most this share of the background around the shape may lie nearer than `NEAR` to its
#: colour (Euclidean distance in RGB, 0 … 255).
NEAR_SHARE, NEAR = 0.05, 80.0
_COLOUR_TRIES = 100
_LEAVES = 260


def drawn(kind: str, image: int, size: int, centre: tuple[float, float], angle: float) -> np.ndarray:
    """The pixels of one shape, bool `(image, image)`; `kind` from `CLASSES`, `centre` (y, x)."""
    shape, _, style = kind.partition("-")
    y, x = centres(image)
    y, x = y - centre[0], x - centre[1]
    cos, sin = math.cos(angle), math.sin(angle)
    depth = _DEPTHS[shape](cos * x + sin * y, cos * y - sin * x, size)
    inside = depth >= 0
    return inside & (depth < size // 5) if style == "outline" else inside


def _circle(u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    return size / 2 - np.sqrt(u * u + v * v)


def _square(u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    return size / 2 - np.maximum(np.abs(u), np.abs(v))


def _triangle(u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    """Equilateral, of height `size`, centred on its centroid, which lies size / 3 from each side."""
    slanted = np.abs(u) * (math.sqrt(3) / 2) - v / 2
    return size / 3 - np.maximum(slanted, v)


#: How deep inside the shape a point lies, in pixels; negative outside.
_DEPTHS = {"circle": _circle, "square": _square, "triangle": _triangle}


def margin(size: int) -> float:
    """Half the box that holds every shape of this size however turned (half a square's diagonal)."""
    return size / math.sqrt(2) + 1


def centres(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The y `(size, 1)` and x `(1, size)` of the centres of the pixels."""
    line = np.arange(size) + 0.5
    return line[:, None], line[None, :]


def dead_leaves(size: int, stream: np.random.Generator) -> np.ndarray:
    """Opaque bent leaves over one another, uint8 `(size, size, 3)`; edges and scales as in natural images.

    Radii follow the density r⁻³ between size/24 and size/2 (Lee, Mumford & Huang 2001: scale invariance). A
    leaf is {u² + ((v + b(u² − ½)) / a)² ≤ 1} with a ≤ .6, so none is a circle, a square or a triangle. Half
    of each leaf's colour is the image's own tint.
    """
    tint = stream.random(3)
    u = stream.random((_LEAVES, 10))
    low, high = size / 24, size / 2
    radius = 1 / np.sqrt(low**-2 - u[:, 0] * (low**-2 - high**-2))
    cy, cx = ((u[:, k] * 1.4 - 0.2) * size for k in (1, 2))
    colours = np.floor((u[:, 3:6] + tint) * 127.99).astype(np.uint8)
    aspect, bend = 0.3 + 0.3 * u[:, 6], 1.6 * u[:, 7] - 0.8
    turn = 2 * math.pi * u[:, 8]
    cos, sin = np.cos(turn) / radius, np.sin(turn) / radius
    canvas = np.empty((size, size, 3), np.uint8)
    canvas[:] = np.floor((tint + 0.5) * 127.99).astype(np.uint8)
    line = np.arange(size) + 0.5
    for k in range(_LEAVES):
        reach = 1.45 * radius[k]
        top, bottom = max(0, int(cy[k] - reach)), min(size, int(cy[k] + reach) + 1)
        left, right = max(0, int(cx[k] - reach)), min(size, int(cx[k] + reach) + 1)
        if top >= bottom or left >= right:
            continue
        y, x = (line[top:bottom] - cy[k])[:, None], line[left:right] - cx[k]
        along, across = cos[k] * x + sin[k] * y, cos[k] * y - sin[k] * x
        squared = along * along
        bent = (across + bend[k] * (squared - 0.5)) / aspect[k]
        canvas[top:bottom, left:right][squared + bent * bent <= 1] = colours[k]
    return canvas


def standing_out(
    background: np.ndarray, centre: tuple[float, float], size: int, stream: np.random.Generator
) -> np.ndarray:
    """A colour for a shape, uint8 `(3,)`: of 100 draws the first that stands out from the background around it.

    Where none does, it is the one that stands out most. "Around" is the disc that holds the shape of any class, so the
    colour depends on the background, never on the class.
    """
    y, x = centres(len(background))
    disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= margin(size) ** 2
    around = background[disc].astype(np.float64)
    candidates = np.floor(stream.random((_COLOUR_TRIES, 3)) * 256)
    best, share = candidates[0], 2.0
    for candidate in candidates:
        near = float((((around - candidate) ** 2).sum(1) < NEAR**2).mean())
        if near < share:
            best, share = candidate, near
        if share <= NEAR_SHARE:
            break
    return best.astype(np.uint8)

"""Slow references of the methods that cover parts of the image: loops over one number at a time, in float64."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

Game = Callable[[np.ndarray], float]


class Selection:
    """What the engine hands over as `score`, for a module that takes z; notes the rows of every pass."""

    def __init__(self, module: nn.Module, target: Sequence[int]):
        self.module, self.target, self.rows = module, torch.as_tensor(target), []

    def __call__(self, z: torch.Tensor, rows: int | torch.Tensor | None = None, of: str = "output") -> torch.Tensor:
        self.rows.append(len(z))
        target = self.target if rows is None else self.target[rows]
        logits = self.module(z)
        answers = logits.softmax(1) if of == "probability" else logits
        return answers.gather(1, target.expand(len(z))[:, None])[:, 0]


def game_of(module: nn.Module, target: int, of: str = "logit") -> Game:
    """One image `(3, H, W)` → the target's score, all in float64."""
    double = module.double()

    def play(image: np.ndarray) -> float:
        with torch.no_grad():
            logits = double(torch.from_numpy(image)[None])[0]
        return float((logits.softmax(0) if of == "probability" else logits)[target])

    return play


def stretched(values: np.ndarray, length: int, aligned: bool = False) -> np.ndarray:
    """A line of numbers brought to `length` by linear interpolation between the centres of its cells."""
    count, found = len(values), np.zeros(length)
    for i in range(length):
        position = i * (count - 1) / max(1, length - 1) if aligned else (i + 0.5) * count / length - 0.5
        position = min(max(position, 0.0), count - 1.0)
        left = math.floor(position)
        right = min(left + 1, count - 1)
        found[i] = (1 - (position - left)) * values[left] + (position - left) * values[right]
    return found


def enlarged(image: np.ndarray, size: Sequence[int], aligned: bool = False) -> np.ndarray:
    """The same along every axis."""
    for axis, length in enumerate(size):
        image = np.apply_along_axis(stretched, axis, image, length, aligned)
    return image


Variants = Callable[[np.ndarray, int], Sequence[np.ndarray]]


def scorecam(
    activations: np.ndarray,
    z: np.ndarray,
    fill: np.ndarray,
    game: Game,
    aligned: bool = False,
    variants: Variants = lambda mask, _channel: [mask],
) -> np.ndarray:
    """One image: `(C, h, w)`, `(3, H, W)`, what stands where the mask is 0 → `(h, w)`; the mean over the variants."""
    increase = []
    for number, channel in enumerate(activations):
        large = enlarged(channel, z.shape[1:], aligned)
        span = large.max() - large.min()
        mask = (large - large.min()) / span if span > 0 else np.zeros_like(large)
        games = [game(z * one + fill * (1 - one)) - game(fill) for one in variants(mask, number)]  # over the baseline
        increase.append(sum(games) / len(games))
    raised = [math.exp(value) for value in increase]
    return sum(r / sum(raised) * channel for r, channel in zip(raised, activations, strict=True))


def rise_masks(uniform: np.ndarray, grid: int, probability: float, size: Sequence[int]) -> list[np.ndarray]:
    """The paper's masks from rows of uniforms: bits first, then one number for the crop along each axis."""
    found, dims = [], len(size)
    for row in uniform:
        bits = (row[: grid**dims] < np.float32(probability)).astype(float).reshape([grid] * dims)
        cells = [math.ceil(side / grid) for side in size]
        large = enlarged(bits, [(grid + 1) * cell for cell in cells])
        starts = [math.floor(share * cell) for share, cell in zip(row[grid**dims :], cells, strict=True)]
        found.append(large[tuple(slice(a, a + side) for a, side in zip(starts, size, strict=True))])
    return found


def rise(masks: Sequence[np.ndarray], probability: float, z: np.ndarray, fill: np.ndarray, game: Game) -> np.ndarray:
    total = np.zeros(z.shape[1:])
    for mask in masks:
        total += game(z * mask + fill * (1 - mask)) * mask
    return total / (probability * len(masks))


def shapley(segments: np.ndarray, z: np.ndarray, fill: np.ndarray, game: Game) -> list[float]:
    """Exact Shapley values: every coalition of every other segment."""
    count = int(segments.max()) + 1

    def worth(coalition: Sequence[int]) -> float:
        there = np.isin(segments, list(coalition))
        return game(np.where(there, z, fill))

    values = []
    for one in range(count):
        others, total = [k for k in range(count) if k != one], 0.0
        for size in range(count):
            for some in itertools.combinations(others, size):
                weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
                total += weight * (worth([*some, one]) - worth(some))
        values.append(total)
    return values


def weighted_lasso(x: np.ndarray, y: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """Minimises 1 / (2 Σw) Σ w (y − b − x·β)² + alpha |β|, by descending one coefficient at a time."""
    share = weights / weights.sum()
    x = x - share @ x
    y = y - share @ y
    beta = np.zeros(x.shape[1])
    for _ in range(2000):
        for j in range(len(beta)):
            rest = y - x @ beta + x[:, j] * beta[j]
            slope, curve = share @ (x[:, j] * rest), share @ (x[:, j] ** 2)
            beta[j] = math.copysign(max(0.0, abs(slope) - alpha), slope) / curve if curve > 0 else 0.0
    return beta


def occlusion(
    z: np.ndarray, fill: np.ndarray, game: Game, window: tuple[int, int], stride: tuple[int, int]
) -> tuple[np.ndarray, int]:
    """The mean loss over the squares that cover each pixel, and how many squares there were."""
    height, width = z.shape[1:]
    whole, lost, covered = game(z), np.zeros((height, width)), np.zeros((height, width))
    starts = [
        [step * k for k in range(math.ceil((side - size) / step) + 1)]
        for side, size, step in zip((height, width), window, stride, strict=True)
    ]
    for top, left in itertools.product(*starts):
        square = np.zeros((height, width), dtype=bool)
        square[top : top + window[0], left : left + window[1]] = True
        lost += square * (whole - game(np.where(square, fill, z)))
        covered += square
    return lost / covered, len(starts[0]) * len(starts[1])

"""Slow references of the methods that optimise something for each image: one image, one number at a time, float64.

Masks are built by loops into matrices, so that the objectives are written as in the papers; their derivatives are
autograd's, and the steps (Adam, momentum) are made by hand.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from .reference_masks import enlarged

Score = Callable[[torch.Tensor], torch.Tensor]


def score_of(module: torch.nn.Module, target: int, of: str = "logit") -> Score:
    """One image `(C, *size)` → the target's score; the module is in float64."""

    def score(image: torch.Tensor) -> torch.Tensor:
        logits = module(image[None])[0]
        return (logits.softmax(0) if of == "probability" else logits)[target]

    return score


def adam(parameters: np.ndarray, slope: Callable[[np.ndarray, int], np.ndarray], steps: int, lr: float) -> np.ndarray:
    """Kingma & Ba 2015, algorithm 1, descending; `slope(parameters, step)`. In [0, 1] where `slope.box`."""
    first, second = np.zeros_like(parameters), np.zeros_like(parameters)
    for step in range(1, steps + 1):
        g = slope(parameters, step - 1)
        for at in np.ndindex(parameters.shape):
            first[at] = 0.9 * first[at] + 0.1 * g[at]
            second[at] = 0.999 * second[at] + 0.001 * g[at] ** 2
            corrected = first[at] / (1 - 0.9**step), second[at] / (1 - 0.999**step)
            parameters[at] -= lr * corrected[0] / (math.sqrt(corrected[1]) + 1e-8)
            if getattr(slope, "box", False):
                parameters[at] = min(1.0, max(0.0, parameters[at]))
    return parameters


def slope_of(objective: Callable, parameters: np.ndarray, *more) -> np.ndarray:
    leaf = torch.tensor(parameters, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        total = objective(leaf, *more)
    return torch.autograd.grad(total, leaf)[0].numpy()


def matrix(change: Callable[[np.ndarray], np.ndarray], size: Sequence[int]) -> torch.Tensor:
    """A linear change of images of `size` as a matrix, one unit pixel after the other."""
    columns = []
    for at in np.ndindex(*size):
        unit = np.zeros(size)
        unit[at] = 1
        columns.append(change(unit).ravel())
    return torch.from_numpy(np.stack(columns, 1))


def opticam(maps: np.ndarray, z: torch.Tensor, fill: torch.Tensor, score: Score, steps: int, lr: float) -> np.ndarray:
    """`(C, h, w)` and `(3, H, W)` → `(h, w)`."""
    size = tuple(z.shape[1:])
    maps = np.maximum(maps, 0)
    large = torch.stack([torch.from_numpy(enlarged(channel, size)) for channel in maps])

    def objective(u: torch.Tensor) -> torch.Tensor:
        raised = u.exp()
        mask = sum(raised[k] / raised.sum() * large[k] for k in range(len(large)))
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        return -score(z * mask + fill * (1 - mask))

    u = adam(np.zeros(len(maps)), lambda u, _: slope_of(objective, u), steps, lr)
    w = np.exp(u) / np.exp(u).sum()
    return sum(w[k] * maps[k] for k in range(len(maps)))


def smooth_mask(parameters: torch.Tensor, size: Sequence[int], cell: int, sigma: float) -> torch.Tensor:
    """Fong et al. 2019, eq. 8, with TorchRay's kernel: for every pixel the smooth maximum over the cells around it;
    outside the image those of the border go on."""
    radius, found = 1 + math.ceil(sigma / cell), []
    for pixel in np.ndindex(*size):
        values = []
        for away in np.ndindex(*[2 * radius + 1] * len(size)):
            at = tuple(p // cell + a - radius for p, a in zip(pixel, away, strict=True))
            distance = math.sqrt(sum((p - cell * i) ** 2 for p, i in zip(pixel, at, strict=True)))
            kernel = math.exp(-2 * max(0.0, distance / sigma - 0.5) ** 2)
            inside = tuple(min(n - 1, max(0, i)) for i, n in zip(at, parameters.shape, strict=True))
            values.append(kernel * parameters[inside])
        stacked = torch.stack(values)
        found.append((stacked * (20 * stacked).softmax(0)).sum())
    return torch.stack(found).view(*size)


def excess(mask: torch.Tensor, area: float) -> torch.Tensor:
    """Against a ramp; pixels that are equal to the quantile share what is left for them."""
    values = mask.detach().flatten().tolist()
    cut = int(len(values) * (1 - area))
    quantile = sorted(values)[cut]
    above = sum(v > quantile + 1e-5 for v in values)
    tied = sum(abs(v - quantile) <= 1e-5 for v in values)
    total = torch.zeros((), dtype=mask.dtype)
    for value in mask.flatten():
        share = (len(values) - cut - above) / tied if abs(value.item() - quantile) <= 1e-5 else float(value > quantile)
        total = total + (value - share) ** 2
    return total / len(values)


def through(levels: Sequence[torch.Tensor], mask: torch.Tensor) -> torch.Tensor:
    """Every pixel from between two of the levels."""
    columns = []
    for at in np.ndindex(*mask.shape):
        position = mask[at] * (len(levels) - 1)
        low = min(len(levels) - 2, math.floor(position.item()))
        below, above = (levels[low + k][(slice(None), *at)] for k in (0, 1))
        columns.append(below + (position - low) * (above - below))
    return torch.stack(columns, 1).view(-1, *mask.shape)


def extremal(
    levels: Sequence[torch.Tensor], score: Score, area: float, steps: int, cell: int, sigma: float, variant: str
) -> np.ndarray:
    """`levels`: the image `(3, H, W)`, most blurred first."""
    size = tuple(levels[0].shape[1:])

    def objective(parameters: torch.Tensor, step: int) -> torch.Tensor:
        mask = smooth_mask(parameters, size, cell, sigma)

        def reward(shown: torch.Tensor) -> torch.Tensor:
            image = through(levels, shown)
            return score(image.flip(-1) if step % 2 == 0 else image)

        gain = reward(mask) if variant != "delete" else 0
        gain = gain - (reward(1 - mask) if variant != "preserve" else 0)
        return gain - 300 * 1.0035**step * excess(mask, area)

    parameters = np.ones([math.ceil(side / cell) for side in size])
    momentum = np.zeros_like(parameters)
    for step in range(steps):
        g = slope_of(objective, parameters, step)
        momentum = g if step == 0 else 0.9 * momentum + 0.1 * g
        parameters = np.clip(parameters + 0.01 * momentum, 0, 1)
    return smooth_mask(torch.from_numpy(parameters), size, cell, sigma).numpy()


def blurred_line(line: np.ndarray, sigma: float, reach: int) -> np.ndarray:
    """A line under a Gaussian of `2 reach + 1` taps, mirrored at the ends (repeated where it is too short)."""
    count, found = len(line), np.zeros(len(line))
    bell = [math.exp(-0.5 * (tap / sigma) ** 2) for tap in range(-reach, reach + 1)]
    for i in range(count):
        for tap in range(-reach, reach + 1):
            at = i + tap
            if count > reach:
                at = -at if at < 0 else 2 * (count - 1) - at if at >= count else at
            found[i] += bell[tap + reach] / sum(bell) * line[min(count - 1, max(0, at))]
    return found


def blurred(image: np.ndarray, sigma: float, reach: int | None = None) -> np.ndarray:
    reach = math.ceil(4 * sigma) if reach is None else reach
    for axis in range(image.ndim):
        image = np.apply_along_axis(blurred_line, axis, image, sigma, reach)
    return image


def meaningful(
    z: torch.Tensor,
    behind: torch.Tensor,
    score: Score,
    shifts: np.ndarray,
    start: np.ndarray,
    l1: float,
    tv: float,
    lr: float,
) -> np.ndarray:
    """`shifts` `(steps, dims)`; `start` is the mask on its grid."""
    size = tuple(z.shape[1:])
    smoothing = 5 * max(size) / 224
    enlarge = matrix(lambda image: blurred(enlarged(image, size), smoothing), start.shape)

    def moved(image: torch.Tensor, shift: np.ndarray) -> torch.Tensor:
        found = torch.empty_like(image)
        for at in np.ndindex(*size):
            source = tuple(min(n - 1, max(0, i + int(s))) for i, s, n in zip(at, shift, size, strict=True))
            found[(slice(None), *at)] = image[(slice(None), *source)]
        return found

    def objective(mask: torch.Tensor, step: int) -> torch.Tensor:
        large = (enlarge @ mask.flatten()).view(*size)
        one, other = moved(z, shifts[step]), moved(behind, shifts[step])
        rough = torch.zeros((), dtype=mask.dtype)
        for at in np.ndindex(*mask.shape):
            for dim in range(mask.dim()):
                beside = tuple(i + (d == dim) for d, i in enumerate(at))
                if beside[dim] < mask.shape[dim]:
                    rough = rough + (mask[beside] - mask[at]).abs() ** 3
        return l1 * (1 - mask).abs().sum() + tv * rough + score(one * large + other * (1 - large))

    def slope(mask: np.ndarray, step: int) -> np.ndarray:
        return slope_of(objective, mask, step)

    slope.box = True
    mask = adam(start.copy(), slope, len(shifts), lr)
    return 1 - (enlarge @ torch.from_numpy(mask).flatten()).view(*size).numpy()


def first_disc(size: Sequence[int], grid: Sequence[int], left: Callable[[np.ndarray], float]) -> np.ndarray:
    """The smallest disc that leaves a hundredth; `left`: a mask → the score behind it."""
    scale = max(size) / 224
    whole, none = left(np.ones(size)), left(np.zeros(size))
    for radius in range(0, 175, 5):
        disc = np.zeros(size)
        for at in np.ndindex(*size):
            from_middle = math.sqrt(sum((i - (n - 1) / 2) ** 2 for i, n in zip(at, size, strict=True)))
            disc[at] = from_middle < radius * scale
        mask = 1 - blurred(disc, 10 * scale)
        if left(mask) - none <= 0.01 * (whole - none):
            break
    return enlarged(mask, grid)


def bottleneck(
    activations: np.ndarray,
    mean: np.ndarray,
    deviation: np.ndarray,
    logits: Callable[[torch.Tensor], torch.Tensor],
    target: int,
    noise: np.ndarray,
    beta: float,
    lr: float,
    sigma: float,
    alpha: float,
) -> np.ndarray:
    """One image `(C, *spatial)`; `noise` `(steps, samples, C, *spatial)`; `logits`: `(C, *spatial)` → `(K,)`."""
    spatial = activations.shape[1:]
    smooth = matrix(lambda image: blurred(image, sigma, round(2 * sigma)), spatial)
    alive, deviation = deviation > 0, np.maximum(deviation, 0.01)
    normal = torch.from_numpy((activations - mean) / deviation)
    mean, deviation, alive = torch.from_numpy(mean), torch.from_numpy(deviation), torch.from_numpy(alive)

    def share(parameters: torch.Tensor) -> torch.Tensor:
        raw = 1 / (1 + torch.exp(-parameters))
        return torch.stack([(smooth @ channel.flatten()).view(*spatial) for channel in raw])

    def divergence(kept: torch.Tensor) -> torch.Tensor:
        variance = (1 - kept) ** 2
        nats = -0.5 * (1 + variance.log() - (kept * normal) ** 2 - variance)
        return nats * alive

    def objective(parameters: torch.Tensor, step: int) -> torch.Tensor:
        kept, wrong = share(parameters), torch.zeros((), dtype=torch.float64)
        for one in noise[step]:
            noisy = (kept * normal + (1 - kept) * torch.from_numpy(one)) * deviation + mean
            answer = logits(noisy * alive + mean * ~alive)
            wrong = wrong + (answer.exp().sum().log() - answer[target]) / len(noise[step])
        return wrong + beta * divergence(kept).mean()

    start = np.full(activations.shape, alpha)
    found = adam(start, lambda parameters, step: slope_of(objective, parameters, step), len(noise), lr)
    return divergence(share(torch.from_numpy(found))).sum(0).numpy() / math.log(2)

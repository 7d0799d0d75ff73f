"""Infidelity: does the change of the output that a map predicts agree with the actual one?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from heatproof.errors import InvalidInput
from heatproof.masking import checked_fill, ground, masked
from heatproof.metrics.catalogue import metric
from heatproof.metrics.sampling import answer, signed, silent, streamed
from heatproof.passes import check_int
from heatproof.registry import unknown
from heatproof.tensors import per_image
from heatproof.transfers import on_device

#: The largest square, as a share of the shorter side: 10 of MNIST's 28 pixels in Yeh et al.'s code.
LARGEST = 10 / 28


@metric(
    "infidelity",
    family="fidelity",
    better="low",
    range=(0, None),
    passes="samples forwards, once for all methods",
    undefined="the network has no answer to a changed image",
    values="units",
    source="Yeh et al. 2019, definition 2.1",
)
def infidelity(
    x: torch.Tensor,
    z: torch.Tensor,
    logits: torch.Tensor,
    target: torch.Tensor,
    p: torch.Tensor,
    maps: torch.Tensor,
    raw: torch.Tensor,
    score,
    generator,
    shared,
    *,
    perturbation: str = "square",
    samples: int = 100,
    normalise: bool = True,
    sigma: float = 0.2,
    fill: str = "mean",
    of: str = "logit",
) -> torch.Tensor:
    """Mean squared error of the change that the map predicts: `E[(Iᵀ Φ − (f(x) − f(x − I)))²]` over random changes I.

    Φ is the signed map. `(N,)`, at least 0, in squares of f, lower is better. `normalise` multiplies Φ by
    `β = E[Iᵀ Φ Δ] / E[(Iᵀ Φ)²]`, Δ the drop of f, as the authors' code and Captum do; the value is then at most
    `E[Δ²]`, that of a degenerate map. Without it Φ must be in the units of f, which CAMs are not. β may be negative: a
    map and its negative score the same.

    `square`: a square of pixels, with sides up to 10/28 of the shorter side and every one as likely, is replaced by
    `fill`. Φ is a contribution, as from IG or a CAM, and I is 1 inside: Iᵀ Φ is the sum of the map there, channels
    included.
    `gaussian`: I ~ N(0, sigma²) in z, each pixel and channel by itself. Φ is a slope, as from `gradient`; a map of one
    channel has the same slope for all channels, so Iᵀ Φ multiplies each pixel by the sum of I over the channels.
    `noisy-baseline`: the same with I = z − ε, that is, the network's input is ε ~ N(0, sigma²) alone.

    The code of Yeh et al. 2019 averages over all squares of an MNIST digit, and over 10000 images of noise (σ .2 in
    x, clipped).

    Args:
        perturbation: one of `square`, `gaussian`, `noisy-baseline`.
        samples: number of changes of each image; they are the same for every method.
        normalise: scale the map to fit best.
        sigma: standard deviation of the noise, in z.
        fill: what a square is replaced by.
        of: `logit` or `probability`.
    """
    if perturbation not in PERTURBATIONS:
        raise unknown("`perturbation`", str(perturbation), PERTURBATIONS)
    if not 0 < sigma < float("inf"):
        raise InvalidInput(f"`sigma` must be above 0. Got {sigma!r}.")
    setting, samples = InfidelitySetting(z, ground(checked_fill(fill), x, z), sigma), check_int("samples", samples)
    key = (perturbation, samples, sigma, fill, of)
    explained, known = _weights(raw, maps), shared.get(key)

    def compared(rows: torch.Tensor, turn: torch.Tensor, owners: Sequence[int]) -> torch.Tensor:
        factor, changed = PERTURBATIONS[perturbation](setting, rows, [generator[row] for row in owners])
        attributed = (explained[rows] * factor).flatten(1).sum(1)
        # The changes are the same for every map, and so are the outputs.
        return torch.stack([attributed, score(changed, rows, of=of) if known is None else known[rows, turn]], 1)

    attributed, shared[key] = streamed(len(z), samples, z, compared).unbind(2)
    observed = answer(of, logits, target, p)[:, None] - shared[key]
    return (
        (attributed * _scale(attributed, observed) - observed if normalise else attributed - observed).square().mean(1)
    )


def _scale(attributed: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """The factor by which `attributed` is nearest to `observed`, `(N, 1)`; 0 where it is zero throughout."""
    size = attributed.square().sum(1, keepdim=True)
    return torch.where(size > 0, (attributed * observed).sum(1, keepdim=True) / size, 0.0)


def _weights(raw: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Φ `(N, channels or 1, *size)` float64: channels are kept if the method has them; zeros for a degenerate map."""
    if raw.dim() != maps.dim() + 1:
        return signed(raw, maps)[:, None]
    return torch.where(per_image(silent(raw, maps), raw), 0.0, raw.double())


@dataclass(frozen=True)
class InfidelitySetting:
    """What random changes are made from: the images, their background, and the std of the noise."""

    z: torch.Tensor
    background: torch.Tensor
    sigma: float


Change = Callable[[InfidelitySetting, torch.Tensor, Sequence[torch.Generator]], tuple[torch.Tensor, torch.Tensor]]


def _square(setting: InfidelitySetting, rows: torch.Tensor, generator: Sequence[torch.Generator]):
    size = setting.z.shape[2:]
    gone = on_device(torch.stack([random_square(tuple(size), one) for one in generator]), setting.z.device)
    return gone[:, None].double(), masked(setting.z[rows], ~gone, setting.background[rows])


def _gaussian(setting: InfidelitySetting, rows: torch.Tensor, generator: Sequence[torch.Generator]):
    noise = _noise(setting, generator)
    return noise.double(), setting.z[rows] - noise


def _noisy_baseline(setting: InfidelitySetting, rows: torch.Tensor, generator: Sequence[torch.Generator]):
    noise = _noise(setting, generator)
    return (setting.z[rows] - noise).double(), noise


#: Random changes by name: → what multiplies Φ, `(M, channels or 1, *size)`, and the changed images.
PERTURBATIONS: dict[str, Change] = {"square": _square, "gaussian": _gaussian, "noisy-baseline": _noisy_baseline}


def _noise(setting: InfidelitySetting, generator: Sequence[torch.Generator]) -> torch.Tensor:
    drawn = torch.stack([torch.randn(setting.z.shape[1:], generator=one) for one in generator])
    return drawn.to(setting.z) * setting.sigma


def random_square(size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Bool `(*size)`: a square with sides from 1 to 10/28 of the shorter side, every one as likely as any other.

    There are more positions for a small square than for a large one, so small ones come more often.
    """
    sides = range(1, max(1, int(LARGEST * min(size))) + 1)
    positions = [torch.tensor([length - side + 1 for length in size]) for side in sides]
    counts = torch.stack([one.double().prod() for one in positions])
    uniform = torch.rand(1 + len(size), generator=generator, dtype=torch.float64)
    chosen = min(int(torch.searchsorted(counts.cumsum(0), uniform[0] * counts.sum(), right=True)), len(sides) - 1)
    inside = torch.ones(size, dtype=torch.bool)
    for axis, first in enumerate((uniform[1:] * positions[chosen]).long().tolist()):
        along = torch.arange(size[axis]).view(-1, *[1] * (len(size) - axis - 1))
        inside &= (along >= first) & (along < first + sides[chosen])
    return inside

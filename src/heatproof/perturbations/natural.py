"""Natural corruptions (Hendrycks & Dietterich 2019), batched: `(N, 3, H, W)` in [0, 1] → the same.

Every strength is an explicit option; the ladders are ImageNet-C's (protocols, section 3) and agree with the
package `imagecorruptions`. Sizes in pixels are meant for 224² and scale with the shorter side. Random fields
are drawn per image and do not depend on the strength, so severities share them (common random numbers).
Results are clamped to [0, 1]; arguments are never changed; a strength out of range raises InvalidInput.
"""

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from heatproof.perturbations.draws import Generators, normal, uniform
from heatproof.perturbations.ladder import perturbation, within
from heatproof.transfers import on_device

IMAGENET_C = "Hendrycks & Dietterich 2019, arXiv 1903.12261 (ImageNet-C)"

#: The image side for which blur sizes are given.
REFERENCE_SIDE = 224


@perturbation(
    "gaussian-noise",
    ladder={"sigma": (0.08, 0.12, 0.18, 0.26, 0.38)},
    unit="σ, of the range 0–1",
    default=True,
    aliases=("additive-gaussian", "awgn"),
    source=IMAGENET_C,
)
def gaussian_noise(x: torch.Tensor, generator: Generators, *, sigma: float = 0.18) -> torch.Tensor:
    """Adds normal noise to every channel: `x + σ n`, n ~ N(0, 1).

    `sigma` ≥ 0, in units of the range [0, 1]; higher is stronger.
    """
    within("sigma", sigma, 0)
    return (x + sigma * normal(generator, tuple(x.shape[1:]), x)).clamp(0, 1)


@perturbation(
    "salt-and-pepper",
    ladder={"amount": (0.03, 0.06, 0.09, 0.17, 0.27)},
    limit={"amount": 1.0},
    unit="share of values",
    default=True,
    aliases=("impulse", "impulse-noise", "salt-pepper", "s&p"),
    source=IMAGENET_C + "; as skimage.util.random_noise, mode s&p",
)
def salt_and_pepper(x: torch.Tensor, generator: Generators, *, amount: float = 0.09) -> torch.Tensor:
    """Sets a share of the values to 0 or 1: by one uniform field u, 0 where u < a/2, 1 where u ≥ 1 − a/2.

    Each channel is hit by itself, the one exception to “a pixel is one unit”. What is salted at a low amount
    stays salted at every higher one. `amount` in [0, 1], the expected share of values hit; higher is
    stronger.
    """
    half = within("amount", amount, 0, 1) / 2
    u = uniform(generator, tuple(x.shape[1:]), x)
    peppered = x.masked_fill(u < half, 0)
    return peppered.masked_fill_(u >= 1 - half, 1).clamp_(0, 1)


@perturbation(
    "speckle",
    ladder={"sigma": (0.15, 0.2, 0.35, 0.45, 0.6)},
    unit="σ, of the value",
    default=True,
    aliases=("speckle-noise",),
    source=IMAGENET_C,
)
def speckle(x: torch.Tensor, generator: Generators, *, sigma: float = 0.35) -> torch.Tensor:
    """Multiplies by normal noise: `x + x σ n`, n ~ N(0, 1); black stays black.

    `sigma` ≥ 0, relative to the value; higher is stronger.
    """
    within("sigma", sigma, 0)
    return (x + x * (sigma * normal(generator, tuple(x.shape[1:]), x))).clamp(0, 1)


@perturbation(
    "gaussian-blur",
    ladder={"sigma": (1, 2, 3, 4, 6)},
    unit="σ in pixels at 224",
    default=True,
    source=IMAGENET_C,
)
def gaussian_blur(x: torch.Tensor, *, sigma: float = 3.0) -> torch.Tensor:
    """Convolves with a normal kernel, cut at 4 σ; the border pixel is repeated outside the image.

    Equal to `skimage.filters.gaussian(truncate=4, mode="nearest")`. `sigma` ≥ 0, in pixels of a 224² image
    (it scales with the shorter side); higher is stronger.
    """
    spread = within("sigma", sigma, 0) * _scale(x)
    rows, columns = (on_device(_blur_matrix(side, spread), x.device, x.dtype) for side in x.shape[-2:])
    return (rows @ x @ columns.T).clamp(0, 1)


@perturbation(
    "jpeg",
    ladder={"quality": (25, 18, 15, 10, 7)},
    identity={"quality": 100},
    whole=("quality",),
    unit="quality",
    default=True,
    aliases=("jpeg-compression",),
    source=IMAGENET_C + "; the encoder is Pillow's",
)
def jpeg(x: torch.Tensor, *, quality: float = 15.0) -> torch.Tensor:
    """Writes and reads each image as a JPEG file in memory (Pillow, 4:2:0), from 8-bit values.

    Of another number of channels than three each channel is a grey file.
    `quality` in [1, 100], rounded to an integer; lower is stronger.
    """
    level = round(within("quality", quality, 1, 100))
    pixels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = np.stack([_decoded(image, level) for image in pixels])
    return on_device(torch.from_numpy(decoded).permute(0, 3, 1, 2).contiguous(), x.device).to(x.dtype) / 255


@perturbation(
    "shot",
    ladder={"rate": (60, 25, 12, 5, 3)},
    identity={"rate": math.inf},
    unit="photons at full white",
    aliases=("shot-noise", "poisson", "poisson-noise"),
    source=IMAGENET_C,
)
def shot(x: torch.Tensor, generator: Generators, *, rate: float = 12.0) -> torch.Tensor:
    """Counts photons: `Poisson(λ x) / λ`, each count the exact quantile of one uniform field.

    Through the quantile, severities share their random numbers: a value with many photons for its rate at one λ
    has many at every other. `rate` λ > 0, expected photons of a white value; lower is stronger.
    """
    rate = within("rate", rate, 1e-6)
    u = uniform(generator, tuple(x.shape[1:]), x)
    # A Poisson tail needs float64; Apple's GPU has none, and gets float32.
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    counts = poisson_quantile(u.to(wide), x.to(wide) * rate)
    return (counts / rate).to(x.dtype).clamp(0, 1)


@perturbation(
    "defocus-blur",
    ladder={"radius": (3, 4, 6, 8, 10), "alias": (0.1, 0.5, 0.5, 0.5, 0.5)},
    identity={"radius": 0, "alias": 0.1},
    unit="radius in pixels at 224",
    aliases=("defocus",),
    source=IMAGENET_C,
)
def defocus_blur(x: torch.Tensor, *, radius: float = 6.0, alias: float = 0.5) -> torch.Tensor:
    """Convolves with a disk whose rim a small normal kernel smooths; the image is mirrored at its border.

    At whole radii this is ImageNet-C's kernel (3 taps of smoothing up to radius 8, 5 above) divided by its sum.
    Theirs sums to 1.013 at severity 4 and 1.011 at 5, which brightens. At other radii, as images of other sizes
    need, the kernels of the two neighbouring radii are mixed linearly. `radius` ≥ 0, in pixels of a 224² image
    (it scales with the shorter side). `alias` ≥ 0.001, σ of the smoothing, in pixels; it does not scale, as the
    pixel grid that it hides does not either. Higher is stronger.
    """
    within("alias", alias, 1e-3)
    kernel = disk_kernel(within("radius", radius, 0) * _scale(x), alias)
    padded, kernel = _pad_mirrored(x, kernel.shape[-1] // 2), on_device(kernel, x.device, x.dtype)
    return _convolve(padded, kernel, (x.shape[-2], x.shape[-1])).clamp(0, 1)


@perturbation(
    "motion-blur",
    ladder={"radius": (10, 15, 15, 15, 20), "sigma": (3, 5, 8, 12, 15)},
    unit="radius in pixels at 224",
    aliases=("motion",),
    source=IMAGENET_C,
)
def motion_blur(x: torch.Tensor, generator: Generators, *, radius: float = 15.0, sigma: float = 8.0) -> torch.Tensor:
    """Smears along a line at an angle drawn per image from U(−45°, 45°), the same for every severity.

    One-sided, as a moving camera: `Σ_i w_i x(p + i (sin θ, cos θ))`, i = 0 … 2 radius, `w_i ∝ exp(−i² /
    2σ²)`, the offsets rounded to whole pixels, the border pixel repeated outside. This is ImageMagick's
    kernel, which ImageNet-C calls through Wand, and what `imagecorruptions` computes. It differs from the
    latter in that the trail keeps its full weight where it leaves an image smaller than itself (there it is
    cut and darkens). `radius` and `sigma` ≥ 0, in pixels of a 224² image (both scale with the shorter side;
    a radius between whole numbers gives the last tap a part of its weight); higher is stronger.
    """
    scale = _scale(x)
    weights = trail_weights(within("radius", radius, 0) * scale, within("sigma", sigma, 0) * scale)
    drawn = uniform(generator, (), torch.empty(0, dtype=x.dtype))  # the host needs them
    angles = (drawn.double() * 90 - 45).deg2rad().tolist()
    smeared = [_smear(image, weights, angle) for image, angle in zip(x, angles, strict=True)]
    return torch.stack(smeared).clamp_(0, 1)


@perturbation(
    "brightness",
    ladder={"shift": (0.1, 0.2, 0.3, 0.4, 0.5)},
    unit="added to V, of the range 0–1",
    source=IMAGENET_C,
)
def brightness(x: torch.Tensor, *, shift: float = 0.3) -> torch.Tensor:
    """Adds to the value V of HSV, hue and saturation kept: `V' = clip(V + c)`, V = max of the channels.

    RGB is V times a function of hue and saturation, so the conversion there and back is `x V' / V`; black,
    which has no hue, becomes the grey V'. `shift` in units of the range [0, 1] (negative darkens); higher is
    stronger.
    """
    within("shift", shift, -math.inf)
    value = x.amax(1, keepdim=True)
    shifted = (value + shift).clamp(0, 1)
    black = value == 0
    return torch.where(black, shifted, x * (shifted / value.masked_fill(black, 1))).clamp(0, 1)


@perturbation(
    "contrast",
    ladder={"factor": (0.4, 0.3, 0.2, 0.1, 0.05)},
    identity={"factor": 1},
    unit="factor",
    source=IMAGENET_C,
)
def contrast(x: torch.Tensor, *, factor: float = 0.2) -> torch.Tensor:
    """Pulls every value towards its channel's mean: `(x − m) f + m`, m per image and channel.

    `factor` ≥ 0; 1 leaves the image as it is, lower is stronger.
    """
    within("factor", factor, 0)
    mean = x.mean((-2, -1), keepdim=True)
    return ((x - mean) * factor + mean).clamp(0, 1)


def poisson_quantile(u: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    """The smallest k with `P(Poisson(rate) ≤ k) > u`, elementwise; `u` in [0, 1), `rate` ≥ 0, both float64.

    Starts at the Cornish–Fisher guess with the exact distribution function there (an incomplete gamma
    function) and walks by single probabilities from k to k ± 1, one or two steps.
    """
    z = torch.special.ndtri(u.clamp(1e-12, 1 - 1e-12))
    k = (rate + rate.sqrt() * z + (z * z - 1) / 6).floor().clamp(min=0)
    chance = torch.exp(torch.xlogy(k, rate) - rate - torch.lgamma(k + 1))
    below = torch.special.gammaincc(k + 1, rate)
    low = below <= u
    while bool(low.any()):
        k = k + low
        chance = torch.where(low, chance * rate / k.clamp(min=1), chance)
        # `chance > 0` ends the walk in a tail that has underflowed.
        below, low = torch.where(low, below + chance, below), low & (below + chance <= u) & (chance > 0)
    high = (below - chance > u) & (k > 0)
    while bool(high.any()):
        below = torch.where(high, below - chance, below)
        chance = torch.where(high, chance * k / rate.clamp(min=1e-300), chance)
        k = k - high.to(k.dtype)
        high = high & (below - chance > u) & (k > 0)
    return k


def disk_kernel(radius: float, alias: float) -> torch.Tensor:
    """`(2m + 1, 2m + 1)` float64, sums to 1; between whole radii the mix of the two neighbouring disks."""
    lower = math.floor(radius)
    share = radius - lower
    small = _whole_disk(lower, alias)
    if share == 0:
        return small
    large = _whole_disk(lower + 1, alias)
    margin = (large.shape[0] - small.shape[0]) // 2
    return (1 - share) * F.pad(small, [margin] * 4) + share * large


def trail_weights(radius: float, sigma: float) -> list[float]:
    """The `2 radius + 1` taps of a motion blur, first that of the unmoved image; they sum to 1."""
    length = 2 * radius + 1
    taps = [
        math.exp(-(i**2) / (2 * sigma**2)) * min(1.0, length - i) if i else 1.0
        for i in range(math.ceil(length) if sigma > 0 else 1)
    ]
    return [tap / sum(taps) for tap in taps]


def _scale(x: torch.Tensor) -> float:
    return min(x.shape[-2:]) / REFERENCE_SIDE


def _blur_matrix(side: int, sigma: float) -> torch.Tensor:
    """`(side, side)`: row i holds the weights of the blurred pixel i, the repeats added to the border pixel.

    With so long a kernel a matrix product takes a tenth of a convolution's time on a CPU, and is exact there.
    """
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    # A tiny σ has reach 0: one tap, whatever its weight.
    weights = torch.exp(-0.5 * (offsets.double() / max(sigma, 1e-12)) ** 2)
    weights = weights / weights.sum()
    sources = (torch.arange(side)[:, None] + offsets).clamp(0, side - 1)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, sources, weights.expand(side, -1))


def _whole_disk(radius: int, alias: float) -> torch.Tensor:
    """ImageNet-C's disk: the pixels within the radius, smoothed by 3 taps (5 above radius 8), float64."""
    reach = max(8, radius)
    squared = torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2
    disk = ((squared[:, None] + squared) <= radius**2).double()
    half = 1 if radius <= 8 else 2
    taps = torch.exp(-(torch.arange(-half, half + 1, dtype=torch.float64) ** 2) / (2 * alias**2))
    smoothing = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
    padded = F.pad((disk / disk.sum())[None, None], [half] * 4, mode="reflect")
    smooth = F.conv2d(padded, smoothing)[0, 0]
    # Where the disk touches its edge, mirroring counts some of it twice.
    return smooth / smooth.sum()


def _pad_mirrored(x: torch.Tensor, margin: int) -> torch.Tensor:
    """Pads by reflection about the border pixel's centre, however small the image is."""
    rows, columns = (_mirror_index(side, margin, x.device) for side in x.shape[-2:])
    return x[..., rows, :][..., columns]


def _mirror_index(side: int, margin: int, device: torch.device) -> torch.Tensor:
    period = max(1, 2 * (side - 1))
    index = torch.arange(-margin, side + margin, device=device) % period
    return torch.minimum(index, period - index).clamp(max=side - 1)


def _convolve(padded: torch.Tensor, kernel: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Convolves where the kernel fits inside, by FFT: a tenth of a 21 × 21 convolution's time on a CPU."""
    height, width = (int(side) for side in padded.shape[-2:])
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, s=(height, width))
    whole = torch.fft.irfft2(spectrum, s=(height, width))
    # The circular wrap only reaches the first kernel − 1 rows and columns.
    first = kernel.shape[-1] - 1
    return whole[..., first : first + size[0], first : first + size[1]]


def _smear(image: torch.Tensor, weights: list[float], angle: float) -> torch.Tensor:
    """One `(3, H, W)` image moved along its trail."""
    height, width = image.shape[-2:]
    # ImageMagick's rounding: halves go down.
    steps = [(math.ceil(i * math.sin(angle) - 0.5), math.ceil(i * math.cos(angle) - 0.5)) for i in range(len(weights))]
    reach = max(max(abs(down), abs(right)) for down, right in steps)
    padded = F.pad(image[None], [reach] * 4, mode="replicate")[0]
    smeared = torch.zeros_like(image)
    for weight, (down, right) in zip(weights, steps, strict=True):
        top, left = reach + down, reach + right
        smeared += weight * padded[:, top : top + height, left : left + width]
    return smeared


def _decoded(pixels: np.ndarray, quality: int) -> np.ndarray:
    if pixels.shape[2] == 3:
        return _jpeg_round_trip(pixels, quality)
    return np.stack([_jpeg_round_trip(channel, quality) for channel in np.moveaxis(pixels, 2, 0)], -1)


def _jpeg_round_trip(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))

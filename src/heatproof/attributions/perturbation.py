"""Masks optimised on the image itself: the smallest part that keeps the class, or whose removal loses it.

Lengths are the papers', for images of 224 pixels; they grow and shrink with the image's longer side.
"""

import re
from collections.abc import Iterator, Sequence

import torch

from heatproof.attributions.asking import checked_score, no_gradient
from heatproof.attributions.catalogue import attribution, check_choice
from heatproof.attributions.optimising import Adam, gaussian, gradient, positive, scale
from heatproof.attributions.smoothmask import SmoothMask
from heatproof.errors import InvalidInput
from heatproof.masking import FILLS, ground, masked
from heatproof.passes import check_int, parts, rows_per_pass
from heatproof.tensors import upsampled
from heatproof.transfers import on_device

# --- extremal perturbation ---

#: What is rewarded: the class seen through the mask, its loss behind the mask, or both.
VARIANTS = ("preserve", "delete", "dual")
#: TorchRay's constants: blurs, σ of the strongest (pixels at 224), cells in σ, learning rate, momentum, area weight.
LEVELS, STRONGEST, CELLS = 8, 20.0, 3
RATE, MOMENTUM, AREA_WEIGHT, AREA_GROWTH = 0.01, 0.9, 300.0, 1.0035
#: Mask values that are equal, but for rounding.
TIED = 1e-5


@attribution(
    "extremal-perturbation",
    form="display",
    aliases=["extremal-perturbations"],
    source="Fong, Patrick & Vedaldi 2019, eq. 4 and 8",
    applies=no_gradient,
)
def extremal_perturbation(
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    *,
    area: float = 0.1,
    areas: str = "",
    steps: int = 800,
    sigma: float = 21.0,
    variant: str = "preserve",
    fill: str = "pyramid",
    flip: bool = True,
    of: str = "logit",
) -> torch.Tensor:
    """Extremal perturbation: the smooth mask m of a given area that keeps the target's score highest.

    Maximises `score(z through m) − λ mean (sorted m − r)²`, where r is 0 for the lowest 1 − `area` of the pixels and 1
    for the rest, and λ = 300 · 1.0035^t. `areas="0.025+0.05+0.1+0.2"` gives the mean of the masks of several areas.
    Masks are `SmoothMask`s of `sigma` pixels. A pixel with m < 1 shows the image under a Gaussian of up to 20 pixels
    (`fill="pyramid"`: eight blurs, mixed between neighbours), or mixed with one of `masking.FILLS`. `variant`:
    `preserve`, `delete` (1 − m is shown, its score falls) or `dual` (the difference). `flip`: every other step sees the
    image mirrored. Values in [0, 1]. Passes: `steps` forwards and backwards for each area; `dual` twice as many.

    Defaults are those of TorchRay, the authors' code, which this follows with two exceptions. The area is that of the
    image; theirs counts a margin of σ around it too, so that 10 % are up to 13.5 % of 224 × 224 pixels. Blurs here
    mirror the border; theirs fade to the mean colour.
    """
    wanted, steps, size = _areas(area, areas), check_int("steps", steps), tuple(z.shape[2:])
    sigma = positive("sigma", sigma) * scale(size)
    check_choice("variant", variant, VARIANTS)
    check_choice("fill", fill, ("pyramid", *FILLS))
    checked_score(of)
    found = []
    for part in parts(len(z), max(1, rows_per_pass(z) // len(wanted))):
        game = _Game(x[part].detach(), z[part].detach(), part.start, score, of, fill, variant, len(wanted))
        smooth = SmoothMask(size, max(1, round(sigma / CELLS)), sigma, z)
        masks = _extremal(game, smooth, wanted, steps, flip and z.dim() == 4)
        found.append(masks.unflatten(0, (-1, len(wanted))).mean(1))
    return torch.cat(found)


def _areas(area: float, areas: str) -> list[float]:
    try:
        found = [float(text) for text in re.split(r"[+,\s]+", areas.strip())] if areas.strip() else [area]
    except ValueError:
        raise InvalidInput(f"`areas` must be numbers with + between them, as in '0.05+0.1'. Got {areas!r}.") from None
    if not all(0 < one < 1 for one in found):
        raise InvalidInput(f"`{'areas' if areas.strip() else 'area'}` must be between 0 and 1. Got {areas or area!r}.")
    return found


class _Game:
    """The reward of a mask: the images of a part, each as often as there are areas, and how they are perturbed."""

    def __init__(self, x, z, first: int, score, of: str, fill: str, variant: str, copies: int):
        self.score, self.of, self.variant = score, of, variant
        self.rows = torch.arange(first, first + len(z), device=z.device).repeat_interleave(copies)
        self.z = z.repeat_interleave(copies, 0)
        self.behind = (pyramid(z) if fill == "pyramid" else ground(fill, x, z)).repeat_interleave(copies, 0)
        self.mixed = through if fill == "pyramid" else lambda behind, mask: masked(self.z, mask, behind)

    def reward(self, mask: torch.Tensor, flipped: bool) -> torch.Tensor:
        """The reward of each mask, `(M,)`."""
        if self.variant == "dual":
            return self._scores_under(mask, flipped) - self._scores_under(1 - mask, flipped)
        return (
            self._scores_under(mask, flipped) if self.variant == "preserve" else -self._scores_under(1 - mask, flipped)
        )

    def _scores_under(self, mask: torch.Tensor, flipped: bool) -> torch.Tensor:
        seen = self.mixed(self.behind, mask)
        return self.score(seen.flip(-1) if flipped else seen, self.rows, of=self.of)


def _extremal(game: _Game, smooth: SmoothMask, areas: list[float], steps: int, flip: bool) -> torch.Tensor:
    """Masks `(M, *size)`, image after image, area after area. Gradient ascent with momentum, from all ones."""
    z = game.z
    wanted = torch.tensor(areas, dtype=torch.float64).repeat(len(z) // len(areas))
    parameters, momentum = z.new_ones(len(z), *smooth.cells), None
    for step in range(steps):
        with torch.enable_grad():
            mask = smooth(parameters.requires_grad_())
            reward = game.reward(mask, flip and step % 2 == 0)
            total = (reward - AREA_WEIGHT * AREA_GROWTH**step * _excess(mask.flatten(1), wanted)).sum()
        ascent = gradient(total, parameters)
        # The dampening equals the momentum, except in the first step.
        momentum = ascent if momentum is None else MOMENTUM * momentum + (1 - MOMENTUM) * ascent
        parameters = (parameters.detach() + RATE * momentum).clamp(0, 1)
    return smooth(parameters)


def _excess(mask: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
    """`mean (sorted m − r)²` of each row of `(M, pixels)`: how far it is from ones on its area and zeros elsewhere.

    Sorting is not needed: pixels above the quantile should be 1, those below it 0. Pixels tied with the quantile
    share the rest; a sort would give it to some of them, at the start to those that rounding favours.
    """
    pixels = mask.shape[1]
    cuts = [min(pixels - 1, int(pixels * (1 - area))) for area in areas.tolist()]
    values = mask.detach()
    quantile = torch.stack([row.kthvalue(cut + 1).values for row, cut in zip(values, cuts, strict=True)])[:, None]
    tied, above = (values - quantile).abs() <= TIED, values > quantile + TIED
    left = pixels - on_device(torch.tensor(cuts), mask.device) - above.sum(1)
    wanted = torch.where(tied, (left / tied.sum(1)).to(mask)[:, None], above.to(mask))
    return (mask - wanted).square().mean(1)


def pyramid(z: torch.Tensor) -> torch.Tensor:
    """The images blurred by ever weaker Gaussians, `(N, 8, C, *spatial)`; the last are the images themselves."""
    strongest = STRONGEST * scale(z.shape[2:])
    return torch.stack([gaussian(z, strongest * (1 - level / (LEVELS - 1))) for level in range(LEVELS)], 1)


def through(levels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Every pixel from the level that its mask value names, mixed between two neighbours: m = 1 is the last."""
    position = mask * (levels.shape[1] - 1)
    low = position.detach().nan_to_num(0).floor().clamp(0, levels.shape[1] - 2)  # NaN is no index
    index = low.long()[:, None, None].expand(-1, 1, levels.shape[2], *mask.shape[1:])
    below, above = (levels.gather(1, index + k)[:, 0] for k in (0, 1))
    return torch.lerp(below, above, (position - low)[:, None])


# --- meaningful perturbation ---

#: The paper's: mask cells along the longer side, blur of the mask, of the start's disc (pixels at 224), exponent.
GRID, SMOOTHING, DISC_BLUR, EXPONENT = 28, 5.0, 10.0, 3
#: Radii of the discs tried as a start (pixels at 224), and the share of the score that the chosen one leaves.
RADII, LEFT = tuple(range(0, 175, 5)), 0.01


@attribution(
    "meaningful-perturbation",
    form="display",
    aliases=["meaningful-perturbations"],
    source="Fong & Vedaldi 2017, eq. 5",
    applies=no_gradient,
)
def meaningful_perturbation(
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    generator,
    *,
    steps: int = 300,
    lr: float = 0.1,
    l1: float = 1e-4,
    tv: float = 1e-2,
    blur: float = 10.0,
    fill: str = "gaussian",
    jitter: int = 4,
    start: str = "disc",
    of: str = "probability",
) -> torch.Tensor:
    """Meaningful perturbation: 1 − m, m the mask of the smallest smooth deletion that loses the class.

    Minimises `l1 Σ |1 − m| + tv Σ |∇m|³ + score(z ⊙ M + blurred z ⊙ (1 − M))` by Adam, m in [0, 1] on a grid of 28
    cells along the longer side, M = m brought to the image's size and blurred by σ = 5 pixels. Deleted pixels show
    the image under a Gaussian of `blur` pixels, or with `fill` one of `masking.FILLS`. The image is shifted under the
    mask by up to `jitter` / 2 pixels at each step, drawn from its own generator. `start="disc"` is the paper's: the
    smallest central disc whose deletion takes 99 % of the score (at most 37 forwards); `start="ones"` deletes nothing.
    Values in [0, 1]. Passes: `steps` forwards and backwards.

    Defaults are the paper's and its code's; the λ of .01 and .2 that circulate multiply means, not sums, in a PyTorch
    port. There, shifted images are cut from larger ones; here the border is repeated, and nothing resized. 0
    everywhere where the score cannot be lowered.
    """
    steps, jitter = check_int("steps", steps), check_int("jitter", jitter, 0)
    blur = positive("blur", blur) * scale(z.shape[2:])
    lr, l1, tv = positive("lr", lr), positive("l1", l1, zero=True), positive("tv", tv, zero=True)
    check_choice("fill", fill, ("gaussian", *FILLS))
    check_choice("start", start, ("disc", "ones"))
    checked_score(of)
    found = []
    for part in parts(len(z), rows_per_pass(z)):
        one = z[part].detach()
        behind = gaussian(one, blur) if fill == "gaussian" else ground(fill, x[part], one)
        deletion = _Deletion(one, behind.detach(), part.start, score, of)
        shifts = _shifts(generator[part], steps, z.dim() - 2, jitter)
        mask, adam = deletion.disc() if start == "disc" else deletion.ones(), Adam(lr)
        for shift in shifts:
            with torch.enable_grad():
                left = deletion.score(mask.requires_grad_(), shift)
                total = (l1 * (1 - mask).abs().flatten(1).sum(1) + tv * _roughness(mask) + left).sum()
            mask = (mask.detach() - adam.update(gradient(total, mask))).clamp(0, 1)
        found.append(1 - deletion.large(mask))
    return torch.cat(found)


class _Deletion:
    """Images of a part, and what is shown where their masks are 0."""

    def __init__(self, z: torch.Tensor, behind: torch.Tensor, first: int, score, of: str):
        self.z, self.behind, self.of, self._score = z, behind, of, score
        self.rows = torch.arange(first, first + len(z), device=z.device)
        self.size, self.scale = tuple(z.shape[2:]), scale(z.shape[2:])
        self.cells = tuple(max(1, min(side, round(GRID * side / max(self.size)))) for side in self.size)

    def large(self, mask: torch.Tensor) -> torch.Tensor:
        """Masks on the grid → at the images' size."""
        return gaussian(upsampled(mask, self.size)[:, None], SMOOTHING * self.scale)[:, 0]

    def score(self, mask: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """`(N,)`: of the images moved by `shift` `(N, dims)` and seen through their masks."""
        return self._score(
            masked(_shift_images(self.z, shift), self.large(mask), _shift_images(self.behind, shift)),
            self.rows,
            of=self.of,
        )

    def ones(self) -> torch.Tensor:
        return self.z.new_ones(len(self.z), *self.cells)

    def disc(self) -> torch.Tensor:
        """For each image the smallest central disc whose deletion leaves 1 % of what deleting everything takes away."""
        everything = self.z.new_ones(len(self.z), *self.size)
        whole, none = self._scores_under(everything), self._scores_under(0 * everything)
        chosen, done = self.ones(), torch.zeros_like(self.rows, dtype=torch.bool)
        for disc in self._discs():
            small = upsampled(disc[None], self.cells)
            chosen = torch.where(done.view(-1, *[1] * len(self.cells)), chosen, small)
            done = done | (self._scores_under(disc * everything) - none <= LEFT * (whole - none))
            if bool(done.all()):
                break
        return chosen

    def _scores_under(self, mask: torch.Tensor) -> torch.Tensor:
        return self._score(masked(self.z, mask, self.behind), self.rows, of=self.of)

    def _discs(self) -> Iterator[torch.Tensor]:
        """Masks `(*size)`: 0 in a blurred disc, 1 outside, ever larger."""
        squared = torch.zeros((), device=self.z.device, dtype=self.z.dtype)
        for dim, side in enumerate(self.size):
            shape = [1] * len(self.size)
            shape[dim] = side
            line = torch.arange(side, device=self.z.device, dtype=self.z.dtype) - (side - 1) / 2
            squared = squared + line.view(shape).square()
        for radius in RADII:
            disc = (squared < (radius * self.scale) ** 2).to(self.z)
            yield 1 - gaussian(disc[None, None], DISC_BLUR * self.scale)[0, 0]


def _roughness(mask: torch.Tensor) -> torch.Tensor:
    """`Σ |∇m|³` of each mask, `(N,)`: differences between neighbours along every dimension."""
    slopes = [mask.diff(dim=dim).abs().pow(EXPONENT).flatten(1).sum(1) for dim in range(1, mask.dim())]
    return torch.stack(slopes).sum(0)


def _shifts(generators: Sequence[torch.Generator], steps: int, dims: int, jitter: int) -> torch.Tensor:
    """`(steps, N, dims)` whole pixels, `jitter` values about 0; each image's own."""
    if not jitter:
        return torch.zeros(steps, len(generators), dims, dtype=torch.long)
    drawn = [torch.randint(jitter, (steps, dims), generator=one) for one in generators]
    return torch.stack(drawn, 1) - jitter // 2


def _shift_images(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Each of `(N, C, *spatial)` moved by its own `shift` `(N, dims)`; the border is repeated."""
    if not shift.any():
        return images
    for dim in range(shift.shape[1]):
        side = images.shape[dim + 2]
        positions = on_device((torch.arange(side) + shift[:, dim : dim + 1]).clamp(0, side - 1), images.device)
        shape = [len(images), *[1] * (images.dim() - 1)]
        shape[dim + 2] = side
        images = images.gather(dim + 2, positions.view(shape).expand_as(images))
    return images

"""LIME, KernelSHAP and occlusion: what the target's score loses when parts of the image are covered.

Captum 0.9.0 does the sampling, the fitting and the sliding; target, normalisation, fills, segments and seeds are ours.
Captum draws from torch's global generator, so that one is seeded from the image's own while it runs, and restored
afterwards. Maps are signed, one channel, at the image's size: positive parts support the target.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from heatproof.attributions.asking import checked_score
from heatproof.attributions.catalogue import attribution, check_choice
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.locks import GENERATORS, held
from heatproof.masking import ground
from heatproof.models import Model
from heatproof.passes import check_int, rows_per_pass
from heatproof.segments import REFERENCE_SIDE, SEGMENTERS, segment
from heatproof.tensors import within_unit

#: (one image in z, its fill, its segments, its score) → one number for each segment.
Fit = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Callable], torch.Tensor]

#: Distances that LIME's kernel may take, between images in z.
DISTANCES = ("cosine", "euclidean")


def _images_only(model: Model, _layer: str, _options: Mapping[str, Any]) -> str:
    return "" if len(model.input_shape) == 3 else "superpixels and squares are parts of images; take rise"


@attribution("lime", form="signed", applies=_images_only, source="Ribeiro et al. 2016, eq. 2 and alg. 1; Captum 0.9.0")
def lime(
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    generator,
    *,
    samples: int = 1000,
    segmenter: str = "slic",
    fill: str = "mean",
    of: str = "output",
    alpha: float = 0.01,
    kernel: str = "cosine",
    width: float = 1.0,
) -> torch.Tensor:
    """LIME: a sparse linear model of the score from the superpixels present; a pixel gets its superpixel's weight.

    The model minimises `1 / (2 Σπ) Σ_i π_i (f(z_i) − b − w·s_i)² + alpha σ ‖w‖₁` over `samples` random s, with each
    superpixel present with probability ½; `π = exp(−d² / 2 width²)`, d the cosine or euclidean distance of `z_i` to z;
    σ the std of the scores `f(z_i)`. `samples` passes an image. The code of papers F and R takes 25 to 40 samples
    for ~100 superpixels, which is too few.

    Kernel, Lasso and alpha are Captum's defaults, except for σ, which makes one alpha fit any score: in units of the
    score, .01 keeps 64 to 80 % of a photograph for MobileNetV2's logits, and nothing at all for its probabilities.
    The paper's own code differs: width .25, distances between the s, ridge on selected superpixels.
    `segmenter` is any of `heatproof.segments`, options too: `slic[n_segments=60]`; slic gives about 123.
    An image of one superpixel has a map of zeros.
    """
    from captum.attr import Lime
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    samples, distance = check_int("samples", samples, 2), check_choice("kernel", kernel, DISTANCES)
    if not alpha > 0:
        raise InvalidInput(f"`alpha` must be above 0. Got {alpha!r}.")
    if not width > 0:
        raise InvalidInput(f"`width` must be above 0. Got {width!r}.")

    def fit(one: torch.Tensor, background: torch.Tensor, segments: torch.Tensor, answers: Callable) -> torch.Tensor:
        method = Lime(answers, _scaled_lasso(alpha), get_exp_kernel_similarity_function(distance, width))
        return _coefficients(method, one, background, segments, samples)

    return _by_segment(fit, x, z, score, generator, segmenter, fill, of)


@attribution(
    "kernelshap",
    form="signed",
    aliases=["kernel-shap"],
    applies=_images_only,
    source="Lundberg & Lee 2017, thm. 2; Captum 0.9.0",
)
def kernelshap(
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    generator,
    *,
    samples: int = 1000,
    segmenter: str = "slic",
    fill: str = "mean",
    of: str = "output",
) -> torch.Tensor:
    """KernelSHAP: estimated Shapley values of the superpixels in the game `f(z with these superpixels, else fill)`.

    Least squares over `samples` coalitions drawn from the Shapley kernel, the full and the empty one first and held by
    a weight of 10⁶, so that the values sum to `f(z) − f(fill)`. `samples` passes an image; take several times as many
    as superpixels. `segmenter` as for `lime`. An image of one superpixel has a map of zeros.
    """
    from captum.attr import KernelShap

    samples = check_int("samples", samples, 2)

    def fit(one: torch.Tensor, background: torch.Tensor, segments: torch.Tensor, answers: Callable) -> torch.Tensor:
        return _coefficients(KernelShap(answers), one, background, segments, samples)

    return _by_segment(fit, x, z, score, generator, segmenter, fill, of)


@attribution("occlusion", form="signed", applies=_images_only, source="Zeiler & Fergus 2014, §4.2; Captum 0.9.0")
def occlusion(
    x: torch.Tensor,
    z: torch.Tensor,
    score,
    *,
    window: float = 15,
    stride: float = 8,
    fill: str = "mean",
    of: str = "output",
) -> torch.Tensor:
    """Occlusion: the mean drop of the score over all squares that cover a pixel.

    `window` and `stride` are pixels at 224² (Captum's tutorial: 15 and 8) and scale with the image's side. Passes a
    image: 1 + (⌈(H − window) / stride⌉ + 1) (⌈(W − window) / stride⌉ + 1), so 785 at 224²; the last square of a line
    may reach beyond the edge.
    """
    from captum.attr import Occlusion

    _must_be_images(z)
    if not 0 < stride <= window:  # else some pixels are never covered
        raise InvalidInput(f"`stride` must be above 0, at most `window`. Got {stride!r} and {window!r}.")
    checked_score(of)
    background, side = ground(fill, x, z), math.sqrt(z.shape[2] * z.shape[3]) / REFERENCE_SIDE
    windows = [min(max(1, round(window * side)), length) for length in z.shape[2:]]
    step = max(1, round(stride * side))
    maps = []
    for i in range(len(z)):
        found = Occlusion(lambda variants, i=i: score(variants, i, of=of)).attribute(
            z[i : i + 1],
            (z.shape[1], *windows),
            strides=(z.shape[1], *(min(step, length) for length in windows)),
            baselines=background[i : i + 1],
            perturbations_per_eval=rows_per_pass(z),
        )
        maps.append(found[0, 0])  # the square covers all channels: they are equal
    return torch.stack(maps).to(z.dtype)


#: Steps of the Lasso at most; with 1000, the usual number, small `alpha` or few `samples` stop it too early.
MAX_STEPS = 100_000


def _scaled_lasso(alpha: float):
    """Captum's Lasso on scores divided by their std; coefficients are of the scores as they were."""
    from captum._utils.models.linear_model import SkLearnLasso

    class Scaled(SkLearnLasso):
        def fit(self, train_data, **options):
            there, answers, weights = (torch.cat(parts) for parts in zip(*train_data, strict=True))
            unit = answers.double().std().clamp_min(torch.finfo(answers.dtype).tiny).to(answers.dtype)
            scaled = torch.utils.data.TensorDataset(there, answers / unit, weights)
            done = super().fit(torch.utils.data.DataLoader(scaled, batch_size=len(there)), **options)
            with torch.no_grad():
                weight = self.linear.weight  # type: ignore[union-attr] - made by `fit`, on the CPU
                weight.mul_(unit.to(weight.device))
            return done

    return Scaled(alpha=alpha, max_iter=MAX_STEPS)


def _by_segment(fit: Fit, x, z, score, generator, segmenter: str, fill: str, of: str) -> torch.Tensor:
    """One image after the other: segmented, fitted under its own seed, its weights spread over its segments."""
    _must_be_images(z)
    SEGMENTERS.parse(segmenter)
    checked_score(of)
    background = ground(fill, x, z)
    maps = torch.full_like(z[:, 0], float("nan"))
    for i in range(len(z)):
        answers = _Answers(score, i, of)
        if not (x[i].isfinite().all() and background[i].isfinite().all()):
            continue  # it cannot be segmented or filled: the map stays NaN
        segments = segment(within_unit(x[i : i + 1]), segmenter)[0]
        if int(segments.max()) == 0:
            maps[i] = 0
            continue
        with _global_seed(generator[i]):
            values = fit(z[i : i + 1], background[i : i + 1], segments, answers)
        if answers.finite:
            maps[i] = values.to(maps)[segments]
    return maps


def _coefficients(method, one, background, segments: torch.Tensor, samples: int) -> torch.Tensor:
    return method.attribute(
        one,
        baselines=background,
        feature_mask=segments[None, None],
        n_samples=samples,
        perturbations_per_eval=min(samples, rows_per_pass(one)),
        return_input_shape=False,
    ).flatten()


class _Answers:
    """An image's score as Captum calls it. scikit-learn refuses NaN, so such scores become 0 and unset `finite`."""

    def __init__(self, score, row: int, of: str):
        self.score, self.row, self.of, self.finite = score, row, of, True

    def __call__(self, variants: torch.Tensor) -> torch.Tensor:
        found = self.score(variants, self.row, of=self.of)
        self.finite = self.finite and bool(found.isfinite().all())
        return found.nan_to_num(0, 0, 0)


@contextmanager
def _global_seed(generator: torch.Generator) -> Iterator[None]:
    """torch's global CPU generator follows `generator` inside; it and NumPy's are as before afterwards.

    Nothing depends on NumPy's, but scikit-learn's Lasso draws a seed from it that it then does not use.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with held(GENERATORS), torch.random.fork_rng(devices=[]):
        numpy_state = np.random.get_state()
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds the devices too
        try:
            yield
        finally:
            np.random.set_state(numpy_state)


def _must_be_images(z: torch.Tensor) -> None:
    if z.dim() != 4:
        raise NotApplicable(
            f"Superpixels and squares are parts of images (N, C, H, W). Got {tuple(z.shape)}. Take 'rise'."
        )

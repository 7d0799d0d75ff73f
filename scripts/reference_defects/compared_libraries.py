"""Defects of Quantus 0.6.0, pytorch-grad-cam 1.5.7 and torchcam 0.5.0, each rebuilt in a few lines."""

from collections.abc import Iterator

import torch

from heatproof import masking, seeds
from heatproof.metrics.curves import pixel_ranks
from heatproof.metrics.road import Removal, removal_scores
from heatproof.tensors import minmax, upsampled
from reference_defects.arms import Arms, defect, gap
from reference_defects.lab import Lab, agreement, registered
from reference_defects.paper_f import map_arms

QUANTUS, GRAD_CAM, TORCHCAM = "Quantus 0.6.0", "pytorch-grad-cam 1.5.7", "torchcam 0.5.0"
SCORED = ("insertion", "arcc", "mask-cosine")


@defect("monotonicity-never-restores", QUANTUS, "Monotonicity fills pixels of a blank image and restores none")
def monotonicity_never_restores(lab: Lab) -> Iterator[Arms]:
    scores = lab.score(("gradcam", "random"), "monotonicity-strict")
    z = lab.model.normalise(lab.x)
    blank = masking.ground("black", lab.x, z)
    curve = torch.stack([lab.probability(blank) for _ in range(3)], 1)  # every step is the same image
    on = (curve.diff(dim=1) >= 0).all(1).double()
    for method in ("gradcam", "random"):
        yield Arms(f"monotonicity-strict of {method}", scores.values(method, "monotonicity-strict"), on)


@defect("batch-maximum", QUANTUS, "maps are divided by the largest magnitude of their whole batch")
def batch_maximum(lab: Lab) -> Iterator[Arms]:
    for method in ("gradcam", "layercam"):
        positive = upsampled(lab.explain(method, raw=True)[method].relu(), tuple(lab.x.shape[2:]))
        shared = batch_scaled(positive, lab.batch)
        alone = minmax(positive)
        note = f"batches of {lab.batch}"
        yield Arms(
            f"complexity of {method}", *(maps.double().flatten(1).mean(1) for maps in (alone, shared)), note=note
        )
        yield Arms(f"average-drop of {method}", drop(lab, alone), drop(lab, shared), note=note)


def batch_scaled(maps: torch.Tensor, size: int) -> torch.Tensor:
    """Maps `(N, H, W)` divided by the largest magnitude among those of their batch."""
    return torch.cat([part / part.abs().amax().clamp(min=1e-12) for part in maps.split(size)])


def drop(lab: Lab, maps: torch.Tensor) -> torch.Tensor:
    """`relu(p − q) / p` with a black fill, of maps on the scale that they have; 1 for a map of zeros."""
    z = lab.model.normalise(lab.x)
    masked = masking.masked(z, maps, masking.ground("black", lab.x, z))
    p, q = lab.probability(z), lab.probability(masked)
    return torch.where(maps.flatten(1).any(1), (p - q).relu() / p, 1.0)


@defect("empty-mask-hit", QUANTUS, "a map whose mask is empty is a hit of the pointing game")
def empty_mask_hit(lab: Lab) -> Iterator[Arms]:
    emptied = torch.arange(lab.n) % 10 == 9
    masks = lab.mask & ~emptied[:, None, None]
    for method in ("gradcam", "random"):
        off = lab.score(method, "pointing-game", masks=masks).values(method, "pointing-game")
        yield Arms(f"pointing-game of {method}", off, torch.where(emptied, 1.0, off), paired=False,
                   note="made for this row: every tenth mask is emptied")  # fmt: skip


@defect("intact-model-in-mprt", QUANTUS, "the comparison of the intact network with itself counts in the MPRT mean")
def intact_model_in_mprt(lab: Lab) -> Iterator[Arms]:
    few = lab.few(lab.slow)
    for method in ("gradcam", "gradient"):
        scores = few.score(method, "mprt[stages=5]")
        (key,) = (key for key in scores.metrics if key.startswith("mprt"))
        points = scores.curves[method, key][1]
        intact = torch.ones(len(points), 1, dtype=points.dtype)
        yield Arms(f"mprt of {method}, 5 stages", scores.values(method, key), torch.cat([intact, points], 1).mean(1))


@defect("road-first-batch", QUANTUS, "ROAD keeps the scores of the first batch alone")
def road_first_batch(lab: Lab) -> Iterator[Arms]:
    off = lab.score("gradcam", "road").values("gradcam", "road")
    on = torch.where(torch.arange(lab.n) < lab.batch, off, torch.nan)
    yield Arms("road of gradcam", off, on, paired=False, note=f"batches of {lab.batch}")


gap(
    "three-channels",
    QUANTUS,
    "ROAD and IROF fail on images of three channels",
    "it raises an error: there is no number",
)


@defect("road-ties", GRAD_CAM, "all pixels that tie with the threshold are removed, at worst every pixel")
def road_ties(lab: Lab) -> Iterator[Arms]:
    methods = ("gradcam", "refine:layercam", "gradcam++")
    scores = lab.score(methods, "road")
    for method in methods:
        maps = lab.explain(method)
        on, lost = road_with_blocks(lab, maps[method], maps.ids)
        note = (
            f"{int(lost.sum())} of {lab.n} images have no pixel left at some fraction: the mean colour and noise remain"
        )
        yield Arms(f"road of {method}", scores.values(method, "road"), on, note=note)


def road_with_blocks(lab: Lab, maps: torch.Tensor, ids: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """ROAD whose tied pixels go together, `(N,)`, and whether no pixel was left at some fraction.

    Without a neighbour to fill from, the equations of the reference have the solution 0 in z, to which noise is added.
    """
    found = removal_of(lab, maps, ids, 0, "block")
    field = torch.stack([torch.randn(lab.x.shape[1:], generator=one)
                         for one in seeds.generators(lab.seed, ids, "nothing left")])  # fmt: skip
    empty = lab.probability(0.01 * field)[:, None].expand_as(found.morf)
    morf, lerf = (torch.where(part.isnan(), empty, part) for part in (found.morf, found.lerf))
    lost = (found.morf.isnan() | found.lerf.isnan()).any(1)
    degenerate = ~maps.flatten(1).any(1)
    return torch.where(degenerate, 0.0, ((lerf - morf) / 2).mean(1)), lost


@defect("road-noise-unseeded", GRAD_CAM, "ROAD's noise is drawn anew at every call")
def road_noise_unseeded(lab: Lab) -> Iterator[Arms]:
    for method in ("gradcam", "integrated-gradients"):
        maps = lab.explain(method)
        once, again, other = (road_of(lab, maps[method], maps.ids, draw) for draw in (0, 0, 1))
        yield Arms(f"road of {method}, |second call − first|", (again - once).abs(), (other - once).abs())
        yield Arms(f"road of {method}", once, other)


def road_of(lab: Lab, maps: torch.Tensor, ids: list[str], draw: int) -> torch.Tensor:
    """ROAD with one ranking of the pixels and noise of this draw, `(N,)`."""
    found = removal_of(lab, maps, ids, draw, "jitter")
    return ((found.lerf - found.morf) / 2).mean(1)


def removal_of(lab: Lab, maps: torch.Tensor, ids: list[str], draw: int, ties: str) -> Removal:
    """The label's probability on imputed images."""
    ranks = pixel_ranks(maps, seeds.generators(lab.seed, ids, "ties"), ties)

    def score(images: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        logits = lab.model.of_normalised(images)
        return lab.model.probabilities(logits).gather(1, lab.target[rows, None])[:, 0]

    with lab.model.evaluating(), torch.no_grad():
        z, drawn = lab.model.normalise(lab.x), seeds.generators(lab.seed + draw, ids, "road")
        return removal_scores(z, ranks, score, drawn)


@defect("eigencam-sign", GRAD_CAM, "the sign of the first component is what the decomposition gives")
def eigencam_sign(lab: Lab) -> Iterator[Arms]:
    yield from method_arms(lab, "eigencam", "eigencam[sign=raw]")


@defect("gradcam++-epsilon", GRAD_CAM, "1e-6 in the denominator of GradCAM++ outweighs small gradients")
def gradcam_plus_plus_epsilon(lab: Lab) -> Iterator[Arms]:
    for layer in ("", f"@{lab.model.layers.stages[0]}"):
        yield from method_arms(lab, f"gradcam++{layer}", f"gradcam++{layer}[compat=true]")


@defect("ablation-by-y", GRAD_CAM, "AblationCAM divides by y, so the map turns over where y < 0")
def ablation_by_y(lab: Lab) -> Iterator[Arms]:
    for target in ("label", "least"):
        off, on = (lab.explain(m, target=target)[m] for m in ("ablationcam", "ablationcam[compat=true]"))
        yield Arms(f"cosine with the right map of ablationcam, target {target}", agreement(off, off),
                   agreement(off, on))  # fmt: skip


def method_arms(lab: Lab, off: str, on: str) -> Iterator[Arms]:
    """A method and its compat arm: the maps' cosine, and the scores of both methods."""
    maps = lab.explain((off, on))
    yield Arms(f"cosine with the right map of {off}", agreement(maps[off], maps[off]), agreement(maps[off], maps[on]))
    scores = lab.score((off, on), SCORED)
    for metric in SCORED:
        yield Arms(f"{metric} of {off}", scores.values(off, metric), scores.values(on, metric))


@defect("ablation-compounds", GRAD_CAM, "at signed layers the value of an ablated channel falls by 1e7 with every one")
def ablation_compounds(lab: Lab) -> Iterator[Arms]:
    few, layer = lab.few(lab.slow), signed_layer(lab)
    whole = f"ablationcam@{layer}[compat=true]"
    off = few.explain(whole)[whole]
    with registered("ablationcam-compounding", compounding) as name:
        on = few.explain(f"{name}@{layer}")[f"{name}@{layer}"]
    yield from map_arms(few, {"ablationcam": off}, {"ablationcam": on}, ("insertion", "mask-cosine"), f"layer {layer}")


def compounding(activations: torch.Tensor, logits: torch.Tensor, target: torch.Tensor, tail) -> torch.Tensor:
    """AblationCAM at a signed layer: channel k of a batch of 32 becomes 1e7 less than the least value so far."""
    maps = []
    for i, one in enumerate(activations):
        y, lost = logits[i, target[i]], []
        for channels in torch.arange(len(one)).split(32):
            variants, least = one.repeat(len(channels), *[1] * one.dim()), one.amin()
            for row, channel in enumerate(channels):
                least = torch.zeros_like(least) if least == 0 else least - 1e7
                variants[row, channel] = least
            lost.append((y - tail(variants, i)[:, target[i]]) / y)
        maps.append(torch.einsum("c,c...->...", torch.cat(lost), one))
    return torch.stack(maps)


def signed_layer(lab: Lab) -> str:
    """The deepest layer whose output has several positions and negative values."""
    found: list[str] = []
    hooks = [
        module.register_forward_hook(lambda _m, _a, out, name=name: found.append(name) if _signed(out) else None)
        for name, module in lab.model.module.named_modules()
        if name
    ]
    try:
        with lab.model.evaluating(), torch.no_grad():
            lab.model.logits(lab.x[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return found[-1]


def _signed(output: object) -> bool:
    return isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[2] > 1 and bool((output < 0).any())


@defect("refine-unscaled", GRAD_CAM, "RefineCAM multiplies maps that are not brought to [0, 1] first")
def refine_unscaled(lab: Lab) -> Iterator[Arms]:
    for base in ("gradcam", "layercam"):
        layers = [f"{base}@{stage}" for stage in lab.model.layers.stages]
        raw, size = lab.explain(layers, raw=True), tuple(lab.x.shape[2:])
        on = minmax(torch.stack([upsampled(raw[layer].relu(), size) for layer in layers]).prod(0))
        method = f"refine:{base}"
        off = lab.explain(method)[method]
        yield from map_arms(lab, {method: off}, {method: on}, ("insertion", "road", "mask-cosine"))


@defect("too-few-targets", GRAD_CAM, "with fewer targets than images the maps of the rest are zero, silently")
def too_few_targets(lab: Lab) -> Iterator[Arms]:
    off = lab.explain("gradcam")["gradcam"]
    untold = torch.arange(lab.n) % lab.batch >= lab.batch // 2
    on = torch.where(untold[:, None, None], torch.zeros_like(off), off)
    note = f"made for this row: {lab.batch // 2} targets for batches of {lab.batch}"
    yield from map_arms(
        lab, {"gradcam": off}, {"gradcam": on}, ("insertion", "average-drop", "mask-cosine"), note, False
    )


gap(
    "hooks-left-behind",
    GRAD_CAM,
    "hooks outlive exceptions",
    "it costs memory and later errors: there is no score to compare",
)


@defect("gradcam++-never-divides", TORCHCAM, "α of GradCAM++ is never divided: the division edits a copy")
def gradcam_plus_plus_never_divides(lab: Lab) -> Iterator[Arms]:
    for layer in ("", f"@{lab.model.layers.stages[0]}"):
        off = lab.explain(f"gradcam++{layer}")[f"gradcam++{layer}"]
        with registered("gradcam++-undivided", undivided) as name:
            on = lab.explain(f"{name}{layer}")[f"{name}{layer}"]
        title = f"gradcam++{layer}"
        yield from map_arms(lab, {title: off}, {title: on}, ("insertion", "road", "mask-cosine"))


def undivided(activations: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """`Σk (Σ G² relu(G)) A`: GradCAM++ with the numerator of α in place of α."""
    weights = (gradients.square() * gradients.relu()).flatten(2).sum(2)
    return torch.einsum("nc,nc...->n...", weights, activations)

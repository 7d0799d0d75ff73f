"""Defects of the code of paper R (Domeniconi et al. 2026): data, coherency, dropped maps, ShapleyCAM, parts."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from scipy.stats import spearmanr

import heatproof
from heatproof import masking
from heatproof.attributions.refine import refined
from heatproof.data import Shapes
from heatproof.data.creatures import demo_creatures
from heatproof.engine import PartAnswers
from heatproof.metrics.coherency import pearson
from heatproof.metrics.composites import harmonic
from heatproof.metrics.localisation import mask_cosine
from heatproof.metrics.part_checks import part_contrastivity
from heatproof.rounding import rounded
from heatproof.studies.part_sets import images_by_parts
from heatproof.tensors import minmax
from reference_defects.arms import Arms, defect
from reference_defects.lab import Lab, agreement

R = "paper R's code"
#: Networks with GELU and LayerNorm, and a layer of each: before the last LayerNorm, before a residual block, of tokens.
RANDOM = (
    ("convnext_atto", "@stages.3.blocks.1"),
    ("convnext_atto", "@stages.3.blocks.0"),
    ("vit_tiny_patch16_224", "@blocks.11.norm1"),
)
CAMS = ("gradcam", "layercam", "refine:layercam")


@dataclass(frozen=True)
class OnTrainingBackgrounds(Shapes):
    """The same shapes at the same positions, drawn on the backgrounds of training images."""

    def background(self, i: int) -> np.ndarray:
        return replace(_plain(self), split="train").background(i)


def _plain(images: Shapes) -> Shapes:
    return Shapes(images.split, images.n, images.size, images.shape_sizes, images.seed, images.backgrounds)


@defect("backgrounds-leak", f"{R}, data", "all test backgrounds are also training backgrounds")
def backgrounds_leak(lab: Lab) -> Iterator[Arms]:
    own = _plain(lab.images)
    leaked = OnTrainingBackgrounds(own.split, own.n, own.size, own.shape_sizes, own.seed, own.backgrounds)
    other = replace(lab, images=leaked)
    off, on = (one.explain("gradcam") for one in (lab, other))
    note = "the colour is drawn anew, as it must stand out from its background"
    yield Arms("accuracy", _hits(off, lab), _hits(on, lab), note=note)
    probabilities = [lab.model.probabilities(one.logits).gather(1, lab.target[:, None])[:, 0] for one in (off, on)]
    yield Arms("probability of the label", *probabilities, note=note)
    metrics = ("mask-cosine", "arcc")
    scores = [one.score(("gradcam", "refine:layercam"), metrics) for one in (lab, other)]
    for method in ("gradcam", "refine:layercam"):
        for metric in metrics:
            yield Arms(f"{metric} of {method}", *(one.values(method, metric) for one in scores), note=note)


def _hits(maps: "heatproof.Maps", lab: Lab) -> torch.Tensor:
    return (maps.logits.argmax(1) == lab.target).double()


@defect(
    "mask-misaligned", f"{R}, data", "the mask is resized straight to the input size, the image is resized and cropped"
)
def mask_misaligned(lab: Lab) -> Iterator[Arms]:
    seen = lab.cropping()
    note = "" if seen is lab else "the network's own geometry has no crop: resized to 8/7 and cropped for this row"
    for low, high in sorted(lab.images.shape_sizes, reverse=True):
        sized = replace(seen, images=replace(lab.images, shape_sizes=((low, high),)))
        wrong = straight_masks(sized)
        off, on = (perfect_cosine(sized.mask, mask) for mask in (sized.mask, wrong))
        yield Arms(f"mask-cosine of a perfect map, shapes of {low}–{high} pixels", off, on, note=note)
    methods = (*CAMS, "gradcam++", "hirescam", "eigencam", "gradcam@stage2" if _has(lab, "stage2") else "xgradcam",
               "centre", "random")  # fmt: skip
    scores = seen.score(methods, ("mask-cosine", "road", "arcc"))
    wrong_scores = seen.score(methods, ("mask-cosine",), masks=straight_masks(seen))
    for method in CAMS:
        yield Arms(f"mask-cosine of {method}", scores.values(method, "mask-cosine"),
                   wrong_scores.values(method, "mask-cosine"), note=note)  # fmt: skip
    for metric in ("road", "arcc"):
        values = np.stack([scores.values(method, metric).numpy() for method in methods], 1)
        arms = (np.stack([one.values(method, "mask-cosine").numpy() for method in methods], 1)
                for one in (scores, wrong_scores))  # fmt: skip
        found = [within_images(values, truth) for truth in arms]
        yield Arms(f"Spearman of {metric} with mask-cosine over {len(methods)} maps, within images", *found, note=note)


def straight_masks(lab: Lab) -> torch.Tensor:
    """`(N, H, W)` bool: the masks resized to the input size without the crop."""
    height, width = lab.model.geometry.size
    resized = (
        Image.fromarray(lab.images.mask(i).astype(np.uint8) * 255).resize((width, height), Image.Resampling.BILINEAR)
        for i in range(lab.n)
    )
    return torch.stack([torch.from_numpy(np.asarray(one).copy()) >= 128 for one in resized])


def perfect_cosine(perfect: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cosine of the map that equals the mask as the network sees it with a mask; NaN where the crop left nothing."""
    return torch.where(perfect.flatten(1).any(1), mask_cosine(perfect.float(), mask), torch.nan)


def within_images(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Spearman over the methods, one for each image `(N, methods)`; NaN where one side is constant."""
    return np.array([_spearman(one, other) for one, other in zip(values, truth, strict=True)])


def _spearman(one: np.ndarray, other: np.ndarray) -> float:
    one, other = (rounded(torch.from_numpy(side)).numpy() for side in (one, other))
    known = ~np.isnan(one) & ~np.isnan(other)
    if known.sum() < 3 or np.ptp(one[known]) == 0 or np.ptp(other[known]) == 0:
        return float("nan")
    return float(spearmanr(one[known], other[known])[0])  # type: ignore[arg-type]


def _has(lab: Lab, layer: str) -> bool:
    return layer in lab.model.layers.stages


@defect("shared-seed", f"{R}, data", "label and colour are drawn by two generators with one seed")
def shared_seed(lab: Lab) -> Iterator[Arms]:
    fitted, tested = 1200, 600
    own = replace(lab.images, n=fitted + tested, split="train")
    labels = np.array(own.labels)
    reds = {
        "off": np.array([int(own.colour(i)[0]) for i in range(own.n)]),
        "on": np.array([reconstructed(i)[1] for i in range(own.n)]),
    }
    drawn = {"off": labels, "on": np.array([reconstructed(i)[0] for i in range(own.n)])}
    note = "reconstruction: NumPy's legacy generator seeded by the image's number, labels and colours by `randint`"
    equal = [(reds[arm] % 8 == drawn[arm]).astype(float)[fitted:] for arm in ("off", "on")]
    yield Arms("share of images whose label is red mod 8", *equal, note=note)
    found = [probe(reds[arm][:fitted] % 8, drawn[arm][:fitted], reds[arm][fitted:] % 8, drawn[arm][fitted:])
             for arm in ("off", "on")]  # fmt: skip
    yield Arms(f"accuracy of a table from red mod 8 to a label, fitted on {fitted} others", *found, note=note)


def reconstructed(i: int) -> tuple[int, int]:
    """Label and red of image i where both generators start from one seed.

    NumPy's legacy `randint` takes the low bits of the next word, and draws again where they are too large. So label
    and red share their last three bits, except where those are 6 or 7 and the label takes a second word.
    """
    label = np.random.RandomState(i).randint(0, 6)
    return int(label), int(np.random.RandomState(i).randint(0, 256, 3)[0])


def probe(seen: np.ndarray, labels: np.ndarray, new: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether the most frequent label of what was seen is right for each new image."""
    table = {value: Counter(labels[seen == value].tolist()).most_common(1)[0][0] for value in np.unique(seen)}
    return np.array([float(table.get(value, -1) == label) for value, label in zip(new, truth, strict=True)])


@defect("deeper-layers-fixed", R, "for coherency only the shallowest layer of RefineCAM is explained anew")
def deeper_layers_fixed(lab: Lab) -> Iterator[Arms]:
    method = "refine:layercam"
    scores = lab.score(method, ("coherency", "complexity", "road", "arcc"))
    on = stale_coherency(lab, method)
    off = scores.values(method, "coherency")
    on = torch.where(off == 0, 0.0, on)  # a degenerate map keeps its stated value
    yield Arms(f"coherency of {method}", off, on)
    again = harmonic(on, 1 - scores.values(method, "complexity"), (2 * scores.values(method, "road")).clip(0, 1))
    arcc = scores.values(method, "arcc")
    yield Arms(f"arcc of {method}", arcc, torch.where(arcc == 0, 0.0, again))


def stale_coherency(lab: Lab, method: str) -> torch.Tensor:
    """Coherency of `refine:BASE` whose deeper maps stay those of the whole image."""
    base = method.removeprefix("refine:")
    layers = [f"{base}@{stage}" for stage in lab.model.layers.stages]
    z, maps = lab.model.normalise(lab.x), lab.explain(method)[method]
    masked = masking.masked(z, maps, masking.ground("mean", lab.x, z))
    before = lab.explain(layers, raw=True)
    after = lab.explain(layers[0], masked, raw=True, normalised=True)
    size = tuple(lab.x.shape[2:])
    again = minmax(refined([after[layers[0]], *(before[layer] for layer in layers[1:])], "cam", size))
    return (pearson(maps, again) + 1) / 2


@defect("failed-maps-dropped", R, "images whose map failed are left out, so that n differs between methods")
def failed_maps_dropped(lab: Lab) -> Iterator[Arms]:
    shallow = lab.model.layers.stages[0]
    methods = {"gradcam of the least probable class": ("gradcam", "least"),
               f"gradcam@{shallow}": (f"gradcam@{shallow}", "label"),
               "refine:gradcam": ("refine:gradcam", "label")}  # fmt: skip
    for title, (method, target) in methods.items():
        failed = torch.tensor([bool(flag) for flag in lab.explain(method, target=target).flags[method]])
        scores = lab.score(method, ("average-drop", "insertion", "arcc"), target=target)
        for metric in ("average-drop", "insertion", "arcc"):
            off = scores.values(method, metric)
            if not off.isnan().all():
                note = f"{int(failed.sum())} of {lab.n} maps are degenerate"
                yield Arms(f"{metric} of {title}", off, torch.where(failed, torch.nan, off), paired=False, note=note)


@defect("shapleycam-without-hessian", R, "the Hessian term is lost: what remains is Grad-CAM of the same utility")
def shapleycam_without_hessian(lab: Lab) -> Iterator[Arms]:
    inner = f"@{lab.model.layers.stages[-2]}"
    for layer in ("", inner):
        off, on = shapley_arms(lab, layer)
        where = "the last layer" if not layer else layer[1:]
        yield Arms(f"cosine with the whole ShapleyCAM, {where} of {lab.model.name}", agreement(off, off),
                   agreement(off, on))  # fmt: skip
        yield Arms(f"mask-cosine of shapleycam, {where} of {lab.model.name}", lab.cosine(off), lab.cosine(on))
    for name, layer in RANDOM:
        few = random_network(lab.few(16), name)
        for target in ("predicted", "least"):
            off, on = (maps.flatten(1).double() for maps in shapley_arms(few, layer, target, raw=True))
            alike = [torch.cosine_similarity(off, one) for one in (off, on)]
            title = f"cosine of signed maps with the whole ShapleyCAM, {layer[1:]} of {name}, target {target}"
            note = "random weights, seeded: GELU and LayerNorm"
            yield Arms(title, *alike, note=note)
            title = f"norm of ShapleyCAM's map as a multiple of Grad-CAM's, {layer[1:]} of {name}, target {target}"
            yield Arms(title, off.norm(dim=1) / on.norm(dim=1), torch.ones(few.n), note=note)


def shapley_arms(lab: Lab, layer: str, target: str = "label", raw: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps of ShapleyCAM, and of Grad-CAM of its utility `y + log p`."""
    whole, rest = f"shapleycam{layer}", f"gradcam{layer}"
    more = {"target": target, "raw": raw}
    return lab.explain(whole, **more)[whole], lab.explain(rest, output=utility, **more)[rest]


def utility(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """ShapleyCAM's residual softmax target, `y + log p`."""
    at = target[:, None]
    return (logits.gather(1, at) + logits.log_softmax(1).gather(1, at))[:, 0]


def random_network(lab: Lab, name: str) -> Lab:
    """The lab with a network of timm with seeded random weights that give every image logits of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(lab.seed)
        module = timm.create_model(name, pretrained=False, num_classes=6)
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.05) if parameter.dim() > 1 else torch.nn.init.uniform_(parameter)
    return replace(lab, model=heatproof.wrap(module, mean=0.5, std=0.5, size=224, name=name))


@defect(
    "contrastivity-one-map",
    f"{R}, FunnyBirds",
    "contrastivity explains the image's class alone, and its map stands for both other classes",
)
def contrastivity_one_map(lab: Lab) -> Iterator[Arms]:
    model = lab.model if lab.model.name == "creatures" else heatproof.load_model("creatures", device="cpu")
    images = demo_creatures("test", lab.n)
    labels = [int(label) for label in images.labels if label is not None]
    x = torch.stack([model.geometry.image(images.open(i)) for i in range(images.n)])
    with model.evaluating(), torch.no_grad():
        logits = model.of_normalised(model.normalise(x))
    parts = PartAnswers(model, x, logits, images_by_parts(images, range(images.n), model.classes)).view()
    for method in (*CAMS, "integrated-gradients[steps=10]", "eigencam"):

        def own(seen: torch.Tensor, target: torch.Tensor, method: str = method, **_: Any) -> torch.Tensor:
            return heatproof.explain(model, seen, method, target=target, seed=lab.seed, batch_size=lab.batch)[method]

        maps = own(x, torch.tensor(labels))

        def one(seen: torch.Tensor, rows: torch.Tensor, maps: torch.Tensor = maps, **_: Any) -> torch.Tensor:
            return maps[rows]

        off, on = (part_contrastivity(x, maps, logits, explain, parts) for explain in (own, one))
        yield Arms(f"part-contrastivity of {method}", off, on, note="the bundled network of creatures")

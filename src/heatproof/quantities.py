"""The one table of quantities: what a method, a metric or a perturbation may name in its signature.

Each quantity has one entry with every fact that the engine decides by: who may name it, what one value of it belongs
to, what the forward pass must keep for it, whether it depends on the network, whether it changes with the target. The
engine has one supplier for each (a test compares the two). The table is a ground file because the registries check a
signature against it when a function is registered, so an unknown name is an error at import.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: What one value belongs to.
PER = ("batch", "target", "layer", "map", "pair")
#: The kinds of function that name quantities.
USERS = ("method", "metric", "perturbation", "segmenter", "transformation")


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes:
        what: what it is, with its shape, for the docs.
        users: the kinds of function that may name it.
        per: what one value belongs to: the batch, one target for each image, a layer, the map under test, or the pair
            of a map and its reference.
        keeps: the layer's activations are kept in the forward pass.
        graph: how many derivatives are taken from the layer to the output: 0, 1 or 2.
        reused: its graph is needed again after the first backward pass.
        asks: it depends on the network, so it has no value where the network's output is not finite.
        runs: it runs the network, or a part of it, beyond the one shared forward and backward pass.
        alone: where it runs the network, then on the images as they are, never on several variants of one together.
        targeted: another class gives another value.
        of_classes: it holds an output of every class, which a callable `output` does not have.
        explains: it makes further maps with the method under test, so maps made elsewhere do not have it.
        truth: it holds the ground truth, or a part of it.
    """

    what: str
    users: frozenset[str]
    per: str = "batch"
    keeps: bool = False
    graph: int = 0
    reused: bool = False
    asks: bool = True
    runs: bool = False
    alone: bool = False
    targeted: bool = False
    of_classes: bool = False
    explains: bool = False
    truth: bool = False


def _of(users: str, what: str, per: str = "batch", **facts: bool | int) -> Quantity:
    return Quantity(what, frozenset(users.split()), per, **facts)  # type: ignore[arg-type]


def _still(users: str, what: str, per: str = "batch", **facts: bool | int) -> Quantity:
    """A quantity that does not depend on the network."""
    return _of(users, what, per, asks=False, **facts)


QUANTITIES: Mapping[str, Quantity] = {
    "x": _still("method metric perturbation segmenter transformation", "image in [0, 1], (N, 3, H, W)"),
    "z": _still("method metric", "normalised image, as the network sees it, (N, 3, H, W)"),
    "logits": _of("method metric", "(N, K)", of_classes=True),
    "target": _of("method metric", "class explained, (N,)", "target", targeted=True),
    "activations": _of("method", "at the layer, (N, C, *spatial)", "layer", keeps=True),
    "gradients": _of(
        "method", "of the target's output by the activations, (N, C, *spatial)", "layer",
        keeps=True, graph=1, targeted=True,
    ),
    "gradients_of": _of(
        "method", "utility → its gradients by the activations, (N, C, *spatial)", "layer",
        keeps=True, graph=1, reused=True, runs=True, alone=True, targeted=True,
    ),
    "noisy_gradients": _of(
        "method", "noise, added to the normalised image → gradients by the activations under it, (N, C, *spatial)",
        "layer", runs=True, alone=True, targeted=True,
    ),
    "input_gradients": _of(
        "method", "of the target's output by the normalised image, (N, 3, H, W)", "target", targeted=True
    ),
    "hvp": _of(
        "method", "utility → product of its Hessian with the activations, (N, C, *spatial)", "layer",
        keeps=True, graph=2, reused=True, runs=True, alone=True, targeted=True,
    ),
    "head": _of(
        "method", "(K, C) weights where the logits are a linear layer on pooled activations, else None", "layer",
        keeps=True,
    ),
    "tail": _of("method", "activations at a layer → logits", "layer", keeps=True, runs=True, of_classes=True),
    "score": _of(
        "method metric", "normalised images and the rows they are variants of → output of the target", "target",
        runs=True, targeted=True,
    ),
    "network": _of(
        "method metric", "the network as a module: normalised images → (N, K) outputs", runs=True, of_classes=True
    ),
    "forward": _of(
        "method", "`network` for the images themselves: no other pass is made to know their logits",
        runs=True, alone=True, of_classes=True,
    ),
    "of_target": _of("method", "(N, K) outputs → those of the classes explained, (N,)", "target", targeted=True),
    "calibration": _of(
        "method", "source → mean and standard deviation of the activations over other images", "layer", runs=True
    ),
    "explain": _of("metric", "images → display maps of the method under test", "map", runs=True, explains=True),
    "maps": _still("metric", "display maps in [0, 1], (N, H, W)", "map"),
    "raw": _still("metric", "signed maps as the method made them", "map"),
    "ranks": _still("metric", "ties → rank of every pixel in the map, 0 the most important, (N, H, W)", "map"),
    "p": _of("metric", "probability of the target, or its value, (N,)", "target", targeted=True),
    "q": _of(
        "metric", "fill → probability of the target on the masked image, (N,)", "map", runs=True, targeted=True
    ),
    "nothing": _of(
        "metric", "fill, of → score of the target on the image of nothing but fill, (N,)", "target",
        runs=True, targeted=True,
    ),
    "masked_probabilities": _of(
        "metric", "fill → probability of every class on the masked image, (N, K)", "map", runs=True
    ),
    "probabilities": _of("metric", "normalised images → probability of every class", runs=True),
    "curve": _of(
        "metric", "fill, steps … → score of the target while pixels go or return, (N, steps + 1)", "map",
        runs=True, targeted=True,
    ),
    "removal": _of(
        "metric", "fractions … → probability of the target on imputed images, most and least relevant first", "map",
        runs=True, targeted=True,
    ),
    "information": _of(
        "metric", "thresholds, ties → size and probabilities of the image while its pixels return (XRAI)", "map",
        runs=True,
    ),
    "shifts": _of(
        "metric", "samples, radius → relative change of the map under noise, (N, samples)", "map",
        runs=True, explains=True,
    ),
    "reference": _still("metric", "display maps of the same method on the reference images, (N, H, W)", "pair"),
    "segment_ranks": _still(
        "metric", "segmenter → rankings of the segment means of the map and of its reference", "pair"
    ),
    "reduced": _still("metric", "the map and its reference, each reduced to 56² for SSIM", "pair"),
    "model": _of("metric", "the classifier", runs=True),
    "values": _still("metric", "whether the network is one of values, whose score of the target is no probability"),
    "mask": _still("metric segmenter", "ground truth, (N, H, W)", truth=True),
    "parts": _of(
        "metric", "the parts of the images: where they are, and rows, removed parts → logits without them, (M, K)",
        runs=True, of_classes=True, truth=True,
    ),
    "segments": _still("metric", "segmenter → label maps, (N, H, W)"),
    "seed": _still("metric", "of the study"),
    "shared": _still(
        "metric", "a store for answers of the network that no map has a part in: worked out for the first method alone"
    ),
    "generator": _still("method metric perturbation transformation", "one seeded generator per image"),
    "ids": _still("method metric", "the names of the images"),
    "partner": _still("transformation", "another image of the same set for each, (N, C, H, W)"),
    "condition": _still("method", "what was done to the images, as text: empty or `clean` where nothing was"),
    "loss_gradient": _of("perturbation", "images → gradient of the cross-entropy to the clean prediction", runs=True),
    "clean_gradient": _of(
        "perturbation", "that gradient at the clean images, computed once for all strengths", runs=True
    ),
    "minimal_step": _of(
        "perturbation", "the smallest step found that changes the prediction (DeepFool), once for all strengths",
        runs=True,
    ),
}  # fmt: skip


def vocabulary(user: str) -> dict[str, str]:
    """Name → what it is, of the quantities that a kind of function (one of `USERS`) may name."""
    if user not in USERS:
        raise KeyError(f"The kind of function must be one of {', '.join(USERS)}. Got {user!r}.")
    return {name: one.what for name, one in QUANTITIES.items() if user in one.users}


def having(needs: Iterable[str], fact: str) -> set[str]:
    """Those of `needs` for which a field of the table holds: `having(needs, "keeps")`."""
    return {need for need in needs if need in QUANTITIES and getattr(QUANTITIES[need], fact)}


def of_variants(needs: Iterable[str]) -> set[str]:
    """Those of `needs` for which the network may run on several variants of one image together."""
    needs = list(needs)
    return having(needs, "runs") - having(needs, "alone")


def belonging(needs: Iterable[str], per: str) -> set[str]:
    """Those of `needs` of which one value belongs to `per`: one of `PER`."""
    return {need for need in needs if need in QUANTITIES and QUANTITIES[need].per == per}

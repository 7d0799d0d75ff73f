"""docs/choosing.md: which method and which metric, with the passes that the engine makes for each method.

Everything that is said of a single method is read from the registry or counted; `make_docs.py` writes the page.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch

from heatproof.attributions import ATTRIBUTIONS, requested
from heatproof.engine import Batch, ResolvedMethod, explanation, resolve_layers, toy
from heatproof.errors import NotApplicable
from heatproof.metrics import FAMILIES, METRICS
from heatproof.models import Model, load_model
from heatproof.quantities import having
from heatproof.registry import Entry
from heatproof.studies.cost import Counted, counted
from heatproof.traps import METRIC_TRAPS

#: Options that say how often a method runs the network.
COUNTS = ("masks", "samples", "steps")
#: Methods that nobody would choose: they are there to compare with.
BASELINES = ("randomcam",)
#: The channels of the layer in the examples of the table: ResNet-50 has as many at its last layer.
CHANNELS = 2048


@dataclass(frozen=True)
class Cost:
    """How often a method runs the network for one image: a sum of products of its options and of C, the channels.

    terms: names of options, and `C` → how often.
    """

    terms: Mapping[tuple[str, ...], int]

    def __str__(self) -> str:
        parts = [_product(names, times) for names, times in self.terms.items() if times]
        return " + ".join(parts).replace("+ −", "− ") or "0"

    def at(self, values: Mapping[str, int]) -> int:
        """The number where options and C have these values."""
        total = 0
        for names, times in self.terms.items():
            for name in names:
                times *= values[name]
            total += times
        return total


def _product(names: Sequence[str], times: int) -> str:
    sign, size = ("−" if times < 0 else ""), abs(times)
    return sign + " · ".join([*([str(size)] if size != 1 or not names else []), *names])


@dataclass(frozen=True)
class Facts:
    """What the page says of a method."""

    entry: Entry
    forward: Cost
    backward: Cost

    @property
    def name(self) -> str:
        """Its name."""
        return self.entry.name

    @property
    def values(self) -> dict[str, int]:
        """The options of the costs by default, and C."""
        return {**{k: v for k, v in self.entry.options.items() if k in COUNTS}, "C": CHANNELS}

    @property
    def numbers(self) -> tuple[int, int]:
        """Forward and backward passes by default, on a layer of `CHANNELS`."""
        return self.forward.at(self.values), self.backward.at(self.values)

    @property
    def of_class(self) -> bool:
        """Whether another class has another map."""
        return bool(having(self.entry.needs, "targeted"))

    @property
    def at_layer(self) -> bool:
        """Whether its map has the resolution of a layer."""
        return self.entry.traits["form"] == "cam"

    @cached_property
    def inner(self) -> bool:
        """Whether it looks into the network: at a layer, at gradients, or at attention."""
        reading = {"activations", "input_gradients", "network", "forward"}
        return bool(reading & set(self.entry.needs)) or self.numbers[1] > 0

    @property
    def row(self) -> tuple[str, ...]:
        """Its row of the table."""
        told = [f"{formula}" if str(formula) == f"{number:,}" else f"{formula} = {number:,}"
                for formula, number in zip((self.forward, self.backward), self.numbers, strict=True)]  # fmt: skip
        return (
            f"[`{self.name}`](methods.md{anchor(self.name)})", *told, "yes" if self.of_class else "**no**",
            "layer" if self.at_layer else "image",
        )  # fmt: skip


def anchor(name: str) -> str:
    """The anchor of a method's heading; none where another method's heading has the same one."""
    plain = re.sub(r"[^\w-]", "", name)
    return "" if plain != name and plain in ATTRIBUTIONS else f"#{plain}"


@cache
def facts() -> list[Facts]:
    """Of every method but the controls; the cheap first."""
    found = [_counted_facts(entry) for entry in ATTRIBUTIONS.values() if not entry.traits["control"]]
    return sorted(found, key=lambda one: (sum(one.numbers), list(ATTRIBUTIONS).index(one.name)))


def _counted_facts(entry: Entry) -> Facts:
    """Counts the passes at a few small numbers of steps and channels, and solves for what each adds."""
    options = [option for option in COUNTS if option in entry.options]
    several = "activations" in entry.needs and "score" in entry.needs
    names = [*options, *(["C"] if several else [])]
    counts = {chosen: _count(entry, dict(zip(names, chosen, strict=True)))
              for chosen in itertools.product((4, 6), repeat=len(names))}  # fmt: skip
    costs = [_solved(names, {key: int(getattr(one, side)) for key, one in counts.items()})
             for side in ("forward", "backward")]  # fmt: skip
    return Facts(entry, *costs)


def _solved(names: Sequence[str], counts: Mapping[tuple[int, ...], int]) -> Cost:
    """The multilinear formula through counts at 4 and 6 of each name.

    Raises:
        ValueError: a factor that is no whole number, so that the formula is another one.
    """
    subsets = [subset for size in range(len(names) + 1) for subset in itertools.combinations(names, size)]
    rows = [[torch.prod(torch.tensor([dict(zip(names, point, strict=True))[name] for name in subset] or [1])).item()
             for subset in subsets] for point in counts]  # fmt: skip
    factors = torch.linalg.solve(torch.tensor(rows).double(), torch.tensor(list(counts.values())).double())
    whole = factors.round()
    if (factors - whole).abs().max() > 1e-6:
        raise ValueError(f"No multilinear formula: {dict(zip(subsets, factors.tolist(), strict=True))}")
    return Cost({subset: int(factor) for subset, factor in zip(subsets, whole.tolist(), strict=True)})


def _count(entry: Entry, chosen: Mapping[str, int]) -> Counted:
    """The passes for one image on the toy network, or on a transformer where that does not apply."""
    own = {name: value for name, value in chosen.items() if name != "C"}
    # Squares and strides are in pixels at 224².
    for model, x, layer in _networks(chosen.get("C", 4), 224 if "stride" in entry.options else 32):
        methods = resolve_layers(model, requested({entry.name: own}), layer)
        try:
            _explained(model, x, methods)  # what is worked out once, such as a calibration, is not counted
        except NotApplicable:
            continue
        with counted(model.module) as found:
            _explained(model, x, methods)
        return Counted(found.forward + found.tails, found.backward)
    raise ValueError(f"No network to count the passes of {entry.name!r} on.")


def _networks(channels: int, side: int) -> Iterable[tuple[Model, torch.Tensor, str]]:
    model, _ = toy(1, [channels])
    yield model, torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)), "1"
    model = load_model("shapes-vit", device="cpu")
    yield model, torch.rand(1, *model.input_shape, generator=torch.Generator().manual_seed(0)), model.last_layer


def _explained(model: Model, x: torch.Tensor, methods: Sequence[ResolvedMethod]) -> None:
    explanation(Batch.of(model, methods, x, ids=["toy"]), methods)


def page(table: Callable[[Sequence[str], Iterable[Sequence[str]]], str]) -> Iterable[str]:
    """The parts of the page, after its title."""
    yield INTRO
    yield "## By what you have"
    yield table(("you have", "begin with", "because"), HAVE)
    yield "## By what you need"
    yield table(("you need", "methods", "how it is known"), list(_needs()))
    yield METRICS_INTRO
    yield table(("you want to know", "metrics", "needs"), list(_questions()))
    yield f"Known to mislead on some set of images ([the runs](claims.md)): {_misleading()}."
    yield PASSES
    yield table(("method", "forward", "backward", "its own map for each class", "resolution"), [f.row for f in facts()])


INTRO = """
In short:

1. **Any convolutional network, a first look**: `gradcam` and `refine:layercam`, side by side. Both come from one
   forward and one backward pass.
2. **A vision transformer**: `chefer`, `attention-rollout` and `gradcam`.
3. **Nothing but answers of the network** (no gradients, no layers): `occlusion` or `rise`.
4. **Maps that people will rely on**: test them. `heatproof audit` tries eight methods on *your* model and images.

Which maps are *good* depends on the network and the images. What was found on ours, with intervals, is in
[claims](claims.md). The tables below say what a method needs, costs and can show. Those facts are read from the
registry and counted by the engine."""

HAVE = [
    ("a CNN that ends in global pooling and a linear layer (ResNet, EfficientNet, DenseNet)",
     "`gradcam`, `refine:layercam`",
     "`gradcam`, `hirescam` and `xgradcam` are [one map](methods.md#hirescam) there, so one of them is enough"),
    ("a CNN with several dense layers at the end (VGG)", "`hirescam`, `layercam`, `refine:layercam`",
     "there `gradcam` and `hirescam` differ: the mean over the positions loses where the gradient is"),
    ("a vision transformer (ViT, DeiT)", "`chefer`, `attention-rollout`, `gradcam`",
     "tokens become a grid by themselves. All stages have one resolution, so refining gains nothing: "
     "[claims](claims.md#refinement-beside-paper-r)"),
    ("Swin, or another transformer with stages", "`gradcam`, `refine:layercam`",
     "stages get coarser, as in a CNN; attention within windows has no `attention-rollout`"),
    ("one logit (ill or not)", "any; `target=1` or `target=0`",
     "the two classes have opposite raw maps. `output=\"value\"` explains the logit itself"),
    ("several labels an image", "any that has a map of its own for each class; `multi_label=True`",
     "`target=\"top3\"` explains several classes from one forward pass"),
    ("a regression", "any but the ones for logits; `output=\"value\"`",
     "see [networks of values](metrics.md#networks-of-values)"),
    ("CLIP or SigLIP", "`gradcam`, `chefer`", "`heatproof.zero_shot` makes prompts into classes"),
    ("a quantised or TorchScript network", "the methods without gradients below",
     "a quantised network has layers but no gradients; of TorchScript no layer can be seen either"),
    ("signals or volumes", "the CAMs, `gradient`, `integrated-gradients`",
     "`wrap(…, input_shape=…)`; superpixels and squares are for images alone"),
]  # fmt: skip


def _needs() -> Iterable[tuple[str, str, str]]:
    """Need, methods, and which fact selects them."""
    every = [one for one in facts() if one.name not in BASELINES]
    yield "the fastest", names(o for o in every if o.numbers == (1, 0)), "one forward pass, shared by all of them"
    yield "speed", names(o for o in every if o.numbers == (1, 1)), "one forward and one backward pass"
    yield (
        "fine detail", f"`refine:NAME` over any CAM (`refine:layercam`), {names(o for o in every if not o.at_layer)}",
        "the map has the image's resolution; a CAM has that of its layer, such as 7 × 7",
    )  # fmt: skip
    yield "no gradients", names(one for one in every if not one.numbers[1]), "no backward pass was counted"
    yield (
        "nothing but the network's answers", names(one for one in every if not one.inner),
        "they ask for the answer to changed images, and for no layer",
    )  # fmt: skip
    yield (
        "why this class and not that one",
        f"{names(o for o in every if 'comparisons' in o.entry.options)}; "
        f"never {names(o for o in every if not o.of_class)}",
        "the first compares classes; the others give one map for all classes",
    )  # fmt: skip
    yield (
        "shares that add up to the output", "`integrated-gradients`, `deeplift`, `lrp`, `kernelshap`, `fullgrad`",
        "their formulas; the metric [`completeness`](metrics.md#completeness) measures what is missing",
    )  # fmt: skip
    yield (
        "maps for a paper, beside others", "`gradcam`, `gradcam++`, `layercam`, `ablationcam`, `scorecam`, "
        "`integrated-gradients`, `rise`", "what reviewers know; [tables and citations](papers.md)",
    )  # fmt: skip


def names(found: Iterable[Facts]) -> str:
    """Names in backticks."""
    return ", ".join(f"`{one.name}`" for one in found)


METRICS_INTRO = """
## Which metric

No metric is right by itself. Take one that asks the network (`road`, `insertion`), one of the map alone
(`complexity`), and, where you have masks, one of the ground truth (`pointing-game`). Score the controls too
(`controls=True`): a metric that ranks one of them as high as the methods is fooled *on your images*. What each metric
has been seen to do is in [claims](claims.md)."""


def _questions() -> Iterable[tuple[str, str, str]]:
    """The families: question, members, and what they need besides images."""
    for family, question in FAMILIES.items():
        own = [e for e in METRICS.values() if e.traits["family"] == family and not e.traits.get("foreign")]
        needs = {need for entry in own for need in entry.needs}
        asked = {"masks": "mask" in needs, "reference images or maps": bool(needs & {"reference", "segment_ranks"}),
                 "images made of parts": "parts" in needs,
                 "the method again, for other images": bool(having(needs, "explains"))}  # fmt: skip
        plain = question.split("?")[0] + ("?" if "?" in question else "")
        listed = ", ".join(f"[`{entry.name}`](metrics.md#{entry.name})" for entry in own)
        yield f"{plain[0].upper()}{plain[1:]} ({family})", listed, ", ".join(k for k, v in asked.items() if v) or "–"


def _misleading() -> str:
    known = [name for name in METRIC_TRAPS if name in METRICS]
    return ", ".join(f"[`{name}`](metrics.md#{name})" for name in known)


PASSES = f"""
## What each costs

Passes through the network for one image, as the engine makes them; C is the number of channels of the layer,
{CHANNELS:,} in the last layer of ResNet-50. Options stand as names, with the number for their defaults after the =;
`occlusion` is at 224 × 224 pixels. Methods that are asked for together share what they need: `gradcam`, `gradcam++`,
`layercam` and `refine:layercam` are one forward and one backward pass together. A method at a layer also runs what
follows it (`ablationcam`, `iba`), which is not counted: where a linear layer follows pooling, `ablationcam` is a
closed formula. Controls need no pass."""

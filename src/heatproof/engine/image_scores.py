"""The quantities that metrics name, each worked out once: those of the images, and those of one method's maps.

`ImageScores` holds what all methods of a batch share, above all the probability of the target and the scores of images
that are fill everywhere. `MapScores` is one method's maps on it; metrics get their quantities from it by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from heatproof import masking, seeds
from heatproof.engine.batch import Batch, Network
from heatproof.engine.explanation import explanation
from heatproof.engine.part_answers import PartAnswers, PartView
from heatproof.engine.resolved_methods import ResolvedMethod
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.flags import Reason
from heatproof.memo import cached_property
from heatproof.metrics import curves, information, road, sensitivity
from heatproof.models import Model
from heatproof.passes import parts, rows_per_pass
from heatproof.registry import unknown
from heatproof.segments import segment
from heatproof.tensors import within_unit
from heatproof.transfers import on_device, on_host

#: The outputs of the network that a metric may use.
ASKED = ("probability", "logit")


@dataclass
class ImageScores:
    """A batch of images whose maps are scored.

    Attributes:
        batch: images, model and target, one for each image; its own forward pass is used and then freed.
        ground_truth: `(N, *spatial)` bool, where the object is; None where that is not known.
        parts: the parts of the images, and the network's answers without some; None where they are not made of parts.
    """

    batch: Batch
    ground_truth: torch.Tensor | None = None
    parts: PartAnswers | None = None
    shared: dict[str, dict[Any, Any]] = field(default_factory=dict, init=False)  # metric → what it keeps
    _memo: dict[Any, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.batch.target.dim() != 1:
            raise InvalidInput(
                f"Scores are for one target for each image. Got {tuple(self.batch.target.shape)}. Call `score` for "
                "each target, or run the study score with `targets` (--targets top3)."
            )
        self.x = self.batch.x.detach()
        self.target, self.logits = self.batch.target, self.batch.logits.detach()

    @cached_property
    def z(self) -> torch.Tensor:
        """The normalised images."""
        return self.batch.z.detach()

    @property
    def model(self) -> Model:
        """The classifier."""
        return self.batch.model

    def once(self, key: Any, work: Callable[[], Any]) -> Any:
        """What `work` gives, worked out the first time that `key` is asked for."""
        if key not in self._memo:
            self._memo[key] = work()
        return self._memo[key]

    def of_logits(self, logits: torch.Tensor, target: torch.Tensor, of: str = "probability") -> torch.Tensor:
        """`(M, K)` logits → the probability or logit (`of`) of each row's target, `(M,)` float64.

        Of a network of values both are the value.
        """
        if of not in ASKED:
            raise unknown("`of`", str(of), ASKED)
        values = logits.double() if of == "logit" else self.model.probabilities(logits)
        return values.gather(1, target[:, None])[:, 0]

    def score(self, z: torch.Tensor, rows: int | torch.Tensor | None = None, of: str = "probability") -> torch.Tensor:
        """Normalised images, each a variant of image `rows` (its own row) → `(M,)`; one pass."""
        if rows is None:
            target = self.target[: len(z)]
        else:
            known = self.target[rows if isinstance(rows, int) else on_device(rows, z.device)]
            target = known.expand(len(z))
        return self.of_logits(self.model.answers(z), target, of)

    def probabilities(self, z: torch.Tensor) -> torch.Tensor:
        """Normalised images → `(M, K)` float64; one pass."""
        return self.model.probabilities(self.model.answers(z))

    def whole(self, of: str = "probability") -> torch.Tensor:
        """The score of the images themselves, `(N,)`."""
        return self.of_logits(self.logits, self.target, of)

    def background(self, fill: str) -> torch.Tensor:
        """The images that are `fill` everywhere, normalised."""

        def work() -> torch.Tensor:
            if fill == "black" and self.model.normalises:  # from the model: images of one colour do not show it
                return self.model.normalise(torch.zeros_like(self.x[:1])).expand_as(self.z)
            return masking.ground(fill, self.x, self.z)

        return self.once(("background", fill), work)

    def nothing(self, fill: str, of: str) -> torch.Tensor:
        """The score of the images that are `fill` everywhere, `(N,)`: one pass for all methods and metrics."""
        logits = self.once(("nothing", fill), lambda: self._logits(self.background(fill)))
        return self.of_logits(logits, self.target, of)

    def _logits(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.model.answers(z[part]) for part in parts(len(z), rows_per_pass(z))])

    def segments(self, name: str = "slic") -> torch.Tensor:
        """Label maps of the clean images, `(N, H, W)`; NaN pixels count as 0."""
        if self.x.dim() != 4:
            raise NotApplicable(f"Superpixels are parts of images (N, C, H, W). Got {tuple(self.x.shape)}.")
        return self.once(("segments", name), lambda: self._segments(name))

    def _segments(self, name: str) -> torch.Tensor:
        return segment(within_unit(self.x.nan_to_num(0)), name)

    def generators(self, name: str) -> list[torch.Generator]:
        """One for each image, seeded by its name and the metric's; the same for every method."""
        return seeds.generators(self.batch.seed, self.batch.names, f"metric {name}")

    @cached_property
    def mask(self) -> torch.Tensor:
        """Where the object is, `(N, *spatial)` bool; False everywhere where that is not known."""
        if self.ground_truth is None:
            return torch.zeros((len(self.x), *self.x.shape[2:]), dtype=torch.bool, device=self.x.device)
        return on_device(self.ground_truth, self.x.device).bool()

    @cached_property
    def objects(self) -> torch.Tensor:
        """Whether there is an object in each image, `(N,)` bool in the CPU's memory."""
        return on_host([self.mask.flatten(1).any(1)])[0]

    @cached_property
    def classes(self) -> torch.Tensor:
        """The target in the CPU's memory."""
        return on_host([self.target])[0]

    def part_view(self) -> PartView:
        """The parts of the images, as one metric sees them."""
        if self.parts is None:
            raise InvalidInput(f"{Reason.NO_PARTS.value.capitalize()}.")
        return self.parts.view()


class MapScores:
    """One method's maps of a batch: gives metrics their quantities by name, each worked out once.

    Args:
        maps: display maps `(N, *spatial)`.
        raw: signed maps as the method made them.
        method: the method, to explain again; None for maps made elsewhere.
        upsample: how the display maps were resized to the image's size.
    """

    def __init__(
        self,
        of_images: ImageScores,
        maps: torch.Tensor,
        raw: torch.Tensor,
        method: ResolvedMethod | None,
        upsample: str = "bilinear",
    ):
        self.of_images, self.maps, self.raw, self.method, self.upsample = of_images, maps, raw, method, upsample
        self._memo: dict[Any, Any] = {}

    def given(self, needs: Sequence[str], metric: str) -> dict[str, Any]:
        """The quantities that a metric names."""
        return {need: SUPPLIERS[need](self, metric) for need in needs}

    def once(self, key: Any, work: Callable[[], Any]) -> Any:
        """What `work` gives, worked out the first time that `key` is asked for."""
        if key not in self._memo:
            self._memo[key] = work()
        return self._memo[key]

    def _masked_logits(self, fill: str) -> torch.Tensor:
        def work() -> torch.Tensor:
            images = self.of_images
            return images._logits(masking.masked(images.z, self.maps, images.background(fill)))

        return self.once(("masked", fill), work)

    def masked(self, fill: str) -> torch.Tensor:
        """Probability of the target on `x ⊙ m + fill ⊙ (1 − m)`, `(N,)`."""
        return self.of_images.of_logits(self._masked_logits(fill), self.of_images.target)

    def masked_probabilities(self, fill: str) -> torch.Tensor:
        """Probability of every class on the same masked images, `(N, K)`."""
        return self.of_images.model.probabilities(self._masked_logits(fill))

    def ranks(self, ties: str = "jitter") -> torch.Tensor:
        """Rank of every pixel in the map, 0 the most important; the order among ties is the same for every method."""
        return self.once(
            ("ranks", ties), lambda: curves.pixel_ranks(self.maps, self.of_images.generators("ties"), ties)
        )

    def curve(
        self,
        fill: str = "black",
        steps: int = 28,
        first: str = "most",
        restore: bool = False,
        ties: str = "jitter",
        of: str = "probability",
    ) -> torch.Tensor:
        """`(N, steps + 1)`: the target's score as pixels are removed (`restore`: restored), both ends included."""
        if restore and ties == "jitter" and self.maps[0].numel() % max(1, int(steps)) == 0:
            # The same images in reverse order: the pixels restored first are those removed last.
            other = {"most": "least", "least": "most"}.get(first, first)
            return self.curve(fill, steps, other, False, ties, of).flip(1)

        def work() -> torch.Tensor:
            images = self.of_images
            ends = images.whole(of), images.nothing(fill, of)
            start, end = reversed(ends) if restore else ends
            return curves.curve_points(
                images.z, images.background(fill), self.ranks(ties), images.score,
                steps=steps, first=first, restore=restore, of=of, start=start, end=end,
            )  # fmt: skip

        return self.once(("curve", fill, steps, first, restore, ties, of), work)

    def removal(
        self, kept: Sequence[float] = (20, 40, 60, 80), ties: str = "jitter", noise: float = 0.01, draws: int = 1
    ) -> Any:
        """Probability of the target where pixels are imputed: most relevant first, least relevant first."""

        def work() -> Any:
            images = self.of_images
            return road.removal_scores(
                images.z, self.ranks(ties), images.score, images.generators("road"),
                kept=tuple(kept), noise=noise, draws=draws,
            )  # fmt: skip

        return self.once(("removal", tuple(kept), ties, noise, draws), work)

    def information(self, thresholds: Sequence[float], ties: str = "jitter") -> Any:
        """Size and probabilities of the image as its most important pixels are restored."""

        def work() -> Any:
            images = self.of_images
            return information.image_information(
                images.x, self.ranks(ties), images.generators("information"), images.model, images.probabilities,
                thresholds, images.logits,
            )  # fmt: skip

        return self.once(("information", tuple(thresholds), ties), work)

    def shifts(self, samples: int = 10, radius: float = 0.2) -> torch.Tensor:
        """Relative change of the map when noise is added to its image, `(N, samples)`."""

        def work() -> torch.Tensor:
            images = self.of_images
            return sensitivity.relative_shifts(
                images.x, images.model, self.maps, self.explain, images.generators("shifts"),
                samples=samples, radius=radius,
            )  # fmt: skip

        return self.once(("shifts", samples, radius), work)

    def explain(
        self,
        x: torch.Tensor,
        rows: torch.Tensor | None = None,
        condition: str | None = None,
        target: torch.Tensor | None = None,
        model: Model | None = None,
    ) -> torch.Tensor:
        """Display maps `(M, *spatial)` of the same method for other images, another target or other weights.

        Args:
            x: variants of the images; need not lie in [0, 1].
            rows: `(M,)`, which image each is a variant of; None: its own row.
            condition: what was done, a part of the seed of methods that draw random numbers; None: nothing, so that the
                draws are those of the map itself.
            target: `(M,)` classes; None: those of the images.
            model: another network of the same architecture.
        """
        if self.method is None:
            raise InvalidInput("Maps made elsewhere cannot be made again. Give the method itself.")
        images = self.of_images
        which = list(range(len(x))) if rows is None else rows.tolist()
        target = images.classes[which] if target is None else target
        step = rows_per_pass(x)
        condition = images.batch.condition if condition is None else condition
        work = partial(self._explained, model or images.model, condition)
        return torch.cat([work(x[part], which[part], target[part]) for part in parts(len(x), step)])

    def _explained(
        self, model: Model, condition: str, x: torch.Tensor, rows: Sequence[int], target: torch.Tensor
    ) -> torch.Tensor:
        method, batch = self.method, self.of_images.batch
        assert method is not None
        names = [batch.names[row] for row in rows]
        anew = Batch.of(
            model, [method], x, target_rule=target, ids=names, seed=batch.seed, condition=condition, output=batch.output
        )
        return explanation(anew, [method], upsample=self.upsample).display(method.key, self.upsample).detach()


#: Quantity → how a metric gets it for one method's maps; those of pairs are in `heatproof.metrics.pairs`.
SUPPLIERS: Mapping[str, Callable[[MapScores, str], Any]] = {
    "x": lambda at, _: at.of_images.x,
    "z": lambda at, _: at.of_images.z,
    "logits": lambda at, _: at.of_images.logits,
    "target": lambda at, _: at.of_images.target,
    "p": lambda at, _: at.of_images.whole(),
    "q": lambda at, _: at.masked,
    "nothing": lambda at, _: at.of_images.nothing,
    "masked_probabilities": lambda at, _: at.masked_probabilities,
    "score": lambda at, _: at.of_images.score,
    "probabilities": lambda at, _: at.of_images.probabilities,
    "network": lambda at, _: Network(at.of_images.model, "logit"),
    "model": lambda at, _: at.of_images.model,
    "maps": lambda at, _: at.maps,
    "raw": lambda at, _: at.raw,
    "ranks": lambda at, _: at.ranks,
    "curve": lambda at, _: at.curve,
    "removal": lambda at, _: at.removal,
    "information": lambda at, _: at.information,
    "explain": lambda at, _: at.explain,
    "shifts": lambda at, _: at.shifts,
    "values": lambda at, _: at.of_images.model.of_values,
    "mask": lambda at, _: at.of_images.mask,
    "parts": lambda at, _: at.of_images.part_view(),
    "segments": lambda at, _: at.of_images.segments,
    "generator": lambda at, metric: at.of_images.generators(metric),
    "ids": lambda at, _: at.of_images.batch.names,
    "seed": lambda at, _: at.of_images.batch.seed,
    "shared": lambda at, metric: at.of_images.shared.setdefault(metric, {}),
}

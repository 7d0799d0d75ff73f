"""What a metric can ask for, worked out once: what belongs to the pictures, and what belongs to one method's maps.

`Stand` holds what all methods of a batch share, above all the probability of the target and the scores of pictures of
nothing but fill. A `Trial` is one method's maps on it; metrics get their quantities from it by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch

from heatproof import masking, seeds
from heatproof.engine.batch import Batch, Network, needs_by_layer
from heatproof.engine.explanation import Placed, explanation
from heatproof.errors import InvalidInput
from heatproof.metrics import curves, information, road, sensitivity
from heatproof.models import Model
from heatproof.passes import parts, rows_per_pass
from heatproof.registry import unknown
from heatproof.segments import segment

#: What a metric may ask the network for.
ASKED = ("probability", "logit")

#: Quantities that no network is asked for.
SILENT = frozenset({"x", "z", "maps", "raw", "ranks", "mask", "segments", "generator", "ids", "seed", "shared"})


@dataclass
class Stand:
    """A batch of pictures on which maps are tried.

    Attributes:
        batch: pictures, model and target, one for each picture; its own forward pass is used and then let go.
        truth: `(N, *spatial)` bool, where the object is; None where that is not known.
    """

    batch: Batch
    truth: torch.Tensor | None = None
    shared: dict[str, dict[Any, Any]] = field(default_factory=dict, init=False)  # metric → what it keeps
    _memo: dict[Any, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.batch.target.dim() != 1:
            raise InvalidInput(f"Scores are for one target for each picture. Got {tuple(self.batch.target.shape)}.")
        self.x, self.z = self.batch.x.detach(), self.batch.z.detach()
        self.target, self.logits = self.batch.target, self.batch.logits.detach()

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
        """`(M, K)` logits → what is asked of each row's target, `(M,)` float64."""
        if of not in ASKED:
            raise unknown("`of`", str(of), ASKED)
        values = logits.double() if of == "logit" else self.model.probabilities(logits)
        return values.gather(1, target[:, None])[:, 0]

    def score(self, z: torch.Tensor, rows: int | torch.Tensor | None = None, of: str = "probability") -> torch.Tensor:
        """Normalised pictures, each a variant of picture `rows` (its own row) → `(M,)`; one pass."""
        if rows is None:
            target = self.target[: len(z)]
        else:
            target = self.target[rows].expand(len(z)) if isinstance(rows, int) else self.target[rows.to(z.device)]
        return self.of_logits(self.model.of_normalised(z), target, of)

    def probabilities(self, z: torch.Tensor) -> torch.Tensor:
        """Normalised pictures → `(M, K)` float64; one pass."""
        return self.model.probabilities(self.model.of_normalised(z))

    def whole(self, of: str = "probability") -> torch.Tensor:
        """The score of the pictures themselves, `(N,)`."""
        return self.of_logits(self.logits, self.target, of)

    def background(self, fill: str) -> torch.Tensor:
        """The pictures of nothing but fill, normalised."""

        def work() -> torch.Tensor:
            if fill == "black" and self.model.pictures:  # told by the model: a picture of one colour cannot tell it
                return self.model.normalise(torch.zeros_like(self.x[:1])).expand_as(self.z)
            return masking.ground(fill, self.x, self.z)

        return self.once(("background", fill), work)

    def nothing(self, fill: str, of: str) -> torch.Tensor:
        """The score of the pictures of nothing but fill, `(N,)`: one pass for all methods and metrics."""
        logits = self.once(("nothing", fill), lambda: self._logits(self.background(fill)))
        return self.of_logits(logits, self.target, of)

    def _logits(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.model.of_normalised(z[part]) for part in parts(len(z), rows_per_pass(z))])

    def segments(self, name: str = "slic") -> torch.Tensor:
        """Label maps of the clean pictures, `(N, H, W)`; of one that is not finite, those of its finite pixels."""
        return self.once(("segments", name), lambda: segment(self.x.nan_to_num(0).cpu(), name).to(self.x.device))

    def generators(self, name: str) -> list[torch.Generator]:
        """One for each picture; the same for every method."""
        return seeds.generators(self.batch.seed, self.batch.names, f"metric {name}")

    @cached_property
    def mask(self) -> torch.Tensor:
        """Where the object is; nowhere, where that is not known."""
        if self.truth is None:
            return torch.zeros((len(self.x), *self.x.shape[2:]), dtype=torch.bool, device=self.x.device)
        return self.truth.to(self.x.device).bool()


class Trial:
    """One method's maps on a stand: hands metrics their quantities by name, each worked out once.

    Args:
        maps: display maps `(N, *spatial)`.
        raw: signed maps as the method made them.
        place: the method, to explain again; None for maps made elsewhere.
        upsample: how the display maps were brought to the picture's size.
    """

    def __init__(
        self, stand: Stand, maps: torch.Tensor, raw: torch.Tensor, place: Placed | None, upsample: str = "bilinear"
    ):
        self.stand, self.maps, self.raw, self.place, self.upsample = stand, maps, raw, place, upsample
        self._memo: dict[Any, Any] = {}

    def given(self, needs: Sequence[str], metric: str) -> dict[str, Any]:
        """The quantities that a metric names."""
        return {need: self._quantity(need, metric) for need in needs}

    def _quantity(self, name: str, metric: str) -> Any:
        stand = self.stand
        return {
            "x": lambda: stand.x,
            "z": lambda: stand.z,
            "logits": lambda: stand.logits,
            "target": lambda: stand.target,
            "p": stand.whole,
            "q": lambda: self.masked,
            "nothing": lambda: stand.nothing,
            "masked_probabilities": lambda: self.masked_probabilities,
            "score": lambda: stand.score,
            "probabilities": lambda: stand.probabilities,
            "network": lambda: Network(stand.model, "logit"),
            "model": lambda: stand.model,
            "maps": lambda: self.maps,
            "raw": lambda: self.raw,
            "ranks": lambda: self.ranks,
            "curve": lambda: self.curve,
            "removal": lambda: self.removal,
            "information": lambda: self.information,
            "explain": lambda: self.explain,
            "shifts": lambda: self.shifts,
            "mask": lambda: stand.mask,
            "segments": lambda: stand.segments,
            "generator": lambda: stand.generators(metric),
            "ids": lambda: stand.batch.names,
            "seed": lambda: stand.batch.seed,
            "shared": lambda: stand.shared.setdefault(metric, {}),
        }[name]()

    def once(self, key: Any, work: Callable[[], Any]) -> Any:
        """What `work` gives, worked out the first time that `key` is asked for."""
        if key not in self._memo:
            self._memo[key] = work()
        return self._memo[key]

    def _masked_logits(self, fill: str) -> torch.Tensor:
        def work() -> torch.Tensor:
            stand = self.stand
            return stand._logits(masking.masked(stand.z, self.maps, stand.background(fill)))

        return self.once(("masked", fill), work)

    def masked(self, fill: str) -> torch.Tensor:
        """Probability of the target on `x ⊙ m + fill ⊙ (1 − m)`, `(N,)`."""
        return self.stand.of_logits(self._masked_logits(fill), self.stand.target)

    def masked_probabilities(self, fill: str) -> torch.Tensor:
        """Probability of every class there, `(N, K)`."""
        return self.stand.model.probabilities(self._masked_logits(fill))

    def ranks(self, ties: str = "jitter") -> torch.Tensor:
        """Rank of every pixel in the map, 0 the most important; the order among ties is the same for every method."""
        return self.once(("ranks", ties), lambda: curves.pixel_ranks(self.maps, self.stand.generators("ties"), ties))

    def curve(
        self,
        fill: str = "black",
        steps: int = 28,
        first: str = "most",
        restore: bool = False,
        ties: str = "jitter",
        of: str = "probability",
    ) -> torch.Tensor:
        """`(N, steps + 1)`: the target's score while pixels go (`restore`: come back), both ends included."""
        if restore and ties == "jitter" and self.maps[0].numel() % max(1, int(steps)) == 0:
            # The same pictures in the other order: what comes back first is what goes last.
            other = {"most": "least", "least": "most"}.get(first, first)
            return self.curve(fill, steps, other, False, ties, of).flip(1)

        def work() -> torch.Tensor:
            stand = self.stand
            ends = stand.whole(of), stand.nothing(fill, of)
            start, end = reversed(ends) if restore else ends
            return curves.curve_points(
                stand.z, stand.background(fill), self.ranks(ties), stand.score,
                steps=steps, first=first, restore=restore, of=of, start=start, end=end,
            )  # fmt: skip

        return self.once(("curve", fill, steps, first, restore, ties, of), work)

    def removal(self, kept: Sequence[float] = (20, 40, 60, 80), ties: str = "jitter", noise: float = 0.01) -> Any:
        """Probability of the target where pixels are imputed: most relevant first, least relevant first."""

        def work() -> Any:
            stand = self.stand
            return road.removal_scores(
                stand.z, self.ranks(ties), stand.score, stand.generators("road"), kept=tuple(kept), noise=noise
            )

        return self.once(("removal", tuple(kept), ties, noise), work)

    def information(self, thresholds: Sequence[float], ties: str = "jitter") -> Any:
        """Size and probabilities of the picture while its most important pixels return."""

        def work() -> Any:
            stand = self.stand
            return information.picture_information(
                stand.x, self.ranks(ties), stand.generators("information"), stand.model, stand.probabilities,
                thresholds, stand.logits,
            )  # fmt: skip

        return self.once(("information", tuple(thresholds), ties), work)

    def shifts(self, samples: int = 10, radius: float = 0.2) -> torch.Tensor:
        """Relative change of the map when its picture is moved by noise, `(N, samples)`."""

        def work() -> torch.Tensor:
            stand = self.stand
            return sensitivity.relative_shifts(
                stand.x, stand.model, self.maps, self.explain, stand.generators("shifts"),
                samples=samples, radius=radius,
            )  # fmt: skip

        return self.once(("shifts", samples, radius), work)

    def explain(
        self,
        x: torch.Tensor,
        rows: torch.Tensor | None = None,
        condition: str = "",
        target: torch.Tensor | None = None,
        model: Model | None = None,
    ) -> torch.Tensor:
        """Display maps `(M, *spatial)` of the same method for other pictures, another target or other weights.

        Args:
            x: variants of the pictures; need not lie in [0, 1].
            rows: `(M,)`, which picture each is a variant of; None: its own row.
            condition: what was done, a part of the seed of methods that draw random numbers.
            target: `(M,)` classes; None: those of the pictures.
            model: another network of the same make.
        """
        if self.place is None:
            raise InvalidInput("Maps made elsewhere cannot be made again. Give the method itself.")
        stand = self.stand
        rows = torch.arange(len(x), device=stand.target.device) if rows is None else rows.to(stand.target.device)
        target = stand.target[rows] if target is None else target
        step = rows_per_pass(x)
        work = partial(self._explained, model or stand.model, condition)
        return torch.cat([work(x[part], rows[part], target[part]) for part in parts(len(x), step)])

    def _explained(
        self, model: Model, condition: str, x: torch.Tensor, rows: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        place, batch = self.place, self.stand.batch
        assert place is not None
        names = [batch.names[row] for row in rows.tolist()]
        needs = needs_by_layer([(place.request, place.layers)])
        again = Batch(model, x, needs, target, names, batch.seed, condition, output=batch.output)
        return explanation(again, [place], upsample=self.upsample).display(place.key, self.upsample).detach()

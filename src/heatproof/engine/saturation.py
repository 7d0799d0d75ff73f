"""Which images have a saturated probability that no masking moves: read from the quantities that a metric was given.

A logit of 20 is a probability of 1 − 2e-9. Where masking moves it to 15, all curves are 1 to the digits that scores
have, and so every method scores alike. Such a row keeps its value, and the flag says that it tells no methods apart.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from heatproof.rounding import ANSWER_STEP, STEP
from heatproof.transfers import on_device

#: How far from 0 or 1 a probability may be to count as saturated, five digits, as scores are compared;
#: and how far masking may move it: rounding, six digits.
NEAR, STILL = ANSWER_STEP, STEP
#: The share of the image that a map must mask, as the control `ones` does not.
MASKED = 0.05


class SeenProbabilities:
    """The smallest and the largest probability of the target that a metric saw of each image, masked in any way.

    `given` wraps what a metric is given: the calls that follow are recorded. `clean` and `target` `(N,)` are those of
    the images themselves. A map of almost only ones masks nothing, so what `q` says of it is left out.
    """

    def __init__(self, clean: torch.Tensor, target: torch.Tensor, maps: torch.Tensor):
        self.clean, self.target = clean, target
        self.masking = (maps.flatten(1).double().mean(1) <= 1 - MASKED).to(clean.device)
        self.low = torch.full_like(clean, torch.inf)
        self.high = torch.full_like(clean, -torch.inf)

    def given(self, quantities: Mapping[str, Any]) -> dict[str, Any]:
        """The same quantities, with those that hold probabilities of masked images watched."""
        return {name: WATCHED[name](self, value) if name in WATCHED else value for name, value in quantities.items()}

    def add(self, values: torch.Tensor, rows: Any = None, counted: torch.Tensor | None = None) -> None:
        """`(M, …)` probabilities of variants of the images `rows` (an image, or `(M,)`; None: each its own).

        counted: `(M,)` bool, which of them count; None: all.
        """
        values = values.detach().to(self.clean)
        if rows is None:
            flat = values.reshape(len(values), -1)
            which = torch.arange(len(values), device=self.clean.device)
        else:
            flat = values.reshape(-1, 1)
            which = self._rows(rows, len(flat))
        low, high = flat.amin(1), flat.amax(1)
        if counted is not None:
            low, high = torch.where(counted, low, torch.inf), torch.where(counted, high, -torch.inf)
        self.low = self.low.scatter_reduce(0, which, low, "amin")
        self.high = self.high.scatter_reduce(0, which, high, "amax")

    def _rows(self, rows: Any, count: int) -> torch.Tensor:
        if isinstance(rows, int):
            return torch.full((count,), rows, device=self.clean.device)
        return on_device(torch.as_tensor(rows), self.clean.device).expand(count)

    @property
    def saturated(self) -> list[bool]:
        """For each image, whether all of them are 0, or all are 1, and no masking moved them; `(N,)` as a list.

        False where no masked image was seen, and where a probability is not finite.
        """
        low, high = torch.minimum(self.low, self.clean), torch.maximum(self.high, self.clean)
        seen = torch.isfinite(self.low) & torch.isfinite(self.high) & torch.isfinite(self.clean)
        return (seen & (high - low <= STILL) & ((high <= NEAR) | (low >= 1 - NEAR))).tolist()


def _call(read: Callable[[SeenProbabilities, Any], None], of: str = "") -> Callable[[SeenProbabilities, Any], Any]:
    """A watched callable: `read` gets its results; only where its option `of`, by default `of`, is a probability."""

    def watched(seen: SeenProbabilities, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            found = function(*arguments, **options)
            if not of or options.get("of", of) == "probability":
                read(seen, found)
            return found

        return call

    return watched


def _score(seen: SeenProbabilities, function: Any) -> Any:
    def call(z: torch.Tensor, rows: Any = None, of: str = "probability") -> torch.Tensor:
        found = function(z, rows, of)
        if of == "probability":
            seen.add(found, rows)
        return found

    return call


def _nothing(seen: SeenProbabilities, function: Any) -> Any:
    def call(fill: str, of: str) -> torch.Tensor:
        found = function(fill, of)
        if of == "probability":
            seen.add(found)
        return found

    return call


def _of_classes(seen: SeenProbabilities, found: torch.Tensor) -> None:
    """`(N, …, K)` probabilities of every class."""
    target = seen.target.view(-1, *[1] * (found.dim() - 1)).expand(*found.shape[:-1], 1)
    seen.add(found.gather(-1, target))


def _of_masked(seen: SeenProbabilities, found: torch.Tensor) -> None:
    """`(N,)`, or `(N, K)` of every class, on the image multiplied by its map."""
    target = found if found.dim() == 1 else found.gather(1, seen.target[:, None])[:, 0]
    seen.add(target, counted=seen.masking)


def _of_removal(seen: SeenProbabilities, found: Any) -> None:
    seen.add(found.morf)
    seen.add(found.lerf)


#: Quantity → how it is watched.
WATCHED: Mapping[str, Callable[[SeenProbabilities, Any], Any]] = {
    "q": _call(_of_masked),
    "curve": _call(SeenProbabilities.add, of="probability"),
    "score": _score,
    "nothing": _nothing,
    "masked_probabilities": _call(_of_masked),
    "removal": _call(_of_removal),
    "information": _call(lambda seen, found: _of_classes(seen, found.probabilities)),
}

"""Scores of an extractor over batches, in the call style of torchcam: `metric.update(z); metric.summary()`.

`heatproof.score` has these and many more, from shared passes (docs/moving.md).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import nn

from heatproof.ambient import callers_state, neutral
from heatproof.compat.given_models import checked, number
from heatproof.compat.missing import missing_names
from heatproof.compat.torchcam.methods.core import NotRun, OutputTarget, as_scores
from heatproof.errors import InvalidInput, InvalidTarget, InvalidType
from heatproof.tensors import upsampled

#: Images and the rows of the batch they are variants of → the target's outputs.
Scores = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


class _Metric:
    """Sums over images, of any extractor with `model`, `fuse_cams` and torchcam's call; maps with NaN are left out."""

    #: What `summary` names → the attribute that sums it.
    sums: ClassVar[dict[str, str]]

    def __init__(self, cam_extractor: Any, logits_fn: Callable[[Any], Any] | None = None):
        """
        Args:
            cam_extractor: an extractor of `methods`, open.
            logits_fn: applied to the model's output, such as `partial(torch.softmax, dim=-1)`.
        """
        self.cam_extractor, self.logits_fn = cam_extractor, logits_fn
        self.reset()

    @neutral()
    def update(
        self,
        input_tensor: torch.Tensor,
        class_idx: int | list[int] | None = None,
        *,
        targets: OutputTarget | Sequence[OutputTarget] | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            input_tensor: `(N, C, *spatial)`, as the network takes it.
            class_idx: a class for all images, or one for each; None: the most probable one.
            targets: in place of `class_idx`, functions of one image's output to a number.

        Raises:
            InvalidInput, InvalidTarget, InvalidType: inputs or targets that do not fit.
        """
        if targets is not None and class_idx is not None:
            raise InvalidTarget("Expected either class_idx or targets. Got both.")
        if not isinstance(input_tensor, torch.Tensor) or input_tensor.dim() not in (3, 4, 5):
            raise InvalidInput("Expected inputs with 1D, 2D or 3D positions, (N, C, *spatial).")
        inputs, count = checked(input_tensor), len(input_tensor)
        with in_eval_mode(self.cam_extractor.model):
            outputs = self._outputs(inputs.clone().requires_grad_())
            if targets is None:
                classes = _classes(outputs, class_idx)
                cams = self.cam_extractor(classes if class_idx is None else class_idx, outputs)
                chosen: list[OutputTarget] = [lambda row, index=index: row[index] for index in classes]
            else:
                chosen = list(as_scores(targets, count).scores)
                cams = self.cam_extractor(scores=outputs, targets=targets)
            maps = self.cam_extractor.fuse_cams(cams).detach()
            kept = [i for i, one in enumerate(maps) if not torch.isnan(one).any()]
            with self._hooks_off(), torch.no_grad():

                def scores(images: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
                    found = self._outputs(images)
                    return torch.stack([number(chosen[kept[i]], one) for i, one in zip(rows, found, strict=True)])

                if kept:
                    before = torch.stack([number(chosen[i], outputs[i]).detach() for i in kept])
                    self._add(inputs, kept, upsampled(maps[kept], tuple(inputs.shape[2:])), before, scores)
        self.total += len(kept)
        self.nan_count += count - len(kept)

    def _add(
        self, inputs: torch.Tensor, kept: list[int], maps: torch.Tensor, before: torch.Tensor, scores: Scores
    ) -> None:
        raise NotImplementedError

    def _outputs(self, images: torch.Tensor) -> Any:
        with callers_state():
            found = self.cam_extractor.model(images)
        return found if self.logits_fn is None else self.logits_fn(found)

    def _hooks_off(self) -> AbstractContextManager:
        return getattr(self.cam_extractor, "_hooks_off", nullcontext)()

    def summary(self) -> dict[str, float]:
        """The means over all images so far. Raises NotRun where there are none."""
        if self.total == 0:
            raise NotRun("Call `update` before the summary: there is no map yet.")
        return {name: getattr(self, held) / self.total for name, held in self.sums.items()}

    def reset(self) -> None:
        """Forgets all images."""
        for held in self.sums.values():
            setattr(self, held, 0.0)
        self.total = self.nan_count = 0


class ClassificationMetric(_Metric):
    """Average drop `relu(y(z) − y(z ⊙ m)) / y(z)`, and the share of images where `y(z ⊙ m) > y(z)`."""

    sums: ClassVar[dict[str, str]] = {"avg_drop": "drop", "conf_increase": "increase"}
    drop: float
    increase: float

    def _add(
        self, inputs: torch.Tensor, kept: list[int], maps: torch.Tensor, before: torch.Tensor, scores: Scores
    ) -> None:
        images = inputs[kept]
        after = scores(maps[:, None].to(images) * images, range(len(images)))
        self.drop += float((torch.relu(before - after) / (before + 1e-7)).sum())
        self.increase += float((before < after).sum())


class DeletionInsertionMetric(_Metric):
    """Areas under the output's curve while positions go (`deletion_auc`) or return, the highest of the map first."""

    sums: ClassVar[dict[str, str]] = {"deletion_auc": "deletion", "insertion_auc": "insertion"}
    deletion: float
    insertion: float

    def __init__(
        self,
        cam_extractor: Any,
        logits_fn: Callable[[Any], Any] | None = None,
        *,
        steps: int = 20,
        baseline: torch.Tensor | Callable[[torch.Tensor], torch.Tensor] | None = None,
        batch_size: int = 32,
    ):
        """
        Args:
            steps: at most so many intervals, of equally many positions but the last.
            baseline: what covered positions become, or a function of the inputs that gives it; zeros by default.
            batch_size: covered images in one pass.
        """
        for name, value in (("steps", steps), ("batch_size", batch_size)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise InvalidType(f"`{name}` must be an integer. Got {value!r}.")
            if value < 1:
                raise InvalidInput(f"`{name}` must be positive. Got {value}.")
        if baseline is not None and not isinstance(baseline, torch.Tensor) and not callable(baseline):
            raise InvalidType(f"`baseline` must be a tensor, a function or None. Got {baseline!r}.")
        self.steps, self.baseline, self.batch_size = steps, baseline, batch_size
        super().__init__(cam_extractor, logits_fn)

    def _add(
        self, inputs: torch.Tensor, kept: list[int], maps: torch.Tensor, before: torch.Tensor, scores: Scores
    ) -> None:
        images, ground = inputs[kept], self._ground(inputs)[kept]
        order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
        ranks = order.argsort(dim=1).view(maps.shape)[:, None].to(images.device)
        positions = maps[0].numel()
        step = -(-positions // self.steps)
        counts = [*range(0, positions, step), positions]
        inner = [(i, count) for i in range(len(images)) for count in counts[1:-1]]
        whole = [(i, positions) for i in range(len(images))]

        def curve(keep: Callable[..., torch.Tensor], jobs: list[tuple[int, int]]) -> torch.Tensor:
            """`(N, …)`: the outputs where the positions stay whose rank `keep` allows."""
            found = [torch.empty(0)]
            for first in range(0, len(jobs), self.batch_size):
                rows, tops = zip(*jobs[first : first + self.batch_size], strict=True)
                index, limit = list(rows), torch.tensor(tops, device=ranks.device)
                stays = keep(ranks[index], limit.view(-1, *[1] * (images.dim() - 1)))
                found.append(scores(torch.where(stays, images[index], ground[index]), rows).cpu())
            return torch.cat(found).view(len(images), -1)

        before, nothing = before.cpu()[:, None], curve(torch.ge, whole)
        gone = torch.cat([before, curve(torch.ge, inner), nothing], 1)
        returned = torch.cat([nothing, curve(torch.lt, inner), before], 1)
        shares = torch.tensor(counts) / positions
        self.deletion += float(torch.trapezoid(gone, shares, dim=1).sum())
        self.insertion += float(torch.trapezoid(returned, shares, dim=1).sum())

    def _ground(self, images: torch.Tensor) -> torch.Tensor:
        """What covered positions become, of the shape of the images."""
        found = torch.zeros(()) if self.baseline is None else self.baseline
        found = found if isinstance(found, torch.Tensor) else found(images)
        if not isinstance(found, torch.Tensor):
            raise InvalidType(f"`baseline` must return a tensor. Got {type(found).__name__}.")
        try:
            return torch.broadcast_to(found.to(images), images.shape)
        except RuntimeError:
            raise InvalidInput(
                f"`baseline` must be broadcastable to {tuple(images.shape)}. Got {tuple(found.shape)}."
            ) from None


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode, without a lock: the passes are the user's, which extractors keep."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _classes(outputs: torch.Tensor, class_idx: Any) -> list[int]:
    """The class of each row of `(N, K)` outputs: the one given, the row's own, or the largest."""
    count, classes = outputs.shape
    if class_idx is None:
        return outputs.argmax(1).tolist()
    found = [class_idx] * count if isinstance(class_idx, int) else class_idx
    if not isinstance(found, list) or any(not isinstance(i, int) or isinstance(i, bool) for i in found):
        raise InvalidType(f"`class_idx` must be an integer, a list of integers, or None. Got {class_idx!r}.")
    if len(found) != count:
        raise InvalidTarget(f"`class_idx` must fit the batch size, {count} images. Got {len(found)}.")
    if any(not 0 <= i < classes for i in found):
        raise InvalidTarget(f"`class_idx` must lie in 0 … {classes - 1}. Got {class_idx}.")
    return found


__getattr__ = missing_names(__name__, {})

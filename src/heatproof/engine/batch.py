"""The quantities of one batch of images, one target and one layer, each worked out once for all methods.

`Batch` holds what does not depend on the class explained, above all the one forward pass that captures every layer
asked for. A `TargetBatch` is the batch with one target for each image: gradients of all layers from one backward pass.
A `LayerBatch` is a target batch at one layer; methods get their quantities from it by name.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from heatproof import explained_output, seeds, targets
from heatproof.ambient import ordinary
from heatproof.attributions import Request
from heatproof.engine.resolved_methods import ResolvedMethod
from heatproof.errors import InvalidInput
from heatproof.memo import PerModule, cached_property
from heatproof.models import Model
from heatproof.models.attention import UnfusedAttention
from heatproof.models.capture import INPUT, Captured, captured
from heatproof.models.head import linear_head
from heatproof.models.row_checks import check_images, check_layers
from heatproof.models.tail import Record, Tail, recording
from heatproof.quantities import QUANTITIES, having, of_variants
from heatproof.transfers import on_device

#: Layers that were found to feed a linear head through average pooling: no tail is recorded there.
_LINEAR = PerModule[bool]()

#: The outputs that are the network's own numbers.
LINEAR = ("logit", "value")


@dataclass(frozen=True)
class LayerNeeds:
    """What the methods ask for at one layer, and what follows from it (`heatproof.quantities`).

    Attributes:
        names: the quantities named there.
        replay: whether some method runs the tail even where the head is linear, because it does not name `head`.
    """

    names: frozenset[str]
    replay: bool = False

    @cached_property
    def kept(self) -> bool:
        """Whether the activations are kept in the forward pass."""
        return bool(having(self.names, "keeps"))

    @cached_property
    def graph(self) -> int:
        """How many derivatives are taken from the layer to the output."""
        return max((QUANTITIES[name].graph for name in self.names), default=0)

    @cached_property
    def reused(self) -> bool:
        """Whether the graph is needed again after the first backward pass."""
        return bool(having(self.names, "reused"))


def needs_by_layer(methods: Sequence[ResolvedMethod]) -> dict[str, LayerNeeds]:
    """Layer → the union of the quantities that methods name there, those that belong to no layer included."""
    found: dict[str, LayerNeeds] = {}
    for method in methods:
        names = frozenset(method.request.entry.needs)
        replay = "tail" in names and "head" not in names
        for layer in method.layers:
            known = found.get(layer, LayerNeeds(frozenset()))
            found[layer] = LayerNeeds(known.names | names, known.replay or replay)
    return found


@dataclass
class Batch:
    """One batch of images `(N, 3, H, W)` in [0, 1] under one model, and what has been worked out on it.

    `Batch.of` makes one for the methods that will run on it.

    Attributes:
        needs: layer → what the methods will ask for there; decides what the one forward pass keeps.
        target_rule: a rule of `heatproof.targets`, or classes `(N,)` or `(N, T)`.
        ids: the images' names, from which their random numbers come; a callable is called only when they are needed.
        condition: what was done to the images (part of the seed of methods that draw random numbers).
        differentiable: keep the graph, so that maps can be differentiated by `x`.
        labels, clean: the labels and the clean predictions, for the target rules `label` and `clean`.
        output: the output of the network that is explained (`heatproof.explained_output`).
    """

    model: Model
    x: torch.Tensor
    needs: Mapping[str, LayerNeeds]
    target_rule: targets.Rule = "predicted"
    ids: Sequence[str] | Callable[[], Sequence[str]] = ()
    seed: int = 0
    condition: str = ""
    labels: Sequence[int | None] | None = None
    clean: torch.Tensor | None = None
    differentiable: bool = False
    output: explained_output.Output = "logit"
    _records: dict[str, Record] = field(default_factory=dict, init=False)
    _heads: dict[str, torch.Tensor | None] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, model: Model, methods: Sequence[ResolvedMethod], x: torch.Tensor, **settings: Any) -> "Batch":
        """The batch on which these methods will run: `settings` are the attributes besides `needs`.

        Raises LayerError for a layer whose rows are not images, ModelError where the images of a batch are mixed.
        """
        needs, shape = needs_by_layer(methods), tuple(x.shape[1:])
        check_layers(model, [layer for layer, wanted in needs.items() if wanted.kept], shape, len(x))
        asked = frozenset().union(*(wanted.names for wanted in needs.values()))
        if having(asked, "asks"):
            check_images(model, shape, len(x), variants=bool(of_variants(asked)))
        return cls(model, x, needs, **settings)

    def __post_init__(self) -> None:
        self.x = ordinary(self.x)

    @cached_property
    def captured(self) -> Captured:
        """The one forward pass, in eval mode; tails are recorded in it where a method may want one."""
        layers = [layer for layer, needs in self.needs.items() if needs.kept]
        graph = [layer for layer in layers if self.needs[layer].graph]
        with ExitStack() as stack:
            stack.enter_context(self.model.evaluating())  # also where the logits are read outside `explanation`
            if self._twice:  # fused attention has no second derivative
                stack.enter_context(UnfusedAttention())
            for layer in layers:
                if "tail" in self.needs[layer].names and not self._linear_before(layer):
                    self._records[layer] = stack.enter_context(recording(self.model, layer))
            return captured(
                self.model, self.x, layers, gradients=graph, trunk=self.differentiable, at_input=self._at_input
            )

    @property
    def _at_input(self) -> bool:
        return any("input_gradients" in needs.names for needs in self.needs.values())

    @property
    def _twice(self) -> bool:
        return self.differentiable or any(needs.graph > 1 for needs in self.needs.values())

    @property
    def keeps_graph(self) -> bool:
        """Whether the graph is needed again after the first backward."""
        return self.differentiable or any(needs.reused for needs in self.needs.values())

    @property
    def adopts(self) -> bool:
        """Whether the logits of a method's own forward pass become the batch's: none are known, no layer is kept.

        Not in half precision, where a method's own functions may round otherwise and so predict another class.
        """
        captures = self._at_input or any(needs.kept for needs in self.needs.values())
        known = "logits" in self.__dict__ or "captured" in self.__dict__
        exact = self.model.precision in (torch.float32, torch.float64)
        return exact and not (captures or known or self.differentiable)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """`z` → the output of every class `(N, K)`, with its graph; the batch adopts the logits of its own images."""
        own = self.adopts and torch.equal(z.detach(), self.z)  # compared before the pass, which may write into it
        logits = self.model.of_normalised(z)
        if own:
            self.logits = logits.detach()
        return self._of_classes(logits)

    @cached_property
    def logits(self) -> torch.Tensor:
        """`(N, K)`, with their graph where `differentiable`."""
        return self.captured.logits if self.differentiable else self.captured.logits.detach()

    @cached_property
    def target(self) -> torch.Tensor:
        """`(N,)` or `(N, T)`: the classes explained."""
        given = self.target_rule, self.logits.detach(), self.labels, self.clean
        return ordinary(targets.resolved(*given, values=self.model.of_values))

    def release(self) -> None:
        """Frees the forward pass with all activations and graphs; logits, target and images stay."""
        _ = self.logits, self.target  # worked out before it is freed
        self.drop()

    def drop(self) -> None:
        """As `release`, of a batch whose pass may have failed."""
        self.__dict__.pop("captured", None)
        self.__dict__.pop("by_target", None)
        self._records.clear()

    @cached_property
    def by_target(self) -> list["TargetBatch"]:
        """One for each column of the target."""
        return [TargetBatch(self, column) for column in range(self.target[0].numel())]

    @cached_property
    def z(self) -> torch.Tensor:
        """The normalised image."""
        return self.model.normalise(self.x)

    @cached_property
    def network(self) -> "Network":
        """Normalised images → the output of every class."""
        if not isinstance(self.output, str):
            raise InvalidInput(
                "This method explains an output that every class has. Got a callable `output`. "
                f"Take one of {', '.join(explained_output.OUTPUTS)}, or a CAM."
            )
        return Network(self.model, str(self._read(self.output)))

    @cached_property
    def columns(self) -> torch.Tensor:
        """`(N, K)`: what methods get as `logits`, the output of every class."""
        return self._of_classes(self.logits)

    def _of_classes(self, logits: torch.Tensor) -> torch.Tensor:
        if isinstance(self.output, str):
            return explained_output.columns(str(self._read(self.output)), logits, self.model.multi_label)
        raise InvalidInput(
            "This method compares the output of a class with and without something. Got a callable `output`. "
            f"Take one of {', '.join(explained_output.OUTPUTS)}, or a gradient CAM."
        )

    def _read(self, output: explained_output.Output) -> explained_output.Output:
        """The output asked for, as this network has it (`explained_output.of_values`)."""
        return explained_output.of_values(output) if self.model.of_values else output

    def activations(self, layer: str) -> torch.Tensor:
        """`(N, C, *spatial)`, float32 whatever the weights are."""
        found = self.captured.activations(layer).float()
        return found if self.differentiable else found.detach()

    def head(self, layer: str) -> torch.Tensor | None:
        """`(K, C)` weights where the outputs explained are a linear layer on the pooled activations; else None."""
        if layer not in self._heads:
            module = self.model.module
            linear = self.output in LINEAR
            activations, logits = self.activations(layer).detach(), self.logits.detach()
            found = linear_head(module, activations, logits, self.model.precision) if linear else None
            if found is not None:
                _LINEAR.put(module, layer, True)
            self._heads[layer] = found
        return self._heads[layer]

    def _linear_before(self, layer: str) -> bool:
        known = _LINEAR.get(self.model.module, layer) is not None
        return self.output in LINEAR and known and not self.needs[layer].replay

    def tail(self, layer: str) -> Any:
        """Activations at the layer → outputs of every class."""
        found = self.captured
        found.check_within([layer])
        if layer not in self._records:  # it was known to feed a linear head, and on this batch it does not
            with recording(self.model, layer) as self._records[layer]:
                self.model.logits(self.x)
        tail = Tail(self.model, self._records[layer], found.layouts[layer], self.x, found.logits, self.differentiable)
        return tail if self.output in LINEAR else lambda *arguments: self._of_classes(tail(*arguments))

    def generators(self, method: str) -> list[torch.Generator]:
        """One for each image, seeded by its name, the method's name and the condition."""
        return seeds.generators(self.seed, self.names, method, self.condition)

    @cached_property
    def names(self) -> list[str]:
        """The images' names."""
        return list(self.ids() if callable(self.ids) else self.ids)


@dataclass
class TargetBatch:
    """A batch and one target for each image, a column of the batch's; it is resolved when it is first needed."""

    batch: Batch
    column: int = 0
    _second: dict[Any, dict[str, torch.Tensor]] = field(default_factory=dict, init=False)

    @cached_property
    def target(self) -> torch.Tensor:
        """`(N,)`: the classes explained."""
        found = self.batch.target
        return found if found.dim() == 1 else found[:, self.column]

    @property
    def last(self) -> bool:
        """Whether no other target follows, so that graphs may be freed."""
        return self.column == self.batch.target[0].numel() - 1

    def of_target(self, columns: torch.Tensor) -> torch.Tensor:
        """`(N, K)` outputs → those of the classes explained, `(N,)`, with their graph."""
        return columns.gather(1, self.target[:, None])[:, 0]

    def utility(self, output: explained_output.Output) -> torch.Tensor:
        """The output of each image's target, `(N,)`, with its graph."""
        with torch.enable_grad():
            return explained_output.of_target(
                self.batch._read(output), self.batch.captured.logits, self.target, self.batch.model.multi_label
            )

    @cached_property
    def gradients(self) -> dict[str, torch.Tensor]:
        """Layer → gradients of the output explained, all from one backward; those of the image as `INPUT`."""
        batch = self.batch
        wanted = [layer for layer, needs in batch.needs.items() if "gradients" in needs.names]
        wanted += [INPUT] if batch._at_input else []
        return batch.captured.gradients_of(
            self.utility(batch.output), wanted, second=batch.differentiable, keep=batch.keeps_graph or not self.last
        )

    def gradients_of(self, layer: str, utility: explained_output.Output) -> torch.Tensor:
        """Gradients of another output at a layer."""
        batch = self.batch
        if utility == batch.output and "gradients" in batch.needs[layer].names:
            return self.gradients[layer].float()
        if "hvp" in batch.needs[layer].names:
            found = self._twice(utility)[layer].float()
            return found if batch.differentiable else found.detach()
        found = batch.captured.gradients_of(self.utility(utility), [layer], second=batch.differentiable, keep=True)
        return found[layer].float()

    def noisy_gradients(self, layer: str, noise: torch.Tensor) -> torch.Tensor:
        """Gradients of the output explained at a layer, where `noise` is added to the normalised images."""
        batch, model = self.batch, self.batch.model
        std = on_device(torch.tensor(model.std if model.normalises else 1.0, dtype=noise.dtype), noise.device)
        scale = std.view(1, -1, *[1] * (noise.dim() - 2))
        found = captured(model, batch.x + scale * noise, [layer], gradients=True, trunk=batch.differentiable)
        with torch.enable_grad():
            output = batch._read(batch.output)
            utility = explained_output.of_target(output, found.logits, self.target, model.multi_label)
        return found.gradients_of(utility, [layer], second=batch.differentiable)[layer].float()

    def hvp(self, layer: str, utility: explained_output.Output) -> torch.Tensor:
        """The product of a utility's Hessian with the activations, at a layer."""
        gradients = self._twice(utility)[layer]
        return self.batch.captured.product(gradients, layer, second=self.batch.differentiable).float()

    def _twice(self, utility: explained_output.Output) -> dict[str, torch.Tensor]:
        """Gradients that can be differentiated again, at all layers where `hvp` is named, from one backward."""
        if utility not in self._second:
            wanted = [layer for layer, needs in self.batch.needs.items() if "hvp" in needs.names]
            self._second[utility] = self.batch.captured.gradients_of(
                self.utility(utility), wanted, second=True, keep=True
            )
        return self._second[utility]

    def score(self, z: torch.Tensor, rows: int | torch.Tensor | None = None, of: explained_output.Output = "output"):
        """Normalised images, each a variant of image `rows` of the batch (its own row) → `(M,)` outputs."""
        batch = self.batch
        if rows is None:
            rows = torch.arange(len(z), device=self.target.device)
        target = self.target[rows].expand(len(z)) if isinstance(rows, int) else self.target[rows.to(self.target.device)]
        return explained_output.of_target(
            batch._read(batch.output if of == "output" else of),
            batch.model.answers(z),
            target,
            batch.model.multi_label,
        )


@dataclass
class LayerBatch:
    """A target batch at one layer: hands a method its quantities by name."""

    by_target: TargetBatch
    layer: str
    request: Request

    @property
    def batch(self) -> Batch:
        """The batch, whatever its target."""
        return self.by_target.batch

    def given(self) -> dict[str, Any]:
        """The quantities that the method names."""
        return {need: SUPPLIERS[need](self) for need in self.request.entry.needs}

    def tail(self) -> Any:
        """The tail; None where the head is linear and the method names `head` too."""
        linear = "head" in self.request.entry.needs and self.batch.head(self.layer) is not None
        return None if linear else self.batch.tail(self.layer)


#: Quantity → how a method gets it; those of `heatproof.quantities` that a method may name.
SUPPLIERS: Mapping[str, Callable[[LayerBatch], Any]] = {
    "x": lambda at: at.batch.x,
    "z": lambda at: at.batch.z,
    "logits": lambda at: at.batch.columns,
    "target": lambda at: at.by_target.target,
    "activations": lambda at: at.batch.activations(at.layer),
    "gradients": lambda at: at.by_target.gradients[at.layer].float(),
    "noisy_gradients": lambda at: partial(at.by_target.noisy_gradients, at.layer),
    "input_gradients": lambda at: at.by_target.gradients[INPUT].float(),
    "gradients_of": lambda at: partial(at.by_target.gradients_of, at.layer),
    "hvp": lambda at: partial(at.by_target.hvp, at.layer),
    "head": lambda at: at.batch.head(at.layer),
    "tail": lambda at: at.tail(),
    "score": lambda at: at.by_target.score,
    "network": lambda at: at.batch.network,
    "forward": lambda at: at.batch.forward,
    "of_target": lambda at: at.by_target.of_target,
    "calibration": lambda at: partial(_calibration, at.batch.model, at.layer),
    "generator": lambda at: at.batch.generators(at.request.name),
    "ids": lambda at: at.batch.names,
    "condition": lambda at: at.batch.condition,
}


def _calibration(model: Model, layer: str, source: str) -> Any:
    from heatproof.activation_statistics import calibration_of

    return calibration_of(model, layer, source)


class Network(nn.Module):
    """The user's module as `(N, 3, H, W)` normalised float32 images → `(N, K)` float32 `output`s of every class."""

    def __init__(self, model: Model, output: str):
        super().__init__()
        self.module = model.module
        self.training = getattr(model.module, "training", False)  # frozen TorchScript has no such flag
        self.output, self._model = output, [model]  # in a list: a Model is no part of the module tree

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        model = self._model[0]
        return explained_output.columns(self.output, model.of_normalised(z), model.multi_label)

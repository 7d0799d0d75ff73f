"""Every quantity once: what one batch of pictures, one target and one layer have to offer to methods.

`Batch` holds what does not depend on the class explained, above all the one forward pass that captures every layer
asked for. A `Question` is the batch with one target for each picture: gradients of all layers from one backward. A
`Site` is a question at one layer; methods get their quantities from it by name.
"""

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.weak import WeakIdKeyDictionary

from heatproof import outputs, seeds, targets
from heatproof.attributions import Request
from heatproof.errors import InvalidInput
from heatproof.models import Model
from heatproof.models.capture import INPUT, Captured, captured
from heatproof.models.head import linear_head
from heatproof.models.tail import Record, Tail, recording

#: Quantities that need the graph from the layer to the logits.
GRAPH = frozenset({"gradients", "gradients_of", "hvp"})
#: Those that need the graph of the graph.
SECOND = frozenset({"hvp"})
#: Those for which the layer's activations are captured.
CAPTURED = GRAPH | {"activations", "head", "tail"}
#: What a method adds that asks for `tail` and not for `head`: it runs the tail also where the head is linear.
REPLAY = "replay"

#: Layers that were found to feed a linear head through average pooling: nothing needs recording there.
_LINEAR: MutableMapping[nn.Module, set[str]] = WeakIdKeyDictionary()


def needs_by_layer(sites: Sequence[tuple[Request, Sequence[str]]]) -> dict[str, frozenset[str]]:
    """Layer → the union of what the methods name there."""
    found: dict[str, set[str]] = {}
    for request, layers in sites:
        needs = set(request.entry.needs)
        for layer in layers:
            found.setdefault(layer, set()).update(needs, {REPLAY} if "tail" in needs and "head" not in needs else ())
    return {layer: frozenset(needs) for layer, needs in found.items()}


@dataclass
class Batch:
    """One batch of pictures `(N, 3, H, W)` in [0, 1] under one model, and what has been worked out on it.

    Attributes:
        needs: layer → what the methods will ask for there; decides what the one forward pass keeps. Quantities that
            belong to no layer may be named anywhere.
        target_rule: a rule of `heatproof.targets`, or classes `(N,)` or `(N, T)`.
        ids: the pictures' names, from which their random numbers come; a callable is asked only when one is needed.
        condition: what was done to the pictures (part of the seed of methods that draw random numbers).
        differentiable: keep the graph, so that maps can be differentiated by `x`.
        output: the number of the network that is explained (`heatproof.outputs`).
    """

    model: Model
    x: torch.Tensor
    needs: dict[str, frozenset[str]]
    target_rule: targets.Rule = "predicted"
    ids: Sequence[str] | Callable[[], Sequence[str]] = ()
    seed: int = 0
    condition: str = ""
    labels: Sequence[int | None] | None = None
    clean: torch.Tensor | None = None
    differentiable: bool = False
    output: outputs.Output = "logit"
    _records: dict[str, Record] = field(default_factory=dict, init=False)
    _heads: dict[str, torch.Tensor | None] = field(default_factory=dict, init=False)

    @cached_property
    def captured(self) -> Captured:
        """The one forward pass; tails are recorded in it where a method may want one."""
        layers = [layer for layer, needs in self.needs.items() if needs & CAPTURED]
        graph = [layer for layer in layers if self.needs[layer] & GRAPH]
        with ExitStack() as stack:
            if self._twice:  # fused attention has no second derivative
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            for layer in layers:
                if "tail" in self.needs[layer] and not self._linear_before(layer):
                    self._records[layer] = stack.enter_context(recording(self.model, layer))
            return captured(
                self.model, self.x, layers, gradients=graph, trunk=self.differentiable, at_input=self._at_input
            )

    @property
    def _at_input(self) -> bool:
        return any("input_gradients" in needs for needs in self.needs.values())

    @property
    def _twice(self) -> bool:
        return self.differentiable or any(needs & SECOND for needs in self.needs.values())

    @property
    def keeps_graph(self) -> bool:
        """Whether the graph is needed again after the first backward."""
        return self.differentiable or any(needs & {"hvp", "gradients_of"} for needs in self.needs.values())

    @property
    def adopts(self) -> bool:
        """Whether the logits of a method's own forward become the batch's: nothing is known yet, nothing captured.

        Not in half precision, where the functions by which a method computes its forward may name another class.
        """
        captures = self._at_input or any(needs & CAPTURED for needs in self.needs.values())
        known = "logits" in self.__dict__ or "captured" in self.__dict__
        exact = self.model.dtype in (torch.float32, torch.float64)
        return exact and not (captures or known or self.differentiable)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """`network` for the batch's own images, `z` with any graph: the logits `(N, K)` of a first one are kept."""
        own = self.adopts and torch.equal(z.detach(), self.z)  # asked before the network, which may write into it
        logits = self.model.of_normalised(z)
        if own:
            self.logits = logits.detach()
        return self._of_classes(logits)

    @cached_property
    def logits(self) -> torch.Tensor:
        """`(N, K)`."""
        return self.captured.logits if self.differentiable else self.captured.logits.detach()

    @cached_property
    def target(self) -> torch.Tensor:
        """`(N,)` or `(N, T)`: the classes explained."""
        return targets.resolved(self.target_rule, self.logits.detach(), self.labels, self.clean)

    def release(self) -> None:
        """Lets the forward pass go, with all activations and graphs; logits, target and pictures stay."""
        _ = self.logits, self.target  # worked out before it goes
        self.__dict__.pop("captured", None)
        self.__dict__.pop("questions", None)
        self._records.clear()

    @cached_property
    def questions(self) -> list["Question"]:
        """One for each column of the target."""
        return [Question(self, column) for column in range(self.target[0].numel())]

    @cached_property
    def z(self) -> torch.Tensor:
        """The normalised picture."""
        return self.model.normalise(self.x)

    @cached_property
    def network(self) -> "Network":
        """Normalised pictures → the output of every class."""
        if not isinstance(self.output, str):
            raise InvalidInput(
                "This method explains an output that every class has. Got a callable `output`. "
                f"Take one of {', '.join(outputs.OUTPUTS)}, or a CAM."
            )
        return Network(self.model, self.output)

    @cached_property
    def columns(self) -> torch.Tensor:
        """`(N, K)`: what methods get as `logits`, the output of every class."""
        return self._of_classes(self.logits)

    def _of_classes(self, logits: torch.Tensor) -> torch.Tensor:
        if isinstance(self.output, str):
            return outputs.columns(self.output, logits, self.model.multi_label)
        raise InvalidInput(
            "This method compares the output of a class with and without something. Got a callable `output`. "
            f"Take one of {', '.join(outputs.OUTPUTS)}, or a gradient CAM."
        )

    def activations(self, layer: str) -> torch.Tensor:
        """`(N, C, *spatial)`, float32 whatever the weights are."""
        found = self.captured.activations(layer).float()
        return found if self.differentiable else found.detach()

    def head(self, layer: str) -> torch.Tensor | None:
        """`(K, C)` weights where the outputs explained are a linear layer on the pooled activations; else None."""
        if layer not in self._heads:
            module = self.model.module
            linear = self.output == "logit"
            found = linear_head(module, self.activations(layer).detach(), self.logits.detach()) if linear else None
            if found is not None:
                _LINEAR.setdefault(module, set()).add(layer)
            self._heads[layer] = found
        return self._heads[layer]

    def _linear_before(self, layer: str) -> bool:
        return (
            self.output == "logit" and layer in _LINEAR.get(self.model.module, ()) and REPLAY not in self.needs[layer]
        )

    def tail(self, layer: str) -> Any:
        """Activations at the layer → outputs of every class."""
        found = self.captured
        if layer not in self._records:  # the layer was known to feed a linear head, and on this batch it does not
            with recording(self.model, layer) as self._records[layer]:
                self.model.logits(self.x)
        tail = Tail(self.model, self._records[layer], found.layouts[layer], self.x, found.logits, self.differentiable)
        return tail if self.output == "logit" else lambda *arguments: self._of_classes(tail(*arguments))

    def generators(self, method: str) -> list[torch.Generator]:
        """One for each picture, from its name, the method's and the condition."""
        return seeds.generators(self.seed, self.names, method, self.condition)

    @cached_property
    def names(self) -> list[str]:
        """The pictures' names."""
        return list(self.ids() if callable(self.ids) else self.ids)


@dataclass
class Question:
    """A batch and one target for each picture: a column of the batch's. It is resolved when first needed."""

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
        """Whether no other question follows, so that graphs may go."""
        return self.column == self.batch.target[0].numel() - 1

    def of_target(self, columns: torch.Tensor) -> torch.Tensor:
        """`(N, K)` outputs → those of the classes explained, `(N,)`, with their graph."""
        return columns.gather(1, self.target[:, None])[:, 0]

    def utility(self, output: outputs.Output) -> torch.Tensor:
        """`(N,)`, with its graph."""
        with torch.enable_grad():
            return outputs.of_target(output, self.batch.captured.logits, self.target, self.batch.model.multi_label)

    @cached_property
    def gradients(self) -> dict[str, torch.Tensor]:
        """Layer → gradients of the output explained, all from one backward; those of the picture as `INPUT`."""
        batch = self.batch
        wanted = [layer for layer, needs in batch.needs.items() if "gradients" in needs]
        wanted += [INPUT] if batch._at_input else []
        return batch.captured.gradients_of(
            self.utility(batch.output), wanted, second=batch.differentiable, keep=batch.keeps_graph or not self.last
        )

    def gradients_of(self, layer: str, utility: outputs.Output) -> torch.Tensor:
        """Gradients of another output at a layer."""
        batch = self.batch
        if utility == batch.output and "gradients" in batch.needs[layer]:
            return self.gradients[layer].float()
        if "hvp" in batch.needs[layer]:
            found = self._twice(utility)[layer].float()
            return found if batch.differentiable else found.detach()
        found = batch.captured.gradients_of(self.utility(utility), [layer], second=batch.differentiable, keep=True)
        return found[layer].float()

    def hvp(self, layer: str, utility: outputs.Output) -> torch.Tensor:
        """The product of a utility's Hessian with the activations, at a layer."""
        gradients = self._twice(utility)[layer]
        return self.batch.captured.product(gradients, layer, second=self.batch.differentiable).float()

    def _twice(self, utility: outputs.Output) -> dict[str, torch.Tensor]:
        """Gradients that can be differentiated again, at all layers where that is asked, from one backward."""
        if utility not in self._second:
            wanted = [layer for layer, needs in self.batch.needs.items() if "hvp" in needs]
            self._second[utility] = self.batch.captured.gradients_of(
                self.utility(utility), wanted, second=True, keep=True
            )
        return self._second[utility]

    def score(self, z: torch.Tensor, rows: int | torch.Tensor | None = None, of: outputs.Output = "output"):
        """Normalised pictures, each a variant of picture `rows` of the batch (its own row) → `(M,)` outputs."""
        batch = self.batch
        if rows is None:
            rows = torch.arange(len(z), device=self.target.device)
        target = self.target[rows].expand(len(z)) if isinstance(rows, int) else self.target[rows.to(self.target.device)]
        return outputs.of_target(
            batch.output if of == "output" else of, batch.model.of_normalised(z), target, batch.model.multi_label
        )


@dataclass
class Site:
    """A question at one layer: hands a method its quantities by name."""

    question: Question
    layer: str
    request: Request

    def given(self) -> dict[str, Any]:
        """The quantities that the method names."""
        return {need: self.quantity(need) for need in self.request.entry.needs}

    def quantity(self, name: str) -> Any:
        """One of the vocabulary."""
        batch, layer = self.question.batch, self.layer
        return {
            "x": lambda: batch.x,
            "z": lambda: batch.z,
            "logits": lambda: batch.columns,
            "target": lambda: self.question.target,
            "activations": lambda: batch.activations(layer),
            "gradients": lambda: self.question.gradients[layer].float(),
            "input_gradients": lambda: self.question.gradients[INPUT].float(),
            "gradients_of": lambda: partial(self.question.gradients_of, layer),
            "hvp": lambda: partial(self.question.hvp, layer),
            "head": lambda: batch.head(layer),
            "tail": self._tail,
            "score": lambda: self.question.score,
            "network": lambda: batch.network,
            "forward": lambda: batch.forward,
            "of_target": lambda: self.question.of_target,
            "calibration": lambda: partial(_calibration, batch.model, layer),
            "generator": lambda: batch.generators(self.request.name),
            "ids": lambda: batch.names,
            "condition": lambda: batch.condition,
        }[name]()

    def _tail(self) -> Any:
        """None for a method that asks for `head` too, where that says it all."""
        linear = "head" in self.request.entry.needs and self.question.batch.head(self.layer) is not None
        return None if linear else self.question.batch.tail(self.layer)


def _calibration(model: Model, layer: str, source: str) -> Any:
    from heatproof.calibration import calibration_of

    return calibration_of(model, layer, source)


class Network(nn.Module):
    """The user's module as `(N, 3, H, W)` normalised float32 pictures → `(N, K)` float32 `output`s of every class."""

    def __init__(self, model: Model, output: str):
        super().__init__()
        self.module = model.module
        self.training = model.module.training
        self.output, self._model = output, [model]  # in a list: a Model is no part of the module tree

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        model = self._model[0]
        return outputs.columns(self.output, model.of_normalised(z), model.multi_label)

"""One forward pass that keeps the outputs of layers, and gradients that go back to these layers and no further.

At a captured layer the output is cut from the trunk (`detach().requires_grad_()`) unless a shallower captured layer
already gave it a graph; the model goes on with a clone, so an in-place operation after the layer (DenseNet's
`F.relu(inplace=True)`) cannot change what was kept. The trunk builds no graph, and several layers need one pass.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from heatproof.errors import LayerError, NoGradient
from heatproof.locks import held, of_this_thread
from heatproof.models.layer_names import several_calls
from heatproof.models.layout import Layout, layout_of
from heatproof.models.model import Model
from heatproof.models.observable import observable_modules, of_compiled
from heatproof.models.probe import quantised

#: In `Captured`, the name of the network's own input, which is no layer.
INPUT = ""


@dataclass
class Captured:
    """The results of one pass: logits `(N, K)` and, by layer name, the native output and its layout.

    `apart`: the layers of which `Model.reading` made a tensor that is no part of the pass.
    """

    logits: torch.Tensor
    native: dict[str, torch.Tensor]
    layouts: dict[str, Layout]
    module: nn.Module
    apart: frozenset[str] = frozenset()

    def check_within(self, layers: Sequence[str]) -> None:
        """Raises LayerError for a layer whose activations the network does not go on with."""
        for name in self.apart.intersection(layers):
            raise LayerError(
                f"What is read of layer {name!r} is made of several tensors and is no part of the network, so it has "
                "no gradients and cannot be changed. Take a method that needs neither, such as eigencam or scorecam."
            )

    def activations(self, layer: str) -> torch.Tensor:
        """`(N, C, *spatial)` at a layer."""
        return self.layouts[layer].to_grid(self.native[layer])

    def gradients(self, target: torch.Tensor, *, differentiable: bool = False) -> dict[str, torch.Tensor]:
        """∂ logit of each image's target by the activations, `(N, C, *spatial)` for every captured layer."""
        with torch.enable_grad():
            utility = self.logits.gather(1, target[:, None])
        return self.gradients_of(utility, list(self.native), second=differentiable, keep=differentiable)

    def gradients_of(
        self, utility: torch.Tensor, layers: Sequence[str], *, second: bool = False, keep: bool = False
    ) -> dict[str, torch.Tensor]:
        """∂ `utility` (one number for each image) by the activations of `layers`, from one backward.

        `second`: the gradients can be differentiated again; `keep`: the graph is not freed.
        """
        self.check_within(layers)
        if not utility.requires_grad:
            raise NoGradient(_no_gradient(layers, self.module))
        natives = [self.native[name] for name in layers]
        without = [name for name, native in zip(layers, natives, strict=True) if not native.requires_grad]
        if without:
            raise NoGradient(_no_gradient(without, self.module))
        with torch.enable_grad():
            total = utility.sum()
        found = torch.autograd.grad(total, natives, create_graph=second, retain_graph=keep or second, allow_unused=True)
        without = [name for name, gradient in zip(layers, found, strict=True) if gradient is None]
        if without:
            raise NoGradient(_no_gradient(without, self.module))
        return {name: self.layouts[name].to_grid(g) for name, g in zip(layers, found, strict=True) if g is not None}

    def product(self, gradients: torch.Tensor, layer: str, *, second: bool = False) -> torch.Tensor:
        """H·A: the derivative of `Σ G A` by the activations, A held fixed, for `gradients` made with `second`.

        Zero where the gradient does not depend on the activations, as on a piecewise linear network.
        """
        native = self.native[layer]
        with torch.enable_grad():
            sum_of_products = (gradients * self.activations(layer).detach()).sum()
        found = None
        if sum_of_products.requires_grad:
            (found,) = torch.autograd.grad(
                sum_of_products, native, create_graph=second, retain_graph=True, allow_unused=True
            )
        return torch.zeros_like(gradients) if found is None else self.layouts[layer].to_grid(found)


#: The advice where a quantised network gives no gradient.
OF_QUANTISED = "take the float network, or a method that needs no gradient, such as scorecam, eigencam or rise"


def _no_gradient(layers: Sequence[str], module: nn.Module) -> str:
    names = ", ".join("the image" if name == INPUT else repr(name) for name in layers)
    return f"No gradient reaches {names} from the logits. " + (
        f"The network is quantised: {OF_QUANTISED}."
        if quantised(module)
        else "Take a method that needs no gradient, such as rise."
        if set(layers) == {INPUT}
        else "Choose a layer whose output the prediction depends on."
    )


def captured(
    model: Model,
    x: torch.Tensor,
    layers: Sequence[str],
    *,
    gradients: bool | Collection[str],
    trunk: bool = False,
    at_input: bool = False,
) -> Captured:
    """Runs the model once on `x` `(N, 3, H, W)` in [0, 1] and keeps the outputs of `layers`.

    Args:
        gradients: which of the outputs become leaves of a graph to the logits (all, or these); without one no graph
            is built.
        trunk: keep the graph of the trunk too (maps that are to be differentiated by `x`).
        at_input: the graph begins at the normalised image, which is kept as `INPUT`.

    Raises:
        LayerError: a layer that did not run, or several times where its name has no number of a call (`encoder#0`), or
            whose output is not a tensor, not spatial, or not one row per image.
    """
    x = x if trunk else x.detach()
    leaves = set(layers if gradients is True else gradients or ())
    native: dict[str, torch.Tensor] = {}
    places = {name: model.submodule_and_call(name) for name in layers}
    calls, size, apart = Counter[str](), tuple(x.shape[2:]), set[str]()

    def keeper(name: str) -> Callable[..., Any]:
        wanted = places[name][1] or 0

        def keep(module: nn.Module, _inputs: Any, output: Any) -> Any:
            calls[name] += 1
            if calls[name] != wanted + 1:
                return output
            value, replaced = first_tensor(output)
            if model.reading and (read := model.reading(module, output, size)) is not None:
                value, replaced = read, lambda _new: output
                apart.add(name)
            if value is None:
                raise LayerError(f"Layer {name!r} must give a tensor. Got {type(output).__name__}.")
            if value.is_quantized:  # the network goes on with its integers
                native[name] = value.dequantize()
                return output
            if name in leaves and value.is_floating_point() and not value.requires_grad:
                value = value.detach().requires_grad_()
            native[name] = value
            return replaced(value.clone())

        return keep

    with (
        hooked({name: keeper(name) for name in layers}, model),
        torch.set_grad_enabled(bool(leaves) or trunk or at_input),
    ):
        z = model.normalise(x)
        if at_input and not z.requires_grad:
            z = z.detach().requires_grad_()
        logits = model.of_normalised(z.clone() if at_input else z)  # a network may write into what it is given
    for name, (_, call) in places.items():
        if calls[name] > 1 if call is None else 0 < calls[name] <= call:
            raise LayerError(several_calls(name, range(calls[name])))
        if not calls[name]:
            raise LayerError(f"Layer {name!r} did not run in the forward pass. Choose one that does.")
    single = model.one_position
    layouts = {name: layout_of(places[name][0], value, size, single=single) for name, value in native.items()}
    for name, value in native.items():
        if len(value) != len(x):
            raise LayerError(
                f"Layer {name!r} must give one row for each image. Got {len(value)} rows for {len(x)} (windows, or "
                "views?). Choose the block around it, or the layer before."
            )
    if at_input:
        native[INPUT], layouts[INPUT] = z, Layout("channels-first", 0, size)
    return Captured(logits, native, layouts, model.module, frozenset(apart))


@contextmanager
def hooked(hooks: dict[str, Callable[..., Any]], model: Model) -> Iterator[None]:
    """Forward hooks on named layers; they are removed at the end, also after an error."""
    shown = {id(part) for _, part in observable_modules(model.module)}
    for name in hooks:
        if id(model.submodule(name)) not in shown:
            raise of_compiled(name, len(model.input_shape) - 1)
    with held(model.module), ExitStack() as handles:
        for name, hook in hooks.items():
            handles.callback(model.submodule(name).register_forward_hook(of_this_thread(hook)).remove)
        yield


def first_tensor(output: Any) -> tuple[torch.Tensor | None, Callable[[torch.Tensor], Any]]:
    """The first tensor of an output, and a function that puts another in its place."""
    if isinstance(output, torch.Tensor):
        return output, lambda new: new
    if isinstance(output, tuple | list):
        for index, item in enumerate(output):
            if isinstance(item, torch.Tensor):
                return item, lambda new, at=index: _with_item(output, at, new)
    if isinstance(output, dict):
        for key, item in output.items():
            if isinstance(item, torch.Tensor):
                return item, lambda new, at=key: type(output)({**output, at: new})
    return None, lambda new: new


def _with_item(output: Any, index: int, new: torch.Tensor) -> Any:
    items = [new if i == index else item for i, item in enumerate(output)]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)

"""Gradients with a special rule at every ReLU: guided backpropagation and its relatives.

Every ReLU counts, however the network writes it: `nn.ReLU`, `nn.ReLU6`, `F.relu`, `clamp(min=0)`, in place, reused.
(Captum 0.9 finds `nn.ReLU` modules only, and silently gives the plain gradient at others.)
"""

from collections.abc import Mapping
from typing import Any

import torch

from heatproof.attributions.cam import gradcam
from heatproof.attributions.catalogue import attribution
from heatproof.attributions.rules import Back, Function, answered_by, ruled, ruled_gradient
from heatproof.models import Model
from heatproof.models.differentiable import gradient_missing
from heatproof.models.observable import unseen
from heatproof.models.operations import RELUS, operations
from heatproof.tensors import upsampled

Tensor = torch.Tensor


def without_relu(model: Model, layer: str, options: Mapping[str, Any]) -> str:
    """Why these methods cannot be used for a network: no gradient, or no ReLU that could change it."""
    found = operations(model)
    if found.names & RELUS:
        return gradient_missing(model)
    if found.hidden:
        return f"elsewhere it uses no ReLU, and {unseen(found.hidden[0])}"
    others = " and ".join(found.activations)
    return gradient_missing(model) or (f"it uses no ReLU (it uses {others})" if others else "it uses no ReLU")


def guided_rule(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Keeps the positive part of the gradient at the output; autograd then multiplies it by the derivative, 0 or 1."""
    output = function(*args, **kwargs)
    if output.requires_grad:  # not where the network disables gradients
        output.register_hook(torch.relu)
    return output


def deconvnet_rule(function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Passes the positive part of the gradient at the output, whether the ReLU was active or not."""
    return ruled(function, args, kwargs, _positive)


def _positive(values: Tensor, output: Tensor, function: Any) -> Back:
    return torch.relu


@attribution(
    "guided-backprop",
    form="rgb",
    aliases=["guided-backpropagation", "guidedbp"],
    source="Springenberg et al. 2015, §3.4",
    applies=without_relu,
)
def guided_backprop(z: Tensor, forward, of_target) -> Tensor:
    """Guided backpropagation: the gradient, with `1[a > 0] · relu(g)` in place of `1[a > 0] · g` at every ReLU.

    At a ReLU6 the condition is 0 < a < 6. Other activation functions keep their derivative. One forward and one
    backward pass.
    """
    return ruled_gradient(z, forward, of_target, answered_by(guided_rule, RELUS))


@attribution(
    "deconvnet", form="rgb", aliases=["deconvolution"], source="Zeiler & Fergus 2014, §2.1", applies=without_relu
)
def deconvnet(z: Tensor, forward, of_target) -> Tensor:
    """Deconvnet: the gradient, with `relu(g)` at every ReLU, whether it was active or not.

    Max pooling sends the gradient to the maxima, as in the paper. One forward and one backward pass.
    """
    return ruled_gradient(z, forward, of_target, answered_by(deconvnet_rule, RELUS))


@attribution(
    "guided-gradcam",
    form="rgb",
    aliases=["guided-grad-cam"],
    source="Selvaraju et al. 2017, §3.2",
    applies=without_relu,
)
def guided_gradcam(activations: Tensor, gradients: Tensor, z: Tensor, forward, of_target) -> Tensor:
    """Guided Grad-CAM: guided backpropagation times `relu(gradcam)`, upsampled to the image (bilinear).

    One forward and backward pass more than Grad-CAM.
    """
    positions = upsampled(gradcam(activations, gradients).relu(), tuple(z.shape[2:]))
    return guided_backprop(z, forward, of_target) * positions[:, None]

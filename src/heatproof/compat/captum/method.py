"""Any method of heatproof's by name, called as Captum's are."""

from typing import Any

import torch
from torch import nn

from heatproof.compat.captum.base import Attribution
from heatproof.compat.given_models import Wanted, as_rule, checked, raw_maps, unscaled
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.models import resolve_layer
from heatproof.models.model import bare


class NamedAttribution(Attribution):
    """Any method of heatproof's by name: raw maps, signed, `(N, C, *size)`.

    C is 1, except for methods whose map has the input's channels; `*size` is the layer's for a CAM, else the input's.
    """

    def __init__(self, method: str, model: nn.Module, layer: nn.Module | str | None = None, **options: Any):
        if not isinstance(model, nn.Module):
            raise InvalidInput(f"`model` must be a torch.nn.Module. Got {type(model).__name__}.")
        super().__init__(model)
        self._request = unscaled(method, options)
        self.method, self.model, self.options = method, model, options
        self.layer = "auto" if layer is None else resolve_layer(bare(model), layer)

    def attribute(self, inputs: Any, target: Any = None, additional_forward_args: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """`options` replace those of the constructor. A tuple with one tensor gives a tuple, as in Captum.

        `target=None` explains the most probable class.
        """
        if additional_forward_args is not None:
            raise NotApplicable("`additional_forward_args` is not served here. Wrap the model in one that adds them.")
        if isinstance(inputs, tuple):
            if len(inputs) != 1:
                raise InvalidInput(f"Expected one input tensor. Got {len(inputs)}.")
            return (self.attribute(inputs[0], target, **options),)
        some = checked(inputs)
        if isinstance(target, torch.Tensor) and target.numel() == 1:
            target = int(target)
        chosen = {self.method: {**self.options, **options}}
        unscaled(self.method, chosen[self.method])
        found = raw_maps(self.model, some, chosen, Wanted(as_rule(target, len(some))), self.layer)
        raw = found.raw[self.method]
        return raw if found.forms[self.method] == "rgb" else raw[:, None]

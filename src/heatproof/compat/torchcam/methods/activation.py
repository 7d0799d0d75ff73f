"""Extractors without gradients, by the names of torchcam."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from heatproof.compat.torchcam.methods.core import Extractor
from heatproof.errors import InvalidInput, InvalidType
from heatproof.models import resolve_layer
from heatproof.models.model import bare

Layers = nn.Module | str | Sequence[nn.Module | str] | None


class CAM(Extractor):
    """`cam`, not rectified, as in torchcam; `fc_layer` is checked and ignored: the classifier is found."""

    method, rectified = "cam", False

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        fc_layer: nn.Module | str | None = None,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **named: Any,
    ):
        if isinstance(target_layer, list | tuple) and len(target_layer) > 1:
            raise InvalidInput(f"CAM has one target layer. Got {len(target_layer)}.")
        if fc_layer is not None and not isinstance(fc_layer, str | nn.Module):
            raise InvalidType(f"`fc_layer` must be a name or a module. Got {type(fc_layer).__name__}.")
        self.fc_layer = None if fc_layer is None else resolve_layer(bare(model), fc_layer)
        super().__init__(model, target_layer, input_shape, **named)


class ScoreCAM(Extractor):
    """`scorecam`; `batch_size` is accepted and ignored: memory is bounded."""

    method = "scorecam"

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        batch_size: int = 32,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **named: Any,
    ):
        super().__init__(model, target_layer, input_shape, **named)
        self.bs = batch_size

    def __repr__(self) -> str:
        about = {"batch_size": self.bs, **self._about()}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in about.items())})"


class SSCAM(ScoreCAM):
    """`sscam`: Score-CAM with `num_samples` draws of noise, of standard deviation `std`, on the masks."""

    method = "sscam"

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        batch_size: int = 32,
        num_samples: int = 35,
        std: float = 2.0,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **named: Any,
    ):
        super().__init__(model, target_layer, batch_size, input_shape, samples=num_samples, std=std, **named)
        self.num_samples, self.std = num_samples, std

    def _about(self) -> dict[str, Any]:
        return {"num_samples": self.num_samples, "std": self.std}


class ISCAM(ScoreCAM):
    """`iscam`: Score-CAM integrated in `num_samples` steps; `compat=False` ends at the mask itself."""

    method, settings = "iscam", {"compat": True}

    def __init__(
        self,
        model: nn.Module,
        target_layer: Layers = None,
        batch_size: int = 32,
        num_samples: int = 10,
        input_shape: tuple[int, ...] = (3, 224, 224),
        **named: Any,
    ):
        super().__init__(model, target_layer, batch_size, input_shape, samples=num_samples, **named)
        self.num_samples = num_samples


__all__ = ["CAM", "ISCAM", "SSCAM", "ScoreCAM"]

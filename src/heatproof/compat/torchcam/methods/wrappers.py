"""Extractors that explain with another extractor."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import nn

from heatproof.ambient import neutral
from heatproof.compat.torchcam.methods.core import Extractor, OutputTarget, fused_shape
from heatproof.compat.torchcam.methods.gradient_cams import GradCAMpp
from heatproof.errors import InvalidInput, InvalidType
from heatproof.tensors import minmax, upsampled


class Wrapper:
    """An extractor that explains with another one, `base_cam`, which keeps the input."""

    def __init__(self, base_cam: Extractor):
        self.base_cam = base_cam

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.base_cam.__exit__()

    def __getattr__(self, name: str) -> Any:
        shared = ("model", "target_names", "remove_hooks", "reset_hooks", "enable_hooks", "disable_hooks", "_hooks_off")
        if name in shared:
            return getattr(self.base_cam, name)
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")


def checked_base(base_method: Any, allowed: Sequence[type[Extractor]] = ()) -> type[Extractor]:
    """The class of an extractor, one of `allowed` where that is given."""
    if (
        isinstance(base_method, type)
        and issubclass(base_method, Extractor)
        and base_method in (allowed or [base_method])
    ):
        return base_method
    *first, last = [one.__name__ for one in allowed] or ["a CAM extractor class"]
    raise InvalidType(
        f"`base_method` must be {', '.join(first) + ', or ' if first else ''}{last}. Got {base_method!r}."
    )


class RefineCAM(Wrapper):
    """The product of the maps of several layers, at the largest resolution among them, of `base_method`.

    It multiplies at the layers' resolution; `refine:…` in `heatproof.explain` does so at the image's.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: Sequence[nn.Module | str],
        input_shape: tuple[int, ...] = (3, 224, 224),
        *,
        base_method: type[Extractor] = GradCAMpp,
        **options: Any,
    ):
        if isinstance(target_layer, str | nn.Module) or len(target_layer) < 2:
            raise InvalidInput("RefineCAM takes a list of at least two target layers. Got one.")
        super().__init__(checked_base(base_method)(model, target_layer, input_shape=input_shape, **options))

    def __repr__(self) -> str:
        return f"RefineCAM(base_method={type(self.base_cam).__name__}, target_layer={self.target_names})"

    @neutral()
    def __call__(
        self,
        class_idx: int | Sequence[int] | None = None,
        scores: Any = None,
        normalized: bool = True,
        target_shape: tuple[int, ...] | None = None,
        *,
        targets: OutputTarget | Sequence[OutputTarget] | None = None,
        **named: Any,
    ) -> list[torch.Tensor]:
        """A list with the one map, `(N, *shape)`."""
        return [self.fuse_cams(self.base_cam(class_idx, scores, targets=targets, **named), target_shape, normalized)]

    compute_cams = __call__

    @staticmethod
    def fuse_cams(
        cams: list[torch.Tensor], target_shape: tuple[int, ...] | None = None, normalized: bool = True
    ) -> torch.Tensor:
        """Maps of several layers → one: each scaled and resized, then multiplied."""
        shape = fused_shape(cams, target_shape)
        product = torch.stack([upsampled(minmax(cam), shape) for cam in cams]).prod(0)
        return minmax(product) if normalized else product

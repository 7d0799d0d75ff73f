"""The CAM classes of pytorch-grad-cam: methods of heatproof's with the options that give its numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from heatproof.attributions.cam import BASES
from heatproof.attributions.refine import refined
from heatproof.compat.given_models import Wanted, as_rule, checked
from heatproof.compat.pytorch_grad_cam.base import BaseCAM, as_wanted
from heatproof.compat.pytorch_grad_cam.smoothing import smoothed_shares
from heatproof.errors import InvalidInput, NotApplicable
from heatproof.tensors import minmax


def _method_class(name: str, method: str, **settings: Any) -> type[BaseCAM]:
    """The class of a method."""
    about = f"{method!r} in the call style of pytorch-grad-cam; see BaseCAM."
    return type(name, (BaseCAM,), {"method": method, "settings": settings, "__doc__": about, "__module__": __name__})


GradCAM = _method_class("GradCAM", "gradcam")
GradCAMPlusPlus = _method_class("GradCAMPlusPlus", "gradcam++", compat=True)
HiResCAM = _method_class("HiResCAM", "hirescam")
XGradCAM = _method_class("XGradCAM", "xgradcam", eps=1e-7)
LayerCAM = _method_class("LayerCAM", "layercam")
GradCAMElementWise = _method_class("GradCAMElementWise", "gradcam-elementwise")
EigenCAM = _method_class("EigenCAM", "eigencam")
EigenGradCAM = _method_class("EigenGradCAM", "eigengradcam")
FEM = _method_class("FEM", "fem", compat=True)
ScoreCAM = _method_class("ScoreCAM", "scorecam")
SegEigenCAM = _method_class("SegEigenCAM", "segeigencam")
RandomCAM = _method_class("RandomCAM", "randomcam")


class FullGrad(_method_class("FullGrad", "fullgrad")):
    """`fullgrad`, which reads no layer: `target_layers` are ignored."""

    def _smoothed(self, inputs: torch.Tensor, wanted: Wanted, **_changed: Any) -> np.ndarray:
        return minmax(smoothed_shares(inputs, self.model, wanted, self._request)).cpu().numpy()


class ShapleyCAM(_method_class("ShapleyCAM", "shapleycam")):
    """`shapleycam`; the utility is the targets' output (in the paper `ClassifierOutputReST`); for None the logit."""

    def _wanted(self, targets: Any, count: int) -> Wanted:
        wanted = as_wanted(targets, count)
        return Wanted(scores=tuple(targets)) if wanted.output == "probability" else wanted

    def _mapped(self, inputs: torch.Tensor, wanted: Wanted, **changed: Any) -> np.ndarray:
        return super()._mapped(inputs, wanted, utility=self._utility(wanted), **changed)

    def _smoothed(self, inputs: torch.Tensor, wanted: Wanted, **changed: Any) -> np.ndarray:
        return super()._smoothed(inputs, wanted, utility=self._utility(wanted), **changed)

    @staticmethod
    def _utility(wanted: Wanted) -> str:
        return "rest" if wanted.output == "rest" else "logit"


class AblationLayer:
    """For `AblationCAM(ablation_layer=…)`, where it is accepted and ignored: what follows a layer is run as it is."""


class AblationLayerVit(AblationLayer):
    """As `AblationLayer`."""


class AblationLayerFasterRCNN(AblationLayer):
    """As `AblationLayer`. A layer that gives a dictionary cannot be ablated, which is an error."""


class AblationCAM(_method_class("AblationCAM", "ablationcam", compat=True)):
    """`ablationcam`; `batch_size` and `ablation_layer` are accepted and ignored."""

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        ablation_layer: Any = None,
        batch_size: int = 32,
        ratio_channels_to_ablate: float = 1.0,
        **options: Any,
    ):
        if ratio_channels_to_ablate != 1:
            raise NotApplicable(
                "`ratio_channels_to_ablate` must be 1: all channels are ablated, which costs the part of the network "
                f"after the layer only. Got {ratio_channels_to_ablate}."
            )
        super().__init__(model, target_layers, reshape_transform, **options)
        self.batch_size, self.ablation_layer = batch_size, ablation_layer


class KPCA_CAM(_method_class("KPCA_CAM", "kpcacam")):
    """`kpcacam`; `gamma=None` is one over the number of channels."""

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        kernel: str = "sigmoid",
        gamma: float | None = None,
        **options: Any,
    ):
        kernel = {"poly": "polynomial"}.get(kernel, kernel)
        super().__init__(model, target_layers, reshape_transform, kernel=kernel, gamma=gamma or 0.0, **options)


class FinerCAM(_method_class("FinerCAM", "finercam", alpha=1.0, comparisons=3, compat=True)):
    """`finercam` on the CAM of `base_method`; given `targets` are explained by `base_method` alone."""

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        base_method: type[BaseCAM] = GradCAM,
        **options: Any,
    ):
        if base_method.method not in BASES:
            raise InvalidInput(f"`base_method` must be one of {', '.join(BASES)}. Got {base_method.__name__}.")
        super().__init__(model, target_layers, reshape_transform, base=base_method.method, **options)
        self.base_cam = base_method(model, target_layers, reshape_transform)

    def forward(
        self,
        input_tensor: torch.Tensor,
        targets: Sequence[Callable[[Any], Any]] | None = None,
        eigen_smooth: bool = False,
        alpha: float = 1,
        comparison_categories: Sequence[int] | None = None,
        target_idx: int | None = None,
    ) -> np.ndarray:
        """`comparison_categories` are positions by similarity, 1 … n; `target_idx` is the class explained."""
        if targets is not None:
            return self.base_cam.forward(input_tensor, targets, eigen_smooth)
        if eigen_smooth:
            raise NotApplicable("`eigen_smooth` is not for FinerCAM without `targets`. Take FinerWeightedTarget.")
        positions = list(comparison_categories or range(1, self.options["comparisons"] + 1))
        if positions != list(range(1, len(positions) + 1)):
            raise NotApplicable(f"`comparison_categories` must be 1 … n, the most similar classes. Got {positions}.")
        inputs = checked(input_tensor)
        wanted = Wanted(as_rule(target_idx, len(inputs)))
        return self._mapped(inputs, wanted, alpha=float(alpha), comparisons=len(positions))

    def __call__(self, input_tensor: torch.Tensor, targets: Any = None, *arguments: Any, **named: Any) -> np.ndarray:
        return self.forward(input_tensor, targets, *arguments, **named)


class RefineCAM(BaseCAM):
    """RefineCAM over all of `target_layers`, on the CAM of `base_method`; option `operator`, the product by default."""

    method = "refine:gradcam++"

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
        base_method: type[BaseCAM] = GradCAMPlusPlus,
        **options: Any,
    ):
        self.method = f"refine:{base_method.method}"  # type: ignore[misc] - of the instance
        super().__init__(model, target_layers, reshape_transform, **{**base_method.settings, **options})
        if len(set(self._layers)) < 2:
            raise InvalidInput(f"RefineCAM takes at least two target layers. Got {len(set(self._layers))}.")

    def __call__(self, input_tensor: torch.Tensor, targets: Any = None, eigen_smooth: bool = False) -> np.ndarray:  # type: ignore[override]
        return self.forward(input_tensor, targets, eigen_smooth)

    def _combined(self, raw: Sequence[torch.Tensor], size: tuple[int, ...]) -> torch.Tensor:
        return minmax(refined(raw, "cam", size, self._request.operator))

    def _keys(self) -> list[str]:
        return [f"{self.method}@{'+'.join(dict.fromkeys(self._layers))}"]

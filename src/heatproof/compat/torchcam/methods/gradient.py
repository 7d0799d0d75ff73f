"""Extractors with gradients, by the names of torchcam."""

from heatproof.compat.missing import missing_names
from heatproof.compat.torchcam.methods.finer import FinerCAM
from heatproof.compat.torchcam.methods.gradient_cams import GradCAM, GradCAMpp, LayerCAM, SmoothGradCAMpp, XGradCAM
from heatproof.compat.torchcam.methods.legrad import LeGrad
from heatproof.compat.torchcam.methods.wrappers import RefineCAM

__getattr__ = missing_names(__name__, {})

__all__ = ["FinerCAM", "GradCAM", "GradCAMpp", "LayerCAM", "LeGrad", "RefineCAM", "SmoothGradCAMpp", "XGradCAM"]

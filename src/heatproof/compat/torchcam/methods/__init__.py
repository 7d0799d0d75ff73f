"""Extractors in the call style of torchcam: they keep a model's last input and explain it when they are called."""

from heatproof.compat.missing import missing_names
from heatproof.compat.torchcam.methods.activation import CAM, ISCAM, SSCAM, ScoreCAM
from heatproof.compat.torchcam.methods.core import Extractor, OutputTarget
from heatproof.compat.torchcam.methods.gradient import (
    FinerCAM,
    GradCAM,
    GradCAMpp,
    LayerCAM,
    LeGrad,
    RefineCAM,
    SmoothGradCAMpp,
    XGradCAM,
)

__getattr__ = missing_names(__name__, {})

__all__ = [
    "CAM",
    "ISCAM",
    "SSCAM",
    "Extractor",
    "FinerCAM",
    "GradCAM",
    "GradCAMpp",
    "LayerCAM",
    "LeGrad",
    "OutputTarget",
    "RefineCAM",
    "ScoreCAM",
    "SmoothGradCAMpp",
    "XGradCAM",
]

"""Targets, images and token layouts, by the names of pytorch-grad-cam."""

from heatproof.compat.missing import missing_names
from heatproof.compat.pytorch_grad_cam.utils import model_targets, reshape_transforms
from heatproof.compat.pytorch_grad_cam.utils.image import deprocess_image
from heatproof.compat.pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

__all__ = ["deprocess_image", "get_2d_projection", "model_targets", "reshape_transforms"]

__getattr__ = missing_names(__name__, {})

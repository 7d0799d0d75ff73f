"""A name that an adapter does not have: an error that says what to use, as an attribute and in an import."""

import importlib

import pytest

from heatproof.errors import UnknownName


@pytest.mark.parametrize(
    ("module", "name", "advice"),
    [
        ("heatproof.compat.pytorch_grad_cam", "SESS", "heatproof has no SESS: take RefineCAM"),
        ("heatproof.compat.pytorch_grad_cam", "GradCam", "Did you mean 'GradCAM'"),
        ("heatproof.compat.torchcam.methods", "GradCAMp", "Did you mean 'GradCAM"),
        ("heatproof.compat.captum", "LayerConductance", "heatproof has no LayerConductance: take LayerIntegrated"),
        ("heatproof.compat.captum.attr", "Ocklusion", "Did you mean 'Occlusion'"),
        ("heatproof.compat.captum.metrics", "infidel", "Did you mean 'infidelity'"),
        ("heatproof.compat.quantus", "explain", "take explain_func"),
        ("heatproof.compat.pytorch_grad_cam.sess", "SESS", "heatproof has no SESS: take RefineCAM"),
        ("heatproof.compat.pytorch_grad_cam.utils.image", "show_cam_on_imag", "Did you mean 'show_cam_on_image'"),
        ("heatproof.compat.pytorch_grad_cam.metrics.road", "ROADMostRelevant", "Did you mean 'ROADMostRelevantFirst'"),
        ("heatproof.compat.torchcam.utils", "overlay_masks", r"Did you mean 'overlay_mask'\?"),
        ("heatproof.compat.quantus", "Sparseness", "such as quantus:Sparseness"),
        ("heatproof.compat.captum", "robust", "heatproof has no .*robust: take the perturbations"),
        ("heatproof.compat.torchmetrics", "AverageDrob", "Did you mean 'AverageDrop'"),
    ],
)
def test_the_error_of_a_missing_name_says_what_to_use(module, name, advice):
    found = importlib.import_module(module)
    assert not hasattr(found, name)
    assert getattr(found, name, 7) == 7
    with pytest.raises(AttributeError, match=advice) as raised:
        getattr(found, name)
    assert isinstance(raised.value, UnknownName)
    with pytest.raises(ImportError, match=advice) as raised:
        exec(f"from {module} import {name}")
    assert isinstance(raised.value, UnknownName)


@pytest.mark.parametrize(
    ("module", "advice"),
    [
        ("heatproof.compat.captum.insights", "captum.insights: take heatproof.show"),
        ("heatproof.compat.captum.attr._core.lime", "captum.attr._core: the names .* heatproof.compat.captum.attr"),
        ("heatproof.compat.pytorch_grad_cam.ablation_cam_multilayer", "take AblationCAM with several"),
    ],
)
def test_the_error_of_a_missing_module_says_what_to_use(module, advice):
    importlib.import_module("heatproof.compat.captum")
    with pytest.raises(ImportError, match=advice) as raised:
        exec(f"from {module} import anything")
    assert isinstance(raised.value, UnknownName)


def test_private_names_have_no_advice():
    module = importlib.import_module("heatproof.compat.pytorch_grad_cam")
    assert not hasattr(module, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name"):
        exec("from heatproof.compat.pytorch_grad_cam import _none")

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


def test_private_names_have_no_advice():
    module = importlib.import_module("heatproof.compat.pytorch_grad_cam")
    assert not hasattr(module, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name"):
        exec("from heatproof.compat.pytorch_grad_cam import _none")

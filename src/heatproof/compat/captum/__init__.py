"""Captum's names and call style (0.9.0): `attribute(inputs, target=)`.

    from heatproof.compat.captum import Attribution, LayerGradCam

    LayerGradCam(model, model.layer4).attribute(inputs, target=281)       (N, 1, h, w)
    Attribution("rise", model, masks=4000).attribute(inputs, target=281)  (N, 1, H, W), any of our methods

`heatproof.compat.captum.attr` and `.metrics` have the names of Captum's modules, and so has this package; only
`Attribution` is, here, any method of heatproof's by name, and in `.attr` the class from which all are derived.

Inputs are normalised, as the network takes them: a tensor or a tuple of them. A target is an integer or a tuple of
indices for all rows, or a list or tensor with one for each row.
"""

from heatproof.compat.captum import attr, metrics
from heatproof.compat.captum.attr import *  # noqa: F403
from heatproof.compat.captum.attr import ABSENT
from heatproof.compat.captum.method import NamedAttribution
from heatproof.compat.captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from heatproof.compat.missing import absent_modules, missing_names

__all__ = [
    *attr.__all__,  # pyright: ignore[reportUnsupportedDunderAll]
    "attr",
    "infidelity",
    "infidelity_perturb_func_decorator",
    "metrics",
    "sensitivity_max",
]

#: Any method by name. Captum's base class of that name is `heatproof.compat.captum.attr.Attribution`.
Attribution = NamedAttribution

#: Modules of Captum that heatproof does not have → what to use instead.
ABSENT_MODULES = {
    "concept": "concepts need examples of their own; take Captum's, which takes the same network",
    "influence": "it is about training images, and heatproof explains predictions; take Captum's",
    "insights": "take heatproof.show, or `heatproof explain`, which writes a page",
    "robust": "take the perturbations and attacks of heatproof's studies, such as `heatproof run noise-robustness`",
    "_utils": "the names of Captum's classes are in heatproof.compat.captum.attr",
}

__getattr__ = missing_names(__name__, {**ABSENT, **ABSENT_MODULES})
absent_modules(__name__, ABSENT_MODULES)

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
from heatproof.compat.missing import missing_names

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

__getattr__ = missing_names(__name__, ABSENT)

"""pytorch-grad-cam's call style (1.5.7) on heatproof's methods.

    from heatproof.compat.pytorch_grad_cam import GradCAM
    from heatproof.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    maps = GradCAM(model=model, target_layers=[model.layer4])(input_tensor=z, targets=[ClassifierOutputTarget(281)])

Where our formula differs from the original's, the classes here give the original's numbers; options turn that off, as
in `GradCAMPlusPlus(model, layers, compat=False)`. docs/moving.md lists the differences that remain.
"""

import sys
from types import ModuleType

from heatproof.compat.missing import absent_modules, missing_names
from heatproof.compat.pytorch_grad_cam.base import BaseCAM
from heatproof.compat.pytorch_grad_cam.cams import (
    FEM,
    KPCA_CAM,
    AblationCAM,
    AblationLayer,
    AblationLayerFasterRCNN,
    AblationLayerVit,
    EigenCAM,
    EigenGradCAM,
    FinerCAM,
    FullGrad,
    GradCAM,
    GradCAMElementWise,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    RandomCAM,
    RefineCAM,
    ScoreCAM,
    SegEigenCAM,
    ShapleyCAM,
    XGradCAM,
)
from heatproof.compat.pytorch_grad_cam.feature_factorization import DeepFeatureFactorization, run_dff_on_image
from heatproof.compat.pytorch_grad_cam.guided_backprop import GuidedBackpropReLUModel
from heatproof.compat.pytorch_grad_cam.metrics import arcc, cam_mult_image, road
from heatproof.compat.pytorch_grad_cam.utils import model_targets, reshape_transforms

#: Names of the original that heatproof does not have → what to use instead.
ABSENT = {
    "ActivationsAndGradients": "it is not needed, since DeepFeatureFactorization and the CAMs read the layers "
    "themselves and leave nothing in the model",
    "SESS": "take RefineCAM for sharper maps",
}

__getattr__ = missing_names(__name__, ABSENT)
absent_modules(__name__, {"ablation_cam_multilayer": "take AblationCAM with several `target_layers`"})

#: Modules of the original → their classes that are here.
MODULES: dict[str, tuple[type, ...]] = {
    "activations_and_gradients": (),
    "sess": (),
    "ablation_cam": (AblationCAM,),
    "ablation_layer": (AblationLayer, AblationLayerVit, AblationLayerFasterRCNN),
    "base_cam": (BaseCAM,),
    "eigen_cam": (EigenCAM,),
    "eigen_grad_cam": (EigenGradCAM,),
    "fem": (FEM,),
    "finer_cam": (FinerCAM,),
    "fullgrad_cam": (FullGrad,),
    "grad_cam": (GradCAM,),
    "grad_cam_elementwise": (GradCAMElementWise,),
    "grad_cam_plusplus": (GradCAMPlusPlus,),
    "hirescam": (HiResCAM,),
    "kpca_cam": (KPCA_CAM,),
    "layer_cam": (LayerCAM,),
    "random_cam": (RandomCAM,),
    "refine_cam": (RefineCAM,),
    "score_cam": (ScoreCAM,),
    "seg_eigen_cam": (SegEigenCAM,),
    "shapley_cam": (ShapleyCAM,),
    "xgrad_cam": (XGradCAM,),
}


def _as_module(name: str, classes: tuple[type, ...]) -> ModuleType:
    """A module that holds these classes, which `import` finds."""
    module = ModuleType(f"{__name__}.{name}", "The classes of the module of that name in pytorch-grad-cam.")
    module.__dict__.update({one.__name__: one for one in classes}, __all__=[one.__name__ for one in classes])
    module.__dict__["__getattr__"] = missing_names(module.__name__, ABSENT)
    return sys.modules.setdefault(module.__name__, module)


globals().update({name: _as_module(name, classes) for name, classes in MODULES.items()})

__all__ = [
    "FEM",
    "KPCA_CAM",
    "AblationCAM",
    "AblationLayer",
    "AblationLayerFasterRCNN",
    "AblationLayerVit",
    "BaseCAM",
    "DeepFeatureFactorization",
    "EigenCAM",
    "EigenGradCAM",
    "FinerCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "GuidedBackpropReLUModel",
    "HiResCAM",
    "LayerCAM",
    "RandomCAM",
    "RefineCAM",
    "ScoreCAM",
    "SegEigenCAM",
    "ShapleyCAM",
    "XGradCAM",
    "arcc",
    "cam_mult_image",
    "model_targets",
    "reshape_transforms",
    "road",
    "run_dff_on_image",
]

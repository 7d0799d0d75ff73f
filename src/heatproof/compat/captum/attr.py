"""The names of `captum.attr` (0.9.0)."""

from heatproof.compat.captum.ablation import FeatureAblation, Occlusion
from heatproof.compat.captum.base import Attribution, GradientAttribution, LayerAttribution, PerturbationAttribution
from heatproof.compat.captum.deep_lift import DeepLift, DeepLiftShap
from heatproof.compat.captum.gradients import Deconvolution, GuidedBackprop, InputXGradient, Saliency
from heatproof.compat.captum.kernel_shap import KernelShap
from heatproof.compat.captum.layers import (
    GuidedGradCam,
    LayerActivation,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
)
from heatproof.compat.captum.lime import Lime, LimeBase, get_exp_kernel_similarity_function
from heatproof.compat.captum.lrp import LRP, Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule
from heatproof.compat.captum.noise_tunnel import NoiseTunnel
from heatproof.compat.captum.paths import GradientShap, IntegratedGradients
from heatproof.compat.captum.permutation import FeaturePermutation
from heatproof.compat.missing import absent_modules, missing_names

__all__ = [
    "LRP",
    "Alpha1_Beta0_Rule",
    "Attribution",
    "Deconvolution",
    "DeepLift",
    "DeepLiftShap",
    "EpsilonRule",
    "FeatureAblation",
    "FeaturePermutation",
    "GammaRule",
    "GradientAttribution",
    "GradientShap",
    "GuidedBackprop",
    "GuidedGradCam",
    "IdentityRule",
    "InputXGradient",
    "IntegratedGradients",
    "KernelShap",
    "LayerActivation",
    "LayerAttribution",
    "LayerGradCam",
    "LayerGradientXActivation",
    "LayerIntegratedGradients",
    "Lime",
    "LimeBase",
    "NoiseTunnel",
    "Occlusion",
    "PerturbationAttribution",
    "Saliency",
    "get_exp_kernel_similarity_function",
]

_NEURONS = "take the method of the input with a `forward_func` that returns the neuron's activation"
_TEXT = "it explains text, and heatproof explains image classifiers"
_SHAPLEY = "take KernelShap, which estimates the same values"
_STATISTICS = "take torch.mean, torch.var, …"
_LOADERS = "call `attribute` for every batch, or take heatproof.explain, which reads a DataLoader"

#: Names of Captum that heatproof does not have → what to use instead.
ABSENT = {
    **{
        f"Neuron{name}": _NEURONS
        for name in ("Attribution", "Conductance", "Deconvolution", "DeepLift", "DeepLiftShap", "FeatureAblation",
                     "Gradient", "GradientShap", "GuidedBackprop", "IntegratedGradients")
    },
    **dict.fromkeys(("ShapleyValueSampling", "ShapleyValues"), _SHAPLEY),
    **dict.fromkeys(("LayerConductance", "InternalInfluence"), "take LayerIntegratedGradients"),
    **dict.fromkeys(("LayerDeepLift", "LayerDeepLiftShap", "LayerGradientShap"), "take LayerIntegratedGradients"),
    **dict.fromkeys(
        ("LayerFeatureAblation", "LayerFeaturePermutation"),
        "take FeatureAblation, or the method 'ablationcam' of heatproof.explain, which ablates a layer's channels",
    ),
    "LayerLRP": "take LRP, or LayerGradientXActivation, which is the same on networks of ReLUs without biases",
    "DataLoaderAttribution": _LOADERS,
    "ProductBaselines": "give GradientShap a tensor or a function of baselines",
    **dict.fromkeys(
        ("LLMAttribution", "LLMAttributionResult", "LLMGradientAttribution", "RemoteLLMAttribution",
         "RemoteLLMProvider", "VLLMProvider", "TextTemplateInput", "TextTokenInput", "TokenReferenceBase",
         "InterpretableEmbeddingBase",
         "configure_interpretable_embedding_layer", "remove_interpretable_embedding_layer"),
        _TEXT,
    ),
    **dict.fromkeys(
        ("InterpretableInput", "ImageMaskInput"),
        "it describes the inputs of language models; give the segments of an image to FeatureAblation, Lime or "
        "KernelShap as `feature_mask`",
    ),
    "visualization": "take heatproof.show or heatproof.panels",
    **dict.fromkeys(
        ("Summarizer", "CommonStats", "ClassSummarizer", "Mean", "StdDev", "MSE", "Var", "Min", "Max", "Sum", "Count",
         "StatValue", "SummarizerSingleTensor"),
        _STATISTICS,
    ),
}  # fmt: skip

__getattr__ = missing_names(__name__, ABSENT)
absent_modules(
    __name__, dict.fromkeys(("_core", "_utils", "_models"), f"the names of Captum's classes are in {__name__}")
)

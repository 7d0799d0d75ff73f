"""`hf:NAME_OR_PATH`: image classifiers of transformers, with the preprocessing of their image processor."""

from pathlib import Path
from typing import Any

from torch import nn

from heatproof.errors import MissingExtra, ModelError, warn
from heatproof.models.class_names import own_class_names
from heatproof.models.download import hub_cache, is_path, missing_folder, no_weights, reachable
from heatproof.models.image_processor import processor_preprocessing
from heatproof.models.model_sources import Found, ModelRequest
from heatproof.models.own_preprocessing import own_preprocessing


def hugging_face_model(request: ModelRequest) -> Found:
    """An `AutoModelForImageClassification`; made from its config alone where no published weights are wanted."""
    transformers = _transformers()
    local = Path(request.name).expanduser().is_dir()
    if not local and is_path(request.name):
        raise missing_folder(request.spec, request.name)
    where: dict[str, Any] = {"local_files_only": True} if local or not reachable("huggingface.co") else {}
    where["trust_remote_code"] = _runs_code(request)  # without a word transformers asks on the terminal, and waits
    try:
        module = _build_network(transformers, request, where)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or local:
            trust = " To run its code: --model-arg trust_remote_code=true." if "trust_remote_code" in str(error) else ""
            raise ModelError(f"Expected an image classifier at {request.spec}. {_first_line(error)}{trust}") from error
        raise no_weights(request.spec, hub_cache(), error) from error
    config = module.config
    processor = _processor(transformers, request.name, where)
    base = processor_preprocessing(processor) if processor is not None else own_preprocessing(module)
    found = base.overridden(classes=own_class_names(module), channels=getattr(config, "num_channels", None))
    several = getattr(config, "problem_type", None) == "multi_label_classification"
    return module.float(), found, {"multi_label": True} if several else {}


def _runs_code(request: ModelRequest) -> bool:
    """Whether the arguments ask for code that comes with the model; a warning says that it runs."""
    trusted = bool(request.args.get("trust_remote_code", False))
    if trusted or request.args.get("weights_only", True) is not True:
        named = "trust_remote_code" if trusted else "weights_only=false"
        warn(f"Code that comes with {request.spec} may run, with your rights, as {named} asks.")
    return trusted


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra(
            "Models of the form hf:NAME_OR_PATH need transformers, which is not installed. "
            "Run: pip install 'heatproof[hf]'."
        ) from error
    return transformers


def _build_network(transformers: Any, request: ModelRequest, where: dict[str, Any]) -> nn.Module:
    auto = transformers.AutoModelForImageClassification
    name = str(Path(request.name).expanduser()) if "local_files_only" in where else request.name
    args = {key: value for key, value in request.args.items() if key not in where}
    if not request.pretrained:
        config = transformers.AutoConfig.from_pretrained(name, **where, **args)
        return auto.from_config(config, trust_remote_code=where["trust_remote_code"])
    module, info = auto.from_pretrained(name, output_loading_info=True, **where, **args)
    missing = sorted({*info.get("missing_keys", ()), *(str(key) for key in info.get("mismatched_keys", ()))})
    if missing:
        raise ModelError(
            f"Expected all weights of a trained classifier at {request.spec}. {len(missing)} are missing "
            f"({', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}): is it a backbone without head? "
            "Give a fine-tuned classifier."
        )
    return module


def _processor(transformers: Any, name: str, where: dict[str, Any]) -> Any:
    try:
        return transformers.AutoImageProcessor.from_pretrained(name, **where)
    except (
        OSError,
        ValueError,
        ImportError,
        KeyError,
    ):  # no processor saved, or of a kind this version lacks
        return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

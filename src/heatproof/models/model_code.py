"""A fingerprint of what decides a model's answers besides its weights."""

from heatproof.code_fingerprint import code_fingerprint, is_own
from heatproof.models.model import Model
from heatproof.plugins import PYTHON, current_folder_importable, named_object


def model_code(model: Model, spec: str = "") -> str:
    """A hash of a user's own network: its classes, their settings, and how images are prepared; empty for others.

    spec: the name that loaded it; of `python:package.module:factory` the factory's code belongs to the model too.
    """
    named = spec.startswith(PYTHON)
    if not named and not any(is_own(type(part).__module__) for part in model.module.modules()):
        return ""
    prepared = (model.mean, model.std, model.multi_label, model.input_shape, repr(model.geometry), model.classes)
    with current_folder_importable():
        return code_fingerprint(named_object(spec) if named else None, model.module, prepared)

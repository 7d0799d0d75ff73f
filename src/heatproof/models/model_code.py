"""A fingerprint of what decides a model's answers besides its weights."""

from heatproof.code_fingerprint import code_fingerprint, is_own
from heatproof.models.model import Model
from heatproof.plugins import PYTHON, current_folder_importable, named_object


def model_code(model: Model, spec: str = "") -> str:
    """A hash of a user's own network: its classes and their settings; empty for others.

    How images are prepared does not belong to it: size, mean and std are settings, compared by their names. Nor do the
    names of the classes, which change no number.
    spec: the name that loaded it; of `python:package.module:factory` the factory's code belongs to the model too.
    """
    named = spec.startswith(PYTHON)
    if not named and not any(is_own(type(part).__module__) for part in model.module.modules()):
        return ""
    shape = None if model.normalises else model.input_shape
    with current_folder_importable():
        return code_fingerprint(named_object(spec) if named else None, model.module, (model.multi_label, shape))

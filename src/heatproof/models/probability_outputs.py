"""Whether the outputs of a network are probabilities already, where logits are expected."""

import torch

from heatproof.errors import warn
from heatproof.memo import PerModule
from heatproof.models.model import Model

#: How far from 1 the outputs of an image may sum to count as those of a softmax.
SUM = 1e-3
#: The least number of outputs in [0, 1] that count as those of a sigmoid: fewer logits may lie there by chance.
LEAST = 8

#: The modules that were warned of.
_WARNED = PerModule[bool]()


def warn_of_probabilities(model: Model, logits: torch.Tensor) -> None:
    """Warns where the outputs `(N, K)` of a pass that was made anyway end in a softmax or sigmoids. Once a module.

    heatproof applies softmax or sigmoids itself, so a probability would lie in [.5, .73] and hardly move.
    """
    if model.of_values or model.single_output or not model.warns_of_values or _WARNED.get(model.module) is not None:
        return
    found = logits.detach().double()
    if found.dim() != 2 or not len(found) or not bool(((found >= 0) & (found <= 1)).all()):
        return
    if bool(((found.sum(1) - 1).abs() <= SUM).all()):
        last = "a softmax"
    elif model.multi_label and found.numel() >= LEAST:
        last = "sigmoids"
    else:
        return
    _WARNED.put(model.module, None, True)
    applied = "sigmoids" if model.multi_label else "a softmax"
    warn(
        f"The outputs of {model.name} look like probabilities: all lie in [0, 1], as after {last}. heatproof expects "
        f"logits and applies {applied} to them, so probabilities and scores are wrong. Leave the last activation out "
        "of the network."
    )

"""Whether the single output of a network can be a logit, or is a value in units of its own."""

import torch

from heatproof.errors import warn
from heatproof.memo import PerModule
from heatproof.models.model import Model

#: From this size on the sigmoid of a logit is 0 or 1 in single precision: 1 − sigmoid(17) is 4e-8.
SATURATED = 17.0

#: The modules that were warned of.
_WARNED = PerModule[bool]()


def warn_of_values(model: Model, logits: torch.Tensor) -> None:
    """Warns where a single output is clearly no logit: on every image its sigmoid is 1, or on every image 0.

    `logits` `(N, K)` are those of a pass that was made anyway. Once for each module.
    """
    single_logit = model.single_output and not model.of_values
    if not single_logit or not model.warns_of_values or _WARNED.get(model.module) is not None:
        return
    single = logits[:, 1].detach() * (1 if model.multi_label else 2)
    size = single.abs().amin() if (single > 0).all() or (single < 0).all() else single.new_zeros(())
    if not float(size) >= SATURATED:
        return
    _WARNED.put(model.module, None, True)
    low, high = float(single.amin()), float(single.amax())
    span = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    warn(
        f"The single output of {model.name} is read as a logit, and it is {span} here: as a probability that is "
        f"{int(low > 0)} on every image, and no score can move it. If it is a number in units of its own, as of a "
        'regression, set `output="value"` (--output value).'
    )

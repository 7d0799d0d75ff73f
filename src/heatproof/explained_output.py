"""Which output of the network a map explains: the target's logit, its probability, or a callable of the user's."""

from collections.abc import Callable

import torch

from heatproof.errors import InvalidInput
from heatproof.registry import unknown

#: The named outputs; a callable `(logits (N, K), target (N,)) → (N,)` may stand in their place.
OUTPUTS = {
    "logit": "the target's logit y",
    "probability": "its probability p: softmax, or sigmoid where labels do not exclude each other",
    "log-probability": "log p",
    "rest": "y + log p, the utility of ShapleyCAM",
}

Output = str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def columns(output: str, logits: torch.Tensor, multi_label: bool = False) -> torch.Tensor:
    """`(N, K)` logits → the output of every class, `(N, K)`."""
    if output == "logit":
        return logits
    logs = torch.nn.functional.logsigmoid(logits) if multi_label else logits.log_softmax(1)
    return {"probability": logs.exp, "log-probability": lambda: logs, "rest": lambda: logits + logs}[output]()


def of_target(output: Output, logits: torch.Tensor, target: torch.Tensor, multi_label: bool = False) -> torch.Tensor:
    """The output of each image's target, `(N,)`."""
    if isinstance(output, str):
        return columns(output, logits, multi_label).gather(1, target[:, None])[:, 0]
    found = output(logits, target)
    if not isinstance(found, torch.Tensor) or found.shape != target.shape:
        got = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise InvalidInput(f"A callable `output` must give one number for each of {len(target)} images. Got {got}.")
    return found


def checked_output(output: Output) -> Output:
    """`output`, or the error with near misses."""
    if callable(output) or output in OUTPUTS:
        return output
    raise unknown("output", str(output), OUTPUTS)

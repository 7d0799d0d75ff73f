"""Which output of the network a map explains: the target's logit, its probability, a value, or the user's callable.

A network of values is one whose outputs are numbers in units of their own, such as ages, and no logits:
`output="value"` says so. No softmax and no sigmoid is then taken anywhere. What is explained, masked and scored is the
number itself, one column of the output. The model is then `Model.of_values`, and its outputs stand where logits stand.
"""

from collections.abc import Callable

import torch

from heatproof.errors import InvalidInput, NotApplicable
from heatproof.registry import unknown

#: The named outputs; a callable `(logits (N, K), target (N,)) → (N,)` may stand in their place.
OUTPUTS = {
    "logit": "the target's logit y; of a network with one logit l, −l/2 for class 0 and l/2 for class 1",
    "value": "the network's number itself, for networks that are no classifiers; the target is a column",
    "probability": "its probability p: softmax, or sigmoid where labels do not exclude each other",
    "log-probability": "log p",
    "rest": "y + log p, the utility of ShapleyCAM",
}

Output = str | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def columns(output: str, logits: torch.Tensor, multi_label: bool = False) -> torch.Tensor:
    """`(N, K)` logits → the output of every class, `(N, K)`."""
    if output in ("logit", "value"):
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


def of_values(output: Output) -> Output:
    """The output of a network of values in the place of one that a method or the caller asks for.

    The score of the target is its value whatever a method calls it: `logit`, `probability` and `value` are the same.

    Raises:
        NotApplicable: the logarithm of a probability, or what is made from it.
    """
    if not isinstance(output, str) or output in ("logit", "value", "probability"):
        return "value" if isinstance(output, str) else output
    raise NotApplicable(f'A network of values has no {output!r}, which needs a probability. Take `output="value"`.')


def refuse_of_values(output: Output) -> None:
    """Raises InvalidInput where the caller asks a network of values for a probability."""
    if isinstance(output, str) and output not in ("logit", "value"):
        raise InvalidInput(
            f"`output` of a network of values must be `value` or a callable. Got {output!r}, which needs logits."
        )


def checked_output(output: Output) -> Output:
    """`output`, or the error with near misses."""
    if callable(output) or output in OUTPUTS:
        return output
    raise unknown("output", str(output), OUTPUTS)

"""What input a network takes that did not run on another one: by its first layer with weights, or its own size."""

import math

from torch import nn

from heatproof.errors import HeatproofError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: What networks raise on an input that they do not take; operations raise the first.
REFUSED = (RuntimeError, AssertionError, ValueError, IndexError)


def other_input(module: nn.Module, shape: tuple[int, ...]) -> str:
    """What to set for a network that raised on an input `(channels, *spatial)`; empty where its layers do not say."""
    first = next((part for part in module.modules() if isinstance(part, (*_CONVOLUTIONS, nn.Linear))), None)
    if isinstance(first, nn.Linear):
        return _of_flat(first.in_features, shape)
    if not isinstance(first, _CONVOLUTIONS) or first.in_channels == shape[0]:
        return ""
    count, sides = first.in_channels, len(first.kernel_size)
    if sides != len(shape) - 1:
        kinds = {1: "signals, (channels, length)", 2: "images, (channels, height, width)",
                 3: "volumes, (channels, depth, height, width)"}  # fmt: skip
        return f"Its first convolution is for {kinds[sides]}. Set `input_shape` to that."
    wanted = (count, *shape[1:])
    return (
        f"Its first convolution takes {count} {'channel' if count == 1 else 'channels'}. Set `input_shape={wanted}` "
        f"(--input-shape {','.join(map(str, wanted))}), with the height and width it was trained with."
    )


def _of_flat(features: int, shape: tuple[int, ...]) -> str:
    if len(shape) != 3 or features == math.prod(shape):
        return ""
    for channels in (shape[0], 1, 3):
        side = math.isqrt(features // channels)
        if side > 1 and channels * side * side == features:
            option = f"({channels}, {side}, {side})"
            return (
                f"Its first linear layer takes {features} numbers. Set `input_shape={option}` (--input-shape "
                f"{channels},{side},{side})."
            )
    return ""


def other_size(error: Exception, shape: tuple[int, ...], own: tuple[int, ...]) -> str:
    """What to give a network that raised on an input `(channels, *spatial)` of another size than its `own`.

    Empty where the size is its own, where the error is heatproof's, and where memory ran out.
    """
    if isinstance(error, HeatproofError) or shape[1:] == own[1:] or "memory" in str(error):
        return ""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    sides = " × ".join(map(str, own[1:]))
    return f"It was made for {sides}: probably images must be resized to that. The network raised: {first}."

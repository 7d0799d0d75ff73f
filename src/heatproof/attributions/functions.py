"""The kinds of functions, by `operation_name`, for methods that propagate shares of the output back to the image."""

_PASSED_ON = """
    add sub neg cat stack hstack vstack mean sum flatten reshape reshape_as view view_as permute transpose t swapaxes
    swapdims contiguous clone squeeze unsqueeze unflatten expand expand_as broadcast_to repeat repeat_interleave chunk
    split tensor_split unbind getitem narrow select index_select gather movedim moveaxis roll flip rot90 pad tile
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout to float half double
    bfloat16 type type_as cpu cuda interpolate upsample pixel_shuffle pixel_unshuffle channel_shuffle
    native_channel_shuffle unfold fold masked_fill
"""
_WEIGHTED = """
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear batch_norm avg_pool1d avg_pool2d
    avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
"""
_THROUGH_ZERO = """
    relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish hardtanh tanh softsign tanhshrink
    hardshrink softshrink erf asinh atan sin
"""
_ELSEWHERE = """
    sigmoid hardsigmoid softplus logsigmoid exp expm1 square abs sqrt clamp clamp_min threshold cos log1p
"""

#: Sum with weights; where LRP's epsilon goes, as in Captum.
WEIGHTED = frozenset(_WEIGHTED.split())
#: Linear in one operand while the others do not depend on the image.
LINEAR_IN_ONE = WEIGHTED | {"matmul", "mm", "bmm", "einsum", "mul", "div", "tensordot"}
#: Linear whatever the operands, or only rearranging values.
LINEAR = frozenset(_PASSED_ON.split())
POOLS = frozenset(f"{kind}max_pool{d}d" for kind in ("", "adaptive_") for d in (1, 2, 3))
#: Elementwise functions with f(0) = 0, which pass on all of the share that they get.
THROUGH_ZERO = frozenset(_THROUGH_ZERO.split())
#: Of those, the ones with f(a) = a f'(a): linear on both sides of zero.
PROPORTIONAL = frozenset({"relu", "leaky_relu", "prelu", "rrelu"})
#: Elementwise functions.
ELEMENTWISE = THROUGH_ZERO | frozenset(_ELSEWHERE.split())


def linear(name: str, operands: tuple[int, ...]) -> bool:
    """Whether a call is affine in what depends on the image (positions among its tensors)."""
    if name in ("div", "batch_norm"):
        return operands == (0,)
    return name in LINEAR or (name in LINEAR_IN_ONE and len(operands) == 1)

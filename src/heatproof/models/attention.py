"""The attention matrices of a transformer, whoever wrote it: read from the functions that every implementation calls.

`F.scaled_dot_product_attention` is replaced by its formula, softmax(q kᵀ / √d + mask) v. A softmax over the last
dimension that gives `(N, heads, T, T)` is attention too (timm without fused attention, Hugging Face's `eager`).
PyTorch does not use its fused encoder while a function mode is active. Nothing in the network is changed. Attention
that does not depend on the image, as in a text tower, is left out.
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from heatproof.errors import NotApplicable
from heatproof.memo import PerModule
from heatproof.models.layout import Layout, token_layout
from heatproof.models.model import Model
from heatproof.models.observable import why_hidden
from heatproof.models.rows import SAMPLED


class Attention(TorchFunctionMode):
    """While it is active, every self-attention matrix of `count` images is added to `matrices`, in order of the calls.

    A matrix is `(N, heads, T, T)`: rows attend to columns and sum to one. Attention of one query, `(N, heads, 1, T)`,
    which pools the tokens, is added to `pools`. `kept` can reduce it before it is stored. In
    grad mode the matrices are part of the graph; the first is a leaf where nothing before it requires a gradient.

    `windowed`: some attention was within windows; `reduced`: from many positions to fewer; `crossed`: an
    `nn.MultiheadAttention` attended to other tokens than its own (its matrix is not stored). `lengths`: the numbers of
    positions in the inputs of linear layers, which tell attention between positions from attention between channels.
    `only`: the numbers of the softmax calls that are looked at (`Reading.calls`); all by default.
    """

    def __init__(
        self,
        count: int,
        kept: Callable[[torch.Tensor], torch.Tensor] = lambda matrix: matrix,
        only: Collection[int] | None = None,
    ):
        super().__init__()
        self.count, self.kept, self.only = count, kept, only
        self.calls = 0
        self.matrices: list[torch.Tensor] = []
        self.pools: list[torch.Tensor] = []
        self.windowed = self.reduced = self.crossed = self._to_others = False
        self.lengths: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            return _attended(self._store, *args, **kwargs)
        if func is F.multi_head_attention_forward:
            self._to_others = not attends_to_itself(*args, **kwargs)
            try:
                with self:  # the functions that it calls must be seen too
                    return _OPENED(*args, **kwargs)
            finally:
                self._to_others = False
        if func is F.linear and args and args[0].dim() >= 3:
            *shape, _channels = args[0].shape
            self.lengths.update({*shape, math.prod(shape[1:])})
        found = func(*args, **kwargs)
        return self._store(found) if func in _SOFTMAX else found

    def _store(self, matrix: torch.Tensor) -> torch.Tensor:
        """Stores a self-attention matrix and returns it, or its leaf, to the network; returns others as they are."""
        call, self.calls = self.calls, self.calls + 1
        if self.only is not None and call not in self.only:
            return matrix
        if matrix.dim() < 3 or matrix.shape[-1] < 2:  # a classifier's softmax
            return matrix
        flat = matrix.dim() == 3  # (N · heads, T, T), as nn.MultiheadAttention has it
        if matrix.shape[-2] == 1:
            fits = (matrix.dim() == 4 and len(matrix) == self.count) or (flat and len(matrix) % self.count == 0)
            return self._kept_in(self.pools, matrix, flat) if fits else matrix
        if matrix.dim() > 4 or (len(matrix) % self.count if flat else len(matrix) != self.count):
            self.windowed = True
            return matrix
        if matrix.shape[-1] != matrix.shape[-2]:
            self.reduced = True
            return matrix
        if self._to_others:
            self.crossed = True
            return matrix
        return self._kept_in(self.matrices, matrix, flat)

    def _kept_in(self, stored: list[torch.Tensor], matrix: torch.Tensor, flat: bool) -> torch.Tensor:
        whole = matrix.unflatten(0, (self.count, -1)) if flat else matrix
        if torch.is_grad_enabled() and not whole.requires_grad:
            whole = whole.detach().requires_grad_()
        # The network must go on with a view of the stored matrix, else no gradient reaches it.
        stored.append(self.kept(whole))
        return whole.flatten(0, 1) if flat else whole


def attends_to_itself(query: torch.Tensor, key: torch.Tensor, *_: Any, **__: Any) -> bool:
    """Whether the tokens that ask are those that are attended to."""
    return query is key or (query.shape == key.shape and torch.equal(query, key))


class UnfusedAttention(TorchFunctionMode):
    """While it is active, attention is computed by its formula: the fused kernels have no second derivative.

    Of this thread alone, where `torch.nn.attention.sdpa_kernel` sets what the whole process uses.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is F.scaled_dot_product_attention:
            return _attended(lambda matrix: matrix, *args, **(kwargs or {}))
        if func is F.multi_head_attention_forward:
            with self:  # the functions that it calls must be seen too
                return _OPENED(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attended(
    store: Callable[[torch.Tensor], torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """`F.scaled_dot_product_attention` by its formula; `store` gets the matrix and returns the one to go on with."""
    if enable_gqa:
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(~torch.ones_like(scores[0, 0], dtype=torch.bool).tril(), -torch.inf)
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    matrix = store(scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype))
    return F.dropout(matrix, dropout_p) @ value


_SOFTMAX = {F.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax}

#: `F.multi_head_attention_forward` without its first step, which would hand the call to the active function mode.
_OPENED = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda _given: False},
    F.multi_head_attention_forward.__name__,
    F.multi_head_attention_forward.__defaults__,
)


class _Observed(Attention):
    """Stores nothing; `connected` and `samples` have, for each softmax, whether autograd connects it with the images,
    and some of its numbers."""

    def __init__(self, count: int):
        super().__init__(count)
        self.connected: list[bool] = []
        self.samples: list[torch.Tensor] = []

    def _store(self, matrix: torch.Tensor) -> torch.Tensor:
        self.connected.append(matrix.requires_grad)
        flat = matrix.detach().flatten()
        self.samples.append(flat[:: -(-flat.numel() // SAMPLED)].clone())
        return matrix


@dataclass(frozen=True)
class Reading:
    """How a network's tokens become a grid, and which of them the output is read from (`rows`).

    `calls`: the numbers of the softmax calls that depend on the image, among all of a pass. `pooled`: the output is
    read from all tokens by an attention of one query, `Attention.pools[-1]`.
    """

    layout: Layout
    rows: tuple[int, ...]
    calls: frozenset[int]
    pooled: bool = False


#: Why a network without attention cannot be read.
NO_ATTENTION = "it has no attention"

#: The reading, or why there is none, by input size.
_READINGS = PerModule[Reading | str]()


def reading(network: Any, module: nn.Module, z: torch.Tensor) -> Reading:
    """The reading of `module` for images of z's size; `network` maps normalised images to its outputs.

    Two forwards and one backward on noise, once for each module and size. Raises NotApplicable where there is none.
    """
    size = tuple(z.shape[1:])
    found = _READINGS.get(module, size)
    if found is None:
        noise = torch.randn((2, *size), generator=torch.Generator().manual_seed(0)).to(z)
        with torch.inference_mode(False):
            found = _read_attention(network, noise)
        if found == NO_ATTENTION:
            found = why_hidden(module) or found
        if isinstance(found, Reading) and not found.rows:  # a head of zeros, as before training
            positions = math.prod(found.layout.grid)
            return replace(found, rows=(0,) if found.layout.prefix else tuple(range(positions)))
        _READINGS.put(module, size, found)
    if isinstance(found, str):
        raise NotApplicable(f"{type(module).__name__} cannot be explained by its attention: {found}.")
    return found


def why_unreadable(model: Model) -> str:
    """Why a model's attention gives no map of the image, as one phrase; empty where it does."""
    z = torch.empty((1, *model.input_shape), device=model.device)
    try:
        with model.evaluating():
            reading(model.of_normalised, model.module, z)
    except NotApplicable:
        found = _READINGS.get(model.module, model.input_shape)
        assert isinstance(found, str)
        return found
    return ""


def _read_attention(network: Any, z: torch.Tensor) -> Reading | str:
    calls = _calls_of_images(network, z)
    with torch.enable_grad(), Attention(len(z), only=calls) as attention:
        output = network(z)
    matrices = attention.matrices
    if attention.crossed:
        return "its attention is to other tokens than its own, as in cross-attention"
    if attention.windowed:
        return "its attention is within windows or views"
    if attention.reduced:
        return "its attention is from many positions to fewer"
    if not matrices:
        return "its only attention is that of one query, which pools" if attention.pools else NO_ATTENTION
    tokens = {matrix.shape[-1] for matrix in matrices}
    if len(tokens) > 1:
        return f"its tokens change on the way ({', '.join(map(str, sorted(tokens)))})"
    if not tokens & attention.lengths:
        return "its attention is not between positions"
    layout = token_layout(tokens.pop(), tuple(z.shape[2:]))
    if layout is None:
        return "its tokens are no grid over the image"
    if len(attention.pools) > 1 or any(pool.shape[-1] != matrices[-1].shape[-1] for pool in attention.pools):
        return "its output is read by attention of one query several times, or of more tokens than the rest has"
    return Reading(layout, _rows_read(output, matrices[-1]), calls, bool(attention.pools))


def _calls_of_images(network: Any, z: torch.Tensor) -> frozenset[int]:
    """The softmax calls that depend on the images: by autograd, or, in a network without a graph, by other images."""
    with torch.enable_grad(), _Observed(len(z)) as seen:
        network(z.clone().requires_grad_() * 1.0)
    if any(seen.connected):
        return frozenset(call for call, connected in enumerate(seen.connected) if connected)
    with torch.no_grad(), _Observed(len(z)) as other:
        network(z.flip(0) / 4)
    pairs = zip(seen.samples, other.samples, strict=False)
    return frozenset(call for call, (a, b) in enumerate(pairs) if a.shape != b.shape or not torch.allclose(a, b))


def _rows_read(output: torch.Tensor, last: torch.Tensor) -> tuple[int, ...]:
    """The rows of the last attention matrix on which the output depends: those whose gradient is not zero."""
    if not output.requires_grad:
        return ()
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
    (gradient,) = torch.autograd.grad((output * weights).sum(), last, allow_unused=True)
    return () if gradient is None else tuple(gradient.abs().sum((0, 1, 3)).nonzero()[:, 0].tolist())

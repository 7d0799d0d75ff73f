"""LeGrad (Bousselham et al. 2024): where a class would gain from more attention, block by block."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from heatproof.compat.given_models import AsGiven, Wanted
from heatproof.compat.torchcam.methods.core import Extractor
from heatproof.errors import InvalidInput, InvalidType, LayerError, NotApplicable
from heatproof.locks import held, is_held
from heatproof.models.attention import Attention, attends_to_itself
from heatproof.models.layer_names import module_and_call
from heatproof.models.model import bare
from heatproof.tensors import minmax


class LeGrad(Extractor):
    """The mean over blocks l of `relu(∂ y_l / ∂ A_l)`, meaned over heads and queries; one map of patches.

    A_l is the attention inside block l, and y_l the class's logit if the network ended after that block:
    `score_projection` of the block's output. The blocks may be of any transformer whose attention heatproof can read.
    """

    def __init__(
        self,
        model: nn.Module,
        target_layer: nn.Module | str | Sequence[nn.Module | str],
        *,
        score_projection: Callable[[torch.Tensor], torch.Tensor] | None = None,
        prefix_tokens: int = 1,
        grid_shape: tuple[int, int] | None = None,
        enable_hooks: bool = True,
    ):
        """
        Args:
            target_layer: transformer blocks, which give tokens `(N, T, C)`.
            score_projection: tokens `(N, T, C)` → logits `(N, K)`; by default norm and head of torchvision's
                VisionTransformer on the mean token.
            prefix_tokens: how many tokens stand before those of the patches.
            grid_shape: rows and columns of the patches; by default they are a square.
        """
        if target_layer is None or target_layer == []:
            raise InvalidInput("LeGrad needs at least one explicit target block. Got none.")
        if not isinstance(prefix_tokens, int):
            raise InvalidType(f"`prefix_tokens` must be an integer. Got {prefix_tokens!r}.")
        if prefix_tokens < 0:
            raise InvalidInput(f"`prefix_tokens` must be non-negative. Got {prefix_tokens}.")
        if grid_shape is not None:
            if not (isinstance(grid_shape, tuple) and [type(side) for side in grid_shape] == [int, int]):
                raise InvalidType(f"`grid_shape` must be a tuple of two integers. Got {grid_shape!r}.")
            if min(grid_shape) < 1:
                raise InvalidInput(f"`grid_shape` must be positive. Got {grid_shape}.")
        if score_projection is not None and not callable(score_projection):
            raise InvalidType(f"`score_projection` must be callable. Got {score_projection!r}.")
        self.score_projection = score_projection or _vision_transformer_head(model)
        super().__init__(model, target_layer, enable_hooks=enable_hooks)
        try:
            for name in self.target_names:
                self._watch(name, module_and_call(bare(model), name)[0])
        except BaseException:
            self.remove_hooks()
            raise
        self.prefix_tokens, self.grid_shape = prefix_tokens, grid_shape

    def _watch(self, name: str, block: nn.Module) -> None:
        """Refuses a block that cannot be explained, and hooks that say so while the user's model runs."""
        if not list(block.children()) and not isinstance(block, nn.MultiheadAttention):
            raise InvalidType(
                f"LeGrad explains transformer blocks. {name!r}, a {type(block).__name__}, has no self_attention inside."
            )
        for module in block.modules():
            if isinstance(module, nn.MultiheadAttention):
                _check_attention(name, module)
                hook = self._while_watching(_check_tokens)
                self.hook_handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        tokens = self._while_watching(lambda _block, _arguments, output: _checked_tokens(name, output))
        self.hook_handles.append(block.register_forward_hook(tokens))

    def _while_watching(self, check: Callable[..., object]) -> Callable[..., None]:
        """`check` as a hook of the user's own passes, while the extractor keeps them."""

        def hook(*given: Any) -> None:
            if self._hooks_enabled and not is_held(bare(self.model)):
                check(*given)

        return hook

    def maps(self, inputs: torch.Tensor, wanted: Wanted, normalized: bool = True) -> list[torch.Tensor]:
        """A list with the one map `(N, *grid)`."""
        if wanted.scores:
            raise InvalidInput("LeGrad explains classes of each block and does not support `targets`.")
        given = AsGiven(self.model, inputs.shape[1:])
        names = self.target_names
        with given.evaluating():
            matrices, tokens = _attended(given, inputs, names)
            with torch.enable_grad():
                logits = [self._logits(tokens[name]) for name in names]
                target = torch.as_tensor(wanted.rule, device=inputs.device).expand(len(inputs))[:, None]
                chosen = [one.gather(1, target).sum() for one in logits]
                relevance = [self._relevance(y, matrices[name], name) for y, name in zip(chosen, names, strict=True)]
        found = torch.stack(relevance).mean(0).to(inputs.dtype)
        return [minmax(found) if normalized else found]

    def _logits(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.score_projection(tokens)
        if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != len(tokens):
            raise InvalidInput("`score_projection` must return class logits (N, K), one row for each image.")
        return logits

    def _relevance(self, output: torch.Tensor, matrix: torch.Tensor, name: str) -> torch.Tensor:
        """`(N, *grid)`: the positive gradient by the attention `(N, heads, T, T)` that each patch gets."""
        gradient = None
        if output.requires_grad:
            (gradient,) = torch.autograd.grad(output, matrix, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise LayerError(f"The score after {name!r} is not connected to its attention. Check `score_projection`.")
        patches = gradient.relu().mean((1, 2))[:, self.prefix_tokens :]
        count = patches.shape[1]
        side = math.isqrt(count)
        if count == 0:
            raise InvalidInput(f"`prefix_tokens` must leave at least one patch token. Got {self.prefix_tokens}.")
        if self.grid_shape is None and side * side != count:
            raise InvalidInput(f"{count} patches are no square patch grid. Give `grid_shape`.")
        grid = self.grid_shape or (side, side)
        if math.prod(grid) != count:
            raise InvalidInput(f"`grid_shape` does not match the {count} patches. Got {grid}.")
        return patches.unflatten(1, grid)


def _check_attention(name: str, attention: nn.MultiheadAttention) -> None:
    """Raises InvalidInput for attention that is not of the block's own tokens, by its settings."""
    if attention.bias_k is not None or attention.add_zero_attn:
        raise InvalidInput(f"LeGrad does not support added attention tokens (bias_kv, zero_attn). {name!r} has some.")
    if not attention._qkv_same_embed_dim:
        raise InvalidInput(
            f"LeGrad explains self-attention: queries, keys and values of one shared-dimension embedding. In {name!r} "
            f"they have {attention.embed_dim}, {attention.kdim} and {attention.vdim} dimensions."
        )
    if not attention.batch_first:
        raise InvalidInput(f"LeGrad needs batch-first tokens (N, T, C). Build {name!r} with batch_first=True.")


def _check_tokens(_module: nn.Module, arguments: tuple, named: dict[str, Any]) -> None:
    """Raises InvalidInput where attention is not called for `(N, T, C)` tokens and these tokens alone."""
    query, key, value = (named[n] if n in named else arguments[i] for i, n in enumerate(("query", "key", "value")))
    if not all(isinstance(one, torch.Tensor) for one in (query, key, value)):
        raise InvalidInput("LeGrad explains attention with tensor query, key and value.")
    if query.dim() != 3:
        raise InvalidInput(f"LeGrad explains attention of (batch, tokens, embedding). Got {tuple(query.shape)}.")
    if not attends_to_itself(query, key):
        raise InvalidInput("LeGrad explains self-attention. Here the keys are of other tokens than the queries.")


def _checked_tokens(name: str, output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor) or output.dim() != 3:
        raise InvalidInput(f"LeGrad's target blocks must return tokens (N, T, C). {name!r} does not.")
    return output


def _vision_transformer_head(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    model = bare(model) if isinstance(model, nn.Module) else model
    norm, heads = getattr(getattr(model, "encoder", None), "ln", None), getattr(model, "heads", None)
    if not isinstance(norm, nn.Module) or not isinstance(heads, nn.Module):
        raise InvalidInput(
            "`score_projection` is needed for networks other than torchvision's VisionTransformer. Give a function of "
            "tokens (N, T, C) that returns class logits (N, K)."
        )
    return lambda tokens: heads(norm(tokens.mean(1)))


def _attended(
    model: AsGiven, inputs: torch.Tensor, names: Sequence[str]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """For each block its attention `(N, heads, T, T)` and its output tokens `(N, T, C)`, with their graph."""
    before: dict[str, int] = {}
    matrices: dict[str, torch.Tensor] = {}
    tokens: dict[str, torch.Tensor] = {}

    def enter(name: str, attention: Attention) -> Callable[..., None]:
        return lambda *_: before.update({name: len(attention.matrices)})

    def leave(name: str, attention: Attention) -> Callable[..., None]:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            inside = attention.matrices[before[name] :]
            if attention.crossed:
                raise NotApplicable(f"LeGrad explains self-attention. {name!r} attends to other tokens than its own.")
            if len(inside) != 1:
                raise NotApplicable(f"LeGrad explains blocks with one self-attention. Got {len(inside)} in {name!r}.")
            matrices[name], tokens[name] = inside[0], _checked_tokens(name, output)
            if output.shape[1] != inside[0].shape[-1]:
                raise InvalidInput(f"The attention keys and target-block tokens of {name!r} must be as many.")

        return keep

    with held(model.module), torch.enable_grad(), Attention(len(inputs)) as attention, ExitStack() as handles:
        for name in names:
            block, _ = module_and_call(model.module, name)
            handles.callback(block.register_forward_pre_hook(enter(name, attention)).remove)
            handles.callback(block.register_forward_hook(leave(name, attention)).remove)
        model.output(inputs.to(model.device))
    return matrices, tokens

"""Maps from a transformer's own attention: how much each patch reached the tokens that the output is read from.

Both methods multiply the layers' matrices, `(N, T, T)` with heads fused, from the output down. Only the rows that the
output is read from are needed: the class token's, DeiT's class and distillation tokens', or all patches' where they are
averaged. They are found by where the gradient of the last attention is not zero. Several rows are averaged; where one
query reads them by an attention of its own (attention pooling), they are weighted by it. Columns of prefix tokens
(class, registers) are dropped.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from heatproof.attributions.catalogue import attribution, check_choice
from heatproof.errors import InvalidInput
from heatproof.models import Model
from heatproof.models.attention import Attention, Reading, reading, why_unreadable
from heatproof.rounding import largest, rounded

#: How the heads are fused.
FUSIONS = {
    "mean": lambda matrix: matrix.mean(1),
    "max": lambda matrix: matrix.amax(1),
    "min": lambda matrix: matrix.amin(1),
}


def _unfit(model: Model, _layer: str, _options: Mapping[str, Any]) -> str:
    return why_unreadable(model)


@attribution("attention-rollout", aliases=["rollout"], source="Abnar & Zuidema 2020, §3", applies=_unfit)
def attention_rollout(z: torch.Tensor, network, forward, *, fusion: str = "mean", discard: float = 0.0) -> torch.Tensor:
    """Attention rollout: the product over the layers of `½ A + ½ I`, at the rows the output is read from; ≥ 0.

    Where one query reads the tokens by an attention of its own (attention pooling), rows are weighted by that.

    A is the attention with its heads fused by `fusion` (`mean` is the paper's; `max`, `min`); rows are scaled to sum to
    one. `discard` in [0, 1) sets that share of each layer's smallest entries to zero first (0 in the paper; columns of
    prefix tokens stay). Does not depend on the target. One forward, and one probe of each network.
    """
    fuse = FUSIONS[check_choice("fusion", fusion, FUSIONS)]
    if not 0 <= discard < 1:
        raise InvalidInput(f"`discard` must be at least 0 and below 1. Got {discard}.")
    found = reading(network, network.module, z)
    with torch.no_grad(), Attention(len(z), lambda matrix: fuse(matrix.float()), found.calls) as attention:
        forward(z)
    flow = _first(found, attention.matrices[-1])
    if found.pooled:
        flow = attention.pools[-1][:, 0].double()
        flow = flow / flow.sum(-1, keepdim=True)
    for fused in reversed(attention.matrices):
        kept = _without_smallest(fused.double(), discard, found.layout.prefix)  # a uniform attention must stay uniform
        scaled = flow / (kept.sum(-1) + 1)  # of A + I: rows are made to sum to one, and half of both cancels
        flow = torch.einsum("nt,nts->ns", scaled, kept) + scaled
    return _grid(flow, found)


@attribution("chefer", aliases=["generic-attention", "attention-relevance"], source="Chefer et al. 2021b, eq. 5–6",
             applies=_unfit)  # fmt: skip
def chefer(z: torch.Tensor, network, forward, of_target) -> torch.Tensor:
    """Generic attention explainability: `R ← R + Ā R` over the layers, `Ā = mean over heads of relu(∇A ⊙ A)`; ≥ 0.

    ∇A is the gradient of the target's output by the attention. R begins as the identity I, and the map is R − I at the
    rows the output is read from (the authors' map is R at the class token's row, where I is 0 for the patches). One
    forward and one backward, and one probe of each network.
    """
    found = reading(network, network.module, z)
    relevances: dict[int, torch.Tensor] = {}
    with torch.enable_grad(), Attention(len(z), only=found.calls) as attention:
        outputs = forward(z.detach())
    with torch.enable_grad():
        output = of_target(outputs).sum()
    every = [*attention.matrices, *(attention.pools if found.pooled else ())]
    for index, matrix in enumerate(every):
        matrix.register_hook(_relevance(matrix.detach(), relevances, index))
    torch.autograd.grad(output, [matrix for matrix in every if matrix.is_leaf], allow_unused=True)
    first = _first(found, attention.matrices[-1])
    pool = relevances.pop(len(attention.matrices), None)  # of the query that reads the output
    first = first if pool is None else pool[:, 0].double()
    reached = torch.zeros_like(first)
    for index in sorted(relevances, reverse=True):
        reached = reached + torch.einsum("nt,nts->ns", first + reached, relevances[index].double())
    return _grid(reached if pool is None else first + reached, found)


def _relevance(matrix: torch.Tensor, relevances: dict[int, torch.Tensor], index: int) -> Callable[[torch.Tensor], None]:
    """A hook that reduces a gradient to its product's mean over heads at once, to save memory."""

    def hook(gradient: torch.Tensor) -> None:
        relevances[index] = (gradient.float() * matrix.float()).relu().mean(1)

    return hook


def _first(found: Reading, like: torch.Tensor) -> torch.Tensor:
    """`(N, T)`: one over the number of rows read, at each of them."""
    flow = torch.zeros((len(like), like.shape[-1]), device=like.device, dtype=torch.float64)
    flow[:, list(found.rows)] = 1 / len(found.rows)
    return flow


def _grid(flow: torch.Tensor, found: Reading) -> torch.Tensor:
    """`(N, T)` → `(N, *grid)`."""
    return found.layout.to_grid(flow[:, :, None])[:, 0].float()


def _without_smallest(fused: torch.Tensor, share: float, prefix: int) -> torch.Tensor:
    """`(N, T, T)` without the smallest `share` of the entries of each image; columns of prefix tokens stay."""
    if share == 0:
        return fused
    patches = fused[:, :, prefix:]
    flat = patches.flatten(1)
    smallest = rounded(flat, largest(flat)).topk(int(share * flat.shape[1]), dim=1, largest=False, sorted=False).indices
    return torch.cat([fused[:, :, :prefix], flat.scatter(1, smallest, 0).view_as(patches)], 2)

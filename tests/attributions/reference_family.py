"""Slow references of the rest of the CAM family, of FullGrad and of the attention methods: loops, in float64."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

Array = np.ndarray
#: Logits of one image and its class → a number.
Utility = Callable[[torch.Tensor, int], torch.Tensor]


def rest(logits: torch.Tensor, c: int) -> torch.Tensor:
    """Cai 2025: the logit and the logarithm of its softmax."""
    return logits[c] + (logits[c].exp() / logits.exp().sum()).log()


def logit(logits: torch.Tensor, c: int) -> torch.Tensor:
    return logits[c]


def gradient(after: nn.Module, activations: torch.Tensor, c: int, utility: Utility) -> torch.Tensor:
    """Of the utility of one image `(C, *spatial)`, what follows the layer being a function of its own."""
    leaf = activations.clone().requires_grad_()
    (found,) = torch.autograd.grad(utility(after(leaf[None])[0], c), leaf)
    return found


def shapleycam(after: nn.Module, activations: torch.Tensor, classes: list[int], utility: Utility) -> Array:
    """Cai 2025: `⟨G − ½ H·A⟩`, H·A as the slope of the gradient along A, by central differences."""
    maps = []
    for one, c in zip(activations, classes, strict=True):
        step = 1e-4
        ahead, behind = (gradient(after, one * (1 + s), c, utility) for s in (step, -step))
        weights = gradient(after, one, c, utility) - 0.5 * (ahead - behind) / (2 * step)
        maps.append(sum(w.mean() * a for w, a in zip(weights, one, strict=True)))
    return torch.stack(maps).detach().numpy()


def finer(alpha: float, comparisons: int, fixed: bool = True) -> Utility:
    """Zhang et al. 2025: the logit less the mean of the nearest ones, by their probabilities."""

    def utility(logits: torch.Tensor, c: int) -> torch.Tensor:
        others = sorted((abs(float((y - logits[c]).detach())), k) for k, y in enumerate(logits) if k != c)[:comparisons]
        odds = [logits[k].exp() for _, k in others]
        odds = [o.detach() for o in odds] if fixed else odds
        return sum(o * (logits[c] - alpha * logits[k]) for o, (_, k) in zip(odds, others, strict=True)) / sum(odds)

    return utility


def fem(activations: Array, k: float) -> Array:
    """Fuad et al. 2020: 1 where a value is k standard deviations over its channel's mean, times that mean."""
    maps = np.zeros((len(activations), *activations.shape[2:]))
    for n, image in enumerate(activations):
        for channel in image:
            mean = channel.sum() / channel.size
            deviation = math.sqrt(((channel - mean) ** 2).sum() / channel.size)
            for position in np.ndindex(channel.shape):
                if channel[position] > mean + k * deviation:
                    maps[(n, *position)] += mean
    return maps


def kpcacam(activations: Array, kernel: Callable[[Array, Array], float]) -> Array:
    """Karmani et al. 2024: the first component of kernel PCA over the positions, by all eigenvectors."""
    maps = []
    for image in activations:
        positions = image.reshape(len(image), -1).T
        centred = positions - positions.mean(0)
        gram = np.array([[kernel(a, b) for b in centred] for a in centred])
        centring = np.eye(len(gram)) - 1 / len(gram)
        values, vectors = np.linalg.eigh(centring @ gram @ centring)
        projection = math.sqrt(values[-1]) * vectors[:, -1]
        if projection @ centred.sum(1) < 0:
            projection = -projection
        maps.append(projection.reshape(image.shape[1:]))
    return np.stack(maps)


def cam(activations: Array, weights: Array, classes: list[int]) -> Array:
    """Zhou et al. 2016, eq. 2."""
    maps = np.zeros((len(activations), *activations.shape[2:]))
    for n, c in enumerate(classes):
        for k, channel in enumerate(activations[n]):
            maps[n] += weights[c, k] * channel
    return maps


def vit_attention(module: nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A timm ViT by hand: tokens, then block after block, attention from the weights of qkv, head by head."""
    tokens = module.patch_embed(z)
    prefix = [token.expand(len(z), -1, -1) for token in (module.cls_token, module.reg_token) if token is not None]
    if module.no_embed_class:
        tokens = torch.cat([*prefix, tokens + module.pos_embed], 1)
    else:
        tokens = torch.cat([*prefix, tokens], 1) + module.pos_embed
    matrices = []
    for block in module.blocks:
        heads, width = block.attn.num_heads, tokens.shape[2]
        size = width // heads
        weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
        x, mixed, matrix = block.norm1(tokens), [], []
        for h in range(heads):
            q, k, v = (
                x @ weight[i * width + h * size : i * width + (h + 1) * size].T
                + bias[i * width + h * size : i * width + (h + 1) * size]
                for i in range(3)
            )
            odds = torch.exp(q @ k.transpose(1, 2) / math.sqrt(size))
            one = odds / odds.sum(2, keepdim=True)
            matrix.append(one)
            mixed.append(v)
        stacked = torch.stack(matrix, 1)
        if stacked.requires_grad:
            stacked.retain_grad()
        matrices.append(stacked)
        out = torch.cat([stacked[:, h] @ v for h, v in enumerate(mixed)], 2)
        tokens = tokens + block.attn.proj(out)
        tokens = tokens + block.mlp(block.norm2(tokens))
    return module.forward_head(module.norm(tokens)), matrices


def rollout(matrices: list[Array], fuse: Callable[[Array], Array], rows: list[int], prefix: int) -> Array:
    """Abnar & Zuidema 2020: whole matrices, layer by layer from the input up; one image's `(heads, T, T)` each."""
    flow = np.eye(matrices[0].shape[-1])
    for matrix in matrices:
        mixed = 0.5 * fuse(matrix) + 0.5 * np.eye(len(flow))
        flow = (mixed / mixed.sum(1, keepdims=True)) @ flow
    return flow[rows].mean(0)[prefix:]


def chefer(matrices: list[Array], gradients: list[Array], rows: list[int], prefix: int) -> Array:
    """Chefer et al. 2021, eq. 5 and 6, from the input up."""
    relevance = np.eye(matrices[0].shape[-1])
    for matrix, slope in zip(matrices, gradients, strict=True):
        relevance = relevance + np.maximum(slope * matrix, 0).mean(0) @ relevance
    return (relevance - np.eye(len(relevance)))[rows].mean(0)[prefix:]

"""Random weights with which a network's answers depend on the image.

torchvision's MobileNets, EfficientNet and ViT give constant logits or a zero head as they are built, and a test on
constant logits proves nothing. One pass over noise in train mode sets the batch norms' statistics, the head is drawn
from N(0, .02), and the helper itself asserts that two images get different logits.
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from heatproof.models import wrap


def randomised(module: nn.Module, size: tuple[int, int], seed: int = 0) -> nn.Module:
    """`module` itself, in eval mode, with statistics and head as above; `size` is (height, width)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((4, 3, *size), generator=generator)
    with torch.no_grad():
        settle_batch_norms(module, noise)
        head = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
        head.weight.copy_(0.02 * torch.randn(head.weight.shape, generator=generator))
        module.eval()
        logits = wrap(module, 0.5, 0.5).unwrap(module(noise))
    spread = (logits[0] - logits[1]).abs().max()
    assert spread > 1e-4 * logits.abs().max() > 0, "the logits do not depend on the image"
    return module


def settle_batch_norms(module: nn.Module, noise: torch.Tensor) -> None:
    """Running statistics become those of `noise` at every batch norm."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average, so one pass counts in full
    module.train()
    module(noise)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum

"""Copies between the host and a GPU that wait as seldom as they can.

The host queues work and runs ahead of the GPU. It waits where it asks for a number: `.item()`, `.tolist()`, `.cpu()`,
`bool(tensor)`, a mask as an index. A plain copy to the GPU waits as well. docs/gpu.md lists the waits that are left.
"""

from collections.abc import Sequence

import torch


def on_host(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Copies of tensors in the CPU's memory, with one wait for all of them; those that are there are not copied."""
    copies = [one.detach().to("cpu", non_blocking=one.is_cuda) for one in tensors]
    for device in {one.device for one in tensors if one.is_cuda}:
        torch.cuda.current_stream(device).synchronize()
    return copies


def on_device(tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> torch.Tensor:
    """The tensor on `device`, as `dtype` if one is given.

    A copy to a GPU goes through pinned memory, so that the host does not wait for it.
    """
    tensor = tensor if dtype is None else tensor.to(dtype)
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        return pinned(tensor, device).to(device, non_blocking=True)
    return tensor.to(device)


def pinned(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The tensor in pinned memory, if it will be copied to a GPU; one that lies there is not copied again."""
    return tensor.pin_memory() if torch.device(device).type == "cuda" else tensor


def possibly(mask: torch.Tensor) -> bool:
    """Whether `mask` holds anywhere. On a GPU True, unasked, as the answer would be waited for.

    For work that changes nothing where the mask holds nowhere.
    """
    return mask.is_cuda or bool(mask.any())

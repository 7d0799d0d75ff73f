"""Controls: maps that are uninformed on purpose. A metric that rates one of them highly is fooled (protocols §2, §9).

All are display maps at the input's size, `(N, H, W)` in [0, 1].
"""

import torch

from heatproof.attributions.catalogue import attribution
from heatproof.transfers import on_device


@attribution("random", form="display", control=True, source="Zhang et al. 2024 (control)")
def random_map(x: torch.Tensor, generator) -> torch.Tensor:
    """U[0, 1] at every pixel, drawn anew for every condition (else it would look perfectly robust)."""
    noise = [torch.rand(x.shape[2:], generator=one) for one in generator]
    return on_device(torch.stack(noise), x.device, x.dtype)


@attribution("half", form="display", control=True, source="Domeniconi et al. 2026 (control)")
def half_map(x: torch.Tensor) -> torch.Tensor:
    """One half everywhere, but 0 at the top-left pixel and 1 at the bottom-right one."""
    maps = torch.full_like(x[:, 0], 0.5)
    maps[..., 0, 0], maps[..., -1, -1] = 0, 1
    return maps


@attribution(
    "ones", form="display", control=True, aliases=["all1scam", "fake-cam", "fakecam"], source="Poppi et al. 2021"
)
def ones_map(x: torch.Tensor) -> torch.Tensor:
    """One everywhere, but 0 at the top-left pixel: Fake-CAM."""
    maps = torch.ones_like(x[:, 0])
    maps[..., 0, 0] = 0
    return maps


@attribution("centre", form="display", control=True, aliases=["center", "gaussian"], source="control")
def centre_map(x: torch.Tensor) -> torch.Tensor:
    """A Gaussian at the image's centre, its standard deviation a quarter of each side."""
    bells = [torch.exp(-0.5 * (torch.linspace(-2, 2, side, device=x.device)).square()) for side in x.shape[2:]]
    bell = bells[0]
    for other in bells[1:]:
        bell = bell[..., None] * other
    return bell.to(x.dtype).expand(len(x), *bell.shape).clone()


@attribution("edges", form="display", control=True, aliases=["sobel"], source="Adebayo et al. 2018 (edge detector)")
def edge_map(x: torch.Tensor) -> torch.Tensor:
    """Sobel magnitude of the grey image: it looks like an explanation and does not depend on the network."""
    grey = x.mean(1)
    dims = range(1, grey.dim())
    for dim in dims:
        first, last = grey.narrow(dim, 0, 1), grey.narrow(dim, grey.shape[dim] - 1, 1)
        grey = torch.cat([first, grey, last], dim)
    slopes = []
    for along in dims:
        slope = grey
        for dim in dims:
            slope = _difference(slope, dim) if dim == along else _smooth_along(slope, dim)
        slopes.append(slope)
    return torch.linalg.vector_norm(torch.stack(slopes, 1), dim=1)  # gradient 0, not NaN, where it is flat


# By slices: a convolution with one channel takes thirteen times as long on a CPU.


def _difference(values: torch.Tensor, dim: int) -> torch.Tensor:
    inner = values.shape[dim] - 2
    return values.narrow(dim, 2, inner) - values.narrow(dim, 0, inner)


def _smooth_along(values: torch.Tensor, dim: int) -> torch.Tensor:
    inner = values.shape[dim] - 2
    return values.narrow(dim, 0, inner) + 2 * values.narrow(dim, 1, inner) + values.narrow(dim, 2, inner)

"""Small 8-bit images with structure, flat areas, black, white and grey."""

import pytest
import torch

from heatproof import seeds

IDS = ["a.jpg", "sub/b.jpg", "c c.png"]


def made_images(count: int, height: int, width: int, seed: int = 3) -> torch.Tensor:
    """Smooth random images on the 8-bit grid, with a black, a white and a grey patch each."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    smooth[:, :, : height // 6, : width // 6] = 0
    smooth[:, :, : height // 6, -width // 6 :] = 1
    smooth[:, :, -height // 6 :, : width // 6] = 0.4
    return (smooth * 255).round() / 255


@pytest.fixture
def images() -> torch.Tensor:
    return made_images(3, 40, 48)


@pytest.fixture
def ids() -> list[str]:
    return list(IDS)


@pytest.fixture
def make_images():
    return made_images


@pytest.fixture
def field():
    """The random field of one image and kind, keyed (seed, image, "perturbation", kind)."""

    def draw(law: str, shape: tuple, image: str, kind: str, seed: int = 7, skip: str | None = None) -> torch.Tensor:
        generator = seeds.generator(seed, image, "perturbation", kind)
        sample = {"normal": torch.randn, "uniform": torch.rand}
        if skip:  # another number was drawn first
            sample[skip]((), generator=generator)
        return sample[law](shape, generator=generator)

    return draw

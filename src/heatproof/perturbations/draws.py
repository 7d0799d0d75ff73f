"""Random fields, one generator per image; drawn on the CPU, so that every device sees the same numbers."""

from collections.abc import Iterator, Sequence

import torch

from heatproof.transfers import on_device

Generators = Sequence[torch.Generator]


class Draws(Sequence[torch.Generator]):
    """Per-image generators that remember their fields, so that all severities share one draw.

    A field requested again (same law, shape, device and dtype) is the same tensor.
    """

    def __init__(self, generators: Generators):
        self._generators = list(generators)
        self._fields: dict[tuple, torch.Tensor] = {}

    def __getitem__(self, index):
        return self._generators[index]

    def __len__(self) -> int:
        return len(self._generators)

    def __iter__(self) -> Iterator[torch.Generator]:
        return iter(self._generators)

    def remembered(self, law: str, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        """The field of that law and shape, drawn at the first call."""
        key = (law, shape, like.device, like.dtype)
        if key not in self._fields:
            self._fields[key] = _draw_field(law, self._generators, shape, like)
        return self._fields[key]


def normal(generators: Generators, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """`(N, *shape)` standard normal, device and dtype of `like`; not to be changed in place."""
    return _field("normal", generators, shape, like)


def uniform(generators: Generators, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """`(N, *shape)` uniform in [0, 1), device and dtype of `like`; not to be changed in place."""
    return _field("uniform", generators, shape, like)


def _field(law: str, generators: Generators, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    if isinstance(generators, Draws):
        return generators.remembered(law, tuple(shape), like)
    return _draw_field(law, generators, tuple(shape), like)


def _draw_field(law: str, generators: Generators, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    # float32 whatever `like` is: a float64 image must get the same noise as in float32.
    sample = {"normal": torch.randn, "uniform": torch.rand}[law]
    rows = [sample(shape, generator=one, dtype=torch.float32) for one in generators]
    return on_device(torch.stack(rows), like.device, like.dtype)

"""One random generator for each (study seed, image, name, condition), so that the order of work changes nothing."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from heatproof.locks import GENERATORS, held

if TYPE_CHECKING:
    import torch


def derived_seed(seed: int, image: str, name: str, condition: str = "") -> int:
    """A 63-bit seed from the four parts (BLAKE2b over their length-prefixed text)."""
    parts = [str(seed), image, name, condition]
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


def generator(seed: int, image: str, name: str, condition: str = "") -> "torch.Generator":
    """A CPU generator for one image and one name: the same numbers on every device, in every order."""
    import torch

    return torch.Generator().manual_seed(derived_seed(seed, image, name, condition))


def generators(seed: int, images: Sequence[str], name: str, condition: str = "") -> "list[torch.Generator]":
    """One generator for each image of a batch."""
    return [generator(seed, image, name, condition) for image in images]


@contextmanager
def seeded(generator: "torch.Generator", device: "torch.device") -> Iterator[None]:
    """Seeds the global generators of torch and NumPy from `generator` inside the block, then restores them.

    One thread at a time: others wait at the beginning of their block.
    """
    import numpy as np
    import torch

    seed, devices = generator.initial_seed(), [device] if device.type == "cuda" else []
    with held(GENERATORS), torch.random.fork_rng(devices=devices):
        numpy_state = np.random.get_state()
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if device.type == "cuda":
            torch.cuda.set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), device)
        np.random.set_state(np.random.RandomState(seed % 2**32).get_state())
        try:
            yield
        finally:
            np.random.set_state(numpy_state)

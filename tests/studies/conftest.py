"""A small study that is quick to run: few images, the bundled network, grid segments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heatproof.studies.plan import checked_plan
from heatproof.studies.settings import Plan


@pytest.fixture(scope="session")
def photographs(shared_folder: Callable[..., Path]) -> Path:
    """Five small images with something in them."""

    def drawn(folder: Path) -> None:
        folder.mkdir()
        rng = np.random.default_rng(0)
        for index in range(5):
            coarse = rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((110, 100), Image.Resampling.BICUBIC).save(folder / f"image {index}.png")

    return shared_folder("photographs", drawn)


@pytest.fixture
def small_plan(photographs: Path) -> Callable[..., Plan]:
    """A plan over those images; keyword arguments replace settings."""

    def plan(**settings: Any) -> Plan:
        base = {
            "study": "noise-robustness",
            "models": ["shapes"],
            "datasets": [str(photographs)],
            "methods": ["gradcam", "eigencam"],
            "perturbations": ["gaussian-noise", "fgsm"],
            "severities": [1, 3],
            "segmenters": ["grid"],
            "batch_size": 2,
            "resamples": 100,
        }
        if "calibrate" in settings:
            del base["severities"]
        return checked_plan({**base, **settings})

    return plan

"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest
import torch

# One: tests run beside each other, and small networks gain nothing from more.
torch.set_num_threads(int(os.environ.get("HEATPROOF_TEST_THREADS", "1")))


@pytest.fixture(scope="session")
def assets() -> Path:
    """The real network and photographs, where they lie beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "assets"
    if not folder.is_dir():
        pytest.skip("the shared assets are not here")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """What is kept for the next time is kept for this run of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEATPROOF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield

"""Fixtures that every test may use, and how many threads a process of the tests has."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

#: Threads of one process. Tests run beside each other, and small networks gain nothing from more;
#: `make test-portable` asks for two, since sums in another order are rounded differently.
THREADS = int(os.environ.get("HEATPROOF_TEST_THREADS", "1"))
# Read when numpy and torch are imported: by the workers of pytest-xdist and by the processes that tests start.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS)))

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from filelock import FileLock  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

torch.set_num_threads(THREADS)
threadpool_limits(THREADS)  # a plugin may have imported numpy before this file was read


@pytest.fixture(scope="session")
def assets() -> Path:
    """The real network and photographs, where they lie beside the project."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "assets"
    if not folder.is_dir():
        pytest.skip("the shared assets are not here")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Each test draws its own random numbers, the same in whatever order and process it runs."""
    seed = crc32(item.nodeid.encode())
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """What is kept for the next time is kept for this run of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEATPROOF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """A folder by its name, filled by the first test of all processes that asks for it.

    The tests that ask only read it. One that writes copies it first.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    root.mkdir(exist_ok=True)

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        filled, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(filled, ignore_errors=True)
                fill(filled)
                done.touch()
        return filled

    return folder

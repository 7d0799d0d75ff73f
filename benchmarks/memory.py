"""Peak memory of a whole study at N and at 4 N images, each in a process of its own."""

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.result import Part, Result
from benchmarks.settings import Settings

AIM = 1.10
BATCH = 8
ROOT = Path(__file__).resolve().parents[1]


def results(settings: Settings) -> Iterator[Result]:
    """ResNet-18 with random weights on synthetic images, all methods, a noise and an attack at three severities.

    N is at least two jobs: the allocator finds its level in the second and third.
    """
    few = BATCH if settings.quick else 2 * BATCH
    small, large = peak_in_process(few), peak_in_process(4 * few)
    yield Result(
        "memory",
        f"peak memory of a study, {4 * few} images (floor: {few})",
        large,
        small,
        large / small,
        (large / small, large / small),
        AIM,
        n=4 * few,
        repeats=1,
        threads=1,
        batch=BATCH,
        unit="MB",
        parts=[Part(f"{few} images", small)],
        details={"kilobytes_a_image": (large - small) / (3 * few) * 1000},
    )


def peak_in_process(images: int) -> float:
    """Peak memory in MB of a fresh process that runs a study on so many images."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.memory", str(images), folder]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def peak() -> float:
    """Peak resident memory of this process in MB.

    Linux keeps `ru_maxrss` across exec, so a child of a large process would report its parent's peak; `VmHWM` does not.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    if kilobytes:
        return kilobytes[0] / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def run_study(images: int, folder: str) -> None:
    """The whole command in this process: jobs, rows and gallery."""
    from heatproof.studies.plan import checked_plan
    from heatproof.studies.run import run

    plan = checked_plan(
        {
            "study": "noise-robustness",
            "models": [{"spec": "torchvision:resnet18", "model_args": {"pretrained": False}}],
            "datasets": ["shapes"],
            "limit": images,
            "batch_size": BATCH,
            "perturbations": ["gaussian-noise", "fgsm"],
            "severities": [1, 3, 5],
            "segmenters": ["slic"],
            "device": "cpu",
        }
    )
    run(plan, Path(folder) / "study", workers=1)


if __name__ == "__main__":
    run_study(int(sys.argv[1]), sys.argv[2])
    print(peak())

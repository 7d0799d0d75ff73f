"""Reports that several tests look at, made once."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from . import synthetic

#: Names that would break a page that does not escape them.
HOSTILE = synthetic.Recipe(
    images=("<script>alert(1)</script>.jpg", "a\"onerror='alert(2)'.jpg", *(f"{i}.jpg" for i in range(40))),
    methods={"gradcam": 0.6, "grad<b>cam</b>": 0.7, "x&y": 0.5},
    controls={"random": 0.05},
    models=('timm:"><script>alert(3)</script>',),
    datasets=("<img src=x onerror=alert(4)>",),
    perturbations=("jpeg", "fgsm"),
    severities=(1, 3, 5),
    flagged={"7.jpg": "not an image: <svg onload=alert(5)>"},
    class_names=("<i>hen</i>", 'quote"d', "it's"),
    masks=True,
    gallery=2,
)


#: Run in a new process, so that the imports are those of the report and not of the tests.
WRITE = """
import sys
from heatproof.report import pairs, write_report, write_tables
write_report(sys.argv[1])
print(*(name for name in ("torch", "torchvision", "timm", "matplotlib.pyplot") if name in sys.modules))
"""


@dataclass(frozen=True)
class Reported:
    """A reported study, and what was imported to report it."""

    folder: Path
    imported: str


@pytest.fixture(scope="session")
def reported(shared_folder) -> Reported:
    """A study whose every name is an attack, reported by a process of its own."""

    def made(folder: Path) -> None:
        synthetic.study(folder, HOSTILE)
        done = subprocess.run([sys.executable, "-c", WRITE, folder], capture_output=True, text=True, check=True)
        (folder / "imported.txt").write_text(done.stdout.strip(), "utf-8")

    folder = shared_folder("study-with-hostile-names", made)
    return Reported(folder, (folder / "imported.txt").read_text("utf-8"))


@pytest.fixture(scope="session")
def hostile(reported) -> Path:
    """The folder of that study."""
    return reported.folder

"""A small audit, run once for all tests that read one."""

from pathlib import Path

from heatproof.report import write_report
from heatproof.studies import run
from heatproof.studies.plan import checked_plan

SMALL = {
    "models": "shapes",
    "datasets": "shapes",
    "limit": 9,
    "methods": ["gradcam", "eigencam"],
    "segmenters": "grid",
    "perturbations": ["jpeg", "fgsm"],
    "severities": [3],
    "resamples": 100,
}


def made(folder: Path, **more) -> None:
    """The finished audit with its page; of a finished one with other settings for the page, the page alone."""
    run.run(checked_plan({"study": "audit", **SMALL, **more}), folder, workers=1)
    write_report(folder)

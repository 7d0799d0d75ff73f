"""Noise for images: natural corruptions and attacks, batched, on one ladder of severities 1–5.

The kinds are pure functions in `natural.py` and `adversarial.py`, registered with their strengths in
`PERTURBATIONS`. `Perturber` applies them to a batch with common random numbers; `calibrate` finds severities
for target flip rates.
"""

from heatproof.perturbations import natural

# isort: split
# After the natural kinds, so that lists show those first.
from heatproof.perturbations import adversarial
from heatproof.perturbations.adversarial import deepfool_step
from heatproof.perturbations.calibration import Calibrated, calibrate
from heatproof.perturbations.ladder import (
    HIGHEST,
    PERTURBATIONS,
    SEVERITIES,
    checked_severity,
    default_kinds,
    perturbation,
    settings_at,
    strength_at,
)
from heatproof.perturbations.perturber import Perturber, psnr

__all__ = [
    "HIGHEST",
    "PERTURBATIONS",
    "SEVERITIES",
    "Calibrated",
    "Perturber",
    "adversarial",
    "calibrate",
    "checked_severity",
    "deepfool_step",
    "default_kinds",
    "natural",
    "perturbation",
    "psnr",
    "settings_at",
    "strength_at",
]

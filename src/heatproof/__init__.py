"""Heatmaps of image classifiers: made, scored, stressed with noise and tested against controls.

Public names load on first use, so importing heatproof does not import torch.

Examples:
    >>> import heatproof
    >>> heatproof.__version__.split(".")[0]
    '0'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from heatproof import loggers, plot
    from heatproof.activation_statistics import calibrate
    from heatproof.attributions.foreign import register
    from heatproof.auditing import Audit, audit
    from heatproof.engine import Maps, Scores, explain, score
    from heatproof.metrics.foreign import register_metric
    from heatproof.models import Model, load_model, wrap, zero_shot
    from heatproof.panels.checking import Check, check
    from heatproof.panels.show import Gallery, show
    from heatproof.running import StudyResults, plan, run
    from heatproof.studies.study import register_study

_HOMES = {
    "Audit": "heatproof.auditing",
    "Check": "heatproof.panels.checking",
    "Gallery": "heatproof.panels.show",
    "Maps": "heatproof.engine",
    "Model": "heatproof.models",
    "Scores": "heatproof.engine",
    "StudyResults": "heatproof.running",
    "audit": "heatproof.auditing",
    "calibrate": "heatproof.activation_statistics",
    "check": "heatproof.panels.checking",
    "explain": "heatproof.engine",
    "load_model": "heatproof.models",
    "plan": "heatproof.running",
    "register": "heatproof.attributions.foreign",
    "register_metric": "heatproof.metrics.foreign",
    "register_study": "heatproof.studies.study",
    "run": "heatproof.running",
    "score": "heatproof.engine",
    "show": "heatproof.panels.show",
    "wrap": "heatproof.models",
    "zero_shot": "heatproof.models",
}

#: Public rooms, which load on first use like names.
_ROOMS = ("loggers", "plot")

#: Names of before → names of now.
_RENAMED = {"Shown": "Gallery"}

__all__ = [
    "Audit",
    "Check",
    "Gallery",
    "Maps",
    "Model",
    "Scores",
    "StudyResults",
    "__version__",
    "audit",
    "calibrate",
    "check",
    "explain",
    "load_model",
    "loggers",
    "plan",
    "plot",
    "register",
    "register_metric",
    "register_study",
    "run",
    "score",
    "show",
    "wrap",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from heatproof.errors import warn

        warn(f"heatproof.{name} is called heatproof.{_RENAMED[name]} now.")
        name = _RENAMED[name]
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return import_module(f"heatproof.{name}")
    raise AttributeError(f"module 'heatproof' has no attribute {name!r}. Public names: {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS})

"""Studies: what is run over a folder of images. Declare your own as a `Study` and call `register_study` on it.

from heatproof.studies import Condition, Measure, Plan, Study, register_study
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heatproof.studies.cases import Case
    from heatproof.studies.conditions import CLEAN, Condition
    from heatproof.studies.plan import checked_plan
    from heatproof.studies.settings import Plan
    from heatproof.studies.study import Measure, Study, register_study

_HOMES = {
    "CLEAN": "conditions",
    "Case": "cases",
    "Condition": "conditions",
    "Measure": "study",
    "Plan": "settings",
    "Study": "study",
    "checked_plan": "plan",
    "register_study": "study",
}

__all__ = ["CLEAN", "Case", "Condition", "Measure", "Plan", "Study", "checked_plan", "register_study"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Conditions: what is done to the images, to the class explained and to the model before a map is made."""

from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

from heatproof.errors import InvalidStudy

#: The columns of rows that tell conditions apart.
CONDITION_COLUMNS = ("perturbation", "severity", "transformation", "target", "state")
#: States of a model besides the path of another checkpoint: as it was loaded, and with all weights drawn anew.
INTACT, RANDOMISED = "", "randomised"


@dataclass(frozen=True)
class Condition:
    """A condition under which maps are made. The first condition of a study is the reference of all others.

    Attributes:
        perturbation: a kind of `heatproof.perturbations`; empty for none.
        severity: its severity, 1 to 5, or the number of a strength that `level` or calibration sets; 0 without a
            perturbation. It identifies the strength in rows.
        level: the severity that is applied, which may lie between two severities; `severity` by default, NaN with a
            `flip_rate` until it is calibrated.
        flip_rate: the share of the predictions that should change; the level is then found by calibration.
        transformation: a transformation of the image (`heatproof.transformations`), before any perturbation.
        target: a rule of `heatproof.targets` in place of the study's own.
        state: of the model: `INTACT`, `RANDOMISED`, or another checkpoint of the same network as `PATH` or `NAME=PATH`.
            Rows and seeds hold the name (by default the file's), so that they do not depend on the folder.

    Raises:
        InvalidStudy: a perturbation without a severity, or a severity or a level without a perturbation.
    """

    perturbation: str = ""
    severity: int = 0
    level: float = nan
    flip_rate: float | None = None
    transformation: str = ""
    target: str = ""
    state: str = INTACT

    def __post_init__(self) -> None:
        if bool(self.perturbation) != bool(self.severity) or not (self.perturbation or self.level != self.level):
            raise InvalidStudy(
                "A condition must have a perturbation and its severity, or neither. Got perturbation "
                f"{self.perturbation!r}, severity {self.severity} and level {self.level:g}."
            )
        if self.perturbation and self.flip_rate is None and self.level != self.level:
            object.__setattr__(self, "level", float(self.severity))

    @property
    def name(self) -> str:
        """A short name, which is also its part in the seeds of methods that draw random numbers."""
        noise = f"{self.perturbation}:{self.severity}" if self.perturbation else ""
        return " ".join(part for part in (noise, self.transformation, self.target, self.state_name) if part)

    @property
    def state_name(self) -> str:
        """The state's name in rows; that of a checkpoint does not depend on its folder."""
        if self.state in (INTACT, RANDOMISED):
            return self.state
        return self.state.partition("=")[0] if "=" in self.state else Path(self.state).stem

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint of the state, None for `INTACT` and `RANDOMISED`."""
        return None if self.state in (INTACT, RANDOMISED) else checkpoint_of(self.state)

    @property
    def calibrated(self) -> bool:
        """Whether its strength is found by calibration, and so may lie beyond severity 5."""
        return self.flip_rate is not None

    @property
    def columns(self) -> dict[str, object]:
        """Its part of a row: `CONDITION_COLUMNS`, without the target where it is the study's own."""
        values = (self.perturbation, self.severity, self.transformation, self.target, self.state_name)
        columns = dict(zip(CONDITION_COLUMNS, values, strict=True))
        return {name: value for name, value in columns.items() if name != "target" or value}

    @property
    def cost(self) -> float:
        """Rough cost in passes, for the progress bar and a budget; an attack such as PGD costs more than a blur."""
        slow = {"pgd": 22.0, "deepfool": 8.0}
        return next((passes for kind, passes in slow.items() if self.perturbation.startswith(kind)), 1.0)

    def at_level(self, level: float) -> "Condition":
        """The same condition at a calibrated level."""
        return replace(self, level=level)


def checkpoint_of(state: str) -> Path:
    """`PATH` or `NAME=PATH` → the path."""
    return Path(state.partition("=")[2] or state)


#: The clean images.
CLEAN = Condition()

"""`Study`, and the table of all studies.

Every study runs the same loop (`worker`): for each model, batch and condition it makes the maps of all methods, and for
each map it takes the measures. A study declares only what is specific to it. Nothing here imports torch, because the
page of a study is written without it.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

from heatproof.errors import HeatproofError, InvalidStudy
from heatproof.plugins import PYTHON, named_object
from heatproof.registry import unknown
from heatproof.studies.conditions import CLEAN, Condition
from heatproof.studies.settings import Plan

#: The conditions on which a measure is taken.
REFERENCE, OTHERS, ALL = "reference", "others", "all"


class Measure(NamedTuple):
    """A metric of a study.

    metric: its spelling. column: its name in the rows, the spelling by default. segmenter: the rows' column of that
    name. conditions: `REFERENCE`, `OTHERS` or `ALL`; by default metrics of pairs are taken on all conditions but the
    reference, and other metrics on the reference alone. optional: left out on datasets without the masks that it needs.
    curves: whether the points of its curve are kept under the other conditions as they are under the reference.
    """

    metric: str
    column: str = ""
    segmenter: str = ""
    conditions: str = ""
    optional: bool = False
    curves: bool = True


def only_clean(plan: Any) -> Sequence[Condition]:
    """The clean images as the only condition."""
    return [CLEAN]


@dataclass(frozen=True)
class Study:
    """A study, declared.

    Attributes:
        name: its name in `heatproof run`, study files and rows.
        summary: what it shows, in one line.
        heading: the question at the top of its page.
        settings: the class of its settings.
        measures: the metrics taken, or settings → metrics; spellings or `Measure`.
        conditions: settings → conditions, the first of them the reference.
        tables: file name in `tables/` → how it is made: the name of a function of `heatproof.report.tables`, or any
            function from findings to a data frame (`.csv` or `.parquet` by the file's name).
        documents: file name, beside `tables/` → its contents, text or bytes, as `tables`: names of functions in
            `heatproof.report.documents`, or functions. One that raises `MissingExtra` is not written.
        sections: of the page, in order: names of modules in `heatproof.report.sections`, or functions from findings to
            a `Section`, several, or None.
        cases: for the gallery: `(rows, plan) → [Case, …]` (`heatproof.studies.gallery`), or None for no gallery.
        check: `(plan, datasets, models) → plan`, before any work: refuses settings that cannot be run, and completes
            those that depend on the images or the models. `models(i)` is the model at index i.
        cheaper: plan → a plan with a lower cost per image, or None; a budget tries it before it takes very few images.
        batch: default number of images per pass and job on a CPU; small if an image is costly, because a killed job is
            lost.
        source: the paper.

    Raises:
        InvalidStudy: a name, or the name of a table, in another form.
    """

    name: str
    summary: str
    heading: str
    settings: type[Plan]
    measures: Sequence[str | Measure] | Callable[[Any], Sequence[str | Measure]]
    conditions: Callable[[Any], Sequence[Condition]] = only_clean
    tables: Mapping[str, str | Callable[[Any], Any]] = field(default_factory=dict)
    documents: Mapping[str, str | Callable[[Any], Any]] = field(default_factory=dict)
    sections: Sequence[str | Callable[[Any], Any]] = ()
    cases: Callable[[Any, Any], Sequence[Any]] | None = None
    check: Callable[[Any, Sequence[Any], Any], Any] | None = None
    cheaper: Callable[[Any], Any] | None = None
    batch: int = 8
    source: str = "ours"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise InvalidStudy(f"A study's name must be lower-case words joined by hyphens. Got {self.name!r}.")
        if not (isinstance(self.settings, type) and issubclass(self.settings, Plan)):
            raise InvalidStudy(
                f"The settings of the study {self.name!r} must be a class of `Plan`. Got {self.settings!r}."
            )
        for name in self.tables:
            if PurePath(name).name != name or PurePath(name).suffix not in (".csv", ".parquet"):
                raise InvalidStudy(f"A table must be named NAME.csv or NAME.parquet. Got {name!r}.")

    def measured(self, plan: Plan) -> list[Measure]:
        """The measures under these settings."""
        found = self.called("measures", self.measures, plan) if callable(self.measures) else self.measures
        return [one if isinstance(one, Measure) else Measure(one) for one in found]

    def all_conditions(self, plan: Plan) -> list[Condition]:
        """The conditions under these settings.

        Raises:
            InvalidStudy: no condition, something that is no `Condition`, or two with one name.
        """
        found = list(self.called("conditions", self.conditions, plan))
        if not found:
            raise InvalidStudy(f"The study {self.name!r} must have at least one condition. Got none.")
        if wrong := next((one for one in found if not isinstance(one, Condition)), None):
            raise InvalidStudy(f"The study {self.name!r} must give conditions. Got {type(wrong).__name__}.")
        names = [condition.name for condition in found]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InvalidStudy(
                f"The conditions of the study {self.name!r} must differ in perturbation, severity, transformation, "
                f"target or the name of the state, as rows tell them apart by these. Got {twice[0]!r} twice."
            )
        return found

    def called(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of the study gives.

        Raises:
            InvalidStudy: it raised an error that is not heatproof's.
        """
        try:
            return function(*arguments)
        except HeatproofError:
            raise
        except (Exception, SystemExit) as error:  # a study of the user's own may raise anything
            raise InvalidStudy(
                f"The {what} of the study {self.name!r} failed. It raised {type(error).__name__}: {error}. `--debug` "
                "shows where."
            ) from error

    def explains_labels(self, plan: Plan) -> bool:
        """Whether the label is the target under any condition; there images without a label are flagged."""
        return "label" in self._targets(plan)

    def needs_labels(self, plan: Plan) -> bool:
        """Whether the label is the target under all conditions, so that images without a label cannot be used."""
        return self._targets(plan) == {"label"}

    def _targets(self, plan: Plan) -> set[str]:
        named = {condition.target or plan.target for condition in self.all_conditions(plan)}
        return {"label" if target.startswith("label:") else target for target in named}  # `label:2`: the second label


#: Study → the module that declares it, as `STUDY`.
BUILT_IN = {
    "noise-robustness": "heatproof.studies.noise_robustness",
    "score": "heatproof.studies.score",
    "audit": "heatproof.studies.audit",
    "metric-validity": "heatproof.studies.metric_validity",
    "refine": "heatproof.studies.refine",
    "fidelity": "heatproof.studies.fidelity",
    "parts": "heatproof.studies.parts",
}

_registered: dict[str, Study] = {}
#: The `python:` names whose code this process was asked to run.
_named: set[str] = set()


def register_study(study: Study) -> Study:
    """Registers a study under its name in this process; `python:package.module:STUDY` works in every process.

    Raises:
        InvalidStudy: something that is no `Study`, or a name that is taken.

    Examples:
        >>> import heatproof
        >>> from heatproof.studies import Plan, Study
        >>> class SizePlan(Plan):
        ...     study: str = "map-size"
        >>> summary, heading = "how much of the image maps cover", "Which map is smallest?"
        >>> study = Study("map-size", summary, heading, SizePlan, measures=("complexity",))
        >>> heatproof.register_study(study).name  # as `heatproof.run("map-size", model, images)`
        'map-size'
    """
    if not isinstance(study, Study):
        raise InvalidStudy(f"`study` must be a `heatproof.studies.Study`. Got {type(study).__name__}.")
    _refuse_taken(study)
    _registered[study.name] = study
    return study


def _refuse_taken(study: Study) -> None:
    """InvalidStudy if another study has this name."""
    if study.name in BUILT_IN or _registered.get(study.name, study) != study:
        raise InvalidStudy(f"There is another study named {study.name!r}. Take another name.")


def unregister_study(name: str) -> None:
    """Removes a registered study."""
    _registered.pop(name, None)


def study_names() -> list[str]:
    """The names of all studies, those of heatproof first."""
    return [*BUILT_IN, *_registered]


def all_studies() -> list[Study]:
    """All studies, those of heatproof first."""
    return [study_named(name) for name in study_names()]


def study_named(name: str) -> Study:
    """The study of that name, or the one at `python:package.module:STUDY`.

    Raises:
        UnknownName: there is none, with near misses. InvalidStudy: no `Study` is there, or its name is taken.
    """
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        return importlib.import_module(BUILT_IN[name]).STUDY
    if not name.startswith(PYTHON):
        raise unknown("study", name, study_names())
    found = named_object(name, InvalidStudy, "STUDY")
    if not isinstance(found, Study):
        raise InvalidStudy(f"{name} must be a `heatproof.studies.Study`. Got {type(found).__name__}.")
    _refuse_taken(found)
    _named.add(name)
    return found


def stored_study(name: str) -> Study:
    """The study that a results folder names. Results may come from elsewhere: their word alone runs no code.

    Raises:
        UnknownName: there is none. InvalidStudy: `python:…`, for which `study_named` was not called in this
            process.
    """
    if name.startswith(PYTHON) and name not in _named:
        raise InvalidStudy(
            f"These results are of {name}, and their page is made by its code. Results may come from elsewhere, so the "
            "code is not run without a word. If it is yours, add --allow-code; in Python call "
            f"heatproof.studies.study.study_named({name!r}) before."
        )
    return study_named(name)

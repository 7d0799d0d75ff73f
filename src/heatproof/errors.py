"""The exception tree. Every message says what was expected, what came and what to do.

HeatproofError
├── UnknownName       a method, perturbation, layer, option … that does not exist (also a KeyError)
├── InvalidInput      an argument of the wrong shape, range or type (also a ValueError)
│   ├── InvalidImage      a file that is no readable image, or is too large to open safely
│   ├── InvalidTarget     too few targets, or one outside the model's classes
│   ├── InvalidType       a value of a type that cannot be used (also a TypeError)
│   └── InvalidStudy      a study file or plan that cannot be run
├── ModelError        a model that cannot be loaded, or whose output is not a classifier's
│   ├── LayerError        a layer that cannot be explained: not spatial, never run
│   │   └── NoGradient        one that no gradient reaches (also a RuntimeError, as PyTorch's own)
│   └── NotApplicable     a method that cannot be used for this network (an attention method on a CNN)
├── StoreError        a results folder that belongs to another study, is in use, or cannot be written
└── MissingExtra      an optional part that is not installed

HeatproofWarning      a problem that did not stop the run (also a UserWarning)
"""

import warnings
from importlib import import_module
from typing import Any


class HeatproofError(Exception):
    """The root: catching it catches everything heatproof raises on purpose."""


class UnknownName(HeatproofError, KeyError):
    """A name that is not in the registry, the model or the vocabulary; the message has near misses."""

    def __str__(self) -> str:  # KeyError would show the repr
        return str(self.args[0]) if self.args else ""


class InvalidInput(HeatproofError, ValueError):
    """An argument of the wrong shape, range or type."""


class InvalidImage(InvalidInput):
    """A file that is no readable image."""


class InvalidTarget(InvalidInput):
    """Targets that do not fit the batch or the model."""


class InvalidType(InvalidInput, TypeError):
    """A value of a type that cannot be used."""


class InvalidStudy(InvalidInput):
    """A study that cannot be run as written."""


class ModelError(HeatproofError):
    """A model that cannot be loaded, or whose output is not a classifier's."""


class LayerError(ModelError):
    """A layer that cannot be explained."""


class NoGradient(LayerError, RuntimeError):
    """A layer that no gradient of the output reaches; PyTorch itself raises a RuntimeError there."""


class NotApplicable(ModelError):
    """A method that cannot be used for this network or layer; the message says why, and what to use instead."""


class StoreError(HeatproofError):
    """A results folder that cannot be used."""


class MissingExtra(HeatproofError, ImportError):
    """An optional dependency that is not installed."""


class HeatproofWarning(UserWarning):
    """A problem that did not stop the run."""


def warn(text: str) -> None:
    """Issues a HeatproofWarning that names the line of the caller's caller."""
    warnings.warn(text, HeatproofWarning, stacklevel=3)


def renamed(module: str, names: dict[str, str], name: str) -> Any:
    """For a module's `__getattr__`: the object that a former name stands for, with a warning that gives the new one."""
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is called {names[name]} now.", HeatproofWarning, stacklevel=3)
    return getattr(import_module(module), names[name])


def __getattr__(name: str) -> Any:
    return renamed(__name__, {"InvalidPicture": "InvalidImage"}, name)

"""The one way in which objects on lower floors reach `heatproof.plot`, which stands above them.

`maps.plot()` and the like are shortcuts that a user calls; nothing is computed through them, and no other module may be
reached in this way. The room is imported by its name when a figure is asked for, so that nothing below depends on it.
"""

from importlib import import_module
from typing import Any


def plots() -> Any:
    """The module `heatproof.plot`."""
    return import_module("heatproof.plot")

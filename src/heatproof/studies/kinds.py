"""What a study adds to what all studies share: how it begins, what does its jobs, and how it ends.

resolved → parcels → facts → begun → worker(job) … → finish
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.data import Pictures
from heatproof.plugins import imported
from heatproof.studies.executors import Advance, Map
from heatproof.studies.jobs import Setup, all_requests
from heatproof.studies.store import Store


class Progress(Protocol):
    """Hears what is going on: `stage` begins something of `total` units, `advance` moves it."""

    def stage(self, name: str, total: float, done: float = 0) -> None: ...
    def advance(self, units: float) -> None: ...


class Kind:
    """A study as `run` sees it. This one adds nothing; `plan` is always of the study's own class."""

    def resolved(self, plan: Any, pictures: Sequence[Pictures]) -> Any:
        """The plan with what only the pictures can tell. InvalidInput where it cannot be run on them."""
        return plan

    def facts(self, plan: Any, pictures: Sequence[Pictures]) -> Mapping[str, Any]:
        """What `study.json` says beside the plan, or in place of a setting of it."""
        return {}

    def begun(self, store: Store, plan: Any, pictures: Sequence[Pictures], device: str, progress: Progress) -> Any:
        """What all jobs need to know and is found once; it is sent to every worker. May keep files in the store."""
        return None

    def parcels(self, plan: Any) -> tuple[Any, ...]:
        """What a fresh process must be told for its jobs: methods that it does not know.

        Raises:
            InvalidInput: one that cannot be sent.
        """
        return PLUGIN_METHODS.exported(request.entry for request in all_requests(plan))

    def unpack(self, parcels: tuple[Any, ...]) -> None:
        """Takes in what `parcels` has made, in a worker."""
        imported(parcels)

    def worker(self, setup: Setup) -> Callable[[Any, Advance], str]:
        """What does one job, or one case of the gallery, and returns its key; made once in every process."""
        raise NotImplementedError

    def finish(self, store: Store, setup: Setup, map_jobs: Map, progress: Progress) -> None:
        """What is made when all rows are there."""


#: Study → the module that has its `KIND`.
_HOMES = {"noise-robustness": "heatproof.studies.noisekind", "score": "heatproof.studies.scorekind"}


def kind_of(study: str) -> Kind:
    """The kind of that name."""
    return importlib.import_module(_HOMES[study]).KIND

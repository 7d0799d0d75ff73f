"""The score study as `run` sees it: maps and masks are looked at before any work, and a gallery closes it."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from heatproof.attributions.stored import Stored
from heatproof.data import Pictures
from heatproof.data.files import names_for
from heatproof.engine import dry_run
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidPicture
from heatproof.metrics.foreign import PLUGIN_METRICS
from heatproof.metrics.request import requested_metrics
from heatproof.studies.executors import Advance, Map
from heatproof.studies.jobs import Job, Setup
from heatproof.studies.kinds import Kind, Progress
from heatproof.studies.pictures import loaded
from heatproof.studies.plan import ScorePlan
from heatproof.studies.scoregallery import Case, drawn, write_gallery
from heatproof.studies.scoring import ScoreStudy, stored_maps
from heatproof.studies.settings import DatasetPlan
from heatproof.studies.store import Store
from heatproof.studies.truth import Truth


class _Score(Kind):
    def resolved(self, plan: ScorePlan, pictures: Sequence[Pictures]) -> ScorePlan:
        """Every metric by name; the maps looked at, so that a wrong file costs no time."""
        truth = [Truth(dataset.masks, found) for dataset, found in zip(plan.datasets, pictures, strict=True)]
        masked = any(one.known for one in truth)
        names, left = plan.chosen_metrics(masked)
        dry_run(requested_metrics(names) if names else [])
        if not names:
            raise InvalidInput(f"Expected at least one metric that needs no mask. Got {', '.join(plan.metrics)}.")
        if left:
            _say(f"No masks, so these metrics are left out: {', '.join(left)}. --masks says where the objects are.")
        needing = [r.key for r in requested_metrics(names) if "mask" in r.entry.needs]
        if needing and not masked:
            _say(f"No masks, so {', '.join(needing)} will have no values. --masks says where the objects are.")
        for dataset, found in zip(plan.datasets, pictures, strict=True):
            for maps in stored_maps(plan, found):
                check_maps(maps, dataset, found)
        return plan.resolved(masked)

    def facts(self, plan: ScorePlan, pictures: Sequence[Pictures]) -> dict[str, Any]:
        """What the metrics are, and which maps and masks were used."""
        requests = requested_metrics(plan.metrics)
        return {
            "metric_facts": {request.key: request.facts() for request in requests},
            "maps": [{"name": one.label, "fingerprint": fingerprint(Path(one.path))} for one in plan.maps],
            "masks": {d.label: fingerprint(Path(d.masks)) for d in plan.datasets if d.masks},
        }

    def parcels(self, plan: ScorePlan) -> tuple[Any, ...]:
        metrics = PLUGIN_METRICS.exported(request.entry for request in requested_metrics(plan.metrics))
        return (*super().parcels(plan), *metrics)

    def worker(self, setup: Setup) -> Callable[[Any, Advance], str]:
        study = ScoreStudy(setup)

        def work(job: Job | Case, advance: Advance) -> str:
            return study(job, advance) if isinstance(job, Job) else drawn(study, job, advance)

        return work

    def finish(self, store: Store, setup: Setup, map_jobs: Map, progress: Progress) -> None:
        write_gallery(store, setup, map_jobs, progress)


def check_maps(maps: Stored, dataset: DatasetPlan, pictures: Pictures) -> None:
    """Maps made beforehand against the pictures of a dataset: how many there are, and whether any is there.

    Raises:
        InvalidInput: another number of maps than pictures, or none of any of them.
    """
    ids, stack = list(pictures.ids), maps.stack
    if stack is not None:
        whole = len(ids) if len(stack) == len(ids) else len(loaded(dataset, None).ids)
        if len(stack) not in (len(ids), whole):
            raise InvalidInput(
                f"{maps.name!r} must hold one map for each picture of {dataset.label}, in their order. "
                f"Got {len(stack)} maps {tuple(stack.shape)} for {whole} pictures. "
                "Name maps by their pictures in an .npz, and none needs to be there."
            )
        return
    missing = [identity for identity in ids if not _there(maps, identity)]
    if len(missing) == len(ids):
        raise InvalidInput(
            f"{maps.name!r} must hold maps by the names of the pictures, such as {next(names_for(ids[0]))!r} of "
            f"{dataset.label}. {_inside(maps)}."
        )
    if missing:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        _say(f"{maps.name} holds no map of {missing[0]!r}{more}.")


def _there(maps: Stored, identity: str) -> bool:
    try:
        return maps.holds(identity)
    except InvalidPicture:
        return True  # there, and flagged when it is scored


def _inside(maps: Stored) -> str:
    names = sorted(maps.names())
    if not names:
        return "It holds no maps"
    return f"It holds {', '.join(map(repr, names[:3]))}{', …' if len(names) > 3 else ''}"


def fingerprint(path: Path) -> str:
    """A hash of a file, or of the names, sizes and first bytes of a folder's files."""
    digest = hashlib.blake2b(digest_size=16)
    for file in [path] if path.is_file() else _files(path):
        digest.update(repr((file.relative_to(path).as_posix(), file.stat().st_size)).encode())
        with file.open("rb") as opened:
            if path.is_dir():
                digest.update(opened.read(64 * 1024))
                continue
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _say(text: str) -> None:
    warnings.warn(text, HeatproofWarning, stacklevel=3)


KIND = _Score()

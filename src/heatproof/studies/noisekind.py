"""The noise-robustness study as `run` sees it: strengths are calibrated first, and a gallery closes it."""

from collections.abc import Callable, Sequence
from typing import Any

from heatproof.data import Pictures
from heatproof.studies.calibration import calibrated
from heatproof.studies.executors import Advance, Map
from heatproof.studies.gallery import Case, drawn, write_gallery
from heatproof.studies.jobs import Job, Setup
from heatproof.studies.kinds import Kind, Progress
from heatproof.studies.noise import NoiseStudy
from heatproof.studies.plan import NoisePlan
from heatproof.studies.store import Store


class _Noise(Kind):
    def begun(
        self, store: Store, plan: NoisePlan, pictures: Sequence[Pictures], device: str, progress: Progress
    ) -> dict[str, list[float]]:
        return calibrated(store, plan, pictures, device, progress)

    def worker(self, setup: Setup) -> Callable[[Any, Advance], str]:
        study = NoiseStudy(setup)

        def work(job: Job | Case, advance: Advance) -> str:
            return study(job, advance) if isinstance(job, Job) else drawn(study, job, advance)

        return work

    def finish(self, store: Store, setup: Setup, map_jobs: Map, progress: Progress) -> None:
        write_gallery(store, setup, map_jobs, progress)


KIND = _Noise()

"""Does the jobs of any study in one process: opens the images, measures them, writes the shard.

What cannot be measured becomes a flagged row: an image that cannot be opened, or a method that is not applicable to
the model.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from heatproof.engine import ResolvedMethod, halved, resolve_layers
from heatproof.errors import ModelError
from heatproof.models import Model
from heatproof.statistics.special_rows import PROJECTION
from heatproof.studies.careful_opening import crashing_images
from heatproof.studies.conditions import Condition
from heatproof.studies.cost import counted
from heatproof.studies.executors import Advance
from heatproof.studies.explained import of_maps, of_method
from heatproof.studies.jobs import Dataset, ImageBlock, Job, JobDone, Setup, all_requests, open_block
from heatproof.studies.loading import StudyModels
from heatproof.studies.lower_precision import LOWER
from heatproof.studies.maps import KeptMaps, arrays
from heatproof.studies.measurement import Measurement
from heatproof.studies.measures import Measures
from heatproof.studies.partial import PartialBatch, PartialJob
from heatproof.studies.prefetch import NextImages, of_files, worthwhile
from heatproof.studies.rows import Rows
from heatproof.studies.stopwatch import Stopwatch
from heatproof.studies.store import Store
from heatproof.studies.together import Together


class Worker:
    """Does the jobs of a study in one process."""

    def __init__(self, setup: Setup, models: StudyModels | None = None):
        self.setup, self.plan = setup, setup.plan
        self.models = models or StudyModels(setup.plan, setup.device, setup.compiled)
        self.study = setup.study
        self.requests = all_requests(setup.plan)
        self.measures = Measures.of(self.study, setup.plan)
        self._methods: dict[int, list[ResolvedMethod]] = {}
        self._compared: set[int] = set()
        self._together: dict[int, Together] = {}
        self.ahead = NextImages(self._images_of) if worthwhile(setup.device) else None

    def __call__(self, job: Job, advance: Advance) -> JobDone:
        """Writes the job's shard, and counts the passes through the network as loaded."""
        model = self.model(job.model)
        watch = Stopwatch(self.setup.device, self.plan.threads)
        with counted(model.module, model.compiled) as passes, watch:
            self._write(job, advance)
        return JobDone(job.key, passes.forward, passes.backward, passes.tails, watch.seconds, passes.probes)

    def model(self, index: int) -> Model:
        """The model at that index.

        Raises:
            ModelError: its weights are not those with which the study was planned.
        """
        model, known = self.models(index), self.setup.fingerprints
        if index not in self._compared and known and model.fingerprint != known[index]:
            raise ModelError(
                f"The weights of {model.name} are not those that the study began with: they changed meanwhile, or "
                "are others on this machine. Give every machine the same file, and begin in another --out."
            )
        self._compared.add(index)
        return model

    def _write(self, job: Job, advance: Advance) -> None:
        dataset, conditions = self.setup.datasets[job.dataset], self.conditions(job)
        store, rows, kept = Store(self.setup.folder), self.common_rows(job), []
        finished = PartialJob(store.partial / job.key)
        indices = range(job.start, job.stop)
        crashing: Mapping[str, str] = {}
        known, again = self.ahead and self.ahead.take(job), finished.begin()
        if again:  # an earlier attempt did not end
            crashing = crashing_images(dataset.images, indices)
        block = known if known and not again else self.block(job.model, job.dataset, indices, crashing=crashing)
        if self.ahead and not again and of_files(dataset.images):  # a file that ends the process must end its own job
            self.ahead.begin(job, len(dataset.images.ids))
        every = [*map(of_method, self.requests), *(of_maps(maps.name) for maps in dataset.given)]
        self._flag(rows, block.failed, conditions, every, dataset, images=True)
        for request in self.requests:
            if reason := self.refused(job.model).get(request.key):
                why = dict.fromkeys(block.ids, f"not applicable: {reason}")
                self._flag(rows, why, conditions, [of_method(request)], dataset)
        share = 1 / (job.stop - job.start)
        advance(share * len(block.failed))
        if block.ids:

            def work(part: slice) -> tuple[Rows, KeptMaps]:
                images = block[part]
                return self.measurement(job, images, finished.of(images.ids)).run(lambda done: advance(done * share))

            for part_rows, part_maps in halved(work, len(block.ids)):
                rows.extend(part_rows)
                kept.append(part_maps)
        store.write_shard(job.key, rows.table(), arrays(kept))
        finished.remove()

    def _images_of(self, job: Job) -> ImageBlock:
        return self.block(job.model, job.dataset, range(job.start, job.stop)).pinned(self.setup.device)

    def block(
        self,
        model: int,
        dataset: int,
        indices: Iterable[int],
        most: int | None = None,
        crashing: Mapping[str, str] | None = None,
    ) -> ImageBlock:
        """These images of a dataset as input of the model at that index, at most `most` of them; see `open_block`."""
        labelled = self.study.needs_labels(self.plan)
        return open_block(self.setup.datasets[dataset].images, indices, self.models(model), labelled, most, crashing)

    def measurement(self, job: Job, block: ImageBlock, finished: PartialBatch | None = None) -> Measurement:
        """The measurement of some images of a job; `finished`: what is known of them, and where results are kept."""
        return Measurement(
            self.plan,
            self.setup.datasets[job.dataset],
            partial(self.models, job.model),
            self.methods(job.model),
            self.setup.layers[job.model],
            self.measures,
            block,
            self.conditions(job),
            finished,
            self.plan.models[job.model].tolerance,
            together=self.together(job.model),
            precision=LOWER if self.plan.models[job.model].label in self.setup.lower else None,
        )

    def together(self, index: int) -> Together:
        """How many conditions are explained in one pass under the model at that index."""
        count = self.setup.together[index] if self.setup.together else 1
        return self._together.setdefault(index, Together(count))

    def methods(self, index: int) -> list[ResolvedMethod]:
        """The methods that are applicable to the model at that index, with the layers they read."""
        if index not in self._methods:
            refused = self.refused(index)
            able = [request for request in self.requests if request.key not in refused]
            self._methods[index] = resolve_layers(self.models(index), able, self.setup.layers[index])
        return self._methods[index]

    def refused(self, index: int) -> Mapping[str, str]:
        """Method → why it is not applicable to the model at that index."""
        return self.setup.refused[index] if self.setup.refused else {}

    def conditions(self, job: Job) -> list[Condition]:
        """The conditions of a job, with the strengths calibrated for its model and dataset."""
        found = []
        for one in self.study.all_conditions(self.plan):
            levels = self.setup.strengths.get((job.model, job.dataset, one.perturbation))
            found.append(one if one.flip_rate is None or levels is None else one.at_level(levels[one.severity - 1]))
        return found

    def common_rows(self, job: Job) -> Rows:
        """Empty `Rows` with the columns that all rows of a job share."""
        plan = self.plan
        return Rows(
            study=self.study.name,
            model=plan.models[job.model].label,
            dataset=plan.datasets[job.dataset].label,
            layer=self.setup.layers[job.model],
            target=plan.target,
            seed=plan.seed,
            version=self.setup.version,
        )

    def _flag(
        self,
        rows: Rows,
        why: Mapping[str, str],
        conditions: Sequence[Condition],
        methods: Sequence[Mapping[str, Any]],
        dataset: Dataset,
        images: bool = False,
    ) -> None:
        """Adds flagged rows for what could not be measured, for these methods under all conditions.

        why: image → reason. images: the images cannot be used at all, so their PSNR is flagged too.
        """
        if not why:
            return
        about = {"value": [float("nan")] * len(why), "flag": list(why.values())}
        for number, condition in enumerate(conditions):
            if images and number:
                rows.add(list(why), **about, **condition.columns, metric="psnr")
            for columns in () if number else methods:
                rows.add(list(why), **about, **condition.columns, **columns, metric=PROJECTION, reference=True)
            for measure, _ in self.measures.at(not number, dataset.masked, dataset.mosaics):
                for columns in methods:
                    rows.add(list(why), **about, **condition.columns, **columns, metric=measure.column,
                             segmenter=measure.segmenter, reference=not number)  # fmt: skip

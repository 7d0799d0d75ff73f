"""Does the jobs of a study, whichever it is, in one process: opens the images, measures them, writes the shard.

Whatever cannot be measured becomes a flagged row: an image that cannot be opened, a method that does not serve the
model.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from heatproof.engine import ResolvedMethod, halved, resolve_layers
from heatproof.studies.conditions import Condition
from heatproof.studies.executors import Advance
from heatproof.studies.jobs import Dataset, ImageBlock, Job, Setup, all_requests, open_block
from heatproof.studies.loading import StudyModels
from heatproof.studies.maps import arrays
from heatproof.studies.measurement import Measurement, of_maps, of_method
from heatproof.studies.measures import Measures
from heatproof.studies.rows import Rows
from heatproof.studies.store import Store


class Worker:
    """Does the jobs of a study in one process."""

    def __init__(self, setup: Setup, models: StudyModels | None = None):
        self.setup, self.plan = setup, setup.plan
        self.models = models or StudyModels(setup.plan, setup.device)
        self.study = setup.study
        self.requests = all_requests(setup.plan)
        self.measures = Measures.of(self.study, setup.plan)
        self._methods: dict[int, list[ResolvedMethod]] = {}

    def __call__(self, job: Job, advance: Advance) -> str:
        """Writes the job's shard and returns its key."""
        dataset, conditions = self.setup.datasets[job.dataset], self.conditions(job)
        block = self.block(job.model, job.dataset, range(job.start, job.stop))
        rows, kept = self._common_rows(job), []
        every = [*map(of_method, self.requests), *map(of_maps, dataset.given)]
        self._flag(rows, block.failed, conditions, every, dataset, images=True)
        for request in self.requests:
            if reason := self.refused(job.model).get(request.key):
                why = dict.fromkeys(block.ids, f"not applicable: {reason}")
                self._flag(rows, why, conditions, [of_method(request)], dataset)
        share = 1 / (job.stop - job.start)
        advance(share * len(block.failed))
        if block.ids:
            work = lambda part: self.measurement(job, block[part]).run(lambda s: advance(s * share))  # noqa: E731
            for part_rows, part_maps in halved(work, len(block.ids)):
                rows.extend(part_rows)
                kept.append(part_maps)
        Store(self.setup.folder).write_shard(job.key, rows.table(), arrays(kept))
        return job.key

    def block(self, model: int, dataset: int, indices: Iterable[int], most: int | None = None) -> ImageBlock:
        """These images of a dataset as the model of that number takes them, at most so many; see `open_block`."""
        labelled = self.study.explains_labels(self.plan)
        return open_block(self.setup.datasets[dataset].images, indices, self.models(model), labelled, most)

    def measurement(self, job: Job, block: ImageBlock) -> Measurement:
        """Some images of a job, to be explained and measured."""
        return Measurement(
            self.plan,
            self.setup.datasets[job.dataset],
            partial(self.models, job.model),
            self.methods(job.model),
            self.setup.layers[job.model],
            self.measures,
            block,
            self.conditions(job),
        )

    def methods(self, index: int) -> list[ResolvedMethod]:
        """The methods that serve the model of that number, and the layers they read there."""
        if index not in self._methods:
            refused = self.refused(index)
            able = [request for request in self.requests if request.key not in refused]
            self._methods[index] = resolve_layers(self.models(index), able, self.setup.layers[index])
        return self._methods[index]

    def refused(self, index: int) -> Mapping[str, str]:
        """Method → why it cannot serve the model of that number."""
        return self.setup.refused[index] if self.setup.refused else {}

    def conditions(self, job: Job) -> list[Condition]:
        """The conditions of a job; calibrated strengths belong to a model and a dataset."""
        found = []
        for one in self.study.all_conditions(self.plan):
            levels = self.setup.strengths.get((job.model, job.dataset, one.perturbation))
            found.append(one if one.flip_rate is None or levels is None else one.at_level(levels[one.severity - 1]))
        return found

    def _common_rows(self, job: Job) -> Rows:
        """No rows yet, with the columns that all rows of a job have in common."""
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
        """Flagged rows of what could not be measured: image → reason, for those methods under all conditions."""
        if not why:
            return
        about = {"value": [float("nan")] * len(why), "flag": list(why.values())}
        for number, condition in enumerate(conditions):
            if images and number:
                rows.add(list(why), **about, **condition.columns, metric="psnr")
            for measure, _ in self.measures.at(not number, dataset.masked):
                for columns in methods:
                    rows.add(list(why), **about, **condition.columns, **columns, metric=measure.column,
                             segmenter=measure.segmenter, reference=not number)  # fmt: skip

"""Does the jobs of a study, whichever it is, in one process: opens the images, measures them, writes the shard.

Whatever cannot be measured becomes a flagged row: an image that cannot be opened, a method that does not serve the
model.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from heatproof.engine import ResolvedMethod, halved, resolve_layers
from heatproof.models import Model
from heatproof.models.randomisation import Randomised
from heatproof.studies.conditions import INTACT, RANDOMISED, Condition
from heatproof.studies.executors import Advance
from heatproof.studies.jobs import Block, Dataset, Job, Setup, all_requests, load, open_block
from heatproof.studies.maps import arrays
from heatproof.studies.measurement import Measurement, of_maps, of_method
from heatproof.studies.measures import Measures
from heatproof.studies.rows import Rows
from heatproof.studies.settings import Plan
from heatproof.studies.store import Store


class Worker:
    """Does the jobs of a study in one process; one model is held at a time, in one state."""

    def __init__(self, setup: Setup):
        self.setup, self.plan = setup, setup.plan
        self.study = setup.study
        self.requests = all_requests(setup.plan)
        self.measures = Measures.of(self.study, setup.plan)
        self._loaded: tuple[int, Model] | None = None
        self._changed: tuple[int, str, Model] | None = None
        self._methods: dict[int, list[ResolvedMethod]] = {}

    def __call__(self, job: Job, advance: Advance) -> str:
        """Writes the job's shard and returns its key."""
        model, dataset = self.model(job.model), self.setup.datasets[job.dataset]
        conditions = self.conditions(job)
        labelled = "label" in (self.plan.target, *(condition.target for condition in conditions))
        target = "label" if labelled else self.plan.target
        block = open_block(dataset.images, range(job.start, job.stop), model, target)
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

    def measurement(self, job: Job, block: Block) -> Measurement:
        """Some images of a job, to be explained and measured."""
        return Measurement(
            self.plan,
            self.setup.datasets[job.dataset],
            partial(self.model, job.model),
            self.methods(job.model),
            self.setup.layers[job.model],
            self.measures,
            block,
            self.conditions(job),
        )

    def model(self, index: int, state: str = INTACT) -> Model:
        """The model of that number, in that state."""
        if self._loaded is None or self._loaded[0] != index:
            self._loaded = self._changed = None
            self._loaded = (index, load(self.plan, index, self.setup.device))
        if state == INTACT:
            return self._loaded[1]
        if self._changed is None or self._changed[:2] != (index, state):
            self._changed = None
            self._changed = (index, state, in_state(self._loaded[1], state, self.plan, index, self.setup.device))
        return self._changed[2]

    def methods(self, index: int) -> list[ResolvedMethod]:
        """The methods that serve the model of that number, and the layers they read there."""
        if index not in self._methods:
            refused = self.refused(index)
            able = [request for request in self.requests if request.key not in refused]
            self._methods[index] = resolve_layers(self.model(index), able, self.setup.layers[index])
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
                             segmenter=measure.segmenter)  # fmt: skip


def in_state(model: Model, state: str, plan: Plan, index: int, device: str) -> Model:
    """A model of the plan in another state: with all weights drawn anew, or with those of another checkpoint."""
    if state == INTACT:
        return model
    if state != RANDOMISED:
        return load(plan, index, device, checkpoint=state)
    copy = Randomised(model, plan.seed)
    for block in copy.blocks(0):
        copy.redraw(block)
    return copy.model

"""The rows that a study will write, counted before it runs by the rules of `measurement` and `worker`.

The counts are exact where every file can be read and every metric gives its curve; a test compares them with the rows
of real studies.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from heatproof.data.class_matching import further_labels, label_match
from heatproof.engine import ResolvedMethod
from heatproof.models import Model
from heatproof.studies.conditions import Condition
from heatproof.studies.image_sizes import Sizes
from heatproof.studies.jobs import Dataset, Job, Setup, all_requests, no_label
from heatproof.studies.measures import Measures
from heatproof.targets import nth

#: Kinds of rows.
SCORES, CURVES, MAPS, IMAGES = "scores", "points of curves", "about maps", "about images"
#: The most images of a set whose masks are looked for; the share of the others is taken as theirs.
LOOKED = 400


@dataclass(frozen=True)
class RowRules:
    """What the number of rows of one model and dataset follows from.

    points: metric → the points of its curve on one image.
    """

    setup: Setup
    measures: Measures
    model: Model
    dataset: Dataset
    methods: Sequence[ResolvedMethod]
    sizes: Sizes
    points: Mapping[str, int]

    def rows(self, jobs: Sequence[Job]) -> Counter[str]:
        """Rows by kind of all these jobs."""
        found: Counter[str] = Counter()
        images = self.dataset.images
        match, more = label_match(images, self.model.classes), further_labels(images)
        labels = [match(label) for label in images.labels]
        needed = self.setup.study.needs_labels(self.setup.plan)
        bad = [bool(no_label(label, self.model)) for label in labels]
        known = [0 if bad[i] else 1 + len(more.get(id, ())) for i, id in enumerate(images.ids)]
        masked = self._with_masks()
        for job in jobs:
            every = range(job.start, job.stop)
            kept = [i for i in every if images.ids[i] not in images.flags and not (needed and bad[i])]
            found.update(self._flagged(len(every) - len(kept), images=True))
            found.update(self._flagged(len(kept), images=False))
            for number, condition in enumerate(self._conditions):
                there = [i for i in kept if known[i] >= self._nth(condition)]
                labelled = any(labels[i] is not None for i in there)
                shown = round(sum(map(masked, there))) if not number else 0
                found.update(self._measured(number, condition, len(there), labelled, shown))
        return +found

    @property
    def _conditions(self) -> Sequence[Condition]:
        return self.setup.study.all_conditions(self.setup.plan)

    def _nth(self, condition: Condition) -> int:
        """How many labels an image needs to have rows under a condition."""
        kind, number = nth(condition.target or self.setup.plan.target)
        return number if kind == "label" and number > 1 else 0

    def _due(self, number: int):
        return self.measures.at(not number, self.dataset.masked, self.dataset.mosaics)

    def _flagged(self, count: int, images: bool) -> Counter[str]:
        """Rows of images that cannot be used, or of methods that are not applicable."""
        every = len(all_requests(self.setup.plan)) + len(self.dataset.given)
        methods = every if images else every - len(self.methods) - len(self.dataset.given)
        found: Counter[str] = Counter()
        for number, _ in enumerate(self._conditions):
            found[IMAGES] += count if images and number else 0
            found[MAPS] += 0 if number else count * methods
            found[SCORES] += count * methods * len(self._due(number))
        return found

    def _measured(self, number: int, condition: Condition, count: int, labelled: bool, masked: int) -> Counter[str]:
        """Rows of images that can be used, under one condition."""
        found: Counter[str] = Counter()
        able, due = self.sizes.able(condition, self.methods), self._due(number)
        found[SCORES] += count * (len(self.methods) - len(able or ())) * len(due)
        if able is None or not count:
            return found
        first, plan, values = not number, self.setup.plan, self.model.of_values
        found[IMAGES] += count * ((not first and self.sizes.same(condition)) + (labelled and not values) + 2)
        given = len(self.dataset.given) if first else 0
        truth = int(first and bool(plan.scores_ground_truth) and self.dataset.masked)
        if due:
            scored = len(able) + given + truth
            found[SCORES] += count * scored * len(due)
            # Maps made elsewhere have no curve where the metric explains again.
            curves = sum(self.points.get(request.key, 0) for measure, request in due if first or measure.curves)
            found[CURVES] += count * scored * curves
        pooled = first or condition.target in plan.pooled_targets
        found[MAPS] += count * (len(able) + given) * pooled + masked * (len(able) + given) * first
        parted = self.dataset.parted and not (condition.transformation or condition.perturbation)
        found[IMAGES] += count * (first and parted and any(request.of_parts for _, request in due))
        return found

    def _with_masks(self) -> Callable[[int], float]:
        """The number of masks of an image: 0 or 1, or the share where there are very many images."""
        if not self.dataset.masked:
            return lambda _: 0
        count = len(self.dataset.images.ids)
        looked = sorted({k * count // LOOKED for k in range(LOOKED)}) if count > LOOKED else range(count)
        there = {i: float(self.dataset.ground_truth.known_of(i)) for i in looked}
        share = sum(there.values()) / max(1, len(there))
        return (lambda _: share) if count > LOOKED else lambda i: there[i]

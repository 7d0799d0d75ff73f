"""The measures of a study under its settings: which metrics, on which conditions, and their names in the rows."""

from dataclasses import dataclass

from heatproof.errors import InvalidStudy
from heatproof.metrics.metric_request import MetricRequest, requested_metrics
from heatproof.segments import needs_mask as segmenter_needs_mask
from heatproof.studies.settings import Plan
from heatproof.studies.study import ALL, OTHERS, REFERENCE, Measure, Study


@dataclass(frozen=True)
class Measures:
    """The measures of a study under its settings, with their requests."""

    taken: list[tuple[Measure, MetricRequest]]

    @classmethod
    def of(cls, study: Study, plan: Plan) -> "Measures":
        """The measures of `study` under `plan`; the parts of a composite metric come before it.

        Raises:
            UnknownName, InvalidInput: a metric or an option that does not exist.
            InvalidStudy: no measure, two of one column and segmenter, unknown `conditions`, or a pair metric in a study
                without a second condition.
        """
        taken: list[tuple[Measure, MetricRequest]] = []
        several = len(study.all_conditions(plan)) > 1
        for measure in study.measured(plan):
            if measure.conditions not in ("", ALL, OTHERS, REFERENCE):
                raise InvalidStudy(f"A measure is taken on {ALL}, {OTHERS} or {REFERENCE}. Got {measure.conditions!r}.")
            for request in requested_metrics([measure.metric]):
                if request.paired and not several:
                    raise InvalidStudy(
                        f"The study {study.name!r} has one condition, and {request.key!r} compares maps under two."
                    )
                conditions = measure.conditions or (OTHERS if request.paired else REFERENCE)
                if request.paired and conditions == REFERENCE:
                    raise InvalidStudy(
                        f"{request.key!r} compares a map with the reference map, so not on the reference."
                    )
                if conditions == OTHERS and not several:
                    raise InvalidStudy(
                        f"The study {study.name!r} has one condition, and {request.key!r} is taken on the others."
                    )
                conditions = OTHERS if request.paired else conditions
                column = measure.column or request.key
                one = measure._replace(metric=request.key, column=column, conditions=conditions)
                if (one, request) not in taken:
                    taken.append((one, request))
        names = [(one.column, one.segmenter) for one, _ in taken]
        if not names:
            raise InvalidStudy(f"The study {study.name!r} must have at least one measure. Got none.")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InvalidStudy(
                f"Two measures of the study {study.name!r} have the column {twice[0]!r}. Name one apart."
            )
        return cls(taken)

    def at(self, reference: bool, masked: bool, mosaics: bool) -> list[tuple[Measure, MetricRequest]]:
        """The measures on the reference, or on the other conditions.

        Without masks (`masked`), optional measures that need one are left out; without `mosaics`, those that need them.
        """
        wanted = {ALL, REFERENCE if reference else OTHERS}
        return [
            (measure, request)
            for measure, request in self.taken
            if measure.conditions in wanted
            and (masked or not measure.optional or not needs_mask(request))
            and (mosaics or not request.of_mosaics)
        ]


def needs_mask(request: MetricRequest) -> bool:
    """Whether a metric needs a mask, or compares maps in segments that need one."""
    if "mask" in request.entry.needs:
        return True
    segmenter = request.options.get("segmenter")
    return isinstance(segmenter, str) and segmenter_needs_mask(segmenter)

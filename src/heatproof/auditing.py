"""`heatproof.audit`: which heatmap may be shown for a model on some images, and how far it can be trusted."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatproof.lazy_plots import plots
from heatproof.report import write_page, write_tables
from heatproof.report.findings import Findings
from heatproof.running import finished
from heatproof.studies.execution import Execution


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        sentence: the verdict.
        notes: its caveats.
        recommended: the method to show, None if there is none; for the first model and dataset if there are several.
        table: a data frame, a row for each method, question and test (the columns of tables/audit.csv).
        images: a data frame, a row for each image and method: show, show with a warning, do not show, and the reason
            (the columns of tables/per_image.csv).
        page: the page with the evidence.
        folder: the results; repeating the call computes only what is missing.

    Examples:
        >>> import heatproof
        >>> quick = {"perturbations": ["gaussian-noise"], "severities": [5], "resamples": 100, "progress": False}
        >>> found = heatproof.audit("shapes", "shapes", limit=2, methods=["gradcam"], out="out/audit", **quick)
        >>> found.recommended is None
        True
        >>> found.images[["method", "decision"]].drop_duplicates().values.tolist()
        [['gradcam', 'do not show']]
    """

    sentence: str
    notes: Sequence[str]
    recommended: str | None
    table: Any = field(repr=False)
    images: Any = field(repr=False)
    page: Path
    folder: Path

    def __str__(self) -> str:
        return "\n".join([self.sentence, *self.notes, f"Page: {self.page}"])

    def plot(self, **options: Any) -> Any:
        """Which method passed which question, a matplotlib figure: `heatproof.plot.verdicts(audit, **options)`."""
        return plots().verdicts(self, **options)

    @classmethod
    def of(cls, findings: Findings) -> "Audit":
        """From a finished study."""
        first = findings.audits[0]
        page = write_page(findings)
        table, images = findings.tables["audit.csv"], findings.tables["per_image.csv"]
        return cls(first.sentence, first.notes, first.recommended, table, images, page, findings.source.folder)


def audit(
    model: Any,
    images: Any,
    *,
    labels: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    budget: float | None = None,
    out: str | os.PathLike[str] | None = None,
    methods: Sequence[str] | None = None,
    workers: int = 1,
    progress: Any = True,
    normalised: bool = False,
    method_labels: Mapping[str, str] | None = None,
    **settings: Any,
) -> Audit:
    """Tests which heatmap may be shown for a classifier on some images, and how far it can be trusted.

    It tests whether maps are faithful, stable under noise, responsive to a changed prediction, dependent on the weights
    and on the class, and, with masks, whether they point at the object.

    Args:
        model: a spec for `heatproof.load_model`, or anything that `heatproof.explain` takes as a model (then `workers`
            is 1).
        images, normalised, progress: as in `heatproof.run`.
        labels: a CSV with the columns file,class_index or file,name, or all three.
        masks: a folder of masks or a CSV of boxes, for localisation.
        budget: time limit in minutes; as many images as fit are used.
        out: the results folder, by default a new temporary one. Repeating the call computes only what is missing.
        methods: by default eight, or seven without Ablation-CAM if that would run the network for every channel.
        workers: processes; several need the spec of a model, and `if __name__ == "__main__":` in a script.
        method_labels: method → display name on the page, in figures and in LaTeX.
        settings: any other setting of the study `audit` (docs/commands.md) and of its model (`checkpoint`, `layer`, …).
            `output="value"` for a network whose outputs are numbers in units of their own; `tolerance` is then the
            change of the value that counts as a change of the answer.

    Raises:
        InvalidInput, ModelError, UnknownName …: before any work. StoreError: `out` cannot be used.

    Examples:
        >>> import heatproof
        >>> quick = {"perturbations": ["gaussian-noise"], "severities": [5], "resamples": 100, "progress": False}
        >>> found = heatproof.audit("shapes", "shapes", limit=2, methods=["gradcam"], out="out/audit", **quick)
        >>> print(found.sentence.split(".")[0])  # two images tell nothing
        No heatmap can be recommended on 2 images
    """
    more = {"methods": methods, "budget": budget, "method_labels": method_labels, **settings}
    given = {"labels": labels, "masks": masks}
    folder = finished("audit", model, images, given, out, Execution(workers), progress, more, normalised)
    return Audit.of(write_tables(folder))

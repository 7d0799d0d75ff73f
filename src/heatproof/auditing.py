"""`heatproof.audit`: which heatmap may be shown for a model on some images, and how far it can be trusted."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heatproof.errors import InvalidInput
from heatproof.locks import STUDIES, held
from heatproof.models import Model
from heatproof.progress import progress_bar
from heatproof.report import write_page, write_tables
from heatproof.report.findings import Findings
from heatproof.studies.loading import GIVEN_MODELS
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        sentence: the verdict. notes: its caveats.
        recommended: the method to show, None if there is none; for the first model and dataset if there are several.
        table: a data frame, a row for each method, question and test (the columns of tables/audit.csv).
        page: the page with the evidence. folder: the results; repeating the call computes only what is missing.
    """

    sentence: str
    notes: Sequence[str]
    recommended: str | None
    table: Any = field(repr=False)
    page: Path
    folder: Path

    def __str__(self) -> str:
        return "\n".join([self.sentence, *self.notes, f"Page: {self.page}"])

    @classmethod
    def of(cls, findings: Findings) -> "Audit":
        """From a finished study."""
        first = findings.audits[0]
        page = write_page(findings)
        return cls(
            first.sentence, first.notes, first.recommended, findings.tables["audit.csv"], page, findings.source.folder
        )


def audit(
    model: "str | Model",
    images: "str | os.PathLike | Iterable[str | os.PathLike]",
    *,
    labels: str | os.PathLike | None = None,
    masks: str | os.PathLike | None = None,
    budget: float | None = None,
    out: str | os.PathLike | None = None,
    methods: Sequence[str] | None = None,
    workers: int = 1,
    progress: bool = True,
    **settings: Any,
) -> Audit:
    """Tests which heatmap may be shown for a classifier on some images, and how far it can be trusted.

    It tests whether maps are faithful, stable under noise, responsive to a changed prediction, dependent on the weights
    and on the class, and, with masks, whether they point at the object.

    Args:
        model: a spec for `heatproof.load_model`, or a model that it or `heatproof.wrap` returned (then `workers` is 1).
        images: a folder, `shapes`, or files.
        labels: a CSV with the columns file,class_index or file,name, or all three.
        masks: a folder of masks or a CSV of boxes, for localisation.
        budget: time limit in minutes; as many images as fit are used.
        out: the results folder, by default a new temporary one. Repeating the call computes only what is missing.
        methods: by default eight, or seven without Ablation-CAM if that would run the network for every channel.
        workers: processes; several need the spec of a model, and `if __name__ == "__main__":` in a script.
        settings: any other setting of the study `audit` (docs/commands.md) and of its model (`checkpoint`, `layer`, …).

    Raises:
        InvalidInput, ModelError, UnknownName …: before any work. StoreError: `out` cannot be used.
    """
    from heatproof.studies.settings import ModelPlan

    if workers < 1:
        raise InvalidInput(f"`workers` must be at least 1. Got {workers}.")
    own = {"study": "another study with `heatproof run`", "models": "`model`", "datasets": "`images`"}
    for name in own.keys() & settings.keys():
        raise InvalidInput(f"`{name}` is no setting of an audit. Name {own[name]}.")
    of_model = {name: settings.pop(name) for name in list(settings) if name in ModelPlan.model_fields}
    spec = model
    if isinstance(model, Model):
        if other := sorted(of_model.keys() - {"layer", "name"}):
            raise InvalidInput(
                f"`{other[0]}` belongs to loading, and the model is loaded already. Give it to heatproof.load_model."
            )
        spec, workers, of_model["name"] = f"given:{model.name}", 1, model.name
    elif not isinstance(model, str):
        raise InvalidInput(
            f"`model` must be a spec or a heatproof model. Got {type(model).__name__}. heatproof.wrap takes a module."
        )
    dataset: dict[str, Any] = {"images": _images(images)}
    dataset |= {k: _path(k, path) for k, path in (("labels", labels), ("masks", masks)) if path is not None}
    given = {"methods": methods, "budget": budget, **settings}
    plan = checked_plan(
        {"study": "audit", "models": [{"spec": spec, **of_model}], "datasets": [dataset]}
        | {name: value for name, value in given.items() if value is not None}
    )
    folder = Path(_path("out", out)) if out is not None else Path(tempfile.mkdtemp(prefix="heatproof-audit-"))
    with held(STUDIES):  # another thread's model may have the same name
        try:
            if isinstance(model, Model):
                GIVEN_MODELS[model.name] = model
            if progress:
                with progress_bar() as bar:
                    run(plan, folder, workers=workers, progress=bar)
            else:
                run(plan, folder, workers=workers)
        finally:
            if isinstance(model, Model):
                GIVEN_MODELS.pop(model.name, None)
    return Audit.of(write_tables(folder))


def _images(given: Any) -> str | list[str]:
    """A folder or a name as text; one file, or several, as a list."""
    if isinstance(given, Iterable) and not isinstance(given, str | os.PathLike):
        files = [_path("images", file) for file in given]
        if missing := [file for file in files if not Path(file).is_file()]:
            raise InvalidInput(
                f"A list of `images` must hold files. There is no file {missing[0]}. Several sets of images go in a "
                "study file (heatproof run)."
            )
        return files
    text = _path("images", given)
    return [text] if Path(text).is_file() else text


def _path(name: str, value: Any) -> str:
    """The path as text; InvalidInput if it is none."""
    if not isinstance(value, str | os.PathLike):
        kind = "a folder, `shapes`, or files" if name == "images" else "a path"
        raise InvalidInput(f"`{name}` must be {kind}. Got {value!r:.200}.")
    return os.fspath(value)

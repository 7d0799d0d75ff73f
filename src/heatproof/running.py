"""`heatproof.run`: a study from Python, on a model and images in any form, with its tables and its page."""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from heatproof.addresses import Place, is_address, place
from heatproof.data.collected import collected
from heatproof.data.images import Images
from heatproof.data.items import is_source
from heatproof.engine import as_model
from heatproof.engine.call import input_form
from heatproof.errors import InvalidInput
from heatproof.lazy_plots import plots
from heatproof.locks import STUDIES, held
from heatproof.models import Model, load_model
from heatproof.paper_table import PaperTable
from heatproof.progress import reported
from heatproof.report import write_page, write_tables
from heatproof.report.findings import Findings
from heatproof.report.paper_tables import paper_tables
from heatproof.report.source import open_source
from heatproof.studies.datasets import GIVEN_IMAGES
from heatproof.studies.execution import Execution
from heatproof.studies.loading import GIVEN, GIVEN_MODELS
from heatproof.studies.plan import checked_plan
from heatproof.studies.prediction import Prediction
from heatproof.studies.run import run as run_plan

T = TypeVar("T")


@dataclass(frozen=True)
class StudyResults:
    """What a study found.

    Attributes:
        sentences: its answers, one for each model and set of images.
        tables: file name → data frame, those of `folder/tables`.
        page: the page.
        folder: the results; repeating the call computes only what is missing.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> model = heatproof.load_model("shapes")
        >>> more = {"metrics": ["complexity"], "progress": False, "out": "out/complexity"}
        >>> found = heatproof.run("score", model, demo_shapes(n=3), methods=["gradcam"], **more)
        >>> found.tables["scores.csv"][["method", "metric", "n"]].values.tolist()[0]
        ['gradcam', 'complexity', 3]
    """

    sentences: Sequence[str]
    tables: Mapping[str, Any] = field(repr=False)
    page: Path
    folder: Path

    def paper_tables(self, spread: str = "none") -> list[PaperTable]:
        """The tables of the page that a paper prints, each with a name of its own, made from the folder anew.

        spread: beside the mean of a score `none`, its 95 % `interval`, or `std`, the deviation over the images.
        """
        return paper_tables(Findings(open_source(self.folder)), spread)

    def plot(self, **options: Any) -> Any:
        """One figure that answers: of a noise study `heatproof.plot.robustness`, of others `heatproof.plot.scores`."""
        return plots().answer(self, **options)

    def to_latex(self, spread: str = "none") -> str:
        r"""All of them for LaTeX with `\usepackage{booktabs}`, each below a comment with its name."""
        return "\n".join(f"% {table.name}\n{table.to_latex()}" for table in self.paper_tables(spread))

    def to_markdown(self, spread: str = "none") -> str:
        """All of them in GitHub's Markdown."""
        return "\n".join(table.to_markdown() for table in self.paper_tables(spread))


def run(
    study: str,
    model: Any,
    images: Any,
    *,
    labels: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | Place | None = None,
    workers: int = 1,
    executor: str | None = None,
    address: str | None = None,
    progress: Any = True,
    normalised: bool = False,
    method_labels: Mapping[str, str] | None = None,
    **settings: Any,
) -> StudyResults:
    """Runs a study on one model and one set of images, and writes its tables and its page.

    Args:
        study: a name of `heatproof list studies`, such as `score` or `noise-robustness`.
        model: a spec for `heatproof.load_model`, or anything that `heatproof.explain` takes as a model.
        images: a folder, `shapes`, files, or anything that `heatproof.explain` takes as images: a Dataset is read once
            for its labels and again image by image, those of a DataLoader or an iterable are kept in memory.
        labels: a CSV with the columns file,class_index.
        masks: a folder of masks or a CSV of boxes.
        out: the results folder, by default a new temporary one, or an address as `s3://bucket/x` (extra `remote`).
            Repeating the call computes only what is missing.
        workers: processes; several need the spec of a model, a folder or files, and `if __name__ == "__main__":`.
        executor: `serial`, `processes` or `ray`; by default processes where there are several workers.
        address: of a Ray cluster; by default the one that RAY_ADDRESS names, else a local one.
        normalised: tensors are normalised with the model's mean and std; see `heatproof.explain`.
        progress: True for a bar with the time left in a notebook or on a terminal, and lines in a log; False for
            nothing; or a function or an object, as in `heatproof.explain`.
        method_labels: method → display name on the page, in figures and in LaTeX (`labels` in study files).
        settings: any other setting of the study (docs/commands.md) and of its model (`checkpoint`, `layer`, …).

    Raises:
        InvalidInput, ModelError, UnknownName …: before any work. StoreError: `out` cannot be used.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> model = heatproof.load_model("shapes")
        >>> more = {"metrics": ["arcc"], "progress": False, "out": "out/scores"}
        >>> found = heatproof.run("score", model, demo_shapes(n=3), methods=["gradcam", "eigencam"], **more)
        >>> found.page.name
        'report.html'
    """
    given = {"labels": labels, "masks": masks}
    settings["method_labels"] = method_labels
    execution = Execution(workers, executor, address)
    folder = finished(study, model, images, given, out, execution, progress, settings, normalised)
    findings = write_tables(folder)
    sentences = [answer.sentence for answer in findings.answers]
    return StudyResults(sentences, findings.tables, write_page(findings), folder)


def plan(
    study: str,
    model: Any,
    images: Any,
    *,
    labels: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    workers: int = 1,
    measure: float = 10.0,
    progress: Any = True,
    normalised: bool = False,
    **settings: Any,
) -> Prediction:
    """Predicts what a study takes before it runs: time, rows, passes through the network, bytes on the disk.

    Rows and passes are counted. Seconds are measured on a few of the images. Nothing is written.

    Args:
        study, model, images, labels, masks, workers, progress, normalised, settings: as of `heatproof.run`.
        measure: about how many seconds the measurement takes; more is more exact.

    Returns:
        `seconds` of one worker and `with_workers(n)`; `rows`, `passes`, `segmented`, `bytes`; `parts`: what each
        method, metric and perturbation takes, the costliest of each kind first; `compile`: whether passes without
        gradient run on a compiled copy, why, and the seconds either way; `facts`: all of it as plain values.

    Raises:
        InvalidInput, ModelError, UnknownName …: as `heatproof.run`.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> model = heatproof.load_model("shapes")
        >>> more = {"metrics": ["complexity"], "controls": "none", "measure": 0.5, "progress": False}
        >>> found = heatproof.plan("score", model, demo_shapes(n=3), methods=["gradcam"], **more)
        >>> found.rows["scores"], found.passes["shapes"].forward
        (3, 3.0)
    """
    from heatproof.studies.planning import planned

    def work(plan: Any, execution: Execution) -> Prediction:
        with reported(progress) as bar:
            return planned(plan, workers=execution.workers, measure=measure, progress=bar)

    given = {"labels": labels, "masks": masks}
    return _with_study(study, model, images, given, Execution(workers), settings, normalised, work)


def finished(
    study: str,
    model: Any,
    images: Any,
    given: dict[str, Any],
    out: str | os.PathLike[str] | Place | None,
    execution: Execution,
    progress: Any,
    settings: dict[str, Any],
    normalised: bool = False,
) -> Path:
    """The folder of a study that is run to its end; `given`: further settings of the set of images that are paths."""
    named = out if out is None or is_address(out) else path_text("out", out)
    folder = None if named is None else place(named)

    def work(plan: Any, execution: Execution) -> Path:
        there = folder or Path(tempfile.mkdtemp(prefix=f"heatproof-{study}-"))
        with reported(progress) as bar:
            run_plan(plan, there, **vars(execution), progress=bar)
        return there

    return _with_study(study, model, images, given, execution, settings, normalised, work)


def _with_study(
    study: str,
    model: Any,
    images: Any,
    given: dict[str, Any],
    execution: Execution,
    settings: dict[str, Any],
    normalised: bool,
    work: Callable[[Any, Execution], T],
) -> T:
    """What `work` gives for the checked plan and how it is run, while the given model and images have their names."""
    from heatproof.studies.settings import ModelPlan

    execution.check()
    settings |= {"labels": dict(names)} if (names := settings.pop("method_labels", None)) else {}
    own = {"study": "the study itself", "models": "`model`", "datasets": "`images`"}
    for name in own.keys() & settings.keys():
        kind = "an audit" if study == "audit" else "a study in one call"
        raise InvalidInput(f"`{name}` is no setting of {kind}. Name {own[name]}.")
    of_model = {name: settings.pop(name) for name in list(settings) if name in ModelPlan.model_fields}
    held_images = _in_memory(images)
    if isinstance(model, str) and held_images:  # the model says which form tensors have
        loading = {key: of_model.pop(key) for key in of_model.keys() - {"layer", "name", "tolerance"}}
        model = load_model(model, **loading)
    spec, models, sets = model, {}, {}
    if not isinstance(model, str):
        if other := sorted(of_model.keys() - {"layer", "name", "output", "tolerance", "classes"}):
            raise InvalidInput(
                f"`{other[0]}` belongs to loading, and the model is loaded already. Give it to heatproof.load_model."
            )
        model = as_model(model)
        spec, of_model["name"] = f"{GIVEN}{model.name}", of_model.get("name", model.name)
        models = {model.name: model}
    if held_images:
        sets, named = _given_images(images, model, given, normalised), f"given:{_SET}"  # type: ignore[arg-type]
    else:
        named = _named_images(images)
    dataset: dict[str, Any] = {"images": named}
    dataset |= {key: path_text(key, path) for key, path in given.items() if path is not None}
    if models or sets:
        execution = in_this_process(execution)
    plan = checked_plan(
        {"study": study, "models": [{"spec": spec, **of_model}], "datasets": [dataset]}
        | {name: value for name, value in settings.items() if value is not None}
    )
    with held(STUDIES):  # another thread's model may have the same name
        try:
            GIVEN_MODELS.update(models)
            GIVEN_IMAGES.update(sets)
            return work(plan, execution)
        finally:
            for registry, names in ((GIVEN_MODELS, models), (GIVEN_IMAGES, sets)):
                for name in names:
                    registry.pop(name, None)


def in_this_process(execution: Execution) -> Execution:
    """The execution for a model or images in memory, which other processes do not have.

    Raises:
        InvalidInput: workers were asked for by name.
    """
    if execution.executor not in (None, "serial"):
        raise InvalidInput(
            f"A model and images in memory are not there in other processes. Got the executor {execution.executor!r}. "
            "Give the spec of a model and a folder of images, or leave `executor` out."
        )
    return replace(execution, workers=1)


#: What the results call a set of images that has no name of its own.
_SET = "images"


def _given_images(images: Any, model: Model, given: dict[str, Any], normalised: bool) -> dict[str, Images]:
    """The images of a Dataset, a DataLoader, an iterable or a list, by the name of the set."""
    if given.get("labels") is not None:
        raise InvalidInput("`labels` goes with files. Give (image, label) pairs in place of images.")
    if isinstance(images, Images):
        return {_SET: images}
    elements = _elements(images, model, normalised)
    found = collected(elements, input_form(model, normalised), _SET)
    if given.get("masks") is not None and any(
        isinstance(found.open(i), torch.Tensor) for i in range(len(found.ids)) if found.ids[i] not in found.flags
    ):
        raise InvalidInput(
            "`masks` go through the resize and the crop of the images, and a tensor has none. Give PIL images or paths "
            "in the Dataset."
        )
    return {_SET: found}


def _elements(images: Any, model: Model, normalised: bool) -> Any:
    """A source as it is; several images in one tensor or array one by one."""
    if isinstance(images, torch.Tensor):
        if images.dim() != len(model.input_shape) + 1:
            input_form(model, normalised).checked(images)  # an error, as in `explain`
        return list(images)
    if isinstance(images, np.ndarray) and images.ndim > 3:
        return list(images)
    return images if is_source(images) or isinstance(images, list | tuple) else [images]


def _in_memory(images: Any) -> bool:
    """Whether these are a source, or images in memory, and not a folder, a name or files."""
    if isinstance(images, list | tuple | set):
        return not any(isinstance(one, str | os.PathLike) for one in images)
    return is_source(images) or isinstance(images, torch.Tensor | np.ndarray | Image.Image)


def _named_images(given: Any) -> str | list[str]:
    """A folder or a name as text; one file, or several, as a list."""
    if isinstance(given, Iterable) and not isinstance(given, str | os.PathLike):
        files = [path_text("images", file) for file in given]
        if missing := [file for file in files if not Path(file).is_file()]:
            raise InvalidInput(
                f"A list of `images` must hold files. There is no file {missing[0]}. Several sets of images go in a "
                "study file (heatproof run)."
            )
        return files
    text = path_text("images", given)
    return [text] if Path(text).is_file() else text


def path_text(name: str, value: Any) -> str:
    """The path as text; InvalidInput if it is none."""
    if not isinstance(value, str | os.PathLike):
        kind = "a folder, `shapes`, or files" if name == "images" else "a path"
        raise InvalidInput(f"`{name}` must be {kind}. Got {value!r:.200}.")
    return os.fspath(value)

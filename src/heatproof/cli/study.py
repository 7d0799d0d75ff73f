"""`heatproof run` and `heatproof report`: a study, and its page."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from heatproof.cli import options, scoretable
from heatproof.cli.options import integers, numbers, split
from heatproof.errors import InvalidInput, InvalidStudy


def run(
    study: Annotated[str, typer.Argument(help="A study's name (see `heatproof list studies`), or a YAML study file.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help=f"{options.SPECS} Repeatable."),
    ] = None,
    checkpoint: options.Checkpoint = None,
    model_arg: options.ModelArgs = None,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    layer: options.Layer = None,
    multi_label: options.MultiLabel = False,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder of pictures (flat, or one subfolder per class), `shapes`, torchvision:NAME. Repeatable."
        ),
    ] = None,
    labels: options.Labels = None,
    root: options.Root = None,
    download: options.Download = None,
    methods: Annotated[str | None, typer.Option(help="Comma-separated; see `heatproof list methods`.")] = None,
    method_from: options.MethodFrom = None,
    option: options.MethodOptions = None,
    controls: options.Controls = None,
    perturbations: Annotated[
        str | None, typer.Option(help="Comma-separated; see `heatproof list perturbations`.")
    ] = None,
    severities: Annotated[str | None, typer.Option(help="Comma-separated, among 1–5.")] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Find strengths at which given shares of the predictions flip, in place of severities."
        ),
    ] = False,
    flip_rates: Annotated[str | None, typer.Option(help="The shares for --calibrate. Default: .05,.15,.3,.5.")] = None,
    segmenter: Annotated[
        str | None, typer.Option(help="quickshift, slic, felzenszwalb, grid; several give the segmenter ablation.")
    ] = None,
    target: options.Target = None,
    limit: options.Limit = None,
    seed: options.Seed = None,
    workers: options.Workers = None,
    threads: options.Threads = None,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    out: options.Out = None,
    no_report: options.NoReport = False,
) -> None:
    """Run a study: rows, tables, statistics, a gallery and a page, in one folder; resumable."""
    from heatproof.studies.plan import checked_plan
    from heatproof.studies.settings import DEFAULT_METHODS

    settings, lines, source = _study_settings(study)
    told = options.model_settings(checkpoint, model_arg, mean, std, size, layer, multi_label)
    settings.update(models_of(settings, model, told))
    settings.update(_data_settings(settings, images, labels, root, download))
    given = {
        "methods": split(methods),
        "controls": controls,
        "perturbations": split(perturbations),
        "severities": integers("--severities", severities),
        "calibrate": _flip_rates(calibrate, flip_rates),
        "segmenters": split(segmenter),
        "target": target,
        "limit": limit,
        "seed": seed,
        "threads": threads,
        "batch_size": batch_size,
        "device": device,
    }
    settings.update({key: value for key, value in given.items() if value is not None})
    if foreign := options.methods_from(method_from):
        others = settings.get("methods", DEFAULT_METHODS)
        settings["methods"] = [*([others] if isinstance(others, str | dict) else others), *foreign]
    file_out, file_workers = settings.pop("out", None), settings.pop("workers", None)
    folder = out or file_out
    if folder is None:
        raise InvalidStudy("--out must name a folder for the results. Got none. Example: --out out/first.")
    for needed, key in (("--model", "models"), ("--images", "datasets")):
        if not settings.get(key):
            raise InvalidStudy(f"{needed} must say what to study. Got none. Try {needed} shapes.")
    plan = with_options(checked_plan(settings, lines, source), options.method_options(option))
    start(plan, Path(folder), file_workers if workers is None else workers, no_report)


def with_options(plan: Any, given: dict[str, dict[str, Any]]) -> Any:
    """The plan with `METHOD.OPTION=VALUE` set."""
    from heatproof.attributions import requested
    from heatproof.panels.asked import with_options as changed

    if not given:
        return plan
    methods = tuple(request.key for request in changed(requested(plan.methods), given))
    return plan.model_copy(update={"methods": methods})


def start(plan: Any, folder: Path, workers: int | None, no_report: bool) -> None:
    """Runs a study to its end, and reports it."""
    from heatproof import progress
    from heatproof.studies.run import run as run_study

    command = shlex.join(["heatproof", *sys.argv[1:]])
    with progress.shown() as bar:
        done = run_study(plan, folder, workers=workers, progress=bar, command=command)
        bar.stage("Tables and statistics" if no_report else "Tables, statistics and page", 0)
    kept = f", {done.kept} were there already" if done.kept else ""
    print(f"{done.ran} {'job' if done.ran == 1 else 'jobs'} done{kept}.")
    _report(folder, page=not no_report)


def _report(folder: Path, page: bool = True) -> None:
    from heatproof import report as reports

    findings = reports.write_tables(folder)
    scoretable.print_scores(findings)
    answers = [f"{answer.where}: {answer.sentence}".removeprefix(": ") for answer in findings.answers]
    print("\n" + "\n".join(answers) + "\n")
    print(f"Report: {reports.write_page(findings)}" if page else f"Tables: {folder / 'tables'}")


def report(folder: Annotated[Path, typer.Argument(help="The --out folder of `heatproof run`.")]) -> None:
    """Write the tables, the figures and the page of a study again, from its rows alone."""
    _report(folder)


def _study_settings(study: str) -> tuple[dict[str, Any], dict[str, int], str]:
    """The settings of a study file, or of a study's name alone."""
    from heatproof.plugins import PYTHON
    from heatproof.registry import unknown
    from heatproof.studies.study import study_names
    from heatproof.studies.studyfile import read_settings

    if study in study_names() or study.startswith(PYTHON):
        return {"study": study}, {}, ""
    if study.endswith((".yaml", ".yml")) or Path(study).is_file():
        settings, lines = read_settings(study)
        return settings, lines, study
    raise unknown("study (or study file)", study, study_names())


def models_of(settings: dict[str, Any], specs: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
    """The plan's `models`: those named, or those of the file with what was said of them on top."""
    if specs is None:
        if not given:
            return {}
        models = settings.get("models") or []
        models = [models] if isinstance(models, str | dict) else list(models)
        if len(models) != 1:
            raise InvalidStudy(f"--{next(iter(given)).replace('_', '-')} needs one --model. Got {len(models)}.")
        base = {"spec": models[0]} if isinstance(models[0], str) else dict(models[0])
        return {"models": [{**base, **given}]}
    if given and len(specs) > 1:
        raise InvalidStudy("Options of a model go with one --model. Got several; write a study file instead.")
    return {"models": [{"spec": spec, **given} for spec in specs]}


def _data_settings(
    settings: dict[str, Any],
    folders: list[str] | None,
    labels: Path | None,
    root: Path | None,
    download: bool | None,
) -> dict[str, Any]:
    given: dict[str, Any] = {"labels": labels and str(labels), "root": root and str(root), "download": download}
    given = {key: value for key, value in given.items() if value}
    if folders is None:
        if given:
            raise InvalidStudy(f"--{next(iter(given))} goes with --images. Got no --images.")
        return {}
    if "labels" in given and len(folders) > 1:
        raise InvalidStudy("--labels goes with one --images. Got several; write a study file instead.")
    return {"datasets": [{"images": folder, **given} for folder in folders]}


def _flip_rates(calibrate: bool, rates: str | None) -> list[float] | bool | None:
    if rates is not None and not calibrate:
        raise InvalidInput("--flip-rates goes with --calibrate. Got no --calibrate.")
    return (numbers("--flip-rates", rates) or True) if calibrate else None

"""The command line: one command per verb. Everything heavy is imported inside the commands, so `--help` is quick."""

import json
import math
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import heatproof
from heatproof.errors import HeatproofError, InvalidInput, InvalidStudy, UnknownName

app = typer.Typer(
    name="heatproof",
    help="Proves heatmaps: stresses the maps of an image classifier, and says with statistics which can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try it: `heatproof run noise-robustness --model shapes --images shapes --limit 60 --out out/demo`",
)

INTERRUPTED = 130
_STOPPED = "\nStopped. Finished jobs are kept: the same command goes on from there."
_debug = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; errors made for people are one line on stderr, tracebacks only with `--debug`."""
    global _debug
    _debug = False
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = lambda message, *_: _say(f"note: {message}")
    try:
        code = app(arguments, standalone_mode=False)
    except KeyboardInterrupt:
        _say(_STOPPED)
        _leave(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(0)
    except Exception as error:
        code = _explained(error, arguments)
        _leave(code)
    else:
        if code == INTERRUPTED:  # typer has caught the Ctrl-C and only gives its code
            _say(_STOPPED)
        _leave(code if isinstance(code, int) else 0)


def _explained(error: Exception, arguments: Sequence[str]) -> int:
    if _debug or "--debug" in arguments:
        import traceback

        traceback.print_exception(error)
        return 1
    if isinstance(error, typer.Abort):
        _say(_STOPPED)
        return INTERRUPTED
    show, exit_code = getattr(error, "show", None), getattr(error, "exit_code", None)
    if show is not None and exit_code is not None:  # the command line itself was wrong
        show()
        return int(exit_code)
    kind = "error" if isinstance(error, HeatproofError) else f"unexpected {type(error).__name__}"
    _say(f"{kind}: {error}")
    if not isinstance(error, HeatproofError):
        _say("This should have been said better: please report it, with what `--debug` shows.")
    return 2 if isinstance(error, InvalidInput | UnknownName) else 1


def _say(text: str) -> None:
    print(text.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


def _leave(code: int) -> None:
    raise SystemExit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"heatproof {heatproof.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    global _debug
    _debug = debug


@app.command(
    epilog="Example: `heatproof run noise-robustness --model timm:resnet18 --images photos/ --out out/resnet18`. "
    "The same command again finishes what is missing."
)
def run(
    study: Annotated[str, typer.Argument(help="A study's name (see `heatproof list studies`), or a YAML study file.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="timm:NAME, torchvision:NAME, hf:NAME_OR_PATH, python:package.module:factory, shapes. Repeatable."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Local weights: .safetensors, or a torch file without code.")
    ] = None,
    model_arg: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An argument of the model's constructor. Repeatable."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Normalisation mean: one value or three (`.5` or `.485,.456,.406`).")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Normalisation standard deviation: one value or three.")] = None,
    size: Annotated[str | None, typer.Option(help="Input size: a side, or height,width.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="The layer to explain; `auto` is the last feature map before pooling.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder of pictures (flat, or one subfolder per class), `shapes`, torchvision:NAME. Repeatable."
        ),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV with the columns file,class_index.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where a torchvision: dataset lies.")] = None,
    download: Annotated[
        bool | None, typer.Option("--download", help="Fetch a torchvision: dataset that is not there.")
    ] = None,
    methods: Annotated[str | None, typer.Option(help="Comma-separated; see `heatproof list methods`.")] = None,
    controls: Annotated[str | None, typer.Option(help="Uninformed maps as extra rows: all or none.")] = None,
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
    target: Annotated[
        str | None, typer.Option(help="The class explained: predicted, label, clean, least, or an index.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N pictures.")] = None,
    seed: Annotated[int | None, typer.Option(help="All random numbers come from it.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; changes no number. Default: one per core, one on a GPU.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each worker; part of the plan. Default: 1.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures per pass and per job. Default: 8, on a GPU 64.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: a GPU where there is one.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder for the results.")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Rows and tables only.")] = False,
) -> None:
    """Run a study: rows, tables, statistics, a gallery and a page, in one folder; resumable."""
    from heatproof.studies.plan import checked_plan

    settings, lines, source = _study_settings(study)
    settings.update(_model_settings(settings, model, checkpoint, model_arg, mean, std, size, layer))
    settings.update(_data_settings(settings, images, labels, root, download))
    given = {
        "methods": _split(methods),
        "controls": controls,
        "perturbations": _split(perturbations),
        "severities": _integers("--severities", severities),
        "calibrate": _flip_rates(calibrate, flip_rates),
        "segmenters": _split(segmenter),
        "target": target,
        "limit": limit,
        "seed": seed,
        "threads": threads,
        "batch_size": batch_size,
        "device": device,
    }
    settings.update({key: value for key, value in given.items() if value is not None})
    file_out, file_workers = settings.pop("out", None), settings.pop("workers", None)
    folder = out or file_out
    if folder is None:
        raise InvalidStudy("--out must name a folder for the results. Got none. Example: --out out/first.")
    for option, key in (("--model", "models"), ("--images", "datasets")):
        if not settings.get(key):
            raise InvalidStudy(f"{option} must say what to study. Got none. Try {option} shapes.")
    plan = checked_plan(settings, lines, source)
    _run(plan, Path(folder), file_workers if workers is None else workers, no_report)


def _run(plan: Any, folder: Path, workers: int | None, no_report: bool) -> None:
    from heatproof import progress
    from heatproof.studies.run import run as run_study

    command = shlex.join(["heatproof", *sys.argv[1:]])
    with progress.shown() as bar:
        done = run_study(plan, folder, workers=workers, progress=bar, command=command)
        bar.stage("Tables and statistics" if no_report else "Tables, statistics and page", 0)
    kept = f", {done.kept} were there already" if done.kept else ""
    print(f"{done.ran} jobs done{kept}.")
    _report(folder, page=not no_report)


def _report(folder: Path, page: bool = True) -> None:
    from heatproof import report as reports

    findings = reports.write_tables(folder)
    said = [f"{answer['where']}: {answer['sentence']}".removeprefix(": ") for answer in reports.answers(findings)]
    print("\n" + "\n".join(said) + "\n")
    print(f"Report: {reports.write_page(findings)}" if page else f"Tables: {folder / 'tables'}")


@app.command(epilog="Example: `heatproof report out/resnet18`")
def report(folder: Annotated[Path, typer.Argument(help="The --out folder of `heatproof run`.")]) -> None:
    """Write the tables, the figures and the page of a study again, from its rows alone."""
    _report(folder)


@app.command(
    epilog="Example: `heatproof query out/resnet18 \"select method, median(value) from rows where metric = 'rbo' "
    'and not changed group by method"`'
)
def query(
    folder: Annotated[Path, typer.Argument(help="The --out folder of `heatproof run`.")],
    sql: Annotated[str, typer.Argument(help="DuckDB SQL; the table is `rows`.")],
    format: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
) -> None:
    """Ask a study's rows anything, in SQL."""
    import duckdb

    from heatproof.studies.store import connect

    if format not in ("table", "csv", "json"):
        raise InvalidInput(f"--format must be table, csv or json. Got {format!r}.")
    try:
        found = connect(folder).execute(sql)
        columns = [column[0] for column in found.description or ()]
        rows = found.fetchall()
    except duckdb.Error as error:
        raise InvalidInput(f"The query cannot be run. {str(error).strip()}") from None
    if format == "csv":
        import csv

        csv.writer(sys.stdout, lineterminator="\n").writerows([columns, *rows])
    elif format == "json":
        found_rows = [{c: _plain(v) for c, v in zip(columns, row, strict=True)} for row in rows]
        print(json.dumps(found_rows, indent=1, ensure_ascii=False, default=str))
    else:
        _print_table(columns, [[_cell(value) for value in row] for row in rows])


@app.command(name="list", epilog="Example: `heatproof list methods --json`")
def list_(
    what: Annotated[str, typer.Argument(help="methods, perturbations, segmenters, studies or models.")],
    as_json: Annotated[bool, typer.Option("--json", help="An array of objects.")] = False,
    like: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
) -> None:
    """List what there is by name."""
    lists: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "methods": _methods,
        "perturbations": _perturbations,
        "segmenters": _segmenters,
        "studies": _studies,
        "models": _models,
    }
    if what not in lists:
        from heatproof.registry import unknown

        raise unknown("list", what, lists)
    entries = [entry for entry in lists[what]() if not like or like.lower() in entry["name"].lower()]
    if as_json:
        print(json.dumps(entries, indent=1, ensure_ascii=False, default=str))
        return
    columns = ["name", "summary", "options", "source"]
    _print_table(columns, [[_cell(entry.get(column, "")) for column in columns] for entry in entries])


def _methods() -> list[dict[str, Any]]:
    from heatproof.attributions import ATTRIBUTIONS

    return [entry.described() for entry in ATTRIBUTIONS.values()]


def _perturbations() -> list[dict[str, Any]]:
    from heatproof.perturbations import PERTURBATIONS

    return [entry.described() for entry in PERTURBATIONS.values()]


def _segmenters() -> list[dict[str, Any]]:
    from heatproof.segments import SEGMENTERS

    return [entry.described() for entry in SEGMENTERS.values()]


def _studies() -> list[dict[str, Any]]:
    from heatproof.studies.plan import STUDIES, Plan

    options = {name: field.get_default(call_default_factory=True) for name, field in Plan.model_fields.items()
               if not field.is_required() and name != "study"}  # fmt: skip
    from heatproof.perturbations import default_kinds

    options["perturbations"] = default_kinds()
    return [
        {"name": name, "summary": shows, "needs": ["models", "datasets"], "options": options,
         "source": "Sarkar et al. 2025, arXiv 2508.18154"}
        for name, shows in STUDIES.items()
    ]  # fmt: skip


def _models() -> list[dict[str, Any]]:
    from heatproof.models.available import available

    return available()


def _study_settings(study: str) -> tuple[dict[str, Any], dict[str, int], str]:
    """The settings of a study file, or of a study's name alone."""
    from heatproof.registry import unknown
    from heatproof.studies.plan import STUDIES, read_settings

    if study in STUDIES:
        return {"study": study}, {}, ""
    if study.endswith((".yaml", ".yml")) or Path(study).is_file():
        settings, lines = read_settings(study)
        return settings, lines, study
    raise unknown("study (or study file)", study, STUDIES)


def _model_settings(
    settings: dict[str, Any],
    specs: list[str] | None,
    checkpoint: Path | None,
    arguments: list[str] | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    layer: str | None,
) -> dict[str, Any]:
    options = {
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "model_args": _pairs(arguments),
        "mean": _numbers("--mean", mean, (1, 3)),
        "std": _numbers("--std", std, (1, 3)),
        "size": _integers("--size", size, (1, 2)),
        "layer": layer,
    }
    given = {key: _one(value) for key, value in options.items() if value not in (None, {})}
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


def _pairs(arguments: list[str] | None) -> dict[str, Any]:
    import yaml

    found = {}
    for argument in arguments or []:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--model-arg must be KEY=VALUE. Got {argument!r}.")
        found[key.strip()] = yaml.safe_load(value)
    return found


def _split(text: str | None) -> list[str] | None:
    """Comma-separated names; commas inside brackets belong to a name's options."""
    if text is None:
        return None
    import re

    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def _numbers(option: str, text: str | None, counts: tuple[int, ...] = (), kind: Callable = float) -> list[Any] | None:
    if text is None:
        return None
    try:
        found = [kind(part) for part in text.replace(" ", ",").split(",") if part]
    except ValueError:
        found = []
    if not found or (counts and len(found) not in counts):
        wanted = " or ".join(map(str, counts)) or "comma-separated"
        raise InvalidInput(f"{option} must be {wanted} numbers. Got {text!r}.")
    return found


def _integers(option: str, text: str | None, counts: tuple[int, ...] = ()) -> list[int] | None:
    return _numbers(option, text, counts, int)


def _flip_rates(calibrate: bool, rates: str | None) -> list[float] | bool | None:
    if rates is not None and not calibrate:
        raise InvalidInput("--flip-rates goes with --calibrate. Got no --calibrate.")
    return (_numbers("--flip-rates", rates) or True) if calibrate else None


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, header_style="bold", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    console = Console()
    if not console.is_terminal:  # piped: as wide as the content, so that nothing is cut
        console = Console(
            width=max(80, sum(max(map(len, column), default=0) + 2 for column in zip(columns, *rows, strict=True)))
        )
    console.print(table)


if __name__ == "__main__":
    main()

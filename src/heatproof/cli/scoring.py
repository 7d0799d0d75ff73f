"""`heatproof score`: pictures, methods or maps made beforehand, and metrics → scores with intervals, and a page."""

from pathlib import Path
from typing import Annotated, Any

import typer

from heatproof.cli import options, study
from heatproof.errors import InvalidInput


def score(
    pictures: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURES...",
            help="Folders (flat, or one subfolder per class), files, patterns such as 'photos/*.jpg', `shapes`, "
            "torchvision:NAME; mosaic:FOLDER puts four pictures into one, for the grid pointing game.",
        ),
    ],
    model: Annotated[list[str] | None, typer.Option(help=f"{options.SPECS} Repeatable.")] = None,
    checkpoint: options.Checkpoint = None,
    model_arg: options.ModelArgs = None,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    layer: options.Layer = None,
    multi_label: options.MultiLabel = False,
    labels: options.Labels = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Where the objects are, for metrics of localisation: a folder of masks with the pictures' names, or "
            "a CSV of boxes with the columns file,x0,y0,x1,y1."
        ),
    ] = None,
    root: options.Root = None,
    download: options.Download = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Comma-separated; see `heatproof list methods`. Default: six CAMs, none beside --maps."),
    ] = None,
    method_from: options.MethodFrom = None,
    option: options.MethodOptions = None,
    maps: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH",
            help="Maps made elsewhere: a folder of grey pictures or .npy with the pictures' names, an .npz by those "
            "names, or one array (N, H, W) in the pictures' order. Repeatable.",
        ),
    ] = None,
    controls: options.Controls = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: metrics (see `heatproof list metrics`), families such as fidelity or localisation, "
            "or all. Default: arcc,insertion,deletion."
        ),
    ] = None,
    metric_option: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC.OPTION=VALUE", help="An option of a metric, as deletion.steps=56. Repeatable."),
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
    """Score maps: how good they are by any number of metrics, in one table and one page; resumable."""
    from heatproof.studies.plan import checked_plan
    from heatproof.studies.settings import DEFAULT_METHODS

    for name, value, example in (("--model", model, "shapes"), ("--out", out, "out/scores")):
        if not value:
            raise InvalidInput(f"{name} must be given. Got none. Example: {name} {example}.")
    told = options.model_settings(checkpoint, model_arg, mean, std, size, layer, multi_label)
    given: dict[str, Any] = {
        "methods": options.split(methods),
        "maps": maps,
        "controls": controls,
        "metrics": options.split(metrics),
        "metric_options": options.method_options(metric_option, "--metric-option", "deletion.steps=56"),
        "target": target,
        "limit": limit,
        "seed": seed,
        "threads": threads,
        "batch_size": batch_size,
        "device": device,
    }
    settings = {"study": "score", **study.models_of({}, model, told)}
    settings["datasets"] = _datasets(pictures, labels, masks, root, download)
    settings |= {key: value for key, value in given.items() if value is not None and value != {}}
    if foreign := options.methods_from(method_from):
        settings["methods"] = [*settings.get("methods", () if maps else DEFAULT_METHODS), *foreign]
    plan = study.with_options(checked_plan(settings), options.method_options(option))
    study.start(plan, Path(str(out)), workers, no_report)


def _datasets(
    words: list[str], labels: Path | None, masks: Path | None, root: Path | None, download: bool | None
) -> list[dict[str, Any]]:
    """Every folder or name is a set of pictures; files are one set together."""
    import glob

    files, sets = [], []
    for word in words:
        pattern = glob.has_magic(word) and not Path(word).exists()
        found = glob.glob(word, recursive=True) if pattern else []  # noqa: PTH207 - may be absolute
        matches = sorted(name for name in found if Path(name).is_file())
        if matches or Path(word).is_file():
            files += [name for name in matches or [word] if name not in files]
        elif Path(word).is_dir() or word.partition(":")[0] in ("shapes", "torchvision", "mosaic"):
            sets.append(word)
        else:
            raise InvalidInput(
                "Pictures must be folders, files, patterns such as 'photos/*.jpg', `shapes` or torchvision:NAME. "
                f"There is no {word}."
            )
    if files:
        sets.insert(0, files)
    given = {"labels": labels, "masks": masks, "root": root}
    told: dict[str, Any] = {key: str(value) for key, value in given.items() if value}
    told |= {"download": True} if download else {}
    if told and len(sets) > 1:
        raise InvalidInput(f"--{next(iter(told))} goes with one set of pictures. Got several; write a study file.")
    return [{"images": images, **told} for images in sets]

"""What several commands take, in one place: the shapes of options, and text → values."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from heatproof.errors import InvalidInput
from heatproof.spelling import listed, scalar

Checkpoint = Annotated[Path | None, typer.Option(help="Local weights: .safetensors, or a torch file without code.")]
ModelArgs = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="An argument of the model's constructor. Repeatable.")
]
Mean = Annotated[str | None, typer.Option(help="Normalisation mean: one value or three (`.5` or `.485,.456,.406`).")]
Std = Annotated[str | None, typer.Option(help="Normalisation standard deviation: one value or three.")]
Size = Annotated[str | None, typer.Option(help="Input size: a side, or height,width.")]
Layer = Annotated[str | None, typer.Option(help="The layer to explain; `auto` is the last feature map before pooling.")]
MultiLabel = Annotated[
    bool, typer.Option("--multi-label", help="Labels do not exclude each other: probabilities are sigmoids.")
]
MethodFrom = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SPEC",
        help="A method from elsewhere, beside --methods: python:package.module:function, or maps:FOLDER (or an .npz) "
        "of maps made beforehand. Repeatable.",
    ),
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(metavar="METHOD.OPTION=VALUE", help="An option of a method, as rise.masks=8000. Repeatable."),
]
Labels = Annotated[Path | None, typer.Option(help="CSV with the columns file,class_index.")]
Limit = Annotated[int | None, typer.Option(help="Only the first N pictures.")]
Seed = Annotated[int | None, typer.Option(help="All random numbers come from it.")]
Controls = Annotated[str | None, typer.Option(help="Uninformed maps as extra rows: all or none.")]
Target = Annotated[str | None, typer.Option(help="The class explained: predicted, label, clean, least, or an index.")]
Root = Annotated[Path | None, typer.Option(help="Where a torchvision: dataset lies.")]
Download = Annotated[bool | None, typer.Option("--download", help="Fetch a torchvision: dataset that is not there.")]
Workers = Annotated[int | None, typer.Option(help="Processes; changes no number. Default: one per core, one on a GPU.")]
Threads = Annotated[int | None, typer.Option(help="Threads of each worker; part of the plan. Default: 1.")]
BatchSize = Annotated[int | None, typer.Option(help="Pictures per pass and per job. Default: 8, on a GPU 64.")]
Out = Annotated[Path | None, typer.Option(help="The folder for the results.")]
NoReport = Annotated[bool, typer.Option("--no-report", help="Rows and tables only.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: a GPU where there is one.")]
SPECS = "timm:NAME, torchvision:NAME, hf:NAME_OR_PATH, python:package.module:factory, shapes."


def model_settings(
    checkpoint: Path | None,
    arguments: list[str] | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    layer: str | None,
    multi_label: bool,
) -> dict[str, Any]:
    """What was said of the model, by the names that `load_model` and study files have for it."""
    found = {
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "model_args": pairs(arguments),
        "mean": numbers("--mean", mean, (1, 3)),
        "std": numbers("--std", std, (1, 3)),
        "size": integers("--size", size, (1, 2)),
        "layer": layer,
        "multi_label": multi_label or None,
    }
    return {key: _one(value) for key, value in found.items() if value not in (None, {})}


def pairs(arguments: list[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` arguments of a model, values read as YAML scalars."""
    found = {}
    for argument in arguments or []:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--model-arg must be KEY=VALUE. Got {argument!r}.")
        found[key.strip()] = scalar(value)
    return found


def split(text: str | None) -> list[str] | None:
    """Comma-separated names; commas inside brackets belong to a name's options."""
    if text is None:
        return None
    return listed(text)


def methods_from(specs: list[str] | None) -> list[str]:
    """What `--method-from` names; the spelling is the method's name."""
    for spec in specs or []:
        if not spec.startswith(("python:", "maps:")):
            raise InvalidInput(
                f"--method-from must be python:package.module:function or maps:FOLDER. Got {spec!r}. "
                "Methods of heatproof go with --methods."
            )
    return list(specs or [])


def method_options(
    given: list[str] | None, name: str = "--option", example: str = "rise.masks=8000"
) -> dict[str, dict[str, Any]]:
    """`METHOD.OPTION=VALUE` → method → options, values read as YAML scalars; the same for metrics."""
    found: dict[str, dict[str, Any]] = {}
    for text in given or []:
        match = re.fullmatch(r"\s*([^=]+?)\.([^.=]+?)\s*=\s*(.*)", text)
        if not match:
            kind = "METRIC" if "metric" in name else "METHOD"
            raise InvalidInput(f"{name} must be {kind}.OPTION=VALUE, as {example}. Got {text!r}.")
        found.setdefault(match[1], {})[match[2]] = scalar(match[3])
    return found


def numbers(option: str, text: str | None, counts: tuple[int, ...] = (), kind: Callable = float) -> list[Any] | None:
    """Comma-separated numbers, as many as one of `counts` says."""
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


def integers(option: str, text: str | None, counts: tuple[int, ...] = ()) -> list[int] | None:
    """Comma-separated whole numbers."""
    return numbers(option, text, counts, int)


def _one(value: Any) -> Any:
    return value[0] if isinstance(value, list) and len(value) == 1 else value

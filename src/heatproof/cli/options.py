"""Options of commands, made from the settings that they set; and text → values."""

import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from heatproof.addresses import folder_here, lasting_place
from heatproof.errors import InvalidInput
from heatproof.spelling import listed, scalar


def parsed_by(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse` for the value of an option: its InvalidInput is the command line's error, in the same words."""

    def parsed(value: str) -> Any:
        try:
            return parse(value)
        except InvalidInput as error:
            raise typer.BadParameter(str(error)) from None

    return parsed


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
OtherSettings = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="A setting that has no option, as of a study of your own; the value as in a study file. Repeatable.",
    ),
]
Workers = Annotated[int | None, typer.Option(help="Processes; changes no number. Default: one per core, one on a GPU.")]
Executor = Annotated[
    str | None,
    typer.Option(
        help="What runs the jobs: serial, processes, or ray (a cluster, or a local one); changes no number. Default: "
        "processes, or serial with one worker."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="Of a Ray cluster, as ray://head:10001 or auto. Default: RAY_ADDRESS, else a local one."),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="MINUTES",
        help="Without progress for so long, a worker is ended and its job begun again; 0 waits for ever. Not with "
        "serial. Default: 60.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        parser=parsed_by(lasting_place),
        metavar="PATH",
        help="The folder for the results, or an address as s3://bucket/x.",
    ),
]
#: As a `typer.Option` takes it: a folder, and no address.
HERE: Any = {"parser": parsed_by(folder_here), "metavar": "PATH"}
#: A folder of results, or its address.
Results = Annotated[
    Path,
    typer.Argument(
        parser=parsed_by(lasting_place), metavar="FOLDER", help="The --out folder of `heatproof run`, or its address."
    ),
]
ShardOf = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Only the I-th of N shards of the study, as 3/40, for a machine of its own: rows and maps, no page. "
        "`heatproof merge` puts them together.",
    ),
]
Latex = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Also write the tables of the page for LaTeX (booktabs), a .tex file for each."
    ),
]
Spread = Annotated[
    str,
    typer.Option(help="In LaTeX beside a mean: none, interval (95 %), or std, the deviation over the images."),
]
Measure = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Also predict the time beforehand, from so many seconds of measurement, and tell it beside the fact.",
    ),
]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Run the code that the study file or the results name (python:…, pickles). Only where you trust them.",
    ),
]
NoReport = Annotated[bool, typer.Option("--no-report", help="Rows and tables only: no gallery, no page.")]
Pdf = Annotated[bool, typer.Option("--pdf", help="Also print the page to report.pdf, with Chromium or Chrome.")]
SPECS = "timm:NAME, torchvision:NAME, hf:NAME_OR_PATH, pypi:efficientnet-lite0, python:package.module:factory, shapes."
#: How sizes of shapes are given.
SHAPE_SIZES = "Of shapes: ranges of their sizes in pixels, as 36-45,24-29 (the demo's, of 96). By default as paper R."
Models = Annotated[list[str] | None, typer.Option(help=f"{SPECS} Repeatable.")]


Images = Annotated[
    list[str] | None,
    typer.Option(help="A folder of images (flat, or one subfolder per class), `shapes`, torchvision:NAME. Repeatable."),
]
#: The shares for --calibrate.
FlipRates = Annotated[str | None, typer.Option(help="The shares for --calibrate. Default: .05,.15,.3,.5.")]
Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate", help="Find strengths at which given shares of the predictions flip, in place of severities."
    ),
]


class Asked(NamedTuple):
    """What `run` and `plan` take beside the study's name: its settings."""

    model: Models = None
    images: Images = None
    given: Any = None
    calibrate: Calibrate = False
    flip_rates: FlipRates = None
    setting: OtherSettings = None
    allow_code: AllowCode = False


class Running(NamedTuple):
    """What every command that runs a study takes besides the settings: how it runs, and where the results go."""

    method_from: MethodFrom = None
    option: MethodOptions = None
    workers: Workers = None
    executor: Executor = None
    address: Address = None
    timeout: Timeout = None
    out: Out = None
    no_report: NoReport = False
    pdf: Pdf = False
    latex: Latex = None
    spread: Spread = "none"
    measure: Measure = None
    shard: ShardOf = None


#: Settings whose option has a name in the singular → that name.
SINGULAR = {
    **{"segmenters": "segmenter", "metric_options": "metric_option", "model_args": "model_arg"},
    "labels": "label",  # of methods; a set of images has --labels, which are text
}

#: How the values of some settings are written.
METAVARS = {"metric_options": "METRIC.OPTION=VALUE", "label": "METHOD=NAME"}


class OptionSetting(NamedTuple):
    """One setting of a class of settings, as an option."""

    name: str
    field: FieldInfo

    @property
    def parameter(self) -> str:
        """The name of the command's parameter."""
        return self.name if self.kind[0] == "text" else SINGULAR.get(self.name, self.name)

    @property
    def option(self) -> str:
        """As it is typed: `--batch-size`."""
        return f"--{self.parameter.replace('_', '-')}"

    @property
    def kind(self) -> tuple[str, tuple[int, ...]]:
        """The kind of value (`flag`, `text`, `int`, `float`, `pairs`, `maps`, `names`, `ints`, `floats`), how many."""
        return _kind(self.field.annotation)

    @property
    def words(self) -> tuple[str, ...]:
        """The words that the option takes in place of numbers."""
        found = [typing.get_args(part) for part in typing.get_args(self.field.annotation)
                 if typing.get_origin(part) is typing.Literal]  # fmt: skip
        return found[0] if found else ()

    @property
    def takes_one(self) -> bool:
        """Whether the setting may be one number in place of several."""
        parts = typing.get_args(self.field.annotation)
        return any(typing.get_origin(part) is tuple for part in parts) and bool({int, float} & set(parts))

    @property
    def help(self) -> str:
        """The field's description, and its default."""
        text, default = self.field.description or "", self.field.get_default(call_default_factory=True)
        commas = " With commas." if self.kind[0] in ("names", "ints", "floats") else ""
        if isinstance(default, tuple) and default and not isinstance(default[0], BaseModel):
            default = ",".join(map(str, default))
        plain = isinstance(default, str | int | float) and not isinstance(default, bool)
        known = f" Default: {default}." if plain and "Default" not in text and f"`{default}`" not in text else ""
        return f"{text}{commas}{known}"

    def declared(self) -> inspect.Parameter:
        """The command's parameter, for typer."""
        kind = self.kind[0]
        several = kind in ("pairs", "maps")
        metavar = METAVARS.get(self.name, METAVARS.get(self.parameter)) or {
            "pairs": "KEY=VALUE",
            "maps": "[NAME=]PATH",
        }.get(kind)
        plain: Any = {"flag": bool, "int": int, "float": float}.get(kind, list[str] if several else str)
        repeatable = " Repeatable." if several else ""
        option = typer.Option(self.option, help=f"{self.help}{repeatable}", metavar=metavar)
        default = False if kind == "flag" else None
        wanted: Any = plain if default is False else plain | None
        annotation = Annotated[wanted, option]
        return inspect.Parameter(self.parameter, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    def read(self, value: Any) -> Any:
        """The typed value as the settings take it; None where nothing was typed."""
        kind, counts = self.kind
        if value is None or value is False or value == []:
            return None
        if self.name == "metric_options":
            return method_options(value, self.option, "deletion.steps=56")
        if self.name == "labels" and kind == "pairs":
            return display_names(value, self.option)
        if kind == "pairs":
            return pairs(value, self.option)
        if kind == "names":
            return split(value)
        if kind in ("ints", "floats"):
            if str(value).strip().lower() in self.words:
                return str(value).strip().lower()
            found = numbers(self.option, value, counts, int if kind == "ints" else float) or []
            one = len(found) == 1 and (counts or self.takes_one)
            return found[0] if one else found
        return value


def _kind(annotation: Any) -> tuple[str, tuple[int, ...]]:
    parts = [part for part in typing.get_args(annotation) if part is not type(None)] or [annotation]
    origin = typing.get_origin(annotation)
    if origin is dict:
        return "pairs", ()
    if origin is tuple:
        if isinstance(parts[0], type) and issubclass(parts[0], BaseModel):
            return "maps", ()
        return {int: "ints", float: "floats"}.get(parts[0], "names"), ()
    if origin is typing.Literal:
        return "text", ()
    several = next((part for part in parts if typing.get_origin(part) is tuple), None)
    if several is not None:  # as many numbers as the tuple has, or one
        inside = typing.get_args(several)
        if inside[0] is str:  # a file, or names in a study file
            return "text", ()
        if Ellipsis in inside:
            return ("ints" if inside[0] is int else "floats"), ()
        counts = (1, len(inside)) if inside[0] in parts else (len(inside),)
        return "ints" if inside[0] is int else "floats", counts
    return {bool: "flag", int: "int", float: "float"}.get(parts[0], "text"), ()


def settings_of(
    *owners: type[BaseModel], names: Collection[str] = (), without: Collection[str] = ()
) -> list[OptionSetting]:
    """The settings of some classes, each name once; those of `names` only, where there are any."""
    found: dict[str, OptionSetting] = {}
    for owner in owners:
        for name, field in owner.model_fields.items():
            if name not in without and (not names or name in names):
                found.setdefault(name, OptionSetting(name, field))
    return list(found.values())


def with_settings(*settings: Sequence[OptionSetting]) -> Callable:
    """Decorator: the command has an option for each of these settings, and gets the typed values as `given`, a mapping.

    The options stand where `given` stands in the command's own parameters; those of `Asked` and of `Running` where
    `asked` and `running` stand.
    """
    groups = {"asked": Asked, "running": Running}
    named = lambda function: [one.replace(kind=inspect.Parameter.KEYWORD_ONLY)  # noqa: E731
                              for one in inspect.signature(function, eval_str=True).parameters.values()]  # fmt: skip

    def decorate(command: Callable) -> Callable:
        made = [setting.declared() for group in settings for setting in group]
        own, names = named(command), {parameter.name for parameter in made}
        wide = {name: named(groups[name]) for name in groups if any(parameter.name == name for parameter in own)}
        parameters = [parameter for one in own for parameter in wide.get(one.name, [one])]
        parameters = [parameter for one in parameters for parameter in (made if one.name == "given" else [one])]

        def called(**typed: Any) -> Any:
            typed["given"] = {name: typed.pop(name) for name in names}
            packed = {name: groups[name](**{one.name: typed.pop(one.name) for one in wide[name]}) for name in wide}
            return command(**packed, **typed)

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        return called

    return decorate


def values(settings: Iterable[OptionSetting], given: Mapping[str, Any]) -> dict[str, Any]:
    """The typed values by the names of the settings."""
    found = {setting.name: setting.read(given.get(setting.parameter)) for setting in settings}
    return {name: value for name, value in found.items() if value is not None}


def pairs(arguments: Sequence[str], name: str) -> dict[str, Any]:
    """`KEY=VALUE` arguments, values read as YAML scalars."""
    found = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise InvalidInput(f"{name} must be KEY=VALUE. Got {argument!r}.")
        found[key.strip()] = scalar(value)
    return found


def display_names(arguments: Sequence[str] | None, option: str = "--label") -> dict[str, str]:
    """`METHOD=NAME` arguments; an equals sign in brackets belongs to the method, and the name is text as it stands."""
    found: dict[str, str] = {}
    for argument in arguments or []:
        match = re.fullmatch(r"((?:[^=\[\]]|\[[^\]]*\])+)=(.+)", argument, re.DOTALL)
        if not match:
            raise InvalidInput(f"{option} must be METHOD=NAME, as layercam='LayerCAM (ours)'. Got {argument!r}.")
        if match[1].strip() in found:
            raise InvalidInput(f"{option} must name each method once. Got {match[1].strip()!r} twice.")
        found[match[1].strip()] = match[2].strip()
    return found


def split(text: str | None) -> list[str] | None:
    """Comma-separated names; commas inside brackets belong to a name's options."""
    return None if text is None else listed(text)


def methods_from(specs: list[str] | None) -> list[str]:
    """The methods of `--method-from`, checked; the spelling is the method's name."""
    for spec in specs or []:
        if not spec.startswith(("python:", "maps:")):
            raise InvalidInput(
                f"--method-from must be python:package.module:function or maps:FOLDER. Got {spec!r}. "
                "Methods of heatproof go with --methods."
            )
    return list(specs or [])


def method_options(
    given: Sequence[str] | None, name: str = "--option", example: str = "rise.masks=8000"
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
    """Comma-separated numbers; their count must be one of `counts`, where there are any."""
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

"""The command line: one command per verb. Everything heavy is imported inside the commands, so `--help` is quick."""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

import heatproof
from heatproof.cli import (
    check_command,
    cite_command,
    data_commands,
    demo_command,
    explain_commands,
    fit_command,
    layers_command,
    listing,
    study_commands,
    view_command,
    why,
)
from heatproof.errors import HeatproofError, InvalidInput, UnknownName

app = typer.Typer(
    name="heatproof",
    help="Proves heatmaps: stresses the maps of an image classifier, and says with statistics which can be trusted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Try it: `heatproof demo --out out/demo`",
)

INTERRUPTED = 130
_STOPPED = "\nStopped. Finished jobs are kept: the same command goes on from there."
_debug = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; an error is one line on stderr, with a traceback only where `--debug` is given."""
    global _debug
    _debug = False
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    told: set[str] = set()
    warnings.showwarning = lambda message, *_: _note(str(message), told)
    try:
        code = app(arguments, standalone_mode=False)
    except KeyboardInterrupt:
        _say(_STOPPED)
        _leave(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(0)
    except Exception as error:
        code = _report_error(error, arguments)
        _leave(code)
    else:
        if code == INTERRUPTED:  # typer has caught the Ctrl-C and only gives its code
            _say(_STOPPED)
        _leave(code if isinstance(code, int) else 0)


def _report_error(error: Exception, arguments: Sequence[str]) -> int:
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


def _note(message: str, told: set[str]) -> None:
    """A warning on stderr, once for each command: a folder of images would repeat it for every file."""
    if message not in told:
        told.add(message)
        _say(f"note: {message}")


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


app.command(epilog="Example: `heatproof demo --out out/demo`. The same command again goes on where it was stopped.")(
    demo_command.demo
)
app.command(
    epilog="Example: `heatproof run noise-robustness --model timm:resnet18 --images photos/ --out out/resnet18`. "
    "The same command again finishes what is missing. `heatproof run out/resnet18 --out out/again` repeats a study."
)(study_commands.run)
app.command(
    epilog="Example: `heatproof explain shapes --limit 6 --model shapes --methods gradcam,refine:layercam "
    "--out out/maps`. The same command again goes on where it was stopped."
)(explain_commands.explain)
app.command(
    epilog="Example: `heatproof check shapes shapes --limit 12 --out out/check`. With `--reference FILE.csv` the exit "
    "code is 1 where a prediction differs, or a probability by more than .02."
)(check_command.check)
app.command(
    epilog="Example: `heatproof score shapes --limit 12 --model shapes --methods gradcam,layercam --metrics "
    "average-drop,road,arcc --out out/scores`. The same command again finishes what is missing."
)(study_commands.score)
app.command(
    epilog="Example: `heatproof audit --model shapes --images shapes --limit 24 --segmenter grid --out out/audit`. "
    "`--budget 10` takes as many images as fit into ten minutes."
)(study_commands.audit)
app.command(
    epilog="Example: `heatproof view out/audit`, or `heatproof view --model shapes --images shapes --limit 24`. "
    "Ctrl-C stops it."
)(view_command.view)
app.command(
    epilog="Example: `heatproof report out/resnet18 --latex paper/tables --reference layercam --label "
    "layercam='LayerCAM (ours)'`"
)(study_commands.report)
app.command(epilog="Example: `heatproof cite out/resnet18 --out paper`")(cite_command.cite)
app.command(
    epilog="Example: `heatproof query out/resnet18 \"select method, median(value) from rows where metric = 'rbo' "
    'and not changed group by method"`'
)(listing.query)
app.command(
    epilog="Example: `heatproof fit shapes --model shapes --image-size 96 --limit 60 --epochs 1 --out out/fit`. "
    "The same command again goes on where it was stopped."
)(fit_command.fit)
app.add_typer(data_commands.app, name="data")
app.command(epilog="Example: `heatproof layers timm:resnet18 --model-arg pretrained=false --like layer4`")(
    layers_command.layers
)
app.command(epilog="Example: `heatproof why adcc`")(why.why)
app.command(name="list", epilog="Example: `heatproof list methods --json`")(listing.list_)

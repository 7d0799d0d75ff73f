"""The command line: one command per verb. Everything heavy is imported inside the commands, so `--help` is quick."""

import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import heatproof
from heatproof.cli.commands import COMMANDS, add, add_names
from heatproof.errors import HeatproofError, InvalidInput, UnknownName

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
        code = _app_for(arguments)(arguments, standalone_mode=False)
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


#: Packages that speak to file systems elsewhere, whose errors are those of an address.
REMOTE = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "s3fs")


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
    if type(error).__module__.partition(".")[0] in REMOTE:
        _say(f"error: The address cannot be used. {error} Check it, its endpoint and the credentials.")
        return 1
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
    print(harmless(text), file=sys.stderr)


def harmless(text: str) -> str:
    """A text for a terminal: what would steer it, as in the name of a file, is written as an escape."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", plain)


def _leave(code: int) -> None:
    raise SystemExit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"heatproof {heatproof.__version__}")
        raise typer.Exit


def _bare() -> typer.Typer:
    """The program with its own options, without commands."""
    made = typer.Typer(
        name="heatproof",
        help="Proves heatmaps: stresses the maps of an image classifier, and says with statistics which can be "
        "trusted.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Try it: `heatproof demo --out out/demo`",
    )
    made.callback()(_common)
    return made


def _app_for(arguments: Sequence[str]) -> typer.Typer:
    """The program with the command that is called; with all by name where none is, or none of that name."""
    made = _bare()
    name = next((word for word in arguments if not word.startswith("-")), "")
    if name in COMMANDS:
        add(made, [name])
    else:
        add_names(made)
    return made


def __getattr__(name: str) -> Any:
    """`app`: the program with all commands, which imports the modules of all."""
    if name != "app":
        raise AttributeError(f"module 'heatproof.cli' has no attribute {name!r}.")
    made = _bare()
    add(made, COMMANDS)
    return globals().setdefault("app", made)


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    global _debug
    _debug = debug

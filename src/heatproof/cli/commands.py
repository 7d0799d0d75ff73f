"""The commands by name: where each is, its line in `heatproof --help`, and an example. A command is imported on use."""

from collections.abc import Iterable
from importlib import import_module
from typing import NamedTuple

import typer


class Command(NamedTuple):
    """A command, or a group of commands.

    where: its module in `heatproof.cli` and its function, or the group. summary: the first paragraph of the function's
    docstring. example: what its help ends with.
    """

    where: str
    summary: str
    example: str = ""

    def load(self) -> object:
        """Its function, or the group."""
        module, _, name = self.where.partition(":")
        return getattr(import_module(f"heatproof.cli.{module}"), name)


COMMANDS = {
    "demo": Command(
        "demo_command:demo",
        "Show what heatproof does: maps of real photographs, an audit of a small network, one page; nothing "
        "is downloaded.",
        "Example: `heatproof demo --out out/demo`. The same command again goes on where it was stopped.",
    ),
    "run": Command(
        "study_commands:run",
        "Run a study: rows, tables, statistics, a gallery and a page, in one folder; resumable.",
        "Example: `heatproof run noise-robustness --model timm:resnet18 --images photos/ --out out/resnet18`. "
        "The same command again finishes what is missing. `heatproof run out/resnet18 --out out/again` "
        "repeats a study.",
    ),
    "plan": Command(
        "plan_command:plan",
        "Say what a study will take before it runs: time, passes, rows, disk, and which part costs most.",
        "Example: `heatproof plan noise-robustness --model shapes --images shapes --limit 60 --segmenter grid "
        "--workers 2`. Nothing is written. `heatproof plan study.yaml --json` is for programs.",
    ),
    "explain": Command(
        "explain_commands:explain",
        "Explain images: for each a panel (PNG) and its maps (NumPy), and one page; goes on where it was stopped.",
        "Example: `heatproof explain shapes --limit 6 --model shapes --methods gradcam,refine:layercam --out "
        "out/maps`. The same command again goes on where it was stopped.",
    ),
    "check": Command(
        "check_command:check",
        "Show what a network sees of images and predicts, beside labels and predictions made elsewhere.",
        "Example: `heatproof check shapes shapes --limit 12 --out out/check`. With `--reference FILE.csv` the "
        "exit code is 1 where a prediction differs, or a probability by more than .02.",
    ),
    "score": Command(
        "study_commands:score",
        "Score maps: how good they are by any number of metrics, in one table and one page; resumable.",
        "Example: `heatproof score shapes --limit 12 --model shapes --methods gradcam,layercam --metrics "
        "average-drop,road,arcc --out out/scores`. The same command again finishes what is missing.",
    ),
    "audit": Command(
        "study_commands:audit",
        "Say which heatmap may be shown for a model on some images, and how far it can be trusted; resumable.",
        "Example: `heatproof audit --model shapes --images shapes --limit 24 --segmenter grid --out "
        "out/audit`. `--budget 10` takes as many images as fit into ten minutes.",
    ),
    "merge": Command(
        "study_commands:merge",
        "Put the shards of a study together, and write its gallery, tables and page.",
        "Example: `heatproof merge out/big`, once the commands with `--out out/big --shard 1/2` and `--shard 2/2` "
        "are done.",
    ),
    "view": Command(
        "view_command:view",
        "Look at maps in the browser: noise and maps together, a brush that erases, scores; on this machine only.",
        "Example: `heatproof view out/audit`, or `heatproof view --model shapes --images shapes --limit 24`. "
        "Ctrl-C stops it.",
    ),
    "report": Command(
        "study_commands:report",
        "Write the tables, the figures and the page of a study again, from its rows alone; and tables for LaTeX.",
        "Example: `heatproof report out/resnet18 --latex paper/tables --reference layercam --label "
        "layercam='LayerCAM (ours)'`",
    ),
    "cite": Command(
        "cite_command:cite",
        "Write what a paper cites of a study: a paragraph on its methods with \\cite, and BibTeX entries.",
        "Example: `heatproof cite out/resnet18 --out paper`",
    ),
    "query": Command(
        "listing:query",
        "Ask a study's rows anything, in SQL.",
        "Example: `heatproof query out/resnet18 \"select method, median(value) from rows where metric = 'rbo' "
        'and not changed group by method"`',
    ),
    "fit": Command(
        "fit_command:fit",
        "Fine-tune a network on Shapes, or on a folder of yours, so that ground truth applies to its maps.",
        "Example: `heatproof fit shapes --model shapes --image-size 96 --limit 60 --epochs 1 --out out/fit`. "
        "The same command again goes on where it was stopped.",
    ),
    "data": Command(
        "data_commands:app",
        "Make sets of images whose ground truth is known.",
    ),
    "layers": Command(
        "layers_command:layers",
        "List the layers of a network that can be explained, shallow to deep, with shapes, stages and the default.",
        "Example: `heatproof layers timm:resnet18 --model-arg pretrained=false --like layer4`",
    ),
    "why": Command(
        "why:why",
        "Say in plain words what a method or a metric does, and what is known to mislead in it.",
        "Example: `heatproof why adcc`",
    ),
    "list": Command(
        "listing:list_",
        "List what there is by name.",
        "Example: `heatproof list methods --json`",
    ),
}


def add(app: typer.Typer, names: Iterable[str]) -> None:
    """Adds commands with all their options; their modules are imported."""
    for name in names:
        command = COMMANDS[name]
        found = command.load()
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name=name, epilog=command.example)(found)  # type: ignore[type-var]


def add_names(app: typer.Typer) -> None:
    """Adds all commands by name and summary alone, as `heatproof --help` shows them."""
    for name, command in COMMANDS.items():
        app.command(name=name, help=command.summary)(_nothing)


def _nothing() -> None:
    """Stands for a command in a list of commands."""

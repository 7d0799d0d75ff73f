"""`heatproof demo`: what heatproof does, seen in about two minutes, without a download."""

import shlex
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from heatproof.cli import options, study_commands

#: Images of the audit: enough for a verdict in a minute or so.
LIMIT = 24


def demo(
    out: Annotated[
        Path,
        typer.Option(**options.HERE, help="A new folder for the pages, or that of an earlier demo, which goes on."),
    ] = Path("out/demo"),
    limit: Annotated[int, typer.Option(help="Images of the audit. More take longer and tell more.")] = LIMIT,
    workers: options.Workers = None,
) -> None:
    """Show what heatproof does: maps of real photographs, an audit of a small network, one page; nothing is downloaded.

    The photographs come with scikit-image, their network with the extra `demo` of heatproof (18 MB).
    """
    plan = _plan(limit)
    from heatproof.demo import photographs, results

    with results.opened(out):
        missing = photographs.missing()
        seen = None if missing else _explain_photographs(out / results.PHOTOGRAPHS)
        print(f"\n{textwrap.fill(missing, 100)}\n" if missing else "")
        print(f"Part 2: the same methods on the bundled network and {limit} images of shapes. Which may be shown?")
        findings = study_commands.start(plan, out / results.SHAPES, options.Running(workers=workers))
        first = findings.answers[0]
        audit = results.AuditPart(first.sentence, first.details, f"{results.SHAPES}/report.html")
        print(f"\nStart here: {results.write_index(out, seen, missing, audit)}")


def _plan(limit: int) -> Any:
    """The audit, checked before anything is computed."""
    from heatproof.demo.photographs import METHODS
    from heatproof.studies.plan import checked_plan

    settings = {"study": "audit", "models": ["shapes"], "datasets": ["shapes"], "methods": list(METHODS)}
    return checked_plan({**settings, "segmenters": ["grid"], "limit": limit})


def _explain_photographs(folder: Path) -> Any:
    from heatproof import progress
    from heatproof.demo import photographs

    print("Part 1: photographs, explained for EfficientNet-Lite0, which was trained on ImageNet.")
    with progress.progress_bar() as bar:
        seen = photographs.explained_photographs(folder, bar, shlex.join(["heatproof", *sys.argv[1:]]))
    for name, predicted, _, licence in seen.lines:
        print(f"{name:<11}{predicted}  (photograph: {licence})")
    print(f"Page: {seen.page}")
    return seen

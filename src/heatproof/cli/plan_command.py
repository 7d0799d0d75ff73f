"""`heatproof plan STUDY`: what a study will take, before it runs."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from heatproof.cli import options
from heatproof.cli.listing import print_table
from heatproof.cli.options import with_settings
from heatproof.cli.study_commands import ANY, DATASET, MODEL, asked_study

#: The kinds of parts, as they are told.
KINDS = {"method": "method", "control": "control", "metric": "metric", "change": "noise or change", "model": "model"}
#: What to do about a part that takes more than half.
ADVICE = {
    "method": "Leave it out of --methods, or give it fewer samples (--option; see `heatproof why {}`)",
    "control": "--controls none leaves the controls out",
    "metric": "Leave it out of the metrics, or give it fewer steps or samples (see `heatproof why {}`)",
    "change": "Leave it out, or take fewer --severities",
    "model": "Study it by itself, or on fewer images",
}
#: The most parts of a kind in a table, unless all are asked for.
MOST = 12


@with_settings(MODEL, DATASET, ANY)
def plan(
    study: Annotated[
        str,
        typer.Argument(
            help="A study's name (see `heatproof list studies`), a YAML study file, or a folder of results: what "
            "`heatproof run` takes, with the same options."
        ),
    ],
    asked: Any = None,
    method_from: options.MethodFrom = None,
    option: options.MethodOptions = None,
    workers: options.Workers = None,
    measure: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a few images are measured; longer is more exact.")
    ] = 10.0,
    others: Annotated[
        bool, typer.Option("--others", help="Also what every method and metric that the study has not would add.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
) -> None:
    """Say what a study will take before it runs: time, passes, rows, disk, and which part costs most."""
    foreign = options.methods_from(method_from)
    typed = asked_study(study, asked)
    checked = typed.plan(foreign, option)
    from heatproof import progress
    from heatproof.studies.planning import planned

    with progress.progress_bar() as bar:
        workers = typed.how.get("workers") if workers is None else workers
        found = planned(checked, workers=workers, measure=measure, others=others, progress=bar)
    if as_json:
        print(json.dumps(found.facts, indent=1, ensure_ascii=False))
        return
    for line in sentences(found):
        print(line)
    _print_passes(found)
    print("\nEach table below divides the same time.")
    _print_parts(found.parts, "time", "share")
    if found.others:
        print("\nNot in the study; each would add, by its passes alone:")
        _print_parts(found.others, "time added", "of the study", most=len(found.others))


def sentences(found: Any) -> Iterator[str]:
    """What a study takes, the answer first."""
    from heatproof.statistics.wording import counted
    from heatproof.studies.prediction import duration

    many, one = min(found.workers, found.jobs), duration(found.with_workers(1))
    images, rows = sum(found.images.values()), sum(found.rows.values())
    if many > 1:
        yield f"This study takes about {duration(found.with_workers(many))} with {many} workers, {one} with one."
    else:
        yield f"This study takes about {one} with one worker."
    models = f" × {counted(len(found.passes), 'model')}" if len(found.passes) > 1 else ""
    size = f"{file_size(found.bytes['rows'])} of rows, {file_size(found.bytes['maps'])} of maps"
    gallery = f", at most {file_size(found.bytes['gallery'])} of gallery" if found.bytes["gallery"] else ""
    yield f"{counted(images, 'image')}{models} in {counted(found.jobs, 'job')}; {counted(rows, 'row')}."
    yield f"On the disk: about {size}{gallery}."
    if found.segmented:
        yield f"Cut into segments: {counted(found.segmented, 'image')}."
    for cost in found.compile:
        yield from textwrap.wrap(about_copy(cost), 100)
    if found.device == "cpu":
        yield f"The time is the processor's, with {counted(found.threads, 'thread')} each, as on a machine that does"
        yield "nothing else. Tables, statistics, the gallery and the page come on top."
        yield from _about_gpus()
    else:
        yield f"Measured on this machine's {found.device}. Tables, the gallery and the page come on top."
    if (part := found.dominant()) is not None:
        yield f"Warning: the {KINDS[part.kind]} {part.name} takes {part.share:.0%} of the time."
        yield f"{ADVICE[part.kind].format(part.name.partition('[')[0])}."


def about_copy(cost: Any) -> str:
    """Whether passes without gradient run on a compiled copy of a network, why, and the time either way."""
    from heatproof.studies import compiling as why
    from heatproof.studies.prediction import duration

    choice = cost.choice
    fast, slow = duration(cost.compiled), duration(cost.eager)
    passes = f"{choice.passes:,.0f} passes without gradient"
    known = "as measured" if choice.measured else "as is assumed"
    ratio = f"a compiled pass takes {1 - choice.gain:.2f} of the time, {known}"
    compiling = f"Compiling takes up to {duration(why.COMPILING)}"
    if choice.compiled:
        first = "The copy is there already" if choice.cached else f"{compiling}, once"
        return f"{choice.model} runs its {passes} on a compiled copy: {fast} in place of {slow} ({ratio}). {first}."
    reason = {
        why.REFUSED: f"as asked (--compile never); with one it would take {fast} in place of {slow} ({ratio})",
        why.IMPOSSIBLE: choice.why_not,
        why.TOO_FEW: f"with fewer than {why.FEW} images none is made",
        why.UNKNOWN: "its passes could not be counted",
        why.NONE: "no pass of the study is without gradient",
        why.TOO_DEAR: f"it would save {_at_most(choice.saved)} of {passes}. "
        + ("Loading it takes some seconds" if choice.cached else compiling),
    }[choice.because]
    return f"{choice.model} has no compiled copy: {reason}."


def _at_most(seconds: float) -> str:
    from heatproof.studies.prediction import duration

    return f"about {duration(seconds)}" if seconds >= 1 else "less than 1 s"


def _about_gpus() -> Iterator[str]:
    import torch

    if torch.cuda.is_available():
        yield "This machine has a GPU: --device cuda measures the study there."
    else:
        yield "On a GPU: none is here, so no time is given. The same command measures it where there is one."


def file_size(count: float) -> str:
    """`1.2 GB`, `340 MB`, `12 kB`."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{max(1, round(count / 1e3)) if count else 0} kB"


def _print_passes(found: Any) -> None:
    if not found.passes:
        return
    rows = [[name, *(f"{value:,.0f}" for value in (one.forward, one.backward, one.tails))]
            for name, one in found.passes.items()]  # fmt: skip
    print()
    print_table(["passes of images", "forward", "backward", "partial"], rows)


def _print_parts(parts: Sequence[Any], time: str, share: str, most: int = MOST) -> None:
    from heatproof.studies.prediction import duration

    several = {kind for kind in KINDS if sum(part.kind == kind for part in parts) > 1 or kind in ("method", "metric")}
    for kind in (kind for kind in KINDS if kind in several):
        alike = [part for part in parts if part.kind == kind]
        shown = [part for part in alike[:most] if part.seconds > 0]
        if not shown:
            continue
        rows = [[_short(part.name), duration(part.seconds), _percent(part.share), f"{part.passes:,.0f}"]
                for part in shown]  # fmt: skip
        if more := alike[len(shown) :]:
            rest = sum(part.seconds for part in more)
            rows.append([f"{len(more)} more", duration(rest), _percent(sum(part.share for part in more)), ""])
        print()
        print_table([KINDS[kind], time, share, "passes"], rows)


def _percent(share: float) -> str:
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _short(name: str, most: int = 50) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"

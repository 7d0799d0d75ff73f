"""`heatproof explain`: images → panels, maps and a page."""

import shlex
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from heatproof.cli import options
from heatproof.errors import HeatproofWarning, InvalidInput
from heatproof.studies.settings import DatasetPlan, ModelPlan, Plan

MODEL = options.settings_of(ModelPlan, without=("spec", "name", "output", "tolerance"))
OTHERS = options.settings_of(DatasetPlan, Plan, names=("labels", "masks", "limit", "sampling", "seed", "device"))


@options.with_settings(MODEL, OTHERS)
def explain(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Files, folders, patterns such as 'photos/*.jpg', or `shapes`."),
    ],
    model: Annotated[str | None, typer.Option(help=options.SPECS)] = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated; see `heatproof list methods`. Also `refine:NAME`, `NAME@LAYER`, `cams` (every "
            "method whose map has the resolution of a layer), `all` (every method but controls)."
        ),
    ] = "gradcam",
    method_from: options.MethodFrom = None,
    option: options.MethodOptions = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="`all`, or names with commas: every method that reads a layer at each of them, plain and refined."
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="The class explained: predicted, label, least, an index, a class's name, top3 (the three most "
            "probable), or one index or name for each image, with commas."
        ),
    ] = "predicted",
    given: Any = None,
    output: Annotated[
        str,
        typer.Option(
            help="The number explained: logit, probability, log-probability; value for a network whose outputs are "
            "numbers in units of their own, as of a regression (--target is then a column, by default the only one)."
        ),
    ] = "logit",
    upsample: Annotated[str, typer.Option(help="Map → image: bilinear, bicubic, nearest.")] = "bilinear",
    colormap: Annotated[
        str, typer.Option(help="A colour map of matplotlib, by name. The default is perceptually uniform.")
    ] = "inferno",
    alpha: Annotated[
        float, typer.Option(help="The share of the map's colour in an overlay; the grey image has the rest.")
    ] = 0.5,
    dpi: Annotated[
        float, typer.Option(help="The resolution of panels as PNG, 96 for the size on a screen, 300 for print.")
    ] = 96,
    formats: Annotated[
        str, typer.Option(help="The forms of panels, with commas: png, svg, pdf. SVG and PDF hold text as text.")
    ] = "png",
    overlays: Annotated[
        bool,
        typer.Option("--overlays", help="Also every map over its image as a PNG, at the resolution of the image file."),
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Images per pass. Default: 16, fewer with costly methods.")
    ] = None,
    out: Annotated[Path | None, typer.Option(**options.HERE, help="The folder for the results.")] = None,
) -> None:
    """Explain images: for each a panel (PNG) and its maps (NumPy), and one page; goes on where it was stopped."""
    for name, value, example in (("--model", model, "shapes"), ("--out", out, "out/maps")):
        if value is None:
            raise InvalidInput(f"{name} must be given. Got none. Example: {name} {example}.")
    others = options.values(OTHERS, given)
    device = others.pop("device", "auto")
    asked: dict[str, Any] = {
        "methods": [*(options.split(methods) or []), *options.methods_from(method_from)],
        "target": target.strip(),
        "layers": layers if layers is None or layers == "all" else options.split(layers),
        "options": options.method_options(option),
        "output": output,
        "upsample": upsample,
        "batch_size": batch_size,
        "colormap": colormap,
        "alpha": alpha,
        "dpi": dpi,
        "formats": options.split(formats) or (),
        "overlays": overlays,
        **others,
    }
    _explain(str(model), options.values(MODEL, given), device, images, asked, out)


def _explain(
    spec: str, settings: dict[str, Any], device: str, images: list[str], asked: dict[str, Any], out: Any
) -> None:
    from heatproof import progress
    from heatproof.engine.call import one_colour_warning
    from heatproof.models import load_model
    from heatproof.panels.selection import grouped
    from heatproof.panels.show import PanelFiles, checked_job, explained_into
    from heatproof.report.overlay import Look

    Look(asked["colormap"], asked["alpha"])  # raises before a model is loaded
    PanelFiles(asked["dpi"], tuple(asked["formats"]), asked["overlays"])
    model = load_model(spec, device=device, **settings)
    asked["target"] = _target(asked["target"], model.classes)
    job = checked_job(model, images, **asked)
    if job.work.asked.refused:
        warnings.warn(f"Not applicable: {grouped(job.work.asked.refused)}.", HeatproofWarning, stacklevel=1)
    done = []
    with progress.progress_bar() as bar:
        album = explained_into(out, job, bar, shlex.join(["heatproof", *sys.argv[1:]]), done.append)
    unread = [entry for entry in done if entry.flag]
    for entry in unread:
        warnings.warn(f"Not explained: {entry.name}: {entry.flag}.", HeatproofWarning, stacklevel=1)
    if flat := [entry.name for entry in done if entry.note]:
        warnings.warn(one_colour_warning(flat), HeatproofWarning, stacklevel=1)
    flags = Counter(found.flag for entry in done for block in entry.blocks for found in block.maps.values())
    silent = sum(flags.values()) - flags.pop("", 0)
    if silent:
        often = "; ".join(f"{flag} ({count})" for flag, count in flags.most_common(3))
        warnings.warn(f"{silent} {'map says' if silent == 1 else 'maps say'} nothing: {often}.", HeatproofWarning, 1)
    late = {name: reason for name, reason in album.refused.items() if name not in job.work.asked.refused}
    if late:
        warnings.warn(f"Not applicable: {grouped(late)}.", HeatproofWarning, stacklevel=1)
    served = job.work.units - len(late)
    methods = f"{served} {'method' if served == 1 else 'methods'}"
    kept = f", {album.kept} of them from before" if album.kept else ""
    if job.sample:
        print(f"Images: {job.sample}.")
    for how in dict.fromkeys(shot.matching for shot in job.shots if shot.matching):
        print(f"Labels: {how}.")
    print(f"{len(done) - len(unread)} of {len(done)} images explained by {methods}{kept}.")
    for sentence in album.peaks:
        print(sentence)
    print(f"Page: {album.folder / 'index.html'}")
    if not any(entry.says_something for entry in done):
        raise typer.Exit(1)


def _target(text: str, names: list[str] | None) -> Any:
    """A comma means one class for each image, unless it is part of a class's name."""
    from heatproof.class_names import matched

    several = "," in text and not (names and matched([text], names))
    return [part.strip() for part in text.split(",")] if several else text

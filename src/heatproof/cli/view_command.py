"""`heatproof view`: results, or a network at work, in a browser on this machine."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from heatproof.addresses import place, refuse_address
from heatproof.cli import options
from heatproof.errors import InvalidInput
from heatproof.studies.settings import DatasetPlan, ModelPlan, Plan

MODEL = options.settings_of(ModelPlan, without=("spec", "name", "output", "tolerance"))
OTHERS = options.settings_of(DatasetPlan, Plan, names=("labels", "limit", "sampling", "seed", "device"))
#: Without results and without --methods.
METHODS = ("gradcam", "refine:layercam", "layercam", "gradcam++")
#: The port by default, as `heatproof.view.serving.PORT`, which would load the viewer.
PORT = 7860


@options.with_settings(MODEL, OTHERS)
def view(
    folder: Annotated[
        Path | None,
        typer.Argument(
            parser=place,
            metavar="[DIR]",
            help="Results that `run`, `score`, `audit` or `explain` wrote.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help=f"A network for other noise and for erasing regions. {options.SPECS}")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="For --model, files, folders, patterns or `shapes`; with results and without --model, where the "
            "images are now. By default those of the results. Repeatable."
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help=f"Of the network, with commas. Default: those of the results, else {', '.join(METHODS)}."),
    ] = None,
    option: options.MethodOptions = None,
    layers: Annotated[
        str | None, typer.Option(help="`all`, or names with commas: every method that reads a layer at each of them.")
    ] = None,
    target: Annotated[
        str,
        typer.Option(help="The class that the network explains: predicted, label, least, top3, an index or a name."),
    ] = "predicted",
    given: Any = None,
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0 takes any that is free.")] = PORT,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = True,
) -> None:
    """Look at maps in the browser: noise and maps together, a brush that erases, scores; on this machine only.

    Stored results need no network; a network (--model) adds what must be computed. Needs the extra `view`.
    """
    if folder is None and model is None:
        raise InvalidInput(
            "Name a folder of results, or a network and images. Examples: heatproof view out/audit; heatproof view "
            "--model shapes --images shapes."
        )
    if folder is None and not images:
        raise InvalidInput("--images must be given with --model, where there is no folder of results. Got none.")
    if folder is not None:
        refuse_address(folder, "The viewer")
    others = options.values(OTHERS, given)
    asked = {
        "methods": options.split(methods),
        "target": target.strip(),
        "layers": layers if layers is None or layers == "all" else options.split(layers),
        "options": options.method_options(option),
        **{name: others[name] for name in ("labels", "limit", "sampling", "seed") if name in others},
    }
    print("Loading the viewer …", flush=True)
    viewer = _viewer(folder, model, options.values(MODEL, given), others.get("device", "auto"), images, asked)
    _serve(viewer, port, open_)


def _viewer(
    folder: Path | None, spec: str | None, settings: dict[str, Any], device: str, images: Any, asked: dict[str, Any]
) -> Any:
    from heatproof.view.opening import opened
    from heatproof.view.viewer import Viewer

    if folder is None:
        from heatproof.live import joined
        from heatproof.view.live_collection import LiveCollection

        live = joined.network(spec, settings, device, images, {**asked, "methods": asked["methods"] or list(METHODS)})
        return Viewer(LiveCollection(live), live)

    def study_images() -> Any:  # of a study only: `explain` has stored its images
        from heatproof.live.study_images import StudyImages

        return StudyImages(folder, images[0] if images and spec is None else None)

    collection = opened(folder, study_images)
    if spec is None:
        return Viewer(collection)
    from heatproof.live import joined

    return Viewer(collection, joined.beside(folder, collection, spec, settings, device, images, asked))


def _serve(viewer: Any, port: int, open_: bool) -> None:
    from heatproof.view.serving import Server

    def ready(url: str) -> None:
        print(f"Viewer: {url}  (only this machine can open it; Ctrl-C stops it)", flush=True)
        if open_ and _has_display():
            import webbrowser

            webbrowser.open(url)

    with suppress(KeyboardInterrupt):  # how one stops it
        Server(viewer, port).run(ready)
    print("Stopped.")


def _has_display() -> bool:
    """Whether a browser has somewhere to open: without a display some systems start one in the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

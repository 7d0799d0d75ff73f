"""`heatproof layers MODEL`: the layers that can be explained, with their shapes, stages, and the default."""

import json
from typing import Annotated, Any

import typer

from heatproof.cli import options
from heatproof.studies.settings import ModelPlan, Plan

MODEL = options.settings_of(ModelPlan, without=("spec", "name", "layer", "output", "tolerance"))
OTHERS = options.settings_of(Plan, names=("device",))


@options.with_settings(MODEL, OTHERS)
def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.SPECS)],
    given: Any = None,
    like: Annotated[str | None, typer.Option(help="Only layers whose names contain this.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="An array of objects.")] = False,
) -> None:
    """List the layers of a network that can be explained, shallow to deep, with shapes, stages and the default."""
    from heatproof.cli.listing import print_table
    from heatproof.errors import LayerError
    from heatproof.models import load_model
    from heatproof.models.layers import Layers, nameable_layers

    device = options.values(OTHERS, given).pop("device", "auto")
    loaded = load_model(model, device=device, **options.values(MODEL, given))
    try:
        chosen = loaded.layers
    except LayerError:  # none is found by itself; some may be named all the same
        chosen = Layers("", ())
    every = nameable_layers(loaded, chosen)
    shown = [one for one in every if not like or like in one.name]
    if as_json:
        print(json.dumps([one._asdict() for one in shown], indent=1))
        return
    rows = [
        (one.name, one.kind, " × ".join(map(str, one.shape)), one.stage, "default" if one.default else "")
        for one in shown
    ]
    if rows:
        print_table(["layer", "kind", "output", "stage", ""], rows)
    if not every:
        print("No layer has positions. Methods that need none, such as `gradient` or `rise`, apply.")
    elif not shown:
        print(f"None of {len(every)} layers has {like!r} in its name.")
    else:
        print("Explain another than the default with --layer NAME, or METHOD@NAME; a stage as --layer stage:2.")

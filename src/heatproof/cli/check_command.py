"""`heatproof check`: what a network sees of images and predicts for them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from heatproof.cli import options
from heatproof.studies.settings import DatasetPlan, ModelPlan, Plan

MODEL = options.settings_of(ModelPlan, without=("spec", "name", "layer", "output", "tolerance"))
OTHERS = options.settings_of(DatasetPlan, Plan, names=("labels", "limit", "sampling", "seed", "device"))
#: The rows that are printed; all are in the file.
PRINTED = 20


@options.with_settings(MODEL, OTHERS)
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=options.SPECS)],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Files, folders, patterns such as 'photos/*.jpg', or `shapes`."),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Predictions by the training code: a CSV with `file`, `class_index` or `name`, and `probability` if "
            "known. The check.csv of an earlier check is one."
        ),
    ] = None,
    given: Any = None,
    alternatives: Annotated[
        bool | None,
        typer.Option(
            "--alternatives/--no-alternatives",
            help="Try other preprocessings. By default where a prediction differs from the reference or the label.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per pass.")] = 32,
    out: Annotated[
        Path | None,
        typer.Option(**options.HERE, help="The folder for seen.png, what the network sees, and check.csv."),
    ] = None,
) -> None:
    """Show what a network sees of images and predicts, beside labels and predictions made elsewhere."""
    from heatproof import progress
    from heatproof.models import load_model
    from heatproof.panels.checking import check as checked

    others = options.values(OTHERS, given)
    device = others.pop("device", "auto")
    loaded = load_model(model, device=device, **options.values(MODEL, given))
    with progress.progress_bar() as bar:
        found = checked(
            loaded,
            images,
            reference=reference,
            alternatives=alternatives,
            batch_size=batch_size,
            progress=bar,
            **others,
        )
    _print_rows(found.predictions, found.classes)
    if found.sample:
        print(f"Images: {found.sample}.")
    print(found)
    if out is not None:
        print(f"Seen by the network: {found.save(out)}")
    else:
        print("--out FOLDER draws what the network sees, and writes the table.")
    if not found.agrees:
        raise typer.Exit(1)


def _print_rows(predictions: Any, classes: Any) -> None:
    """The predictions, those that differ from what was expected first."""
    from heatproof.class_names import class_text
    from heatproof.cli.listing import print_table

    rows = sorted(predictions, key=lambda one: not one.wrong)
    lines = []
    for one in rows[:PRINTED]:
        size = f"{one.size[0]} × {one.size[1]}" if one.size else ""
        expected = [f"reference {class_text(classes, one.reference.index)}" if one.agrees is False else "",
                    f"label {class_text(classes, one.label)}" if one.right is False else ""]  # fmt: skip
        answers = (one.flag, "") if one.first is None else (one.first.full, one.second.full)
        lines.append((one.image, size, *answers, ", ".join(filter(None, expected))))
    print_table(("image", "height × width", "predicted", "second", "expected"), lines)
    if len(rows) > PRINTED:
        print(f"… and {len(rows) - PRINTED} more")
    print()

"""`heatproof fit`: fine-tunes a network on images whose ground truth is known."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from heatproof.cli import options
from heatproof.errors import InvalidInput
from heatproof.studies.settings import ModelPlan, Plan

MODEL = options.settings_of(
    ModelPlan, without=("spec", "name", "layer", "output", "tolerance", "classes", "multi_label")
)
OTHERS = options.settings_of(Plan, names=("device",))


@options.with_settings(MODEL, OTHERS)
def fit(
    images: Annotated[
        str,
        typer.Argument(
            metavar="IMAGES",
            help="`shapes`, or a folder with train, val and test, each with a subfolder for every class.",
        ),
    ],
    model: Annotated[str, typer.Option(help=options.SPECS)],
    out: Annotated[
        Path, typer.Option(**options.HERE, help="A new folder for model.safetensors, fit.json and classes.txt.")
    ],
    given: Any = None,
    limit: Annotated[
        int | None, typer.Option(help="So many training images. By default 4096 of shapes, all of a folder.")
    ] = None,
    image_size: Annotated[int, typer.Option(help="Pixels of each side of an image of shapes.")] = 256,
    shape_sizes: Annotated[str, typer.Option(help=options.SHAPE_SIZES)] = "",
    clutter: Annotated[str, typer.Option(help="Of shapes: several, others, occlusion, shortcut, with commas.")] = "",
    backgrounds: Annotated[Path | None, typer.Option(help="Of shapes: a folder of images for the backgrounds.")] = None,
    epochs: Annotated[int, typer.Option(help="At most so many passes over the training images.")] = 40,
    patience: Annotated[int, typer.Option(help="Stop after so many epochs without a lower validation loss.")] = 7,
    batch_size: Annotated[int, typer.Option(help="Images in one step.")] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate of AdamW.")] = 1e-4,
    weight_decay: Annotated[float, typer.Option(help="Weight decay of AdamW.")] = 1e-4,
    adversarial: Annotated[str, typer.Option(help="Train under an attack: pgd-linf.")] = "",
    epsilon: Annotated[float, typer.Option(help="The attack's largest change of a value, in 1/255.")] = 4.0,
    steps: Annotated[int, typer.Option(help="The attack's steps.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the order of images, mirroring, dropout, new layers.")] = 0,
    log: Annotated[
        str,
        typer.Option(
            metavar="LOGGER", help="Log maps of validation images: tensorboard, tensorboard=FOLDER, wandb, mlflow."
        ),
    ] = "",
    log_every: Annotated[int, typer.Option(help="Log after so many steps, at the beginning and at the end.")] = 100,
) -> None:
    """Fine-tune a network on Shapes, or on a folder of yours, so that ground truth applies to its maps."""
    import torch

    from heatproof.data.shapes import parsed_sizes
    from heatproof.models import load_model
    from heatproof.progress import progress_bar
    from heatproof.seeds import seeded
    from heatproof.training.fine_tuning import CLASSES, WEIGHTS
    from heatproof.training.fine_tuning import fit as fitted
    from heatproof.training.recipe import Recipe
    from heatproof.training.sets import folder_sets, shapes_sets

    recipe = Recipe(epochs, patience, batch_size, lr, weight_decay, seed, adversarial, epsilon / 255, steps)
    device = options.values(OTHERS, given).get("device", "auto")
    if images == "shapes":
        names = tuple(options.split(clutter) or ())
        sets = shapes_sets(
            limit, image_size, shape_sizes=parsed_sizes(shape_sizes), clutter=names, backgrounds=backgrounds
        )
    elif clutter or backgrounds or shape_sizes:
        raise InvalidInput("--clutter, --backgrounds and --shape-sizes are for `shapes`. Leave them out for a folder.")
    else:
        sets = folder_sets(images, limit, seed)
    with seeded(torch.Generator().manual_seed(seed), torch.device("cpu")):  # random weights, where there are no others
        loaded = load_model(model, device=device, **options.values(MODEL, given))
    with ExitStack() as stack:
        watch = None
        if log:
            from heatproof.loggers.fit_monitor import fit_monitor

            watch = stack.enter_context(fit_monitor(log, log_every, loaded, sets["val"], out / "tensorboard")).step
        found = fitted(loaded, sets, out, recipe, stack.enter_context(progress_bar()), watch)
    print(found.sentence())
    arguments = f"--model-arg num_classes={len(sets['train'].class_names or ())} " if ":" in model else ""
    print(f"Use it with: --model {model} {arguments}--checkpoint {out / WEIGHTS} --classes {out / CLASSES}")
    if others := [
        f"--{options.SINGULAR.get(name, name).replace('_', '-')}"
        for name in options.values(MODEL, given)
        if name != "checkpoint"
    ]:
        print(f"and with {', '.join(others)} as here.")

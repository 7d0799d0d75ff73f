"""`heatproof data`: sets of images with known ground truth, as files."""

from pathlib import Path
from typing import Annotated

import typer

from heatproof.cli import options
from heatproof.errors import InvalidInput

app = typer.Typer(help="Make sets of images whose ground truth is known.", no_args_is_help=True)


@app.command(
    epilog="Example: `heatproof data shapes --out out/shapes --split test --limit 12 --clutter others,occlusion`. "
    "The folder is input as it is: `heatproof score out/shapes/images --labels out/shapes/labels.csv --masks "
    "out/shapes/masks …`."
)
def shapes(
    out: Annotated[
        Path, typer.Option(**options.HERE, help="A new folder for images, masks, labels.csv and the data card.")
    ],
    split: Annotated[str, typer.Option(help="train, val or test: images and backgrounds are disjoint.")] = "test",
    limit: Annotated[
        int | None, typer.Option(help="So many images. By default as paper R: 4096 train, 64 val, 600 test.")
    ] = None,
    backgrounds: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images for the backgrounds, shared out between the splits. "
            "By default they are dead leaves, which need no files."
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels of each side; shapes are scaled with it.")] = 256,
    shape_sizes: Annotated[str, typer.Option(help=options.SHAPE_SIZES)] = "",
    clutter: Annotated[
        str,
        typer.Option(
            help="Harder images, with commas: several (objects of the class), others (of other classes), "
            "occlusion, shortcut (a small cross decides the class; the mask is the cross)."
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Another seed makes another set.")] = 0,
) -> None:
    """Shapes (paper R): circles, squares and triangles on busy backgrounds, with the ground truth as mask."""
    from heatproof.data.shapes import paper_shapes, parsed_sizes
    from heatproof.data.shapes_folder import write_shapes
    from heatproof.progress import progress_bar

    if limit is not None and limit < 1:
        raise InvalidInput(f"--limit must be at least 1. Got {limit}.")
    names = tuple(options.split(clutter) or ())
    sizes = parsed_sizes(shape_sizes)
    made = paper_shapes(split, limit, size, sizes, seed=seed, clutter=names, backgrounds=backgrounds)
    with progress_bar() as bar:
        card = write_shapes(made, out, bar)
    print(f"{made.n} images of {len(made.class_names)} classes, their masks and labels.csv: {out}")
    for check in card.checks:
        print(f"{'passed' if check.passed else 'FAILED'}: {check.what}: {check.value:.3g} (limit {check.limit:.3g})")
    if card.skipped:
        print(f"not computed: {card.skipped}")
    print(f"Data card: {out / 'card.md'}")
    if not card.passed:
        raise InvalidInput("A check of the data card failed: the ground truth of this set cannot be trusted.")

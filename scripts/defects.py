"""What each defect of the reference codes (protocols §12) did to scores: switched on and off on the same images.

    python scripts/defects.py --out results                         the bundled network on its Shapes
    python scripts/defects.py --only mask-misaligned,road-ties      some of them
    python scripts/defects.py --model timm:tf_efficientnet_lite0 --model-arg num_classes=6 \\
        --checkpoint best.safetensors --classes classes.txt --images paper-shapes --limit 48 --out results

Images: `shapes`, what the bundled network was made for, or `paper-shapes`, those of paper R at 256². Every defect is a
small function in `scripts/reference_defects`, built from heatproof's public pieces; no peer's code is run. Prints a
line for each quantity and writes NAME.csv and NAME.md under `--out`. The same seed gives the same numbers.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from reference_defects import DEFECTS, Defect, Lab
from reference_defects.arms import RESAMPLES, Arms, summary

import heatproof
from heatproof.data import Shapes, demo_shapes, paper_shapes
from heatproof.errors import HeatproofError

SETS = {"shapes": demo_shapes, "paper-shapes": paper_shapes}


@dataclass(frozen=True)
class Row:
    """One line of the table; NaN where a defect has no arms."""

    defect: str
    where: str
    quantity: str
    off: float
    on: float
    difference: float
    low: float
    high: float
    n: int
    n_on: int
    network: str
    images: str
    seed: int
    note: str

    @property
    def moves(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        return self.low > 0 or self.high < 0


def rows_of(one: Defect, lab: Lab, resamples: int = RESAMPLES) -> Iterator[Row]:
    """The rows of a defect; a single one with the reason where it has no arms or failed."""
    nan = float("nan")
    about = {"network": lab.model.name, "images": lab.images.name, "seed": lab.seed}
    if one.arms is None:
        yield Row(
            one.name, one.where, "—", nan, nan, nan, nan, nan, 0, 0, **about, note=f"not switched on: {one.why_not}"
        )
        return
    try:
        for arms in one.arms(lab):
            yield _row(one, arms, about, lab.seed, resamples)
    except HeatproofError as error:
        first = str(error).partition("\n")[0]
        yield Row(
            one.name, one.where, "—", nan, nan, nan, nan, nan, 0, 0, **about, note=f"not on this network: {first}"
        )


def _row(one: Defect, arms: Arms, about: dict, seed: int, resamples: int) -> Row:
    found = summary(arms, seed, resamples)
    numbers = (found.off, found.on, found.difference, found.low, found.high, found.n_off, found.n_on)
    return Row(one.name, one.where, arms.quantity, *numbers, **about, note=arms.note)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| defect | where | quantity | without | with | difference [95 % interval] | n | note |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        count = str(row.n) if row.n == row.n_on else f"{row.n} → {row.n_on}"
        change = f"{number(row.difference, True)} [{number(row.low, True)}, {number(row.high, True)}]"
        arms = (number(row.off), number(row.on), change)
        cells = (f"`{row.defect}`", row.where, row.quantity, *arms, count, row.note)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def number(value: float, signed: bool = False) -> str:
    """Three decimals, one digit where that would be 0 (`2e-05`); a dash for NaN."""
    if value != value:
        return "—"
    sign = "+" if signed else ""
    if 0 < abs(value) < 0.0005:
        return f"{value:{sign}.0e}"
    return f"{value + 0.0:{sign}.3f}"


def sentence(row: Row) -> str:
    """What a row says."""
    if row.n == 0:
        return f"{row.defect}: {row.note}."
    verdict = "moves" if row.moves else "does not move" if row.low == row.low else "has no interval for"
    change = f"difference {number(row.difference, True)} [{number(row.low, True)}, {number(row.high, True)}]"
    return f"{row.defect} {verdict} {row.quantity}: {number(row.off)} → {number(row.on)}, {change}, n = {row.n_on}."


def write(rows: Sequence[Row], folder: Path, name: str) -> None:
    """`NAME.csv` and `NAME.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    (folder / f"{name}.md").write_text(markdown(rows))


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shapes", help="as for `heatproof score`")
    parser.add_argument("--model-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--classes", default=None)
    parser.add_argument("--images", default="shapes", choices=sorted(SETS))
    parser.add_argument("--limit", type=int, default=120, help="test images")
    parser.add_argument("--slow", type=int, default=32, help="test images for defects with hundreds of passes each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of defects, with commas")
    parser.add_argument("--out", type=Path, default=None, help="folder for the CSV and Markdown tables")
    parser.add_argument("--name", default="defects", help="name of the two files")
    return parser.parse_args(arguments)


def lab_of(given: argparse.Namespace) -> Lab:
    arguments = dict(item.split("=", 1) for item in given.model_arg)
    model = heatproof.load_model(given.model, given.checkpoint, arguments or None, classes=given.classes, device="cpu")
    images: Shapes = SETS[given.images]("test", given.limit)
    return Lab(model, images, given.limit, given.seed, min(given.slow, given.limit))


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    names = [name.strip() for name in given.only.split(",") if name.strip()] or list(DEFECTS)
    if unknown := [name for name in names if name not in DEFECTS]:
        print(f"`--only` must name defects: {', '.join(DEFECTS)}. Got {', '.join(unknown)}.", file=sys.stderr)
        return 2
    lab, rows = lab_of(given), []
    for name in names:
        for row in rows_of(DEFECTS[name], lab):
            rows.append(row)
            print(sentence(row), flush=True)
        if given.out:
            write(rows, given.out, given.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())

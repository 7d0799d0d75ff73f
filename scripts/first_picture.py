"""Draws docs/pictures/cat.png, the picture of README.md, from the results of `heatproof demo`.

heatproof demo --out out/demo --limit 48       (with the extra `demo`)
python scripts/first_picture.py out/demo
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from heatproof.report.drawing import figure, house
from heatproof.report.overlay import Look, overlay

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "cat.png"
#: The maps shown, and their titles.
SHOWN = {"gradcam": "Grad-CAM", "refine:layercam": "RefineCAM (layercam)"}
ANSWERS = {"pass": "✓", "fail": "✗", "cannot be told": "?"}


def draw(demo: Path) -> None:
    """Writes the picture.

    Raises:
        FileNotFoundError: the demo has no photographs, as without the extra `demo`, or no audit.
    """
    kept = np.load(demo / "photographs" / "maps" / "cat.npz")
    audit = pd.read_csv(demo / "shapes" / "tables" / "audit.csv")
    answers = audit.drop_duplicates(["method", "question"]).pivot(index="method", columns="question", values="answer")
    methods, questions = list(dict.fromkeys(audit["method"])), list(dict.fromkeys(audit["question"]))
    images = {f"a cat, “tiger cat” {float(kept['probability'][0]):.0%}": kept["image"]}
    images |= {title: overlay(kept["image"], kept[f"display/{name}"], Look()) for name, title in SHOWN.items()}
    with house():
        canvas = figure(12.6, 3.3)
        axes = canvas.subplots(1, 4, width_ratios=(1, 1, 1, 2.15))
        for axis, (title, image) in zip(axes[:3], images.items(), strict=True):
            axis.imshow(image, interpolation="none")
            axis.set_title(title)
            axis.set_axis_off()
        table = axes[3]
        table.set(xlim=(0, len(questions) + 2), ylim=(len(methods) + 2.2, 0))
        table.set_axis_off()
        count = int(audit["n"].max())
        table.set_title(f"heatproof audit: which map may be shown? (shapes, {count} images)", loc="left", pad=34)
        for column, question in enumerate(questions):
            table.text(column + 2.4, 1.9, question, rotation=28, ha="left", va="bottom", fontsize=8.5)
        for row, method in enumerate(methods):
            recommended = bool(audit.loc[audit["method"] == method, "recommended"].any())
            weight = "bold" if recommended else "normal"
            table.text(0, row + 2.6, method, va="center", fontsize=9, fontweight=weight)
            for column, question in enumerate(questions):
                sign = ANSWERS.get(str(answers.loc[method, question]), "–")
                table.text(column + 2.5, row + 2.6, sign, ha="center", va="center", fontsize=10)
        PICTURE.parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(PICTURE, dpi=110)


def main() -> int:
    """0, or 1 with a message."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("demo", type=Path, help="the --out folder of `heatproof demo`")
    try:
        draw(parser.parse_args().demo)
    except FileNotFoundError as error:
        print(f"{error.filename} is missing. Run `heatproof demo` with the extra `demo` first.", file=sys.stderr)
        return 1
    print(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())

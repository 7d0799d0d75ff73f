"""Cosine similarity of the reference maps with the masks, where images have masks."""

import pandas as pd

from heatproof.report.blocks import Drawing, Figures, Section, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.numbers import interval, number
from heatproof.report.robustness_figures import mask_cosine_figure
from heatproof.report.sections.robustness import by_rank

TEXT = (
    "These images come with masks that say which pixels belong to the object. The cosine similarity of a map with that "
    "mask is 1 where the map is exactly the object and 0 where it lies wholly beside it."
)


def section(findings: Findings) -> Section | None:
    """A figure for each model and dataset, and one table."""
    found = findings.robustness
    if found is None or not (found.mask_cosine["n"] > 0).any():
        return None
    drawings, lines = [], []
    for position, ((model, dataset), table) in enumerate(found.mask_cosine.groupby(["model", "dataset"], sort=False)):
        masks = found.masks[(found.masks["model"] == model) & (found.masks["dataset"] == dataset)]
        ranks = {row.method: -row.median for row in table.itertuples() if pd.notna(row.median)}
        rows = table.set_index("method")
        methods = [m for m in by_rank(found.methods, found.controls, ranks) if m in rows.index]
        drawings.append(
            Drawing(
                f"truth-{position + 1:02d}",
                f"Cosine similarity of the reference maps with the object's mask: {model} on {dataset}.",
                lambda masks=masks, methods=methods: mask_cosine_figure(masks, methods, findings.looks),
            )
        )
        for method in methods:
            row = rows.loc[method]
            figures = (
                number(row["median"], 3),
                interval(row["median_low"], row["median_high"]),
                number(row["mean"], 3),
            )
            lines.append((method, *figures, str(row["n"]), model, dataset))
    header = ("method", "median", "95 % interval", "mean", "n", "model", "images")
    table = sheet("Cosine similarity with the mask", header, lines, {5, 6}, found.controls)
    return Section(
        id="truth",
        title="Do the maps show the object?",
        nav="Ground truth",
        blocks=[Text(TEXT), Figures(drawings, "abreast"), table],
    )

"""The segmenter ablation: does the ranking of the methods depend on the segmenter?"""

from heatproof.report.blocks import Drawing, Figures, Section, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.numbers import number, probability
from heatproof.report.robustness_figures import segmenters_figure
from heatproof.report.robustness_findings import average_ranks, rank_agreement
from heatproof.statistics.paired import LEAST_METHODS
from heatproof.statistics.wording import counted

TEXT = (
    "Maps are compared part by part, and the parts depend on how the image is cut. Kendall's W says how far the "
    "ranking of the methods by RM stays the same whichever way it is cut: 1 is the same ranking, 0 none."
)
NOT_COMPUTED = f"Kendall's W is not computed: {{}}, at least {LEAST_METHODS} are needed"


def section(findings: Findings) -> Section | None:
    """A figure for each model and dataset, and one table; None with one segmenter."""
    found = findings.robustness
    if found is None or found.agreement.empty:
        return None
    drawings = []
    for position, setting in enumerate(found.main):
        ranks = average_ranks(found, setting)
        if ranks.shape[1] < 2:
            continue
        where = f"{setting.model} on {setting.dataset}"
        caption = f"Average rank by RM under each segmenter: {where}. Horizontal lines mean that segmenters agree."
        agreement = rank_agreement(ranks)
        note = f"Kendall's W of the average ranks = {number(agreement.w)}"
        if agreement.items < LEAST_METHODS:
            note = NOT_COMPUTED.format(counted(agreement.items, "method"))
        draw = lambda ranks=ranks, note=note: segmenters_figure(ranks, findings.looks, note)  # noqa: E731
        drawings.append(Drawing(f"segmenters-{position + 1:02d}", caption, draw))
    pooled = found.agreement[found.agreement["severity"].astype(str) == "all"]
    lines = [
        (r.perturbation, r.model, r.dataset, str(r.segmenters), str(r.methods), number(r.w), probability(r.p))
        for r in pooled.itertuples()
    ]
    header = ("perturbation", "model", "images", "segmenters", "methods", "W", "p (W = 0)")
    fewest = int(pooled["methods"].min()) if len(pooled) else 0
    caption = "Agreement of the segmenters, all severities together"
    caption += f". {NOT_COMPUTED.format(counted(fewest, 'method'))}" if fewest < LEAST_METHODS else ""
    table = sheet(caption, header, lines, {1, 2})
    return Section(
        id="segmenters",
        title="Does the way of cutting the image matter?",
        nav="Segmenters",
        blocks=[Text(TEXT), Figures(drawings, "abreast"), table],
    )

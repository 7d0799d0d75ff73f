"""How often the peak of a map lies on the ground truth, where images have masks."""

from heatproof.report.blocks import Section, Text, sheet
from heatproof.report.findings import Findings

TEXT = (
    "The peak is the highest pixel of a map. The outline in the gallery is the edge of the ground truth. The same "
    "decision is behind the score pointing-game, where a peak that several pixels share counts by their share."
)


def section(findings: Findings) -> Section | None:
    """Sentences for each model and dataset, and one table."""
    texts, lines = [], []
    for model, dataset in findings.settings:
        sentences = findings.peak_sentences(model, dataset)
        if sentences and len(findings.settings) > 1:
            texts.append(Text(f"{model} · {dataset}", "kind"))
        texts += [Text(sentence) for sentence in sentences[:1]]
        for method, found in findings.peaks(model, dataset).items():
            if found.images:
                figures = str(found.hits), str(found.images), str(found.shared), str(found.degenerate)
                lines.append((method, *figures, model, dataset))
    if not lines:
        return None
    header = ("method", "on the ground truth", "images", "peaks shared", "degenerate maps", "model", "set of images")
    table = sheet("Where the peak lies", header, lines, {5, 6}, findings.controls)
    return Section(
        id="peaks", title="Does the peak lie on the ground truth?", nav="Peaks", blocks=[*texts, Text(TEXT), table]
    )

"""For an auditor: who audited what, when, with which versions, weights and images; what was not tested."""

from collections.abc import Iterator, Mapping
from typing import Any

from heatproof.report.blocks import Heading, Section, Text, sheet
from heatproof.report.findings import Findings
from heatproof.report.mask_notes import mask_notes
from heatproof.report.preprocessing import preprocessing_text
from heatproof.statistics.audit_answers import QUESTIONS
from heatproof.statistics.wording import listed

UNKNOWN = "not given"
HASHES = (
    "BLAKE2b of 128 bits. That of the weights is over the names, types, shapes and values of all tensors, in whatever "
    "file they are. That of a folder of images is over the names, the labels, and the length and the first "
    "64 KiB of each file: a change further on in a larger file is not seen."
)
FILES = (
    "A section for a model card is in model_card.md; with the extra xlsx this list and all tables are in one "
    "workbook, tables/audit.xlsx. What must not be concluded stands under the verdict."
)


def section(findings: Findings) -> Section:
    """One section for the whole study."""
    lines = list(record(findings))
    blocks = [
        sheet("What was audited", ("what", "value"), lines, {1}, captioned=False),
        Heading("What was not tested"),
        *map(Text, untested(findings)),
        Text(FILES, "caption"),
    ]
    return Section(id="auditor", title="For the auditor", nav="Auditor", blocks=blocks)


def record(findings: Findings) -> Iterator[tuple[str, str]]:
    """(what, value): author, date, versions, commit, models, images, preprocessing, machines."""
    plan = findings.plan
    yield "author", str(plan.get("author") or f"{UNKNOWN} (--author)")
    yield "date", str(plan.get("date") or f"{UNKNOWN} (--date)")
    yield "commit", str(plan.get("commit") or f"{UNKNOWN} (--commit)")
    yield "versions", str(plan.get("version") or "not recorded")
    for model in plan.get("models") or ():
        yield f"model {model.get('name')}", _model(model)
        if model.get("preprocessing"):
            yield f"preprocessing of {model.get('name')}", preprocessing_text(model["preprocessing"])
    for data in plan.get("datasets") or ():
        yield f"images {data.get('name')}", _images(findings, data)
    yield "hashes", HASHES
    yield "class explained", findings.target_text(str(plan.get("target")))
    for machine in plan.get("machines") or ():
        yield "computed on", f"{machine.get('accelerator') or machine['device']}, {machine['instructions']}"
    yield "seed", str(plan.get("seed"))
    if plan.get("command"):
        yield "command", str(plan["command"])


def _model(model: Mapping[str, Any]) -> str:
    said = [f"layer {model['layer']}"] if model.get("layer") else []
    said += [f"checkpoint {model['checkpoint']}"] if model.get("checkpoint") else []
    return ", ".join([*said, f"hash of the weights {model.get('fingerprint') or 'not recorded'}"])


def _images(findings: Findings, data: Mapping[str, Any]) -> str:
    said = [findings.images(str(data.get("name")))]
    said += [f"{data['labelled']} labelled"] if data.get("labelled") is not None else []
    return ", ".join([*said, f"hash of the images and labels {data.get('fingerprint') or 'not recorded'}"])


def untested(findings: Findings) -> Iterator[str]:
    """What the audit says nothing of, in sentences."""
    plan = findings.plan
    for one in findings.audits:
        missing = [q.asks for q in QUESTIONS if not any(q.name in given for given in one.findings.values())]
        where = f" ({one.model} on {one.dataset})" if len(findings.audits) > 1 else ""
        if missing:
            yield f"Questions without rows{where}: {' '.join(missing)}"
    kinds = listed([str(kind) for kind in plan.get("perturbations") or ()]) or "none"
    levels = listed([str(level) for level in plan.get("severities") or ()])
    strengths = "calibrated strengths" if plan.get("calibrate") else f"severities {levels}"
    yield f"Noise and attacks other than {kinds} at {strengths}, and changes of the scene such as pose or background."
    yield "Other layers, methods and options than those listed, and other classes than the one explained."
    if len(findings.flagged):
        count = len(findings.flagged)
        images = "image that could not be used; it is" if count == 1 else "images that could not be used; they are"
        yield f"{count} {images} listed under “What was run”."
    yield from mask_notes(findings)
    yield "Differences between groups of images, such as cameras, sites or people: all images were taken together."
    yield "Whether people read the map as it is meant, and whether it helps them to decide."
    yield "The network itself: that a map is faithful says nothing of whether the prediction is right or fair."

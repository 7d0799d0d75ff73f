"""The self-contained page: findings → `report.html` and the files of the figures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from heatproof.files import write_atomically
from heatproof.flags import SATURATED
from heatproof.report.accuracy_notes import accuracy_notes
from heatproof.report.blocks import Drawing, Section, Sheet, drawings_in, sheet
from heatproof.report.findings import Findings
from heatproof.report.frames import distinct, layers_of, one_coloured
from heatproof.report.glossary import WORDS
from heatproof.report.mask_notes import mask_notes
from heatproof.report.numbers import percent
from heatproof.report.preprocessing import preprocessing_text
from heatproof.report.templating import environment
from heatproof.statistics.wording import counted

#: Settings of the plan that the page lists, in this order.
SETTINGS = (
    *("methods", "maps", "controls", "metrics", "perturbations", "severities", "calibrate", "segmenters", "target"),
    *(
        "masks",
        "labels",
        "reference",
        "ties",
        "persistence",
        "resamples",
        "limit",
        "sampling",
        "seed",
        "batch_size",
        "threads",
        "device",
    ),
    "version",
)


def write_page(findings: Findings) -> Path:
    """Writes `figures/` and `report.html` into the study's folder; returns the page."""
    folder = findings.source.folder
    page, drawings = rendered(findings)
    for drawing in drawings:
        for name, content in drawing.files():
            write_atomically(folder / "figures" / name, lambda file, content=content: file.write(content))
    target = folder / "report.html"
    write_atomically(target, lambda file: file.write(page.encode("utf-8", "replace")))
    return target


def rendered(findings: Findings) -> tuple[str, list[Drawing]]:
    """The page's HTML, and the figures to be written beside it."""
    page = environment().get_template("page.html").render(context(findings))
    return page, [drawing for section in findings.sections for drawing in drawings_in(section.blocks)]


def _signed(plan: Any) -> Iterator[str]:
    """Who made the page, and when, where the plan says so."""
    yield from (str(plan[name]) for name in ("author", "date") if plan.get(name))


def context(findings: Findings) -> dict[str, Any]:
    """The variables of the template."""
    source, sections = findings.source, findings.sections
    used = {word for section in sections for word in section.words}
    return {
        "kind": " · ".join([f"{findings.study.name} study", *_signed(findings.plan)]),
        "heading": findings.study.heading,
        "title": f"heatproof: {', '.join(dict.fromkeys(model for model, _ in findings.settings))}",
        "missing": source.missing,
        "jobs": source.jobs,
        "answers": findings.answers,
        "warnings": [*_warnings(findings), *(text for section in sections for text in section.warnings)],
        "facts": [*_facts(findings), *(fact for section in sections for fact in section.facts)],
        "sections": [section for section in sections if section.blocks],
        "contents": list(_contents(sections)),
        "words": [(word, meaning) for word, meaning in WORDS.items() if word in used],
        "definitions": [group for section in sections for group in section.definitions],
        "settings": sheet("Settings", ("what", "value"), settings(findings), {1}),
        "flags": _flags(findings),
        "aside": sheet(
            "Images set aside",
            ("image", "from", "reason"),
            [(r.image, r.dataset, r.reason) for r in findings.flagged.itertuples()],
            {1, 2},
        ),
        "command": findings.plan.get("command") or "",
        "tables": list(findings.tables),
        "footer": f"Made by {findings.plan.get('version') or 'heatproof'} from {source.done} of {source.jobs} jobs.",
    }


def _warnings(findings: Findings) -> Iterator[str]:
    yield from accuracy_notes(findings)
    count = len(findings.flagged)
    if count:
        were = "was" if count == 1 else "were"
        yield f"{counted(count, 'image')} {were} set aside; the reasons are listed under “What was run”."
    if flat := one_coloured(findings.rows):
        more = f" and {len(flat) - 5} more" if len(flat) > 5 else ""
        yield (
            f"{counted(len(flat), 'image')} {'is' if len(flat) == 1 else 'are'} nearly one colour after preprocessing: "
            f"{', '.join(flat[:5])}{more}. If the stored values have another range than their type, set --window."
        )
    yield from mask_notes(findings)
    if len(still := findings.reasons[findings.reasons["flag"].str.startswith(SATURATED)]):
        count = int(still["rows"].sum())
        yield (
            f"{counted(count, 'score')} {'is' if count == 1 else 'are'} {SATURATED}: no masking moved the "
            "probability, and such scores tell no methods apart. If the outputs are no logits, set --output value; if "
            "they are, take metrics of the logit, such as infidelity, or --output value with a class as --target, "
            "which scores the logit itself."
        )


def _facts(findings: Findings) -> Iterator[tuple[str, str]]:
    """The facts at the top of the page: models, layers, images, accuracy, methods, the class explained."""
    models, datasets = (list(dict.fromkeys(names)) for names in zip(*findings.settings, strict=True))
    yield "Model" if len(models) == 1 else "Models", ", ".join(models)
    layers = [layer for (layer,) in distinct(findings.rows, "layer") if layer]
    read = {one for model in models for one in layers_of(findings.rows, model).values() if one}
    if layers or not read:
        yield "Layer explained", ", ".join(layers) or "the image"
    else:
        names = sorted({layer for one in read for layer in one.split("+")})
        yield ("Layer explained" if len(names) == 1 else "Layers explained"), ", ".join(names)
    yield "Images", "; ".join(map(findings.images, datasets))
    if len(findings.correct):
        yield "Right on these images", "; ".join(_correct(findings))
    aside = bool(findings.scores and findings.scores.aside)
    real = len(findings.methods) - len(findings.controls) - aside
    controls = f"and {counted(len(findings.controls), 'control')}" if findings.controls else "no control"
    yield "Methods", f"{real}, {controls}{', and one rescaled map' if aside else ''}"
    explained = [target for (target,) in distinct(findings.rows, "target")]
    values = [model for model in findings.plan.get("models") or [] if model.get("output") == "value"]
    if not values:
        yield "Class explained", ", ".join(dict.fromkeys(map(findings.target_text, explained)))
    else:
        yield (
            "Column explained",
            ", ".join("the only one" if one in ("predicted", "clean") else one for one in explained),
        )
    for model in values:
        whose = f" of {model['name']}" if len(models) > 1 else ""
        least = model.get("tolerance")
        moved = "" if least is None else f"; the answer counts as changed where it moves by more than {least:g}"
        yield "Output explained", f"the number itself{whose}, in its units, without a probability{moved}"
    if matched := dict.fromkeys((findings.plan.get("labels_matched") or {}).values()):
        yield "Labels", "; ".join(matched)
    for model, dataset in findings.settings:
        where = f" ({model} on {dataset})" if len(findings.settings) > 1 else ""
        for sentence in findings.peak_sentences(model, dataset)[:1]:
            yield f"Peak{where}", findings.labelled(sentence).removesuffix(".")


def _correct(findings: Findings) -> Iterator[str]:
    """Share of right predictions of each setting, with its name if there are several."""
    shares = findings.correct.set_index(["model", "dataset"])["correct"]
    for model, dataset in findings.settings:
        if (model, dataset) in shares.index:
            where = f"{model} on {dataset}: " if len(findings.settings) > 1 else ""
            yield where + percent(shares[model, dataset])


def _contents(sections: Sequence[Section]) -> Iterator[tuple[str, str]]:
    for section in sections:
        if section.blocks:
            yield section.id, section.nav or section.title
            yield from section.anchors
    yield from (("words", "How to read this"), ("run", "What was run"))


def _flags(findings: Findings) -> Sheet:
    """The flags, with the metrics and methods that have them, and how often."""
    metrics = {metric for row in findings.reasons.itertuples() for metric in row.metrics}
    lines = [
        (row.flag, _some(list(row.metrics), len(metrics)), _some(list(row.methods), len(findings.methods)),
         f"{row.images:,}", f"{row.rows:,}")
        for row in findings.reasons.itertuples()
    ]  # fmt: skip
    return sheet("Flagged values", ("reason", "metrics", "methods", "images", "rows"), lines, {1, 2}, captioned=False)


def _some(names: Sequence[str], of: int) -> str:
    """`all N`, or the first names."""
    if len(names) == of and of > 1:
        return f"all {of}"
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def settings(findings: Findings) -> Iterator[tuple[str, str]]:
    """The plan in lines: the study, its models and images, then its settings."""
    plan = findings.plan
    yield "study", str(plan.get("study", ""))
    for model in plan.get("models") or []:
        said = [f"layer {model['layer']}"] if model.get("layer") else []
        kept = ("checkpoint", "classes", "output", "tolerance", "fingerprint")
        said += [f"{key} {model[key]}" for key in kept if model.get(key)]
        yield "model", ", ".join([str(model.get("name", "")), *said])
        if model.get("preprocessing"):
            yield "preprocessing", preprocessing_text(model["preprocessing"])
    for data in plan.get("datasets") or []:
        said = [f"{data['image_count']} images"] if data.get("image_count") is not None else []
        said += [f"{data['labelled']} labelled"] if data.get("labelled") is not None else []
        said += [f"fingerprint {data['fingerprint']}"] if data.get("fingerprint") else []
        yield "images", ", ".join([str(data.get("name", "")), *said])
    for machine in plan.get("machines") or []:
        limits = [f"{name}={value}" for name, value in (machine.get("limits") or {}).items()]
        threads = f"{machine['threads']} {'thread' if machine['threads'] == 1 else 'threads'}"
        said = [machine.get("accelerator") or machine["device"], machine["instructions"], *limits, threads]
        yield "computed on", ", ".join(said)
    for code in plan.get("code") or []:
        yield "own code", f"{code['name']}, fingerprint {code['fingerprint']}"
    for name in SETTINGS:
        if plan.get(name) not in (None, "", [], (), {}):
            told = findings.target_text(str(plan[name])) if name == "target" else _text(plan[name])
            yield name.replace("_", " "), told


def _text(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(item)}" for name, item in value.items())
    return str(value)

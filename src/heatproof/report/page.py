"""The self-contained page: findings in, `report.html` and the figures out."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from heatproof.files import write_atomically
from heatproof.report import plots
from heatproof.report.findings import Findings, Setting, average_ranks, rank_agreement
from heatproof.report.gallery import cases
from heatproof.report.parts import Album, by_rank, comparison_of, part, slug
from heatproof.report.sheets import Line, Sheet, interval, number, percent, probability, sheet
from heatproof.report.source import Source
from heatproof.report.style import styles
from heatproof.report.words import WORDS
from heatproof.statistics.verdict import Verdict

TEMPLATES = Path(__file__).parent / "templates"
#: Settings of the plan that the page lists, in this order.
SETTINGS = (
    *("methods", "controls", "perturbations", "severities", "calibrate", "segmenters", "target", "ties"),
    *("persistence", "resamples", "limit", "seed", "batch_size", "threads", "device", "version"),
)


def file_page(source: Source, page: str, album: Album) -> Path:
    """Writes a page and its figures into a study's folder; returns the page."""
    for name, content in album.files():
        write_atomically(source.folder / "figures" / name, lambda file, content=content: file.write(content))
    target = source.folder / "report.html"
    write_atomically(target, lambda file: file.write(page.encode("utf-8", "replace")))
    return target


def rendered(findings: Findings) -> tuple[str, Album]:
    """The page's HTML, and the figures to be filed beside it."""
    album = Album()
    content = context(findings, album)
    return rendering().get_template("report.html").render(content), album


def rendering() -> Environment:
    """The templates of all pages; everything they are given is escaped."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def context(findings: Findings, album: Album) -> dict[str, Any]:
    """What the template draws."""
    source = findings.source
    main = findings.main
    looks = styles(findings.methods, findings.controls)
    suffixes = {s: "" if len(main) == 1 else f"-{i + 1:02d}-{slug(s.model)}" for i, s in enumerate(main)}
    parts = [part(findings, setting, looks, album, suffixes[setting]) for setting in main]
    segmenters, truth = _segmenters(findings, looks, album), _truth(findings, looks, album)
    shown = cases(source.folder)
    return {
        "kind": "noise-robustness study",
        "heading": "Which heatmap can be trusted when pictures are noisy?",
        "title": f"heatproof: {', '.join(dict.fromkeys(s.model for s in main))}",
        "missing": source.missing,
        "jobs": source.jobs,
        "answers": list(answers(findings)),
        "warnings": _warnings(findings),
        "facts": list(_facts(findings, main)),
        "contents": list(_contents(findings, parts, segmenters, truth)),
        "together": comparison_of(findings.overall, looks, album, "-together") if findings.overall else None,
        "parts": parts,
        "segmenters": segmenters,
        "truth": truth,
        "cases": shown,
        "words": WORDS,
        "run": _run(findings),
        "footer": f"Made by {source.plan.get('version') or 'heatproof'} from {source.done} of {source.jobs} jobs.",
    }


def answers(findings: Findings) -> Iterator[dict[str, Any]]:
    """The verdicts; where there is but one, the facts below say what it holds for."""
    if findings.together is not None:
        yield _answer("All models and pictures together", findings.together)
    for setting, verdict in findings.verdicts.items():
        where = f"{setting.model} on {setting.dataset}"
        yield _answer(where if findings.together is not None else "", verdict)


def _answer(where: str, verdict: Verdict) -> dict[str, Any]:
    return {"where": where, "sentence": verdict.sentence, "details": verdict.notes}


def _warnings(findings: Findings) -> list[str]:
    found = []
    if len(findings.flagged):
        count = len(findings.flagged)
        pictures = "picture was" if count == 1 else "pictures were"
        found.append(f"{count} {pictures} set aside; the reasons are listed under “What was run”.")
    return found


def _facts(findings: Findings, main: Sequence[Setting]) -> Iterator[tuple[str, str]]:
    """What a reader wants to know before believing anything."""
    models = list(dict.fromkeys((s.model, s.layer) for s in main))
    yield "Model" if len(models) == 1 else "Models", ", ".join(model for model, _ in models)
    yield "Layer explained", ", ".join(dict.fromkeys(layer for _, layer in models))
    datasets = list(dict.fromkeys(s.dataset for s in main))
    yield "Pictures", "; ".join(_pictures(findings, dataset) for dataset in datasets)
    if len(findings.correct):
        yield "Right on clean pictures", "; ".join(percent(r.correct) for r in findings.correct.itertuples())
    kinds = findings.robustness["perturbation"].nunique()
    severities = findings.pairs["severity"].nunique()
    yield "Noise", f"{kinds} kinds × {severities} {'severity' if severities == 1 else 'severities'}"
    rates = findings.robustness.loc[findings.robustness["severity"].astype(str) != "all", "flip_rate"].dropna()
    if len(rates):
        yield "Predictions changed", f"{percent(rates.min())} to {percent(rates.max())}, by kind and severity"


def _pictures(findings: Findings, dataset: str) -> str:
    images = findings.pairs.loc[findings.pairs["dataset"] == dataset, "image"].nunique()
    aside = int((findings.flagged["dataset"] == dataset).sum())
    usable = f"{images - aside}" if not aside else f"{images - aside} of {images}"
    return f"{usable} ({dataset})"


def _contents(findings: Findings, parts: Sequence[dict], segmenters: Any, truth: Any) -> Iterator[tuple[str, str]]:
    if findings.overall:
        yield "together", "All together"
    for item in parts:
        yield item["id"], "Results" if len(parts) == 1 else item["title"]
    if segmenters:
        yield "segmenters", "Segmenters"
    if truth:
        yield "truth", "Truth"
    yield from (("gallery", "Gallery"), ("words", "How to read this"), ("run", "What was run"))


def _segmenters(findings: Findings, looks: dict, album: Album) -> dict[str, Any] | None:
    """The ablation: does the ranking of the methods depend on how the picture is cut?"""
    if findings.agreement.empty:
        return None
    figures = []
    for index, setting in enumerate(findings.main):
        ranks = average_ranks(findings, setting)
        if ranks.shape[1] < 2:
            continue
        caption = f"Average rank by RM under each segmenter: {setting.model} on {setting.dataset}. Level is agreement."
        note = f"Kendall's W of the average ranks = {number(rank_agreement(ranks).w)}"
        figures.append(
            album.single(f"segmenters-{index + 1:02d}", caption, plots.segmenters_figure(ranks, looks, note))
        )
    pooled = findings.agreement[findings.agreement["severity"].astype(str) == "all"]
    lines = [
        (r.perturbation, r.model, r.dataset, str(r.segmenters), str(r.methods), number(r.w), probability(r.p))
        for r in pooled.itertuples()
    ]
    header = ("perturbation", "model", "pictures", "segmenters", "methods", "W", "p (W = 0)")
    text = (
        "Maps are compared part by part, and the parts depend on how the picture is cut. Kendall's W says how far "
        "the ranking of the methods by RM stays the same whichever way it is cut: 1 is the same ranking, 0 none."
    )
    caption = "Agreement of the segmenters, all severities together"
    return {"text": text, "figures": figures, "tables": [sheet(caption, header, lines, {1, 2})]}


def _truth(findings: Findings, looks: dict, album: Album) -> dict[str, Any] | None:
    """Where the pictures come with masks: how well the clean maps cover the object."""
    if findings.truth.empty:
        return None
    figures, lines = [], []
    for index, ((model, dataset), table) in enumerate(findings.truth.groupby(["model", "dataset"], sort=False)):
        masks = findings.masks[(findings.masks["model"] == model) & (findings.masks["dataset"] == dataset)]
        ranks = {row.method: -row.median for row in table.itertuples() if pd.notna(row.median)}
        rows = table.set_index("method")
        methods = [m for m in by_rank(findings.methods, findings.controls, ranks) if m in rows.index]
        caption = f"Cosine similarity of the clean maps with the object's mask: {model} on {dataset}."
        figures.append(album.single(f"truth-{index + 1:02d}", caption, plots.truth_figure(masks, methods, looks)))
        lines += [_truth_line(method, rows.loc[method]) for method in methods]
    header = ("method", "median", "95 % interval", "mean", "n", "model", "pictures")
    text = (
        "These pictures come with the truth: which pixels belong to the object. The cosine similarity of a map "
        "with that mask is 1 where the map is exactly the object and 0 where it lies wholly beside it."
    )
    table = Sheet("Cosine similarity with the mask", header, tuple(lines), frozenset({0, 5, 6}))
    return {"text": text, "figures": figures, "tables": [table]}


def _truth_line(method: str, row: Any) -> Line:
    numbers = (number(row["median"], 3), interval(row["median_low"], row["median_high"]), number(row["mean"], 3))
    return Line((method, *numbers, str(row["n"]), row["model"], row["dataset"]), control=bool(row["control"]))


def _run(findings: Findings) -> dict[str, Any]:
    source, plan = findings.source, findings.source.plan
    aside = [(r.image, r.dataset, r.reason) for r in findings.flagged.itertuples()]
    remarks = [(r.method, r.flag, str(r.pairs)) for r in findings.remarks.itertuples()]
    tables = [sheet("Settings", ("what", "value"), list(settings(source)), {1})]
    if remarks:
        tables.append(sheet("Remarks on single maps", ("method", "remark", "pairs"), remarks, {1}))
    return {
        "tables": tables,
        "flagged": sheet("Pictures set aside", ("picture", "from", "reason"), aside, {1, 2}),
        "command": plan.get("command") or "",
    }


def settings(source: Source, names: Sequence[str] = SETTINGS) -> Iterator[tuple[str, str]]:
    """The plan in lines: the study, its models and pictures, then the settings of these names."""
    plan = source.plan
    yield "study", str(plan.get("study", ""))
    for model in plan.get("models") or []:
        told = [f"layer {model['layer']}"] if model.get("layer") else []
        told += [f"{key} {model[key]}" for key in ("checkpoint", "classes", "fingerprint") if model.get(key)]
        yield "model", ", ".join([str(model.get("name", "")), *told])
    for data in plan.get("datasets") or []:
        told = [f"{data[key]} {key}" for key in ("pictures", "labelled") if data.get(key) is not None]
        told += [f"fingerprint {data['fingerprint']}"] if data.get("fingerprint") else []
        yield "pictures", ", ".join([str(data.get("name", "")), *told])
    for name in names:
        value = plan.get(name)
        if value not in (None, "", [], ()):
            yield name.replace("_", " "), _told(value)


def _told(value: Any) -> str:
    """A setting as a reader would write it."""
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_told(item)}" for name, item in value.items())
    return str(value)

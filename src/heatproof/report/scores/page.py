"""The self-contained page of a score study: findings in, `report.html` and the figures out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heatproof.report import parts, plots
from heatproof.report.gallery import cases
from heatproof.report.page import rendering, settings
from heatproof.report.parts import Album, Drawing, slug
from heatproof.report.scores import sheets
from heatproof.report.scores.findings import Findings, Told
from heatproof.report.scores.plots import agreement_figure, curves_figure, legend_figure
from heatproof.report.scores.words import WORDS
from heatproof.report.sheets import Sheet, percent, probability, sheet
from heatproof.report.sheets import number as two
from heatproof.report.style import Style, styles
from heatproof.statistics.paired import Comparison

TITLE = "Which heatmap can be believed, and by which score?"
#: Scores shown under a map of the gallery.
CAPTIONS = 3
#: Settings of the plan that the page lists, in this order.
SETTINGS = (
    *("methods", "maps", "controls", "metrics", "target", "masks", "labels", "resamples", "limit", "seed"),
    *("batch_size", "threads", "device", "version"),
)


def rendered(findings: Findings) -> tuple[str, Album]:
    """The page's HTML, and the figures to be filed beside it."""
    album = Album()
    content = context(findings, album)
    return rendering().get_template("score.html").render(content), album


def answers(findings: Findings) -> Iterator[dict[str, Any]]:
    """The verdict on each model and set of pictures."""
    several = len(findings.told) > 1
    for told in findings.told:
        if told.standing is not None:
            where = f"{told.setting.model} on {told.setting.dataset}" if several else ""
            yield {"where": where, "sentence": told.standing.sentence, "details": told.standing.notes}
        else:
            sentence = "No verdict: for no score is it known which way is better."
            yield {"where": "", "sentence": sentence, "details": ()}


def context(findings: Findings, album: Album) -> dict[str, Any]:
    """What the template draws."""
    source = findings.source
    looks = styles(findings.methods, findings.controls)
    several = len(findings.told) > 1
    suffixes = [f"-{i + 1:02d}-{slug(t.setting.model)}" if several else "" for i, t in enumerate(findings.told)]
    sections = [
        _part(findings, told, looks, album, suffix) for told, suffix in zip(findings.told, suffixes, strict=True)
    ]
    return {
        "kind": "score study",
        "heading": TITLE,
        "title": f"heatproof: {', '.join(dict.fromkeys(told.setting.model for told in findings.told))}",
        "missing": source.missing,
        "jobs": source.jobs,
        "answers": list(answers(findings)),
        "warnings": list(_warnings(findings)),
        "facts": list(_facts(findings)),
        "contents": list(_contents(sections)),
        "parts": sections,
        "cases": [_case(findings, case) for case in cases(source.folder)],
        "words": WORDS,
        "glossary": list(sheets.glossary(findings)),
        "run": _run(findings),
        "footer": f"Made by {source.plan.get('version') or 'heatproof'} from {source.done} of {source.jobs} jobs.",
    }


def _part(findings: Findings, told: Told, looks: Mapping[str, Style], album: Album, suffix: str) -> dict[str, Any]:
    methods = sheets.ordered(findings, told)
    return {
        "id": f"result{suffix}",
        "title": f"{told.setting.model} on {told.setting.dataset}",
        "where": f"{told.setting.model} · {told.setting.dataset}",
        "overview": sheets.overview(findings, told),
        "families": list(sheets.families(findings, told, methods, suffix)),
        "legend": list(sheets.legend(findings, told)),
        "curves": _curves(findings, told, methods, looks, album, suffix),
        "comparison": _comparison(findings, told, looks, album, suffix),
        "agreement": _agreement(told, album, suffix),
    }


def _curves(
    findings: Findings, told: Told, methods: Sequence[str], looks: Mapping[str, Style], album: Album, suffix: str
) -> Drawing | None:
    if not len(told.curves):
        return None
    order = {metric: place for place, metric in enumerate(findings.metrics)}
    metrics = sorted(dict.fromkeys(told.curves["metric"]), key=lambda metric: order.get(metric, len(order)))
    of = {metric: told.curves[told.curves["metric"] == metric] for metric in metrics}
    there = [method for method in methods if method in set(told.curves["method"])]
    return album.small_multiples(
        f"curves{suffix}",
        "What the model says while pixels go or return in the order of the map: mean over the pictures, with the "
        "95 % interval as a band. Where pixels are removed, a good map makes the curve fall early; where they are "
        "restored, it makes it rise early. Of mprt: how alike the map stays while layers are drawn anew; of "
        "sensitivity-n: the correlation by the size of the subset. Controls are grey and dashed.",
        lambda: curves_figure(told.curves, metrics, there, looks),
        {metric: curves_figure(of[metric], [metric], there, looks, columns=1, key=False) for metric in metrics},
        legend_figure(there, looks),
    )


def _comparison(
    findings: Findings, told: Told, looks: Mapping[str, Style], album: Album, suffix: str
) -> dict[str, Any]:
    """Friedman in words, rank diagrams, and every pair of methods, by all counted scores and by some of them."""
    found: dict[str, Comparison] = {}
    if told.standing is not None and told.standing.comparison is not None:
        found["all counted scores together"] = told.standing.comparison
    found |= told.comparisons
    drawn = {name: c for name, c in found.items() if c.friedman.n}
    lines = [_in_words(name, c) for name, c in drawn.items()]
    nothing = "Nothing can be compared: there is one method, or no picture with a number for every method."
    return {"lines": lines or [nothing], "figures": list(_diagrams(drawn, looks, album, suffix)),
            "tables": [_pairwise(name, c) for name, c in drawn.items()]}  # fmt: skip


def _diagrams(
    found: Mapping[str, Comparison], looks: Mapping[str, Style], album: Album, suffix: str
) -> Iterator[Drawing]:
    for place, (name, c) in enumerate(found.items()):
        caption = f"Average rank by {name} on {c.friedman.n} pictures. Methods joined by a bar cannot be told apart."
        canvas = plots.critical_difference_figure(c.ranks, c.distance, c.cliques, looks, parts.friedman(c))
        yield album.single(f"ranks-{slug(name) if place else 'all'}-{place}{suffix}", caption, canvas)


def _in_words(name: str, comparison: Comparison) -> str:
    test = comparison.friedman
    differ = "cannot be tested"
    if test.p == test.p:
        differ = "differ by more than chance" if test.p < 0.05 else "do not differ by more than chance"
    dropped = f" ({test.dropped} more had no number for some method)" if test.dropped else ""
    return f"By {name}, over {test.n} pictures{dropped}, the methods {differ}: {parts.friedman(comparison)}."


def _pairwise(name: str, comparison: Comparison) -> Sheet:
    """Every pair of methods by Wilcoxon's signed-rank test, Holm-corrected."""
    rows = [
        (p.first, p.second, f"{p.n} ({p.ties})", probability(p.p), probability(p.p_holm), two(p.effect))
        for p in comparison.pairs
    ]
    caption = f"Pairs of methods by {name}: Wilcoxon signed-rank, Holm-corrected; effect > 0 where the first is better"
    return sheet(caption, ("first", "second", "pictures (ties)", "p", "p (Holm)", "effect"), rows, {1})


def _agreement(told: Told, album: Album, suffix: str) -> Drawing | None:
    agreement = told.agreement.dropna(how="all").dropna(how="all", axis=1)
    if agreement.empty:
        return None
    caption = (
        "Rank correlation of every two scores over the real methods, picture by picture, signs turned so that 1 "
        "(blue) is the same order from best to worst, 0 (white) none, −1 (orange) the reverse. Scores that disagree do "
        "not measure the same thing."
    )
    return album.single(f"agreement{suffix}", caption, agreement_figure(agreement))


def _warnings(findings: Findings) -> Iterator[str]:
    count = len(findings.flagged)
    if count:
        pictures = "picture was" if count == 1 else "pictures were"
        yield f"{count} {pictures} set aside; the reasons are listed under “What was run”."
    unknown = [metric for metric in findings.metrics if not findings.facts.get(metric, {}).get("better")]
    if unknown:
        yield f"Nobody said which way is better for {', '.join(unknown)}: shown, and not judged."


def _facts(findings: Findings) -> Iterator[tuple[str, str]]:
    """What a reader wants to know before believing anything."""
    models = list(dict.fromkeys(told.setting.model for told in findings.told))
    yield "Model" if len(models) == 1 else "Models", ", ".join(models)
    yield "Layer explained", ", ".join(name for name in findings.scores["layer"].unique() if name) or "the picture"
    datasets = list(dict.fromkeys(told.setting.dataset for told in findings.told))
    yield "Pictures", "; ".join(_pictures(findings, dataset) for dataset in datasets)
    if len(findings.correct):
        yield "Right on these pictures", "; ".join(percent(row.correct) for row in findings.correct.itertuples())
    real = len(findings.methods) - len(findings.controls)
    yield "Methods", f"{real}, and {len(findings.controls)} controls" if findings.controls else f"{real}, no control"
    yield "Scores", str(len(findings.metrics))
    yield "Class explained", ", ".join(str(name) for name in findings.scores["target"].unique())


def _pictures(findings: Findings, dataset: str) -> str:
    images = findings.scores.loc[findings.scores["dataset"] == dataset, "image"].nunique()
    aside = int((findings.flagged["dataset"] == dataset).sum())
    return f"{images - aside} ({dataset})" if not aside else f"{images - aside} of {images} ({dataset})"


def _contents(sections: Sequence[dict]) -> Iterator[tuple[str, str]]:
    for item in sections:
        yield item["id"], "Results" if len(sections) == 1 else item["title"]
        if len(sections) == 1:
            yield from ((family.id, family.id.removeprefix("family-").capitalize()) for family in item["families"])
            if item["curves"]:
                yield item["curves"].name, "Curves"
    yield from (("gallery", "Gallery"), ("words", "How to read this"), ("run", "What was run"))


def _case(findings: Findings, case: Any) -> dict[str, Any]:
    """A gallery's case as tiles that flow, each map with its scores on that picture."""
    facts = case.facts
    rows = findings.scores
    here = rows[(rows["image"] == facts["image"]) & (rows["dataset"] == facts["dataset"])]
    here = here[here["model"] == facts["model"]]
    values = {(row.method, row.metric): row.value for row in here.itertuples()}
    told = next((t for t in findings.told if t.setting == (facts["model"], facts["dataset"])), None)
    metrics = _captions(findings, told) if told else []
    tiles = []
    for row in case.rows:
        lines = [
            f"{metric} {sheets.shown(told, findings.facts.get(metric, {}), metric, values[row.method, metric])}"
            for metric in metrics
            if told and (row.method, metric) in values
        ]
        tiles.append({"name": row.method or "picture", "tile": row.tiles[0], "lines": lines,
                      "control": row.method in findings.controls})  # fmt: skip
    return {"facts": facts, "says": case.columns[0]["says"] if case.columns else "", "tiles": tiles}


def _captions(findings: Findings, told: Told) -> list[str]:
    """The first counted score of each family, then others."""
    counted = told.standing.counted if told.standing else ()
    firsts = {findings.family(metric): metric for metric in reversed(counted)}
    return [metric for metric in counted if metric in firsts.values()][:CAPTIONS]


def _run(findings: Findings) -> dict[str, Any]:
    source = findings.source
    aside = [(r.image, r.dataset, r.reason) for r in findings.flagged.itertuples()]
    return {
        "tables": [sheet("Settings", ("what", "value"), list(settings(source, SETTINGS)), {1})],
        "reasons": sheets.reasons(findings),
        "flagged": sheet("Pictures set aside", ("picture", "from", "reason"), aside, {1, 2}),
        "command": source.plan.get("command") or "",
        "files": _files(findings),
    }


def _files(findings: Findings) -> list[str]:
    names = ["scores.csv", "pictures.parquet", "fooled.csv", "statistics.csv"]
    names += ["curves.csv"] if len(findings.curves) else []
    return names + (["agreement.csv"] if any(len(told.agreement) for told in findings.told) else [])

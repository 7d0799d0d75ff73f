"""The parts of the page as HTML, from templates: every name is escaped, and stands in its own direction of writing."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from heatproof.panels.explained_image import ClassProbability, ExplainedImage, Method
from heatproof.report.numbers import number, percent
from heatproof.report.templating import environment
from heatproof.view.drawing import image_url, tiles
from heatproof.view.interface import FILTERS, Appearance, Collection, Erased, ListPage, Number, Shown
from heatproof.view.regions import RegionAnswer, likeness

TEMPLATES = Path(__file__).parent / "templates"
#: Short words for the flags of a row.
BADGES = {"changed": "changes", "wrong": "wrong", "low": "low", "apart": "disagree", "broken": "unusable"}


@lru_cache(maxsize=1)
def _environment() -> Any:
    return environment((TEMPLATES,))


def _rendered(template: str, **values: Any) -> str:
    text = _environment().get_template(template).render(**values)
    return text.encode("utf-8", "replace").decode("utf-8")  # names of files may hold bytes that are no text


def asset(name: str) -> str:
    """The style or the script of the page."""
    return (TEMPLATES / name).read_text("utf-8")


def heading(collection: Collection, hints: Sequence[str], noise: bool = True) -> str:
    """The title, facts and notices; `hints`: how to switch on what is not there. `noise`: whether there is a slider."""
    return _rendered(
        "heading.html",
        title=collection.title,
        facts=collection.facts,
        notices=collection.notices,
        hints=hints,
        noise=noise,
    )


def listing(page: ListPage, chosen: int | None) -> str:
    """A page of the list with thumbnails, which the browser loads one by one."""
    return _rendered("listing.html", page=page, chosen=chosen, badges=BADGES, filters=FILTERS)


def stage(
    shown: Shown, methods: Sequence[Method], look: Appearance, *, key: int, name: str, brush: bool, noise: str = ""
) -> str:
    """The image and its maps side by side."""
    entry = shown.entry
    return _rendered(
        "stage.html",
        entry=entry,
        name=name,
        key=key,
        brush=brush,
        note=shown.note,
        noise=noise,
        image=None if entry.image is None else image_url(entry.image),
        wrong=shown.wrong,
        blocks=tiles(shown, methods, look),
        several=len(entry.blocks) > 1 or _other_class(entry),
    )


def _other_class(entry: ExplainedImage) -> bool:
    """Whether the class explained is not the predicted one."""
    return bool(entry.blocks and entry.predicted and entry.blocks[0].answer.index != entry.predicted.index)


def noise_lines(clean: Shown, steps: Sequence[tuple[int, Shown]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """For each severity the prediction, whether it changed, and how like the clean maps those of the methods are."""
    before = clean.entry
    lines = []
    for severity, shown in steps:
        entry = shown.entry
        changed = bool(entry.predicted and before.predicted and entry.predicted.index != before.predicted.index)
        alike = [] if not severity else [_alike(before, entry, method) for method in methods]
        lines.append(
            {"severity": severity, "says": entry.predicted.full if entry.predicted else entry.flag,
             "probability": _probability(entry.predicted), "changed": changed, "alike": alike}
        )  # fmt: skip
    return lines


def _alike(before: ExplainedImage, after: ExplainedImage, method: str) -> str:
    """The correlation of two maps of a method, as text; a dash where there is none."""
    pair = [entry.blocks[0].maps.get(method) if entry.blocks else None for entry in (before, after)]
    if pair[0] is None or pair[1] is None:
        return "–"
    value = likeness(pair[0].display, pair[1].display)
    return "–" if math.isnan(value) else number(value)


def _probability(answer: ClassProbability | None) -> float:
    return 0.0 if answer is None or not math.isfinite(answer.probability) else answer.probability


def noise(lines: Sequence[Mapping[str, Any]], methods: Sequence[str], now: int, kind: str) -> str:
    """The table of noise: what is predicted and how far the maps have moved, at each severity seen."""
    return _rendered("noise.html", lines=lines, methods=methods, now=now, kind=kind)


def erased(answer: RegionAnswer, found: Erased | None) -> str:
    """What a region that was erased did, beside what the maps foretold."""
    return _rendered(
        "erased.html",
        answer=answer,
        image=None if found is None else image_url(found.image),
        percent=percent,
        is_nan=math.isnan,
    )


def numbers(rows: Sequence[Number]) -> str:
    """The scores of an image: metrics × methods, each with its place among the other images."""
    methods = list(dict.fromkeys(row.method for row in rows))
    metrics: dict[str, dict[str, Number]] = {}
    for row in rows:
        metrics.setdefault(row.metric, {})[row.method] = row
    lines = [(name, next(iter(cells.values())), cells) for name, cells in metrics.items()]
    return _rendered(
        "numbers.html",
        methods=methods,
        lines=lines,
        number=number,
        is_nan=math.isnan,
        n=max((r.n for r in rows), default=0),
    )


def problem(text: str) -> str:
    """A sentence on what went wrong."""
    return _rendered("problem.html", text=text)

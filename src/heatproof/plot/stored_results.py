"""What a plot reads of results: a folder, or what `heatproof.run` and `heatproof.audit` return."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from heatproof.errors import InvalidInput
from heatproof.registry import unknown
from heatproof.report.findings import Findings
from heatproof.report.robustness_findings import RobustnessFindings, RobustnessSetting
from heatproof.report.score_findings import SettingScores
from heatproof.report.source import open_source


def folder_of(results: Any) -> Path | None:
    """The folder of study results, an audit or a path; None for anything else."""
    if isinstance(results, str | os.PathLike):
        return Path(results)
    folder = getattr(results, "folder", None)
    return folder if isinstance(folder, Path) else None


def findings_of(folder: Path) -> Findings:
    """The findings of a results folder, computed once while its files stay as they are; StoreError where it is none."""
    files = [folder / "study.json", *sorted((folder / "rows").glob("*"))]
    state = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file())
    return _findings(folder.resolve(), state)


@lru_cache(maxsize=2)
def _findings(folder: Path, state: tuple[tuple[str, int, int], ...]) -> Findings:
    return Findings(open_source(folder))


def scores_in(findings: Findings, model: str | None, dataset: str | None) -> SettingScores | None:
    """The scores of a model on a set of images, by default the first; None without any.

    Raises:
        UnknownName: a model or a set of images that is not there.
    """
    if findings.scores is None:
        return None
    found = _of(findings.scores.settings, [one.setting for one in findings.scores.settings], model, dataset)
    return found[0]


def robustness_in(
    findings: Findings, model: str | None, dataset: str | None, segmenter: str | None
) -> tuple[RobustnessFindings, RobustnessSetting] | None:
    """The robustness under noise with the setting asked for, by default the first; None where noise was not studied.

    Raises:
        UnknownName: a model, a set of images or a segmenter that is not there.
    """
    found = findings.robustness
    if found is None:
        return None
    left = _of(found.settings, found.settings, model, dataset)
    if segmenter is not None:
        there = [one.segmenter for one in left]
        if segmenter not in there:
            raise unknown("segmenter of these results", segmenter, there)
        left = [one for one in left if one.segmenter == segmenter]
    return found, left[0]


def _of(settings: Any, keys: Any, model: str | None, dataset: str | None) -> list[Any]:
    left = list(zip(settings, keys, strict=True))
    for name, wanted in (("model", model), ("dataset", dataset)):
        if wanted is None:
            continue
        there = list(dict.fromkeys(getattr(key, name) for _, key in left))
        if wanted not in there:
            raise unknown(f"{name} of these results", wanted, there)
        left = [pair for pair in left if getattr(pair[1], name) == wanted]
    return [one for one, _ in left]


def of_one(frame: Any, model: str | None, dataset: str | None) -> Any:
    """The rows of a table that belong to a model and a set of images, by default the first of each.

    Raises:
        UnknownName: a model or a set of images that is not there.
    """
    for name, wanted in (("model", model), ("dataset", dataset)):
        if name not in frame or not len(frame):
            continue
        there = [str(one) for one in dict.fromkeys(frame[name])]
        if wanted is not None and wanted not in there:
            raise unknown(f"{name} of this table", wanted, there)
        frame = frame[frame[name].astype(str) == (wanted or there[0])]
    return frame


def needed_columns(frame: Any, names: tuple[str, ...], like: str) -> Any:
    """The frame; InvalidInput where a column is missing."""
    missing = [name for name in names if name not in frame]
    if missing:
        raise InvalidInput(
            f"The data frame must have the columns {', '.join(names)}, as {like} does. Got none called {missing[0]!r}."
        )
    return frame


def is_frame(results: Any) -> bool:
    """Whether it is a data frame."""
    return hasattr(results, "columns") and hasattr(results, "iloc")

"""The plot of an audit, and the one figure of any study that answers first."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from heatproof.errors import InvalidInput
from heatproof.plot.noise_plots import robustness
from heatproof.plot.paper import Width, chosen_columns, chosen_methods, looks_of, paper_of, refused
from heatproof.plot.score_plots import scores
from heatproof.plot.stored_results import findings_of, folder_of, is_frame, needed_columns, of_one
from heatproof.report.answer_figure import answer_figure


def verdicts(
    audit: Any,
    questions: str | Iterable[str] | None = None,
    *,
    methods: str | Iterable[str] | None = None,
    labels: Mapping[str, str] | None = None,
    width: Width = "page",
    model: str | None = None,
    dataset: str | None = None,
) -> Figure:
    """Which method passed which question of an audit: ✓ passes, ✗ fails, ? cannot be told on these images.

    The name of the method that the audit recommends is bold.

    Args:
        audit: what `heatproof.audit` returned, the folder of an audit, or a data frame with the columns `method,
            question, answer`, as tables/audit.csv.
        questions: those to draw, in this order; by default all.
        methods: those to draw, in this order; by default all.
        labels: method → display name.
        width: `column` (3.25 inches), `page` (6.75 inches) or inches.
        model, dataset: of an audit with several, by default the first.

    Returns:
        A matplotlib figure of that width.

    Raises:
        InvalidInput: results of another study. UnknownName: a method or a question that is not there.

    Examples:
        >>> import heatproof, pandas as pd
        >>> table = pd.DataFrame({"method": ["gradcam", "rise"], "question": "faithful", "answer": ["pass", "fail"]})
        >>> figure = heatproof.plot.verdicts(table, width="column")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['✓', '✗']
    """
    paper = paper_of(width)
    table, known = _table(audit)
    frame = of_one(needed_columns(table, ("method", "question", "answer"), "tables/audit.csv"), model, dataset)
    there = [str(method) for method in dict.fromkeys(frame["method"])]
    shown = chosen_methods(methods, there)
    asked = chosen_columns(questions, list(map(str, dict.fromkeys(frame["question"]))), "question of this audit")
    answers: dict[str, dict[str, str]] = {}
    for method, question, answer in frame[["method", "question", "answer"]].itertuples(index=False):
        answers.setdefault(str(method), {}).setdefault(str(question), str(answer))
    best = frame.loc[frame["recommended"].astype(bool), "method"] if "recommended" in frame else ()
    note = f"{frame['n'].max():.0f} images" if "n" in frame and frame["n"].notna().any() else ""
    looks = looks_of(shown, there, (), labels, known)
    return answer_figure(answers, asked, shown, looks, next(iter(map(str, best)), ""), note, paper=paper)


def _table(audit: Any) -> tuple[Any, Mapping[str, str]]:
    """The answers and the display names of an audit."""
    if is_frame(audit):
        return audit, {}
    folder = folder_of(audit)
    if folder is None:
        raise refused("verdicts", audit, "what heatproof.audit returned, the folder of an audit, or a data frame")
    findings = findings_of(folder)
    if findings.plan.get("study") != "audit":
        raise InvalidInput(
            f"Verdicts are those of an audit. {str(folder)!r} holds the study {findings.plan.get('study')!r}; "
            "`heatproof.plot.scores` and `heatproof.plot.robustness` draw it."
        )
    written = folder / "tables" / "audit.csv"
    table = getattr(audit, "table", None)
    if is_frame(table):
        return table, findings.labels
    return pd.read_csv(written) if written.is_file() else findings.tables["audit.csv"], findings.labels


def answer(results: Any, **options: Any) -> Figure:
    """The one figure that answers: an audit's verdicts, a noise study's robustness, the scores of any other study.

    Args:
        results: what `heatproof.run` or `heatproof.audit` returned, or the folder of a study.
        options: those of `verdicts`, `robustness` or `scores`.

    Raises:
        InvalidInput: an object that is no study, or a study without scores.

    Examples:
        >>> import heatproof
        >>> try:
        ...     heatproof.plot.answer(3)
        ... except heatproof.errors.InvalidInput as error:
        ...     print(error)
        `heatproof.plot.answer` draws results of heatproof.run, or the folder of a study. Got int.
    """
    folder = folder_of(results)
    if folder is None:
        raise refused("answer", results, "results of heatproof.run, or the folder of a study")
    findings = findings_of(folder)
    if findings.plan.get("study") == "audit":
        return verdicts(results, **options)
    return scores(results, **options) if findings.robustness is None else robustness(results, **options)

"""Plots of scores: means, curves, ranks with what cannot be told apart, and whether metrics agree."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from matplotlib.figure import Figure

from heatproof.errors import InvalidInput
from heatproof.plot.noise_plots import read_noise, severity_figure
from heatproof.plot.paper import Width, chosen_columns, chosen_methods, looks_of, paper_of, refused
from heatproof.plot.score_reading import ScoreReading, chosen_metric, note_of, of_wide, read_scores
from heatproof.plot.stored_results import findings_of, folder_of, is_frame, robustness_in, scores_in
from heatproof.registry import unknown
from heatproof.report.rank_figure import rank_figure
from heatproof.report.score_figures import agreement_figure, curves_figure, means_figure
from heatproof.statistics.agreement import cliques
from heatproof.statistics.paired import Comparison

#: Without `metrics`, so many are drawn.
FIRST = 4
#: How methods are told apart in the rank diagram.
TESTS = ("wilcoxon", "nemenyi")


def scores(
    results: Any,
    metrics: str | Iterable[str] | None = None,
    *,
    methods: str | Iterable[str] | None = None,
    controls: bool = True,
    reference: str = "",
    labels: Mapping[str, str] | None = None,
    width: Width = "page",
    model: str | None = None,
    dataset: str | None = None,
) -> Figure:
    """The mean score of each method with its 95 % interval, one panel per metric; ↑ and ↓ say which way is better.

    Args:
        results: what `heatproof.score`, `heatproof.run` or `heatproof.audit` returned, the folder of a study, or a data
            frame with the columns `method, metric, mean, low, high`, as tables/scores.csv.
        metrics: by default the first four, the parts of a composite last.
        methods: those to draw, in this order; by default all. controls: draw the controls too, last.
        reference: a method whose name is bold, by default the study's own reference.
        labels: method → display name.
        width: `column` (3.25 inches), `page` (6.75 inches) or inches.
        model, dataset: of results with several, by default the first.

    Returns:
        A matplotlib figure of that width. A method without a value says so.

    Raises:
        InvalidInput: an object that holds no scores, or a width out of range.
        UnknownName: a metric or a method that is not there, with near misses.

    Examples:
        >>> import heatproof, pandas as pd
        >>> table = pd.DataFrame(
        ...     [("gradcam", "arcc", 0.71, 0.68, 0.74), ("layercam", "arcc", 0.66, 0.62, 0.70)],
        ...     columns=["method", "metric", "mean", "low", "high"],
        ... )
        >>> figure = heatproof.plot.scores(table, width="column", labels={"layercam": "LayerCAM (ours)"})
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['gradcam', 'LayerCAM (ours)']
    """
    paper = paper_of(width)
    found = read_scores(results, "scores", model, dataset)
    wanted = chosen_columns(metrics, found.leading, "metric of these results")[: None if metrics is not None else FIRST]
    named = {**found.labels, **(labels or {})}
    shown = chosen_methods(methods, found.methods, found.controls, controls, named)
    looks = looks_of(shown, found.methods, found.controls, labels, found.labels)
    titles = list(map(found.titled, wanted))
    return means_figure(
        found.table, wanted, shown, looks, titles, thick=_reference(reference, found, named), paper=paper
    )


def curves(
    results: Any,
    metrics: str | Iterable[str] | None = None,
    *,
    over: str | None = None,
    perturbations: str | Iterable[str] | None = None,
    methods: str | Iterable[str] | None = None,
    controls: bool = True,
    reference: str = "",
    labels: Mapping[str, str] | None = None,
    width: Width = "page",
    model: str | None = None,
    dataset: str | None = None,
    segmenter: str | None = None,
) -> Figure:
    """Curves behind scores (insertion, deletion, ROAD, …), or the stability of maps against the severity of noise.

    Over pixels: the mean of the network's output as pixels are removed or restored, with 95 % bands (left out with more
    than eight methods, as they would cover one another). Over severity: a pair of panels for each perturbation,
    consistency above, responsiveness below, each in [0, 1].

    Args:
        results: what `heatproof.score`, `heatproof.run` or `heatproof.audit` returned, the folder of a study, or a data
            frame with the columns of tables/curves.csv (`method, metric, at, mean, low, high`; `at` in [0, 1]).
        metrics: those to draw, by default all with a curve. Over severity: `consistency`, `responsiveness`, `rm`,
            `rm0`.
        over: `pixels` or `severity`; by default pixels where the results have such curves.
        perturbations: over severity, by default all.
        methods: those to draw, in this order; by default all. controls: draw the controls too, grey and dashed.
        reference: a method whose line is thick, by default the study's own reference.
        labels: method → display name.
        width: `column` (3.25 inches), `page` (6.75 inches) or inches.
        model, dataset, segmenter: of results with several, by default the first.

    Returns:
        A matplotlib figure of that width.

    Raises:
        InvalidInput: results without curves: `heatproof.score` needs a metric that has one, such as `deletion`.
        UnknownName: a metric, a method or a perturbation that is not there, with near misses.

    Examples:
        >>> import heatproof, pandas as pd
        >>> rows = [("gradcam", "deletion", at, 1 - at, 0.9 - at, 1.1 - at) for at in (0.0, 0.5, 1.0)]
        >>> table = pd.DataFrame(rows, columns=["method", "metric", "at", "mean", "low", "high"])
        >>> figure = heatproof.plot.curves(table, width="column")
        >>> figure.axes[0].lines[0].get_ydata().tolist()
        [1.0, 0.5, 0.0]
    """
    paper = paper_of(width)
    if over not in (None, "pixels", "severity"):
        raise unknown("`over`", str(over), ("pixels", "severity"))
    if over == "severity" or (over is None and _is_of_noise(results, model, dataset)):
        noise = read_noise(results, "curves", model, dataset, segmenter)
        return severity_figure(noise, metrics, perturbations, methods, controls, labels, paper)
    found = read_scores(results, "curves", model, dataset, "curves.csv")
    there = [] if found.curves is None else list(dict.fromkeys(map(str, found.curves["metric"])))
    if found.curves is None or not there:
        raise InvalidInput("No curve is behind these scores. Score with deletion, insertion or road, which have one.")
    order = [metric for metric in found.metrics if metric in there] or there
    wanted = chosen_columns(metrics, order, "metric with a curve")
    drawn = found.curves[found.curves["metric"].isin(wanted)]
    shown = [one for one in found.methods if one in set(drawn["method"])] if methods is None else methods
    named = {**found.labels, **(labels or {})}
    shown = chosen_methods(shown, found.methods, found.controls, labels=named)
    shown = shown if controls or methods is not None else [one for one in shown if one not in found.controls]
    looks = looks_of(shown, found.methods, found.controls, labels, found.labels)
    return curves_figure(drawn, wanted, shown, looks, thick=_reference(reference, found, named), paper=paper)


def critical_difference(
    results: Any,
    metric: str | None = None,
    *,
    test: str = "wilcoxon",
    methods: str | Iterable[str] | None = None,
    better: str = "high",
    reference: str = "",
    labels: Mapping[str, str] | None = None,
    width: Width = "column",
    model: str | None = None,
    dataset: str | None = None,
    segmenter: str | None = None,
) -> Figure:
    """The average rank of each method (1 = best), with bars over methods that cannot be told apart.

    Ranks are taken within each image (of a noise study: within each condition). Controls are not ranked. Friedman's
    test and Kendall's W stand on top. Methods whose maps are equal are one method; the line on top names them.

    Args:
        results: what `heatproof.score`, `heatproof.run` or `heatproof.audit` returned, the folder of a study, or a data
            frame of images × methods that holds one metric.
        metric: the metric to rank by. By default, of a study the mean rank over its scores, or `rm` of a noise study,
            else the first metric that is no part of a composite.
        test: `wilcoxon`: Wilcoxon's signed-rank test of every pair with Holm's correction, at 5 %, the decision that
            the page and `statistics.csv` rest on; a bar may skip a method. `nemenyi`: average ranks that differ by
            less than Nemenyi's critical difference (Demšar 2006), which is drawn on top.
        methods: those to rank; the correction is then over their pairs. By default all that are no controls.
        better: `high` or `low`, of a data frame.
        reference: a method whose name is bold, by default the study's own reference.
        labels: method → display name.
        width: `column` (3.25 inches), `page` (6.75 inches) or inches.
        model, dataset, segmenter: of results with several, by default the first.

    Returns:
        A matplotlib figure of that width.

    Raises:
        InvalidInput: fewer than two methods or no image with a value for all. UnknownName: a metric, a method or a test
            that does not exist.

    Examples:
        >>> import heatproof, numpy as np, pandas as pd
        >>> frame = pd.DataFrame({"a": np.arange(12) + 0.2, "b": np.arange(12) + 0.1, "c": np.arange(12.0)})
        >>> figure = heatproof.plot.critical_difference(frame)
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['1.00', '2.00', '3.00']
    """
    paper = paper_of(width)
    if test not in TESTS:
        raise unknown("`test`", str(test), TESTS)
    found, name, comparison = _ranked(results, metric, methods, better, model, dataset, segmenter, labels)
    names = list(comparison.methods)
    there = list(dict.fromkeys([*found.methods, *names]))
    every = {**found.labels, **(labels or {})}
    thick = found.equal.arm(_reference(reference, replace(found, methods=there), every))
    looks = looks_of(names, there, found.controls, labels, found.labels)
    drawn = set(there if methods is None else chosen_methods(methods, there, labels=every))
    note = "; ".join(text for text in [note_of(comparison), *_equal_maps(found, names, drawn, every)] if text)
    if test == "nemenyi":
        ranks, distance = comparison.ranks, comparison.distance
        apart = {frozenset(pair) for pair in combinations(ranks, 2) if abs(ranks[pair[0]] - ranks[pair[1]]) > distance}
        groups = cliques(list(ranks), apart)
    else:
        groups, distance = comparison.cliques, None
    by = "" if name == "score" and is_frame(results) else name
    return rank_figure(comparison.ranks, groups, looks, by, note, distance, thick, paper=paper)


def metric_correlation(
    results: Any,
    metrics: str | Iterable[str] | None = None,
    *,
    width: Width = "page",
    model: str | None = None,
    dataset: str | None = None,
) -> Figure:
    """Whether metrics agree: the rank correlation of every two of them over the methods, in [−1, 1].

    Spearman's coefficient within each image over the real methods, averaged over the images; signs are turned so that 1
    (blue) is the same order from best to worst, −1 (orange) the reverse. Cells hold numbers where there is room for
    them, else there is a colour bar; a dash where the correlation is not defined.

    Args:
        results: what `heatproof.score`, `heatproof.run` or `heatproof.audit` returned, the folder of a study, or a
            square data frame of correlations.
        metrics: those to draw, in this order; by default all with a correlation.
        width: `column` (3.25 inches), `page` (6.75 inches) or inches.
        model, dataset: of results with several, by default the first.

    Returns:
        A matplotlib figure of that width.

    Raises:
        InvalidInput: fewer than three methods or two metrics, or more metrics than fit the width.
        UnknownName: a metric that is not there, with near misses.

    Examples:
        >>> import heatproof, pandas as pd
        >>> names = ["arcc", "deletion"]
        >>> figure = heatproof.plot.metric_correlation(pd.DataFrame([[1, -0.4], [-0.4, 1]], names, names))
        >>> sorted({text.get_text() for text in figure.axes[0].texts})
        ['−.4']
    """
    paper = paper_of(width)
    if is_frame(results):
        agreement = results
        if list(map(str, results.index)) != list(map(str, results.columns)):
            raise InvalidInput(
                "A data frame of correlations must have the same metrics as rows and as columns. Got the rows "
                f"{', '.join(map(str, results.index[:4]))} and the columns {', '.join(map(str, results.columns[:4]))}."
            )
    else:
        agreement = read_scores(results, "metric_correlation", model, dataset).agreement
        agreement = agreement.dropna(how="all").dropna(how="all", axis=1)
    if agreement.empty or len(agreement) < 2:
        raise InvalidInput("A correlation of metrics needs two metrics and three methods that are no controls.")
    wanted = chosen_columns(metrics, list(map(str, agreement.columns)), "metric with a correlation")
    return agreement_figure(agreement.loc[wanted, wanted], paper=paper)


def _reference(reference: str, found: ScoreReading, labels: Mapping[str, str]) -> str:
    """The canonical name of the method to stress, by default the study's own reference."""
    return chosen_methods(reference, found.methods, labels=labels)[0] if reference else found.reference


def _equal_maps(
    found: ScoreReading, names: Sequence[str], drawn: Iterable[str], labels: Mapping[str, str]
) -> Iterator[str]:
    """A line for each group of methods of which one stands for all in the ranks: `equal maps: gradcam = xgradcam`."""
    wanted = set(drawn)
    for group in found.equal.groups:
        shown = [method for method in group if method in wanted]
        if group[0] in names and len(shown) > 1:
            yield f"equal maps: {' = '.join(labels.get(method, method) for method in shown)}"


def _is_of_noise(results: Any, model: str | None, dataset: str | None) -> bool:
    """Whether these are results of noise without curves of scores; or a table of robustness."""
    if is_frame(results):
        return "severity" in results and "at" not in results
    folder = folder_of(results)
    if folder is None:
        return False
    findings = findings_of(folder)
    found = scores_in(findings, model, dataset)
    return (found is None or not len(found.curves)) and findings.robustness is not None


def _ranked(
    results: Any, metric: str | None, methods: Any, better: str, model: str | None, dataset: str | None,
    segmenter: str | None, labels: Mapping[str, str] | None,
) -> tuple[ScoreReading, str, Comparison]:  # fmt: skip
    """The methods, the quantity they are ranked by, and the tests between them."""
    if is_frame(results):
        found, name = of_wide(results, better), "score"
    else:
        folder = folder_of(results)
        findings = findings_of(folder) if folder is not None else None
        noise = robustness_in(findings, model, dataset, segmenter) if findings is not None else None
        if findings is not None and noise is not None:
            tests = noise[0].comparisons[noise[1]]
            if metric in tests or (metric is None and findings.scores is None and tests):
                if methods is not None:
                    raise InvalidInput("The ranks of a noise study are of all methods. Leave `methods` out.")
                found = ScoreReading(noise[0].methods, noise[0].controls, None, labels=findings.labels)
                name = metric or next(iter(tests))
                return found, {"rm": "RM", "rm0": "RM₀", "rbo": "RBO"}.get(name, name), tests[name]
        if findings is not None and findings.scores is None:
            there = list(noise[0].comparisons[noise[1]]) if noise is not None else []
            raise refused("critical_difference", results, f"ranks by {', '.join(there) or 'scores'} of these results")
        found = read_scores(results, "critical_difference", model, dataset)
        name = chosen_metric(found, metric)
    named = {**found.labels, **(labels or {})}
    chosen = None if methods is None else chosen_methods(methods, found.methods, labels=named)
    return found, name, found.comparison(name, chosen)

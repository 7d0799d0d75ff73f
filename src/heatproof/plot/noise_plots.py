"""Plots of a noise study: RM and RM₀ of every method under every perturbation, and curves over severity."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from heatproof.errors import InvalidInput
from heatproof.plot.paper import Width, chosen_columns, chosen_methods, looks_of, paper_of, refused
from heatproof.plot.stored_results import findings_of, folder_of, is_frame, needed_columns, of_one, robustness_in
from heatproof.registry import unknown
from heatproof.report.drawing import Paper
from heatproof.report.robustness_figures import CURVES, curves_figure, heatmap_figure, robustness_figure

#: What can be drawn over severity → the name at the axis.
QUANTITIES = {**dict(CURVES), "rm": "RM", "rm0": "RM₀"}
FORMS = ("table", "intervals")


@dataclass(frozen=True)
class NoiseReading:
    """Robustness under noise of one model on one set of images: rows of tables/robustness.csv."""

    table: Any
    methods: Sequence[str]
    controls: frozenset[str]
    labels: Mapping[str, str]

    @property
    def perturbations(self) -> list[str]:
        """The perturbations, in order."""
        return list(dict.fromkeys(map(str, self.table["perturbation"])))


def read_noise(
    results: Any, function: str, model: str | None = None, dataset: str | None = None, segmenter: str | None = None
) -> NoiseReading:
    """The robustness in study results, a folder or a data frame.

    Raises:
        InvalidInput: an object that holds none. StoreError: a folder without results.
    """
    if is_frame(results):
        columns = ("method", "perturbation", "severity", "rm", "rm0", "consistency", "responsiveness", "reliable")
        frame = of_one(needed_columns(results, columns, "tables/robustness.csv"), model, dataset)
        for name, wanted in (("segmenter", segmenter), ("layer", None)):
            if name in frame and len(frame):
                frame = frame[frame[name] == (wanted or frame[name].iloc[0])]
        for name in ("rm", "rm0"):
            frame = frame.assign(**{end: float("nan") for end in (f"{name}_low", f"{name}_high") if end not in frame})
        useless = frame.loc[frame["control"].astype(bool), "method"] if "control" in frame else ()
        return NoiseReading(frame, list(dict.fromkeys(frame["method"])), frozenset(useless), {})
    folder = folder_of(results)
    if folder is None:
        raise refused(
            function, results, "results of heatproof.run or heatproof.audit with noise, the folder of such a study, or "
            "a data frame as tables/robustness.csv",
        )  # fmt: skip
    findings = findings_of(folder)
    found = robustness_in(findings, model, dataset, segmenter)
    if found is None:
        raise InvalidInput(
            f"No maps under noise are in {str(folder)!r}. Run the study noise-robustness or an audit; "
            "`heatproof.plot.scores` draws scores."
        )
    there = found[1].of(found[0].table)
    methods = [method for method in found[0].methods if method in set(there["method"])]
    return NoiseReading(there, methods, found[0].controls, findings.labels)


def robustness(
    results: Any,
    quantity: str = "rm0",
    *,
    form: str = "table",
    perturbations: str | Iterable[str] | None = None,
    methods: str | Iterable[str] | None = None,
    controls: bool = True,
    labels: Mapping[str, str] | None = None,
    width: Width = "page",
    model: str | None = None,
    dataset: str | None = None,
    segmenter: str | None = None,
) -> Figure:
    """How well the maps of each method hold under each perturbation: RM or RM₀, in [0, 1], higher is better.

    RM is consistency × responsiveness; RM₀ has both corrected for chance, so that a map which ignores the image has 0.
    All severities together. Cells that are not reliable (fewer than 20 changed or unchanged predictions) have a †; a
    dash or “too few flips” stands where the value is not defined.

    Args:
        results: what `heatproof.run("noise-robustness", …)` or `heatproof.audit` returned, the folder of such a study,
            or a data frame as tables/robustness.csv.
        quantity: `rm0` or `rm`, of the form `table`.
        form: `table`, methods × perturbations as coloured cells with numbers where they fit; or `intervals`, a panel
            for each perturbation with RM (filled), RM₀ (hollow) and 95 % intervals.
        perturbations: those to draw, in this order; by default all.
        methods: those to draw, in this order; by default all. controls: draw the controls too, last.
        labels: method → display name.
        width: `column` (3.25 inches), `page` (6.75 inches) or inches.
        model, dataset, segmenter: of results with several, by default the first.

    Returns:
        A matplotlib figure of that width.

    Raises:
        InvalidInput: results without maps under noise, or more perturbations than fit.
        UnknownName: a method, a perturbation, a quantity or a form that is not there.

    Examples:
        >>> import heatproof, pandas as pd
        >>> same = {"perturbation": "jpeg", "severity": "all", "rm": 0.7, "consistency": 0.9, "responsiveness": 0.8}
        >>> values = {"gradcam": 0.5, "rise": 0.3}
        >>> table = pd.DataFrame([{"method": one, "rm0": values[one], "reliable": True, **same} for one in values])
        >>> figure = heatproof.plot.robustness(table, width="column")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['.50', '.30']
    """
    paper = paper_of(width)
    if form not in FORMS:
        raise unknown("`form`", str(form), FORMS)
    if quantity not in ("rm", "rm0"):
        raise unknown("`quantity`", str(quantity), ("rm", "rm0"))
    found = read_noise(results, "robustness", model, dataset, segmenter)
    shown = chosen_methods(methods, found.methods, found.controls, controls)
    looks = looks_of(shown, found.methods, found.controls, labels, found.labels)
    table = _of_kinds(found, perturbations, shown)
    if form == "intervals":
        return robustness_figure(table, shown, looks, paper=paper)
    return heatmap_figure(table, shown, looks, quantity, paper=paper)


def severity_figure(
    found: NoiseReading,
    quantities: str | Iterable[str] | None,
    perturbations: str | Iterable[str] | None,
    methods: str | Iterable[str] | None,
    controls: bool,
    labels: Mapping[str, str] | None,
    paper: Paper,
) -> Figure:
    """The curves of `heatproof.plot.curves` over severity."""
    wanted = chosen_columns(
        dict(CURVES) if quantities is None else quantities, list(QUANTITIES), "quantity over severity"
    )
    shown = chosen_methods(methods, found.methods, found.controls, controls)
    looks = looks_of(shown, found.methods, found.controls, labels, found.labels)
    table = _of_kinds(found, perturbations, shown)
    return curves_figure(table, shown, looks, quantities=[(name, QUANTITIES[name]) for name in wanted], paper=paper)


def _of_kinds(found: NoiseReading, perturbations: str | Iterable[str] | None, methods: Sequence[str]) -> Any:
    """The rows of these methods, perturbations in the order asked for."""
    kinds = chosen_columns(perturbations, found.perturbations, "perturbation of these results")
    place = {kind: number for number, kind in enumerate(kinds)}
    table = found.table[found.table["perturbation"].isin(kinds) & found.table["method"].isin(list(methods))]
    return (
        table.assign(_place=table["perturbation"].map(place))
        .sort_values("_place", kind="stable")
        .drop(columns="_place")
    )

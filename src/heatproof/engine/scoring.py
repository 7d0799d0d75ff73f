"""The public call: images and methods (or maps) in, scores out, every shared quantity worked out once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from heatproof import explained_output, targets
from heatproof.ambient import neutral
from heatproof.attributions import ATTRIBUTIONS, display_maps, flags, requested
from heatproof.attributions.stored import as_map, fitted
from heatproof.data.images import Images
from heatproof.data.inputs import Inputs
from heatproof.data.mosaics import of_mosaics
from heatproof.data.streams import Stream
from heatproof.display_names import checked_labels
from heatproof.engine.call import Call, as_model, model_inputs, of_output
from heatproof.engine.dry_run import dry_run
from heatproof.engine.evaluation import GivenMaps, MethodScores, Outcome, evaluate, unusable
from heatproof.engine.explaining import without
from heatproof.engine.explanation import explanation
from heatproof.engine.projections import projections
from heatproof.engine.references import ReferenceMaps
from heatproof.errors import InvalidImage, InvalidInput, warn
from heatproof.flags import as_text
from heatproof.lazy_plots import plots
from heatproof.memo import cached_property
from heatproof.metrics.metric_request import DEFAULT_METRICS, MetricRequest, requested_metrics
from heatproof.models import Model
from heatproof.progress import reported


class Row(NamedTuple):
    """The value of one metric for one method's map of one image; `flag` is empty where there is nothing to report."""

    image: str
    method: str
    metric: str
    value: float
    flag: str


class _Scored(NamedTuple):
    """The scores of one method on some images, the projections of its maps `(N,)`, and which are not flagged."""

    scores: list[Outcome]
    method: str
    projections: torch.Tensor
    fine: list[bool]

    @classmethod
    def of(cls, one: MethodScores) -> "_Scored":
        """Without the maps, which would fill the memory on many images."""
        return cls(one.outcomes, one.method, projections(one.maps), [not flag for flag in one.flags])


class Scores:
    """Scores by image, method and metric.

    Attributes:
        model: its name.
        methods, metrics: keys in order; metrics with the parts of composites.
        images: the images' names.
        target: `(N,)` the classes explained.
        facts: metric → which way is better, range, family, one sentence, source.
        curves: (method, metric) → shares `(P,)` and points `(N, P)`, for scores that are made from a curve.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> model = heatproof.load_model("shapes")
        >>> scores = heatproof.score(model, demo_shapes(n=3), "gradcam", ["complexity", "deletion"])
        >>> scores
        Scores(3 images, methods ['gradcam'], metrics ['complexity', 'deletion'])
        >>> scores.values("gradcam", "deletion").shape
        torch.Size([3])
        >>> [(row.metric, row.flag) for row in scores.rows if row.image == scores.images[0]]
        [('complexity', ''), ('deletion', '')]
    """

    def __init__(
        self,
        model: str,
        images: Sequence[str],
        target: torch.Tensor,
        parts: Sequence[Sequence[_Scored]],
        metrics: Sequence[MetricRequest],
        values: bool = False,
    ):
        self.model, self.images, self.target = model, list(images), target
        self.facts = {request.key: request.facts(values) for request in metrics}
        self.metrics = list(self.facts)
        self.methods = [one.method for one in parts[0]]
        self._values: dict[tuple[str, str], torch.Tensor] = {}
        self._flags: dict[tuple[str, str], list[str]] = {}
        self._projections = _projections(parts)
        self.curves: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]] = {}
        for several in zip(*parts, strict=True):
            for outcomes in zip(*(one.scores for one in several), strict=True):
                key = (outcomes[0].method, outcomes[0].metric)
                self._values[key] = torch.cat([one.values for one in outcomes])
                self._flags[key] = as_text(flag for one in outcomes for flag in one.flags)
                points = [one.curve for one in outcomes if one.curve is not None]
                if len(points) == len(outcomes):
                    self.curves[key] = points[0][0], torch.cat([rows for _, rows in points])

    def values(self, method: str, metric: str) -> torch.Tensor:
        """`(N,)` float64, NaN where there is none."""
        return self._values[method, metric]

    @cached_property
    def rows(self) -> list[Row]:
        """One for every image, method and metric; nothing is dropped."""
        return [
            Row(image, method, metric, value, flag)
            for (method, metric), values in self._values.items()
            for image, value, flag in zip(self.images, values.tolist(), self._flags[method, metric], strict=True)
        ]

    def to_pandas(self) -> Any:
        """The rows as a DataFrame."""
        import pandas as pd

        return pd.DataFrame(self.rows, columns=list(Row._fields))

    def map_projections(self) -> Any:
        """A DataFrame with `image, method, value`: one number for each map, by which equal maps are recognised.

        The value is NaN for a degenerate map. It is no score: see `heatproof.engine.projections`.
        """
        import pandas as pd

        parts = [
            pd.DataFrame({"image": self.images, "method": method, "value": values})
            for method, values in zip(self.methods, self._projections, strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def table(self) -> Any:
        """A DataFrame with `model, method, metric, n, mean, std, low, high, better, flagged`; see `heatproof score`."""
        from heatproof.statistics.score_tables import score_table

        better = {metric: facts["better"] for metric, facts in self.facts.items()}
        return score_table(self.to_pandas().assign(model=self.model), better)

    @property
    def controls(self) -> list[str]:
        """The methods that are controls."""
        return _controls(self.methods)

    def plot(self, **options: Any) -> Any:
        """Means with 95 % intervals, one panel per metric, a matplotlib figure: `heatproof.plot.scores(scores, …)`.

        Also: `heatproof.plot.curves`, `critical_difference` and `metric_correlation` of the same scores.
        """
        return plots().scores(self, **options)

    def to_latex(
        self, *, spread: str = "none", labels: Mapping[str, str] | None = None, caption: str = "", name: str = "scores"
    ) -> str:
        r"""The means as a table of a paper, methods × metrics, for LaTeX with `\usepackage{booktabs}`.

        The best mean of a metric is bold; what is not significantly different from it (Wilcoxon's test by image with
        Holm's correction) is marked. Caption and notes say so.

        Args:
            spread: beside each mean `none`, its 95 % `interval`, or `std`, the standard deviation over the images.
            labels: method → display name.
            caption: the first sentence of the caption. name: the end of the label, `tab:NAME`.

        Raises:
            UnknownName: a method in `labels` that was not scored. InvalidInput: another spread, or one name for two.
        """
        return self._paper_table(spread, labels, caption, name).to_latex()

    def to_markdown(
        self, *, spread: str = "none", labels: Mapping[str, str] | None = None, caption: str = "", name: str = "scores"
    ) -> str:
        """The same table as `to_latex` in GitHub's Markdown."""
        return self._paper_table(spread, labels, caption, name).to_markdown()

    def _paper_table(self, spread: str, labels: Mapping[str, str] | None, caption: str, name: str) -> Any:
        from heatproof.statistics.paper_scores import score_paper_table, scores_of

        caption = caption or f"Scores of heatmaps of {self.model}."
        return score_paper_table(
            scores_of(self), self.methods, self.metrics, name=name, caption=caption, spread=spread,
            labels=checked_labels(labels or {}, self.methods),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Scores({len(self.images)} images, methods {self.methods}, metrics {self.metrics})"

    def _repr_html_(self) -> str:
        from heatproof.statistics.score_tables import html_table

        return html_table(self.table, controls=self.controls)


def _projections(parts: Sequence[Sequence[_Scored]]) -> np.ndarray:
    """`(methods, N)`: the projections of all maps, copied from the device at once; NaN where a map is flagged."""
    every = torch.cat([torch.stack([one.projections for one in several]) for several in parts], 1).cpu()
    fine = torch.cat([torch.tensor([one.fine for one in several]) for several in parts], 1)
    return every.where(fine, torch.nan).numpy()


def _controls(methods: Iterable[str]) -> list[str]:
    """Those of some methods that are controls."""
    return [key for key in methods if key in ATTRIBUTIONS and ATTRIBUTIONS[key].traits["control"]]


@neutral()
def score(
    model: Any,
    images: Any,
    maps_or_methods: Any = ("gradcam",),
    metrics: str | Iterable[str] | Mapping[str, Mapping[str, Any]] = DEFAULT_METRICS,
    *,
    controls: bool = False,
    target: targets.Rule = "predicted",
    layer: str | nn.Module = "auto",
    labels: Sequence[int | str | None] | None = None,
    masks: Any = None,
    reference: Any = None,
    output: explained_output.Output = "logit",
    seed: int = 0,
    batch_size: int = 16,
    normalised: bool = False,
    progress: Any = False,
) -> Scores:
    """Scores the maps of one or several methods, or maps made elsewhere, with one or several metrics.

    Args:
        model, images, target, layer, labels, output, normalised, progress: as for `explain`. An image of a folder, a
            Dataset or an iterable that cannot be read has NaN for every score, and a flag.
        maps_or_methods: names as for `explain`; or a mapping from a name to maps `(N, H, W)`, tensor or array, on any
            scale, or one array for each image; a map in the image's own pixels is resized and cropped as the
            image is, any other is taken to cover the network's input. Each is scaled to [0, 1] by itself: rectify
            signed ones before. A mapping may hold both: the value of a method is None or its options.
        metrics: names (`heatproof list metrics`), `name[option=value]`, families, `all`, or a mapping from names to
            options. A composite adds its parts. Of a network of values (`output="value"`) the metrics of the network's
            answer are in units of the value, and those that need a probability are refused by name (left out of
            families and of the default, with a warning).
        controls: score the uninformed maps (`random`, `half`, `ones`, `centre`, `edges`) too: a metric that praises
            one of them is fooled.
        masks: where the objects are, `(N, H, W)` at the size of the model's input, or one array `(h, w)` for each
            image in the image's own pixels (None where there is none); metrics of localisation need them. `shapes` and
            mosaics have masks of their own.
        reference: for metrics of stability, which compare a map with a reference map. Either as many images, which are
            explained by the same methods and target rule (`images` are then the perturbed ones); or a mapping from
            names in `maps_or_methods` to maps, the only form for maps made elsewhere. Segments are those of the
            reference images; with a mapping, those of `images`.

    Returns:
        `Scores`: `.table` (means with intervals), `.rows` (image, method, metric, value, flag), `.to_pandas()`,
        `.curves`. A degenerate map has the metric's stated value, or NaN, and a flag. A row whose probabilities all
        are 0, or all are 1, to the digits that scores have, keeps its value and has the flag `saturated`.

    Raises:
        UnknownName, InvalidInput, InvalidTarget, LayerError, NotApplicable: as `explain`.

    Examples:
        >>> import heatproof
        >>> from heatproof.data import demo_shapes
        >>> model = heatproof.load_model("shapes")
        >>> scores = heatproof.score(model, demo_shapes(n=3), ["gradcam", "eigencam"], ["complexity", "pointing-game"])
        >>> print(scores.table[["method", "metric", "n"]])
             method         metric  n
        0   gradcam     complexity  3
        1   gradcam  pointing-game  3
        2  eigencam     complexity  3
        3  eigencam  pointing-game  3
    """
    model = as_model(model)
    model, output = of_output(model, output)
    wanted = _wanted(metrics, images, masks, reference, model.of_values)
    dry_run(wanted)
    methods, arrays = _methods_and_maps(maps_or_methods)
    if controls:
        methods |= {name: {} for name, e in ATTRIBUTIONS.items() if e.traits["control"] and name not in methods}
    if twice := sorted(set(methods) & set(arrays)):
        raise InvalidInput(f"Maps need a name of their own. {twice[0]!r} is a method's too.")
    requests = requested(methods) if methods else []
    settings: dict[str, Any] = {"labels": labels, "output": output, "seed": seed, "batch_size": batch_size,
                                "normalised": normalised}  # fmt: skip
    call = Call.of(model, images, requests, target, layer, **settings)
    inputs = call.inputs
    given = {key: _checked_maps(maps, inputs, key) for key, maps in arrays.items()}
    ground_truth = _GroundTruth.of(masks, model, inputs)
    references, paired = _References.of(reference, call, list(given)), any(request.paired for request in wanted)

    def work(rows: slice) -> tuple[list[_Scored], torch.Tensor]:
        batch = call.batch(rows)
        some = [_given_maps(key, maps, rows, batch.x, inputs, references.maps.get(key)) for key, maps in given.items()]
        mask = ground_truth.of_rows(rows)
        more: dict[str, Any] = {"ground_truth": mask}
        if paired:
            of_reference = references.of_methods(rows, batch.x, mask)
            more |= {"reference": of_reference, "reference_images": references.x(rows)}
        found = []
        for one in evaluate(batch, call.methods, wanted, given=some, **more):
            found.append(one)
            bar.advance(len(batch.x) / (len(call.methods) + len(given)))
        failed = {row - rows.start: why for row, why in inputs.failed.items() if rows.start <= row < rows.stop}
        return [_Scored.of(unusable(one, failed)) for one in found], without(batch.target, failed, -1)

    with reported(progress) as bar:
        bar.stage("Scoring", inputs.count or 0)
        found = list(call.over(work))
    targeted = torch.cat([target for _, target in found])
    return Scores(model.name, inputs.ids, targeted, [part for part, _ in found], wanted, model.of_values)


def _wanted(metrics: Any, images: Any, masks: Any, reference: Any, values: bool) -> list[MetricRequest]:
    """The metrics; of families without those that mean something on mosaics alone, where no image is one."""
    mosaics = of_mosaics(images)
    wanted = requested_metrics(metrics, reference=reference is not None, mosaics=mosaics, values=values, parted=False)
    name = images if isinstance(images, str) else images.name if isinstance(images, Images) else ""
    known = not mosaics and name.partition(":")[0] in ("shapes", "torchvision")
    if known and (played := [one.key for one in wanted if one.of_mosaics]):
        warn(
            f"{name} has no mosaics, so {', '.join(played)} is `energy` once more. It is meant for mosaics of "
            "several images, with the cell of the target as mask."
        )
    if masks is not None:
        kept = {request.key for request in wanted}
        every = requested_metrics(metrics, reference=reference is not None)
        left = [one.key for one in every if one.of_mosaics and one.key not in kept]
        if left:
            warn(f"No mosaics, so {', '.join(left)} is left out. By its name it is taken, on mosaics of your own.")
    return wanted


class _References:
    """The reference maps of a call, of either kind: images to explain, or maps by name."""

    def __init__(self, call: Call, images: Call | None, maps: Mapping[str, Any]):
        self.call, self.images, self.maps = call, images, maps

    @classmethod
    def of(cls, reference: Any, call: Call, given: Sequence[str]) -> "_References":
        """Raises InvalidInput for a wrong number of images, or an unknown name."""
        if reference is None:
            return cls(call, None, {})
        if isinstance(reference, Mapping):
            names = [*given, *(method.key for method in call.methods)]
            if strange := [str(name) for name in reference if name not in names]:
                raise InvalidInput(f"`reference` must name {', '.join(names)}. Got {strange[0]!r}.")
            return cls(call, None, {key: _checked_maps(maps, call.inputs, key) for key, maps in reference.items()})
        model = call.model
        inputs = model_inputs(reference, model, call.normalised)
        if len(inputs) != len(call.inputs):
            raise InvalidInput(f"Expected one reference image for each of {len(call.inputs)}. Got {len(inputs)}.")
        return cls(call, replace(call, inputs=inputs), {})

    def x(self, rows: slice) -> torch.Tensor | None:
        """The reference images, where there are any."""
        return None if self.images is None else self.images.inputs.batch(rows)

    def of_methods(self, rows: slice, x: torch.Tensor, mask: torch.Tensor | None) -> ReferenceMaps | None:
        """The reference maps of those methods that have them; None where none has."""
        methods = self.call.methods
        if self.images is not None and methods:
            # Another condition gives other random numbers: an image may be its own reference, and `random` is unstable.
            batch = self.images.batch(rows, condition="clean")
            return ReferenceMaps.of(batch.x, explanation(batch, methods), mask=mask)
        named = [method.key for method in methods if method.key in self.maps]
        if not named:
            return None
        raw = {key: _maps_at_image_size(key, self.maps[key], rows, x, self.call.inputs) for key in named}
        shown = {key: display_maps(maps.to(x), "display", tuple(x.shape[2:])) for key, maps in raw.items()}
        return ReferenceMaps(x, shown, {key: flags(maps, "display") for key, maps in raw.items()}, mask)


def _methods_and_maps(asked: Any) -> tuple[dict[str, Mapping[str, Any]], dict[str, Any]]:
    """Methods with their options, and maps made elsewhere, both by name."""
    if not isinstance(asked, Mapping):
        names = [asked] if isinstance(asked, str) else list(asked) if isinstance(asked, Iterable) else [asked]
        if not names or not all(isinstance(name, str) for name in names):
            got = f"{type(asked).__name__} of {len(names)}"
            raise InvalidInput(f"Expected names of methods, or a mapping from a name to maps (N, H, W). Got a {got}.")
        return {name: {} for name in names}, {}
    if not asked:
        raise InvalidInput("Expected at least one method, or maps by name. Got none.")
    methods = {name: value or {} for name, value in asked.items() if value is None or isinstance(value, Mapping)}
    return methods, {str(name): value for name, value in asked.items() if name not in methods}


def _checked_maps(maps: Any, inputs: Inputs | Stream, key: str) -> Any:
    """Maps one for each image: an array, or arrays of any sizes."""
    if isinstance(maps, torch.Tensor):
        maps = maps.detach().cpu().numpy()
    if not isinstance(maps, np.ndarray | list | tuple):
        raise InvalidInput(f"The maps of {key!r} must be an array (N, H, W). Got {type(maps).__name__}.")
    if len(maps) != len(inputs) or np.ndim(maps[0]) < 1:
        got = tuple(maps.shape) if isinstance(maps, np.ndarray) else f"{len(maps)} of them"
        raise InvalidInput(f"The maps of {key!r} must be one for each of {len(inputs)} images, (N, H, W). Got {got}.")
    return maps


def _given_maps(
    key: str, maps: Any, rows: slice, x: torch.Tensor, inputs: Inputs | Stream, reference: Any
) -> GivenMaps:
    own = None if reference is None else _maps_at_image_size(key, reference, rows, x, inputs)
    return GivenMaps(key, _maps_at_image_size(key, maps, rows, x, inputs), reference=own)


def _maps_at_image_size(key: str, maps: Any, rows: slice, x: torch.Tensor, inputs: Inputs | Stream) -> torch.Tensor:
    found = []
    for row in range(rows.start, rows.stop):
        size, one = inputs.size(row), maps[row]
        if size is not None and np.ndim(one) in (2, 3):
            try:
                one = as_map(one, size, inputs.geometry)
            except InvalidImage as error:
                raise InvalidInput(f"The maps of {key!r}: {error}.") from None
        found.append(fitted(np.asarray(one)[None], x[row - rows.start :][:1], "display", key))
    return torch.cat(found)


class _GroundTruth:
    """The masks of a call: those given, or those that the source of the images has; `of_rows` after a batch is read."""

    def __init__(self, masks: Any, size: tuple[int, ...], inputs: Inputs | Stream):
        self.masks, self.size, self.inputs = masks, size, inputs

    @classmethod
    def of(cls, masks: Any, model: Model, inputs: Inputs | Stream) -> "_GroundTruth":
        """Raises InvalidInput for a wrong number or shape of masks."""
        size = tuple(model.input_shape[1:])
        if masks is None:
            return cls(None, size, inputs)
        if len(masks) != len(inputs):
            raise InvalidInput(f"Expected one mask for each of {len(inputs)} images. Got {len(masks)}.")
        if isinstance(masks, torch.Tensor | np.ndarray):
            found = torch.as_tensor(masks)
            found = found[:, 0] if found.dim() == len(size) + 2 and found.shape[1] == 1 else found
            if tuple(found.shape[1:]) != size:
                raise InvalidInput(
                    f"`masks` must be (N, {', '.join(map(str, size))}), the size of the model's input, or a list of "
                    f"arrays in the images' own pixels. Got {tuple(found.shape)}."
                )
            return cls(found > 0, size, inputs)
        found = cls(list(masks), size, inputs)
        if isinstance(inputs, Inputs):  # a wrong one is an error before any work
            found.of_rows(slice(0, len(inputs)))
        return found

    def of_rows(self, rows: slice) -> torch.Tensor | None:
        """`(n, *size)` bool; None where no mask is known."""
        if isinstance(self.masks, torch.Tensor):
            return self.masks[rows]
        own = [self.inputs.mask(row) if self.masks is None else self.masks[row] for row in range(rows.start, rows.stop)]
        if self.masks is None and all(mask is None for mask in own):
            return None
        return torch.stack([_mask(mask, self.size, self.inputs, row) for row, mask in enumerate(own, rows.start)])


def _mask(mask: Any, size: tuple[int, ...], inputs: Inputs | Stream, row: int) -> torch.Tensor:
    """One image's mask, in its own pixels (of a tensor: at its size), through the model's geometry."""
    if mask is None or row in inputs.failed:
        return torch.zeros(size, dtype=torch.bool)
    array, own = np.asarray(mask) > 0, inputs.size(row)
    if array.shape != (own or size):
        wanted = " × ".join(map(str, own or size))
        raise InvalidInput(f"Mask {row} must have its image's {wanted} pixels. Got {array.shape}.")
    return torch.from_numpy(array.copy()) if own is None else inputs.geometry.mask(array)


__all__ = ["DEFAULT_METRICS", "Row", "Scores", "score"]

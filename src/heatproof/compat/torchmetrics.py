"""heatproof's metrics as `torchmetrics` metrics, for training loops, Lightning and several processes (DDP).

    from heatproof.compat.torchmetrics import metric, metrics

    drop = metric("average-drop", model, method="gradcam")
    drop.update(images)                          explains with the method, and scores its maps
    drop.update(images, maps)                    scores maps made elsewhere
    drop.compute()                               the mean over the images that have a value

    several = metrics(["road", "insertion", "deletion"], model, method="layercam")     a MetricCollection, shared passes

Every metric of the registry has a class (`AverageDrop`), made from its registry entry; no formula is repeated here.
Seeds of random numbers come from an image's content, so a value depends neither on the order nor on the process.
"""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from heatproof.compat.missing import missing_names
from heatproof.compat.scoring import scored
from heatproof.engine import Scores
from heatproof.errors import InvalidInput, MissingExtra
from heatproof.metrics import METRICS
from heatproof.metrics.metric_request import MetricRequest, parsed_metric, requested_metrics
from heatproof.models import Model
from heatproof.registry import Entry

try:
    from torchmetrics import Metric, MetricCollection
except ImportError as error:
    raise MissingExtra('heatproof.compat.torchmetrics needs torchmetrics: pip install "heatproof[torchmetrics]"') from (
        error
    )

#: Options of `torchmetrics.Metric` itself.
PASSED = (
    *("compute_on_cpu", "dist_sync_on_step", "process_group", "dist_sync_fn", "distributed_available_fn"),
    *("sync_on_compute", "compute_with_cache"),
)

#: Options of `heatproof.compat.scoring.scored`.
SAID = ("mean", "std", "layer", "output", "seed", "batch_size")

#: The name of maps made elsewhere.
MAPS = "maps"


class Subject:
    """The classifier, method and settings of a metric. Copies of the metric share it, so no network is copied."""

    def __init__(self, model: Model | nn.Module, method: str, target: Any, more: Mapping[str, Any]):
        if not isinstance(model, Model | nn.Module):
            raise InvalidInput(f"`model` must be a heatproof.Model or a module. Got {type(model).__name__}.")
        self.model, self.method, self.target, self.more = model, method, target, dict(more)

    def __deepcopy__(self, memo: dict) -> "Subject":
        return self

    def scores(
        self,
        requests: Iterable[MetricRequest],
        images: Any,
        maps: Any = None,
        target: Any = None,
        mask: Any = None,
        reference: Any = None,
    ) -> Scores:
        """All metrics from the same passes, of the method's maps or of maps made elsewhere."""
        requests = list(requests)
        if maps is not None:
            for request in requests:
                if request.having("explains"):
                    raise InvalidInput(
                        f"{request.key!r} explains other images too, and maps made elsewhere cannot be made again. "
                        "Leave `maps` out, and name the method."
                    )
        asked = {MAPS: maps} if maps is not None else [self.method]
        names = [request.key for request in requests]
        rule = self.target if target is None else target
        beside = {MAPS: reference} if maps is not None and reference is not None else reference
        return scored(self.model, images, asked, names, target=rule, masks=mask, reference=beside, **self.more)


class Score(Metric):
    """The mean of one metric over images; subclasses are made for each metric of the registry.

    `count` images had a value, `missing` had none: a degenerate map, no mask, or an undefined metric. The states are
    sums, so several processes are added up. Where no image has a value the mean is NaN.
    """

    is_differentiable = False
    full_state_update = False
    entry: Entry
    subject: Subject
    request: MetricRequest
    _made = itertools.count()

    def __init__(
        self,
        model: Model | nn.Module,
        method: str = "gradcam",
        target: Any = "predicted",
        **options: Any,
    ):
        """See `metric`."""
        passed = {key: options.pop(key) for key in PASSED if key in options}
        more = {key: options.pop(key) for key in SAID if key in options}
        super().__init__(**passed)
        self.request = parsed_metric(self.entry.name, options)
        self.subject = Subject(model, method, target, more)
        # State names are unique: a MetricCollection merges two metrics whose states are equal after one update.
        self._states = tuple(f"{name}_{next(self._made)}" for name in ("total", "count", "missing"))
        for name, dtype in zip(self._states, (torch.float64, torch.int64, torch.int64), strict=True):
            self.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")

    def update(
        self, images: Any, maps: Any = None, target: Any = None, mask: Any = None, reference: Any = None
    ) -> None:
        """Adds images.

        Args:
            images: `(N, C, H, W)`: in [0, 1] for a `heatproof.Model`, as the network takes them for a module; or the
                `Scores` of such images.
            maps: `(N, H, W)` or `(N, 1, H, W)`, in place of the method's.
            target: classes `(N,)`, in place of the metric's rule.
            mask: `(N, H, W)`, where the object is, for metrics of localisation.
            reference: for metrics of stability: the clean images, in the form of `images`; with `maps`, their maps.

        Raises:
            InvalidInput: maps for a metric that explains again; also the errors of `heatproof.score`.
        """
        if isinstance(images, Scores):
            found = images
        else:
            found = self.subject.scores([self.request], images, maps, target, mask, reference)
        values = found.values(found.methods[0], self.request.key)
        finite = torch.isfinite(values)
        self._add(values[finite].sum(), finite.sum(), (~finite).sum())

    def _add(self, *sums: torch.Tensor) -> None:
        for name, more in zip(self._states, sums, strict=True):
            state = getattr(self, name)
            setattr(self, name, state + more.to(state))

    def compute(self) -> torch.Tensor:
        """The mean over the images that have a value; NaN where none has."""
        return self.total / self.count

    @property
    def total(self) -> torch.Tensor:
        """Sum of the values."""
        return getattr(self, self._states[0])

    @property
    def count(self) -> torch.Tensor:
        """How many images had a value."""
        return getattr(self, self._states[1])

    @property
    def missing(self) -> torch.Tensor:
        """How many had none."""
        return getattr(self, self._states[2])

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (self.entry.name,), self.__getstate__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.request.key!r}, method={self.subject.method!r})"


class ScoreCollection(MetricCollection):
    """Several metrics of the same maps: images are explained once, and passes shared, for all of them."""

    def __init__(self, members: Mapping[str, Score], **more: Any):
        super().__init__(dict(members), compute_groups=False, **more)

    def _scores(self, images: Any, *given: Any, **named: Any) -> Scores:
        members = [member for member in self.values(copy_state=False) if isinstance(member, Score)]
        if isinstance(images, Scores):
            return images
        subject: Subject = members[0].subject
        return subject.scores([member.request for member in members], images, *given, **named)

    def update(self, images: Any, *given: Any, **named: Any) -> None:
        """As `Score.update`."""
        super().update(self._scores(images, *given, **named))

    def forward(self, images: Any, *given: Any, **named: Any) -> dict[str, Any]:
        """Adds images, and returns the means over these alone."""
        return super().forward(self._scores(images, *given, **named))


def metric(name: str, model: Model | nn.Module, method: str = "gradcam", **options: Any) -> Score:
    """A metric of the registry as a `torchmetrics.Metric`.

    Args:
        name: a spelling, with options in brackets or not (`heatproof list metrics`).
        model: a `heatproof.Model`, with images in [0, 1]; or a module, with images normalised for it.
        method: the method that makes the maps where `update` gets none.
        options: of the metric; `target`, a rule or a class; `mean` and `std` of a module's images, see
            `heatproof.compat.scoring.scored`; `layer`, `output`, `seed`, `batch_size` as for `heatproof.score`; and
            those of `torchmetrics.Metric`, such as `dist_sync_on_step`.
    """
    request = parsed_metric(name)
    changed = {key: value for key, value in request.options.items() if value != request.entry.options[key]}
    return class_of(request.entry.name)(model, method, **{**changed, **options})


def metrics(
    names: Iterable[str] | Mapping[str, Mapping[str, Any]],
    model: Model | nn.Module,
    method: str = "gradcam",
    *,
    prefix: str | None = None,
    postfix: str | None = None,
    **options: Any,
) -> ScoreCollection:
    """Several metrics as a `torchmetrics.MetricCollection`, by their spelling (`_` for a dot); see `metric`."""
    requests = requested_metrics(names, parts=False)
    members = {one.key.replace(".", "_"): metric(one.key, model, method, **options) for one in requests}
    subject = next(iter(members.values())).subject
    for member in members.values():
        member.subject = subject
    return ScoreCollection(members, prefix=prefix, postfix=postfix)


# --- classes ---

_CLASSES: dict[str, type[Score]] = {}


def class_of(name: str) -> type[Score]:
    """The class of a metric; made at the first call, and kept as long as the registry entry is the same."""
    entry = parsed_metric(name).entry
    known = _CLASSES.get(entry.name)
    if known is None or known.entry is not entry:
        low, high = entry.traits["range"]
        _CLASSES[entry.name] = type(
            class_name(entry.name),
            (Score,),
            {
                "__doc__": f"{entry.summary}\n\n{Score.__doc__}",
                "__module__": __name__,
                "entry": entry,
                "higher_is_better": entry.traits["better"] == "high",
                "plot_lower_bound": low,
                "plot_upper_bound": high,
            },
        )
    return _CLASSES[entry.name]


def class_name(name: str) -> str:
    """`average-drop` → `AverageDrop`."""
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^0-9A-Za-z]+", name))


def _blank(name: str) -> Score:
    """An empty metric, which unpickling fills."""
    kind = class_of(name)
    return kind.__new__(kind)


def _classes() -> dict[str, str]:
    return {class_name(known): known for known in METRICS}


def __getattr__(name: str) -> Any:
    """The class of a metric by name, such as `AverageDrop`."""
    classes = _classes()
    return class_of(classes[name]) if name in classes else _missing(name)


_missing = missing_names(__name__, {}, _classes)


def __dir__() -> list[str]:
    return sorted([*globals(), *_classes()])

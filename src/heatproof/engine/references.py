"""Reference maps, of the same methods on the reference (clean) images, and pairs of them with other maps."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from heatproof.engine.explanation import Explanation
from heatproof.engine.memory import out_of_memory
from heatproof.flags import FINE, Flag
from heatproof.memo import cached_property
from heatproof.metrics.metric_request import MetricRequest
from heatproof.metrics.pairs import Pair, Reference
from heatproof.segments import segment
from heatproof.tensors import within_unit
from heatproof.transfers import on_host


@dataclass
class ReferenceMaps:
    """Display maps of one batch of reference images, `(N, *spatial)` by method, and what their pairs share.

    Attributes:
        x: the reference images, whose segments are used.
        maps: method → display maps, on the device.
        flags: method → why each map is degenerate or missing.
        mask: where the objects are, `(N, *spatial)` bool, for segmenters that need it.
    """

    x: torch.Tensor
    maps: Mapping[str, torch.Tensor]
    flags: Mapping[str, Sequence[Flag]]
    mask: torch.Tensor | None = None
    _segments: dict[str, torch.Tensor] = field(default_factory=dict, init=False)

    @classmethod
    def of(
        cls, x: torch.Tensor, found: Explanation, upsample: str = "bilinear", mask: torch.Tensor | None = None
    ) -> "ReferenceMaps":
        """The maps of an explanation of the reference images `x`, one target for each."""
        maps = {key: found.display(key, upsample).detach() for key in found.methods}
        return cls(x, maps, found.flags, mask)  # type: ignore[arg-type] - no lists: one target for each image

    def segments(self, segmenter: str) -> torch.Tensor:
        """Label maps `(N, H, W)` of the reference images, in the CPU's memory."""
        if segmenter not in self._segments:
            mask = None if self.mask is None else self.mask.bool()
            x = on_host([within_unit(self.x.nan_to_num(0))])[0]
            self._segments[segmenter] = segment(x, segmenter, mask=mask)
        return self._segments[segmenter]

    @cached_property
    def images(self) -> list[Reference]:
        """For each image the maps of all methods `(M, *spatial)`, in the order of `maps`, prepared for many pairs."""
        stacked, me = torch.stack(list(self.maps.values()), 1), weakref.proxy(self)  # no circle, which keeps memory
        return [
            Reference(maps, lambda segmenter, row=row: me.segments(segmenter)[row]) for row, maps in enumerate(stacked)
        ]

    def counts(self, segmenter: str) -> list[int]:
        """The number of segments of each image."""
        return [one.count(segmenter) for one in self.images]

    def flags_of(self, method: str) -> list[Flag]:
        """Flags of a method's reference maps, marked `clean: ` to tell them from those of the other map."""
        return [flag.after("clean: ") for flag in self.flags.get(method) or [FINE] * len(self.x)]


class Pairs:
    """The maps of a batch with their reference maps, for all methods that have them: a metric runs once for all."""

    def __init__(self, reference: ReferenceMaps, maps: Mapping[str, torch.Tensor], metrics: Sequence[MetricRequest]):
        self.reference, self.keys, self.metrics = reference, list(reference.maps), metrics
        stacked = torch.stack([maps[key] for key in self.keys], 1)
        self.images = [Pair(one, some) for one, some in zip(reference.images, stacked, strict=True)]
        self._errors: dict[str, BaseException] = {}

    def __contains__(self, method: str) -> bool:
        return method in self.keys

    def values(self, method: str, request: MetricRequest) -> torch.Tensor:
        """`(N,)` float64 of one method, in the CPU's memory; what the metric raised, if it did."""
        if request.key not in self._values:
            raise self._errors[request.key]
        return self._values[request.key][:, self.keys.index(method)]

    @cached_property
    def _values(self) -> dict[str, torch.Tensor]:
        """Metric → its values `(N, M)` for all methods: all metrics in one copy to the host."""
        found: dict[str, torch.Tensor] = {}
        for request in self.metrics:
            try:
                found[request.key] = torch.stack([image.value(request) for image in self.images])
            except (Exception, SystemExit) as error:  # a metric of a user; it is raised where its value is asked for
                if out_of_memory(error):
                    raise
                self._errors[request.key] = error
        return dict(zip(found, on_host(list(found.values())), strict=True))

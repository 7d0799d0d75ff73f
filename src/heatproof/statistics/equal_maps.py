"""Methods whose maps are equal: one arm in every test.

On a network that ends in global pooling and a linear head, `gradcam`, `hirescam` and `xgradcam` are the same map.
Their numbers differ by rounding noise alone, about 1e-7, and noise of that size can still move a rank. A test that
treats them as different methods corrects for comparisons that do not exist, and may rank one above another.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from heatproof.rounding import ANSWER_STEP, rounded
from heatproof.statistics.special_rows import PROJECTION
from heatproof.statistics.wording import counted, listed

#: Without projections, methods are equal only if the values of some metric that they share are at least so many
#: different numbers: a few zeros and ones that agree show nothing.
DIFFERENT = 10


#: The metrics of a pair of maps that a frame of pairs may hold.
COMPANIONS = ("rbo", "kappa", "l1", "spearman", "ssim", "cosine")


@dataclass(frozen=True)
class EqualMaps:
    """Groups of methods with equal maps; the first of a group stands for it in every test.

    groups: each of two methods or more. images: on how many images their maps were compared. controls: the methods
    that are controls; a control and a real method are never in one group. networks: how many networks that holds for.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    images: int = 0
    controls: frozenset[str] = frozenset()
    networks: int = 1

    @cached_property
    def first(self) -> Mapping[str, str]:
        """Method → the method that stands for it; only those that another stands for."""
        return {name: group[0] for group in self.groups for name in group[1:]}

    def arm(self, method: str) -> str:
        """The method that stands for `method` in the tests."""
        return self.first.get(method, method)

    def kept(self, frame: Any) -> Any:
        """The rows of `frame` (with a column `method`) whose method stands for itself."""
        return frame[~frame["method"].isin(list(self.first))] if self.first else frame

    def named(self, methods: Iterable[str]) -> tuple[str, ...]:
        """`methods`, each followed by the methods that it stands for."""
        equals = {group[0]: group for group in self.groups}
        return tuple(name for method in methods for name in equals.get(method, (method,)))

    def spread(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """`values` by method, with those of every method that another stands for beside the other's."""
        return {name: value for method, value in values.items() for name in self.named([method])}

    def notes(self) -> Iterator[str]:
        """For each group of real methods, what is equal and what follows; for one network, so that it is said once."""
        if self.networks > 1:
            return
        where = "the image" if self.images == 1 else f"all {counted(self.images, 'image')}"
        for group in self.groups:
            if group[0] not in self.controls:
                yield (
                    f"{' = '.join(group)} on this network: their maps are equal to five digits on {where}, so they are "
                    f"one method in every test, where {group[0]} stands for {listed(group[1:])}."
                )


#: No two methods are equal.
DISTINCT = EqualMaps()


def equal_maps(projections: Any, values: Any = None, order: Sequence[str] = ()) -> EqualMaps:
    """The methods whose maps are equal on all images of `projections`.

    Two maps are equal on an image if their projections are the same to `ANSWER_STEP`, about 1e-5; maps whose difference
    has a root mean square of 1e-3 pass with a chance of one in a hundred for each image. Real methods are compared with
    real ones, controls with controls.

    Args:
        projections: rows with the columns method, control, image, value, and any of model, dataset; one for each map.
        values: rows of any metrics with the columns method, control, image, value and any of metric, perturbation,
            severity and so on. They decide where there are no projections: all values must be equal to five digits, and
            those of some metric must be at least `DIFFERENT` different numbers.
        order: the methods in the order in which they may stand for others.
    """
    if projections is not None and len(projections):
        scale, least = False, 1
        frame = projections.assign(metric=PROJECTION)
    elif values is not None and len(values):
        scale, least = True, DIFFERENT
        frame = values if "metric" in values else values.assign(metric="")
    else:
        return DISTINCT
    control = {str(m): bool(c) for m, c in zip(frame["method"], frame["control"], strict=True)}
    position = {name: number for number, name in enumerate(order)}
    names = sorted(control, key=lambda name: (position.get(name, len(position)), name))
    table = _observations(frame, names, scale)
    groups: list[list[str]] = []
    for name in names:
        same = [
            group for group in groups if control[group[0]] == control[name] and _equal(table, group[0], name, least)
        ]
        same[0].append(name) if same else groups.append([name])
    found = tuple(tuple(group) for group in groups if len(group) > 1)
    keys = [key for key in ("dataset", "image") if key in frame]
    known = frame.loc[frame["value"].notna(), keys].drop_duplicates()
    return EqualMaps(found, len(known), frozenset(name for name in names if control[name]))


def equal_pairs(pairs: Any, order: Sequence[str] = ()) -> EqualMaps:
    """`equal_maps` by the values of a frame of pairs (`robustness_tables`), where there are no projections."""
    metrics = [name for name in COMPANIONS if name in pairs]
    keys = [key for key in (*KEYS, "method", "control") if key in pairs]
    long = [pairs[keys].assign(metric=name, value=pairs[name].astype(float)) for name in metrics]
    return equal_maps(None, pd.concat(long, ignore_index=True) if long else None, order)


def shared(parts: Sequence[EqualMaps]) -> EqualMaps:
    """The methods that are equal in every one of several settings."""
    if not parts:
        return DISTINCT
    groups = [set(group) for group in parts[0].groups]
    for part in parts[1:]:
        groups = [group & set(other) for group in groups for other in part.groups]
    order = [name for group in parts[0].groups for name in group]
    kept = [tuple(sorted(group, key=order.index)) for group in groups if len(group) > 1]
    controls = frozenset(name for part in parts for name in part.controls)
    return EqualMaps(tuple(kept), sum(part.images for part in parts), controls, len(parts))


#: What tells the observations of a metric apart, where a frame has it.
KEYS = ("model", "dataset", "layer", "segmenter", "perturbation", "severity", "transformation", "target", "image")


def _observations(frame: Any, names: Sequence[str], scale: bool) -> Any:
    """(metric, condition, image) × methods; with `scale` each metric in units of its largest magnitude."""
    keys = ["metric", *(key for key in KEYS if key in frame)]
    wide: Any = frame.groupby([*keys, "method"], observed=True)["value"].mean().unstack().reindex(columns=list(names))
    if not scale:
        return wide
    sizes = wide.abs().max(axis=1).groupby(wide.index.get_level_values("metric")).transform("max")
    return wide.div(sizes.where(sizes > 0, 1.0), axis=0)


def _equal(table: Any, first: str, second: str, least: int) -> bool:
    """Whether two columns agree in every row, in what is missing too, and show enough different numbers."""
    one, other = (table[name].to_numpy(np.float64) for name in (first, second))
    known = ~np.isnan(one)
    if not known.any() or not np.array_equal(known, ~np.isnan(other)):
        return False
    if np.any(rounded(one[known] - other[known], None, ANSWER_STEP)):
        return False
    if least <= 1:
        return True
    metrics = table.index.get_level_values("metric")[known]
    seen = pd.Series(rounded(one[known], None, ANSWER_STEP)).groupby(metrics.to_numpy()).nunique()
    return bool(seen.max() >= least)

"""Findings of pair metrics under noise: the robustness table, tests over conditions, the verdict of each setting."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from heatproof.report import frames
from heatproof.report.frames import Frame
from heatproof.report.source import Source
from heatproof.statistics.agreement import Agreement, kendall_w, segmenter_agreement
from heatproof.statistics.equal_maps import EqualMaps, equal_maps, equal_pairs, shared
from heatproof.statistics.intervals import multiplicities, percentiles, weighted_medians
from heatproof.statistics.paired import LEAST_METHODS, Comparison, compared
from heatproof.statistics.robustness_changes import moved_borders
from heatproof.statistics.robustness_tables import image_blocks, rm_blocks, robustness_table
from heatproof.statistics.robustness_verdict import Verdict, verdict_on

#: The quantity by which methods are compared → the blocks of its tests in words.
BLOCKS = {"rm": "conditions", "rm0": "conditions", "rbo": "images whose prediction held"}


class RobustnessSetting(NamedTuple):
    """One model, dataset, layer and segmenter: what a table and its tests belong to."""

    model: str
    dataset: str
    layer: str
    segmenter: str

    def of(self, frame: Frame) -> Frame:
        """The rows of `frame` that belong to this setting (by the columns it has)."""
        for name, value in zip(self._fields, self, strict=True):
            if name in frame:
                frame = frame[frame[name] == value]
        return frame


@dataclass(frozen=True)
class RobustnessFindings:
    """The numbers behind tables and figures.

    `comparisons`: setting → quantity → tests over its blocks (real methods only, as controls would only shift the
    ranks). `verdicts` are those of the main settings. `overall` and `together` are the tests and the verdict over
    every model and dataset at once, where there are several. `equal`: (model, dataset) → methods with equal maps.
    """

    pairs: Frame
    table: Frame
    strengths: Frame
    flips: Frame
    masks: Frame
    mask_cosine: Frame
    methods: Sequence[str]
    controls: frozenset[str]
    settings: Sequence[RobustnessSetting]
    comparisons: Mapping[RobustnessSetting, Mapping[str, Comparison]]
    verdicts: Mapping[RobustnessSetting, Verdict]
    overall: Mapping[str, Comparison]
    together: Verdict | None
    agreement: Frame
    equal: Mapping[tuple[str, str], EqualMaps]
    reference: str = ""

    @classmethod
    def of(cls, source: Source) -> "RobustnessFindings | None":
        """Reads the rows and computes every table and test; None without pairs. The slow part is the bootstrap."""
        plan, rows = source.plan, source.connection
        pairs = frames.pairs(rows)
        if pairs.empty:
            return None
        resamples, seed = int(plan.get("resamples") or 1000), int(plan.get("seed") or 0)
        table = robustness_table(pairs, frames.psnr(rows), frames.segments(rows), resamples=resamples, seed=seed)
        settings = _settings(pairs, plan)
        several = len({setting[:2] for setting in settings}) > 1
        first = [setting for setting in settings if setting.segmenter == settings[0].segmenter]
        given: dict[str, Any] = {
            "segmenter": first[0].segmenter,
            "resamples": resamples,
            "seed": seed,
            "reference": str(plan.get("reference") or ""),
        }
        masks = frames.mask_cosines(rows)
        methods = frames.ordered(pairs["method"], frames.names(plan.get("methods")))
        equal = _equal(pairs, frames.projections(rows), methods)
        verdicts = {s: verdict_on(s.of(pairs), s.of(table), **given, equal=equal[s[:2]]) for s in first}
        together, overall = None, {}
        if several:
            everywhere = shared(list(equal.values()))
            together = verdict_on(_of(first, pairs), _of(first, table), **given, equal=everywhere)
            overall = _comparisons(_of(first, pairs), _of(first, table), everywhere, together)
        return cls(
            pairs=pairs,
            table=table,
            strengths=frames.strengths(rows),
            flips=frames.flips(rows),
            masks=masks,
            mask_cosine=mask_cosine_table(masks, resamples, seed),
            methods=methods,
            controls=frozenset(pairs.loc[pairs["control"], "method"]),
            settings=settings,
            comparisons={s: _comparisons(s.of(pairs), s.of(table), equal[s[:2]], verdicts.get(s)) for s in settings},
            verdicts=verdicts,
            overall=overall,
            together=together,
            agreement=_agreement(table, equal, {s.segmenter for s in settings}),
            equal=equal,
            reference=given["reference"],
        )

    @property
    def main(self) -> list[RobustnessSetting]:
        """The settings with the plan's first segmenter, which the page shows in full."""
        first = self.settings[0].segmenter
        return [setting for setting in self.settings if setting.segmenter == first]

    def alike(self, setting: RobustnessSetting) -> list[RobustnessSetting]:
        """The settings that differ from this one at most in the segmenter, in the plan's order."""
        return [other for other in self.settings if other[:3] == setting[:3]]


def _settings(pairs: Frame, plan: Mapping) -> list[RobustnessSetting]:
    """Every setting, with models, datasets and segmenters in the order of the plan."""
    order = [
        frames.ordered(pairs[name], frames.names(plan.get(f"{name}s"))) for name in ("model", "dataset", "segmenter")
    ]
    found = pairs[list(RobustnessSetting._fields)].drop_duplicates().itertuples(index=False, name=None)
    number = [{name: position for position, name in enumerate(names)} for names in order]
    key = lambda s: (number[2][s.segmenter], number[1][s.dataset], number[0][s.model], s.layer)  # noqa: E731
    return sorted((RobustnessSetting(*row) for row in found), key=key)


def _agreement(table: Frame, equal: Mapping[tuple[str, str], EqualMaps], segmenters: Collection[str]) -> Frame:
    """Agreement of the segmenters, without those that are another one with its borders moved; empty with one."""
    moved = {pair.moved for pair in moved_borders(sorted(segmenters))}
    if len(set(segmenters) - moved) < 2:
        return pd.DataFrame()
    return segmenter_agreement(table[~table["segmenter"].isin(moved)], equal=equal)


def _of(settings: Sequence[RobustnessSetting], frame: Frame) -> Frame:
    return pd.concat([setting.of(frame) for setting in settings])


def _equal(pairs: Frame, projections: Frame, methods: Sequence[str]) -> dict[tuple[str, str], EqualMaps]:
    """(model, dataset) → the methods whose maps are equal there."""
    found = {}
    for key, here in pairs.groupby(["model", "dataset"], sort=False):
        maps = projections[(projections["model"] == key[0]) & (projections["dataset"] == key[1])]
        found[key] = equal_maps(maps, order=methods) if len(maps) else equal_pairs(here, methods)
    return found


def _comparisons(pairs: Frame, table: Frame, equal: EqualMaps, verdict: Verdict | None) -> dict[str, Comparison]:
    """Tests by RM and RM₀ over conditions and by RBO over images, where there are two methods and a block.

    Of methods with equal maps one is tested. Where there is a verdict, its tests by RM and RM₀ are these.
    """
    pairs, table, found = equal.kept(pairs), equal.kept(table), {}
    for quantity in BLOCKS:
        if verdict is not None and quantity in verdict.comparisons:
            found[quantity] = verdict.comparisons[quantity]
            continue
        blocks = image_blocks(pairs, quantity) if quantity == "rbo" else rm_blocks(table, quantity)
        if blocks.shape[1] >= 2 and len(blocks.dropna()):
            found[quantity] = compared(blocks)
    return found


def average_ranks(findings: RobustnessFindings, setting: RobustnessSetting) -> Frame:
    """Average rank by RM of each method (rows) under each segmenter (columns) of a setting's model and dataset.

    Without the segmenters that are another one with its borders moved.
    """
    alike = findings.alike(setting)
    moved = {pair.moved for pair in moved_borders([one.segmenter for one in alike])}
    found = {one.segmenter: findings.comparisons[one].get("rm") for one in alike if one.segmenter not in moved}
    frame = pd.DataFrame({name: c.ranks for name, c in found.items() if c is not None})
    return frame.dropna().sort_index()


def rank_agreement(ranks: Frame) -> Agreement:
    """Kendall's W of the segmenters' average ranks; NaN with fewer than `LEAST_METHODS` methods."""
    return kendall_w(-ranks.to_numpy(np.float64).T, LEAST_METHODS)


def mask_cosine_table(masks: Frame, resamples: int, seed: int) -> Frame:
    """Median cosine with the mask of each method, with a bootstrap interval by image, and the mean."""
    key = ["model", "dataset", "layer", "method", "control"]
    rows = []
    for (model, dataset, layer, method, control), frame in masks.groupby(key, sort=True):
        values = frame.sort_values("image")["cosine"].dropna().to_numpy(np.float64)
        row = {"model": model, "dataset": dataset, "layer": layer, "method": method, "control": control}
        row |= {"n": len(values), "mean": np.nan, "median": np.nan, "median_low": np.nan, "median_high": np.nan}
        if len(values):
            drawn = multiplicities(len(values), resamples, seed, f"mask-cosine {dataset}")
            low, high = percentiles(weighted_medians(values, drawn, np.arange(len(values))), len(values))
            row |= {"mean": values.mean(), "median": np.median(values), "median_low": low, "median_high": high}
        rows.append(row)
    columns = [*key, "n", "mean", "median", "median_low", "median_high"]
    return pd.DataFrame(rows, columns=columns)

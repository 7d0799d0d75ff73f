"""Findings of pair metrics under noise: the robustness table, tests over conditions, the verdict of each setting."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from heatproof.report import frames
from heatproof.report.frames import COMPANIONS, Frame
from heatproof.report.pair_cells import USABLE, Pairs
from heatproof.report.source import Source
from heatproof.statistics.agreement import Agreement, kendall_w, segmenter_agreement
from heatproof.statistics.equal_blocks import equal_blocks
from heatproof.statistics.equal_maps import EqualMaps, equal_maps, shared
from heatproof.statistics.intervals import Replicates, multiplicities, percentiles, weighted_medians
from heatproof.statistics.paired import LEAST_METHODS, Comparison, compared
from heatproof.statistics.robustness_changes import moved_borders
from heatproof.statistics.robustness_tables import (
    ALL,
    Cell,
    cell_means,
    measured_cells,
    pooled_cells,
    resamples_of,
    rm_blocks,
    table_of,
)
from heatproof.statistics.robustness_tables import CELL as PLACE
from heatproof.statistics.robustness_verdict import PairFacts, Verdict, named, verdict_from

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

    `stored`: the pairs behind them, read in parts. `comparisons`: setting → quantity → tests over its blocks (real
    methods only, as controls would only shift the ranks). `verdicts` are those of the main settings. `overall` and
    `together` are the tests and the verdict over every model and dataset at once, where there are several. `equal`:
    (model, dataset) → methods with equal maps.
    """

    stored: Pairs
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
        pairs = Pairs.of(rows)
        if pairs.empty:
            return None
        given = Given(int(plan.get("resamples") or 1000), int(plan.get("seed") or 0), str(plan.get("reference") or ""))
        table, pooled = _measured(pairs, given)
        settings = _settings(pairs.cells, plan)
        several = len({setting[:2] for setting in settings}) > 1
        first = [setting for setting in settings if setting.segmenter == settings[0].segmenter]
        masks = frames.mask_cosines(rows)
        methods = frames.ordered(pairs.cells["method"], frames.names(plan.get("methods")))
        equal = _equal(pairs, frames.projections(rows), methods)
        here = {s: pairs.of_setting(s, equal[s[:2]].kept) for s in settings}
        verdicts = {s: _verdict(here[s], s.of(table), equal[s[:2]], pooled, given) for s in first}
        together, overall = None, {}
        if several:
            everywhere = shared(list(equal.values()))
            every = pairs.together(first, everywhere.kept)
            together = _verdict(every, _of(first, table), everywhere, pooled, given)
            overall = _comparisons(every, _of(first, table), everywhere, together)
        return cls(
            stored=pairs,
            table=table,
            strengths=frames.strengths(rows),
            flips=frames.flips(rows),
            masks=masks,
            mask_cosine=mask_cosine_table(masks, given.resamples, given.seed),
            methods=methods,
            controls=frozenset(pairs.cells.loc[pairs.cells["control"], "method"]),
            settings=settings,
            comparisons={s: _comparisons(here[s], s.of(table), equal[s[:2]], verdicts.get(s)) for s in settings},
            verdicts=verdicts,
            overall=overall,
            together=together,
            agreement=_agreement(table, equal, {s.segmenter for s in settings}),
            equal=equal,
            reference=given.reference,
        )

    @cached_property
    def pairs(self) -> Frame:
        """All pairs as one frame (`frames.pairs`), which is long for many images; `stored` is read in parts."""
        return frames.pairs(self.stored.rows)

    @property
    def main(self) -> list[RobustnessSetting]:
        """The settings with the plan's first segmenter, which the page shows in full."""
        first = self.settings[0].segmenter
        return [setting for setting in self.settings if setting.segmenter == first]

    def alike(self, setting: RobustnessSetting) -> list[RobustnessSetting]:
        """The settings that differ from this one at most in the segmenter, in the plan's order."""
        return [other for other in self.settings if other[:3] == setting[:3]]


class Given(NamedTuple):
    """How the findings are made."""

    resamples: int
    seed: int
    reference: str


class Pooled(NamedTuple):
    """The cells of all severities together in the resamples of these images."""

    cells: Mapping[Cell, Replicates]
    images: Mapping[str, Sequence[str]]


def _measured(pairs: Pairs, given: Given) -> tuple[Frame, Pooled]:
    """The robustness table, and its pooled cells; a perturbation of a setting is looked at at a time."""
    images = pairs.usable_images
    drawn = resamples_of(images, given.resamples, given.seed)
    noise, sizes = frames.psnr_blocks(pairs.rows), cell_means(frames.segments(pairs.rows), "segments")
    lines, pooled = {}, {}
    for block in pairs.blocks(("rbo", "kappa")):
        where = tuple(str(block[name].iloc[0]) for name in ("model", "dataset", "perturbation"))
        ratios = cell_means(noise(*where), "psnr")
        for one in measured_cells(block, drawn, given.seed):
            lines[one.cell] = one.line(ratios, sizes)
            if one.cell.severity == ALL:
                pooled[one.cell] = one.found
    return table_of(lines), Pooled(pooled, images)


def _verdict(pairs: Pairs, table: Frame, equal: EqualMaps, known: Pooled, given: Given) -> Verdict:
    """The verdict on some settings; pairs: without the methods that another stands for."""
    usable = pairs.usable_images
    if all(known.images.get(dataset) == names for dataset, names in usable.items()):
        keys = set(pairs.cells[list(PLACE)].drop_duplicates().itertuples(index=False, name=None))
        cells = {cell: one for cell, one in known.cells.items() if one.point.n and cell[:-1] in keys}
    else:
        drawn = resamples_of(usable, given.resamples, given.seed)
        cells = {cell: one for block in pairs.blocks(("rbo", "kappa"))
                 for cell, one in pooled_cells(block, drawn, given.seed).items()}  # fmt: skip
    kinds = pairs.cells.groupby(["control", "method"], sort=True)["usable"].sum()
    names, without = named(
        [method for control, method in kinds.index if not control],
        [method for control, method in kinds.index if control],
        [method for (control, method), count in kinds.items() if count and not control],
    )
    held, moved = (pairs.images_by_method(f"{USABLE} AND changed = {kind}") for kind in (0, 1))
    facts = PairFacts(
        cells,
        names,
        without,
        images=pairs.count_images("NOT isnan(rbo) AND NOT control"),
        given=pairs.count_images("true"),
        support={"consistency": held, "within": {name: min(n, moved.get(name, 0)) for name, n in held.items()}},
        rbo=pairs.image_blocks,
    )
    more = {"resamples": given.resamples, "seed": given.seed, "reference": given.reference}
    return verdict_from(facts, table, equal, **more)


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


def _equal(pairs: Pairs, projections: Frame, methods: Sequence[str]) -> dict[tuple[str, str], EqualMaps]:
    """(model, dataset) → the methods whose maps are equal there."""
    found = {}
    for key, cells in pairs.cells.groupby(["model", "dataset"], sort=False):
        maps = projections[(projections["model"] == key[0]) & (projections["dataset"] == key[1])]
        if not len(maps):
            here = Pairs(pairs.rows, cells)
            known = " OR ".join(f"NOT isnan({name})" for name in COMPANIONS)
            found[key] = equal_blocks(here.blocks, here.count_images(known), methods)
            continue
        found[key] = equal_maps(maps, order=methods)
    return found


def _comparisons(pairs: Pairs, table: Frame, equal: EqualMaps, verdict: Verdict | None) -> dict[str, Comparison]:
    """Tests by RM and RM₀ over conditions and by RBO over images, where there are two methods and a block.

    Of methods with equal maps one is tested. Where there is a verdict, its tests by RM and RM₀ are these.
    """
    table, found = equal.kept(table), {}
    for quantity in BLOCKS:
        if verdict is not None and quantity in verdict.comparisons:
            found[quantity] = verdict.comparisons[quantity]
            continue
        blocks = pairs.image_blocks(quantity) if quantity == "rbo" else rm_blocks(table, quantity)
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

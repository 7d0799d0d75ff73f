"""The noise study's own checks: moved borders, rare flips, RBO against L1, networks side by side. From rows alone."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from heatproof.report.frames import COMPANIONS, Frame
from heatproof.report.pair_cells import Pairs
from heatproof.report.robustness_findings import RobustnessFindings, RobustnessSetting
from heatproof.statistics import rare_flips, similarity
from heatproof.statistics.equal_maps import shared
from heatproof.statistics.intervals import Replicates
from heatproof.statistics.robustness_changes import CHANGES, Moved, changes, flip_rates, in_both, moved_borders
from heatproof.statistics.robustness_tables import Cell, pooled_cells, resamples_of, usable_images

#: The quantity of the rows that compare the share of changed predictions of two networks.
FLIP_RATE = "flip rate"


class Beside(NamedTuple):
    """Two settings beside each other: their changes (`robustness_changes.CHANGES`), and of networks the flip rates."""

    before: RobustnessSetting
    after: RobustnessSetting
    changes: Frame
    flips: Mapping[str, float]


@dataclass(frozen=True)
class NoiseChecks:
    """Checks that need no further pass of the network; each is made on first use."""

    found: RobustnessFindings
    resamples: int
    seed: int

    @cached_property
    def boundaries(self) -> list[Beside]:
        """Every main setting and pair of segmenters that differ in their borders alone."""
        made = []
        for setting in self.found.main:
            there = {one.segmenter: one for one in self.found.alike(setting)}
            for moved in moved_borders(list(there)):
                made.append(self._beside(there[moved.whole], there[moved.moved]))
        return made

    @cached_property
    def networks(self) -> list[Beside]:
        """Every pair of models on the same images, in the order of the plan."""
        main = self.found.main
        return [
            self._beside(one, two, self._flips(one, two))
            for number, one in enumerate(main)
            for two in main[number + 1 :]
            if one.dataset == two.dataset and one.model != two.model
        ]

    @cached_property
    def rare_flips(self) -> Frame:
        """`rare_flips.rare_flips` of the main settings; of methods with equal maps one."""
        parts = []
        for setting in sorted(self.found.main):
            lines = [line for block in self._pairs(setting).blocks(("rbo",))
                     for line in rare_flips.replay_rows(block, setting, self.seed)]  # fmt: skip
            parts.append(rare_flips.table_of(setting, lines))
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def medians(self) -> Frame:
        """`similarity.medians` of the main settings."""
        draws, rows = similarity.Draws(self.resamples, self.seed), []
        for block in self._main_blocks():
            rows += similarity.median_rows(block, draws)
        frame = pd.DataFrame(rows, columns=list(similarity.MEDIANS))
        return frame.sort_values([*similarity.CELL, "severity"], kind="stable", ignore_index=True)

    @cached_property
    def steps(self) -> Frame:
        """`similarity.steps` of the main settings."""
        draws, rows = similarity.Draws(self.resamples, self.seed), []
        for block in self._main_blocks(("l1", "rbo")):
            rows += similarity.step_rows(block, draws)
        return similarity.steps_of(rows)

    def correlations(self, setting: RobustnessSetting) -> Frame:
        """`similarity.correlations` of one setting."""
        return similarity.correlations_of(self._pairs(setting).blocks)

    def _main_blocks(self, columns: Collection[str] = COMPANIONS) -> Iterator[Frame]:
        for setting in self.found.main:
            yield from self._pairs(setting).blocks(columns)

    def _pairs(self, setting: RobustnessSetting) -> Pairs:
        return self.found.stored.of_setting(setting, self.found.equal[setting[:2]].kept)

    def _beside(
        self, one: RobustnessSetting, two: RobustnessSetting, flips: Mapping[str, float] | None = None
    ) -> Beside:
        """Of methods with equal maps in both settings one is compared, on the images that both settings have."""
        equal = shared([self.found.equal[setting[:2]] for setting in (one, two)])
        pairs = [self.found.stored.of_setting(setting, equal.kept) for setting in (one, two)]
        images: dict[str, set[str]] = {}
        for first, _ in _both(*pairs):
            for dataset, names in usable_images(first).items():
                images.setdefault(dataset, set()).update(names)
        drawn = resamples_of({dataset: sorted(names) for dataset, names in images.items()}, self.resamples, self.seed)
        before: dict[Cell, Replicates] = {}
        after: dict[Cell, Replicates] = {}
        for first, second in _both(*pairs):
            before |= pooled_cells(first, drawn, self.seed)
            after |= pooled_cells(second, drawn, self.seed)
        return Beside(one, two, changes(before, after), flips or {})

    def _flips(self, one: RobustnessSetting, two: RobustnessSetting) -> dict[str, float]:
        names = ["image", "perturbation", "severity", "changed"]
        both = []
        for setting in (one, two):  # one row for each image and condition
            parts = [
                block[names].dropna().drop_duplicates() for block in self.found.stored.of_setting(setting).blocks(())
            ]
            both.append(pd.concat([part.astype({"image": str, "perturbation": str}) for part in parts]))
        return flip_rates(*both, dataset=one.dataset, resamples=self.resamples, seed=self.seed)


def _both(one: Pairs, two: Pairs) -> Iterator[tuple[Frame, Frame]]:
    """The pairs of two settings under each perturbation that both have, as by `in_both`."""
    shared = sorted(set(one.cells["perturbation"]) & set(two.cells["perturbation"]))
    for kind in shared:
        parts = [Pairs(pairs.rows, pairs.cells[pairs.cells["perturbation"] == kind]) for pairs in (one, two)]
        for first, second in zip(*(pairs.blocks(("rbo", "kappa")) for pairs in parts), strict=True):
            yield in_both(
                *(part.astype({"method": str, "image": str, "perturbation": str}) for part in (first, second))
            )


def boundary_table(made: list[Beside]) -> Frame | None:
    """The changes under moved borders; None without any."""
    return _table(made, lambda one: Moved(one.before.segmenter, one.after.segmenter)._asdict(), flips=False)


def network_table(made: list[Beside]) -> Frame | None:
    """The changes from each network to the next, with a row for the share of changed predictions; None without any."""
    columns = lambda one: {"model": one.before.model, "other": one.after.model, "segmenter": one.before.segmenter}  # noqa: E731
    return _table(made, columns, flips=True)


def _table(made: list[Beside], columns: Any, flips: bool) -> Frame | None:
    if not made:
        return None
    frames = []
    for one in made:
        about = {"model": one.before.model, "dataset": one.before.dataset} | columns(one)
        more = [{"quantity": FLIP_RATE, **dict(_flip_row(one.flips))}] if flips else []
        found = pd.concat([pd.DataFrame(more, columns=list(CHANGES)).astype(object), one.changes.astype(object)])
        frames.append(found.assign(**about)[[*about, *CHANGES]])
    return pd.concat(frames, ignore_index=True)


def _flip_row(flips: Mapping[str, float]) -> Iterator[tuple[str, Any]]:
    yield from ((name, flips[name]) for name in ("images", "before", "after", "change", "low", "high", "p"))
    yield from (("method", ""), ("control", False))

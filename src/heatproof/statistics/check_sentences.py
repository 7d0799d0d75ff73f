"""What the noise study's own checks found, in sentences: what was compared, on how many images, corrected for what."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from heatproof.rounding import rounded
from heatproof.statistics.paired import LEAST_IMAGES, LEAST_METHODS
from heatproof.statistics.rare_flips import WIDE, enough
from heatproof.statistics.robustness import COMPUTED, RELIABLE
from heatproof.statistics.robustness_changes import can_differ, counts, largest_change
from heatproof.statistics.robustness_sentence import NAMES
from heatproof.statistics.similarity import MEASURES
from heatproof.statistics.similarity import NAMES as MEASURED
from heatproof.statistics.wording import counted, number

#: Paper N's claim, not published: RM of a standard and of an adversarially trained ResNet-50 differ by less.
CLAIMED = 0.02
FIGURES = {**NAMES, "kappa": "median κ"}


def signed(value: float) -> str:
    """`+0.123`, `−0.300`, `0.000`."""
    if np.isnan(value):
        return "not known"
    near = round(value, 3) + 0.0
    return f"{near:+.3f}".replace("-", "−") if near else "0.000"


def span(low: float, high: float) -> str:
    """`95 % interval −0.05 to +0.01`."""
    if np.isnan(low):
        return f"no interval with fewer than {LEAST_IMAGES} images"
    return f"95 % interval {signed(low)} to {signed(high)}"


def change_sentences(found: pd.DataFrame, before: str, after: str, resamples: int) -> Iterator[str]:
    """The largest change by RM and by RM₀ between two settings, how many methods change, and whether the order stays.

    found: `robustness_changes.changes`.
    """
    for quantity in ("rm", "rm0"):
        row = largest_change(found, quantity)
        if row is None:
            yield (
                f"By {NAMES[quantity]} nothing can be compared: under no perturbation both {before} and {after} have "
                f"{COMPUTED} changed and {COMPUTED} unchanged predictions for a method."
            )
            continue
        methods, lower, higher = counts(found, quantity)
        w = float(found.loc[found["quantity"] == quantity, "w"].iloc[0])
        order = "" if np.isnan(w) else f" Kendall's W of the two orders of the methods is {number(w)}."
        if methods < LEAST_METHODS:
            order = f" Kendall's W is not computed: {counted(methods, 'method')}, at least {LEAST_METHODS} are needed."
        yield (
            f"By {NAMES[quantity]}, on {counted(int(row['images']), 'image')} under {_kinds(found, row)}, "
            f"{row['method']} changes most from {before} to {after}: {signed(row['change'])} "
            f"({span(row['low'], row['high'])}, bootstrap by image, paired)."
        )
        if can_differ(found, quantity, resamples):
            yield (
                f"With {after}, {NAMES[quantity]} is significantly lower for {lower} and higher for {higher} of "
                f"{counted(methods, 'method')} (5 %, Holm's correction over the methods).{order}"
            )
        elif int(row["images"]) < LEAST_IMAGES:
            yield f"No test of {NAMES[quantity]} is computed: at least {LEAST_IMAGES} images are needed.{order}"
        else:
            yield (
                f"No test of {NAMES[quantity]} can be significant with {counted(resamples, 'resample')} and Holm's "
                f"correction over {counted(methods, 'method')}.{order}"
            )


def _kinds(found: pd.DataFrame, row: Any) -> str:
    """The perturbations that both settings have the figure under, and of how many."""
    most, here = max(map(int, found["perturbations"])), int(row["perturbations"])
    kinds = counted(here, "perturbation")
    return kinds if here == most else f"{here} of {counted(most, 'perturbation')} (too few changed under the others)"


def network_sentences(
    found: pd.DataFrame, flips: Mapping[str, float], before: str, after: str, resamples: int
) -> Iterator[str]:
    """Whether another network's predictions are steadier, and whether its maps are."""
    if not flips["images"]:
        yield f"The predictions of {before} and {after} cannot be compared: they share no image and condition."
        return
    rates = f"{number(flips['after'])} instead of {number(flips['before'])}"
    about = f"flip rate {rates}; difference {signed(flips['change'])}, {span(flips['low'], flips['high'])}"
    steady = {-1: "steadier than", 0: "not told from", 1: "less steady than"}[_way(flips)]
    where = f"on {counted(int(flips['images']), 'image')} under {counted(int(flips['conditions']), 'condition')}"
    yield f"The predictions of {after} are {steady} those of {before}, {where} ({about}, paired by image)."
    yield from change_sentences(found, before, after, resamples)
    row = largest_change(found, "rm")
    if row is not None:
        real: Any = found[(found["quantity"] == "rm") & ~found["control"].astype(bool) & found["change"].notna()]
        within = (real[["low", "high"]].abs().max(axis=1) <= CLAIMED).sum()
        yield (
            f"Suggested with paper N: RM of a standard and of an adversarially trained network differ by at most "
            f"{CLAIMED:g}. Here the whole 95 % interval of the difference lies within ±{CLAIMED:g} for {within} of "
            f"{counted(len(real), 'method')}."
        )


def _way(flips: Mapping[str, float]) -> int:
    """Whether a difference is below or above 0 with its whole interval."""
    low, high = rounded(np.array([flips["low"], flips["high"]]))
    return int(low > 0) - int(high < 0)


def rare_sentence(table: pd.DataFrame) -> str:
    """From how many changed predictions on responsiveness tells something, of one setting of `rare_flips`."""
    means: Any = table[table["method"] == ""]
    found = means.sort_values("changed")
    methods = table.loc[(table["method"] != "") & ~table["control"].astype(bool), "method"].nunique()
    images = int(found["images"].round().median())
    where = f"among {counted(images, 'image')}, on the mean of {counted(methods, 'method')}"
    width = "the 95 % interval of responsiveness is"
    if (least := enough(table)) is None:
        most = found.iloc[-1]
        return (
            f"Even with {int(most['changed'])} changed predictions {where}, {width} wider than {WIDE:g} "
            f"({number(most['responsiveness_width'])})."
        )
    if least == found["changed"].iloc[0]:
        return f"With {least} changed predictions {where}, {width} no wider than {WIDE:g}.{_told_apart(found)}"
    return f"Below about {least} changed predictions {where}, {width} wider than {WIDE:g}.{_told_apart(found)}"


def _told_apart(found: Any) -> str:
    """How many pairs of methods responsiveness tells apart at the fewest predictions for which it is computed."""
    lines = found[(found["changed"] >= COMPUTED) & found["told_apart"].notna()]
    if lines.empty:
        return ""
    share = lines["told_apart"].iloc[0]
    pairs = "none" if not share else f"{100 * share:.0f} %"
    return (
        f" With {int(lines['changed'].iloc[0])} it tells {pairs} of the pairs of methods apart, each pair by itself at "
        "95 %, not corrected for their number."
    )


def counts_sentence(table: pd.DataFrame) -> str:
    """In how many conditions enough predictions changed; `table`: rows of single severities of one setting."""
    conditions: Any = table.groupby(["perturbation", "severity"])[["n", "flips"]].max()
    few = conditions[["flips"]].assign(held=conditions["n"] - conditions["flips"]).min(axis=1)
    none, shaky = int((few < COMPUTED).sum()), int(((few >= COMPUTED) & (few < RELIABLE)).sum())
    return (
        f"Of {counted(len(few), 'condition')}, {none} {'has' if none == 1 else 'have'} fewer than {COMPUTED} changed "
        f"or unchanged predictions, so that responsiveness is not computed, and {shaky} "
        f"{'has' if shaky == 1 else 'have'} fewer than {RELIABLE}, so that it is unreliable."
    )


def case_sentence(steps: pd.DataFrame) -> str:
    """Whether N's case is seen: L1 says that maps are more alike at the next severity, RBO that they are less alike."""
    real: Any = steps[~steps["control"].astype(bool) & steps["p"].notna()]
    if real.empty:
        return "Paper N's case cannot be looked for: there is one severity, or no image with values at two."
    seen = real[real["case"].astype(bool)]
    methods, images = real["method"].nunique(), int(real["images"].max())
    tests = (
        f"{counted(len(real), 'step')} from one severity to the next ({counted(methods, 'method')}, "
        f"{counted(real['perturbation'].nunique(), 'perturbation')}, {counted(images, 'image')}; Wilcoxon's tests of "
        f"both measures, one-sided, paired by image, Holm's correction over all {len(real)} steps, 5 %)"
    )
    if seen.empty:
        return f"Paper N's case, L1 falls while RBO falls, is not seen in any of {tests}."
    row = seen.loc[seen["l1"].idxmin()]
    return (
        f"Paper N's case, L1 falls while RBO falls, is seen in {len(seen)} of {tests}. The largest: {row['method']} "
        f"under {row['perturbation']}, severity {row['severity']} to {row['next']}, L1 {signed(row['l1'])} "
        f"({span(row['l1_low'], row['l1_high'])}), RBO {signed(row['rbo'])} ({span(row['rbo_low'], row['rbo_high'])})."
    )


def agreement_sentence(correlations: pd.DataFrame) -> str:
    """Which two measures agree most, and which least, over pairs."""
    names = [name for name in MEASURES if name in correlations]
    found = {(a, b): correlations.loc[a, b] for i, a in enumerate(names) for b in names[i + 1 :]}
    found = {pair: float(value) for pair, value in found.items() if not np.isnan(value)}
    if not found:
        return "The measures cannot be compared: they have no pair of maps in common, or do not vary."
    most, least = (way(found, key=lambda pair: (float(rounded(np.float64(found[pair]))), pair)) for way in (max, min))
    (one, two), (three, four) = ([MEASURED[name] for name in pair] for pair in (most, least))
    return (
        f"Over all pairs of maps, {one} and {two} agree most (rank correlation {number(found[most])}), {three} and "
        f"{four} least ({number(found[least])})."
    )

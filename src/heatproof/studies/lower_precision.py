"""Whether a network of a study runs under autocast: compared on the first images, decided once for each network.

The CAMs of a condition come from one forward and one backward pass. A method that has to stay in full precision would
need a second pass, which costs more than autocast saves; so a network runs under autocast for all methods of a study or
for none. bfloat16 has the exponents of float32, so small gradients do not vanish as in float16; its numbers have two to
three decimals.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from scipy.stats import rankdata

from heatproof.engine import Explanation
from heatproof.errors import HeatproofError
from heatproof.rounding import top_class
from heatproof.studies.conditions import Condition
from heatproof.studies.measurement import Measurement

#: The type in which matrix products and convolutions compute.
LOWER = torch.bfloat16
#: The least rank correlation (Spearman) of a map's pixels, and the largest mean difference of a map in [0, 1].
RANKS, DIFFERENCE = 0.99, 0.01
#: The largest difference of a class's probability.
PROBABILITY = 0.02
#: Images that are compared.
IMAGES = 8


def compared(measurement: Measurement) -> dict[str, Any]:
    """What autocast changes on some images, clean and under the last condition: facts for `study.json`.

    `beyond` lists what is beyond the tolerance, in words; `methods`: each with the least rank correlation and the
    largest mean difference of a display map.
    """
    few = measurement.block[: min(IMAGES, len(measurement.block.ids))]
    pair = [replace(measurement, block=few, finished=None, precision=one) for one in (None, LOWER)]
    found: dict[str, Any] = {"dtype": str(LOWER).removeprefix("torch."), "images": len(few.ids), "methods": {}}
    problems: list[str] = []
    for condition in _conditions(measurement.conditions):
        try:
            ours, theirs = (one.explained(condition).found for one in pair)
        except HeatproofError:
            continue
        problems += _of_answers(measurement, ours, theirs, found)
        for key in ours.methods:
            problems += _of_maps(key, ours, theirs, found["methods"])
    return {**found, "beyond": list(dict.fromkeys(problems))}


def _conditions(conditions: Sequence[Condition]) -> list[Condition]:
    """The reference, and the last condition whose strength is known."""
    known = [one for one in conditions[1:] if not one.perturbation or one.level == one.level]
    return [conditions[0], *known[-1:]]


def _of_answers(measurement: Measurement, ours: Explanation, theirs: Explanation, found: dict[str, Any]) -> list[str]:
    """What is wrong with the answers under autocast."""
    model, (here, there) = measurement.model, (one.answers.logits for one in (ours, theirs))
    if model.of_values:
        scale = here.abs().max().clamp_min(1e-30)
        gap = float((here - there).abs().max() / scale)
        found["values"] = max(gap, found.get("values", 0.0))
        return [f"the values by {gap:.1%}"] if not gap <= PROBABILITY else []
    gap = float((model.probabilities(here) - model.probabilities(there)).abs().max())
    found["probability"] = max(gap, found.get("probability", 0.0))
    turned = int((top_class(here) != top_class(there)).sum())
    return [
        *([f"{turned} predicted classes"] if turned else []),
        *([f"a probability by {gap:.3f}"] if not gap <= PROBABILITY else []),
    ]


def _of_maps(key: str, ours: Explanation, theirs: Explanation, methods: dict[str, Any]) -> list[str]:
    """What is wrong with the maps of a method under autocast."""
    if [str(one) for one in ours.flags[key]] != [str(one) for one in theirs.flags[key]]:
        methods[key] = {"flags": "differ"}
        return [f"flags of {key}"]
    fine = [row for row, flag in enumerate(ours.flags[key]) if not flag]
    here, there = (one.display(key)[fine].flatten(1).double().cpu() for one in (ours, theirs))
    if not fine:
        return []
    gap = float((here - there).abs().mean(1).max())
    ranks = min(_correlation(one, other) for one, other in zip(here, there, strict=True))
    known = methods.get(key, {})
    methods[key] = {
        "ranks": round(min(ranks, known.get("ranks", 1.0)), 5),
        "difference": round(max(gap, known.get("difference", 0.0)), 6),
    }
    return [key] if not (ranks >= RANKS and gap <= DIFFERENCE) else []


def _correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Spearman's, of two maps that are not constant."""
    ranks = torch.stack([torch.from_numpy(rankdata(values.numpy())) for values in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])


def available(device: torch.device) -> bool:
    """Whether the device computes in that type by itself."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

"""The images of a part of a job under one condition, with their maps; and the columns that say what a row is about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from heatproof.attributions import Request
from heatproof.engine import Batch, Explanation, ResolvedMethod
from heatproof.studies.conditions import Condition
from heatproof.studies.jobs import options_hash


def of_method(request: Request) -> dict[str, Any]:
    """The columns that say which method a row is about."""
    return {
        "method": request.name,
        "control": bool(request.entry.traits["control"]),
        "operator": request.operator,
        "options": options_hash(request.options),
    }


def at_layers(method: ResolvedMethod) -> dict[str, Any]:
    """`of_method` with the layers that the method reads, empty for one that reads none."""
    return {**of_method(method.request), "layers": method.where if method.request.spatial else ""}


def of_maps(name: str) -> dict[str, Any]:
    """The columns that say which maps made beforehand a row is about."""
    return {"method": name, "control": False, "operator": "", "options": ""}


@dataclass(frozen=True)
class Explained:
    """The images of a part of a job under one condition, and their maps.

    methods: those that have maps here; `refused`: why the others of the study have none.
    """

    condition: Condition
    batch: Batch
    found: Explanation
    methods: Sequence[ResolvedMethod]
    refused: str = ""

    @property
    def x(self) -> torch.Tensor:
        """The images as the network's input."""
        return self.batch.x

    def part(self, rows: Sequence[int]) -> "Explained":
        """The answers and maps of some of the images; `batch` stays that of all."""
        return replace(self, found=self.found.part(list(rows)))

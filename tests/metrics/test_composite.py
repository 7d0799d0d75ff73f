"""ADCC and ARCC: arithmetic on values, checked by hand and against the metrics they are made of."""

import math

import pytest
import torch

import heatproof
from heatproof.metrics.composites import adcc, arcc, harmonic
from heatproof.metrics.metric_request import parsed_metric
from heatproof.models import wrap

from .. import nets


def row(*values: float) -> list[torch.Tensor]:
    return [torch.tensor([value], dtype=torch.float64) for value in values]


def test_by_hand():
    assert adcc(*row(0.9, 0.25, 0.4)).item() == pytest.approx(3 / (1 / 0.9 + 1 / 0.75 + 1 / 0.6), rel=1e-7)
    assert arcc(*row(0.9, 0.25, 0.3)).item() == pytest.approx(3 / (1 / 0.9 + 1 / 0.75 + 1 / 0.6), rel=1e-7)
    assert harmonic(*row(0.2, 0.2)).item() == pytest.approx(0.2)


def test_the_worst_part_decides():
    assert adcc(*row(1, 0, 1)).item() < 1e-7, "the whole probability is lost"
    assert arcc(*row(1, 0, -0.2)).item() < 1e-7, "ROAD below 0 is clipped"
    assert adcc(*row(1, 0, 0)).item() == pytest.approx(1) and arcc(*row(1, 0, 0.5)).item() == pytest.approx(1)
    assert arcc(*row(1, 0, 0.7)).item() <= 1 + 1e-7, "ROAD above one half is clipped"


@pytest.mark.parametrize("which", range(3))
def test_a_part_without_a_value_leaves_none(which):
    parts = row(0.9, 0.25, 0.3)
    parts[which] = torch.tensor([math.nan], dtype=torch.float64)
    assert adcc(*parts).isnan().all() and arcc(*parts).isnan().all()


def test_the_parts_are_those_of_the_papers():
    assert [part.key for part in parsed_metric("adcc").parts.values()] == [
        "coherency", "complexity", "average-drop[fill=mean]"
    ]  # fmt: skip
    assert [part.key for part in parsed_metric("arcc").parts.values()] == ["coherency", "complexity", "road"]


def test_the_engine_makes_them_of_the_values_it_shows():
    model = wrap(nets.told_apart(nets.seeded(nets.Signed), 20), size=(24, 20), layer="two")
    found = heatproof.score(model, nets.images(3, 24, 20), ["gradcam", "half"], ["adcc", "arcc"])
    for method in found.methods:
        part = {name: found.values(method, name) for name in found.metrics}
        drop = part["average-drop[fill=mean]"]
        for i in range(3):
            coherent, simple = float(part["coherency"][i]), 1 - float(part["complexity"][i])
            road = min(1.0, max(0.0, 2 * float(part["road"][i])))
            for name, third in (("adcc", 1 - float(drop[i])), ("arcc", road)):
                expected = 3 / sum(1 / (value + 1e-8) for value in (coherent, simple, third))
                assert float(part[name][i]) == pytest.approx(expected, rel=1e-9)

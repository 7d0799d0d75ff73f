"""A network that ends in a softmax or sigmoids is warned of: heatproof applies them itself."""

import pytest
import torch
from torch import nn

import heatproof
from heatproof.errors import HeatproofWarning


def network(*last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return nn.Sequential(*body, *last)


@pytest.mark.parametrize(
    ("last", "multi_label", "text"),
    [(nn.Sigmoid(), True, "after sigmoids"), (nn.Softmax(1), False, "after a softmax")],
)
def test_probabilities_are_warned_of_once(last, multi_label, text):
    model = heatproof.wrap(network(last), mean=0.5, std=0.5, size=16, multi_label=multi_label, name="net")
    x = torch.rand(3, 3, 16, 16)
    with pytest.warns(HeatproofWarning, match=rf"outputs of net look like probabilities.*{text}"):
        heatproof.explain(model, x, "gradcam")
    heatproof.explain(model, x, "gradcam")  # warnings are errors here


@pytest.mark.parametrize("multi_label", [True, False])
def test_logits_are_not_warned_of(multi_label):
    model = heatproof.wrap(network(), mean=0.5, std=0.5, size=16, multi_label=multi_label)
    heatproof.explain(model, torch.rand(3, 3, 16, 16), "gradcam")

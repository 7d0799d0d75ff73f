"""A network that gives no gradient is refused before any work, with one reason, by all methods that need one."""

import pytest
import torch
from torch import nn

import heatproof
from heatproof.errors import NotApplicable
from heatproof.models import wrap
from heatproof.models.differentiable import gradient_missing

from .. import nets

OPTIMISING = ["opticam", "extremal-perturbation", "meaningful-perturbation", "iba"]
BACKWARD = ["smoothgrad", "integrated-gradients", "gradientshap", "guided-backprop", "deconvnet", "deeplift", "lrp"]


class Cut(nets.Plain):
    """Nothing comes back from the head."""

    def __init__(self):
        super().__init__()
        self.head.register_forward_pre_hook(lambda _module, given: (given[0].detach(),))


@pytest.mark.parametrize("method", [*OPTIMISING, *BACKWARD, "fullgrad"])
def test_no_gradient_is_said_before_any_work(method):
    model = wrap(nets.seeded(Cut), size=16, layer="two")
    with pytest.raises(NotApplicable, match=f"{method}' cannot explain Cut: no gradient reaches"):
        heatproof.explain(model, nets.images(1, 16), method)


def test_a_quantised_network_says_that_it_is():
    net = torch.ao.quantization.quantize_dynamic(nets.seeded(nets.Plain), {nn.Linear}, dtype=torch.qint8)
    model = wrap(net, size=16, layer="two")
    assert gradient_missing(model).startswith("no gradient reaches the image from the logits (it is quantised): take")
    with pytest.raises(NotApplicable, match=r"it is quantised.*: take the float network, or .* scorecam"):
        heatproof.explain(model, nets.images(1, 16), "smoothgrad")


def test_it_is_asked_once_and_leaves_nothing():
    net = nets.seeded(nets.Plain).train()
    before, model = nets.traces(net), wrap(net, size=16)
    assert gradient_missing(model) == "" and gradient_missing(model, "two") == ""
    assert nets.traces(net) == before

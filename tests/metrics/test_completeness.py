"""Completeness: exact where the theory says so, and never a question of the last bit."""

import math

import pytest
import torch
from torch import nn

import heatproof
from heatproof.errors import InvalidInput, UnknownName
from heatproof.metrics.completeness import completeness, completeness_holds
from heatproof.models import wrap
from heatproof.models.probe import facts

from .. import nets

SIDE = 8


def given(answers, nothing, logits=None):
    """What a network says that says `answers` of the images, and `nothing` of the fill."""
    answers = torch.tensor(answers).double()
    logits = answers[:, None] if logits is None else logits
    said = lambda fill, of: torch.full((len(answers),), float(nothing), dtype=torch.float64)  # noqa: E731
    return logits, torch.zeros(len(answers)).long(), torch.sigmoid(answers), said


def called(metric, raw, answers, nothing, **options):
    logits, target, p, said = given(answers, nothing)
    return metric(logits, target, p, raw, said, **options).tolist()


def test_by_hand():
    """f(x) − f(x₀) = 2 − (−2) = 4; sums of 4, 3, 0, −4 and 8 leave 0, 1, 4, 8 and 4 quarters open."""
    raw = torch.zeros(5, 4, 4)
    raw[:, 1, 2] = torch.tensor([4.0, 3, 0, -4, 8])
    assert called(completeness, raw, [2.0] * 5, -2) == [0, 0.25, 1, 2, 1]
    assert called(completeness_holds, raw, [2.0] * 5, -2) == [1, 0, 0, 0, 0]
    assert called(completeness_holds, raw, [2.0] * 5, -2, tolerance=0.25) == [1, 1, 0, 0, 0]


def test_channels_and_the_layers_own_places_are_summed_as_they_are():
    """A map of 2 × 2 positions, of one pixel each, and of three channels: the same sum is the same map."""
    coarse = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]])
    channels = torch.full((1, 3, SIDE, SIDE), 3 / (3 * SIDE * SIDE))
    for raw in (coarse, channels):
        assert called(completeness, raw, [1.5], -1.5) == pytest.approx([0], abs=1e-6)


def test_where_the_network_says_the_same_of_nothing_there_is_no_share():
    raw = torch.ones(2, 4, 4)
    for metric in (completeness, completeness_holds):
        first, second = called(metric, raw, [2.0, 3.0], 2.0)
        assert math.isnan(first) and not math.isnan(second)


def test_what_is_added_up_can_be_the_probability():
    raw = torch.full((1, 4, 4), 0.5 / 16)
    logits, target, p, _ = given([0.0], 0)
    said = lambda fill, of: torch.zeros(1).double() if of == "probability" else 1 / 0  # noqa: E731
    assert completeness(logits, target, p, raw, said, of="probability").tolist() == pytest.approx([0])
    with pytest.raises(UnknownName, match="of"):
        completeness(logits, target, p, raw, said, of="loss")
    with pytest.raises(InvalidInput, match="`tolerance` must be at least 0"):
        completeness_holds(logits, target, p, raw, said, tolerance=-1.0)
    with pytest.raises(UnknownName, match="grey"):
        completeness(logits, target, p, raw, said, fill="grey")


# --- real methods on real modules -------------------------------------------------------------------------------------

GAP = ["completeness", "completeness-holds", "completeness[fill=black]"]


def found(module: nn.Module, methods, metrics=GAP, count: int = 4):
    model = wrap(module, size=(16, 16))
    return heatproof.score(model, nets.images(count, 16), methods, metrics)


class Lin(nn.Module):
    """Linear in the image, with a bias."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 16 * 16, 5)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.head(z.flatten(1))


def test_input_times_gradient_adds_up_on_a_linear_network_whatever_its_bias():
    scores = found(nets.seeded(Lin), ["input-x-gradient", "gradient"])
    gap = scores.values("input-x-gradient", "completeness")
    assert gap.max() < 1e-5
    assert (scores.values("input-x-gradient", "completeness-holds") == 1).all()
    assert scores.values("gradient", "completeness").min() > 0.05
    assert scores.values("input-x-gradient", "completeness[fill=black]").min() > 1e-3, "a map adds up to its own x₀"


def test_equality_of_floats_calls_even_that_incomplete():
    """The defect of paper F's code, and of Quantus: `Σ m == f(x) − f(x₀)`, nearly always False."""
    module = nets.seeded(Lin)
    model = wrap(module, size=(16, 16))
    x = nets.images(12, 16)
    z = model.normalise(x)
    with torch.no_grad():
        logits = module(z)
        change = logits.gather(1, logits.argmax(1, keepdim=True))[:, 0] - module(0 * z)[range(12), logits.argmax(1)]
        raw = module.head.weight[logits.argmax(1)].view(12, 3, 16, 16) * z
    equal = raw.flatten(1).sum(1) == change
    assert equal.float().mean() < 0.5
    holds = heatproof.score(model, x, ["input-x-gradient"], "completeness-holds")
    assert (holds.values("input-x-gradient", "completeness-holds") == 1).all()


def test_integrated_gradients_add_up_the_better_the_more_steps():
    module = nets.told_apart(nets.seeded(nets.Signed), 16)
    gaps = [found(module, {"integrated-gradients": {"steps": steps}}).rows for steps in (1, 4, 50)]
    one, few, many = (max(row.value for row in rows if row.metric == "completeness") for rows in gaps)
    assert one > 20 * few and few < 1e-4 and many < 1e-4  # the quadrature is exact soon; then float32 speaks
    cam = found(module, ["gradcam"])
    assert cam.values("gradcam", "completeness").mean() > 0.5


def test_one_pass_for_each_image_and_none_for_a_second_method():
    asked = []
    module = nets.seeded(nets.Plain)
    module.register_forward_hook(lambda net, given, answer: asked.append(len(answer)))
    x, maps = nets.images(3, 16), {"one": torch.rand(3, 16, 16), "other": torch.rand(3, 16, 16)}
    model = wrap(module, size=16)
    facts(model, model.input_shape)  # a network is probed once
    asked.clear()
    heatproof.score(model, x, maps, "completeness")
    assert sum(asked) == 3 + 3  # the images, and nothing but mean
    asked.clear()
    heatproof.score(model, x, maps, ["completeness", "completeness[fill=black]", "completeness-holds", "deletion-mean"])
    assert sum(asked) == 3 + 6 + 2 * 3 * 27  # black too; the curves end at what is known

"""Networks of values: the number itself is explained, masked and scored, without a probability; saturated scores."""

import math

import pytest
import torch
from torch import nn

import heatproof
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidTarget, NotApplicable
from heatproof.flags import Reason
from heatproof.metrics import METRICS

from . import nets

SIDE = 16
METHODS = ["gradcam", "random"]


class Affine(nn.Module):
    """A network's outputs in other units: `shift + scale · head`."""

    def __init__(self, inner: nn.Module, scale: float = 10.0, shift: float = 58.0):
        super().__init__()
        self.inner, self.scale, self.shift = inner, scale, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shift + self.scale * self.inner(x)


def head(classes: int = 1) -> nn.Module:
    net = nets.seeded(lambda: nets.Plain(classes=classes))
    with torch.no_grad():
        net.head.weight.mul_(20)
    return net


@pytest.fixture
def x() -> torch.Tensor:
    return nets.images(3, SIDE)


@pytest.fixture
def years() -> heatproof.Model:
    return heatproof.wrap(Affine(head()), size=SIDE, layer="inner.two", output="value", name="years")


def value(model: heatproof.Model, x: torch.Tensor, column: int = 0) -> torch.Tensor:
    with torch.no_grad():
        return model.module(model.normalise(x)).double()[:, column]


# --- the number that is explained ---


def test_the_raw_map_of_a_value_is_made_of_its_own_gradient(years, x):
    found = heatproof.explain(years, x, ["gradcam", "hirescam"], raw=True)
    net = years.module
    a = net.inner.two(net.inner.one(years.normalise(x))).detach().requires_grad_()
    (net.shift + net.scale * net.inner.head(a.mean((2, 3)))).sum().backward()
    torch.testing.assert_close(found["hirescam"], (a.grad * a).sum(1).detach())
    torch.testing.assert_close(found["gradcam"], (a.grad.mean((2, 3))[:, :, None, None] * a).sum(1).detach())
    assert found.target.tolist() == [0, 0, 0]
    torch.testing.assert_close(found.logits[:, 0].double(), value(years, x))


def test_a_call_says_it_for_a_bare_network_as_for_a_model(years, x):
    plain = heatproof.wrap(years.module, size=SIDE, layer="inner.two")
    expected = heatproof.explain(years, x, raw=True)["gradcam"]
    torch.testing.assert_close(heatproof.explain(plain, x, raw=True, output="value")["gradcam"], expected)
    assert not plain.of_values


def test_one_logit_is_half_in_each_of_two_classes_and_whole_as_a_value(x):
    net = head()
    model = heatproof.wrap(net, size=SIDE, layer="two")
    a = net.two(net.one(model.normalise(x))).detach().requires_grad_()
    net.head(a.mean((2, 3))).sum().backward()
    by_hand = (a.grad.mean((2, 3))[:, :, None, None] * a).sum(1).detach()
    maps = {target: heatproof.explain(model, x, target=target, raw=True)["gradcam"] for target in (0, 1)}
    torch.testing.assert_close(maps[1], by_hand / 2)
    torch.testing.assert_close(maps[0], -by_hand / 2)
    torch.testing.assert_close(heatproof.explain(model, x, raw=True, output="value")["gradcam"], by_hand)


def test_one_logit_of_labels_that_go_together_has_the_sigmoid_of_itself(x):
    model = heatproof.wrap(head(), size=SIDE, layer="two", multi_label=True)
    found = heatproof.explain(model, x, ["cam", "gradcam"], 1, raw=True)
    torch.testing.assert_close(model.probabilities(found.logits)[:, 1], value(model, x).sigmoid())
    torch.testing.assert_close(found["cam"], found["gradcam"] * found["cam"][0].numel())  # the linear head is seen


def test_the_target_of_several_values_is_a_column(x):
    model = heatproof.wrap(Affine(head(4)), size=SIDE, layer="inner.two", output="value")
    scores = heatproof.score(model, x, "gradcam", "pixel-flipping[fill=black]", target=2)
    start = scores.curves["gradcam", "pixel-flipping[fill=black]"][1][:, 0]
    torch.testing.assert_close(start, value(model, x, 2))
    for target in ("predicted", "label", "top2"):
        with pytest.raises(InvalidTarget, match="one of its columns, 0 … 3"):
            heatproof.explain(model, x, target=target, labels=[0, 1, 2])


@pytest.mark.parametrize(
    ("method", "why"),
    [("shapleycam", "utility=logit"), ("finercam", "compares classes"), ("iba", "cross-entropy")],
)
def test_methods_that_need_a_probability_are_refused(years, x, method, why):
    with pytest.raises(NotApplicable, match=why):
        heatproof.explain(years, x, method)


def test_a_probability_of_a_value_is_refused(years, x):
    with pytest.raises(InvalidInput, match="`value` or a callable"):
        heatproof.explain(years, x, output="probability")
    with pytest.raises(InvalidInput, match="multi_label"):
        heatproof.wrap(years.module, output="value", multi_label=True)


def test_shapleycam_of_the_value_and_rise_take_the_value(years, x):
    found = heatproof.explain(years, x, ["gradcam", "shapleycam[utility=logit]"], raw=True)
    torch.testing.assert_close(found["shapleycam[utility=logit]"], found["gradcam"], rtol=1e-4, atol=1e-5)
    rise = heatproof.explain(years, x, {"rise": {"masks": 40}}, raw=True)["rise"]
    twice = Affine(years.module.inner, 20.0, 116.0)  # in half years: the map doubles, which no probability does
    model = heatproof.wrap(twice, size=SIDE, layer="inner.two", output="value")
    torch.testing.assert_close(heatproof.explain(model, x, {"rise": {"masks": 40}}, raw=True)["rise"], 2 * rise)


# --- metrics ---


def test_scores_are_in_units_of_the_value(years, x):
    """In another unit with another zero the scores are the same numbers in that unit, or no other at all."""
    days = heatproof.wrap(Affine(years.module.inner, 3650.0, 0.0), size=SIDE, layer="inner.two", output="value")
    areas = ["insertion", "deletion", "deletion-mean", "road-morf", "road-lerf"]
    changes = ["local-accuracy", "road", "pixel-flipping"]
    same = ["average-increase", "faithfulness-correlation", "sensitivity-n", "monotonicity-pearson"]
    metrics = [*areas, *changes, *same, "infidelity"]
    found, other = (heatproof.score(model, x, METHODS, metrics) for model in (years, days))
    for method in METHODS:
        get = lambda scores, metric, method=method: scores.values(method, metric)  # noqa: E731
        for metric in areas:
            expected = (get(found, metric) - 58) * 365
            torch.testing.assert_close(get(other, metric), expected, rtol=1e-3, atol=0.1)
        for metric in changes:
            torch.testing.assert_close(get(other, metric), get(found, metric) * 365, rtol=1e-3, atol=0.1)
        for metric in same:
            torch.testing.assert_close(get(other, metric), get(found, metric), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(get(other, "infidelity"), get(found, "infidelity") * 365**2, rtol=1e-3, atol=1.0)
    assert not any(row.flag for row in found.rows)
    assert found.facts["deletion"]["range"] == [None, None]
    assert not torch.equal(found.values("gradcam", "deletion"), found.values("random", "deletion"))


def test_a_curve_begins_and_ends_at_the_values_themselves(years, x):
    points = heatproof.score(years, x, "gradcam", "deletion").curves["gradcam", "deletion"][1]
    torch.testing.assert_close(points[:, 0], value(years, x))
    torch.testing.assert_close(points[:, -1], value(years, torch.zeros_like(x)))


def test_metrics_without_a_meaning_are_refused_by_name_and_left_out_of_families(years, x):
    refused = {name for name in METRICS if METRICS[name].traits.get("values", "same") not in ("same", "units")}
    assert refused == {
        "adcc", "arcc", "average-drop", "average-gain", "sufficiency", "irof", "sic", "aic", "random-logit",
        *(name for name in METRICS if name.startswith("part-")),
    }  # fmt: skip
    for name in sorted(refused):
        with pytest.raises(NotApplicable, match=f"{name}' has no meaning for a network of values"):
            heatproof.score(years, x, "gradcam", name)
    with pytest.raises(NotApplicable, match="of=logit"):
        heatproof.score(years, x, "gradcam", "infidelity[of=probability]")
    with pytest.warns(HeatproofWarning, match="left out: arcc"):
        scores = heatproof.score(years, x, "gradcam")
    assert scores.metrics == ["coherency", "complexity", "road", "insertion", "deletion"]


def test_a_degenerate_map_has_no_stated_value_in_units(years, x):
    scores = heatproof.score(years, x, {"flat": torch.ones(3, SIDE, SIDE)}, ["local-accuracy", "average-increase"])
    assert scores.values("flat", "local-accuracy").isnan().all()
    assert scores.values("flat", "average-increase").tolist() == [0, 0, 0]


def test_rounding_of_a_value_is_no_fall(x):
    """58 in single precision is known to 4e-6, so falls of 1e-5 are rounding and count as none."""

    class Still(nn.Module):
        def __init__(self):
            super().__init__()
            self.two = nn.Conv2d(3, 4, 3, 2, 1)

        def forward(self, z):
            return 58 + 1e-5 * self.two(z).tanh().mean((2, 3)).sum(1, keepdim=True)

    model = heatproof.wrap(nets.seeded(Still), size=SIDE, layer="two", output="value")
    scores = heatproof.score(model, x, "random", ["monotonicity", "average-increase"])
    assert scores.values("random", "monotonicity").tolist() == [1, 1, 1]
    assert scores.values("random", "average-increase").tolist() == [0, 0, 0]


# --- saturated probabilities ---


class TwoClasses(nn.Module):
    """The logits 0 and `shift + head`."""

    def __init__(self, inner: nn.Module, shift: float):
        super().__init__()
        self.inner, self.shift = inner, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.shift + self.inner(x)
        return torch.cat([torch.zeros_like(y), y], 1)


PROBABILITIES = ["insertion", "deletion", "road", "average-drop", "local-accuracy", "pixel-flipping", "irof", "sic",
                 "aic", "sufficiency", "monotonicity", "average-increase", "infidelity[of=probability]",
                 "faithfulness-correlation[of=probability]", "completeness[of=probability]",
                 "monotonicity-correlation"]  # fmt: skip


@pytest.mark.parametrize("target", [0, 1])
def test_rows_that_no_masking_moves_are_saturated(x, target):
    model = heatproof.wrap(TwoClasses(head(), 58.0), size=SIDE, layer="inner.two")
    scores = heatproof.score(
        model, x, ["random", "centre"], [*PROBABILITIES, "infidelity", "complexity"], target=target
    )
    for row in scores.rows:
        free = row.metric in ("infidelity", "complexity")
        assert row.flag.startswith("saturated") != free, row
    assert scores.values("random", "insertion").isfinite().all()  # the value stays
    assert int(scores.table.set_index(["method", "metric"]).loc[("random", "deletion"), "flagged"]) == 3


def test_probabilities_that_move_are_not_saturated(x):
    """Near 1, but moved; and not moved by a map of ones, which masks nothing."""
    for shift in (0.0, 12.0, 58.0):
        model = heatproof.wrap(TwoClasses(head(), shift), size=SIDE, layer="inner.two")
        metrics = ["deletion", "average-drop", "sufficiency"] if shift < 58 else ["average-drop", "sufficiency"]
        scores = heatproof.score(model, x, METHODS if shift < 58 else ["ones"], metrics, target=1)
        assert not [row for row in scores.rows if row.flag.startswith("saturated")]


def test_a_composite_has_the_flag_of_its_part(x):
    model = heatproof.wrap(TwoClasses(head(), 58.0), size=SIDE, layer="inner.two")
    scores = heatproof.score(model, x, "gradcam", "arcc", target=1)
    flags = {row.metric: row.flag for row in scores.rows}
    assert flags["arcc"] == flags["road"] == Reason.SATURATED.value
    assert math.isfinite(scores.values("gradcam", "arcc")[0])


def test_an_output_that_is_no_logit_is_warned_of_once(x):
    model = heatproof.wrap(Affine(head()), size=SIDE, layer="inner.two", name="years")
    with pytest.warns(HeatproofWarning, match=r'output of years is read as a logit.*`output="value"`'):
        heatproof.explain(model, x)
    heatproof.explain(model, x)  # warnings are errors here
    heatproof.explain(heatproof.wrap(head(), size=SIDE, layer="two"), x)


def test_a_network_read_as_one_of_values_has_one_column():
    """Its classes were counted before: a single logit stands for two, a single value for itself."""
    model = heatproof.wrap(nets.seeded(lambda: nets.Plain(classes=1)), 0.5, 0.5, 16)
    assert (model.outputs, model.as_values().outputs) == (2, 1)

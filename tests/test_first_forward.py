"""Methods with a pass of their own make the batch's first forward: the same maps, targets and flags, one pass less."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS, attribution, requested
from heatproof.engine import Batch, explain, explanation, resolve_layers
from heatproof.errors import InvalidInput, InvalidTarget
from heatproof.flags import Reason
from heatproof.models import Model, wrap

from . import nets

SIDE, TRANSFORMER = 16, 32
ON_RELU = ("fullgrad", "guided-backprop", "deconvnet", "deeplift", "lrp")
ON_ATTENTION = ("attention-rollout", "chefer")
METHODS = (*ON_RELU, *ON_ATTENTION)
LABELS = [3, 0, 1, 4]
RULES: dict[str, Any] = {
    "predicted": "predicted",
    "least": "least",
    "one for all": 2,
    "one each": [0, 1, 2, 3],
    "label": "label",
    "second": lambda logits: logits.topk(2).indices[:, 1],
}


def model_for(method: str) -> Model:
    """A network that the method serves, asked for what is only asked once."""
    make, side = (nets.vit, TRANSFORMER) if method in ON_ATTENTION else (nets.Plain, SIDE)
    net = nets.told_apart(nets.seeded(make), side)
    model = wrap(net, size=side, layer=None if method in ON_ATTENTION else "two")
    explain(model, images_for(model)[:2], method)
    return model


def images_for(model: Model) -> torch.Tensor:
    return nets.images(4, *model.input_shape[1:])


@contextmanager
def forwards(model: Model) -> Iterator[list[int]]:
    """The rows of every forward of the network."""
    rows: list[int] = []
    handle = model.module.register_forward_pre_hook(lambda _module, inputs: rows.append(len(inputs[0])))
    try:
        yield rows
    finally:
        handle.remove()


def passes(method: str, count: int = 4) -> list[int]:
    """Of one method alone: DeepLIFT sees its baseline, one row for all."""
    return [1, count] if method == "deeplift" else [count]


def after_the_engine(model: Model, x: torch.Tensor, method: str, **options: Any) -> Batch:
    """A batch whose forward the engine has made before the method's."""
    batch = batch_of(model, x, [method], **options)
    assert batch.adopts
    with model.evaluating(), torch.no_grad():
        batch.logits  # noqa: B018
    assert not batch.adopts
    return batch


def batch_of(model: Model, x: torch.Tensor, methods: list[str], **options: Any) -> Batch:
    positions = resolve_layers(model, requested(methods), "two")
    return Batch.of(model, positions, x, ids=[str(i) for i in range(len(x))], **options)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", METHODS)
def test_one_forward_and_the_map_that_follows_the_engines(method, rule):
    model = model_for(method)
    x, labels = images_for(model), LABELS if rule == "label" else None
    with forwards(model) as rows:
        found = explain(model, x, method, RULES[rule], raw=True, labels=labels)
    assert rows == passes(method)
    batch = after_the_engine(model, x, method, target_rule=RULES[rule], labels=labels)
    expected = explanation(batch, resolve_layers(model, requested(method), "two"))
    assert torch.equal(found[method], expected.raw[method])
    assert torch.equal(found.target, expected.target) and found.flags[method] == expected.flags[method]
    with torch.no_grad():
        torch.testing.assert_close(found.logits, model.logits(x), rtol=1e-5, atol=1e-5)
    assert not found.logits.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_take_one_forward_each(method):
    model = model_for(method)
    x = images_for(model)
    with forwards(model) as rows:
        found = explain(model, x, method, "top3", raw=True)
    once = passes(method)
    assert rows == (once if method == "attention-rollout" else once * 3)
    assert found.target.shape == (4, 3)
    for column in range(3):
        alone = explain(model, x, method, found.target[:, column], raw=True)
        assert torch.equal(found[method][:, column], alone[method])


@pytest.mark.parametrize("output", ["probability", "log-probability"])
@pytest.mark.parametrize("method", ["fullgrad", "guided-backprop", "deconvnet", *ON_ATTENTION])
def test_another_output_is_explained_and_the_logits_stay_logits(method, output):
    model = model_for(method)
    x = images_for(model)
    with forwards(model) as rows:
        found = explain(model, x, method, output=output, raw=True)
    assert rows == [4]
    expected = explanation(
        after_the_engine(model, x, method, output=output), resolve_layers(model, requested(method), "two")
    )
    assert torch.equal(found[method], expected.raw[method])
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("methods", "count"),
    [
        (["random", "fullgrad", "edges"], 1),
        (["fullgrad", "guided-backprop", "lrp"], 3),
        (["rise[masks=8]", "guided-backprop"], 1),
        (["gradcam", "guided-backprop"], 2),
        (["guided-backprop", "gradient", "eigencam"], 2),
        (["guided-gradcam"], 2),
    ],
)
def test_together_they_take_what_each_needs(methods, count):
    """Where a layer or the image's gradient is kept, that forward is the engine's."""
    model = model_for("fullgrad")
    x = images_for(model)
    with forwards(model) as rows:
        found = explain(model, x, methods, raw=True)
    assert sum(row == 4 for row in rows) == count
    assert list(found) == methods
    for method in methods:
        assert torch.equal(found[method], explain(model, x, method, raw=True)[method]), method


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("rule", "labels", "says"),
    [(99, None, "Got 99"), ("label", [0, None, 1, 2], "Got none for 1 of 4"), ("predicter", None, "Did you mean")],
)
def test_a_wrong_target_is_the_same_error_after_one_forward(method, rule, labels, says, monkeypatch):
    model = model_for(method)
    x = images_for(model)
    own = torch.autograd.grad

    def grad(outputs: Any, inputs: Any, *rest: Any) -> Any:
        assert isinstance(inputs, torch.Tensor) and inputs.numel() == 1, "a backward for nothing"
        return own(outputs, inputs, *rest)  # a function's slope at one number

    monkeypatch.setattr(torch.autograd, "grad", grad)
    positions = resolve_layers(model, requested([method, "random"]), "two")
    for survive in (False, True):
        batch = batch_of(model, x, [method, "random"], target_rule=rule, labels=labels)
        with forwards(model) as rows, pytest.raises(InvalidTarget, match=says):
            explanation(batch, positions, survive=survive)
        assert rows == passes(method)


def test_a_method_that_fails_before_its_forward_leaves_it_to_the_others():
    model = model_for("lrp")
    x = images_for(model)
    positions = resolve_layers(model, requested(["lrp[epsilon=-1]", "guided-backprop"]), "two")
    batch = batch_of(model, x, ["lrp[epsilon=-1]", "guided-backprop"])
    found = explanation(batch, positions, survive=True)
    assert "`epsilon` must be at least 0" in found.flags["lrp[epsilon=-1]"][0]
    assert torch.equal(found.raw["guided-backprop"], explain(model, x, "guided-backprop", raw=True)["guided-backprop"])
    with pytest.raises(InvalidInput, match="epsilon"):
        explain(model, x, ["lrp[epsilon=-1]", "guided-backprop"])


@pytest.mark.parametrize("method", ON_RELU)
def test_an_image_without_an_answer_is_flagged(method):
    class Silent(nets.Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.where(x[:, :1, 0, 0] > 0.9, torch.nan, 0.0)

    model = wrap(nets.seeded(Silent), size=SIDE, layer="two")
    x = nets.images(3, SIDE)
    x[:, :, 0, 0] = torch.tensor([0.5, 1.0, 0.5])[:, None]
    found = explain(model, x, method)
    assert [flag == Reason.NO_ANSWER.value for flag in found.flags[method]] == [False, True, False]
    assert found.logits[1].isnan().all() and found.logits[[0, 2]].isfinite().all()


def test_where_the_forward_stays_the_engines():
    """In half precision a method's own order of rounding may name another class; a graph must lead to the image."""
    half = wrap(nets.seeded(nets.Plain).bfloat16(), size=SIDE, layer="two")
    x = nets.images(2, SIDE)
    explain(half, x, "guided-backprop")
    with forwards(half) as rows:
        explain(half, x, "guided-backprop")
    assert rows == [2, 2]
    model = model_for("guided-backprop")
    with forwards(model) as rows:
        explain(model, x, "guided-backprop", differentiable=True)
    assert rows == [2, 2]


def test_a_forward_of_other_images_is_not_taken_for_theirs():
    @attribution("strays-for-a-test", form="signed")
    def strays(z: torch.Tensor, forward: Any, of_target: Any) -> torch.Tensor:
        """Asks for darker images first."""
        with torch.no_grad():
            forward(z - 1)
            return of_target(forward(z))[:, None, None] * z.mean(1)

    model = model_for("fullgrad")
    x = images_for(model)
    try:
        found = explain(model, x, "strays-for-a-test")
    finally:
        ATTRIBUTIONS.remove("strays-for-a-test")
    with torch.no_grad():
        torch.testing.assert_close(found.logits, model.logits(x))


class Writing(nn.Module):
    """Writes into what it is given."""

    def __init__(self):
        super().__init__()
        self.net = nets.seeded(nets.Plain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.mul_(2))


def test_a_network_that_writes_into_its_input_runs_once_too():
    model = wrap(Writing().eval(), size=SIDE, layer="net.two")
    x = nets.images(2, SIDE)
    explain(model, x, "guided-backprop")
    with forwards(model) as rows:
        found = explain(model, x, "guided-backprop")
    assert rows == [2]
    with torch.no_grad():
        torch.testing.assert_close(found.logits, model.logits(x))


def test_metrics_that_explain_again_pay_for_one_forward_each():
    model = model_for("guided-backprop")
    x = images_for(model)
    with forwards(model) as rows:
        heatproof.score(model, x, ["guided-backprop"], ["max-sensitivity[samples=3]"])
    assert sum(rows) == 4 * (1 + 3)

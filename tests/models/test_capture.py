"""One pass that keeps layers: the same logits, the right gradients, and nothing left behind."""

import pytest
import torch
import torchvision
from torch import nn

from heatproof.errors import LayerError
from heatproof.models import wrap
from heatproof.models.capture import captured, first_tensor

from .. import nets

SIDE = 16

#: Networks with the layers that make each of them hard.
CASES = {
    "plain": (nets.Plain, ["one.0", "two"]),
    "signed, functional residual": (nets.Signed, ["one", "three"]),
    "in-place ReLU after the layer": (nets.Dense, ["norms.0", "norms.1", "last"]),
    "shared modules, a branch": (nets.Shared, ["stem", "layer", "extra"]),
    "tuples": (nets.Wrapped, ["stem", "pair"]),
    "written in place before": (nets.Stubborn, ["stem", "layer"]),
    "a table": (nets.Placed, ["patches", "norm"]),
}


def big(name: str) -> tuple[nn.Module, list[str], int]:
    """Architectures of the two libraries, small."""
    torch.manual_seed(0)
    if name == "densenet121":
        net = torchvision.models.densenet121(num_classes=5)
        return nets.told_apart(net, 64), ["features.denseblock1", "features.norm5"], 64
    if name == "resnet18":
        net = torchvision.models.resnet18(num_classes=5)
        return nets.told_apart(net, 64), ["layer1.0.bn1", "layer2", "layer4.1.conv2"], 64
    if name == "vit":
        return nets.vit().eval(), ["blocks.0.norm1", "blocks.2.norm1"], 32
    return nets.swin().eval(), ["layers.0.blocks.1.norm1", "layers.1"], 32


def built(case: str) -> tuple[nn.Module, list[str], torch.Tensor]:
    if case in CASES:
        make, layers = CASES[case]
        return nets.seeded(make), layers, nets.images(3, SIDE)
    net, layers, side = big(case)
    return net, layers, nets.images(2, side)


ALL = [*CASES, "densenet121", "resnet18", "vit", "swin"]


@pytest.mark.parametrize("case", ALL)
@pytest.mark.parametrize("gradients", [False, True])
def test_logits_are_bit_equal_to_a_plain_forward(case, gradients):
    net, layers, x = built(case)
    model = wrap(net, size=x.shape[-1])
    with torch.no_grad():
        plain = model.logits(x)
    with model.evaluating():
        found = captured(model, x, layers, gradients=gradients)
    assert torch.equal(found.logits.detach(), plain)
    assert float((plain[0] - plain[1]).abs().max()) > 1e-4  # else this proves nothing


@pytest.mark.parametrize("case", ALL)
def test_activations_and_gradients_are_those_of_plain_autograd(case):
    """By hooks that clone, from the image on: the whole graph, every layer on its own."""
    net, layers, x = built(case)
    model = wrap(net, size=x.shape[-1])
    target = torch.arange(len(x))
    with model.evaluating():
        found = captured(model, x, layers, gradients=True)
        gradients = found.gradients(target)
    for layer in layers:
        kept: list[torch.Tensor] = []

        def keep(_module, _inputs, output, kept=kept):
            value, replaced = first_tensor(output)
            kept.append(value)
            return replaced(value.clone())

        handle = net.get_submodule(layer).register_forward_hook(keep)
        logits = model.logits(x.clone().requires_grad_())
        handle.remove()
        expected = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), kept[-1])[0]
        to_grid = found.layouts[layer].to_grid
        torch.testing.assert_close(found.activations(layer), to_grid(kept[-1]), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradients[layer], to_grid(expected), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("case", "shapes"), [
    ("vit", {"blocks.0.norm1": (2, 24, 4, 4)}),
    ("swin", {"layers.0.blocks.1.norm1": (2, 12, 8, 8), "layers.1": (2, 24, 4, 4)}),
])  # fmt: skip
def test_tokens_become_grids(case, shapes):
    net, _, x = built(case)
    found = captured(wrap(net, size=32), x, list(shapes), gradients=True)
    assert {layer: tuple(found.activations(layer).shape) for layer in shapes} == shapes


def test_the_class_token_is_left_out_and_places_keep_their_order():
    """An image that is bright in one patch: the patch embedding's grid has its maximum there."""
    net = nets.vit().eval()
    model = wrap(net, size=32)
    x = torch.zeros(1, 3, 32, 32)
    x[:, :, 8:16, 24:32] = 1
    plain = captured(model, torch.zeros_like(x), ["blocks.0.norm1"], gradients=False).activations("blocks.0.norm1")
    found = captured(model, x, ["blocks.0.norm1"], gradients=False).activations("blocks.0.norm1")
    changed = (found - plain).abs().sum(1)[0]
    assert divmod(int(changed.argmax()), 4) == (1, 3)
    assert int((changed > 1e-6).sum()) == 1


def test_nested_layers_in_one_pass():
    net = nets.told_apart(torchvision.models.resnet18(num_classes=5), 64)
    model = wrap(net, size=64)
    layers = ["layer4", "layer4.1", "layer4.1.conv1", "layer3"]
    x, target = nets.images(2, 64), torch.tensor([0, 1])
    with model.evaluating():
        together = captured(model, x, layers, gradients=True)
        gradients = together.gradients(target)
        for layer in layers:
            alone = captured(model, x, [layer], gradients=True)
            torch.testing.assert_close(together.activations(layer), alone.activations(layer), rtol=0, atol=0)
            torch.testing.assert_close(gradients[layer], alone.gradients(target)[layer], rtol=1e-5, atol=1e-7)


class Watched(torch.autograd.Function):
    """Counts the backward passes that come by."""

    passes = 0

    @staticmethod
    def forward(_context, x):
        return x.clone()

    @staticmethod
    def backward(_context, gradient):
        Watched.passes += 1
        return gradient


class Gate(nn.Module):
    def forward(self, x):
        return Watched.apply(x)


def test_gradients_go_to_the_shallowest_layer_and_no_further():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), Gate(), nn.ReLU(), Gate(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3)
    ).eval()  # fmt: skip
    model, x = wrap(net, size=SIDE), nets.images(2, SIDE)
    for asks in (False, True):  # an image that asks for a gradient must not make the trunk build a graph
        Watched.passes = 0
        with model.evaluating():
            found = captured(model, x.clone().requires_grad_(asks), ["4", "2"], gradients=True)
            found.gradients(torch.tensor([0, 1]))
        assert Watched.passes == 1
        assert found.native["2"].grad_fn is None and found.native["2"].is_leaf


def test_no_graph_where_no_gradient_is_asked():
    net = nets.seeded(nets.Plain)
    found = captured(wrap(net, size=SIDE), nets.images(2, SIDE).requires_grad_(), ["two"], gradients=False)
    assert not found.logits.requires_grad and not found.native["two"].requires_grad


def test_what_was_kept_is_not_written_over_by_what_follows():
    """DenseNet's in-place ReLU would make the signed output of the batch norm non-negative."""
    net = nets.seeded(nets.Dense)
    found = captured(wrap(net, size=SIDE), nets.images(2, SIDE), ["last"], gradients=True)
    assert float(found.activations("last").detach().min()) < -0.1


@pytest.mark.parametrize("fails", [None, "before", "after"])
@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_left_behind(fails, training):
    torch.manual_seed(0)
    net = nets.Failing().train(training)
    net.two.weight.requires_grad_(False)
    net.norm.eval()
    net.fails = fails
    before = nets.traces(net)
    model = wrap(net, size=SIDE)

    def work() -> None:
        with model.evaluating():
            captured(model, nets.images(2, SIDE), ["layer"], gradients=True).gradients(torch.tensor([0, 1]))

    if fails:
        with pytest.raises(FloatingPointError, match=fails):
            work()
    else:
        work()
    assert nets.traces(net) == before


def test_an_error_in_the_hooks_themselves_leaves_nothing_either():
    net = nets.seeded(nets.Plain)
    before = nets.traces(net)
    with pytest.raises(LayerError, match="N × 5 from Linear"):
        captured(wrap(net, size=SIDE), nets.images(2, SIDE), ["two", "head"], gradients=True)
    assert nets.traces(net) == before


def test_layers_that_cannot_be_explained():
    x = nets.images(2, SIDE)
    net = nets.seeded(nets.Plain)
    net.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(LayerError, match="'spare' did not run"):
        captured(wrap(net, size=SIDE), x, ["spare"], gradients=True)

    class Unused(nets.Plain):
        def forward(self, x):
            self.two(self.one(x))
            return self.head(torch.ones(len(x), 8))

    model = wrap(nets.seeded(Unused), size=SIDE)
    with model.evaluating():
        found = captured(model, x, ["two"], gradients=True)
        with pytest.raises(LayerError, match="No gradient reaches 'two'"):
            found.gradients(torch.tensor([0, 1]))


def test_windows_are_no_images():
    """Swin's attention gives one row for each window: eight maps of two images would be nonsense."""
    net = nets.swin().eval()
    with pytest.raises(LayerError, match=r"one row for each image. Got 8 rows for 2 \(windows, or views\?\)"):
        captured(wrap(net, size=32), nets.images(2, 32), ["layers.0.blocks.0.attn"], gradients=True)


def test_a_layer_of_integers_is_not_spatial():
    class Indices(nn.Module):
        def forward(self, x):
            return (x * 9).long()

    net = nn.Sequential(nn.Conv2d(3, 4, 3), Indices(), nn.Flatten())
    net = nn.Sequential(net, nn.LazyLinear(3))
    net[0][2].register_forward_hook(lambda _m, _i, out: out.float())
    with pytest.raises(LayerError, match="Expected a layer whose output has positions"):
        captured(wrap(net, size=SIDE), nets.images(2, SIDE), ["0.1"], gradients=True)


def test_putting_a_tensor_back_into_an_output():
    from collections import OrderedDict, namedtuple

    pair = namedtuple("pair", "count maps")
    old, new = torch.zeros(1), torch.ones(1)
    for output in (old, (3, old), [old, 4], {"a": 1, "b": old}, OrderedDict(b=old), pair(2, old)):
        value, replaced = first_tensor(output)
        assert value is old
        answer = replaced(new)
        assert type(answer) is type(output)
        assert first_tensor(answer)[0] is new
    assert first_tensor(("a", 1))[0] is None
    assert replaced(new).count == 2


def test_hugging_face_outputs_are_kept_whole():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    old, new = torch.zeros(1, 2), torch.ones(1, 2)
    output = outputs.BaseModelOutputWithPooling(last_hidden_state=old, pooler_output=old + 2)
    value, replaced = first_tensor(output)
    assert value is old
    answer = replaced(new)
    assert torch.equal(answer.last_hidden_state, new) and torch.equal(answer.pooler_output, old + 2)

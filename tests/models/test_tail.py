"""Running only what follows a layer must give what whole forwards give."""

import pytest
import torch
import torchvision
from torch import nn

import heatproof
from heatproof.errors import HeatproofWarning
from heatproof.models import Model, wrap
from heatproof.models.capture import Captured, captured, first_tensor
from heatproof.models.tail import Tail, recording

from .. import nets

SIDE = 16


def recorded(net: nn.Module, layer: str, x: torch.Tensor, graph: bool = False) -> tuple[Model, Captured, Tail]:
    model = wrap(net, size=x.shape[-1])
    with model.evaluating(), recording(model, layer) as record, torch.set_grad_enabled(graph):
        found = captured(model, x, [layer], gradients=False, trunk=graph)
    return model, found, Tail(model, record, found.layouts[layer], x, found.logits, graph)


def whole(model: Model, x: torch.Tensor, layer: str, native: torch.Tensor) -> torch.Tensor:
    """The slow way: a full forward pass in which a hook puts `native` in the place of the layer's output."""

    def put(_module, _inputs, output):
        return first_tensor(output)[1](native.clone())

    handle = model.module.get_submodule(layer).register_forward_hook(put)
    try:
        with torch.no_grad():
            return model.logits(x)
    finally:
        handle.remove()


def variants(found: Captured, layer: str, row: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The row with one channel set to zero in each variant, as a grid and in the layer's own layout (by hand)."""
    native = found.native[layer][row : row + 1].repeat(count, *[1] * (found.native[layer].dim() - 1)).clone()
    layout = found.layouts[layer]
    for k in range(count):
        if layout.kind == "channels-first":
            native[k, k] = 0
        elif layout.kind == "channels-last":
            native[k, ..., k] = 0
        else:
            native[k, layout.prefix :, k] = 0
    return layout.to_grid(native).clone(), native


def agrees(net: nn.Module, layer: str, x: torch.Tensor) -> Tail:
    model, found, tail = recorded(net, layer, x)
    scale = float(found.logits.abs().max())
    moved = 0.0
    for row in range(len(x)):
        grid, native = variants(found, layer, row, 4)
        before = grid.clone()
        expected = whole(model, x[row : row + 1].repeat(4, 1, 1, 1), layer, native)
        assert float((tail(grid, row) - expected).abs().max()) < 1e-5 * scale
        torch.testing.assert_close(grid, before, rtol=0, atol=0)  # the caller's tensor stays as it was
        moved = max(moved, float((expected - found.logits[row]).abs().max()))
    rows = torch.arange(len(x)).flip(0).repeat(2)
    native = found.native[layer][rows].clone()
    native[:, found.layouts[layer].prefix :] *= 0.5  # tokens in front of the places are not ours to change
    expected = whole(model, x[rows], layer, native)
    got = tail(found.layouts[layer].to_grid(native), rows)
    assert float((got - expected).abs().max()) < 1e-5 * scale
    assert moved > 1e-4 * scale  # else this proves nothing
    return tail


TOYS = [
    (nets.Plain, "one.0"),
    (nets.Plain, "two"),
    (nets.Signed, "one"),
    (nets.Signed, "three"),
    (nets.Dense, "norms.1"),
    (nets.Dense, "last"),
    (nets.Shared, "layer"),
    (nets.Wrapped, "pair"),
    (nets.Placed, "norm"),
    (nets.Fused, "encoder.layers.1"),
    (nets.Fused, "encoder.layers.1.norm1"),
]


@pytest.mark.parametrize(("net", "layer"), TOYS)
@pytest.mark.parametrize("count", [1, 3])
def test_replay_equals_whole_forwards(net, layer, count):
    assert agrees(nets.seeded(net), layer, nets.images(count, SIDE)).mode != "whole"


def library_case(name: str) -> tuple[nn.Module, str, int]:
    torch.manual_seed(0)
    models = torchvision.models
    if name == "resnet18":
        return nets.told_apart(models.resnet18(num_classes=5), 64), "layer3", 64
    if name == "resnet18, inside a block":
        return nets.told_apart(models.resnet18(num_classes=5), 64), "layer4.1.conv2", 64
    if name == "mobilenet":
        return nets.told_apart(models.mobilenet_v2(num_classes=5, width_mult=0.25), 64), "features.13", 64
    if name == "densenet":
        net = models.DenseNet(8, (2, 2, 2), 16, num_classes=5)
        return nets.told_apart(net, 32), "features.denseblock2", 32
    if name == "densenet, before an in-place ReLU":
        net = models.DenseNet(8, (2, 2, 2), 16, num_classes=5)
        return nets.told_apart(net, 32), "features.norm5", 32
    if name == "vit":
        return nets.vit().eval(), "blocks.1.norm1", 32
    return nets.swin().eval(), "layers.1.blocks.0.norm1", 32


LIBRARY = ["resnet18", "resnet18, inside a block", "mobilenet", "densenet", "densenet, before an in-place ReLU",
           "vit", "swin"]  # fmt: skip


@pytest.mark.parametrize("case", LIBRARY)
@pytest.mark.parametrize("count", [1, 2])
def test_replay_equals_whole_forwards_on_known_architectures(case, count):
    net, layer, side = library_case(case)
    assert agrees(net, layer, nets.images(count, side)).mode != "whole"


def test_only_what_follows_the_layer_runs():
    parts = [nets.Counted(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1)) for i in range(4)]
    net = nn.Sequential(nn.Sequential(*parts[:2]), parts[2], nn.Tanh(), parts[3], nn.AdaptiveAvgPool2d(1),
                        nn.Flatten(), nn.Linear(4, 3))  # fmt: skip
    _, found, tail = recorded(net, "1", nets.images(2, SIDE))
    for part in parts:
        part.calls = 0
    for _ in range(3):
        tail(found.activations("1"), torch.tensor([0, 1]))
    assert [part.calls for part in parts] == [0, 0, 0, 3]


def test_a_shared_module_runs_after_the_layer_with_what_it_is_given_there():
    """One recorded call before the layer must not answer the call after it, nor the other way round."""
    net = nets.seeded(nets.Shared)
    net.again = nets.Counted(net.again)
    x = nets.images(2, SIDE)
    agrees(net, "layer", x)
    _, found, tail = recorded(net, "layer", x)
    net.again.calls = 0
    tail(found.activations("layer"), torch.tensor([0, 1]))
    assert net.again.calls == 1  # of three in a forward pass, the one after the layer


def test_a_model_that_cannot_be_replayed_is_run_whole_and_that_is_said():
    net, x = nets.seeded(nets.Stubborn), nets.images(3, SIDE)
    with pytest.warns(HeatproofWarning, match="layer 'layer' cannot be replayed"):
        tail = agrees(net, "layer", x)
    assert tail.mode == "whole"
    agrees(net, "layer", x)  # said once


def test_whole_passes_are_no_larger_than_the_batch_that_fitted():
    class Narrow(nets.Stubborn):
        largest = 0

        def forward(self, x):
            Narrow.largest = max(Narrow.largest, len(x))
            return super().forward(x)

    net, x = nets.seeded(Narrow), nets.images(10, SIDE)
    with pytest.warns(HeatproofWarning):
        model, found, tail = recorded(net, "layer", x)
    Narrow.largest = 0
    native = found.native["layer"][:1].repeat(35, 1, 1, 1) * torch.linspace(0, 1, 35).view(-1, 1, 1, 1)
    got = tail(native, 4)
    assert Narrow.largest == 10
    torch.testing.assert_close(got, whole(model, x[4:5].repeat(35, 1, 1, 1), "layer", native))


def test_a_table_with_as_many_rows_as_windows_would_have_is_left_alone():
    """16 rows are 2 for each of 8 images, or no rows of images at all: found anew for every batch size."""
    net = nets.seeded(nets.Placed)
    for count in (3, 8, 1, 5):
        assert agrees(net, "norm", nets.images(count, SIDE)).mode != "whole"
    with pytest.warns(HeatproofWarning):  # 16 images: one row for each of them, or a table
        agrees(net, "norm", nets.images(16, SIDE))


def test_fused_paths_do_not_pass_the_layer_by():
    """Without a hook nn.TransformerEncoderLayer never calls its norm; every ablation would then look harmless."""
    _, found, tail = recorded(nets.seeded(nets.Fused), "encoder.layers.1.norm1", nets.images(2, SIDE))
    grid = found.activations("encoder.layers.1.norm1")
    moved = tail(torch.zeros_like(grid), torch.tensor([0, 1])) - found.logits
    assert float(moved.abs().max()) > 0.01


def test_rows_with_broken_logits_do_not_decide():
    net = nets.seeded(nets.Signed)
    x = nets.images(3, SIDE)
    x[1] = float("nan")
    _, found, tail = recorded(net, "two", x)
    assert tail.mode == "view"
    assert found.logits[1].isnan().all()
    grid, native = variants(found, "two", 2, 3)
    expected = whole(tail.model, x[2:3].repeat(3, 1, 1, 1), "two", native)
    torch.testing.assert_close(tail(grid, 2), expected, rtol=1e-5, atol=1e-6)
    _, _, tail = recorded(net, "two", torch.full_like(x, float("nan")))  # nothing to learn, nothing to say
    assert tail.mode == "whole"
    assert recorded(net, "two", nets.images(3, SIDE))[2].mode == "view"


def test_memory_running_out_in_the_check_is_no_answer():
    class Hungry(nets.Signed):
        full = False

        def forward(self, x):
            if self.full:
                raise torch.OutOfMemoryError("full")
            return super().forward(x)

    net = nets.seeded(Hungry)
    model, x = wrap(net, size=SIDE), nets.images(2, SIDE)
    with model.evaluating(), recording(model, "two") as record:
        found = captured(model, x, ["two"], gradients=False)
    net.full = True
    with pytest.raises(torch.OutOfMemoryError):
        Tail(model, record, found.layouts["two"], x, found.logits, False)
    net.full = False
    assert Tail(model, record, found.layouts["two"], x, found.logits, False).mode == "view"


@pytest.mark.parametrize("fails", ["before", "after", "second pass"])
def test_nothing_is_left_behind_when_something_raises(fails):
    torch.manual_seed(0)
    net = nets.Failing().train()
    net.two.weight.requires_grad_(False)
    before, net.fails = nets.traces(net), fails
    model, x = wrap(net, size=SIDE), nets.images(2, SIDE)
    if fails == "second pass":
        with pytest.warns(HeatproofWarning, match="cannot be replayed"):
            _, found, tail = recorded(net, "layer", x)
        with pytest.raises(FloatingPointError):
            tail(found.activations("layer"), 0)
    else:
        with pytest.raises(FloatingPointError), model.evaluating(), recording(model, "layer"):
            model.logits(x)
    assert nets.traces(net) == before


def test_nothing_is_left_behind_by_ablationcam():
    torch.manual_seed(0)
    net = nets.Failing().train()
    before = nets.traces(net)
    heatproof.explain(wrap(net, size=SIDE), nets.images(2, SIDE), "ablationcam", layer="layer")
    assert nets.traces(net) == before


def test_a_forward_that_the_owner_replaced_is_put_back():
    net = nets.seeded(nets.Signed)
    own = net.two.forward
    net.two.forward = lambda x: own(x) * 2
    mine = net.two.forward
    agrees(net, "three", nets.images(2, SIDE))
    assert vars(net.two)["forward"] is mine


def test_the_owners_hooks_see_the_new_activations():
    net, seen = nets.seeded(nets.Signed), []
    handle = net.two.register_forward_hook(lambda _m, _i, output: seen.append(float(output.detach().sum())))
    _, found, tail = recorded(net, "two", nets.images(2, SIDE))
    tail(torch.zeros_like(found.activations("two")), torch.tensor([0, 1]))
    handle.remove()
    assert seen[-1] == 0


class Twice(nets.Signed):
    def forward(self, x):
        return super().forward(x) + 2 * super().forward(x.flip(3))


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("layer", ["one", "two"])
def test_one_call_of_a_layer_that_runs_twice_is_replaced(layer, call):
    """What ran before it answers from the record, its own first call too; the other call's activations stay."""
    net = nets.seeded(Twice)
    x = nets.images(3, SIDE)
    model, found, tail = recorded(net, f"{layer}#{call}", x)
    assert tail.mode != "whole"
    calls = []

    def put(_module, _inputs, output):
        calls.append(output)
        return torch.zeros_like(output) if len(calls) == call + 1 else output

    handle = net.get_submodule(layer).register_forward_hook(put)
    with torch.no_grad():
        expected = model.logits(x)
    handle.remove()
    got = tail(torch.zeros_like(found.activations(f"{layer}#{call}")), torch.arange(3))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert float((expected - found.logits).abs().max()) > 1e-2


def test_a_replay_runs_only_what_follows_the_call():
    net = nets.seeded(Twice)
    net.one, net.two = nets.Counted(net.one), nets.Counted(net.two)
    for call, ran in ((0, (1, 1)), (1, (0, 0))):
        _, found, tail = recorded(net, f"two#{call}", nets.images(2, SIDE))
        net.one.calls = net.two.calls = 0
        tail(found.activations(f"two#{call}"), torch.tensor([0, 1]))
        assert (net.one.calls, net.two.calls) == ran


def test_with_a_graph_the_tail_is_differentiable():
    net = nets.seeded(nets.Signed).double()
    x = nets.images(2, SIDE)
    _, found, tail = recorded(net, "two", x, graph=True)
    grid = found.activations("two").detach().float().requires_grad_()
    (gradient,) = torch.autograd.grad(tail(grid, torch.tensor([0, 1]))[:, 2].sum(), grid)
    step = torch.randn(grid.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ahead, behind = (tail(grid + sign * 1e-2 * step, torch.tensor([0, 1]))[:, 2].sum() for sign in (1, -1))
    assert float((gradient * step).sum()) == pytest.approx(float(ahead - behind) / 2e-2, rel=2e-3)

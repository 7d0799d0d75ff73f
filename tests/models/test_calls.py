"""A layer that runs several times: each call is explained as a layer of its own would be."""

import re

import pytest
import torch
from torch import nn

import heatproof
from heatproof.errors import LayerError
from heatproof.models import resolve_layer, wrap

from .. import nets

SIDE = 16
METHODS = [
    *("gradcam", "gradcam++", "hirescam", "layercam", "eigencam", "ablationcam", "scorecam", "shapleycam"),
    *("guided-gradcam", "finercam", "opticam"),
]


def encoder() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())


class Siamese(nn.Module):
    """Two views through one encoder, or through two that are equal (`apart`)."""

    def __init__(self, apart: bool = False):
        super().__init__()
        self.one = encoder()
        self.two = encoder() if apart else None
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.one(x)
        second = (self.one if self.two is None else self.two)(x.flip(3) ** 2)
        joined = torch.cat([first.mean((2, 3)), torch.tanh(5 * second).mean((2, 3))], 1)
        return self.head(torch.tanh(joined))


class Tied(nn.Module):
    """One block run three times, or three that are equal (`apart`)."""

    def __init__(self, apart: bool = False):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 5)
        self.blocks = nn.ModuleList(self.block() for _ in range(3 if apart else 1))

    @staticmethod
    def block() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for i in range(3):
            x = x + self.blocks[i % len(self.blocks)](x)
        return self.head(torch.tanh(x).mean((2, 3)))


def siamese() -> tuple[nn.Module, nn.Module]:
    shared, apart = nets.seeded(Siamese), nets.seeded(lambda: Siamese(apart=True))
    apart.one.load_state_dict(shared.one.state_dict())
    apart.two.load_state_dict(shared.one.state_dict())
    apart.head.load_state_dict(shared.head.state_dict())
    return shared, apart


def tied() -> tuple[nn.Module, nn.Module]:
    shared, apart = nets.seeded(Tied), nets.seeded(lambda: Tied(apart=True))
    for block in apart.blocks:
        block.load_state_dict(shared.blocks[0].state_dict())
    apart.stem.load_state_dict(shared.stem.state_dict())
    apart.head.load_state_dict(shared.head.state_dict())
    return shared, apart


PAIRS = [
    (siamese, "one#0", "one"),
    (siamese, "one#1", "two"),
    (siamese, "one.1#0", "one.1"),
    (siamese, "one.1#1", "two.1"),
    (tied, "blocks.0#0", "blocks.0"),
    (tied, "blocks.0#1", "blocks.1"),
    (tied, "blocks[0]#2", "blocks.2"),
]


@pytest.mark.parametrize(("make", "call", "layer"), PAIRS)
def test_a_call_is_explained_as_a_layer_of_its_own(make, call, layer):
    shared, apart = make()
    x = nets.images(3, SIDE)
    with torch.no_grad():
        assert torch.equal(shared(x), apart(x))
    got = heatproof.explain(wrap(shared, size=SIDE), x, METHODS, target=2, layer=call, raw=True)
    expected = heatproof.explain(wrap(apart, size=SIDE), x, METHODS, target=2, layer=layer, raw=True)
    assert got.layer == call.replace("[0]", ".0")
    for method in METHODS:
        assert float(expected[method].std()) > 0, method  # else this proves nothing
        torch.testing.assert_close(got[method], expected[method], rtol=1e-4, atol=1e-6, msg=method)


def test_refined_maps_keep_the_calls_apart():
    shared, apart = tied()
    x = nets.images(2, SIDE)
    got = heatproof.explain(wrap(shared, size=SIDE), x, "refine:layercam@blocks.0#0+blocks.0#2")
    expected = heatproof.explain(wrap(apart, size=SIDE), x, "refine:layercam@blocks.0+blocks.2")
    (ours,), (theirs,) = got.values(), expected.values()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert got.layers == {"refine:layercam@blocks.0#0+blocks.0#2": ("blocks.0#0", "blocks.0#2")}


@pytest.mark.parametrize("layer", ["one", "one#2", "one[1]"])
def test_a_layer_without_its_call_is_an_error_that_can_be_followed(layer):
    model, x = wrap(siamese()[0], size=SIDE), nets.images(2, SIDE)
    with pytest.raises(LayerError, match="runs 2 times in a forward pass") as caught:
        heatproof.explain(model, x, "gradcam", layer=layer)
    named = re.findall(r"[\w.]+#\d+", str(caught.value))
    assert len(named) == 2
    for name in named:
        assert float(heatproof.explain(model, x, "gradcam", layer=name)["gradcam"].max()) == 1


def test_the_module_itself_is_an_error_too():
    net = siamese()[0]
    with pytest.raises(LayerError, match="one#0 or one#1"):
        heatproof.explain(wrap(net, size=SIDE), nets.images(2, SIDE), "gradcam", layer=net.one)


def test_what_auto_advises_is_not_refused():
    model, x = wrap(siamese()[0], size=SIDE), nets.images(2, SIDE)
    with pytest.raises(LayerError, match=r"runs once in a forward pass\. Found none") as caught:
        heatproof.explain(model, x, "gradcam")
    for name in re.findall(r"[\w.]+#\d+", str(caught.value)):
        heatproof.explain(model, x, "gradcam", layer=name)


@pytest.mark.parametrize("asked", ["refine:layercam", "refine:layercam@one.3#0"])
def test_refining_where_every_layer_runs_twice_ends_in_a_spelling_that_works(asked):
    """What auto says is followed, then what RefineCAM says of that."""
    shared, _ = siamese()
    x = nets.images(2, SIDE)
    model = wrap(shared, 0.5, 0.5, size=SIDE)
    with pytest.raises(LayerError) as first:
        heatproof.explain(model, x, asked)
    call = re.search(r"Choose a call by its number: (\S+) or", str(first.value))
    assert call
    with pytest.raises(LayerError, match="RefineCAM needs several") as second:
        heatproof.explain(model, x, asked, layer=call[1])
    spelling = re.search(r"as in (refine:\S+#0\+\S+)\.", str(second.value))
    assert spelling and heatproof.explain(model, x, spelling[1])[spelling[1]].std() > 0


def test_methods_that_name_their_own_calls_need_no_other_layer():
    model, x = wrap(siamese()[0], size=SIDE), nets.images(2, SIDE)
    found = heatproof.explain(model, x, ["gradcam@one#0", "gradcam@one#1"])
    for call in ("one#0", "one#1"):
        assert torch.equal(found[f"gradcam@{call}"], heatproof.explain(model, x, "gradcam", layer=call)["gradcam"])


def test_auto_advises_the_calls_that_see_the_image():
    """Of an encoder that runs on the image and on a fixed reference, the first call alone."""

    class Compared(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.head = encoder(), nn.Linear(6, 4)
            self.register_buffer("fixed", torch.rand(1, 3, SIDE, SIDE))

        def forward(self, x):
            found, other = self.enc(x), self.enc(self.fixed.expand_as(x))
            return self.head((found - other).abs().mean((2, 3)))

    model, x = wrap(nets.seeded(Compared), size=SIDE), nets.images(2, SIDE)
    with pytest.raises(LayerError, match=r"Choose a call by its number: enc#0\.$"):
        heatproof.explain(model, x, "gradcam")
    assert float(heatproof.explain(model, x, "gradcam", layer="enc#0")["gradcam"].max()) == 1
    with pytest.raises(LayerError, match="'enc#1' must depend on the image"):
        heatproof.explain(model, x, "gradcam", layer="enc#1")


def test_one_call_has_a_number_too_and_wrong_numbers_are_errors():
    net = nets.seeded(nets.Plain)
    model, x = wrap(net, size=SIDE, layer="two#0"), nets.images(2, SIDE)
    found = heatproof.explain(model, x, "gradcam")
    plain = heatproof.explain(wrap(net, size=SIDE), x, "gradcam", layer="two")
    assert found.layer == "two#0" and torch.equal(found["gradcam"], plain["gradcam"])
    for wrong in ("two#", "two#-1", "two#first"):
        with pytest.raises(LayerError, match="must be a number from 0, such as two#0"):
            resolve_layer(net, wrong)


def test_a_module_under_two_names_is_one_that_runs_twice():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = self.again = nn.Conv2d(3, 3, 3, padding=1)
            self.head = nn.Linear(3, 4)

        def forward(self, x):
            return self.head(torch.tanh(self.again(torch.tanh(self.one(x)))).mean((2, 3)))

    model, x = wrap(nets.seeded(Named), size=SIDE), nets.images(2, SIDE)
    with pytest.raises(LayerError, match="'again' runs 2 times"):
        heatproof.explain(model, x, "gradcam", layer="again")
    one, two = (heatproof.explain(model, x, "gradcam", layer=name)["gradcam"] for name in ("one#1", "again#1"))
    assert torch.equal(one, two)


def test_a_calibration_is_of_one_call():
    shared, apart = siamese()
    x = nets.images(6, SIDE)
    for call, layer in (("one#0", "one"), ("one#1", "two")):
        got = heatproof.calibrate(wrap(shared, size=SIDE), x, layer=call)
        expected = heatproof.calibrate(wrap(apart, size=SIDE), x, layer=layer)
        torch.testing.assert_close(got.mean, expected.mean)
    with pytest.raises(LayerError, match="runs 2 times"):
        heatproof.calibrate(wrap(shared, size=SIDE), x, layer="one")


# --- the call styles of other libraries ---


def _theirs(style: str, net: nn.Module, layer: str, z: torch.Tensor):
    if style == "pytorch-grad-cam":
        from heatproof.compat.pytorch_grad_cam import GradCAM
        from heatproof.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        cam = GradCAM(model=net, target_layers=[layer], reshape_transform=lambda output: output)
        return torch.from_numpy(cam(input_tensor=z, targets=[ClassifierOutputTarget(2)] * len(z)))
    if style == "torchcam":
        from heatproof.compat.torchcam.methods import GradCAM

        with GradCAM(net, layer) as extractor, torch.no_grad():
            return extractor(2, net(z))[0]
    if style == "captum":
        from heatproof.compat.captum import LayerGradCam

        return LayerGradCam(net, layer).attribute(z, target=2)
    from heatproof.compat.quantus import explain_func

    return torch.from_numpy(explain_func(net, z, [2] * len(z), layer=layer))


@pytest.mark.parametrize("style", ["pytorch-grad-cam", "torchcam", "captum", "quantus"])
def test_adapters_keep_the_calls_apart(style):
    shared, apart = siamese()
    z = nets.images(2, SIDE) * 2 - 1
    for call, layer in (("one#0", "one"), ("one#1", "two")):
        expected = _theirs(style, apart, layer, z)
        torch.testing.assert_close(_theirs(style, shared, call, z), expected, rtol=1e-4, atol=1e-5)
        assert float(expected.std()) > 0
    with pytest.raises(LayerError, match="one#0 or one#1"):
        _theirs(style, shared, "one", z)

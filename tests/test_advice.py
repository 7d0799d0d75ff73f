"""Every advice that an error gives is followed: the situation raises, its text says what to do, and doing that "
"works."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof import errors
from heatproof.metrics import METRICS

from . import nets

SIDE = 16


def grey(classes: int = 3, channels: int = 1) -> nn.Module:
    """A network for images of any number of channels, whose logits differ by more than rounding to integers hides."""
    net: nn.Module = nets.seeded(
        lambda: nn.Sequential(
            nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes)
        )
    )
    with torch.no_grad():
        list(net.parameters())[-2].mul_(20)
    return net


class Quantised(nn.Module):
    """A network before and after static quantisation."""

    def __init__(self):
        super().__init__()
        self.enter, self.leave = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.net = grey(channels=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leave(self.net(self.enter(x)))


class Views(nn.Module):
    """Every layer with positions sees two views of an image, folded into the rows."""

    def __init__(self):
        super().__init__()
        self.net = grey(channels=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.stack([x, x.flip(3)], 1).flatten(0, 1)
        return self.net(both).unflatten(0, (len(x), 2)).mean(1)


@pytest.fixture(scope="module")
def quantised():
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("no kernels for quantised networks here")
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.backends.quantized, "engine", "fbgemm")
        net = Quantised().eval()
        net.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")  # type: ignore[assignment]
        torch.ao.quantization.prepare(net, inplace=True)
        net(nets.images(4, SIDE) * 2 - 1)
        yield torch.ao.quantization.convert(net)


def maps(model, method: str = "gradcam", x: torch.Tensor | None = None, **settings) -> torch.Tensor:
    found = heatproof.explain(model, nets.images(2, SIDE) if x is None else x, method, **settings)
    assert not any(found.flags[method])
    return found[method]


# --- the number of channels, and the size ---


def test_a_network_of_one_channel_says_which_input_shape_it_takes(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20) % 251).save(file)
    for method in ("gradcam", "rise[masks=4]"):
        with pytest.raises(
            errors.ModelError, match=r"takes 1 channel\. Set `input_shape=\(1, 16, 16\)` \(--input-shape"
        ):
            maps(heatproof.wrap(grey(), size=SIDE), method, [file])  # type: ignore[arg-type]
    model = heatproof.wrap(grey(), input_shape=(1, SIDE, SIDE), mean=0.5, std=0.5)
    assert maps(model, "gradcam", [file]).shape == (1, SIDE, SIDE)  # type: ignore[arg-type]


def test_a_linear_network_says_which_input_shape_it_takes():
    net = nn.Sequential(nn.Flatten(), nn.Linear(49, 3))
    with pytest.raises(errors.ModelError, match=r"takes 49 numbers\. Set `input_shape=\(1, 7, 7\)`"):
        maps(heatproof.wrap(net, size=SIDE), "gradient")
    assert maps(heatproof.wrap(net, input_shape=(1, 7, 7)), "gradient", torch.rand(2, 1, 7, 7)).shape == (2, 7, 7)


def test_an_image_of_too_many_channels_says_to_set_the_input_shape(tmp_path):
    np.save(tmp_path / "bands.npy", np.random.default_rng(0).random((20, 20, 5), np.float32))
    file = tmp_path / "bands.npy"
    with pytest.raises(
        errors.InvalidImage, match=r"has 4 channels|has 5 channels, and the network takes images of 1 or 3"
    ):
        maps(heatproof.wrap(grey(channels=3), size=SIDE), "gradcam", file)  # type: ignore[arg-type]
    model = heatproof.wrap(grey(channels=5), input_shape=(5, SIDE, SIDE), mean=0.5, std=0.5)
    assert maps(model, "gradcam", file).shape == (1, SIDE, SIDE)  # type: ignore[arg-type]


def test_a_tensor_in_another_order_or_range_says_what_to_do():
    model, x = heatproof.wrap(grey(channels=3), mean=0.4, std=0.2, size=SIDE), nets.images(2, SIDE)
    with pytest.raises(errors.InvalidInput, match=r"`images.permute\(0, 3, 1, 2\)`"):
        maps(model, x=x.permute(0, 2, 3, 1))
    with pytest.raises(errors.InvalidInput, match="say `normalised=True`"):
        maps(model, x=model.normalise(x))
    with pytest.raises(errors.InvalidInput, match="divide bytes by 255"):
        maps(model, x=x * 255)
    expected = maps(model)
    torch.testing.assert_close(maps(model, x=x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)), expected)
    torch.testing.assert_close(maps(model, x=model.normalise(x), normalised=True), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(errors.InvalidInput, match="the mean and std of your own normalisation"):
        maps(model, x=(x - 0.4) / 0.1, normalised=True)


# --- networks whose layers or gradients cannot be read ---


def test_a_quantised_network_names_methods_that_run_on_it(quantised):
    model = heatproof.wrap(quantised, size=SIDE)
    for method in ("gradcam", "gradient"):
        with pytest.raises(errors.LayerError, match="such as scorecam, eigencam or rise"):
            maps(model, method)
    x, layer = model.normalise(nets.images(2, SIDE)), quantised.net[1]
    kept: list[torch.Tensor] = []
    with torch.no_grad():
        handle = layer.register_forward_hook(lambda *given: kept.append(given[2].dequantize()))
        quantised(x)
        handle.remove()
    for method in ("scorecam", "eigencam", "fem", "occlusion", "rise[masks=4]", "ablationcam"):
        assert maps(model, method).shape == (2, SIDE, SIDE)
    assert model.last_layer == "net.1"
    raw = heatproof.explain(model, nets.images(2, SIDE), "ablationcam", raw=True)
    target = raw.target
    with torch.no_grad():  # the definition: every channel set to zero in turn, in the network's own integers
        whole = quantised(x).gather(1, target[:, None])[:, 0]
        weights = []
        for channel in range(kept[0].shape[1]):
            less = kept[0].clone()
            less[:, channel] = 0
            given = torch.quantize_per_tensor(less, layer.scale, layer.zero_point, torch.quint8) if hasattr(
                layer, "scale") else _as_quantised(quantised, x, less)  # fmt: skip
            rest = given
            for part in list(quantised.net)[2:]:
                rest = part(rest)
            weights.append((whole - quantised.leave(rest).gather(1, target[:, None])[:, 0]) / whole.abs())
    expected = (torch.stack(weights, 1)[:, :, None, None] * kept[0]).sum(1)
    torch.testing.assert_close(raw["ablationcam"], expected, rtol=1e-4, atol=1e-5)


def _as_quantised(net: Quantised, x: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    like = next(net.net.children())(net.enter(x))
    return torch.quantize_per_tensor(values, like.q_scale(), like.q_zero_point(), like.dtype)


@pytest.mark.parametrize("how", ["script", "trace", "freeze"])
def test_torchscript_names_methods_that_read_no_layer(how):
    net = grey(channels=3)
    scripted = torch.jit.trace(net, torch.rand(1, 3, SIDE, SIDE)) if how == "trace" else torch.jit.script(net)
    scripted = torch.jit.freeze(scripted) if how == "freeze" else scripted
    model = heatproof.wrap(scripted, size=SIDE)
    with pytest.raises(errors.LayerError, match=r"compiled by TorchScript.* such as rise or occlusion"):
        maps(model)
    with pytest.raises(errors.LayerError, match=r"'1' is compiled by TorchScript.* rise or occlusion"):
        maps(model, layer="1")
    for method in ("fullgrad", "chefer"):
        with pytest.raises(
            errors.NotApplicable, match=r"compiled by TorchScript, which shows nothing.* gradient or rise"
        ):
            maps(model, method)
    for method in ("rise[masks=4]", "occlusion", "smoothgrad[samples=2]", "integrated-gradients[steps=64]"):
        torch.testing.assert_close(maps(model, method), maps(heatproof.wrap(net, size=SIDE), method))


def test_folded_views_name_methods_that_read_no_layer():
    model = heatproof.wrap(Views(), size=SIDE)
    with pytest.raises(errors.LayerError, match=r"whose rows are not images\. Take .* rise or occlusion") as caught:
        maps(model)
    assert "Name one" not in str(caught.value)
    assert maps(model, "occlusion").shape == (2, SIDE, SIDE)


def test_a_layer_that_is_named_as_one_to_name_can_be_explained():
    """The pool is passed over by `auto`, and is the only layer with positions."""
    net = nets.seeded(lambda: nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3)))
    with pytest.raises(errors.LayerError, match=r"Name one with `layer`, such as '0'"):
        maps(heatproof.wrap(net, size=SIDE))
    assert maps(heatproof.wrap(net, size=SIDE), layer="0").shape == (2, SIDE, SIDE)


def test_weights_that_cannot_be_drawn_anew_say_which_network_to_give(quantised):
    x = nets.images(2, SIDE)
    for module, says in ((quantised, "take the float network"), (torch.jit.script(grey(channels=3)), "Python module")):
        with pytest.raises(errors.ModelError, match=says):
            heatproof.score(heatproof.wrap(module, size=SIDE), x, "occlusion", "mprt")
    found = heatproof.score(heatproof.wrap(grey(channels=3), size=SIDE), x, "occlusion", "mprt")
    assert set(found.to_pandas().flag) == {""}


# --- names of models ---


@pytest.mark.parametrize(
    "spec", ["hf:./missing", "hf:/no/such/folder", "hf:~/no/such/folder", "timm:local-dir:./missing"]
)
def test_a_folder_that_is_missing_is_called_missing(spec):
    with pytest.raises(errors.ModelError, match="There is none: check the path") as caught:
        heatproof.load_model(spec)
    assert "hub" not in str(caught.value) and "connect" not in str(caught.value)


def test_a_file_in_place_of_a_models_folder_says_so(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(errors.ModelError, match="It is a file: give the folder that holds it"):
        heatproof.load_model(f"hf:{tmp_path / 'model.safetensors'}")


# --- every metric and method on one channel and on four ---


@pytest.mark.parametrize("channels", [1, 4])
def test_metrics_that_cut_or_blur_images_take_any_number_of_channels(channels):
    model = heatproof.wrap(grey(channels=channels), input_shape=(channels, SIDE, SIDE), mean=0.5, std=0.5)
    x = torch.rand(2, channels, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    wanted = ["irof", "sic", "aic", "pixel-flipping", "road", "insertion", "rbo", "kappa", "spearman", "infidelity"]
    assert set(wanted) <= set(METRICS)
    found = heatproof.score(model, x, ["gradcam", "kernelshap[samples=40]"], wanted, reference=x.flip(3)).to_pandas()
    assert set(found.flag) == {""} and found.value.notna().all()


def test_a_grey_image_has_the_superpixels_of_the_same_image_in_colour():
    from heatproof.segments import segment

    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(segment(x, "slic"), segment(x.expand(-1, 3, -1, -1), "slic"))

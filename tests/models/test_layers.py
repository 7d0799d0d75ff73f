"""Names of layers, and which ones are found where no family rule helps."""

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18
from torchvision.models.vgg import VGG, make_layers

from heatproof.errors import LayerError, ModelError, UnknownName
from heatproof.models import Layers, resolve_layer, wrap

SIZE = 32


def _conv(inputs: int, outputs: int, stride: int = 2) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


class Head(nn.Sequential):
    def __init__(self, width: int, classes: int = 4):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


# --- names ---


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("layer4", "layer4"),
        ("layer4[-1]", "layer4.1"),
        ("layer4.-1", "layer4.1"),
        ("layer4[0].conv2", "layer4.0.conv2"),
        ("model.layer4[-1]", "layer4.1"),
        ("layer2[0].downsample[-1]", "layer2.0.downsample.1"),
    ],
)
def test_spellings_of_a_layer(spelling: str, name: str) -> None:
    assert resolve_layer(resnet18(), spelling) == name


def test_a_module_is_found_by_identity() -> None:
    net = resnet18()
    assert resolve_layer(net, net.layer3[1].bn2) == "layer3.1.bn2"
    assert resolve_layer(wrap(net), net.layer3) == "layer3"
    with pytest.raises(LayerError, match="not"):
        resolve_layer(net, resnet18().layer3)
    with pytest.raises(LayerError, match="Got a ResNet"):
        resolve_layer(net, net)


@pytest.mark.parametrize(
    "wrong", ["layr4", "layer4[2]", "layer5", "layer4.conv9", "Layer4", "", "layer4[-3]", "layer4["]
)
def test_a_wrong_name_gets_near_misses(wrong: str) -> None:
    with pytest.raises(UnknownName, match="No layer is called") as caught:
        resolve_layer(resnet18(), wrong)
    if wrong:
        assert "layer4" in str(caught.value)


def test_a_layer_must_be_a_name_or_a_module() -> None:
    with pytest.raises(LayerError, match="int"):
        resolve_layer(resnet18(), 4)  # type: ignore[arg-type]


# --- finding by a probing forward ---


def test_a_container_of_many_stages_is_opened_and_one_stage_is_not() -> None:
    net = nn.Sequential()
    net.features = nn.Sequential(
        nn.Sequential(_conv(3, 4), nn.ReLU()),
        nn.Sequential(_conv(4, 4), nn.ReLU(), _conv(4, 4, 1), nn.ReLU()),
        nn.Sequential(_conv(4, 8), nn.ReLU()),
    )
    net.head = Head(8)
    assert wrap(net, size=SIZE).layers == Layers("features.2", ("features.0", "features.1", "features.2"))


def test_what_begins_the_next_stage_does_not_stand_for_the_last_one() -> None:
    """ResNet-50's layer2 starts with a convolution at layer1's size that finishes after layer1."""

    class Transition(nn.Sequential):
        pass

    net = nn.Sequential(
        _conv(3, 4),  # 16
        Transition(nn.BatchNorm2d(4), _conv(4, 4)),  # still 16, then 8
        _conv(4, 8),  # 4
        Head(8),
    )
    assert wrap(net, size=SIZE).layers == Layers("2", ("0", "1", "2"))


def test_identities_and_dropouts_do_not_hide_the_layer_they_follow() -> None:
    net = nn.Sequential(_conv(3, 4), _conv(4, 8), nn.Identity(), nn.Dropout2d(0.1), Head(8))
    assert wrap(net, size=SIZE).layers == Layers("1", ("0", "1"))


def test_a_pool_to_a_fixed_size_is_past_the_last_map() -> None:
    net = nn.Sequential(_conv(3, 4), _conv(4, 8), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(8 * 49, 4))
    assert wrap(net, size=SIZE).layers.last == "1"


def test_a_module_that_runs_twice_is_no_target() -> None:
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.again, self.head = _conv(3, 4), _conv(4, 4, 1), Head(4)

        def forward(self, x):
            return self.head(self.again(self.again(self.stem(x))))

    assert wrap(Shared(), size=SIZE).layers.last == "stem"


def test_an_in_place_activation_after_the_layer_is_taken_instead_of_it() -> None:
    net = nn.Sequential(_conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(inplace=True), Head(4))
    assert wrap(net, size=SIZE).layers.last == "2"


@pytest.mark.parametrize(
    "wrapped", [lambda net: nn.Sequential(nn.Identity(), net), lambda net: nn.ModuleDict({"a": net})]
)
def test_a_network_inside_a_network_keeps_its_layers(wrapped) -> None:
    class Outer(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return {"logits": (self.inner["a"] if isinstance(self.inner, nn.ModuleDict) else self.inner)(x)}

    for build, stages in (
        (resnet18, ("layer1", "layer2", "layer3", "layer4")),
        (mobilenet_v2, ("features.4.conv.0", "features.7.conv.0", "features.14.conv.0", "features.18")),
        (lambda: VGG(make_layers([8, "M", 8, "M", 8, "M"])), ("features.2", "features.5", "features.8")),
    ):
        if build is not resnet18 and build is not mobilenet_v2:
            net = build()
            net.classifier = nn.Sequential(nn.Flatten(), nn.Linear(8 * 49, 4))
        else:
            net = build()
        model = wrap(Outer(wrapped(net)), size=64)
        prefix = resolve_layer(model, net)
        assert model.layers.stages == tuple(f"{prefix}.{name}" for name in stages)


def test_at_most_four_stages_the_deepest_ones() -> None:
    net = nn.Sequential(*(_conv(3 if i == 0 else 4, 4) for i in range(6)), Head(4))
    assert wrap(net, size=128).layers.stages == ("2", "3", "4", "5")


def test_a_class_token_that_joins_late_reads_the_patches_of_the_blocks() -> None:
    """CaiT: the norm after the class attention holds patches, but the prediction reads the class token alone."""
    import timm

    net = timm.create_model("cait_xxs24_224", img_size=SIZE, num_classes=4)
    assert wrap(net, size=SIZE).layers == Layers("blocks.23", ("blocks.5", "blocks.11", "blocks.17", "blocks.23"))


class Mixing(nn.Module):
    """A block that mixes tokens; its norm reads the block's input (`pre`) or what came out of the mixing."""

    def __init__(self, pre: bool):
        super().__init__()
        self.norm, self.mix, self.pre = nn.LayerNorm(6), nn.Linear(17, 17), pre

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.mix((self.norm(x) if self.pre else x).transpose(1, 2)).transpose(1, 2)
        return x + (mixed if self.pre else self.norm(mixed))


class Classified(nn.Module):
    """4 × 4 patches and a class token, which alone is read."""

    def __init__(self, pre: bool, depth: int = 4):
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 6, 8, 8), nn.Parameter(torch.randn(1, 1, 6))
        self.blocks = nn.Sequential(*(Mixing(pre) for _ in range(depth)))
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.blocks(torch.cat([self.token.expand(len(x), -1, -1), patches], 1))[:, 0])


def test_what_the_last_attention_reads_is_the_norm_before_it_or_the_block_before() -> None:
    pre, post = wrap(Classified(pre=True), size=SIZE), wrap(Classified(pre=False), size=SIZE)
    assert pre.layers.stages == tuple(f"blocks.{i}.norm" for i in range(4))
    assert post.layers == Layers("blocks.2", ("blocks.0", "blocks.1", "blocks.2"))


def test_tokens_without_a_class_token_are_pooled_after_the_last_norm() -> None:
    import timm

    net = timm.create_model("mixer_s32_224", img_size=64, num_classes=4)
    assert wrap(net, size=64).layers == Layers("norm", ("blocks.1", "blocks.3", "blocks.5", "norm"))


def test_a_model_that_cannot_run_on_its_size_says_so() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 14 * 14, 2))
    assert wrap(net, size=16).layers.last == "0"
    with pytest.raises(ModelError, match=r"32 × 32.*Set `size`"):
        _ = wrap(net, size=SIZE).layers
    assert all(not module._forward_hooks for module in net.modules())


def test_a_model_without_any_map_names_methods_that_need_none() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    with pytest.raises(LayerError, match="Take a method that reads no layer, such as rise or occlusion"):
        _ = wrap(net, size=SIZE).layers


def test_probing_draws_no_global_random_numbers() -> None:
    model = wrap(nn.Sequential(_conv(3, 4), nn.Dropout(0.5), Head(4)), size=SIZE)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert model.layers and torch.equal(torch.rand(1), expected)

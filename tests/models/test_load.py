"""Models by name: every form, their preprocessing beside the libraries' own, and every way to go wrong."""

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torchvision import models as torchvision_models

from heatproof.errors import HeatproofWarning, InvalidInput, MissingExtra, ModelError, UnknownName
from heatproof.geometry import Geometry
from heatproof.models import Layers, load_model
from heatproof.models.load import chosen_device, parsed_args


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """Neither square nor of a size that divides anything."""
    coarse = np.random.default_rng(0).integers(0, 255, (23, 31, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((311, 233), Image.Resampling.BICUBIC)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No name resolves, and nothing was downloaded before."""

    def unresolved(*_args, **_kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", unresolved)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))


# --- preprocessing ---


@pytest.mark.parametrize("name", ["mobilenetv2_100", "efficientnet_b0", "mobilenetv3_small_050", "mixer_s32_224"])
def test_timm_images_are_timms_own(name: str, photograph: Image.Image) -> None:
    model = load_model(f"timm:{name}", pretrained=False, device="cpu")
    config = resolve_model_data_config(model.module)
    theirs = create_transform(**config, is_training=False)(photograph)
    ours = model.normalise(model.geometry.image(photograph)[None])[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_torchvision_images_are_torchvisions_own(name: str, photograph: Image.Image) -> None:
    model = load_model(f"torchvision:{name}", pretrained=False, device="cpu")
    theirs = torchvision_models.get_model_weights(name).DEFAULT.transforms()(photograph)
    ours = model.normalise(model.geometry.image(photograph)[None])[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_set_of_weights_decides_the_transforms() -> None:
    first = load_model("torchvision:mobilenet_v2", pretrained=False, model_args={"weights": "IMAGENET1K_V1"})
    second = load_model("torchvision:mobilenet_v2", pretrained=False, model_args={"weights": "imagenet1k_v2"})
    assert (first.geometry.resize, second.geometry.resize) == (256, 232)
    with pytest.raises(UnknownName, match="IMAGENET1K_V1"):
        load_model("torchvision:mobilenet_v2", model_args={"weights": "IMAGENET1K_V3"})


def test_what_the_user_gives_wins() -> None:
    model = load_model("timm:resnet10t", pretrained=False, mean=0.25, std=(0.1, 0.2, 0.3), size=(96, 64))
    assert model.mean == (0.25, 0.25, 0.25) and model.std == (0.1, 0.2, 0.3)
    assert model.geometry == Geometry((96, 64), (109, 73), "bicubic")  # its crop share, .875, is kept
    assert load_model("timm:resnet10t", pretrained=False, size=96, resize=96).geometry.resize == 96


def test_an_image_size_among_the_arguments_is_the_size_of_the_images() -> None:
    model = load_model("timm:vit_tiny_patch16_224", pretrained=False, model_args={"img_size": "64"})
    assert model.geometry.size == (64, 64)


def test_class_names_come_with_imagenet_and_only_with_it() -> None:
    for spec in ("timm:mobilenetv3_small_050", "torchvision:mobilenet_v3_small"):
        model = load_model(spec, pretrained=False)
        assert model.classes is not None and len(model.classes) == 1000
        assert (model.classes[0], model.classes[207]) == ("tench", "golden retriever")
        assert load_model(spec, pretrained=False, model_args={"num_classes": 10}).classes is None
    named = load_model(spec, pretrained=False, model_args={"num_classes": 2}, classes=["cat", "dog"])
    assert named.classes == ["cat", "dog"]


# --- arguments, devices, names ---


def test_arguments_are_read_as_yaml_scalars() -> None:
    given = {
        "a": "10",
        "b": "1e-3",
        "c": "false",
        "d": "same",
        "e": "[96, 64]",
        "f": "null",
        "g": "0.5",
        "h": 3,
        "i": "a: b: c",
    }
    read = {"a": 10, "b": 1e-3, "c": False, "d": "same", "e": [96, 64], "f": None, "g": 0.5, "h": 3, "i": "a: b: c"}
    assert parsed_args(given) == read
    assert parsed_args(None) == {}


def test_a_model_is_in_eval_mode_and_named_as_typed() -> None:
    model = load_model("timm:resnet10t", pretrained=False, device="cpu")
    assert model.name == "timm:resnet10t" and not any(m.training for m in model.module.modules())
    assert load_model("timm:resnet10t", pretrained=False, name="mine").name == "mine"


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", 3.5])
def test_a_device_that_is_not_there_is_refused(device) -> None:
    with pytest.raises(InvalidInput, match="`device` must be auto"):
        chosen_device(device)


@pytest.mark.parametrize("spec", ["resnet18", "keras:resnet18", "timm:", "", ":", "shapes:"])
def test_a_form_that_does_not_exist_lists_them_all(spec: str) -> None:
    with pytest.raises(
        UnknownName, match=r"timm:NAME, torchvision:NAME, hf:NAME_OR_PATH, pypi:NAME, python:.*, shapes"
    ):
        load_model(spec)


def test_a_bare_name_is_told_its_prefix() -> None:
    with pytest.raises(UnknownName, match="'timm:resnet18'"):
        load_model("resnet18")


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("timm:resnt18", "timm:resnet18"),
        ("timm:mobilenet_v2_100", "timm:mobilenetv2_100"),
        ("torchvision:resnt18", "torchvision:resnet18"),
        ("torchvision:mobilenetv2", "torchvision:mobilenet_v2"),
    ],
)
def test_an_unknown_name_gets_the_exact_string_to_use(spec: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"'{near}'"):
        load_model(spec)


def test_an_unknown_tag_gets_those_that_there_are(offline) -> None:
    with pytest.raises(ModelError, match=r"timm:resnet10t\.c3_in1k"):
        load_model("timm:resnet10t.nothing")


@pytest.mark.parametrize(
    "spec", ["timm:resnet10t", "torchvision:shufflenet_v2_x0_5", "shapes", "python:timm:create_model"]
)
def test_an_argument_that_the_constructor_does_not_take_is_named(spec: str) -> None:
    with pytest.raises(ModelError, match="no_such_thing"):
        load_model(spec, pretrained=False, model_args={"no_such_thing": "1"})


@pytest.mark.parametrize("setting", [{"mean": (1, 2)}, {"std": 0}, {"size": -1}, {"device": "nonsense"}])
def test_settings_are_checked_before_anything_is_built(setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("the model was built"))
    with pytest.raises(InvalidInput):
        load_model("timm:resnet10t", **setting)


# --- without a network ---


@pytest.mark.parametrize(
    "spec", ["timm:resnet10t", "timm:hf-hub:some/model", "torchvision:mobilenet_v3_small", "hf:some/model"]
)
def test_offline_the_error_says_what_to_do(spec: str, offline) -> None:
    with pytest.raises(ModelError, match=r"(--checkpoint|local folder).*connected.*cache, .*(hub|torch)") as caught:
        load_model(spec)
    assert spec in str(caught.value)


def test_offline_timm_takes_weights_from_the_hubs_cache(offline, monkeypatch, tmp_path: Path) -> None:
    net = timm.create_model("resnet10t")
    save_file(net.state_dict(), tmp_path / "cached.safetensors")
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda repo, file: str(tmp_path / "cached.safetensors")
    )
    assert torch.equal(load_model("timm:resnet10t", device="cpu").module.conv1[0].weight, net.conv1[0].weight)


def test_a_name_behind_a_proxy_need_not_resolve(offline, monkeypatch: pytest.MonkeyPatch) -> None:
    from heatproof.models.download import reachable

    assert not reachable("huggingface.co")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert reachable("huggingface.co")


# --- python: ---


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current folder; its name."""
    name = f"nets_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import torch, heatproof.models\n"
        "class Zoo:\n"
        "    @staticmethod\n"
        "    def small(width=4, classes=3):\n"
        "        return torch.nn.Sequential(torch.nn.Conv2d(3, width, 3), torch.nn.AdaptiveAvgPool2d(1),\n"
        "                                   torch.nn.Flatten(), torch.nn.Linear(width, classes))\n"
        "small = Zoo.small\n"
        "ready = small()\n"
        "def wrapped(): return heatproof.models.wrap(small(), mean=.1, size=48, classes=['a', 'b', 'c'])\n"
        "def labels(): return heatproof.models.wrap(small(), size=48, layer='1', multi_label=True)\n"
        "def signal():\n"
        "    net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.AdaptiveAvgPool1d(1),\n"
        "                              torch.nn.Flatten(), torch.nn.Linear(4, 3))\n"
        "    return heatproof.models.wrap(net, input_shape=(1, 64))\n"
        "def wrong(): return 'a string'\n"
        "def broken(): raise RuntimeError('of its own')\n"
    )
    (tmp_path / f"{name}_broken.py").write_text("import something_not_installed_here\n")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_factory_in_the_current_folder_is_called_with_the_arguments(project: str) -> None:
    path = list(sys.path)
    model = load_model(f"python:{project}:small", model_args={"width": "7"}, mean=0.5, std=0.5, size=32)
    assert model.module[0].out_channels == 7 and model.layers == Layers("0", ("0",))
    assert load_model(f"python:{project}:Zoo.small", mean=0, std=1, size=32).module[0].out_channels == 4
    assert load_model(f"python:{project}:ready", mean=0, std=1, size=32).module[3].out_features == 3
    assert sys.path == path


def test_a_factory_that_wraps_keeps_its_preprocessing(project: str) -> None:
    model = load_model(f"python:{project}:wrapped")
    assert model.mean == (0.1, 0.1, 0.1) and model.geometry.size == (48, 48) and model.classes == ["a", "b", "c"]


def test_a_factory_that_wraps_keeps_what_else_it_said(project: str) -> None:
    model = load_model(f"python:{project}:labels")
    assert model.last_layer == "1"
    assert model.probabilities(torch.zeros(1, 3)).tolist() == [[0.5, 0.5, 0.5]]  # sigmoids, no softmax
    assert load_model(f"python:{project}:labels", layer="0").last_layer == "0"
    assert load_model(f"python:{project}:signal").input_shape == (1, 64)


def test_unknown_preprocessing_is_a_warning(project: str) -> None:
    with pytest.warns(HeatproofWarning, match="Set mean, std to what"):
        model = load_model(f"python:{project}:small", size=32)
    assert model.mean == (0.5, 0.5, 0.5) and model.geometry.size == (32, 32)


def test_a_timm_model_from_a_function_brings_its_configuration(project: str) -> None:
    model = load_model("python:timm:create_model", model_args={"model_name": "resnet10t"})
    assert model.geometry.interpolation == "bicubic" and model.classes is not None


def test_functions_and_modules_that_do_not_exist(project: str) -> None:
    with pytest.raises(UnknownName, match="small"):
        load_model(f"python:{project}:smal")
    with pytest.raises(ModelError, match=r"There is no 'nowhere'"):
        load_model("python:nowhere.at.all:f")
    with pytest.raises(ModelError, match=r"python:package\.module:factory"):
        load_model("python:nowhere")
    with pytest.raises(ModelError, match=r"torch\.nn\.Module. Got str"):
        load_model(f"python:{project}:wrong")


def test_what_goes_wrong_inside_the_users_code_is_shown_as_it_is(project: str) -> None:
    with pytest.raises(ModelError, match=r"RuntimeError: .*of its own") as caught:
        load_model(f"python:{project}:broken")
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(ModuleNotFoundError, match="something_not_installed_here"):
        load_model(f"python:{project}_broken:f")


# --- shapes ---


def test_the_bundled_network_is_trained_and_complete() -> None:
    model = load_model("shapes", device="cpu")
    assert model.layers == Layers("stage4", ("stage1", "stage2", "stage3", "stage4"))
    assert model.classes is not None and len(model.classes) == 6
    grey = torch.full((1, 3, *model.geometry.size), 0.2)
    disc = grey.clone()
    height, width = model.geometry.size
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    disc[:, :, (rows - height // 2) ** 2 + (columns - width // 2) ** 2 < (0.2 * height) ** 2] = 0.9
    square = grey.clone()
    square[:, :, height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 0.9
    with torch.no_grad():
        found = model.logits(torch.cat([disc, square])).argmax(1)
    assert [model.classes[i] for i in found] == ["circle-filled", "square-filled"]


# --- hf: ---


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tiny_vit(transformers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=48,
        patch_size=8, id2label={0: "cat", 1: "dog", 2: "owl"}, label2id={"cat": 0, "dog": 1, "owl": 2},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).half().save_pretrained(folder)
    processor = transformers.ViTImageProcessor(
        size={"height": 48, "width": 48}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
    )
    processor.save_pretrained(folder)
    return folder


def test_a_vision_transformer_of_transformers(tiny_vit: Path) -> None:
    model = load_model(f"hf:{tiny_vit}", device="cpu")
    assert model.classes == ["cat", "dog", "owl"] and model.dtype == torch.float32
    assert model.mean == pytest.approx((0.4, 0.5, 0.6)) and model.std == pytest.approx((0.2, 0.3, 0.4))
    assert model.geometry == Geometry((48, 48), None, "bilinear")
    blocks = [name.removesuffix(".layernorm_before") for name in model.layers.stages]
    assert all(name.endswith(".layernorm_before") for name in model.layers.stages)
    assert [name.rpartition(".")[2] for name in blocks] == ["0", "1", "2", "3"]
    assert model.layers.last == model.layers.stages[-1]
    x = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        logits = model.logits(x)
        assert torch.equal(logits, model.module(pixel_values=model.normalise(x)).logits)
    assert logits.shape == (2, 3) and not torch.equal(logits[0], logits[1])


def test_a_residual_network_of_transformers(transformers, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    with pytest.warns(HeatproofWarning, match="mean 0.5, std 0.5 are assumed. Set mean, std to"):
        model = load_model(f"hf:{tmp_path}", size=(96, 64), device="cpu")
    assert model.classes is None
    assert [name.rpartition("stages.")[2] for name in model.layers.stages] == ["0", "1", "2", "3"]
    load_model(f"hf:{tmp_path}", mean=0.5, std=0.5)  # no warning: nothing was guessed


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViTImageProcessor", {"size": {"height": 48, "width": 40}, "resample": 3}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 48}, "crop_pct": 0.75}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        ("BitImageProcessor", {"size": {"shortest_edge": 60}, "crop_size": {"height": 48, "width": 48}}),
        ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 60}, "crop_size": {"height": 48, "width": 40}}),
        ("EfficientNetImageProcessor", {"size": {"height": 48, "width": 48}, "image_std": [0.3, 0.4, 0.5]}),
        ("EfficientNetImageProcessor", {"size": {"height": 48, "width": 48}, "include_top": False}),
    ],
)
def test_images_are_those_of_the_image_processor(kind, settings, transformers, photograph: Image.Image) -> None:
    from heatproof.models.huggingface import processor_preprocessing

    processor = getattr(transformers, kind)(**settings)
    found = processor_preprocessing(processor)
    theirs = processor(photograph, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.mean, found.std))
    ours = (found.geometry.image(photograph) - mean) / std
    assert ours.shape == theirs.shape
    # Their resizing may run in torch, which rounds a few pixels the other way.
    assert (ours - theirs).abs().max() <= 2.01 / 255 / min(found.std)


def test_a_processor_that_squashes_before_the_crop_is_a_warning(transformers) -> None:
    from heatproof.models.huggingface import processor_preprocessing

    with pytest.warns(HeatproofWarning, match="aspect is kept"):
        found = processor_preprocessing(transformers.DeiTImageProcessor())
    assert found.geometry == Geometry((224, 224), 256, "bicubic")


def test_a_backbone_without_a_head_is_refused(transformers, tiny_vit: Path, tmp_path: Path) -> None:
    transformers.ViTForImageClassification.from_pretrained(tiny_vit).vit.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"2 are missing \(classifier\.bias, classifier\.weight\)"):
        load_model(f"hf:{tmp_path}")


def test_a_checkpoint_goes_into_the_configured_model(transformers, tiny_vit: Path, tmp_path: Path) -> None:
    other = transformers.ViTForImageClassification(transformers.AutoConfig.from_pretrained(tiny_vit))
    torch.save({"state_dict": {f"module.{k}": v for k, v in other.state_dict().items()}}, tmp_path / "other.pt")
    loaded = load_model(f"hf:{tiny_vit}", checkpoint=tmp_path / "other.pt", device="cpu")
    assert torch.equal(loaded.module.classifier.weight, other.classifier.weight)


def test_a_folder_without_a_model_is_refused(transformers, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Expected an image classifier"):
        load_model(f"hf:{tmp_path}")


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'heatproof\[hf\]'"):
        load_model("hf:some/model")


# --- the real network ---


@pytest.mark.assets
def test_the_real_network_knows_the_photographs(assets: Path) -> None:
    """Ten photographs of the second ten classes; ImageNet's mean and deviation would cost twenty points."""
    import csv

    model = load_model(
        "timm:mobilenetv2_100",
        checkpoint=assets / "models" / "mobilenetv2_100_imagenet.safetensors",
        model_args={"pad_type": "same"},
        mean=0.5,
        std=0.5,
        device="cpu",
    )
    with (assets / "images" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[10:20]
    images = [model.geometry.image(Image.open(assets / "images" / row["file"]).convert("RGB")) for row in rows]
    with torch.no_grad():
        found = model.logits(torch.stack(images)).argmax(1).tolist()
    assert sum(i == int(row["class_index"]) for i, row in zip(found, rows, strict=True)) >= 8
    assert model.classes is not None
    named = [
        model.classes[i].lower() == row["name"].lower().partition(",")[0] for i, row in zip(found, rows, strict=True)
    ]
    assert sum(named) >= 7
    assert all(p.dtype == torch.float32 for p in model.module.parameters())
    assert isinstance(model.submodule("auto"), nn.Module) and model.layers.last == "bn2"

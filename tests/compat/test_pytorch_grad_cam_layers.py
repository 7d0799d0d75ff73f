"""Layers that give dicts, tuples or one position; eigen_smooth; modules and helpers of pytorch-grad-cam 1.5.7."""

import contextlib
import importlib
import io
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from heatproof.compat import pytorch_grad_cam as ours
from heatproof.errors import HeatproofWarning, InvalidInput, LayerError

from .. import nets
from .test_pytorch_grad_cam import both, part, run, turned

peer = pytest.importorskip("pytorch_grad_cam")

SIDE = 16


@pytest.fixture
def z():
    return 4 * nets.images(3, SIDE) - 2


@pytest.fixture
def signs(monkeypatch):
    """The peer's components, turned as ours are."""
    for module in ("base_cam", "eigen_cam", "fullgrad_cam"):
        home = importlib.import_module(f"pytorch_grad_cam.{module}")
        monkeypatch.setattr(home, "get_2d_projection", turned(home.get_2d_projection))


class Pyramid(nn.Module):
    """A layer that gives levels by name, as torchvision's detectors have it, and one that gives a tuple."""

    class Levels(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 5, 3, 2, 1)

        def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
            one = torch.tanh(self.one(x))
            return OrderedDict({"0": one, "pool": torch.tanh(self.two(one))})

    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return 2 * x, 7

    def __init__(self):
        super().__init__()
        self.levels, self.pair, self.head = self.Levels(), self.Pair(), nn.Linear(9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = self.levels(x)
        return self.head(torch.cat([levels["0"].mean((2, 3)), self.pair(levels["pool"])[0].mean((2, 3))], 1))


@pytest.mark.parametrize("name", ["EigenCAM", "ScoreCAM"])
def test_a_layer_of_levels_is_read_by_the_transform(name, z, signs):
    module = nets.seeded(Pyramid)

    def code(home):
        transform = part(home, ".utils.reshape_transforms").fasterrcnn_reshape_transform
        targets = [part(home, ".utils.model_targets").ClassifierOutputTarget(c) for c in (0, 4, 2)]
        cam = getattr(part(home), name)(model=module, target_layers=[module.levels], reshape_transform=transform)
        return cam(input_tensor=z, targets=targets)

    found, expected = both(code)
    np.testing.assert_allclose(found, expected, atol=1e-2 if name == "ScoreCAM" else 1e-4)
    first = getattr(ours, name)(module, [module.levels])(z)  # without it, the first level is read
    assert np.abs(first - found).max() > 0.1


def test_no_gradient_reaches_what_a_transform_makes_of_levels(z):
    module, transform = nets.seeded(Pyramid), part("ours", ".utils.reshape_transforms").fasterrcnn_reshape_transform
    for method in (ours.GradCAM, ours.AblationCAM):
        with pytest.raises(LayerError, match=r"'levels' is made of several tensors.* such as eigencam or scorecam"):
            method(module, [module.levels], transform)(z)
    with pytest.raises(InvalidInput, match="what Levels gives, a OrderedDict"):
        ours.EigenCAM(module, [module.levels], lambda levels: levels["none"])(z)


def test_a_tuple_keeps_its_gradients_where_the_transform_takes_its_tensor(z):
    module = nets.seeded(Pyramid)
    expected = ours.GradCAM(module, [module.pair])(z)
    np.testing.assert_array_equal(ours.GradCAM(module, [module.pair], lambda pair: pair[0])(z), expected)
    assert expected.any()


@pytest.mark.parametrize("name", ["GradCAM", "ScoreCAM", "AblationCAM", "EigenCAM", "KPCA_CAM", "FEM", "SegEigenCAM"])
@pytest.mark.parametrize("eigen_smooth", [False, True])
def test_a_layer_of_one_position_gives_zeros_with_a_warning(name, eigen_smooth):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Tanh(), nn.Flatten(), nn.Linear(4, 5))
    with pytest.warns(HeatproofWarning, match=f"{name}: zeros for image 0, 1: constant map"):
        maps = getattr(ours, name)(module, [module[1]])(2 * nets.images(2, 8) - 1, eigen_smooth=eigen_smooth)
    assert maps.shape == (2, 8, 8) and not maps.any()


@pytest.mark.parametrize("name", ["ScoreCAM", "AblationCAM"])
def test_eigen_smooth_without_gradients(name, z, signs):
    module = nets.seeded(nets.Plain)
    found, expected = both(lambda home: run(home, name, module, [module.two], z, eigen_smooth=True))
    np.testing.assert_allclose(found, expected, atol=1e-2 if name == "ScoreCAM" else 1e-3)


def test_eigen_smooth_of_fullgrad(signs):
    module, z = nets.seeded(nets.Plain), 4 * nets.images(2, 40) - 2
    found, expected = both(lambda home: run(home, "FullGrad", module, [], z, eigen_smooth=True))
    np.testing.assert_allclose(found, expected, atol=2e-2)


def test_eigen_smooth_of_refinecam(z):
    """The product of the smoothed maps. The peer hands `eigen_smooth` on as `aug_smooth`."""
    module = nets.seeded(nets.Signed)
    alone = [ours.LayerCAM(module, [layer])(z, eigen_smooth=True) for layer in (module.one, module.two)]
    expected = part("ours", ".utils.image").scale_cam_image(alone[0] * alone[1])
    found = ours.RefineCAM(module, [module.one, module.two], base_method=ours.LayerCAM)(z, eigen_smooth=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_eigen_smooth_of_shapleycam(z, signs):
    module = nets.seeded(nets.Signed)
    found, expected = both(lambda home: run(home, "ShapleyCAM", module, [module.two], z, eigen_smooth=True))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_segeigencam(z):
    module = nets.seeded(nets.Signed)
    found, expected = both(lambda home: run(home, "SegEigenCAM", module, [module.two], z))
    np.testing.assert_allclose(found, expected, atol=1e-4)


# --- modules and helpers ---


@pytest.mark.parametrize("name", ours.MODULES)
def test_the_modules_of_the_peer_are_here(name):
    found, theirs = importlib.import_module(f"heatproof.compat.pytorch_grad_cam.{name}"), part("peer", f".{name}")
    assert found is getattr(ours, name)
    for one in found.__all__:
        assert getattr(found, one) is getattr(ours, one) and hasattr(theirs, one)


def test_find_layers():
    module = nets.seeded(nets.Plain)
    mine, theirs = (part(home, ".utils.find_layers") for home in ("ours", "peer"))
    expected = theirs.find_layer_types_recursive(module, [nn.Conv2d, nn.ReLU])
    assert mine.find_layer_types_recursive(module, [nn.Conv2d, nn.ReLU]) == expected
    new, old = nn.Identity(), module.two[1]
    assert mine.replace_layer_recursive(module, old, new) and module.two[1] is new
    assert not mine.replace_layer_recursive(module, old, new)
    mine.replace_all_layer_type_recursive(module, nn.Conv2d, new)
    assert module.one[0] is module.two[0] is new


def test_projections_leave_their_argument_alone():
    mine, theirs = (part(home, ".utils.svd_on_activations") for home in ("ours", "peer"))
    given = np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)
    given[0, 1, 2, 2] = np.nan
    before = given.copy()
    for name in ("get_2d_projection", "get_2d_projection_kernel", "get_2d_projection_with_sign_correction"):
        found, expected = getattr(mine, name)(given), getattr(theirs, name)(given)
        assert found.dtype == np.float32
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)
    np.testing.assert_array_equal(given, before)


def test_boxes_found_again():
    outputs = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 32]], dtype=torch.float64),
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.9, 0.6], dtype=torch.float64),
    }
    boxes = [np.array([1.0, 0, 10, 10]), np.array([20.0, 20, 30, 30]), np.array([50.0, 50, 60, 60])]
    found, expected = (
        part(home, ".utils.model_targets").FasterRCNNBoxScoreTarget([1, 3, 1], boxes)(outputs)
        for home in ("ours", "peer")
    )
    torch.testing.assert_close(found, expected)
    assert found.dtype == torch.float64 and float(found) == pytest.approx(1.8)


def test_edges_of_an_image():
    image = np.random.default_rng(0).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    found, expected = (part(home, ".sobel_cam").sobel_cam(image) for home in ("ours", "peer"))
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 3  # grey is rounded otherwise


def test_feature_factorization(z):
    module = nets.seeded(nets.Plain)

    def code(home):
        factorization = part(home, ".feature_factorization.deep_feature_factorization").DeepFeatureFactorization
        with torch.no_grad():
            return factorization(module, module.two, computation_on_concepts=module.head)(z, 3)

    (concepts, maps, outputs), expected = both(code)
    for found, theirs in zip((concepts, np.stack(maps), outputs), expected, strict=True):
        np.testing.assert_allclose(found, np.stack(theirs), rtol=1e-2, atol=1e-3)


def test_concepts_in_colour():
    rng = np.random.default_rng(0)
    rgb, maps = rng.random((9, 7, 3)), rng.random((3, 9, 7))
    colours = [np.array(colour) for colour in ([1.0, 0, 0], [0, 1.0, 0.5], [0.2, 0.2, 1.0])]
    found, expected = (
        part(home, ".utils.image").show_factorization_on_image(rgb, maps.copy(), colours, 0.3)
        for home in ("ours", "peer")
    )
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - expected).max() <= 4  # OpenCV's hues have 180 steps
    mine = part("ours", ".utils.image")
    labelled = mine.show_factorization_on_image(rgb, maps, colours, 0.3, ["a", "b", "c"])
    np.testing.assert_array_equal(labelled[:, :7], found)
    assert labelled.shape == (9, 14, 3) and labelled[:, 7:].std() > 0
    legends = [part(h, ".utils.image").create_labels_legend(rng.permuted(np.eye(3)), {0: "a,b,c,d", 1: "e", 2: "f"}, 1)
               for h in ("ours",)]  # fmt: skip
    assert sorted(legends[0]) == ["a,b,c:1.00", "e:1.00", "f:1.00"]


def test_a_factorized_image_beside_itself():
    from PIL import Image

    module = nets.seeded(nets.Plain)
    module.config = type("Config", (), {"id2label": {i: f"class {i}" for i in range(5)}})()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    z = 2 * nets.images(1, SIDE)[0] - 1
    with contextlib.redirect_stdout(io.StringIO()):
        found = ours.run_dff_on_image(module, module.two, module.head, photo, z, n_components=2)
    _, maps, _ = ours.DeepFeatureFactorization(module, module.two, computation_on_concepts=module.head)(z[None], 2)
    shown = part("ours", ".utils.image").show_factorization_on_image(np.asarray(photo) / 255, maps[0], image_weight=0.3)
    np.testing.assert_array_equal(found[:, : 2 * SIDE], np.hstack((np.asarray(photo), shown)))
    assert found.shape == (SIDE, 3 * SIDE, 3)


def test_channels_are_scaled_by_themselves():
    maps = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)
    found, expected = (
        part(home, ".utils.image").scale_accross_batch_and_channels(maps.copy(), (7, 6)) for home in ("ours", "peer")
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)

"""The same user code on pytorch-grad-cam 1.5.7 and on heatproof's adapter gives the same maps."""

import contextlib
import importlib
import io

import numpy as np
import pytest
import torch
from torch import nn

from heatproof.attributions import ATTRIBUTIONS
from heatproof.compat import pytorch_grad_cam as ours
from heatproof.compat.pytorch_grad_cam.utils import image, model_targets
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidTarget, LayerError, NotApplicable, UnknownName

from .. import nets

peer = pytest.importorskip("pytorch_grad_cam")
peer_image = importlib.import_module("pytorch_grad_cam.utils.image")

SIDE = 16
#: The peer upsamples Score-CAM's masks from corner to corner.
LOOSE = {"ScoreCAM": 1e-2}
HOMES = {"peer": "pytorch_grad_cam", "ours": "heatproof.compat.pytorch_grad_cam"}


def part(home: str, name: str = ""):
    """A module of the peer or of the adapter; user code differs by nothing else."""
    return importlib.import_module(HOMES[home] + name)


def both(code) -> tuple[np.ndarray, np.ndarray]:
    """What the same function gives with each package; the peer prints and draws bars."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return code("ours"), code("peer")


def run(home: str, name: str, net: nn.Module, layers, z, targets="classes", **call) -> np.ndarray:
    """What a user writes."""
    kinds = part(home, ".utils.model_targets")
    if targets == "classes":
        targets = [kinds.ClassifierOutputTarget(c) for c in (0, 4, 2)[: len(z)]]
    elif callable(targets):
        targets = targets(kinds)
    with getattr(part(home), name)(model=net, target_layers=layers) as cam:
        return cam(input_tensor=z, targets=targets, **call)


@pytest.fixture
def z():
    return 4 * nets.images(3, SIDE) - 2


def needs(name: str) -> None:
    method = getattr(ours, name).method.removeprefix("refine:")
    if method not in ATTRIBUTIONS:
        pytest.skip(f"{method} is not there yet")


# --- agreement ---


@pytest.mark.parametrize("name", ["GradCAM", "GradCAMPlusPlus", "HiResCAM", "XGradCAM", "LayerCAM",
                                  "GradCAMElementWise", "FEM", "AblationCAM", "ScoreCAM"])  # fmt: skip
@pytest.mark.parametrize(("net", "layer"), [(nets.Plain, "one"), (nets.Plain, "two"), (nets.Signed, "two")])
def test_the_same_maps(name, net, layer, z):
    if name == "AblationCAM" and net is nets.Signed:
        pytest.skip("where a layer has negative values, the peer sets channels to -1e7 and not to 0")
    needs(name)
    module = nets.seeded(net)
    found, expected = both(lambda home: run(home, name, module, [getattr(module, layer)], z))
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=LOOSE.get(name, 1e-5))


def turned(project):
    """The peer's projections, turned as ours are: to what is projected, summed over the channels."""

    def of(activations, *settings):
        found, sums = project(activations, *settings), np.asarray(activations).sum(1)
        centred = sums - sums.mean((1, 2), keepdims=True)
        return np.where((found * centred).sum((1, 2), keepdims=True) < 0, -found, found)

    return of


@pytest.fixture
def signs(monkeypatch):
    for module in ("base_cam", "eigen_cam", "eigen_grad_cam", "hirescam", "layer_cam", "grad_cam_elementwise"):
        home = importlib.import_module(f"pytorch_grad_cam.{module}")
        monkeypatch.setattr(home, "get_2d_projection", turned(home.get_2d_projection))
    home = importlib.import_module("pytorch_grad_cam.kpca_cam")
    monkeypatch.setattr(home, "get_2d_projection_kernel", turned(home.get_2d_projection_kernel))


@pytest.mark.parametrize("name", ["EigenCAM", "EigenGradCAM", "KPCA_CAM"])
def test_principal_components_agree_up_to_their_sign(name, z, signs):
    module = nets.seeded(nets.Signed)
    found, expected = both(lambda home: run(home, name, module, [module.two], z))
    np.testing.assert_allclose(found, expected, atol=2e-3 if name == "KPCA_CAM" else 1e-4)


@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM", "GradCAMPlusPlus"])
def test_several_layers_are_averaged(name, z):
    module = nets.seeded(nets.Signed)
    layers = [module.one, module.two, module.three, module.two]
    found, expected = both(lambda home: run(home, name, module, layers, z))
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_no_target_is_the_predicted_class(z):
    module = nets.seeded(nets.Signed)
    found, expected = both(lambda home: run(home, "GradCAM", module, [module.two], z, None))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_outputs_are_the_logits(z):
    module = nets.seeded(nets.Signed)
    cam = ours.GradCAM(module, [module.two])
    cam(z)
    torch.testing.assert_close(cam.outputs, module(z).detach())


@pytest.mark.parametrize(
    "kinds",
    [
        lambda k: [k.ClassifierOutputSoftmaxTarget(c) for c in (1, 1, 3)],
        lambda k: [k.ClassifierOutputReST(c) for c in (1, 2, 3)],
        lambda k: [k.ClassifierOutputTarget(1), k.ClassifierOutputSoftmaxTarget(2), k.ClassifierOutputReST(0)],
        lambda k: [lambda row: row[0] - row[3]] * 3,
        lambda k: [k.FinerWeightedTarget(c, [1, 4], 0.6) for c in (0, 2, 3)],
    ],
)
@pytest.mark.parametrize("name", ["GradCAM", "AblationCAM", "ScoreCAM"])
def test_targets_of_any_kind(name, kinds, z):
    needs(name)
    module = nets.seeded(nets.Signed if name == "GradCAM" else nets.Plain)
    found, expected = both(lambda home: run(home, name, module, [module.two], z, kinds))
    np.testing.assert_allclose(found, expected, atol=LOOSE.get(name, 5e-5))


def test_the_peers_own_targets_are_understood(z):
    module = nets.seeded(nets.Signed)
    theirs = [peer.utils.model_targets.ClassifierOutputTarget(c) for c in (0, 4, 2)]
    mixed = ours.GradCAM(module, [module.two])(z, theirs)
    np.testing.assert_array_equal(mixed, run("ours", "GradCAM", module, [module.two], z))
    assert model_targets.class_and_output(theirs[1]) == (4, "logit")


@pytest.mark.parametrize("category", [0, 1])
@pytest.mark.parametrize(
    "target",
    [
        lambda k, c: k.BinaryClassifierOutputTarget(c),
        lambda k, c: k.RawScoresOutputTarget(),
        lambda k, c: k.ClassifierOutputTarget(0),
        None,
    ],
)
def test_one_logit(target, category, z):
    module = nets.seeded(lambda: nets.Signed(classes=1))
    chosen = None if target is None else lambda k: [target(k, category)] * 3
    found, expected = both(lambda home: run(home, "GradCAM", module, [module.two], z, chosen))
    np.testing.assert_allclose(found, expected, atol=1e-4)


class Dense(nn.Module):
    """Classes at every place."""

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.two = nn.Conv2d(6, 5, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(self.two(self.one(x)), size=x.shape[2:])


@pytest.mark.parametrize("name", ["GradCAM", "AblationCAM"])
def test_segmentation(name, z):
    module, mask = nets.seeded(Dense), np.zeros((SIDE, SIDE), np.float32)
    mask[3:9, 4:12] = 1
    kinds = lambda k: [k.SemanticSegmentationTarget(c, mask) for c in (0, 2, 4)]  # noqa: E731
    found, expected = both(lambda home: run(home, name, module, [module.one], z, kinds))
    np.testing.assert_allclose(found, expected, atol=LOOSE.get(name, 5e-5))


@pytest.mark.parametrize("kind", ["ClassifierOutputTarget", "ClassifierOutputReST", "ClassifierOutputSoftmaxTarget"])
def test_shapleycam(kind, z):
    module = nets.seeded(nets.Signed)
    kinds = lambda k: [getattr(k, kind)(c) for c in (0, 4, 2)]  # noqa: E731
    found, expected = both(lambda home: run(home, "ShapleyCAM", module, [module.two], z, kinds))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_fullgrad(z):
    """On a ReLU network; the shares of curved functions, which the peer leaves out, are ours alone."""
    module = nets.seeded(nets.Plain)
    found, expected = both(lambda home: run(home, "FullGrad", module, [], z))
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_finercam(z):
    module = nets.seeded(nets.Signed)
    found, expected = both(lambda home: run(home, "FinerCAM", module, [module.two], z, None, alpha=0.6))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    found, expected = both(
        lambda home: run(home, "FinerCAM", module, [module.two], z, None, target_idx=3, comparison_categories=[1, 2])
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    found, expected = both(lambda home: run(home, "FinerCAM", module, [module.two], z))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_refinecam(z):
    module = nets.seeded(nets.Signed)

    def code(home):
        kinds = part(home, ".utils.model_targets")
        cam = part(home).RefineCAM(module, [module.one, module.two], base_method=part(home).LayerCAM)
        return cam(z, [kinds.ClassifierOutputTarget(c) for c in (0, 4, 2)])

    np.testing.assert_allclose(*both(code), atol=1e-4)


@pytest.mark.parametrize("name", ["GradCAM", "GradCAMPlusPlus", "LayerCAM"])
def test_aug_smooth(name, z):
    module = nets.seeded(nets.Signed)
    found, expected = both(lambda home: run(home, name, module, [module.two], z, aug_smooth=True))
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(
    "name", ["GradCAM", "GradCAMPlusPlus", "XGradCAM", "LayerCAM", "HiResCAM", "GradCAMElementWise"]
)
def test_eigen_smooth(name, z, signs):
    module = nets.seeded(nets.Signed)
    found, expected = both(lambda home: run(home, name, module, [module.two], z, eigen_smooth=True))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_eigen_smooth_with_targets_of_ones_own(z):
    module = nets.seeded(nets.Signed)
    rows = [lambda row: row[0]] * 3
    one, two = (
        ours.GradCAM(module, [module.two])(z, targets, eigen_smooth=True)
        for targets in (rows, [model_targets.ClassifierOutputTarget(0)] * 3)
    )
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_volumes():
    """Three spatial dimensions; the peer resizes by splines, so the shapes and the best place are compared."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Conv3d(2, 5, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
                           nn.Linear(5, 5)).eval()  # fmt: skip
    z = torch.randn(2, 2, 6, 5, 4)
    found, expected = both(lambda home: run(home, "GradCAM", module, [module[1]], z))
    assert found.shape == (2, 6, 5, 4)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-4)


# --- what users lean on ---


def test_reshape_transforms():
    tokens = torch.randn(2, 1 + 6, 5)
    theirs = importlib.import_module("pytorch_grad_cam.utils.reshape_transforms")
    mine = importlib.import_module("heatproof.compat.pytorch_grad_cam.utils.reshape_transforms")
    torch.testing.assert_close(mine.vit_reshape_transform(tokens, 3, 2), theirs.vit_reshape_transform(tokens, 3, 2))
    torch.testing.assert_close(
        mine.swinT_reshape_transform(tokens[:, 1:], 3, 2), theirs.swinT_reshape_transform(tokens[:, 1:], 3, 2)
    )


def test_tokens_need_no_transform():
    module = nets.seeded(nets.vit)
    z = 2 * nets.images(2, 32) - 1
    transform = lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))  # noqa: E731
    layer = module.blocks[-1].norm1
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = peer.GradCAM(module, [layer], reshape_transform=transform)(z, None)
    with_it = ours.GradCAM(module, [layer], reshape_transform=transform)(z)
    np.testing.assert_array_equal(with_it, ours.GradCAM(module, [layer])(z))
    np.testing.assert_allclose(with_it, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(2, (2, 8)), "read as 4×4.* would give 2×8"),
        (lambda tokens: tokens[:, 1:].reshape(2, 14, 14, -1), "would give RuntimeError"),
    ],
)
def test_a_transform_to_another_grid_is_said(transform, said):
    module = nets.seeded(nets.vit)
    with pytest.warns(HeatproofWarning, match=said):
        ours.GradCAM(module, [module.blocks[-1].norm1], transform)(2 * nets.images(2, 32) - 1)


def test_nothing_is_left_in_the_model(z):
    module = nets.seeded(nets.Failing)
    before = nets.traces(module)
    cam = ours.GradCAM(module, [module.layer], reshape_transform=lambda a: a)
    cam(z)
    assert nets.traces(module) == before
    module.fails = "after"
    with pytest.raises(FloatingPointError), ours.LayerCAM(module, [module.layer]) as cam:
        cam(z, [lambda row: row[0]] * 3)
    assert nets.traces(module) == before


def test_errors_in_the_block_come_out(z):
    """The peer prints an IndexError and swallows it."""
    module = nets.Plain()
    with pytest.raises(IndexError), ours.GradCAM(module, [module.one]):
        raise IndexError


def test_one_forward_pass(z):
    module = nets.seeded(nets.Failing)
    for passes in (3, 4):  # two of the probe, once for each network
        ours.GradCAM(module, [module.layer])(z, [model_targets.ClassifierOutputTarget(1)] * 3)
        assert module.passes == passes


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([model_targets.ClassifierOutputTarget(0)], "one target for each of the 3 images. Got 1"),
        ([model_targets.ClassifierOutputTarget(0)] * 4, "Got 4"),
        ([], "Got 0"),
        (model_targets.ClassifierOutputTarget(0), "must be a list with one target"),
        ([0, 1, 2], "must be a list with one target"),
        ([model_targets.ClassifierOutputTarget(5)] * 3, r"0 … 4"),
        ([model_targets.RawScoresOutputTarget()] * 3, r"must give one number.*Got \(5,\)"),
        ([lambda row: 3.0] * 3, "Got float"),
    ],
)
def test_wrong_targets(targets, said, z):
    module = nets.seeded(nets.Plain)
    with pytest.raises(InvalidTarget, match=said):
        ours.GradCAM(module, [module.two])(z, targets)


def test_the_peer_gives_zeros_for_missing_targets(z):
    module = nets.seeded(nets.Signed)
    with contextlib.redirect_stderr(io.StringIO()):
        maps = peer.GradCAM(module, [module.two])(z, [peer.utils.model_targets.ClassifierOutputTarget(0)])
    assert maps[0].max() > 0.9
    assert not maps[1:].any()


def test_maps_of_zeros_are_said(z):
    module = nets.seeded(nets.Plain)
    nn.init.zeros_(module.two[0].weight), nn.init.zeros_(module.two[0].bias)
    with pytest.warns(HeatproofWarning, match="GradCAM: zeros for image 0, 1, 2: constant map"):
        assert not ours.GradCAM(module, [module.two])(z).any()


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (lambda m: ours.GradCAM(m, m.two[0]), InvalidInput, r"write \[module\]"),
        (lambda m: ours.GradCAM(m, []), InvalidInput, "at least one module"),
        (lambda m: ours.GradCAM(m, [nn.ReLU()]), LayerError, "part of Plain"),
        (lambda m: ours.GradCAM("m", [m.two]), InvalidInput, "must be a torch.nn.Module"),
        (lambda m: ours.GradCAM(m, [m.two], power=0.5), InvalidInput, "`power` rescales .* display maps"),
        (lambda m: ours.GradCAM(m, [m.two], ep=1), UnknownName, "option of 'gradcam'"),
        (lambda m: ours.AblationCAM(m, [m.two], ratio_channels_to_ablate=0.5), NotApplicable, "must be 1"),
        (lambda m: ours.RefineCAM(m, [m.two]), InvalidInput, "at least two target layers"),
        (lambda m: ours.FinerCAM(m, [m.two], base_method=ours.EigenCAM), InvalidInput, "`base_method`"),
        (lambda m: ours.SESS, UnknownName, "heatproof has no SESS: take RefineCAM"),
        (lambda m: ours.FinerCAM(m, [m.two])(torch.rand(1, 3, 8, 8), eigen_smooth=True), NotApplicable, "eigen"),
        (lambda m: ours.GradCAM(m, [m.two])(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), InvalidInput, "uint8"),
        (lambda m: ours.GradCAM(m, [m.two])(np.zeros((1, 3, 8, 8))), InvalidInput, "Got ndarray"),
    ],
)
def test_what_cannot_be(code, error, said):
    with pytest.raises(error, match=said):
        code(nets.seeded(nets.Plain))


def test_corrected_formulas_are_an_option_away(z):
    module = nets.seeded(nets.Signed)
    theirs, right = (ours.GradCAMPlusPlus(module, [module.two], **o)(z) for o in ({}, {"compat": False}))
    assert np.abs(theirs - right).max() > 1e-3


# --- images ---


@pytest.mark.parametrize("use_rgb", [True, False])
@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_show_cam_on_image(use_rgb, weight):
    rng = np.random.default_rng(0)
    rgb, mask = rng.random((9, 7, 3)).astype(np.float32), rng.random((9, 7)).astype(np.float32)
    mask.flat[:5] = [0, 1, 0.5, 254.5 / 255, 1e-3]
    found, expected = (m.show_cam_on_image(rgb, mask, use_rgb, image_weight=weight) for m in (image, peer_image))
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1  # OpenCV's table of jet rounds halves either way


@pytest.mark.parametrize("number", image.COLORMAPS)
def test_colour_maps_are_opencvs(number):
    rgb, mask = np.zeros((16, 16, 3), np.float32), (np.arange(256) / 255 + 1e-6).clip(0, 1).reshape(16, 16)
    found, expected = (m.show_cam_on_image(rgb, mask, True, number, 0.0) for m in (image, peer_image))
    assert np.abs(found.astype(int) - expected).max() <= 3


def test_colour_maps_by_name():
    rgb, mask = np.zeros((4, 4, 3), np.float32), np.linspace(0, 1, 16).reshape(4, 4)
    by_name, by_number = (image.show_cam_on_image(rgb, mask, colormap=c) for c in ("viridis", 16))
    np.testing.assert_array_equal(by_name, by_number)
    with pytest.raises(UnknownName, match="'viridis'"):
        image.show_cam_on_image(rgb, mask, colormap="viridi")
    with pytest.raises(InvalidInput, match=r"in \[0, 1\]"):
        image.show_cam_on_image(rgb + 2, mask)
    with pytest.raises(InvalidInput, match="image_weight"):
        image.show_cam_on_image(rgb, mask, image_weight=2)


def test_small_helpers():
    rng = np.random.default_rng(0)
    bytes_, floats = rng.integers(0, 255, (5, 4, 3), dtype=np.uint8), rng.random((5, 4, 3)).astype(np.float32)
    for rgb in (bytes_, floats):
        mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
        torch.testing.assert_close(image.preprocess_image(rgb, mean, std), peer_image.preprocess_image(rgb, mean, std))
    np.testing.assert_array_equal(image.deprocess_image(floats), peer_image.deprocess_image(floats))
    maps = rng.standard_normal((3, 5, 4)).astype(np.float32)
    for size in (None, (9, 11)):
        np.testing.assert_allclose(image.scale_cam_image(maps, size), peer_image.scale_cam_image(maps, size), atol=1e-5)


def test_guided_backprop():
    if "guided-backprop" not in ATTRIBUTIONS:
        pytest.skip("not there yet")
    module = nets.seeded(nets.Plain)
    z = 2 * nets.images(1, SIDE) - 1
    found, expected = both(lambda home: part(home).GuidedBackpropReLUModel(module, "cpu")(z.clone(), 2))
    np.testing.assert_allclose(found, expected, atol=1e-5)

"""torchcam 0.5.0 beside its plain CAMs, extractors, scores and reports: its numbers, or a stated difference."""

import importlib
import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from heatproof.compat.torchcam import methods as ours
from heatproof.compat.torchcam import metrics as our_metrics
from heatproof.errors import InvalidInput, InvalidTarget, InvalidType, LayerError, NotApplicable, UnknownName

from .. import nets
from .test_torchcam import agree, run

peer = pytest.importorskip("torchcam.methods")
their_metrics = importlib.import_module("torchcam.metrics")

SIDE = 16
SOFTMAX = partial(torch.softmax, dim=-1)


@pytest.fixture
def z():
    return 4 * nets.images(3, SIDE) - 2


def extracted(library, name, module, layer, z, classes, scores=lambda output: output, **options):
    """Maps by an extractor with options; `scores` makes what it is given of the output."""
    call = options.pop("call", {})
    with getattr(library, name)(module, layer, **options) as extractor:
        return [cam.detach() for cam in extractor(classes, scores(module(z)), **call)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ISCAM", {"num_samples": 4}),
        ("SSCAM", {"num_samples": 2, "std": 1e-6}),  # the draws are not the peer's
        ("SmoothGradCAMpp", {"num_samples": 1, "std": 1e-7}),  # of several, the peer weighs by the last gradient alone
    ],
)
def test_noise_and_integration(name, options, z):
    module = nets.seeded(nets.Plain)
    found, expected = (extracted(library, name, module, "two", z, [0, 4, 2], **options) for library in (ours, peer))
    agree(found, expected, 5e-3)  # theirs scales masks before it upsamples them, and adds an epsilon below α


def test_noise_moves_the_map_and_is_the_same_in_every_call(z):
    module = nets.seeded(nets.Signed)
    still, first, again = (
        extracted(ours, "SmoothGradCAMpp", module, "two", z, 1, std=std)[0] for std in (0.0, 0.5, 0.5)
    )
    assert torch.equal(first, again) and not torch.allclose(first, still, atol=1e-2)


@pytest.mark.parametrize("base", ["GradCAM", "LayerCAM"])
@pytest.mark.parametrize("comparison", [None, 3, [1, 3], [[1, 2], [3, 0], [4, 1]]])
def test_finercam(base, comparison, z):
    module = nets.seeded(nets.Signed)
    found, expected = (
        extracted(library, "FinerCAM", module, "two", z, [0, 4, 2], base_method=getattr(library, base),
                  call={"comparison_idx": comparison})
        for library in (ours, peer)
    )  # fmt: skip
    agree(found, expected)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"gamma": -1.0}, InvalidInput, "non-negative"),
        ({"gamma": True}, InvalidType, "real number"),
        ({"base_method": ours.ScoreCAM}, TypeError, "GradCAMpp, or LayerCAM"),
        ({"call": {"comparison_idx": [4, 4]}}, InvalidTarget, "duplicates"),
        ({"call": {"comparison_idx": [0]}}, InvalidTarget, "target class"),
        ({"call": {"comparison_idx": 9}}, InvalidTarget, "out-of-range"),
        ({"scores": lambda output: output[:, :1]}, InvalidInput, "comparison class"),
    ],
)
def test_what_finercam_refuses(options, error, said, z):
    with pytest.raises(error, match=said):
        extracted(ours, "FinerCAM", nets.seeded(nets.Plain), "two", z, 0, **options)


@pytest.mark.parametrize("name", ["GradCAM", "LayerCAM", "XGradCAM", "FinerCAM"])
@pytest.mark.parametrize("layers", ["two", ["one", "two"]])
def test_scores_made_of_the_output_are_explained_through_their_graph(name, layers, z):
    module = nets.seeded(nets.Signed)
    found, expected, plain = (
        extracted(library, name, module, layers, z, [0, 4, 2], scores)
        for library, scores in ((ours, SOFTMAX), (peer, SOFTMAX), (ours, lambda output: output))
    )
    agree(found, expected)
    assert not torch.allclose(found[0], plain[0], atol=1e-3)


def test_scores_without_a_graph_must_be_the_output(z):
    module = nets.seeded(nets.Plain)
    with pytest.raises(InvalidInput, match="must be the model's output, or be made from it with gradients"):
        extracted(ours, "GradCAM", module, "two", z, 1, lambda output: output.detach().softmax(1))
    with pytest.raises(LayerError, match="not connected to every target layer"):
        extracted(ours, "GradCAM", module, "two", z, 1, lambda output: torch.ones_like(output, requires_grad=True))


@pytest.mark.parametrize("name", ["GradCAM", "GradCAMpp", "LayerCAM", "XGradCAM"])
def test_scores_with_a_graph_need_no_pass_of_their_own(name, z):
    """As many passes as the peer's; the same maps without a graph, in training mode, and from an equal other pass."""
    module = nets.Counted(nets.seeded(nets.Signed)).eval()
    layers = ["inner.one", "inner.two"]
    with getattr(ours, name)(module, layers) as extractor:
        scores = module(z)
        before = module.calls
        found = extractor([0, 4, 2], scores)
        assert module.calls == before
        module(z)
        agree(extractor([0, 4, 2], scores), found)
        with torch.inference_mode():
            scores = module(z)
        agree(extractor([0, 4, 2], scores), found)


@pytest.mark.parametrize("scored", [lambda output: output, SOFTMAX])
def test_a_layer_whose_output_the_next_one_overwrites(scored, z):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()
    apart = nn.Sequential(*module[:2], nn.ReLU(), *module[3:])
    for name in ("GradCAM", "LayerCAM"):
        found, expected = (extracted(ours, name, one, "1", z, [0, 4, 2], scored) for one in (module, apart))
        agree(found, expected, 1e-6)


def test_autocast_gives_float32_maps_by_the_graph(z):
    module = nets.seeded(nets.Signed)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = extracted(ours, "GradCAM", module, "two", z, [0, 4, 2])
    agree([found], extracted(ours, "GradCAM", module, "two", z, [0, 4, 2]), 0.05)
    assert found.dtype == torch.float32


# --- CAM: heads, dtypes ---


def _with_head(head: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), *head, nn.Flatten()).eval()


@pytest.mark.parametrize(
    ("head", "fc_layer"),
    [
        ([nn.Flatten(), nn.Linear(6, 1)], "4"),
        ([nn.Conv2d(6, 5, 1)], "3"),
        ([nn.Conv2d(6, 1, 1)], "3"),
    ],
)
def test_cam_of_one_logit_and_of_a_convolution_as_head(head, fc_layer, z):
    module = _with_head(head)
    found, expected = (
        extracted(library, "CAM", module, "1", z, 0, fc_layer=fc_layer, call={"normalized": False})
        for library in (ours, peer)
    )
    agree(found, expected)


@pytest.mark.parametrize("name", ["GradCAM", "ScoreCAM", "CAM", "LayerCAM"])
def test_float64_is_kept(name, z):
    module = nets.seeded(nets.Plain).double()
    found, expected = (run(library, name, module, "two", z.double(), 1) for library in (ours, peer))
    assert found[0].dtype == torch.float64
    agree(found, expected, 5e-3 if name == "ScoreCAM" else 1e-4)


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (lambda m: ours.CAM(m, ["one", "two"]), InvalidInput, "one target layer. Got 2"),
        (lambda m: ours.CAM(m, "two", fc_layer=3), TypeError, "`fc_layer` must be a name"),
        (lambda m: ours.GradCAM(m, 3), TypeError, "`target_layer` must be a name"),
        (lambda m: ours.GradCAM(m, "two", reshape_transform=1), TypeError, "must be a function"),
        (lambda m: ours.GradCAM(m, reshape_transform=lambda t: t), InvalidInput, "needs the layers"),
        (lambda m: ours.RefineCAM(m, ["one", "two"], base_method=nn.ReLU), TypeError, "CAM extractor class"),
        (lambda m: ours.GradCAM(m, "two")(1), AssertionError, "Run the model"),
        (lambda m: ours.LayerCAM.fuse_cams(torch.ones(1, 2, 2)), TypeError, "list of tensors"),
        (lambda m: ours.LeGrad(m, "two"), InvalidInput, "`score_projection` is needed"),
    ],
)
def test_errors_have_the_types_of_the_peers(code, error, said):
    with pytest.raises(error, match=said):
        code(nets.seeded(nets.Plain))


def test_what_extractors_say_of_themselves():
    module = nets.seeded(nets.Plain)
    said = [
        (name, options, [repr(getattr(library, name)(module, layers, **options)) for library in (ours, peer)])
        for name, layers, options in (
            ("SmoothGradCAMpp", "two", {}),
            ("SSCAM", "two", {"num_samples": 3}),
            ("RefineCAM", ["one", "two"], {}),
            ("FinerCAM", "two", {}),
        )
    ]
    assert all(mine == theirs for _, _, (mine, theirs) in said)


# --- LeGrad ---


def vision_transformer() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    model = VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)
    nn.init.normal_(model.heads.head.weight)
    return model.eval()


@pytest.mark.parametrize("blocks", [[2], [0, 2]])
def test_legrad(blocks):
    module, z = vision_transformer(), 2 * nets.images(2, 32) - 1
    layers = [module.encoder.layers[i] for i in blocks]
    found, expected = (
        extracted(library, "LeGrad", module, layers, z, [1, 3], call={"normalized": False}) for library in (ours, peer)
    )
    agree(found, expected)
    assert found[0].shape == (2, 4, 4) and nets.traces(module) == nets.traces(vision_transformer())


def test_legrad_of_other_transformers_and_what_it_refuses():
    module, z = nets.seeded(nets.vit), 2 * nets.images(2, 32) - 1
    project = lambda tokens: module.head(module.norm(tokens)[:, 0])  # noqa: E731

    def code(layer=None, **options):
        named = {"score_projection": project, **options}
        return extracted(ours, "LeGrad", module, layer or module.blocks[-1], z, 1, **named)

    assert code()[0].shape == (2, 4, 4) and float(code()[0].max()) == 1
    with pytest.raises(InvalidInput, match="does not match the 16 patches"):
        code(grid_shape=(2, 7))
    with pytest.raises(InvalidInput, match="square patch grid"):
        code(prefix_tokens=2)
    with pytest.raises(LayerError, match="not connected to its attention"):
        code(score_projection=lambda tokens: project(tokens.detach()))
    with pytest.raises(NotApplicable, match="Got 0 in"):
        code(layer=module.blocks[-1].mlp)
    with pytest.raises(TypeError, match="'norm', a LayerNorm, has no self_attention"):
        code(layer=module.norm)
    with ours.LeGrad(module, module.blocks[-1], score_projection=project) as extractor:
        module(z)
        with pytest.raises(InvalidInput, match="does not support `targets`"):
            extractor(targets=lambda row: row[0])


class Block(nn.Module):
    """Attention of `shift`ed tokens, and tokens that `tokens` makes of its output."""

    def __init__(self, shift: int = 0, tokens=lambda found: found, **options):
        super().__init__()
        self.attend = nn.MultiheadAttention(24, 2, batch_first=options.pop("batch_first", True), **options)
        self.shift, self.tokens = shift, tokens

    def forward(self, x):
        others = x.roll(self.shift, 1) if self.shift else x
        return self.tokens(x + self.attend(x, others, others, need_weights=False)[0])


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Block(add_zero_attn=True), "does not support added attention tokens"),
        (lambda: Block(add_bias_kv=True), "does not support added attention tokens"),
        (lambda: Block(kdim=4, vdim=4), "24, 4 and 4 dimensions"),
        (lambda: Block(batch_first=False), "batch_first=True"),
        (lambda: Block(shift=1), "explains self-attention"),
        (lambda: Block(tokens=lambda found: found.mean(1)), "must return tokens"),
    ],
)
def test_blocks_that_legrad_refuses(made, said):
    """By their settings or while the user's model runs: before a map of the wrong thing is made."""
    module, z = nets.seeded(nets.vit), 2 * nets.images(2, 32) - 1
    module.blocks[1] = made().eval()
    before = nets.traces(module)
    with pytest.raises(InvalidInput, match=said):
        extracted(ours, "LeGrad", module, module.blocks[1], z, 1, score_projection=lambda tokens: tokens[:, 0])
    assert nets.traces(module) == before


@pytest.mark.parametrize(
    ("name", "options"),
    [("LeGrad", {}), ("CAM", {"fc_layer": "nope"}), ("FinerCAM", {"gamma": -1})],
)
def test_what_is_refused_leaves_the_network_as_it_was(name, options):
    module = nets.seeded(nets.Signed)
    before = nets.traces(module)
    with pytest.raises((InvalidInput, UnknownName)):
        getattr(ours, name)(module, "two", **options)
    assert nets.traces(module) == before
    module(torch.rand(1, 3, SIDE, SIDE))


def test_legrad_refuses_cross_attention_that_it_did_not_watch():
    module, z = nets.seeded(nets.vit), 2 * nets.images(2, 32) - 1
    module.blocks[1] = Block().eval()
    project = lambda tokens: module.head(module.norm(tokens)[:, 0])  # noqa: E731
    with ours.LeGrad(module, module.blocks[1], score_projection=project) as extractor:
        scores = module(z)
        assert extractor(1, scores)[0].shape == (2, 4, 4)
        module.blocks[1].shift = 1
        with pytest.raises(NotApplicable, match="attends to other tokens"):
            extractor(1, scores)


# --- scores ---


@pytest.mark.parametrize("name", ["ClassificationMetric", "DeletionInsertionMetric"])
@pytest.mark.parametrize("logits_fn", [None, SOFTMAX])
@pytest.mark.parametrize("asked", [{}, {"class_idx": [0, 4, 2]}, {"targets": lambda row: row[1]}])
def test_the_same_scores(name, logits_fn, asked, z):
    module, sums = nets.seeded(nets.Plain).train(), []
    for library, scores in ((ours, our_metrics), (peer, their_metrics)):
        with library.LayerCAM(module, ["one", "two"]) as extractor:
            metric = getattr(scores, name)(extractor, logits_fn, **({"steps": 7} if name[0] == "D" else {}))
            metric.update(z, **asked)
            metric.update(z[:1], **({**asked, "class_idx": 3} if "class_idx" in asked else asked))
        sums.append(metric.summary())
        assert metric.total == 4 and module.training and extractor._hooks_enabled
    assert sums[0] == pytest.approx(sums[1], abs=1e-4)


@pytest.mark.parametrize("name", ["RefineCAM", "FinerCAM", "ScoreCAM", "LeGrad"])
def test_every_extractor_can_be_scored_and_also_by_the_peers_metric(name):
    z = 2 * nets.images(2, 32) - 1
    module = vision_transformer() if name == "LeGrad" else nets.seeded(nets.Plain)
    layers = {"RefineCAM": ["one", "two"], "LeGrad": [module.encoder.layers[1]] if name == "LeGrad" else None}
    sums = []
    for scores in (our_metrics, their_metrics):
        with getattr(ours, name)(module, layers.get(name, "two")) as extractor:
            metric = scores.ClassificationMetric(extractor, SOFTMAX)
            metric.update(z)
        sums.append(metric.summary())
    assert sums[0] == pytest.approx(sums[1], abs=1e-4)


def test_a_baseline_of_ones_own_and_what_is_refused(z):
    module = nets.seeded(nets.Plain)
    with ours.LayerCAM(module, "two") as extractor:
        summaries = []
        for baseline in (torch.tensor(0.5), lambda given: 0.5 * torch.ones_like(given)):
            metric = our_metrics.DeletionInsertionMetric(extractor, SOFTMAX, baseline=baseline, steps=3)
            metric.update(z)
            summaries.append(metric.summary())
        assert summaries[0] == pytest.approx(summaries[1])
        with pytest.raises(AssertionError, match="update"):
            our_metrics.ClassificationMetric(extractor).summary()
        with pytest.raises(TypeError, match="integer"):
            our_metrics.DeletionInsertionMetric(extractor, steps=1.5)
        with pytest.raises(ValueError, match="broadcastable"):
            our_metrics.DeletionInsertionMetric(extractor, baseline=torch.ones(7)).update(z)
        with pytest.raises(ValueError, match="0 … 4"):
            our_metrics.ClassificationMetric(extractor).update(z, class_idx=7)


# --- explain ---


def test_explain_and_what_it_saves(tmp_path):
    module, z = nets.seeded(nets.Plain), 4 * nets.images(1, SIDE) - 2
    expected_class = (int(module(z).argmax()) + 1) % 5
    found, expected = (
        importlib.import_module(f"{home}torchcam.explain").explain(
            module, z, expected_class_idx=expected_class, class_names=list("abcde"), target_layer=["one", "two"]
        )
        for home in ("heatproof.compat.", "")
    )
    assert found.predicted_class_idx == expected.predicted_class_idx and found.method == expected.method
    torch.testing.assert_close(found.logits, expected.logits)
    assert list(found.cams) == list(expected.cams)
    for index, maps in found.cams.items():
        agree(list(maps), list(expected.cams[index]))
    image = Image.new("RGB", (19, 13))
    written = [one.save(tmp_path / str(i), image) for i, one in enumerate((found, expected))]
    names = [sorted(path.name for path in folder.iterdir()) for folder in written]
    assert names[0] == names[1]
    told, theirs = (json.loads((folder / "manifest.json").read_text()) for folder in written)
    assert told.keys() == theirs.keys() and told["classes"].keys() == theirs["classes"].keys()
    assert told["expected"] == theirs["expected"] and told["image_size"] == [19, 13]
    stem = f"class-{expected_class}-layer-0"
    np.testing.assert_array_equal(np.load(written[0] / f"{stem}.npy"), found.cams[expected_class][0].numpy())
    with pytest.raises(FileExistsError):
        found.save(written[0], image)
    with pytest.raises(TypeError, match="PIL image"):
        found.save(tmp_path / "none", np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"input_tensor": torch.zeros(2, 3, 8, 8)}, ValueError, "shape"),
        ({"method": nn.ReLU}, TypeError, "extractor class"),
        ({"expected_class_idx": 9}, ValueError, "output range"),
        ({"class_names": ["a"]}, ValueError, "each of 5 classes"),
        ({"method_kwargs": {"target_layer": "two"}}, ValueError, "directly"),
    ],
)
def test_what_cannot_be_explained(options, error, said):
    explain = importlib.import_module("heatproof.compat.torchcam.explain").explain
    named = {"input_tensor": torch.zeros(1, 3, 8, 8), "target_layer": "two", **options}
    with pytest.raises(error, match=said):
        explain(nets.seeded(nets.Plain).eval(), **named)
    with pytest.raises(ValueError, match="evaluation mode"):
        explain(nets.Plain(), torch.zeros(1, 3, 8, 8))

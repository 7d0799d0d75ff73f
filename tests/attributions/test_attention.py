"""Attention is read from any implementation, and the maps made of it are the papers'."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS, attention
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.models import wrap
from heatproof.models.attention import Attention, Reading, reading

from .. import nets
from . import reference_family

timm = pytest.importorskip("timm")

METHODS = ("attention-rollout", "chefer")
SMALL: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 5,
}


def small(name: str = "vit_tiny_patch16_224", seed: int = 0, **options) -> nn.Module:
    """A tiny transformer whose attention is far from uniform and whose heads are not zero."""
    net = nets.seeded(lambda: timm.create_model(name, **{**SMALL, **options}), seed)
    return sharpened(net, seed)


def sharpened(net: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            scale = 0.05 if parameter.dim() < 2 else 1 / math.sqrt(parameter.shape[-1])
            shift = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(shift + scale * torch.randn(parameter.shape, generator=generator))
            if "attn.qkv.weight" in name or "in_proj_weight" in name:
                parameter.mul_(2)
    return net.requires_grad_(False)


class Crossing(nn.Module):
    """Every patch attends to its neighbour: a matrix of the right shape that says where the neighbours look."""

    def __init__(self):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 5)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(z).flatten(2).mT
        others = tokens.roll(1, 1)
        return self.head(self.attend(tokens, others, others)[0].mean(1))


class Pooling(nn.Module):
    """Two layers of attention, and a query that reads their tokens by an attention of its own, as SigLIP's."""

    def __init__(self, weights: bool = True, layers: int = 2):
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 5)
        self.layers = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(layers))
        self.pool, self.query = nn.MultiheadAttention(8, 2, batch_first=True), nn.Parameter(2 * torch.randn(1, 1, 8))
        self.weights = weights

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(z).flatten(2).mT
        for layer in self.layers:
            tokens = tokens + layer(tokens, tokens, tokens, need_weights=self.weights)[0]
        query = self.query.expand(len(z), -1, -1)
        return self.head(self.pool(query, tokens, tokens, need_weights=self.weights)[0][:, 0])


def matrices_by_hand(net: Pooling, z: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """The layers' matrices, that of the pooling, each with its graph, and the logits: by the formulas, head by head."""

    def attended(layer, query, tokens):
        q, k, v = layer.in_proj_weight.chunk(3)
        bq, bk, bv = layer.in_proj_bias.chunk(3)
        heads, matrices = [], []
        for h in range(2):
            rows = slice(4 * h, 4 * h + 4)
            scores = (query @ q[rows].T + bq[rows]) @ (tokens @ k[rows].T + bk[rows]).mT / 2
            matrices.append(scores.softmax(-1).requires_grad_())
            heads.append(matrices[-1] @ (tokens @ v[rows].T + bv[rows]))
        return layer.out_proj(torch.cat(heads, -1)), torch.stack(matrices, 1), matrices

    tokens = net.patches(z).flatten(2).mT
    found, leaves = [], []
    for layer in net.layers:
        moved, _, parts = attended(layer, tokens, tokens)
        leaves.append(parts)
        found.append(torch.stack([one.detach() for one in parts], 1))
        tokens = tokens + moved
    pooled, _, parts = attended(net.pool, net.query.expand(len(z), -1, -1), tokens)
    leaves.append(parts)
    return found, torch.stack([one.detach() for one in parts], 1), (net.head(pooled[:, 0]), leaves)  # type: ignore[return-value]


@pytest.mark.parametrize("weights", [True, False])
def test_a_query_that_reads_the_tokens_weighs_them(weights):
    """Rollout and Chefer's relevance end in the row of the query, which is no token: no identity there."""
    torch.manual_seed(0)
    net = Pooling(weights).eval()
    z = torch.rand(2, 3, 32, 32)
    layers, pool, (logits, leaves) = matrices_by_hand(net, z)
    flow = pool.mean(1)[:, 0]
    eye = torch.eye(16)
    for matrix in reversed(layers):
        flow = torch.einsum("nt,nts->ns", flow, (matrix.mean(1) + eye) / 2)
    found = heatproof.explain(wrap(net, 0, 1, size=32), z, ["attention-rollout", "chefer"], target=1, raw=True,
                              normalised=True)  # fmt: skip
    torch.testing.assert_close(found["attention-rollout"].flatten(1), flow, rtol=1e-4, atol=1e-6)
    parts = [one for group in leaves for one in group]
    gradients = torch.autograd.grad(logits[:, 1].sum(), parts)
    bars = [
        torch.stack([(g * a.detach()).relu() for g, a in zip(gradients[2 * i : 2 * i + 2], parts[2 * i : 2 * i + 2],
                                                             strict=True)], 1).mean(1)
        for i in range(3)
    ]  # fmt: skip
    relevance = eye.expand(2, -1, -1)
    for bar in bars[:2]:
        relevance = relevance + bar @ relevance
    torch.testing.assert_close(
        found["chefer"].flatten(1), torch.einsum("nqt,nts->ns", bars[2], relevance), rtol=1e-4, atol=1e-7
    )


class Network(nn.Module):
    """As the engine hands it over."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        found = self.module(z)
        return found if isinstance(found, torch.Tensor) else found.logits


def images(side: int | tuple[int, int] = 32, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    height, width = (side, side) if isinstance(side, int) else side
    return nets.images(3, height, width).to(dtype) * 2 - 1


def maps(net: nn.Module, z: torch.Tensor, classes: tuple[int, ...] = (1, 4, 0), **options) -> list[torch.Tensor]:
    """Rollout and relevance."""
    network = Network(net)
    return [
        attention.attention_rollout(z, network, network, **options),
        attention.chefer(z, network, network, nets.of_target(torch.tensor(classes))),
    ]


def close(got: torch.Tensor, expected: Any, tolerance: float = 1e-5) -> None:
    expected = torch.as_tensor(np.asarray(expected)).to(got)
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


# --- against attention by hand ---

FUSE = {"mean": lambda m: m.mean(0), "max": lambda m: m.max(0), "min": lambda m: m.min(0)}


@pytest.mark.parametrize(
    ("options", "rows", "prefix"),
    [({}, [0], 1), ({"reg_tokens": 4}, [0], 5), ({"global_pool": "avg"}, list(range(1, 17)), 1)],
)
def test_both_methods_equal_the_papers_on_attention_worked_out_by_hand(options, rows, prefix):
    net, z, classes = small(**options).double(), images(), (1, 4, 0)
    logits, matrices = reference_family.vit_attention(net, z.clone().requires_grad_())
    torch.testing.assert_close(logits, net(z))
    for n, c in enumerate(classes):
        gradients = torch.autograd.grad(logits[n, c], matrices, retain_graph=True)
        ours = [m[n].detach().numpy() for m in matrices]
        slopes = [g[n].numpy() for g in gradients]
        one = z[n : n + 1]
        for fusion, fuse in FUSE.items():
            got = attention.attention_rollout(one, Network(net), net, fusion=fusion)[0]
            assert got.shape == (4, 4)
            close(got.flatten(), reference_family.rollout(ours, fuse, rows, prefix))
        got = attention.chefer(one, Network(net), net, nets.of_target(torch.tensor([c])))[0]
        close(got.flatten(), reference_family.chefer(ours, slopes, rows, prefix))


def test_distilled_transformers_are_read_at_both_their_tokens():
    net, z = small("deit_tiny_distilled_patch16_224").double(), images()
    assert reading(Network(net), net, z).rows == (0, 1)
    with torch.enable_grad(), Attention(3) as found:
        logits = net(z)
    gradients = torch.autograd.grad(logits[:, 2].sum(), found.matrices)
    slow = [
        reference_family.chefer([m[n].detach().numpy() for m in found.matrices], [g[n].numpy() for g in gradients],
                                [0, 1], 2)
        for n in range(3)
    ]  # fmt: skip
    close(maps(net, z, (2, 2, 2))[1].flatten(1), np.stack(slow))


def test_discarded_attention_is_the_smallest_and_never_a_prefix_tokens():
    net, z = small().double(), images()
    with torch.no_grad(), Attention(3) as found:
        net(z)
    slow = []
    for n in range(3):
        kept = []
        for matrix in found.matrices:
            one = matrix[n].numpy().mean(0)
            threshold = np.sort(one[:, 1:].ravel())[int(0.7 * one[:, 1:].size)]
            kept.append(np.where((one < threshold) & (np.arange(17) > 0), 0, one)[None])
        slow.append(reference_family.rollout(kept, lambda m: m[0], [0], 1))
    got = attention.attention_rollout(z, Network(net), net, discard=0.7)
    close(got.flatten(1), np.stack(slow))
    assert float((got - attention.attention_rollout(z, Network(net), net)).abs().max()) > 1e-3


# --- one attention, many implementations ---


def test_fused_and_open_attention_give_the_same_maps():
    net, z = small(), images(dtype=torch.float32)
    fused = maps(net, z)
    for block in net.blocks:
        assert block.attn.fused_attn
        block.attn.fused_attn = False
    for got, expected in zip(maps(net, z), fused, strict=True):
        close(got, expected, 1e-4)


def test_hugging_faces_eager_and_fused_attention_give_the_same_maps():
    transformers = pytest.importorskip("transformers")
    z, found = images(dtype=torch.float32), []
    for kind in ("eager", "sdpa"):
        config = transformers.ViTConfig(
            hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, image_size=32,
            patch_size=8, num_labels=5, attn_implementation=kind,
        )  # fmt: skip
        net = sharpened(nets.seeded(lambda c=config: transformers.ViTForImageClassification(c)))
        assert reading(Network(net), net, z).rows == (0,)
        found.append(maps(net, z))
    for one, other in zip(*found, strict=True):
        close(one, other, 1e-4)


def vision_transformer() -> nn.Module:
    return sharpened(nets.seeded(lambda: torchvision.models.VisionTransformer(32, 8, 3, 2, 24, 48, num_classes=5)))


def test_torchvisions_transformer_equals_its_attention_by_hand():
    net, z = vision_transformer().double(), images()
    tokens = net.conv_proj(z).flatten(2).transpose(1, 2)
    tokens = torch.cat([net.class_token.expand(3, -1, -1), tokens], 1) + net.encoder.pos_embedding
    matrices = []
    for block in net.encoder.layers:
        x = block.ln_1(tokens)
        q, k, _ = (x @ block.self_attention.in_proj_weight.T + block.self_attention.in_proj_bias).chunk(3, 2)
        scores = torch.einsum("nthd,nshd->nhts", q.unflatten(2, (2, 12)), k.unflatten(2, (2, 12))) / math.sqrt(12)
        matrices.append(scores.softmax(3))
        tokens = block(tokens)
    with torch.no_grad(), Attention(3) as found:
        net(z)
    torch.testing.assert_close(found.matrices, matrices)
    slow = [reference_family.rollout([m[n].numpy() for m in matrices], FUSE["mean"], [0], 1) for n in range(3)]
    close(maps(net, z)[0].flatten(1), np.stack(slow))


@pytest.mark.parametrize("make", [nets.Fused, vision_transformer])
def test_pytorchs_fast_path_is_not_taken_while_attention_is_read(make):
    """It would run none of the functions that are watched; the output is the same but for rounding."""
    net = nets.seeded(make)
    z = images(16 if make is nets.Fused else 32, torch.float32)
    with torch.no_grad():
        plain = net(z)
        with Attention(3) as found:
            torch.testing.assert_close(net(z), plain, rtol=1e-4, atol=1e-5)
    assert len(found.matrices) == 3
    for matrix in found.matrices:
        torch.testing.assert_close(matrix.sum(-1), torch.ones_like(matrix[..., 0]))


class Masked(nn.Module):
    """Fused attention with all that it can be asked for."""

    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, **self.options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(3))},
        {"attn_mask": torch.eye(6, dtype=torch.bool) | (torch.arange(6) < 3)},
        {"enable_gqa": True},
    ],
)
def test_fused_attention_in_the_open_gives_what_it_gave(options):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 6, 8, generator=generator) for _ in range(3))
    if "enable_gqa" in options:
        k, v = k[:, :2], v[:, :2]
    plain = Masked(**options)(q, k, v)
    with Attention(2) as found:
        torch.testing.assert_close(Masked(**options)(q, k, v), plain)
    assert [m.shape for m in found.matrices] == [(2, 4, 6, 6)]


def test_multihead_attention_that_hands_its_weights_out():
    """`need_weights=True` takes another way inside, with (N · heads, T, T) matrices; its gradients arrive too."""
    layer = nets.seeded(lambda: nn.MultiheadAttention(8, 2, batch_first=True)).requires_grad_(False)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    plain, weights = layer(x, x, x, need_weights=True, average_attn_weights=False)
    with torch.enable_grad(), Attention(3) as found:
        output, _ = layer(x, x, x, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(output, plain)
    torch.testing.assert_close(found.matrices[0], weights)
    (gradient,) = torch.autograd.grad(output.sum(), found.matrices)
    assert float(gradient.abs().max()) > 0


# --- grids and where nothing can be read ---


def test_the_grid_of_a_rectangular_image_is_rectangular():
    net, z = small(img_size=(32, 48)), images((32, 48), torch.float32)
    for found in maps(net, z):
        assert found.shape == (3, 4, 6)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("make", "side", "said"),
    [
        (nets.Plain, 32, "it has no attention"),
        (lambda: timm.create_model("seresnet18", num_classes=5), 32, "it has no attention"),
        (nets.swin, 32, "its attention is within windows or views"),
        (
            lambda: torchvision.models.SwinTransformer([4, 4], 12, [2, 2], [2, 4], [4, 4], num_classes=5),
            32,
            "its attention is within windows or views",
        ),
        (lambda: timm.create_model("pvt_v2_b0", num_classes=5), 64, "its attention is from many positions to fewer"),
        (
            lambda: timm.create_model("xcit_nano_12_p16_224", num_classes=5, depth=2),
            224,
            "its attention is not between positions",
        ),
        (lambda: Crossing(), 32, "its attention is to other tokens than its own, as in cross-attention"),
        (lambda: Pooling(layers=0), 32, "its only attention is that of one query, which pools"),
    ],
)
def test_where_attention_cannot_be_read_it_says_why(make, side, said, name):
    model = wrap(nets.seeded(make), size=side)
    applies = ATTRIBUTIONS[name].traits["applies"]
    assert applies(model, "", {}) == said
    with pytest.raises(NotApplicable, match=said):
        reading(Network(model.module), model.module, torch.rand(1, 3, side, side))


def test_a_network_is_asked_once_for_each_size():
    net = nets.Counted(small())
    z, network = images(dtype=torch.float32), Network(net)
    network.module = net
    for count in (3, 4):  # two of the probe and one forward, then one forward
        attention.attention_rollout(z, network, network)
        assert net.calls == count
    attention.chefer(z, network, network, nets.of_target(torch.tensor([0, 1, 2])))
    assert net.calls == 5


def test_a_head_of_zeros_is_asked_again_when_it_has_been_trained():
    net, z = small(), images(dtype=torch.float32)
    head = net.head.weight.clone()
    net.head.weight.zero_()
    found = reading(Network(net), net, z)
    assert found == Reading(found.layout, (0,), frozenset(range(3)))
    rollout, relevance = maps(net, z)
    assert float(relevance.abs().max()) == 0 and float(rollout.std()) > 0
    net.head.weight.copy_(head)
    assert float(maps(net, z)[1].abs().max()) > 0


# --- good manners ---


def test_the_network_is_left_as_it_was_whatever_happens():
    net, z = small(), images(dtype=torch.float32)
    before = nets.traces(net)
    maps(net, z)
    assert nets.traces(net) == before

    class Broken(Network):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            super().forward(z)
            raise FloatingPointError

    for function in (
        attention.attention_rollout,
        lambda z, n, f: attention.chefer(z, n, f, nets.of_target(torch.tensor([0, 1, 2]))),
    ):
        with pytest.raises(FloatingPointError):
            function(z, Network(net), Broken(net))
    assert nets.traces(net) == before
    assert torch.overrides._get_current_function_mode() is None


def test_a_bad_image_spoils_no_other():
    net, z = small(), images(dtype=torch.float32)
    alone = maps(net, z)
    z[1] = float("nan")
    for together, expected in zip(maps(net, z), alone, strict=True):
        assert together[1].isnan().all()
        close(together[[0, 2]], expected[[0, 2]])


def test_relevance_knows_the_target_and_rollout_does_not():
    net, z = small(), images(dtype=torch.float32)
    first, second = maps(net, z, (0, 0, 0)), maps(net, z, (1, 1, 1))
    assert torch.equal(first[0], second[0])
    assert float((first[1] - second[1]).abs().max()) > 0.1 * float(first[1].max())


def test_through_the_engine():
    net = small()
    model, x = wrap(net, size=32), nets.images(3, 32)
    found = heatproof.explain(model, x, METHODS, [1, 4, 0], raw=True)
    for name, expected in zip(METHODS, maps(net, model.normalise(x)), strict=True):
        close(found[name], expected)
        assert found.flags[name] == [""] * 3


@pytest.mark.parametrize("discard", [-0.1, 1.0])
def test_options_that_mean_nothing_are_errors(discard):
    with pytest.raises(InvalidInput, match="`discard` must be at least 0 and below 1"):
        attention.attention_rollout(images(), Network(nets.Plain()), nets.Plain(), discard=discard)
    with pytest.raises(UnknownName, match="Did you mean 'mean'"):
        attention.attention_rollout(images(), Network(nets.Plain()), nets.Plain(), fusion="meen")

"""Only layers whose rows depend on one image each are found or taken, whatever else a network computes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.vgg import VGG, make_layers

import heatproof
from heatproof.errors import HeatproofWarning, LayerError, ModelError
from heatproof.models import wrap
from heatproof.models.probe import facts, probe
from heatproof.models.rows import ROWS, Rows, rows_between

from .. import nets

SIDE = 32


def tower(width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.Tanh(), nn.Conv2d(width, width, 3, 2, 1), nn.Tanh())


class Support(nn.Module):
    """A class is as near as the mean of its support images; `shots` images have a tower of their own."""

    def __init__(self, shots: int = ROWS):
        super().__init__()
        self.image, self.support = tower(), tower()
        self.shots: torch.Tensor
        self.register_buffer("shots", torch.rand(shots, 3, SIDE, SIDE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.image(x)
        prototypes = self.support(self.shots).mean((2, 3))
        return torch.tanh(3 * maps).mean((2, 3)) @ prototypes.T


class MixingHead(nn.Module):
    """Attention across the batch, on pooled features."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.attend, self.head = tower(8), nn.MultiheadAttention(8, 2), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.features(x).mean((2, 3))
        return self.head(pooled + self.attend(pooled, pooled, pooled)[0])


class BatchStatistics(nn.Module):
    """A batch norm without running statistics uses the batch's, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6, track_running_stats=False)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.norm(self.stem(x))).mean((2, 3)))


class SequenceFirst(nn.Module):
    """PyTorch's default order of tokens: as many rows as positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.patches(x).flatten(2).permute(2, 0, 1)).mean(0))


# --- layers of another input ---


@pytest.mark.parametrize("shots", [2, ROWS, 2 * ROWS])
def test_the_tower_of_a_support_set_is_not_explained(shots: int) -> None:
    net = nets.seeded(lambda: Support(shots))
    model = wrap(net, size=SIDE)
    assert model.layers.last.startswith("image") and all(name.startswith("image") for name in model.layers.stages)
    one, two = (heatproof.explain(model, nets.images(2, SIDE, seed=seed), "eigencam")["eigencam"] for seed in (1, 2))
    assert float((one - two).abs().max()) > 0.1
    with pytest.raises(LayerError, match=r"'support.2' must (depend on the image|give one row)"):
        heatproof.explain(model, nets.images(shots, SIDE), "eigencam", layer="support[2]")


def test_a_family_is_found_where_the_image_goes() -> None:
    """The outermost VGG encodes the support set; the image goes through another one."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.support, self.image = (VGG(make_layers([8, "M", 8, "M", 8, "M"])) for _ in range(2))
            self.register_buffer("shots", torch.rand(ROWS, 3, SIDE, SIDE))

        def forward(self, x):
            return self.image.features(x).mean((2, 3)) @ self.support.features(self.shots).mean((2, 3)).T

    assert wrap(nets.seeded(Pair), size=SIDE).layers.stages == tuple(f"image.features.{i}" for i in (2, 5, 8))


def clip(prompts: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 100, "max_position_embeddings": 16, "eos_token_id": 99, "bos_token_id": 98}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**tower, "image_size": 64, "patch_size": 8}, projection_dim=16
    )

    class Prompted(nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = transformers.CLIPModel(config)
            self.register_buffer("ids", torch.randint(3, 90, (prompts, 7)))

        def forward(self, x):
            return self.clip(pixel_values=x, input_ids=self.ids).logits_per_image

    return nets.seeded(Prompted)


@pytest.mark.parametrize("prompts", [2, 3, 4])
def test_clips_image_tower_is_explained_whatever_the_number_of_prompts(prompts: int) -> None:
    model = wrap(clip(prompts), size=64)
    assert model.layers.stages == tuple(f"clip.vision_model.encoder.layers.{i}.layer_norm1" for i in (0, 1))
    methods = ["eigencam", "gradcam", "ablationcam", "attention-rollout", "chefer"]
    one, two = (heatproof.explain(model, nets.images(2, 64, seed=seed), methods) for seed in (1, 2))
    for method in methods:
        assert float((one[method] - two[method]).abs().max()) > 0.05, method
    with pytest.raises(LayerError, match="final_layer_norm' must"):
        heatproof.explain(model, nets.images(prompts, 64), "gradcam", layer="clip.text_model.final_layer_norm")


def test_attention_of_a_text_tower_changes_nothing_about_the_images() -> None:
    """The maps are those of a network that has the prompts' vectors already."""
    net = clip(2)

    class Known(nn.Module):
        def __init__(self):
            super().__init__()
            with torch.no_grad():
                found = net.clip(pixel_values=torch.zeros(1, 3, 64, 64), input_ids=net.ids)
            self.vision, self.project = net.clip.vision_model, net.clip.visual_projection
            self.register_buffer("prompts", found.text_embeds * net.clip.logit_scale.detach().exp())

        def forward(self, x):
            found = self.project(self.vision(x).pooler_output)
            return found / found.norm(dim=1, keepdim=True) @ self.prompts.T

    x, methods = nets.images(2, 64), ["attention-rollout", "chefer"]
    whole, known = (heatproof.explain(wrap(one, size=64), x, methods, target=1) for one in (net, Known().eval()))
    for method in methods:
        torch.testing.assert_close(whole[method], known[method], rtol=1e-4, atol=1e-4)


def test_attention_of_a_network_without_a_graph_is_told_apart_by_other_images() -> None:
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = clip(2)

        @torch.no_grad()
        def forward(self, x):
            return self.inner(x)

    x = nets.images(2, 64)
    frozen, plain = (heatproof.explain(wrap(n, size=64), x, "attention-rollout") for n in (Frozen().eval(), clip(2)))
    assert float(frozen["attention-rollout"].std()) > 0.01 and frozen["attention-rollout"].shape == (2, 64, 64)
    assert plain["attention-rollout"].shape == (2, 64, 64)


# --- rows that are something else ---


def test_as_many_positions_as_images_are_no_images() -> None:
    """16 tokens of 16 images: rows are positions, and the shapes do not show it."""
    model = wrap(nets.seeded(SequenceFirst), size=SIDE)
    assert model.layers.last == "patches"
    with pytest.raises(LayerError, match="'block' must give one row for each image"):
        heatproof.explain(model, nets.images(16, SIDE), "gradcam", layer="block")


def test_logits_of_views_are_not_those_of_images() -> None:
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = tower(), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.features(torch.cat([x, x.flip(3)])).mean((2, 3)))

    with pytest.raises(ModelError, match=r"one row of logits for each of 2 images\. Got 4"):
        heatproof.explain(wrap(nets.seeded(Views), size=SIDE), nets.images(2, SIDE), "gradient")


# --- batches that are mixed ---


@pytest.mark.parametrize(("make", "layer"), [(MixingHead, "features"), (BatchStatistics, "stem")])
def test_a_network_that_mixes_its_batch_explains_images_one_by_one(make, layer) -> None:
    net = nets.seeded(make)
    model, x = wrap(net, size=SIDE), nets.images(3, SIDE)
    for methods in ("gradcam", "gradient", "rise"):
        with pytest.raises(ModelError, match="depend on the other images of the batch"):
            heatproof.explain(model, x, methods)
    found = heatproof.explain(model, x, "gradcam", raw=True, target=1, batch_size=1)
    assert found.layer == layer
    for row in range(3):
        kept: list[torch.Tensor] = []
        handle = net.get_submodule(layer).register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out))
        logit = model.logits(x[row : row + 1])[0, 1]
        handle.remove()
        (gradient,) = torch.autograd.grad(logit, kept)
        slow = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)
        torch.testing.assert_close(found["gradcam"][row : row + 1], slow, rtol=1e-4, atol=1e-6)
    with pytest.raises(ModelError, match="several variants of an image at once"):
        heatproof.explain(model, x, "scorecam", batch_size=1)
    with pytest.raises(ModelError, match="several variants of an image at once"):
        heatproof.score(model, x, ["gradcam"], ["deletion"], batch_size=1)
    assert heatproof.explain(model, x, "random")["random"].shape == (3, SIDE, SIDE)  # it asks the network nothing


def test_a_layer_that_mixes_images_is_refused_by_name() -> None:
    model = wrap(nets.seeded(BatchStatistics), size=SIDE)
    with pytest.raises(LayerError, match=r"'norm' must give a row.*batch_size=1"):
        heatproof.explain(model, nets.images(2, SIDE), "gradcam", layer="norm")
    assert heatproof.explain(model, nets.images(2, SIDE), "gradcam", layer="norm", batch_size=1).layer == "norm"


# --- what must not be taken for a fault ---


def test_weights_of_zero_do_not_hide_that_a_layer_sees_the_image() -> None:
    """Untrained last layers are often zero; what is known of the network must hold after training."""
    net = nets.seeded(nets.Plain)
    with torch.no_grad():
        net.two[0].weight.zero_()
    assert wrap(net, size=16).layers.last == "two"
    heatproof.explain(wrap(net, size=16), nets.images(2, 16), "layercam", layer="two")


def test_random_numbers_of_a_network_are_not_taken_for_other_images() -> None:
    class Dropping(nets.Plain):
        def forward(self, x):
            return super().forward(F.dropout(x, 0.3, training=True))

    model = wrap(nets.seeded(Dropping), size=16)
    assert model.layers.last == "two"
    found = facts(model, (3, 16, 16))
    assert found.logits is Rows.IMAGES and not found.mixing


def test_a_network_is_probed_once_for_each_size_also_as_a_copy_with_other_weights() -> None:
    net = nets.Counted(nets.seeded(nets.Plain))
    model = wrap(net, size=16)
    heatproof.explain(model, nets.images(2, 16), "gradcam", layer="inner.two")
    assert net.calls == 2 + 1  # two passes of the probe, one of the method
    heatproof.explain(wrap(net, size=16), nets.images(4, 16), "gradcam", layer="inner.two")
    assert net.calls == 4
    twin = model.copied()
    assert isinstance(twin.module, nets.Counted)
    heatproof.explain(twin, nets.images(2, 16), "gradcam", layer="inner.two")
    assert twin.module.calls == 4 + 1
    heatproof.explain(model, nets.images(2, 24), "gradcam", layer="inner.two")
    assert net.calls == 4 + 3


def test_a_network_that_takes_one_image_at_a_time_is_not_refused_and_what_is_not_known_is_said() -> None:
    class One(nets.Plain):
        def forward(self, x):
            if len(x) > 1:
                raise ValueError("one image at a time")
            return super().forward(x)

    x = nets.images(2, 16)
    with pytest.warns(HeatproofWarning, match="on 3 images of noise at once, so it is not known.*one image at a time"):
        found = heatproof.explain(wrap(nets.seeded(One), size=16), x, "gradcam", layer="two", batch_size=1)
    expected = heatproof.explain(wrap(nets.seeded(nets.Plain), size=16), x, "gradcam", layer="two", batch_size=1)
    torch.testing.assert_close(found["gradcam"], expected["gradcam"])


def test_the_probe_leaves_nothing_behind() -> None:
    net = nets.seeded(Support).train()
    before, state = nets.traces(net), torch.random.get_rng_state()
    probe(wrap(net, size=SIDE))
    assert nets.traces(net) == before and torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("moved", "rows"),
    [
        ([0, 1, 0], Rows.IMAGES),
        ([0, 0, 0], Rows.FIXED),
        ([1e-8, 1e-8, 0], Rows.FIXED),  # rounding
        ([1e-5, 1, 0], Rows.IMAGES),  # another sum of the same numbers
        ([0, 1, 0.1], Rows.MIXED),
        ([0.1, 1, 0], Rows.MIXED),  # one that comes before the changed image
        ([1, 0, 0], Rows.MIXED),
        ([1, 1, 1], Rows.MIXED),
    ],
)
def test_what_the_rows_of_an_output_are(moved: list[float], rows: Rows) -> None:
    before = torch.randn(ROWS, 50, generator=torch.Generator().manual_seed(0))
    after = before + torch.tensor(moved)[:, None] * torch.randn(ROWS, 50, generator=torch.Generator().manual_seed(1))
    assert rows_between(before, after, 1e-3) is rows

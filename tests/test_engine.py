"""The engine: every quantity once, batches that do not matter, clear errors, nothing left behind."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS, requested
from heatproof.data.inputs import as_inputs
from heatproof.engine import (
    Batch,
    LayerNeeds,
    chosen_layer,
    explain,
    explanation,
    halved,
    image_scores,
    out_of_memory,
    resolve_layers,
)
from heatproof.engine import batch as engine_batch
from heatproof.errors import InvalidImage, InvalidInput, InvalidTarget, LayerError, UnknownName
from heatproof.flags import Reason
from heatproof.metrics.pairs import PAIR_SUPPLIERS
from heatproof.models import wrap
from heatproof.models.rows import ROWS
from heatproof.quantities import vocabulary

from . import nets

SIDE = 16
GRADIENT = ["gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam"]
#: Those that cost little; the contract tests run over the whole registry.
ALL = [*GRADIENT, "ablationcam", *(name for name, entry in ATTRIBUTIONS.items() if entry.traits["control"])]


@pytest.fixture
def x() -> torch.Tensor:
    return nets.images(5, SIDE)


@pytest.fixture
def signed() -> heatproof.Model:
    model = wrap(nets.seeded(nets.Signed), size=SIDE, layer="two")
    assert model.layers.last == "two"  # looked for now, so that no test counts the pass it takes
    return model


@pytest.fixture
def plain() -> heatproof.Model:
    return wrap(nets.seeded(nets.Plain), size=SIDE, layer="two")


class Passes:
    """Counts forward passes of a network, the images in them, and backward passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: nn.Module):
        self.forwards: list[int] = []
        self.backwards = 0
        own, grad = module.forward, torch.autograd.grad

        def forward(x: torch.Tensor) -> torch.Tensor:
            self.forwards.append(len(x))
            return own(x)

        def counted(*args, **kwargs):
            self.backwards += 1
            return grad(*args, **kwargs)

        module.forward = forward
        monkeypatch.setattr(torch.autograd, "grad", counted)


# --- every quantity once ---


@pytest.mark.parametrize(
    ("methods", "backwards"), [(GRADIENT, 1), (["gradcam"], 1), (["eigencam"], 0), (["random", "edges"], 0)]
)
def test_any_number_of_methods_costs_one_forward_and_one_backward(signed, x, methods, backwards, monkeypatch):
    passes = Passes(monkeypatch, signed.module)
    explain(signed, x, methods)
    assert passes.forwards == [5]
    assert passes.backwards == backwards


def test_ablationcam_with_a_linear_head_runs_nothing_more(plain, x, monkeypatch):
    explain(plain, x, "ablationcam")  # the head is found on the way
    passes = Passes(monkeypatch, plain.module)
    explain(plain, x, [*GRADIENT, "ablationcam"])
    assert (passes.forwards, passes.backwards) == ([5], 1)


def test_a_linear_head_is_proved_on_every_batch(plain, x):
    """Weights may be changed, or the module's forward: what was linear once is not believed."""
    before = explain(plain, x, "ablationcam", raw=True)["ablationcam"]
    own = plain.module.forward
    plain.module.forward = lambda x: torch.tanh(own(x))
    found = explain(plain, x, "ablationcam", target=0, raw=True)
    assert float((found["ablationcam"] - before).abs().max()) > 1e-3
    batch = Batch(plain, x, {"two": LayerNeeds(frozenset({"head", "tail"}))})
    with plain.evaluating(), torch.no_grad():
        assert batch.head("two") is None and batch.tail("two") is not None


def test_linear_heads_are_found_by_arithmetic(x):
    """Flattened, convolutional or with a scale behind it: only W ⟨A⟩ + b is taken for linear."""

    class Scaled(nets.Plain):
        def forward(self, x):
            return 2 * super().forward(x)

    class NoBias(nets.Plain):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(8, 5, bias=False)

    class Decoy(nets.Plain):
        def __init__(self):
            super().__init__()
            self.decoy = nn.Linear(8, 5)

    for make, linear in ((nets.Plain, True), (NoBias, True), (Decoy, True), (Scaled, False), (nets.Signed, False)):
        model = wrap(nets.seeded(make), size=SIDE, layer="two")
        batch = Batch(model, x, {"two": LayerNeeds(frozenset({"head"}))})
        with model.evaluating(), torch.no_grad():
            head = batch.head("two")
            assert (head is not None) == linear, make
            if linear:
                torch.testing.assert_close(head, model.module.head.weight.detach())


def test_gradients_are_not_computed_for_the_trunk(x):
    """Every parameter asks for gradients, and none gets one."""
    net = nets.seeded(nets.Plain)
    explain(wrap(net, size=SIDE, layer="two"), x, ALL)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


# --- batches ---


@pytest.mark.parametrize("target", ["predicted", "least", 2])
@pytest.mark.parametrize("raw", [False, True])
def test_batch_equals_single(signed, x, target, raw):
    together = explain(signed, x, ALL, target, raw=raw)
    chunked = explain(signed, x, ALL, target, raw=raw, batch_size=2)
    singles = [explain(signed, x[i : i + 1], ALL, target, raw=raw) for i in range(len(x))]
    for name in ALL:
        torch.testing.assert_close(chunked[name], together[name], rtol=1e-3, atol=1e-5)
        alone = torch.cat([single[name] for single in singles])
        torch.testing.assert_close(alone, together[name], rtol=1e-3, atol=1e-5)
    assert chunked.target.tolist() == together.target.tolist()
    assert chunked.flags == together.flags and chunked.ids == together.ids
    torch.testing.assert_close(chunked.logits, together.logits)


def test_order_does_not_matter(signed, x):
    order = [3, 0, 4, 1, 2]
    straight, mixed = explain(signed, x, ALL), explain(signed, x[order], ALL)
    for name in ALL:
        torch.testing.assert_close(mixed[name], straight[name][order], rtol=1e-3, atol=1e-5)


class Hungry(nets.Signed):
    """Memory for so many images in a pass, and no more."""

    most, error = 2, torch.OutOfMemoryError
    sizes: list[int]

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes.")
        return super().forward(x)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_a_batch_that_does_not_fit_is_halved(error, x):
    net = nets.seeded(Hungry)
    net.sizes, net.error, net.most = [], error, 5
    model = wrap(net, size=SIDE, layer="two")
    methods = [*GRADIENT, "random"]
    roomy = explain(model, x, methods, [0, 1, 2, 3, 4], labels=[4, 3, 2, 1, 0])
    net.most, net.sizes = 2, []
    before = nets.traces(net)
    tight = explain(model, x, methods, [0, 1, 2, 3, 4], labels=[4, 3, 2, 1, 0])
    assert net.sizes == [5, 2, 3, 1, 2]
    for name in methods:
        torch.testing.assert_close(tight[name], roomy[name], rtol=1e-3, atol=1e-5)
    assert tight.target.tolist() == [0, 1, 2, 3, 4] and tight.ids == roomy.ids
    assert nets.traces(net) == before


def test_one_image_that_does_not_fit_is_an_error(x):
    net = nets.seeded(Hungry)
    net.sizes, net.most = [], 0
    with pytest.raises(torch.OutOfMemoryError):
        explain(wrap(net, size=SIDE), x, "gradcam", layer="two")
    assert net.sizes == [ROWS, 1, 5, 2, 1]  # the probe, tried once, and whether one image would do


def test_halving_keeps_the_rows_in_order_and_other_errors_whole():
    def work(rows: slice) -> list[int]:
        if rows.stop - rows.start > 3:
            raise torch.OutOfMemoryError
        return list(range(rows.start, rows.stop))

    assert list(itertools.chain(*halved(work, 11))) == list(range(11))
    assert list(halved(work, 3)) == [[0, 1, 2]]

    def broken(rows: slice) -> None:
        tried.append(rows)
        raise RuntimeError("shapes do not match")

    tried: list[slice] = []
    with pytest.raises(RuntimeError, match="shapes"):
        list(halved(broken, 4))
    assert len(tried) == 1


def test_a_real_allocation_that_fails_is_recognised():
    try:
        torch.empty(2**58)
    except RuntimeError as error:
        assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


# --- targets ---


def test_targets(signed, x):
    logits = explain(signed, x, "half").logits
    with torch.no_grad():
        torch.testing.assert_close(logits, signed.logits(x))
    for rule, expected in [
        ("predicted", logits.argmax(1).tolist()),
        ("clean", logits.argmax(1).tolist()),
        ("least", logits.argmin(1).tolist()),
        (3, [3] * 5),
        ("3", [3] * 5),
        ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        (torch.tensor([4, 3, 2, 1, 0]), [4, 3, 2, 1, 0]),
        (np.array([4, 3, 2, 1, 0]), [4, 3, 2, 1, 0]),
        (torch.tensor(2), [2] * 5),
        (lambda logits: logits.topk(2).indices[:, 1], logits.topk(2).indices[:, 1].tolist()),
    ]:
        assert explain(signed, x, "half", rule, batch_size=2).target.tolist() == expected
    assert explain(signed, x, "half", "label", labels=[0, 1, 2, 3, 4], batch_size=2).target.tolist() == [0, 1, 2, 3, 4]


def test_each_image_is_explained_for_its_own_target(signed, x):
    mixed = explain(signed, x, "gradcam", [0, 1, 2, 3, 4], raw=True, batch_size=3)["gradcam"]
    for row, target in enumerate([0, 1, 2, 3, 4]):
        alone = explain(signed, x[row : row + 1], "gradcam", target, raw=True)["gradcam"]
        torch.testing.assert_close(mixed[row : row + 1], alone, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("rule", "labels", "says"),
    [
        ([0, 1], None, r"one target for each of the 5 images. Got \(2,\)"),
        ([0] * 6, None, r"Got \(6,\)"),
        ([[[0]]] * 5, None, r"Got \(5, 1, 1\)"),
        (torch.empty(5, 0, dtype=torch.int64), None, r"Got \(5, 0\)"),
        ([[0, 1]] * 4, None, r"Got \(4, 2\)"),
        ([0, 1, 2, 3, 5], None, r"lie in 0 … 4, the model's classes. Got 5"),
        (-1, None, r"Got -1"),
        (99, None, r"Got 99"),
        ("label", None, r"Got none for 5 of 5"),
        ("label", [0, 1, None, 3, 4], r"Got none for 1 of 5"),
        ("label", [0, 1, 7, 3, 4], r"Got 7"),
        ("preficted", None, r"Did you mean 'predicted'"),
        (None, None, r"Got None"),
        ([0, 1, None, 2, 3], None, r"one integer per image"),
        ([0.0, 1.0, 2.0, 3.0, 4.0], None, r"must be integers. Got torch.float32"),
        (True, None, r"must be integers. Got torch.bool"),
        (lambda logits: logits[:2].argmax(1), None, r"Got \(2,\)"),
        (lambda logits: "cat", None, r"Got 'cat'"),
    ],
)
def test_targets_that_do_not_fit_are_errors_and_never_zero_maps(signed, x, rule, labels, says):
    with pytest.raises(InvalidTarget, match=says):
        explain(signed, x, "gradcam", rule, labels=labels)


def test_too_few_labels(signed, x):
    with pytest.raises(InvalidInput, match=r"one label for each of the 5 images\. Got 4"):
        explain(signed, x, "gradcam", labels=[0, 1, 2, 3])


# --- randomness ---


def explained(model, x, ids, condition="", seed=0):
    positions = resolve_layers(model, requested("random"), "two")
    return explanation(Batch.of(model, positions, x, ids=ids, condition=condition, seed=seed), positions).raw["random"]


def test_random_maps_follow_the_image_the_condition_and_the_seed(signed, x):
    first = explained(signed, x, list("abcde"), "clean")
    assert torch.equal(explained(signed, x, list("abcde"), "clean"), first)
    assert torch.equal(explained(signed, x.flip(0), list("edcba"), "clean"), first.flip(0))
    assert torch.equal(explained(signed, x[1:2], ["b"], "clean"), first[1:2])
    for other in (
        explained(signed, x, list("abcde"), "gaussian-noise:1"),
        explained(signed, x, list("abcde"), "clean", seed=1),
        explained(signed, x, list("fghij"), "clean"),
    ):
        assert float((other - first).abs().flatten(1).mean(1).min()) > 0.2


def test_tensors_are_named_by_their_content(signed, x):
    """So the random control of an image is the same in another batch, and another for another image."""
    found = explain(signed, x, "random", seed=3)
    assert torch.equal(explain(signed, x[2:], "random", seed=3)["random"], found["random"][2:])
    assert not torch.equal(explain(signed, x, "random", seed=4)["random"], found["random"])
    assert len(set(found.ids)) == 5


# --- what goes in ---


def test_images_in_every_form_are_the_same_image(tmp_path):
    model = wrap(nets.seeded(nets.Plain), size=SIDE, resize=20, layer="two")
    pixels = np.random.default_rng(0).integers(0, 256, (33, 27, 3), dtype=np.uint8)
    image, path = Image.fromarray(pixels), tmp_path / "a.png"
    image.save(path)
    x = model.geometry.image(image)[None]
    expected = explain(model, x, GRADIENT)
    for images in (
        image, pixels, pixels / 255, (pixels / 255).astype(np.float32), path, str(path), [image],
        [pixels], pixels[None], (p for p in [path]),
    ):  # fmt: skip
        found = explain(model, images, GRADIENT)
        for name in GRADIENT:
            assert torch.equal(found[name], expected[name])
    several = explain(model, [path, image.rotate(90, expand=True), pixels], "gradcam")
    assert several["gradcam"].shape == (3, SIDE, SIDE)
    assert several.ids[0] == str(path) and several.ids[2] != several.ids[1]
    torch.testing.assert_close(several["gradcam"][[0]], expected["gradcam"], rtol=1e-4, atol=1e-6)


def test_transparent_and_16_bit_images_look_the_same_opened_or_not(tmp_path):
    """A PIL image and the file it came from are one image: white behind transparency, not what hides there."""
    model = wrap(nets.seeded(nets.Plain), size=SIDE, resize=None)
    rng = np.random.default_rng(0)
    clear = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8), "RGBA")
    deep = Image.fromarray(rng.integers(0, 65536, (SIDE, SIDE), dtype=np.uint16))
    for name, image in (("clear.png", clear), ("deep.png", deep), ("grey.png", clear.convert("L"))):
        image.save(tmp_path / name)
        inputs = [as_inputs(item, model.geometry).batch(slice(0, 1)) for item in (image, tmp_path / name)]
        assert torch.equal(*inputs)
        assert float(inputs[0].std()) > 0.1  # not all white


def test_tensors_are_never_resized(signed):
    for height, width in ((16, 16), (20, 12), (9, 31)):
        x = nets.images(2, height, width)
        found = explain(signed, x, ["gradcam", "edges"])
        assert found["gradcam"].shape == found["edges"].shape == (2, height, width)
        raw = explain(signed, x, "gradcam", raw=True)["gradcam"]
        assert raw.shape == (2, (height + 1) // 2, (width + 1) // 2)


def test_raw_maps_are_signed_and_display_maps_are_not(signed, x):
    raw = explain(signed, x, GRADIENT, raw=True)
    shown = explain(signed, x, GRADIENT)
    for name in GRADIENT:
        assert raw[name].shape == (5, 8, 8)
        assert float(raw[name].min()) < 0 < float(raw[name].max())
        assert float(shown[name].amin()) == 0 and float(shown[name].amax()) == 1
        expected = nn.functional.interpolate(raw[name].relu()[:, None], size=SIDE, mode="bilinear")[:, 0]
        low, high = expected.flatten(1).aminmax(dim=1)
        scaled = (expected - low[:, None, None]) / (high - low)[:, None, None]
        torch.testing.assert_close(shown[name], scaled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.rand(2, 3, 8, 8) * 255, "must lie in .0, 1.; heatproof normalises it itself"),
        (torch.rand(2, 3, 8, 8) - 0.5, "must lie in"),
        (torch.full((1, 3, 8, 8), float("nan")), "must lie in .0, 1.; .* Got nan"),
        (torch.zeros(1, 3, 8, 8).log(), "Got -inf"),
        (torch.rand(3, 8, 8), r"must be \(N, 3, H, W\). Got \(3, 8, 8\)"),
        (torch.rand(1, 1, 8, 8), r"Got \(1, 1, 8, 8\). For a network of 1 channel set `input_shape=\(1, 8, 8\)`"),
        (torch.rand(1, 8, 8, 3), r"Got \(1, 8, 8, 3\). Move the channels to the second place"),
        (torch.rand(0, 3, 8, 8), "at least one image"),
        (torch.rand(1, 3, 0, 8), "at least one image"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int16), "must be floating point in .0, 1., or bytes"),
        ([torch.rand(3, 8, 8), torch.rand(3, 8, 9)], "Images of a batch must have one size"),
        ([], "at least one image"),
        (3, "Expected paths, PIL images, arrays, a tensor"),
        (np.zeros((8, 8, 4), np.uint8), "has 4 channels, and the network takes images of 1 or 3"),
        (np.zeros((8, 8, 3), np.int64), "holds int64 numbers from 0 to 0, and nothing says which are black and white"),
        (np.full((8, 8, 3), 1.5), "holds float64 numbers from 1.5 to 1.5, and nothing says which are black and white"),
        (np.full((8, 8, 3), np.nan), "holds 192 values that are NaN or infinite"),
    ],
)
def test_images_that_are_none(signed, images, says):
    with pytest.raises(InvalidInput, match=says):
        explain(signed, images, "gradcam")


def test_files_that_are_no_images(signed, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    for path, says in (("text.jpg", "not an image"), ("none.jpg", "missing file"), ("", "not an image")):
        with pytest.raises(InvalidImage, match=says):
            explain(signed, tmp_path / path, "gradcam")


# --- what is asked for ---


def test_keys_are_the_spellings_asked_for(signed, x):
    spellings = ["GradCAMPlusPlus", "gradcampp", "Grad-CAM++", "grad_cam_plus_plus", "gradcam++", "Eigen CAM"]
    found = explain(signed, x, spellings)
    assert list(found) == spellings and len(found) == 6
    for spelling in spellings[1:5]:
        assert torch.equal(found[spelling], found["GradCAMPlusPlus"])
    assert "gradcam" not in found
    assert found.layer == "two" and "GradCAMPlusPlus: (5, 16, 16)" in repr(found)


def test_options_by_spelling_and_by_mapping(signed, x):
    compat = explain(signed, x, "gradcam++[compat=true]", raw=True)
    mapped = explain(signed, x, {"gradcam++": {"compat": True}, "eigencam": {}, "xgradcam": None}, raw=True)
    assert torch.equal(compat["gradcam++[compat=true]"], mapped["gradcam++"])
    plain = explain(signed, x, ["gradcam++", "eigencam", "xgradcam"], raw=True)
    assert not torch.equal(plain["gradcam++"], mapped["gradcam++"])
    assert torch.equal(plain["eigencam"], mapped["eigencam"]) and torch.equal(plain["xgradcam"], mapped["xgradcam"])
    both = explain(signed, x, ["gradcam++", "gradcam++[compat=true]", "gradcam++ [ compat = yes ]"], raw=True)
    assert torch.equal(both["gradcam++ [ compat = yes ]"], mapped["gradcam++"])
    assert torch.equal(both["gradcam++"], plain["gradcam++"])


@pytest.mark.parametrize(
    ("methods", "error", "says"),
    [
        ("gradcan", UnknownName, "No method is called 'gradcan'. Did you mean 'gradcam'"),
        (["gradcam", "layercan"], UnknownName, "'layercam'"),
        ("gradcam++[compact=true]", UnknownName, "No option of 'gradcam..' is called 'compact'. Did you mean 'compat'"),
        ("gradcam[eps=1]", UnknownName, "it has none"),
        ({"xgradcam": {"esp": 1}}, UnknownName, "'eps'"),
        ("gradcam++[compat=maybe]", InvalidInput, "`compat` of 'gradcam..' must be true or false. Got 'maybe'"),
        ("xgradcam[eps=small]", InvalidInput, "`eps` of 'xgradcam' must be a number. Got 'small'"),
        ("xgradcam[eps=true]", InvalidInput, "must be a number. Got True"),
        ("eigencam[sign=1]", InvalidInput, "must be text"),
        ("eigencam[sign=minus]", UnknownName, r"No `sign` is called 'minus'\. Known: activation, raw"),
        ("xgradcam[eps]", InvalidInput, "Expected `option=value`"),
        ("gradcam[", InvalidInput, "Expected `name`"),
        ([], InvalidInput, "at least one method"),
        (["gradcam", "gradcam"], InvalidInput, "asked for once"),
        ([3], InvalidInput, "must be names"),
        ([("gradcam", {})], InvalidInput, "must be names"),
    ],
)
def test_methods_that_do_not_exist(signed, x, methods, error, says):
    with pytest.raises(error, match=says):
        explain(signed, x, methods)


def test_layers(signed, x):
    by_name = explain(signed, x, "gradcam", layer="one", raw=True)
    by_module = explain(signed, x, "gradcam", layer=signed.module.one, raw=True)
    indexed = explain(signed, x, "gradcam", layer="one[-1]", raw=True)
    assert torch.equal(by_name["gradcam"], by_module["gradcam"])
    assert torch.equal(by_name["gradcam"], indexed["gradcam"])
    assert (by_name.layer, by_module.layer, indexed.layer) == ("one", "one", "one.1")
    assert explain(signed, x, "gradcam").layer == chosen_layer(signed, "auto") == "two"
    assert explain(signed, x, "half").layer == ""
    with pytest.raises(UnknownName, match=r"No layer is called 'onee'\. Did you mean 'one"):
        explain(signed, x, "gradcam", layer="onee")
    with pytest.raises(LayerError, match="not"):
        explain(signed, x, "gradcam", layer=nn.Linear(2, 2))
    with pytest.raises(LayerError, match="N × 5 from Linear"):
        explain(signed, x, "gradcam", layer="head")


def test_a_bare_module_is_wrapped(x):
    net = nets.seeded(nets.Plain)
    found = explain(net, x, "gradcam", layer="two")
    assert torch.equal(found["gradcam"], explain(wrap(net), x, "gradcam", layer="two")["gradcam"])


def test_a_batch_size_of_nothing(signed, x):
    with pytest.raises(InvalidInput, match=r"`batch_size` must be at least 1\. Got 0"):
        explain(signed, x, "gradcam", batch_size=0)


# --- the model is left as it was ---


@pytest.mark.parametrize("methods", [ALL, ["gradcam"], ["random"]])
def test_a_model_in_train_mode_is_explained_in_eval_mode_and_put_back(x, methods):
    torch.manual_seed(0)
    net = nets.Failing().train()
    net.norm.eval()
    net.head.weight.requires_grad_(False)
    before = nets.traces(net)
    model = wrap(net, size=SIDE, layer="layer")
    found = explain(model, x, methods)
    assert nets.traces(net) == before
    expected = explain(wrap(net.eval(), size=SIDE, layer="layer"), x, methods)
    for name in methods:
        assert torch.equal(found[name], expected[name])


@pytest.mark.parametrize("fails", ["before", "after", "second pass"])
@pytest.mark.filterwarnings("ignore:.*cannot be replayed.*")
def test_a_model_that_raises_is_put_back(x, fails):
    torch.manual_seed(0)
    net = nets.Failing().train()
    before, net.fails = nets.traces(net), fails
    with pytest.raises(FloatingPointError, match=fails):
        explain(wrap(net, size=SIDE), x, [*GRADIENT, "ablationcam"], layer="layer")
    assert nets.traces(net) == before


def test_errors_in_a_method_carry_its_name_and_the_shapes(signed, x):
    @heatproof.attributions.attribution("broken-for-a-test")
    def broken(activations, gradients):
        """Breaks."""
        raise ZeroDivisionError("oh")

    before = nets.traces(signed.module)
    try:
        with pytest.raises(ZeroDivisionError, match="oh") as caught:
            explain(signed, x, ["gradcam", "Broken-For-A-Test"])
    finally:
        ATTRIBUTIONS.remove("broken-for-a-test")
    note = "".join(caught.value.__notes__)
    assert "'Broken-For-A-Test' at layer 'two'" in note and "(5, 7, 8, 8)" in note
    assert nets.traces(signed.module) == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_grad_mode_does_not_matter(signed, x, mode):
    expected = explain(signed, x, ALL)
    with mode():
        found = explain(signed, x.clone(), ALL)
        enabled = torch.is_grad_enabled()
    assert enabled == (mode is torch.enable_grad)
    for name in ALL:
        torch.testing.assert_close(found[name].clone(), expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_maps_are_float32_whatever_the_weights_are(x, dtype):
    net = nets.seeded(nets.Signed)
    expected = explain(wrap(net, size=SIDE, layer="two"), x, ALL, 1)
    found = explain(wrap(net.to(dtype), size=SIDE, layer="two"), x, [*ALL, "eigencam[sign=raw]"], 1)
    for name in ALL:
        assert found[name].dtype == torch.float32
        close = (found[name] - expected[name]).abs().mean()
        assert float(close) < (0.05 if dtype is torch.bfloat16 else 1e-5)


def test_an_image_that_breaks_the_model_does_not_spoil_the_others(x):
    class Fragile(nets.Signed):
        def forward(self, x):
            logits = super().forward(x)
            return torch.where(x[:, :1, 0, 0] > 0.9, torch.nan, logits)

    x[:, :, 0, 0] = 0.5
    model = wrap(nets.seeded(Fragile), size=SIDE, layer="two")
    fine = explain(model, x, [*GRADIENT, "ablationcam"], 1)
    x[2, :, 0, 0] = 1
    found = explain(model, x, [*GRADIENT, "ablationcam"], 1)
    assert found.logits[2].isnan().all()
    assert found.flags["ablationcam"] == ["", "", Reason.NO_ANSWER.value, "", ""]
    others = [0, 1, 3, 4]
    for name in found:
        torch.testing.assert_close(found[name][others], fine[name][others], rtol=1e-3, atol=1e-5)


# --- maps that can be differentiated ---


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("name", [*GRADIENT, "gradcam++[compat=true]", "ablationcam", "edges"])
def test_maps_can_be_differentiated_by_the_image(name, raw):
    """Against central differences along random directions, on a smooth network of 8 × 8 pixels."""
    model = wrap(nets.seeded(nets.Signed), size=8, layer="two")
    x = 0.2 + 0.6 * nets.images(2, 8)
    weights = torch.randn(2, 1, 1, generator=torch.Generator().manual_seed(5))

    def value(x: torch.Tensor, differentiable: bool) -> torch.Tensor:
        found = explain(model, x, name, [1, 2], raw=raw, differentiable=differentiable)[name]
        ramp = torch.linspace(0, 1, found[0].numel()).view(found.shape[1:]).square()
        return (found * ramp * weights).sum()

    size = 2e-3 if raw else 2e-4  # display maps have kinks: the ReLU, the place of the maximum
    asks = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(asks, True), asks)
    for seed in range(3):
        step = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).sign()
        slope = (value(x + size * step, False) - value(x - size * step, False)) / (2 * size)
        assert float((gradient * step).sum()) == pytest.approx(float(slope), rel=0.02, abs=2e-3 * float(weights.norm()))
    assert asks.grad is None and all(p.grad is None for p in model.module.parameters())


def test_eigencam_with_dead_channels_can_be_differentiated():
    """Two channels of zeros make two equal eigenvalues, and the plain derivative of the eigenvectors NaN."""
    net = nets.seeded(nets.Plain)
    with torch.no_grad():
        net.two[0].bias[:4] = -100
    x = nets.images(2, SIDE).requires_grad_()
    model = wrap(net, size=SIDE, layer="two")
    found = explain(model, x, "eigencam", raw=True, differentiable=True)["eigencam"]
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    assert gradient.isfinite().all() and float(gradient.abs().max()) > 0


def test_maps_keep_no_graph_unless_asked(signed, x):
    found = explain(signed, x.requires_grad_(), ALL)
    assert not any(maps.requires_grad for maps in found.values()) and not found.logits.requires_grad
    kept = explain(signed, x, [*GRADIENT, "ablationcam"], differentiable=True)
    assert all(maps.requires_grad for maps in kept.values())


def test_the_arguments_stay_as_they_were(signed, x):
    before, targets = x.clone(), [0, 1, 2, 3, 4]
    explain(signed, x, ALL, targets, labels=targets)
    assert torch.equal(x, before) and targets == [0, 1, 2, 3, 4] and x.grad is None


def test_a_model_without_an_answer_flags_every_map_of_that_image():
    class Silent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.Linear(4, 3)

        def forward(self, z):
            logits = self.head(self.conv(z).relu().mean((2, 3)))
            return logits + torch.where(z.mean((1, 2, 3)) > 0, float("inf"), 0.0)[:, None]

    x = torch.stack([torch.rand(3, 32, 32) * 0.2, torch.rand(3, 32, 32) * 0.2 + 0.8])
    found = heatproof.explain(heatproof.wrap(Silent(), size=32), x, ["gradcam", "eigencam", "ablationcam", "ones"])
    for method in ("gradcam", "eigencam", "ablationcam"):
        assert found.flags[method][1] == Reason.NO_ANSWER.value
    assert found.flags["ones"] == ["", ""] and found.flags["eigencam"][0] == ""


def test_an_array_without_a_pixel_and_a_number_for_a_model_are_said():
    model = heatproof.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2)))
    for kind in (np.uint8, np.float32):
        with pytest.raises(InvalidInput, match="no pixel"):
            heatproof.explain(model, np.zeros((0, 8, 3), kind), layer="0")
    with pytest.raises(InvalidInput, match="Got int"):
        heatproof.explain(3, torch.rand(1, 3, 8, 8))


def test_every_quantity_has_one_supplier():
    """The table and the engine agree: what may be named can be handed over, and nothing else can."""
    for user, suppliers in (
        ("method", engine_batch.SUPPLIERS),
        ("metric", {**image_scores.SUPPLIERS, **PAIR_SUPPLIERS}),
    ):
        assert set(vocabulary(user)) == set(suppliers)


def test_a_batch_reads_its_logits_in_eval_mode_wherever_it_is_asked():
    """A forward pass in train mode would move the statistics of batch norms, and drop units."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(4, 3),
    ).train()  # fmt: skip
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = heatproof.wrap(net, input_shape=(3, 12, 12))
    x = torch.rand(2, 3, 12, 12)
    methods = resolve_layers(model, requested(["gradcam"]), "0")
    batch = Batch.of(model, methods, x, ids=["a", "b"])
    logits = batch.logits
    assert net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert torch.equal(logits, net.eval()(x).detach())

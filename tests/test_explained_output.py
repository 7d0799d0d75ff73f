"""What is explained: several targets from one pass, probabilities, one logit, many labels, outputs of one's own."""

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof import explained_output
from heatproof.errors import InvalidInput, InvalidTarget, NotApplicable, UnknownName
from heatproof.models import wrap

from . import nets

SIDE = 16
CAMS = ["gradcam", "layercam", "gradcam++", "ablationcam", "refine:gradcam"]


@pytest.fixture
def x() -> torch.Tensor:
    return nets.images(3, SIDE)


@pytest.fixture
def model() -> heatproof.Model:
    return wrap(nets.seeded(nets.Signed), size=SIDE, layer="two")


# --- several targets ---


def test_several_targets_are_those_targets_one_by_one(model, x):
    wanted = [[0, 3], [4, 1], [2, 2]]
    methods = [*CAMS, "eigencam", "random"]
    found = heatproof.explain(model, x, methods, wanted, batch_size=2)
    assert found.target.tolist() == wanted
    for method in methods:
        assert found[method].shape == (3, 2, SIDE, SIDE)
        for t in range(2):
            alone = heatproof.explain(model, x, method, [row[t] for row in wanted])
            torch.testing.assert_close(found[method][:, t], alone[method], rtol=1e-3, atol=1e-5)
            assert [flags[t] for flags in found.flags[method]] == alone.flags[method]
    raw = heatproof.explain(model, x, "gradcam", wanted, raw=True)["gradcam"]
    assert raw.shape == (3, 2, 8, 8)


def test_they_share_one_forward_and_cost_one_backward_each(model, x, monkeypatch):
    calls = {"forward": 0, "backward": 0}
    own, grad = model.module.forward, torch.autograd.grad
    model.layers  # noqa: B018 - looked for now

    def counted(name, function):
        def call(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(model.module, "forward", counted("forward", own))
    monkeypatch.setattr(torch.autograd, "grad", counted("backward", grad))
    heatproof.explain(model, x, ["gradcam", "layercam", "gradcam@one", "refine:gradcam"], "top3")
    assert calls == {"forward": 1, "backward": 3}


def test_the_most_probable_classes(model, x):
    found = heatproof.explain(model, x, "gradcam", "top3")
    assert found.target.tolist() == found.logits.argsort(1, descending=True)[:, :3].tolist()
    for rule in ("top0", "top6"):
        with pytest.raises(InvalidTarget, match=r"must name 1 … 5 classes"):
            heatproof.explain(model, x, "gradcam", rule)


# --- outputs ---


def by_hand(model, x, output):
    """∂ output / ∂ activations and from it Grad-CAM, image by image, in plain autograd."""
    maps = []
    for one in x:
        kept = []
        handle = model.module.two.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out))
        try:
            logits = model.module(model.normalise(one[None]))
        finally:
            handle.remove()
        (gradient,) = torch.autograd.grad(output(logits[0]), kept[0])
        maps.append(torch.einsum("c,chw->hw", gradient[0].mean((1, 2)), kept[0][0].detach()))
    return torch.stack(maps)


@pytest.mark.parametrize(
    ("output", "slow"),
    [
        ("logit", lambda y: y[2]),
        ("probability", lambda y: y.exp()[2] / y.exp().sum()),
        ("log-probability", lambda y: y[2] - y.exp().sum().log()),
        ("rest", lambda y: 2 * y[2] - y.exp().sum().log()),
        (lambda logits, target: logits[:, 2] - logits[:, 1], lambda y: y[2] - y[1]),
    ],
)
def test_the_gradient_is_that_of_the_output_asked_for(model, x, output, slow):
    found = heatproof.explain(model, x, "gradcam", 2, raw=True, output=output)["gradcam"]
    torch.testing.assert_close(found, by_hand(model, x, slow), rtol=1e-3, atol=1e-7)


def test_ablation_of_a_probability_is_the_share_of_the_probability_lost(x):
    """Also where the logits are linear in the pooled activations: a probability is not."""
    for net in (nets.Plain, nets.Signed):
        model = wrap(nets.seeded(net), size=SIDE, layer="two")
        found = heatproof.explain(model, x[:1], "ablationcam", 2, raw=True, output="probability")["ablationcam"][0]
        kept = []
        handle = model.module.two.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out.detach()))
        with torch.no_grad():
            p = model.module(model.normalise(x[:1])).softmax(1)[0, 2]
        handle.remove()
        expected = torch.zeros(8, 8)
        for channel in range(kept[0].shape[1]):

            def without(_m, _i, out, channel=channel):
                out = out.clone()
                out[:, channel] = 0
                return out

            handle = model.module.two.register_forward_hook(without)
            with torch.no_grad():
                left = model.module(model.normalise(x[:1])).softmax(1)[0, 2]
            handle.remove()
            expected += (p - left) / p * kept[0][0, channel]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_outputs_that_mean_nothing(model, x):
    with pytest.raises(UnknownName, match=r"No output is called 'probabilty'. Did you mean 'probability'"):
        heatproof.explain(model, x, "gradcam", output="probabilty")
    with pytest.raises(InvalidInput, match=r"one number for each of 3 images. Got \(3, 5\)"):
        heatproof.explain(model, x, "gradcam", output=lambda logits, target: logits)
    passes = []
    model.module.register_forward_hook(lambda *_: passes.append(1))
    for method in ("ablationcam", "integrated-gradients", "iba"):
        with pytest.raises(
            NotApplicable, match=f"'{method}' cannot explain Signed: it needs an output that every class"
        ):
            heatproof.explain(model, x, ["gradcam", method], output=lambda logits, target: logits[:, 0])
    for method in ("deeplift", "lrp"):
        with pytest.raises(NotApplicable, match=f"'{method}' cannot explain Signed: it explains logits alone"):
            heatproof.explain(model, x, ["gradcam", method], output="probability")
    assert not passes  # before any work


# --- heads ---


class OneLogit(nets.Signed):
    def __init__(self):
        super().__init__(classes=1)


def test_one_logit_is_two_classes(x):
    module = nets.seeded(OneLogit)
    model = wrap(module, size=SIDE, layer="two")
    with torch.no_grad():
        logit = module(model.normalise(x))[:, 0]
    found = heatproof.explain(model, x, "gradcam", 1, raw=True)
    torch.testing.assert_close(model.probabilities(found.logits)[:, 1].float(), logit.sigmoid())
    assert heatproof.explain(model, x, "gradcam").target.tolist() == (logit > 0).long().tolist()
    against = heatproof.explain(model, x, "gradcam", 0, raw=True)["gradcam"]
    torch.testing.assert_close(against, -found["gradcam"])
    assert float(found["gradcam"].abs().max()) > 0
    with pytest.raises(InvalidTarget, match="0 … 1"):
        heatproof.explain(model, x, "gradcam", 2)


def test_one_logit_may_be_squeezed(x):
    class Squeezed(OneLogit):
        def forward(self, x):
            return super().forward(x)[:, 0]

    plain, squeezed = (wrap(nets.seeded(net), size=SIDE, layer="two") for net in (OneLogit, Squeezed))
    expected, found = (heatproof.explain(model, x, CAMS) for model in (plain, squeezed))
    assert found.target.tolist() == expected.target.tolist()
    for method in CAMS:
        torch.testing.assert_close(found[method], expected[method])


def test_labels_that_go_together_have_probabilities_of_their_own(x):
    module = nets.seeded(nets.Signed)
    model = wrap(module, size=SIDE, layer="two", multi_label=True)
    found = heatproof.explain(model, x, "gradcam", [[0, 1], [2, 3], [4, 0]], raw=True, output="probability")
    torch.testing.assert_close(model.probabilities(found.logits), found.logits.double().sigmoid())
    expected = by_hand(model, x[:1], lambda y: y[1].sigmoid())
    torch.testing.assert_close(found["gradcam"][:1, 1], expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("name", explained_output.OUTPUTS)
def test_columns_hold_the_output_of_every_class(name, multi_label):
    logits = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)) * 3
    y = logits.double().numpy()
    p = 1 / (1 + np.exp(-y)) if multi_label else np.exp(y) / np.exp(y).sum(1, keepdims=True)
    expected = {"logit": y, "probability": p, "log-probability": np.log(p), "rest": y + np.log(p)}
    expected["value"] = y
    expected = expected[name]
    np.testing.assert_allclose(
        explained_output.columns(name, logits, multi_label).numpy(), expected, rtol=1e-5, atol=1e-6
    )
    target = torch.tensor([3, 1])
    found = explained_output.of_target(name, logits, target, multi_label)
    np.testing.assert_allclose(found.numpy(), expected[[0, 1], [3, 1]], rtol=1e-5, atol=1e-6)


def test_large_logits_keep_their_probabilities():
    """log-softmax and log-sigmoid, so that nothing overflows."""
    logits = torch.tensor([[500.0, -500.0, 0.0]])
    for multi_label in (False, True):
        assert explained_output.columns("log-probability", logits, multi_label).isfinite().all()


# --- what wraps a network ---


@pytest.mark.parametrize("wrapper", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrappers_are_looked_through(wrapper, x):
    net = nets.seeded(nets.Signed)
    expected = heatproof.explain(wrap(net, size=SIDE, layer="two"), x, CAMS)
    found = heatproof.explain(wrap(wrapper(net), size=SIDE, layer="two"), x, CAMS)
    for method in CAMS:
        torch.testing.assert_close(found[method], expected[method])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_precision(dtype, x):
    net = nets.seeded(nets.Signed)
    expected = heatproof.explain(wrap(net, size=SIDE, layer="two"), x, ["gradcam", "eigencam"], 1, raw=True)
    found = heatproof.explain(wrap(net.to(dtype), size=SIDE, layer="two"), x, ["gradcam", "eigencam"], 1, raw=True)
    for method in ("gradcam", "eigencam"):
        assert found[method].dtype == torch.float32
        scale = float(expected[method].abs().max())
        torch.testing.assert_close(found[method] / scale, expected[method] / scale, rtol=0, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_linear_head_is_known_in_any_precision(dtype, x):
    net = nets.seeded(nets.Plain).to(dtype)
    found = heatproof.explain(wrap(net, size=SIDE, layer="two"), x, ["cam", "gradcam"], 1, raw=True)
    scale, positions = float(found["cam"].abs().max()), found["cam"][0].numel()
    torch.testing.assert_close(found["cam"] / scale, found["gradcam"] * positions / scale, rtol=0, atol=0.03)


def test_cam_of_one_logit(x):
    net = nets.seeded(nets.Plain)
    net.head = nn.Linear(8, 1)
    found = heatproof.explain(wrap(net, size=SIDE, layer="two"), x, ["cam", "gradcam", "hirescam"], 0, raw=True)
    torch.testing.assert_close(found["cam"], found["gradcam"] * found["cam"][0].numel())
    torch.testing.assert_close(found["hirescam"], found["gradcam"])


def test_quantised_weights_say_that_no_gradient_comes_through(x):
    net = nets.seeded(nets.Signed)
    quantised = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    model = wrap(quantised, size=SIDE, layer="two")
    with pytest.raises(heatproof.errors.LayerError, match=r"No gradient reaches 'two' .*is quantised"):
        heatproof.explain(model, x, "gradcam")
    assert heatproof.explain(model, x, "eigencam").flags["eigencam"] == [""] * 3

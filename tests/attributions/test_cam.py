"""Every CAM against its slow reference: as a formula on arrays, and through the engine on small networks."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import heatproof
from heatproof.attributions import ablation, cam, eigen
from heatproof.errors import UnknownName
from heatproof.models import wrap

from .. import nets
from . import reference

FORMULAS = {
    "gradcam": (cam.gradcam, reference.gradcam),
    "gradcam++": (cam.gradcam_plus_plus, reference.gradcam_plus_plus),
    "hirescam": (cam.hirescam, reference.hirescam),
    "xgradcam": (cam.xgradcam, reference.xgradcam),
    "layercam": (cam.layercam, reference.layercam),
    "gradcam-elementwise": (cam.gradcam_elementwise, reference.gradcam_elementwise),
}
#: Those of the module whose references are in `test_family`.
FAMILY = {"shapleycam", "finercam", "fem", "cam"}
SPATIAL = [(5, 4), (7,), (2, 3, 4)]


def made(*shape: int, seed: int = 0, signed: bool = True) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values if signed else values.relu() + 0.01


def agrees(got: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-4, atol=tolerance * scale)


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", FORMULAS)
def test_the_formula_is_the_papers(name, signed, spatial):
    ours, slow = FORMULAS[name]
    activations, gradients = made(3, 6, *spatial, signed=signed), made(3, 6, *spatial, seed=1)
    expected = slow(activations.double().numpy(), gradients.double().numpy())
    assert expected.shape == (3, *spatial)
    agrees(ours(activations, gradients), expected, 1e-4 if name == "xgradcam" else 1e-5)


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_gradcam_plus_plus_compat_is_what_the_papers_ran(spatial, size):
    activations, gradients = made(2, 6, *spatial, signed=False), size * made(2, 6, *spatial, seed=1)
    gradients[0, 0] = 0
    expected = reference.gradcam_plus_plus_compat(activations.double().numpy(), gradients.double().numpy())
    agrees(cam.gradcam_plus_plus(activations, gradients, compat=True), expected)


def test_the_epsilon_of_compat_outweighs_small_gradients():
    """Why both arms exist: at gradients of 1e-4 the 1e-6 decides, and the order of the places changes."""
    activations, gradients = made(1, 6, 5, 4, signed=False), 1e-4 * made(1, 6, 5, 4, seed=1)
    ours = cam.gradcam_plus_plus(activations, gradients)
    compat = cam.gradcam_plus_plus(activations, gradients, compat=True)
    assert float(compat.abs().max()) < 0.05 * float(ours.abs().max())
    assert ours.flatten().argsort().tolist() != compat.flatten().argsort().tolist()


EXTREME = st.lists(st.floats(-(2.0**40), 2.0**40, width=32), min_size=4, max_size=4)


@given(EXTREME, EXTREME)
def test_alpha_stays_in_zero_to_one_half(activations, gradients):
    """So a channel's weight, Σ α relu(G), is in (0, ½ Σ relu(G)], at signed maps and extreme gradients too."""
    a, g = torch.tensor(activations).view(1, 1, 4), torch.tensor(gradients).view(1, 1, 4)
    position = int(a.abs().argmax())
    assume(abs(activations[position]) > 1e-3)
    weight = float(cam.gradcam_plus_plus(a, g)[0, position] / a[0, 0, position])
    total = float(g.relu().sum())
    assert (0 < weight <= 0.5 * total * (1 + 1e-5)) if total > 1e-20 else weight < 1e-20


def test_gradcam_plus_plus_equals_equation_19_where_activations_are_not_negative():
    activations, gradients = made(2, 5, 4, 4, signed=False).double(), made(2, 5, 4, 4, seed=3).double()
    sums = activations.sum((2, 3), keepdim=True)
    alpha = gradients**2 / (2 * gradients**2 + gradients**3 * sums)
    weights = (alpha * gradients.relu()).sum((2, 3))
    expected = torch.einsum("nc,nchw->nhw", weights, activations)
    torch.testing.assert_close(cam.gradcam_plus_plus(activations, gradients), expected)


@pytest.mark.parametrize("shape", [(3, 4, 5, 4), (3, 30, 3, 3), (2, 4, 17), (2, 9, 2, 2, 2)])
def test_eigencam_is_the_first_component_with_its_sign_fixed(shape):
    activations = made(*shape)
    agrees(eigen.eigencam(activations), reference.eigencam(activations.double().numpy()))


@pytest.mark.parametrize("shape", [(3, 4, 5, 4), (3, 30, 3, 3)])
def test_eigencam_raw_is_the_plain_svd_up_to_the_sign(shape):
    activations = made(*shape)
    got = eigen.eigencam(activations, sign="raw").numpy()
    for one, expected in zip(got, reference.eigencam(activations.double().numpy(), signed=False), strict=True):
        turned = one * np.sign((one * expected).sum())
        np.testing.assert_allclose(turned, expected, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_eigencam_never_shows_the_background_instead_of_the_object(seed, wide):
    """The projection correlates positively with the summed activation, whatever the solver's sign is."""
    activations = made(1, 12 if wide else 3, 3, 3, seed=seed, signed=False)
    for given_sign in (activations, activations.flip(1), activations.flip(2)):
        found = eigen.eigencam(given_sign)[0].flatten().double()
        total = given_sign.sum(1)[0].flatten().double()
        assert float(torch.corrcoef(torch.stack([found, total]))[0, 1]) >= -1e-6


def test_eigencam_of_a_bad_image_does_not_spoil_the_others():
    activations = made(3, 5, 4, 4)
    alone = eigen.eigencam(activations)
    activations[1, 2, 0, 0] = float("nan")
    activations[1, 1, 0, 0] = float("inf")
    together = eigen.eigencam(activations)
    assert together[1].isnan().all()
    torch.testing.assert_close(together[[0, 2]], alone[[0, 2]])


def test_eigencam_of_one_constant_image_is_constant():
    activations = made(2, 5, 4, 4)
    activations[0] = 2.5
    assert float(eigen.eigencam(activations)[0].abs().max()) < 1e-6
    assert float(eigen.eigencam(activations)[1].abs().max()) > 0.1


def test_eigencam_refuses_an_unknown_sign():
    with pytest.raises(UnknownName, match=r"No `sign` is called 'plus'\. Known: activation, raw"):
        eigen.eigencam(made(1, 3, 2, 2), sign="plus")


# --- through the engine ---

LAYERS = [
    (nets.Plain, "one.0"),
    (nets.Plain, "one"),
    (nets.Plain, "two"),
    (nets.Signed, "one"),
    (nets.Signed, "two"),
    (nets.Signed, "three"),
    (nets.Dense, "last"),
    (nets.Dense, "norms.0"),
]


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return nets.images(3, 12, 8)


@pytest.mark.parametrize(("net", "layer"), LAYERS)
def test_maps_of_a_network_equal_the_references(net, layer, x):
    module, targets = nets.seeded(net), [0, 3, 1]
    model = wrap(module, size=12)
    found = heatproof.explain(model, x, [*FORMULAS, "eigencam"], targets, layer, raw=True)
    activations, gradients, logits = reference.quantities(module, model.normalise(x), layer, targets)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-5, atol=1e-6)
    for name, (_, slow) in FORMULAS.items():
        agrees(found[name], slow(activations, gradients), 2e-4 if name == "xgradcam" else 2e-5)
    agrees(found["eigencam"], reference.eigencam(activations), 2e-5)


@pytest.mark.parametrize(("net", "layer"), [*LAYERS, (nets.Shared, "layer"), (nets.Stubborn, "layer")])
@pytest.mark.filterwarnings("ignore:.*cannot be replayed.*")
def test_ablationcam_equals_whole_forwards_without_each_channel(net, layer, x):
    module = nets.seeded(net)
    model = wrap(module, size=12)
    for target in ("predicted", "least"):
        found = heatproof.explain(model, x, ["ablationcam", "ablationcam[compat=true]"], target, layer, raw=True)
        targets = found.target.tolist()
        z = model.normalise(x)
        agrees(found["ablationcam"], reference.ablationcam(module, z, layer, targets), 1e-4)
        agrees(found["ablationcam[compat=true]"], reference.ablationcam(module, z, layer, targets, True), 1e-4)


def test_ablationcam_keeps_its_side_where_the_logit_is_negative(x):
    """Dividing by y turns the map over where y < 0: what raises the class then looks as if it spoke against it."""
    module = nets.seeded(nets.Plain)
    found = heatproof.explain(
        wrap(module, size=12), x, ["ablationcam", "ablationcam[compat=true]"], "least", "two", raw=True
    )
    y = found.logits.gather(1, found.target[:, None])
    assert (y < 0).all()
    torch.testing.assert_close(found["ablationcam[compat=true]"], -found["ablationcam"])
    # The closed form by hand: w_k = W_k ⟨A_k⟩ / |y|.
    activations = torch.from_numpy(reference.quantities(module, wrap(module).normalise(x), "two", [0, 0, 0])[0])
    weights = module.head.weight.double()[found.target] * activations.mean((2, 3)) / y.abs()
    expected = torch.einsum("nc,nchw->nhw", weights, activations)
    torch.testing.assert_close(found["ablationcam"].double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("values", [1, 7 * 24 * 3, 10**9])
def test_ablationcam_does_not_depend_on_how_channels_are_chunked(values, x, monkeypatch):
    """7 channels of 6 × 4 positions: one row at a time, three, and all."""
    monkeypatch.setattr(ablation, "TAIL_VALUES", values)
    module = nets.seeded(nets.Signed)
    model = wrap(module, size=12)
    found = heatproof.explain(model, x, "ablationcam", [1, 2, 0], "two", raw=True)["ablationcam"]
    agrees(found, reference.ablationcam(module, model.normalise(x), "two", [1, 2, 0]), 1e-4)


def test_the_closed_form_of_ablationcam_equals_its_tail_passes(x):
    module = nets.seeded(nets.Plain)
    activations = module.two(module.one(x)).detach()
    logits = module.head(activations.mean((2, 3))).detach()
    target = torch.tensor([0, 1, 2])
    closed = ablation.ablationcam(activations, logits, target, module.head.weight.detach(), None)
    passes: list[int] = []

    def tail(variants: torch.Tensor, _image: int) -> torch.Tensor:
        passes.append(len(variants))
        return module.head(variants.mean((2, 3))).detach()

    torch.testing.assert_close(
        ablation.ablationcam(activations, logits, target, None, tail), closed, rtol=1e-3, atol=1e-5
    )
    assert sum(passes) == 3 * 8


@pytest.mark.parametrize("compat", [True, False])
def test_a_logit_of_zero_has_no_shares_and_the_losses_themselves_weigh(compat):
    activations = made(1, 4, 3, 3)
    found = ablation.ablationcam(
        activations, torch.zeros(1, 2), torch.tensor([0]), torch.ones(2, 4), None, compat=compat
    )
    expected = sum(activations[0, k] * activations[0, k].mean() for k in range(4))
    torch.testing.assert_close(found[0], expected)


def test_linear_heads_make_three_methods_equal(x):
    """Pool and linear: gradcam, hirescam and xgradcam coincide (protocols, section 5), so their RM must too."""
    found = heatproof.explain(
        wrap(nets.seeded(nets.Plain), size=12), x, ["gradcam", "hirescam", "xgradcam"], layer="two", raw=True
    )
    for name in ("hirescam", "xgradcam"):
        torch.testing.assert_close(found[name], found["gradcam"], rtol=1e-4, atol=1e-6)


def test_every_method_of_the_family_has_a_reference_here():
    """A method that is added without a slow twin is noticed."""
    filed = [
        name for name, entry in heatproof.attributions.ATTRIBUTIONS.items() if inspect.getmodule(entry.function) is cam
    ]
    assert set(filed) == {*FORMULAS, *FAMILY, "randomcam"}


def test_a_sum_that_is_only_rounding_says_nothing(x):
    """Before a LayerNorm scaling a place changes nothing: Σ G A is zero there, and float32 leaves 1e-6 of the terms."""

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 16, 3, 2, 1)
            self.norm, self.two, self.head = nn.LayerNorm(16, eps=1e-12), nn.Linear(16, 16), nn.Linear(16, 5)

        def forward(self, x):
            positions = self.norm(self.one(x).flatten(2).transpose(1, 2))
            return self.head(torch.tanh(self.two(positions)).mean(1))

    model = wrap(nets.seeded(Normed), size=16, layer="one")
    found = heatproof.explain(model, x, ["hirescam", "gradcam"])
    assert found.flags["hirescam"] == ["constant map"] * len(x) and found.flags["gradcam"] == [""] * len(x)
    assert (found["hirescam"] == 0).all()

"""RefineCAM against a slow reference, its spellings, and what it costs."""

import math

import numpy as np
import pytest
import torch

import heatproof
from heatproof.attributions import parsed, requested
from heatproof.attributions.refine import OPERATORS, inverse_exp_mean, product, refined
from heatproof.errors import InvalidInput, LayerError, UnknownName
from heatproof.models import wrap

from .. import nets
from . import reference

SIDE = 16


def slow(raws: list[np.ndarray], size: tuple[int, int], operator: str) -> np.ndarray:
    """Eq. 7 of Domeniconi et al. 2026 for one image: pixel by pixel, in float64."""
    layers = []
    for raw in raws:
        positive = np.where(raw > 0, raw, 0).astype(np.float64)
        small = (positive - positive.min()) / (positive.max() - positive.min())
        large = reference.bilinear(small, *size)
        layers.append((large - large.min()) / (large.max() - large.min()))
    made = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            values = [layer[i, j] for layer in layers]
            if operator == "inverse-exp":
                made[i, j] = _inverse_exp(values)
            else:
                made[i, j] = math.prod(values) ** (1 if operator == "product" else 1 / len(values))
    return (made - made.min()) / (made.max() - made.min())


def _inverse_exp(values: list[float]) -> float:
    if min(values) < 1e-3:
        return 0.0 if min(values) == 0 else min(values)  # exp overflows float64 too; the largest term is all there is
    return 1 / math.log(sum(math.exp(1 / a) for a in values) / len(values))


@pytest.fixture(scope="module")
def model() -> heatproof.Model:
    return wrap(nets.seeded(nets.Signed), size=SIDE)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return nets.images(3, SIDE)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("base", ["gradcam", "layercam", "eigencam", "gradcam++"])
def test_a_refined_map_is_equation_7(model, x, base, operator):
    spelling = f"refine:{base}@one+two[operator={operator}]"
    found = heatproof.explain(model, x, spelling)[spelling]
    for row in range(len(x)):
        raws = [heatproof.explain(model, x[row : row + 1], base, layer=n, raw=True)[base][0] for n in ("one", "two")]
        expected = slow([raw.numpy() for raw in raws], (SIDE, SIDE), operator)
        np.testing.assert_allclose(found[row].numpy(), expected, atol=2e-3 if operator == "inverse-exp" else 1e-4)


def test_the_inverse_exp_mean_does_not_overflow():
    """exp(1 / .0113) is past float32; the naive form gives 0 for every place with a smaller value in it."""
    values = torch.tensor([[[0.01, 0.5, 1.0]], [[0.02, 0.5, 0.0]]])
    naive = 1 / torch.log(torch.exp(1 / values).mean(0))
    assert naive[0, 0] == 0
    found = inverse_exp_mean(values)[0]
    assert found[0] == pytest.approx(1 / (100 - math.log(2)), rel=1e-4)
    assert found[1] == pytest.approx(0.5) and found[2] == 0


def test_places_and_order_of_the_layers_decide_nothing():
    raws = [torch.rand(2, side, side, generator=torch.Generator().manual_seed(side)) for side in (3, 6, 12)]
    one = refined(raws, "cam", (24, 24))
    torch.testing.assert_close(refined(raws[::-1], "cam", (24, 24)), one)
    torch.testing.assert_close(one, product(torch.stack([refined([raw], "cam", (24, 24)) for raw in raws])))


def test_normalising_matters():
    """pytorch-grad-cam's RefineCAM scales a map and then drops the result: at layers of different scale all is lost."""
    small, large = torch.rand(1, 4, 4), 1000 * torch.rand(1, 8, 8)
    torch.testing.assert_close(
        refined([small, large], "cam", (8, 8)), refined([small * 7, large / 1000], "cam", (8, 8))
    )


def test_a_layer_with_nothing_to_say_makes_a_flagged_map(model, x):
    size = (8, 8)
    assert (refined([-torch.rand(1, 4, 4), torch.rand(1, 8, 8)], "cam", size) == 0).all()
    assert (refined([torch.full((1, 4, 4), torch.nan), torch.rand(1, 8, 8)], "cam", size) == 0).all()


def test_three_channels_become_the_magnitude_of_their_sum():
    """Paper R for a base at the input's size: sum, then magnitude, and no ReLU."""
    raw = torch.tensor([[[[1.0, -3.0]], [[1.0, 1.0]], [[-2.0, 0.0]]]])
    assert refined([raw], "rgb", (1, 2)).tolist() == [[[0.0, 1.0]]]


def test_alone_it_takes_every_stage_and_one_layer_takes_the_deeper_ones(model, x):
    assert model.layers.stages == ("one", "three")
    found = heatproof.explain(model, x, ["refine:gradcam", "refine:gradcam@three+one", "refine:gradcam@one"])
    assert found.layers["refine:gradcam"] == found.layers["refine:gradcam@one"] == ("one", "three")
    assert torch.equal(found["refine:gradcam"], found["refine:gradcam@one"])
    torch.testing.assert_close(found["refine:gradcam@three+one"], found["refine:gradcam"])
    last = heatproof.explain(model, x, ["refine:gradcam@three", "gradcam@three"])
    assert float((last["refine:gradcam@three"] - found["refine:gradcam"]).abs().max()) > 0.05
    with pytest.raises(LayerError, match=r"one of one, three. Got 'two'. Name all layers, as in refine:gradcam@two"):
        heatproof.explain(model, x, "refine:gradcam@two")


def test_all_layers_and_methods_come_from_one_forward_and_one_backward(model, x, monkeypatch):
    calls = {"forward": 0, "backward": 0}
    own, grad = model.module.forward, torch.autograd.grad

    def forward(z):
        calls["forward"] += 1
        return own(z)

    def backward(*args, **kwargs):
        calls["backward"] += 1
        return grad(*args, **kwargs)

    model.layers  # noqa: B018 - looked for now
    monkeypatch.setattr(model.module, "forward", forward)
    monkeypatch.setattr(torch.autograd, "grad", backward)
    heatproof.explain(model, x, ["refine:layercam", "refine:gradcam", "gradcam@one", "hirescam", "eigencam@one"])
    assert calls == {"forward": 1, "backward": 1}


# --- spellings ---


@pytest.mark.parametrize(
    ("spelling", "name", "layers", "operator"),
    [
        ("gradcam", "gradcam", (), ""),
        ("GradCAM@layer3", "gradcam@layer3", ("layer3",), ""),
        ("gradcam@features[7][-1]", "gradcam@features[7][-1]", ("features[7][-1]",), ""),
        ("gradcam++@layer4[-1][compat=true]", "gradcam++@layer4[-1][compat=true]", ("layer4[-1]",), ""),
        ("gradcam++[compat=false]", "gradcam++", (), ""),
        ("refine:layercam", "refine:layercam", (), "product"),
        ("refine:layercam[operator=product]", "refine:layercam", (), "product"),
        ("refine:gradcampp[operator=geometric,compat=true]", "refine:gradcam++[compat=true,operator=geometric]", (),
         "geometric"),
        ("refine:layercam@a.1+b", "refine:layercam@a.1+b", ("a.1", "b"), "product"),
    ],
)  # fmt: skip
def test_spellings(spelling, name, layers, operator):
    request = parsed(spelling)
    assert (request.name, request.layers, request.operator) == (name, layers, operator)
    assert parsed(request.name).name == name  # the canonical spelling is one


def test_options_may_come_apart_from_the_name():
    (request,) = requested({"refine:gradcam++": {"operator": "geometric", "compat": True}})
    assert request.name == "refine:gradcam++[compat=true,operator=geometric]"


@pytest.mark.parametrize(
    ("spelling", "error", "says"),
    [
        ("refine:ones", InvalidInput, r"maps of several layers. Got 'ones', which reads none"),
        ("refine:layercan", UnknownName, "Did you mean 'layercam'"),
        ("refine:layercam[operator=geometrik]", UnknownName, "Did you mean 'geometric'"),
        ("refine:layercam[operator=[1, 2]]", InvalidInput, r"`operator` must be text. Got \[1, 2\]"),
        ("refine:layercam[operator={a: b}]", InvalidInput, "`operator` must be text. Got {'a': 'b'}"),
        ("refine:layercam[operater=geometric]", UnknownName, r"option of 'layercam'.*Did you mean 'operator'"),
        ("gradcam[operator=product]", UnknownName, "No option of 'gradcam' is called 'operator'"),
        ("gradcam@one+two", InvalidInput, "A plain method has one layer"),
        ("half@one", InvalidInput, "'half' reads no layer"),
        ("refine:layercam@one+one", InvalidInput, "named once"),
        ("refine:", UnknownName, "No method is called 'refine:'"),
    ],
)
def test_spellings_that_mean_nothing(spelling, error, says):
    with pytest.raises(error, match=says):
        requested(spelling)


def test_the_prefix_too_may_be_written_in_capitals():
    assert parsed("Refine:LayerCAM").name == "refine:layercam"

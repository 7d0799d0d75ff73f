"""What every registered method must do, whoever added it."""

from functools import cache

import pytest
import torch
from torch import nn

from heatproof.attributions import ATTRIBUTIONS, FORMS, attribution, requested
from heatproof.engine import Batch, explain, explanation, refusals, resolve_layers
from heatproof.engine.batch import LayerBatch
from heatproof.errors import InvalidInput, NotApplicable, UnknownName
from heatproof.flags import Reason
from heatproof.models import Model, wrap
from heatproof.quantities import having

from .. import nets

METHODS = list(ATTRIBUTIONS)
SIDE = 16
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

#: Options with which a method that runs the network often stays affordable here.
QUICK: dict[str, dict[str, object]] = {
    "rise": {"masks": 60},
    "lime": {"samples": 60, "alpha": 1e-4, "segmenter": "grid[rows=3,columns=3]"},
    "kernelshap": {"samples": 60, "segmenter": "grid[rows=3,columns=3]"},
    "smoothgrad": {"samples": 5},
    "gradientshap": {"samples": 5},
    "integrated-gradients": {"steps": 8},
    "opticam": {"steps": 8},
    "extremal-perturbation": {"steps": 8},
    "meaningful-perturbation": {"steps": 8},
    "iba": {"steps": 4, "samples": 3},
    "sscam": {"samples": 3},
    "iscam": {"samples": 3},
}


class Glance(nets.Signed):
    """One block of attention over the positions, for methods that read attention; its stages are those of `Signed`."""

    def __init__(self):
        super().__init__()
        self.query = nn.Linear(7, 14)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(x))
        positions = x.flatten(2).transpose(1, 2)
        query, key = self.query(positions).chunk(2, 2)
        mixed = nn.functional.scaled_dot_product_attention(query[:, None], key[:, None], positions[:, None])[:, 0]
        x = self.three(mixed.transpose(1, 2).reshape(x.shape) + x)
        return self.head(torch.tanh(3 * self.hidden(x.mean((2, 3)))))


class Bent(nets.Signed):
    """ReLU in place of tanh at the second layer."""

    def __init__(self):
        super().__init__()
        self.two[1] = nn.ReLU()


NETWORKS = {"signed maps": nets.Signed, "linear head": nets.Plain, "attention": Glance, "some ReLU": Bent}


def asked(name: str) -> dict[str, dict[str, object]]:
    """The method with its quick options, as `explain` takes it."""
    return {name: QUICK.get(name, {})}


def model_of(net, device: str = "cpu") -> Model:
    return wrap(nets.seeded(net).to(device), size=(SIDE, 12), layer="two")


@cache
def shared_model(net) -> Model:
    """One model of a network for the tests that read maps only; that a call alters none has a test of its own."""
    return model_of(net)


@cache
def serves(name: str, net) -> bool:
    """Whether a method serves one of the networks."""
    model = shared_model(net)
    return not refusals(model, resolve_layers(model, requested(asked(name)), "two"))


@cache
def network_for(name: str):
    """The first network that the method serves."""
    return next(net for net in NETWORKS.values() if serves(name, net))


every_method = pytest.mark.parametrize("name", METHODS)
every_network = pytest.mark.parametrize("label", NETWORKS)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return nets.images(4, SIDE, 12)


@every_method
@every_network
@pytest.mark.parametrize("target", ["predicted", "least"])
def test_maps_are_finite_in_the_unit_range_and_say_something(name, label, target, x):
    """Or say that they say nothing: where no place speaks for the target, nothing is left after the ReLU."""
    net = NETWORKS[label]
    model = shared_model(net)
    if not serves(name, net):
        with pytest.raises(NotApplicable, match=f"{name}.* cannot explain"):
            explain(model, x, asked(name), target)
        return
    found = explain(model, x, asked(name), target)
    raw = explain(model, x, asked(name), target, raw=True)[name]
    maps = found[name]
    assert maps.shape == (4, SIDE, 12) and maps.dtype == torch.float32
    assert maps.isfinite().all() and not maps.requires_grad
    assert found.flags[name].count("") > (0 if target == "least" else 2)
    for one, signed, flag in zip(maps, raw, found.flags[name], strict=True):
        if flag:
            assert flag == "constant map" and (signed <= signed.amin().clamp_min(0)).all() and (one == 0).all()
        else:
            assert float(one.min()) == 0 and float(one.max()) == pytest.approx(1)


@every_method
@every_network
def test_batch_equals_single_in_any_order(name, label, x):
    """Raw maps one by one; then the maps that are made of them, three images and one, in another order."""
    if not serves(name, NETWORKS[label]):
        return
    model = shared_model(NETWORKS[label])
    together = explain(model, x, asked(name), raw=True)[name]
    single = torch.cat([explain(model, one[None], asked(name), raw=True)[name] for one in x])
    torch.testing.assert_close(single, together, rtol=1e-3, atol=1e-5)
    together = explain(model, x, asked(name))[name]
    turned = explain(model, x.flip(0), asked(name), batch_size=3)[name].flip(0)
    torch.testing.assert_close(turned, together, rtol=1e-3, atol=1e-5)


@every_method
def test_the_same_seed_gives_the_same_maps_bit_for_bit(name, x):
    model = model_of(network_for(name))
    first = explain(model, x, asked(name), seed=3)[name]
    torch.rand(7)  # whatever the global generator does
    assert torch.equal(explain(model, x, asked(name), seed=3)[name], first)
    assert torch.equal(explain(model_of(network_for(name)), x, asked(name), seed=3)[name], first)
    drawn = "generator" in ATTRIBUTIONS[name].needs
    assert torch.equal(explain(model, x, asked(name), seed=4)[name], first) is not drawn


@every_method
def test_arguments_and_network_stay_as_they_were(name, x):
    """The function itself is called with its quantities, and none of them changes."""
    model = model_of(network_for(name))
    before = nets.traces(model.module)
    positions = resolve_layers(model, requested(asked(name)), "two")
    batch = Batch.of(model, positions, x, ids=list("abcd"))
    entry = ATTRIBUTIONS[name]
    with model.evaluating(), torch.no_grad():
        given = LayerBatch(batch.by_target[0], "two", positions[0].request).given()
        copies = {need: value.clone() for need, value in given.items() if isinstance(value, torch.Tensor)}
        entry(given, positions[0].request.options)
        for need, copy in copies.items():
            assert torch.equal(given[need], copy), need
    del batch, given
    assert nets.traces(model.module) == before


@every_method
@pytest.mark.parametrize("device", DEVICES)
def test_the_device_is_kept(name, device, x):
    found = explain(model_of(network_for(name), device), x, asked(name))
    assert found[name].device.type == device
    if device != "cpu":  # on the CPU it would be the call above
        expected = explain(shared_model(network_for(name)), x, asked(name))[name]
        torch.testing.assert_close(found[name].cpu(), expected, rtol=1e-2, atol=1e-3)


@every_method
def test_constant_activations_are_flagged_and_no_crash(name, x):
    """A dead layer: CAMs have nothing to say, and say so; so do others that ask the network, up to what they drew."""
    net = nets.seeded(network_for(name))
    with torch.no_grad():
        net.two[0].weight.zero_(), net.two[0].bias.zero_()
    found = explain(wrap(net, size=(SIDE, 12), layer="two"), x, asked(name))
    if ATTRIBUTIONS[name].traits["form"] == "cam":
        assert (found[name] == 0).all()
        assert set(found.flags[name]) <= {"constant map", "non-finite map"}
    elif having(ATTRIBUTIONS[name].needs, "asks"):
        assert found[name].isfinite().all() and set(found.flags[name]) <= {"constant map", ""}
    else:
        assert found.flags[name] == [""] * 4


@every_method
def test_a_flat_image_is_no_crash(name, x):
    flat = torch.cat([x[:1], torch.full_like(x[:1], 0.5)])
    model = shared_model(network_for(name))
    found = explain(model, flat, asked(name))
    assert found[name].isfinite().all()
    assert found.flags[name][0] == ""
    torch.testing.assert_close(found[name][:1], explain(model, x[:1], asked(name))[name], rtol=1e-3, atol=1e-5)


@every_method
def test_an_image_without_numbers_is_flagged_and_the_others_are_fine(name, x):
    """Inside the engine, where a network's own NaN would arrive; `explain` refuses such images."""
    broken = x.clone()
    broken[1] = float("nan")
    model = shared_model(network_for(name))
    positions = resolve_layers(model, requested(asked(name)), "two")
    found, fine = (
        explanation(Batch.of(model, positions, images, target_rule=1, ids=list("abcd")), positions)
        for images in (broken, x)
    )
    others = [0, 2, 3]
    torch.testing.assert_close(found.display(name)[others], fine.display(name)[others], rtol=1e-3, atol=1e-5)
    assert found.display(name).isfinite().all()
    asks = having(ATTRIBUTIONS[name].needs, "asks")
    said = Reason.NO_ANSWER.value if asks else "non-finite map" if name == "edges" else ""
    assert found.flags[name] == ["", said, "", ""]


@every_method
def test_a_method_is_described(name):
    entry = ATTRIBUTIONS[name]
    assert entry.summary.endswith((".", "target.")) or len(entry.summary) > 20
    assert entry.source
    assert entry.traits["form"] in FORMS
    described = entry.described()
    assert described["name"] == name and described["control"] is entry.traits["control"]


def test_an_unknown_quantity_is_an_error_at_registration():
    with pytest.raises(UnknownName, match=r"No quantity .*'activation'. Did you mean 'activations'"):

        @attribution("for a test")
        def wants(activation):
            """Asks for what is not there."""

    with pytest.raises(UnknownName, match="'mask'"):  # a word of the vocabulary that this engine does not hand over

        @attribution("for a test")
        def cheats(mask):
            """Would like to see the truth."""

    assert "for a test" not in ATTRIBUTIONS


@pytest.mark.parametrize("taken", ["gradcam", "Grad-CAM", "GradCAMPlusPlus", "fake_cam"])
def test_a_name_twice_is_an_error(taken):
    with pytest.raises(InvalidInput, match="is taken by"):

        @attribution(taken)
        def another(x):
            """The same again."""


def test_an_unknown_form_is_an_error():
    with pytest.raises(InvalidInput, match=r"`form` must be one of cam, rgb, signed, display\. Got 'colour'"):
        attribution("for a test", form="colour")

"""Foreign methods: a user's function and maps made beforehand give what they give outside, and are checked here."""

import importlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.attributions.stored import fitted
from heatproof.engine import Batch, explanation, resolve_layers
from heatproof.errors import HeatproofWarning, InvalidInput, UnknownName
from heatproof.models import wrap
from heatproof.plugins import imported
from heatproof.tensors import minmax, upsampled

from .. import nets

SIDE = 16


MISSING = "there is no map of this image"


@pytest.fixture(autouse=True)
def clean_registry():
    before = set(ATTRIBUTIONS)
    yield
    for name in set(ATTRIBUTIONS) - before:
        ATTRIBUTIONS.remove(name)
    PLUGIN_METHODS.recipes.clear()


@pytest.fixture
def model():
    return wrap(nets.seeded(nets.Plain), size=SIDE, layer="two")


@pytest.fixture
def x():
    return nets.images(3, SIDE)


def gradient_times_input(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """As any library would have it."""
    chosen = model(inputs).gather(1, targets[:, None]).sum()
    return torch.autograd.grad(chosen, inputs)[0] * inputs


def of_quantities(activations, gradients, *, power: float = 1.0):
    """Grad-CAM under another name."""
    return (gradients.mean((2, 3), keepdim=True) * activations).sum(1).sign() * power


# --- functions ---


def test_a_function_of_quantities_is_a_method(model, x):
    def mine(activations, gradients):
        return (gradients.mean((2, 3), keepdim=True) * activations).sum(1)

    assert heatproof.register("mine", mine) == "mine"
    found = heatproof.explain(model, x, ["mine", "gradcam", "refine:mine@one+two"])
    torch.testing.assert_close(found["mine"], found["gradcam"])
    assert found.layers["mine"] == ("two",)


def test_a_function_of_model_inputs_targets(model, x):
    heatproof.register("signed one", gradient_times_input, form="signed")
    heatproof.register("shown one", gradient_times_input)
    found = heatproof.explain(model, x, ["signed one", "shown one"], [3, 0, 1])
    z = model.normalise(x).requires_grad_()
    product = gradient_times_input(model.module, z, torch.tensor([3, 0, 1])).detach()
    torch.testing.assert_close(found["signed one"], minmax(product.sum(1).relu()))
    torch.testing.assert_close(found["shown one"], minmax(product.abs().amax(1)))


def test_captum_as_it_is(model, x):
    attr = pytest.importorskip("captum.attr")
    heatproof.register(
        "deep", lambda net, inputs, targets: attr.LayerGradCam(net, net.two).attribute(inputs, targets).relu()
    )
    found = heatproof.explain(model, x, ["deep", "gradcam"])
    torch.testing.assert_close(found["deep"], found["gradcam"])


def test_pytorch_grad_cam_as_it_is(model, x):
    """Another library's method under a name of one's own; the layer is asked for by its own name, and no hook stays."""
    peer = pytest.importorskip("pytorch_grad_cam")

    def seg_eigen(net, inputs, targets):
        wanted = [peer.utils.model_targets.ClassifierOutputTarget(int(c)) for c in targets]
        return peer.SegEigenCAM(model=net, target_layers=[net.two])(input_tensor=inputs, targets=wanted)

    heatproof.register("seg-eigen", seg_eigen, aliases="their SegEigenCAM")
    before = nets.traces(model.module)
    found = heatproof.explain(model, x, "their SegEigenCAM", [0, 4, 2])["their SegEigenCAM"]
    assert nets.traces(model.module) == before
    z = model.normalise(x).requires_grad_()
    torch.testing.assert_close(found, torch.from_numpy(seg_eigen(model.module, z, [0, 4, 2])), atol=1e-5, rtol=0)


def test_the_function_gets_the_users_own_module(model, x):
    seen = []
    heatproof.register("looks", lambda net, inputs, targets: seen.append(net) or inputs.detach())
    heatproof.explain(model, x, "looks")
    assert seen == [model.module]
    heatproof.explain(model, x, "looks", output="probability")
    assert seen[1] is not model.module
    torch.testing.assert_close(seen[1](model.normalise(x)), model.logits(x).softmax(1))


def test_a_module_that_gives_a_tuple_is_seen_as_logits(x):
    module = nets.seeded(nets.Wrapped)
    heatproof.register("any", gradient_times_input)
    found = heatproof.explain(wrap(module, size=SIDE), x, "any", 2)
    z = wrap(module, size=SIDE).normalise(x).requires_grad_()
    expected = torch.autograd.grad(module(z)[0][:, 2].sum(), z)[0] * z
    torch.testing.assert_close(found["any"], minmax(expected.detach().abs().amax(1)))


def test_half_precision_is_seen_as_float(x):
    module = nets.seeded(nets.Plain).to(torch.bfloat16)
    heatproof.register("any", gradient_times_input)
    assert heatproof.explain(wrap(module, size=SIDE), x, "any").flags["any"] == [""] * 3


def test_options(model, x):
    def scaled(model, inputs, targets, power: float = 1.0, reverse=False, other=None):
        maps = inputs.detach().abs().sum(1) ** power
        return -maps if reverse else maps

    heatproof.register("scaled", scaled)
    assert dict(ATTRIBUTIONS["scaled"].options) == {"power": 1.0, "reverse": False}
    found = heatproof.explain(model, x, ["scaled", "scaled[power=2]", "scaled[reverse=true]"])
    bright = model.normalise(x).abs().sum(1)
    torch.testing.assert_close(found["scaled[power=2]"], minmax(bright**2))
    torch.testing.assert_close(found["scaled[reverse=true]"], minmax(-bright))
    with pytest.raises(UnknownName, match="Did you mean 'power'"):
        heatproof.explain(model, x, "scaled[powr=2]")
    with pytest.raises(InvalidInput, match="`reverse` of 'scaled' must be true or false"):
        heatproof.explain(model, x, "scaled[reverse=2]")


def test_what_it_does_to_its_arguments_stays_there(model, x):
    def vandal(model, inputs, targets):
        with torch.no_grad():
            inputs.zero_()
            targets.zero_()
        return torch.rand(len(inputs), SIDE, SIDE)

    heatproof.register("vandal", vandal)
    kept, before = x.clone(), nets.traces(model.module)
    found = heatproof.explain(model, x, ["vandal", "gradcam"], [1, 2, 3])
    assert torch.equal(x, kept)
    assert nets.traces(model.module) == before
    torch.testing.assert_close(found["gradcam"], heatproof.explain(model, x, "gradcam", [1, 2, 3])["gradcam"])


@pytest.mark.parametrize("one_by_one", [False, True])
def test_random_numbers_are_seeded_and_the_callers_are_left_alone(model, x, one_by_one):
    def noise(model, inputs, targets):
        return torch.rand(len(inputs), SIDE, SIDE).numpy() + np.random.rand(len(inputs), SIDE, SIDE)

    heatproof.register("noise", noise, one_by_one=one_by_one)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = heatproof.explain(model, x, "noise")["noise"]
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    torch.rand(7), np.random.rand(7)
    torch.testing.assert_close(heatproof.explain(model, x, "noise")["noise"], first)
    assert not torch.equal(heatproof.explain(model, x, "noise", seed=1)["noise"], first)
    if one_by_one:
        torch.testing.assert_close(heatproof.explain(model, x[1:2], "noise")["noise"], first[1:2])


def test_the_callers_random_numbers_survive_an_error(model, x):
    def broken(model, inputs, targets):
        np.random.rand(3)
        raise FloatingPointError("no")

    heatproof.register("broken", broken)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[2]
    with pytest.raises(FloatingPointError, match="no"):
        heatproof.explain(model, x, "broken")
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[2] == numpy_state


@pytest.mark.parametrize("give", [lambda t: t, lambda t: t.numpy(), lambda t: t.double().numpy()])
def test_shapes_that_are_maps(give):
    inputs, maps = torch.zeros(2, 3, 8, 6), torch.rand(2, 8, 6)
    torch.testing.assert_close(fitted(give(maps), inputs, "display", "m"), maps)
    torch.testing.assert_close(fitted(give(maps[:, None]), inputs, "display", "m"), maps)
    several = torch.stack([maps, -2 * maps], 1)
    torch.testing.assert_close(fitted(give(several), inputs, "display", "m"), 2 * maps)
    torch.testing.assert_close(fitted(give(several), inputs, "signed", "m"), -maps)
    torch.testing.assert_close(fitted(give(several), inputs, "rgb", "m"), several)
    small = torch.rand(2, 4, 3)
    torch.testing.assert_close(fitted(give(small), inputs, "display", "m"), upsampled(small, (8, 6)))


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        (torch.rand(8, 6), r"for each of 2 images: \(N, H, W\).*Got \(8, 6\)"),
        (torch.rand(3, 8, 6), r"Got \(3, 8, 6\)"),
        (torch.rand(2, 3, 4, 8, 6), r"Got \(2, 3, 4, 8, 6\)"),
        (torch.rand(2, 0, 8, 6), r"Got \(2, 0, 8, 6\)"),
        ("no map", "'m' must give a tensor or an array of numbers. Got str"),
        (None, "Got NoneType"),
        ((torch.rand(2, 8, 6), 3), "Got tuple"),
    ],
)
def test_shapes_that_are_none(maps, said):
    with pytest.raises(InvalidInput, match=said):
        fitted(maps, torch.zeros(2, 3, 8, 6), "display", "m")


@pytest.mark.parametrize(
    ("name", "method", "settings", "said"),
    [
        ("gradcam", gradient_times_input, {}, "'gradcam' is taken"),
        ("GradCAM", gradient_times_input, {}, "taken by 'gradcam'"),
        ("", gradient_times_input, {}, "name must be text"),
        ("a@b", gradient_times_input, {}, "name must be text"),
        ("python:a:b", gradient_times_input, {}, "name must be text"),
        ("mine", 7, {}, "must be a function, or maps.* Got int"),
        ("mine", lambda image: image, {}, r"must take \(model, inputs, targets\), or quantities.*Got \(image\)"),
        ("mine", gradient_times_input, {"form": "signd"}, "Did you mean 'signed'"),
        ("mine", gradient_times_input, {"form": "cam"}, "No `form` is called 'cam'"),
        ("mine", lambda activations, gradient: gradient, {}, "'gradient'. Did you mean 'gradients'"),
        ("mine", "nowhere/at/all", {}, "must be a folder .* There is no nowhere/at/all"),
        ("mine", {}, {}, "at least one map"),
        ("mine", "python:os.path:joinn", {}, "Did you mean 'join'"),
    ],
)
def test_what_cannot_be_registered(name, method, settings, said):
    with pytest.raises((InvalidInput, UnknownName), match=said):
        heatproof.register(name, method, **settings)
    assert "mine" not in ATTRIBUTIONS


def test_registered_twice():
    heatproof.register("mine", gradient_times_input)
    with pytest.raises(InvalidInput, match="'mine' is taken"):
        heatproof.register("mine", gradient_times_input)


# --- by name ---


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "toy_methods.py").write_text(
        "def bright(model, inputs, targets, power=1.0):\n    return inputs.detach().abs().sum(1) ** power\n"
        "def cam(activations, gradients):\n    return (gradients * activations).sum(1)\n"
        "class Box:\n    @staticmethod\n    def inner(model, inputs, targets):\n        return inputs.detach()\n"
        "number = 7\n"
    )
    (tmp_path / "toy_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    yield "toy_methods"
    sys.modules.pop("toy_methods", None)


def test_a_function_by_name(model, x, project):
    spelled = [f"python:{project}:bright[power=2]", f"python:{project}:cam@one", f"python:{project}:Box.inner"]
    found = heatproof.explain(model, x, spelled)
    torch.testing.assert_close(found[spelled[0]], minmax(model.normalise(x).abs().sum(1) ** 2))
    torch.testing.assert_close(found[spelled[1]], heatproof.explain(model, x, "hirescam@one")["hirescam@one"])
    assert PLUGIN_METHODS.register_from(f"python:{project}:bright") == f"python:{project}:bright"
    assert str(Path.cwd()) not in sys.path  # only while it is needed


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("python:toy_methods:brigt", UnknownName, "Did you mean 'bright'"),
        ("python:toy_methods", InvalidInput, "Expected python:package.module:function"),
        ("python:toy_nowhere:f", InvalidInput, "There is no 'toy_nowhere'. Run from the folder that holds it"),
        ("python:toy_broken:f", InvalidInput, "cannot be imported. It raised ZeroDivisionError"),
        ("python:toy_methods:number", InvalidInput, "must be a function. Got int"),
        ("maps:nowhere", InvalidInput, "There is no nowhere"),
        ("maps:toy_methods.py", InvalidInput, "must be a folder of .npy files or of grey images, or an .npz"),
    ],
)
def test_a_name_that_leads_nowhere(model, x, project, spec, error, said):
    with pytest.raises(error, match=said):
        heatproof.explain(model, x, spec)
    with pytest.raises(InvalidInput, match="Expected python:"):
        PLUGIN_METHODS.register_from("gradcamm")


# --- maps made beforehand ---


def explained(model, x, method, ids, condition=""):
    positions = resolve_layers(model, heatproof.attributions.requested([method]), "two")
    return explanation(Batch.of(model, positions, x, target_rule=0, ids=ids, condition=condition), positions)


@pytest.fixture
def folder(tmp_path):
    maps = {name: np.random.default_rng(i).random((SIDE, SIDE)) for i, name in enumerate("abc")}
    for name, array in maps.items():
        path = tmp_path / "cats" / f"{name}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, array)
    (tmp_path / "gaussian-noise-3" / "cats").mkdir(parents=True)
    np.save(tmp_path / "gaussian-noise-3" / "cats" / "a.npy", 1 - maps["a"])
    np.savez(tmp_path / "all.npz", **{f"cats/{k}.png": v for k, v in maps.items()})
    return tmp_path, maps


@pytest.mark.parametrize("how", ["folder", "npz", "mapping"])
@pytest.mark.parametrize("prefix", ["", "/photos/"])
def test_maps_by_the_images_names(model, x, folder, how, prefix):
    where, maps = folder
    spec = {"folder": f"maps:{where}", "npz": f"maps:{where}/all.npz", "mapping": "mine"}[how]
    if how == "mapping":
        heatproof.register("mine", {f"cats/{k}": v for k, v in maps.items()})
    found = explained(model, x, spec, [f"{prefix}cats/{k}.png" for k in "bca"])
    expected = torch.tensor(np.stack([maps[k] for k in "bca"])).float()
    torch.testing.assert_close(found.display(spec), minmax(expected))
    assert found.flags[spec] == [""] * 3


def test_maps_of_perturbed_images_and_missing_ones(model, x, folder):
    where, maps = folder
    spec = f"maps:{where}"
    found = explained(model, x, spec, ["cats/a.png", "cats/b.png", "cats/c.png"], "gaussian-noise:3")
    torch.testing.assert_close(found.display(spec)[0], minmax(1 - torch.tensor(maps["a"]).float()[None])[0])
    assert found.flags[spec] == ["", MISSING, MISSING]
    with pytest.warns(HeatproofWarning, match="holds no map of 'cats/z.png'"):
        found = explained(model, x, spec, ["cats/a.png", "cats/z.png", "cats/c.png"], "clean")
    assert found.flags[spec] == ["", MISSING, ""]


def test_a_map_does_not_leave_its_folder(model, x, folder):
    where, maps = folder
    np.save(where / "secret.npy", maps["a"])
    (where / "inner").mkdir()
    np.save(where / "inner" / "other.npy", maps["a"])
    with pytest.warns(HeatproofWarning, match="holds no map"):
        found = explained(model, x, f"maps:{where}/inner", ["../secret.png", "other.png", f"{where}/secret.png"])
    assert found.flags[f"maps:{where}/inner"] == [MISSING, "", MISSING]


def test_maps_by_the_names_that_explain_gives(model, x):
    ids = heatproof.explain(model, x, "gradcam").ids
    maps = {identity: np.random.default_rng(0).random((4, 4)) for identity in ids}
    heatproof.register("mine", maps)
    found = heatproof.explain(model, x, "mine")["mine"]
    expected = upsampled(torch.tensor(np.stack(list(maps.values()))).float(), (SIDE, SIDE))
    torch.testing.assert_close(found, minmax(expected))


def test_maps_need_names(model, x):
    heatproof.register("mine", {"a": np.ones((4, 4))})
    with pytest.raises(InvalidInput, match=r"looks maps up by the images' names. Got 0 for 3"):
        explained(model, x, "mine", ())


# --- worker processes ---


def test_what_can_be_exported_arrives(model, x):
    heatproof.register("sent", gradient_times_input, form="signed")
    heatproof.register("array", {"a": np.eye(4)})
    entries = [ATTRIBUTIONS[name] for name in ("sent", "array", "gradcam", "random")]
    exports = PLUGIN_METHODS.exported(entries)
    assert len(exports) == 2
    before = heatproof.explain(model, x, "sent")["sent"]
    for name in ("sent", "array"):
        ATTRIBUTIONS.remove(name)
    imported(exports)
    imported(exports)
    torch.testing.assert_close(heatproof.explain(model, x, "sent")["sent"], before)
    assert "array" in ATTRIBUTIONS


def test_a_method_of_another_package_is_exported_by_its_function():
    heatproof.attributions.attribution("decorated")(of_quantities)
    (export,) = PLUGIN_METHODS.exported([ATTRIBUTIONS["decorated"]])
    assert pickle.loads(export)[1].method is of_quantities


def test_what_cannot_be_exported():
    heatproof.register("mine", lambda model, inputs, targets: inputs)
    with pytest.raises(InvalidInput, match=r"'mine' must be importable for several worker processes.*workers=1"):
        PLUGIN_METHODS.exported([ATTRIBUTIONS["mine"]])


def test_a_notebooks_function_is_not_exported(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "of_notebook", gradient_times_input, raising=False)
    monkeypatch.setattr(main, "__file__", "script.py", raising=False)  # a worker of pytest-xdist has none
    monkeypatch.setattr(gradient_times_input, "__module__", "__main__")
    monkeypatch.setattr(gradient_times_input, "__qualname__", "of_notebook")
    heatproof.register("mine", gradient_times_input)
    assert len(PLUGIN_METHODS.exported([ATTRIBUTIONS["mine"]])) == 1  # a script: its workers run it again
    monkeypatch.delattr(main, "__file__")
    with pytest.raises(InvalidInput, match="defined in a notebook"):
        PLUGIN_METHODS.exported([ATTRIBUTIONS["mine"]])


@pytest.mark.parametrize("name", ["all", "Cams"])
def test_a_name_of_a_family_is_no_methods(name):
    with pytest.raises(InvalidInput, match="names a family of methods"):
        heatproof.register(name, lambda model, inputs, targets: inputs[:, 0])

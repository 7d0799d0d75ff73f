"""Foreign metrics: functions of the user's and metrics of Quantus give what they give outside, and are checked here."""

import importlib
import inspect
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof.errors import InvalidInput, MissingExtra, NotApplicable, UnknownName
from heatproof.flags import Reason
from heatproof.metrics import METRICS, composite, metric
from heatproof.metrics.foreign import PLUGIN_METRICS
from heatproof.metrics.metric_request import parsed_metric, requested_metrics
from heatproof.metrics.quantus_metrics import EXPLAINS, one_number
from heatproof.models import wrap
from heatproof.plugins import imported

from .. import nets

SIDE = 16


@pytest.fixture(autouse=True)
def clean_registry():
    before = set(METRICS)
    yield
    for name in set(METRICS) - before:
        METRICS.remove(name)
    PLUGIN_METRICS.recipes.clear()


@pytest.fixture
def model():
    net = nets.told_apart(nets.seeded(nets.Signed), SIDE)
    return wrap(net, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), size=SIDE, layer="two")


@pytest.fixture
def x():
    return nets.images(3, SIDE)


def masks(*there: bool) -> torch.Tensor:
    found = torch.zeros(len(there), SIDE, SIDE, dtype=torch.bool)
    found[torch.tensor(there), 4:9, 3:8] = True
    return found


def values(scores: heatproof.Scores, name: str, method: str = "gradcam") -> np.ndarray:
    return scores.values(method, name).numpy()


def flags(scores: heatproof.Scores, metric: str, method: str = "gradcam") -> list[str]:
    return [row.flag for row in scores.rows if (row.method, row.metric) == (method, metric)]


def drop_of_brightest(model: nn.Module, x_batch, y_batch, a_batch, share=0.1):
    """What the logit loses when the map's brightest places are covered, image by image."""
    found = []
    for x, y, a in zip(x_batch, y_batch, a_batch, strict=True):
        covered = x.copy()
        covered[:, a[0] >= np.quantile(a, 1 - share)] = 0
        both = model(torch.from_numpy(np.stack([x, covered])))[:, int(y)]
        found.append(float(both[0] - both[1]))
    return found


def area(maps, *, above: float = 0.5):
    """Share of a map above a value."""
    return (maps > above).double().flatten(1).mean(1)


# --- functions ---


def test_a_function_of_quantities_is_a_metric(model, x):
    assert heatproof.register_metric("area", area, better="low", range=(0, 1), family="complexity") == "area"
    scores = heatproof.score(model, x, ["gradcam"], ["area", "area[above=.2]"])
    maps = heatproof.explain(model, x, "gradcam")["gradcam"].numpy()
    for name, above in (("area", 0.5), ("area[above=0.2]", 0.2)):
        np.testing.assert_allclose(values(scores, name), [(one > above).mean() for one in maps])
    assert scores.facts["area"]["better"] == "low" and scores.facts["area"]["family"] == "complexity"
    assert "area" not in [request.key for request in requested_metrics("family:complexity")], "a family is ours"


def test_a_function_in_the_style_of_quantus(model, x):
    heatproof.register_metric("drop", drop_of_brightest, better="high")
    scores = heatproof.score(model, x, ["gradcam"], ["drop[share=.3]"], target=[3, 0, 1])
    maps = heatproof.explain(model, x, "gradcam", [3, 0, 1])["gradcam"][:, None].numpy()
    with torch.no_grad():
        expected = drop_of_brightest(model.module, model.normalise(x).numpy(), [3, 0, 1], maps, 0.3)
    np.testing.assert_allclose(values(scores, "drop[share=0.3]"), expected, rtol=1e-4)
    assert np.ptp(expected) > 0.05


def test_what_a_function_asks_for_besides(model, x):
    seen = {}

    def mine(model, x_batch, y_batch, a_batch, s_batch=None, device=None, channel_first=None, other=None):
        seen.update(s=s_batch, device=device, first=channel_first, other=other, shapes=(x_batch.shape, a_batch.shape))
        return torch.zeros(len(x_batch))

    heatproof.register_metric("mine", mine, better="high")
    heatproof.score(model, x, ["gradcam"], ["mine"], masks=masks(True, False, True))
    assert seen["s"].shape == (3, 1, SIDE, SIDE) and seen["s"].any((1, 2, 3)).tolist() == [True, False, True]
    assert (seen["device"], seen["first"], seen["other"]) == ("cpu", True, None)
    assert seen["shapes"] == ((3, 3, SIDE, SIDE), (3, 1, SIDE, SIDE))
    assert not METRICS["mine"].options


def test_which_metrics_read_the_ground_truth():
    """Those that name the mask or the parts of the object, or have such a part; of arrays those that look at it."""

    def masked(model, x_batch, y_batch, a_batch, s_batch=None):
        return torch.zeros(len(x_batch))

    heatproof.register_metric("masked", masked, better="high", family="fidelity")
    heatproof.register_metric("drop", drop_of_brightest, better="high")
    composite("both", parts={"a": "energy", "b": "road"}, better="high", range=(0, 1), source="here")(_both)
    for name in ("energy", "grid-pointing-game", "part-deletion", "part-correctness", "masked", "both"):
        assert parsed_metric(name).facts()["reads_truth"], name
    for name in ("drop", "road", "arcc", "complexity"):
        assert not parsed_metric(name).facts()["reads_truth"], name


def _both(a, b):
    """Half of each."""
    return (a + b) / 2


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_function_that_explains_again(model, x, one_by_one):
    """The method under test, at other images and at another network."""

    def again(model, x_batch, y_batch, a_batch, explain_func=None):
        same = explain_func(model=model, inputs=x_batch, targets=y_batch)
        twin = pickle.loads(pickle.dumps(model))
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.mul_(-1)
        other = explain_func(model=twin, inputs=x_batch[..., ::-1], targets=(y_batch + 1) % 5, device="cpu")
        seen.append((twin, other))
        return np.abs(same - a_batch).max((1, 2, 3))

    seen = []
    heatproof.register_metric("again", again, better="low", one_by_one=one_by_one)
    scores = heatproof.score(model, x, {"gradcam": {}, "given": torch.rand(3, SIDE, SIDE)}, ["again"], target=1)
    assert values(scores, "again").max() < 1e-4
    assert flags(scores, "again", "given") == [Reason.MADE_ELSEWHERE.value] * 3
    assert len(seen) == (3 if one_by_one else 1)
    twin = wrap(seen[0][0], model.mean, model.std, SIDE, layer="two")
    expected = heatproof.explain(twin, x.flip(3), "gradcam", 2)["gradcam"]
    np.testing.assert_allclose(np.concatenate([other for _, other in seen])[:, 0], expected, atol=1e-3)


def test_one_image_at_a_time_has_no_neighbours_and_its_own_numbers(model, x):
    def noisy(model, x_batch, y_batch, a_batch):
        return a_batch.mean((1, 2, 3)) / a_batch.mean() + np.random.rand() + torch.rand(1).item()

    heatproof.register_metric("alone", noisy, better="low", one_by_one=True)
    together = values(heatproof.score(model, x, ["gradcam"], ["alone"]), "alone")
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    turned = values(heatproof.score(model, x.flip(0), ["gradcam"], ["alone"], batch_size=2), "alone")
    assert torch.equal(torch.get_rng_state(), state) and np.array_equal(np.random.get_state()[1], numbers)
    np.testing.assert_allclose(turned[::-1], together, rtol=1e-6)
    assert len(set(together.round(9))) == 3
    other = values(heatproof.score(model, x, ["gradcam"], ["alone"], seed=1), "alone")
    assert (other != together).all()


def test_maps_that_say_nothing_are_flagged_and_never_praised(model, x):
    maps = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    maps[1] = 0.7

    def praise(model, x_batch, y_batch, a_batch):
        asked.append(len(a_batch))
        return np.ones(len(a_batch))

    asked: list[int] = []
    heatproof.register_metric("praise", praise, better="high")
    heatproof.register_metric("alone", praise, better="high", one_by_one=True)
    heatproof.register_metric("stated", praise, better="high", degenerate=0)
    heatproof.register_metric("formula", praise, better="high", degenerate=None, one_by_one=True)
    scores = heatproof.score(model, x, {"given": maps}, ["praise", "alone", "stated", "formula"])
    expected = {"praise": math.nan, "alone": math.nan, "stated": 0, "formula": 1}
    for name, value in expected.items():
        np.testing.assert_array_equal(values(scores, name, "given"), [1, value, 1])
        assert flags(scores, name, "given") == ["", "constant map", ""]
    assert asked == [3, 1, 1, 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda model, x_batch, y_batch, a_batch: [1.0, 2.0], r"3 numbers, one for each image. Got \(2,\)"),
        (lambda model, x_batch, y_batch, a_batch: np.ones((3, 2)), r"one for each image. Got \(3, 2\)"),
        (lambda model, x_batch, y_batch, a_batch: "good", "one number for each image. Got str"),
    ],
)
def test_what_is_no_score_is_an_error(model, x, given, message):
    heatproof.register_metric("mine", given, better="high")
    with pytest.raises(InvalidInput, match=message):
        heatproof.score(model, x, ["gradcam"], ["mine"])


@pytest.mark.parametrize(
    ("name", "function", "more", "message"),
    [
        ("mine", lambda model, x_batch: 0, {"better": "high"}, r"must take \(model, x_batch, y_batch, a_batch\)"),
        ("mine", 3, {"better": "high"}, "must be a function, or one of Quantus. Got int"),
        ("mine", "complexity", {"better": "high"}, "python:package.module:function. Got 'complexity'"),
        ("mine", area, {}, "`better` of 'mine' must be 'high' or 'low'. Got None"),
        ("mine", area, {"better": "up"}, "Got 'up'"),
        ("complexity", area, {"better": "low"}, "names a family"),
        ("average-drop", area, {"better": "low"}, "is taken by 'average-drop'"),
        ("a[b]", area, {"better": "low"}, "text without"),
        ("mine", area, {"better": "low", "family": "beauty"}, "`family` must be one of"),
    ],
)
def test_what_is_no_metric_is_an_error(name, function, more, message):
    with pytest.raises(InvalidInput, match=message):
        heatproof.register_metric(name, function, **more)


# --- by name ---

MODULE = '''
"""A project's own metric."""

from helpers_of_metrics import SHARE


def brightest(model, x_batch, y_batch, a_batch, share=SHARE):
    """Share of pixels above `share`."""
    return (a_batch > share).mean((1, 2, 3))


brightest.better = "low"
brightest.range = (0, 1)
brightest.family = "complexity"


def silent(model, x_batch, y_batch, a_batch):
    return a_batch.mean((1, 2, 3))
'''


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text(MODULE, "utf-8")
    (tmp_path / "helpers_of_metrics.py").write_text("SHARE = 0.5\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("own_metrics", "helpers_of_metrics"):
        sys.modules.pop(name, None)


def test_a_function_by_its_name(model, x, project):
    name = "python:own_metrics:brightest"
    scores = heatproof.score(model, x, ["gradcam"], [name, f"{name}[share=.2]"])
    maps = heatproof.explain(model, x, "gradcam")["gradcam"].numpy()
    np.testing.assert_allclose(values(scores, f"{name}[share=0.2]"), (maps > 0.2).mean((1, 2)))
    assert scores.facts[name]["better"] == "low" and scores.facts[name]["range"] == [0, 1]
    assert METRICS[name].summary == "Share of pixels above `share`."
    assert PLUGIN_METRICS.register_from(name) == name
    with pytest.raises(InvalidInput, match=r'`better` of .* Write `function.better = "high"`'):
        parsed_metric("python:own_metrics:silent")
    with pytest.raises(UnknownName, match="Did you mean 'brightest'"):
        parsed_metric("python:own_metrics:brighest")
    with pytest.raises(InvalidInput, match=r"python:package.module:function"):
        parsed_metric("python:own_metrics")


def test_a_registered_function_by_its_name_says_what_it_said(monkeypatch):
    home = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "own_home", home)
    monkeypatch.setattr(home, "filed", lambda maps: maps.double().flatten(1).mean(1), raising=False)
    metric("filed", family="complexity", better="low", range=(0, 1), passes="none", degenerate=1)(home.filed)
    traits = parsed_metric("python:own_home:filed").entry.traits
    assert (traits["better"], traits["range"], traits["degenerate"]) == ("low", (0, 1), 1)


# --- Quantus ---

#: Options that let their metrics end soon.
QUICK = {
    "nr_samples": 2, "nr_steps": 4, "nr_runs": 5, "subset_size": 20, "features_in_step": 64, "num_classes": 5,
    "k": 10, "patch_size": 4, "n_perturb_samples": 2, "regions_evaluation": 3,
}  # fmt: skip
#: What the pinned version (0.6.0) cannot do with three channels, or with a network whose first module is no layer.
BROKEN = {"IROF", "ROAD", "NonSensitivity", "InputInvariance", "SensitivityN"}


def classes() -> dict[str, type]:
    constants = pytest.importorskip("quantus.helpers.constants")
    found = {kind.__name__: kind for group in constants.AVAILABLE_METRICS.values() for kind in group.values()}
    return {name: kind for name, kind in found.items() if name not in heatproof.metrics.quantus_metrics.ABSENT}


def test_every_metric_of_quantus_that_works_there_works_here(model, x):
    names = [name for name in classes() if name not in BROKEN]
    assert len(names) >= 28
    asked = {}
    for name in names:
        known = METRICS[PLUGIN_METRICS.register_from(f"quantus:{name}")].options
        asked[f"quantus:{name}"] = {option: value for option, value in QUICK.items() if option in known}
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    first = heatproof.score(model, x[:2], ["gradcam"], asked, masks=masks(True, False))
    second = heatproof.score(model, x[:2].flip(0), ["gradcam"], asked, masks=masks(False, True))
    for name, request in zip(first.metrics, requested_metrics(asked), strict=True):
        found, turned = values(first, name), values(second, name)
        np.testing.assert_allclose(turned[::-1], found, rtol=1e-3, atol=1e-4, err_msg=name)
        assert np.isfinite(found[0]), name
        assert np.isnan(found[1]) == (request.family == "localisation"), name
    assert all(torch.equal(before[name], tensor) for name, tensor in model.module.state_dict().items())


def test_a_value_does_not_depend_on_the_neighbours(model, x):
    """Quantus divides all maps of a batch by their common maximum; one by one its own formula holds."""
    quantus = pytest.importorskip("quantus")
    maps = heatproof.explain(model, x, "gradcam")["gradcam"] * torch.tensor([1.0, 0.1, 0.01])[:, None, None]
    scores = heatproof.score(model, x, {"given": maps}, ["quantus:Sparseness", "quantus:complexity"])
    quiet = {"disable_warnings": True, "display_progressbar": False}
    given = {"model": model.module, "x_batch": model.normalise(x).numpy(), "y_batch": scores.target.numpy()}
    model.module.eval()
    for name, kind in (("quantus:Sparseness", quantus.Sparseness), ("quantus:Complexity", quantus.Complexity)):
        alone = [
            kind(**quiet)(**{**given, "x_batch": given["x_batch"][i : i + 1], "y_batch": given["y_batch"][i : i + 1]},
                          a_batch=maps[i : i + 1, None].numpy())[0]
            for i in range(3)
        ]  # fmt: skip
        np.testing.assert_allclose(values(scores, name, "given"), alone, rtol=1e-3)


def test_options_directions_and_raw_maps(model, x):
    pytest.importorskip("quantus")
    request = parsed_metric("quantus:pixel-flipping[features_in_step=64,perturb_baseline=mean]")
    assert request.key == "quantus:PixelFlipping[features_in_step=64,perturb_baseline=mean]"
    assert request.better == "low" and request.family == "fidelity"
    assert parsed_metric("quantus:Max-Sensitivity").entry.name == "quantus:MaxSensitivity"
    assert parsed_metric("quantus:AUC").better == "high"
    with pytest.raises(UnknownName, match="Did you mean 'features_in_step'"):
        parsed_metric("quantus:PixelFlipping[features_in_steps=3]")
    with pytest.raises(UnknownName, match=r"metric of Quantus.*Did you mean 'Sparseness'"):
        parsed_metric("quantus:Sparsenes")
    with pytest.raises(NotApplicable, match="compares the maps of different images"):
        parsed_metric("quantus:Sufficiency")
    shown, raw = "quantus:Sparseness", "quantus:Sparseness[attributions=raw]"  # takes magnitudes by itself
    scores = heatproof.score(model, x, ["gradcam", "input-x-gradient"], [shown, raw])
    signed = heatproof.explain(model, x, "gradcam", raw=True)["gradcam"]
    assert signed.min() < 0
    assert (np.abs(values(scores, shown) - values(scores, raw)) > 1e-3).all()
    assert np.isfinite(values(scores, raw, "input-x-gradient")).all()
    with pytest.raises(UnknownName, match="`attributions`"):
        heatproof.score(model, x, ["gradcam"], ["quantus:Sparseness[attributions=both]"])


def test_an_object_of_quantus_is_a_metric(model, x):
    quantus = pytest.importorskip("quantus")
    flipping = quantus.PixelFlipping(features_in_step=64, disable_warnings=True, display_progressbar=False)
    heatproof.register_metric("flipping", flipping)
    scores = heatproof.score(model, x, ["gradcam"], ["flipping", "quantus:PixelFlipping[features_in_step=64]"])
    np.testing.assert_array_equal(values(scores, "flipping"), values(scores, scores.metrics[1]))
    assert scores.facts["flipping"]["better"] == "low"
    with pytest.raises(NotApplicable, match="Consistency of Quantus"):
        heatproof.register_metric("same", quantus.Consistency(discretise_func=hash, disable_warnings=True))


def test_which_metrics_explain_again_is_read_off_their_source():
    for name, kind in classes().items():
        home = inspect.getsource(sys.modules[kind.__module__])
        explains = "self.explain_batch(" in home or "assert_explain_func(explain_func=self" in home
        assert explains == (name in EXPLAINS), name


def test_the_mean_of_several_numbers_leaves_the_intact_network_out():
    """In 0.6.0 the MPRT's own mean counts it: it looks for `orig`, and the key is `original`."""
    assert one_number({"original": [1.0], "fc": [0.5], "conv": [0.1]}) == pytest.approx(0.3)
    assert one_number([np.array([0.2, 0.4])]) == pytest.approx(0.3)
    assert one_number([True]) == 1
    assert math.isnan(one_number([])) and math.isnan(one_number([None]))
    with pytest.raises(InvalidInput, match="Got str"):
        one_number(["much"])


def test_without_quantus_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "quantus.helpers.constants", None)
    monkeypatch.setitem(sys.modules, "quantus", None)
    with pytest.raises(MissingExtra, match=r"pip install quantus==0.6.0"):
        parsed_metric("quantus:Sparseness")


# --- worker processes ---


def test_metrics_are_exported_to_other_processes(model, x, project):
    heatproof.register_metric("area", area, better="low", degenerate=1, aliases=["surface"])
    heatproof.register_metric("drop", drop_of_brightest, better="high", one_by_one=True)
    metric("decorated", family="complexity", better="low", range=(0, 1), passes="none", degenerate=1)(area)
    composite("both", parts={"first": "area", "second": "drop"}, better="high", range=(None, None))(_sum)
    names = ["both", "decorated", "python:own_metrics:brightest", "complexity"]
    requests = requested_metrics(names)
    before = heatproof.score(model, x, ["gradcam"], names)
    exports = PLUGIN_METRICS.exported(request.entry for request in requests)
    assert len(exports) == 4, "what a name leads to, and what comes with heatproof, is not sent"
    for name in ("both", "area", "drop", "decorated"):
        METRICS.remove(name)
    PLUGIN_METRICS.recipes.clear()
    imported(exports)
    imported(exports)
    after = heatproof.score(model, x, ["gradcam"], names)
    assert after.metrics == before.metrics and after.facts == before.facts
    for name in names:
        np.testing.assert_array_equal(values(after, name), values(before, name))
    assert METRICS["surface"].traits["degenerate"] == 1
    METRICS.remove("both")


def _sum(first, second):
    """One and the other."""
    return first + second


def test_what_cannot_be_exported(monkeypatch):
    heatproof.register_metric("mine", lambda maps: maps.double().flatten(1).mean(1), better="low")
    with pytest.raises(InvalidInput, match=r"'mine' must be importable for several worker processes.*workers=1"):
        PLUGIN_METRICS.exported([METRICS["mine"]])
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "area", area, raising=False)
    monkeypatch.setattr(area, "__module__", "__main__")
    heatproof.register_metric("area", area, better="low")
    monkeypatch.delattr(main, "__file__", raising=False)
    with pytest.raises(InvalidInput, match="defined in a notebook"):
        PLUGIN_METRICS.exported([METRICS["area"]])


def test_quantus_is_not_imported_unasked():
    """Registering a function of one's own loads no peer."""
    source = Path(importlib.import_module("heatproof.metrics.quantus_metrics").__file__ or "").read_text("utf-8")
    assert "import quantus" not in source.replace("importlib.import_module", "")

"""What the caller has set for torch: the network runs under it, and everything else as without, for whatever is
registered."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.attributions.foreign import unregister
from heatproof.engine import explain, score
from heatproof.errors import NotApplicable
from heatproof.models import Model, wrap

from .. import nets
from .test_attributions import SIDE, asked, model_of, network_for, shared_model
from .test_metrics import NAMES
from .test_metrics import QUICK as QUICK_METRICS

METHODS = list(ATTRIBUTIONS)


@contextmanager
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def no_device() -> Iterator[None]:
    """As `torch.set_default_device("meta")`: what is made without a device has no values."""
    with torch.device("meta"):
        yield


#: State → how it is set. Under none of them does this network compute otherwise.
STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "float64": float64,
    "deterministic": deterministic,
    "cpu": lambda: torch.device("cpu"),
    "meta": no_device,
}


def bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def rounded(module: nn.Module) -> nn.Module:
    """A copy that enters the autocast by itself, whatever it is called under: what is expected of `bfloat16`."""
    kind = type(module)

    class Rounded(kind):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with bfloat16():
                return super().forward(x).float()

    twin = copy.deepcopy(module)
    twin.__class__ = Rounded
    return twin


def images() -> torch.Tensor:
    return nets.images(3, SIDE, 12)


@pytest.fixture
def x() -> torch.Tensor:
    return images()


@cache
def plain_map(name: str) -> torch.Tensor:
    """The raw maps of a method in no special state. To be read only."""
    return explain(model_of(network_for(name)), images(), asked(name), raw=True)[name]


every_state = pytest.mark.parametrize("state", STATES)


@every_state
def test_every_method_gives_the_same_maps(state, x):
    """Those of images that were made in that state too."""
    for name in METHODS:
        model, expected = shared_model(network_for(name)), plain_map(name)
        with STATES[state]():
            found = explain(model_of_fresh(name, state), x, asked(name), raw=True)[name]
            shown = explain(model, x, asked(name))
        assert found.dtype == shown[name].dtype == torch.float32, name
        assert found.device.type == "cpu" and not found.is_inference(), name
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()), msg=name)
        assert not shown.logits.is_inference() and shown.logits.dtype == torch.float32


def model_of_fresh(name: str, state: str) -> Model:
    """A network that no earlier call knows; in inference mode even its weights are made there."""
    if state in ("meta", "float64"):  # its layers and weights would be of that state
        with torch.device("cpu"):
            before = torch.get_default_dtype()
            torch.set_default_dtype(torch.float32)
            try:
                return model_of(network_for(name))
            finally:
                torch.set_default_dtype(before)
    return model_of(network_for(name))


def scored(x: torch.Tensor, model: Model) -> list[float]:
    """The values of all metrics."""
    masks = torch.zeros(1, 24, 20, dtype=torch.bool, device="cpu")
    masks[:, 4:16, 5:15] = True
    wanted = {name: QUICK_METRICS.get(name, {}) for name in NAMES}
    found = score(model, x, ["layercam"], wanted, masks=masks, reference=0.9 * x, seed=3)
    return [row.value for row in found.rows]


@pytest.fixture
def told_apart() -> Model:
    return wrap(nets.told_apart(nets.seeded(nets.Plain), 20), size=(24, 20), layer="two")


@every_state
def test_every_metric_gives_the_same_values(state, told_apart):
    x = nets.images(1, 24, 20, seed=8)
    expected = scored(x, told_apart)
    with STATES[state]():
        found = scored(x, told_apart)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)


def test_under_autocast_every_method_explains_the_network_that_runs_there(x):
    """The maps are those of a network that enters the autocast by itself, and float32."""
    for name in METHODS:
        net = network_for(name)
        model, reference = model_of(net), wrap(rounded(nets.seeded(net)), size=(SIDE, 12), layer="two")
        with bfloat16():
            found = explain(model, x, asked(name), raw=True)
            shown = explain(model, x, asked(name))[name]
        assert found[name].dtype == shown.dtype == found.logits.dtype == torch.float32, name
        assert torch.equal(found.logits, reference.logits(x)), name
        assert not torch.equal(found.logits, model.logits(x)), name
        try:
            expected = explain(reference, x, asked(name), raw=True)[name]
        except NotApplicable:  # the check of a decomposition expects float32 of the network
            assert name in ("fullgrad", "cam"), name
        else:
            torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        assert torch.equal(explain(model, x, asked(name), raw=True)[name], plain_map(name)), name


def test_under_autocast_every_metric_scores_the_network_that_runs_there(told_apart):
    x = nets.images(1, 24, 20, seed=8)
    reference = wrap(rounded(told_apart.module), size=(24, 20), layer="two")
    with bfloat16():
        found = scored(x, told_apart)
    assert found == pytest.approx(scored(x, reference), rel=1e-3, abs=1e-3, nan_ok=True)


@pytest.mark.parametrize("state", [*STATES, "bfloat16"])
def test_the_callers_state_holds_for_the_network_and_for_functions_of_the_users(state):
    """And again after the call."""
    seen: list[tuple[Any, ...]] = []

    def look() -> None:
        seen.append(
            (
                torch.is_autocast_enabled("cpu"),
                torch.get_default_dtype(),
                torch.zeros(2).dtype,
                torch.zeros(2).device.type,
                torch.are_deterministic_algorithms_enabled(),
            )
        )

    class Looks(nets.Signed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            look()
            return super().forward(x)

    def mine(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        look()
        return inputs.detach().sum(1) + 0 * model(inputs).sum()

    heatproof.register("mine", mine)
    try:
        model = wrap(nets.seeded(Looks), size=SIDE)
        x = nets.images(2, SIDE)
        with {**STATES, "bfloat16": bfloat16}[state]():
            look()
            found = explain(model, x, ["gradcam", "ablationcam", "mine"])
            look()
            modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    finally:
        unregister("mine")
    assert len(set(seen)) == 1 and len(seen) > 5
    assert modes == (state == "inference_mode", state not in ("inference_mode", "no_grad"))
    assert all(maps.dtype == torch.float32 for maps in found.values())


@pytest.mark.parametrize("state", [*STATES, "bfloat16"])
def test_panels_are_written(state, tmp_path):
    from PIL import Image

    pixels = (255 * nets.images(1, SIDE)[0].permute(1, 2, 0)).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    model = wrap(nets.seeded(nets.Plain), size=SIDE)
    heatproof.show(model, tmp_path / "a.png", ["gradcam", "rise[masks=20]"]).save(tmp_path / "plain")
    with {**STATES, "bfloat16": bfloat16}[state]():
        shown = heatproof.show(model, tmp_path / "a.png", ["gradcam", "rise[masks=20]"])
        assert shown.panels and shown.save(tmp_path / "out").is_file()
    with np.load(tmp_path / "plain/maps/a.npz") as plain, np.load(tmp_path / "out/maps/a.npz") as found:
        for key in ("raw/gradcam", "display/rise[masks=20]"):
            assert found[key].dtype == np.float32
            np.testing.assert_allclose(found[key], plain[key], atol=0.05 if state == "bfloat16" else 0)


def compat_maps(net: nn.Module, z: torch.Tensor) -> dict[str, Any]:
    """A map, or a value, in the call style of each of the other libraries."""
    import heatproof.compat.captum as captum
    import heatproof.compat.pytorch_grad_cam as pytorch_grad_cam
    from heatproof.compat import quantus
    from heatproof.compat.pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from heatproof.compat.torchcam.methods import LayerCAM, SmoothGradCAMpp
    from heatproof.compat.torchcam.metrics import ClassificationMetric

    maps = z.abs().sum(1).numpy()
    targets = [ClassifierOutputTarget(1)] * len(z)
    found = {
        "captum": captum.LayerGradCam(net, net.two).attribute(z, 1),
        "captum tuple": captum.IntegratedGradients(net).attribute((z,), target=1, n_steps=4)[0],
        "pytorch-grad-cam": pytorch_grad_cam.AblationCAM(net, [net.two])(z, targets),
        "pytorch-grad-cam smooth": pytorch_grad_cam.GradCAM(net, [net.two])(z, targets, eigen_smooth=True),
        "pytorch-grad-cam ScoreCAM smooth": pytorch_grad_cam.ScoreCAM(net, [net.two])(z, targets, eigen_smooth=True),
        "pytorch-grad-cam metric": pytorch_grad_cam.road.ROADCombined([50])(z, maps, targets, net),
        "pytorch-grad-cam concepts": pytorch_grad_cam.DeepFeatureFactorization(net, net.two)(z, 2)[0],
        "quantus": quantus.explain_func(net, z, [1] * len(z), method="gradcam++"),
        "quantus metric": quantus.metric("road", seed=3)(net, z, [1] * len(z), z.abs().sum(1, keepdim=True)),
    }
    with LayerCAM(net, "two") as extractor:
        net(z)
        found["torchcam"] = extractor(1)[0]
        metric = ClassificationMetric(extractor)
        metric.update(z)
        found["torchcam metric"] = [metric.summary()["avg_drop"]]
    with SmoothGradCAMpp(net, "two", num_samples=2) as extractor:
        net(z)
        found["torchcam smooth"] = extractor(1)[0]
    return found


@pytest.mark.parametrize("state", [*STATES, "bfloat16"])
def test_other_call_styles(state):
    net = nets.seeded(nets.Plain)
    z = nets.images(2, SIDE, seed=4) * 2 - 1
    expected = compat_maps(net, z)
    with {**STATES, "bfloat16": bfloat16}[state]():
        found = compat_maps(net, z)
    for key, value in found.items():
        some, reference = (torch.as_tensor(one) for one in (value, expected[key]))
        assert some.dtype == reference.dtype and not some.is_inference(), key
        tolerance = 0.1 * float(reference.abs().max()) if state == "bfloat16" else 1e-6
        torch.testing.assert_close(some, reference, rtol=0, atol=tolerance)


@pytest.mark.parametrize("state", [*STATES, "bfloat16"])
def test_metrics_of_training_loops(state, told_apart):
    pytest.importorskip("torchmetrics")
    from heatproof.compat.torchmetrics import metrics

    x = nets.images(3, 24, 20)

    def means() -> dict[str, torch.Tensor]:
        several = metrics(["average-drop", "road", "complexity"], told_apart, method="gradcam")
        several.update(x)
        return several.compute()

    expected = means()
    if state in ("meta",):  # torchmetrics itself makes its states on the default device
        return
    with {**STATES, "bfloat16": bfloat16}[state]():
        found = means()
    for name, value in found.items():
        assert float(value) == pytest.approx(float(expected[name]), abs=0.05 if state == "bfloat16" else 1e-6), name


def test_a_graph_that_was_asked_for_is_kept(x):
    model = model_of(nets.Signed)
    images = x.clone().requires_grad_()
    with torch.no_grad():
        found = explain(model, images, "gradcam", differentiable=True, raw=True)["gradcam"]
    assert found.requires_grad


def test_targets_made_in_inference_mode(x):
    model = model_of(nets.Signed)
    with torch.inference_mode():
        target = model.logits(x).argmin(1)
        found = explain(model, x.clone(), ["gradcam", "integrated-gradients[steps=4]"], target)
    expected = explain(model, x, ["gradcam", "integrated-gradients[steps=4]"], target.tolist())
    for name, maps in found.items():
        assert torch.equal(maps, expected[name])


def test_a_model_that_is_loaded_in_inference_mode():
    with torch.inference_mode(), float64():
        model = heatproof.load_model("shapes")
    assert not any(p.is_inference() or p.dtype != torch.float32 for p in model.module.parameters())


def test_studies(tmp_path):
    """Also where no gradient could be taken."""
    from heatproof.studies.plan import checked_plan
    from heatproof.studies.run import run
    from heatproof.studies.store import connect

    plan = checked_plan(
        {
            "study": "noise-robustness",
            "models": [{"spec": "shapes"}],
            "datasets": [{"images": "shapes"}],
            "limit": 2,
            "methods": ["gradcam", "rise[masks=20]"],
            "perturbations": ["gaussian-noise", "fgsm"],
            "severities": [2],
            "segmenters": ["grid"],
        }
    )

    def values(name: str, state: Callable[[], AbstractContextManager[Any]]) -> list[Any]:
        with state():
            run(plan, tmp_path / name, workers=1)
        rows = connect(tmp_path / name).execute("from rows order by image, method, metric, perturbation, severity").df()
        return rows["value"].tolist()

    expected = values("plain", nullcontext)
    assert len(expected) > 10
    for state in ("inference_mode", "float64"):
        assert values(state, STATES[state]) == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)

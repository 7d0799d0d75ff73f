"""The worked examples of CONTRIBUTING.md, run as they stand: filed, run by the engine, equal to slow twins."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.metrics import METRICS
from heatproof.perturbations import PERTURBATIONS, Perturber
from heatproof.report import frames
from heatproof.studies.noise_robustness import PAIR_METRICS

PAGE = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"<!-- example: ([\w ]+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


def names_of(example: str) -> dict[str, Any]:
    """What running an example of the page defines."""
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[example], f"CONTRIBUTING.md: {example}", "exec"), names)
    return names


@pytest.fixture
def filed() -> Iterator[None]:
    """The registries as they were before."""
    before = {id(registry): set(registry) for registry in (ATTRIBUTIONS, METRICS, PERTURBATIONS)}
    yield
    for registry in (ATTRIBUTIONS, METRICS, PERTURBATIONS):
        for name in set(registry) - before[id(registry)]:
            registry.remove(name)


@pytest.fixture
def model() -> heatproof.Model:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh(), nn.Conv2d(6, 5, 3, 2, 1), nn.Tanh())
    return heatproof.wrap(nn.Sequential(layers, nn.Flatten(), nn.Linear(5 * 4 * 4, 4)), size=16, device="cpu")


def test_every_example_is_found_and_is_the_style_of_the_house():
    wanted = [f"{kind}{part}" for kind in ("method", "perturbation", "metric") for part in ("", " reference")]
    assert list(BLOCKS) == wanted
    assert all(ast.get_docstring(node) for kind in ("method", "perturbation", "metric")
               for node in ast.parse(BLOCKS[kind]).body if isinstance(node, ast.FunctionDef))  # fmt: skip


@pytest.mark.usefixtures("filed")
def test_the_method_runs_by_its_name_and_equals_its_slow_reference(model):
    names_of("method")
    x = torch.rand(2, 3, 16, 16)
    found = heatproof.explain(model, x, ["positive-gradcam", "gradcam"], layer="0.3", raw=True)
    arrays = [tensor.double().numpy() for tensor in captured_by_hand(model, x)]
    slow = names_of("method reference")["gradcam_elementwise"](*arrays)
    torch.testing.assert_close(found["positive-gradcam"].double(), torch.tensor(slow), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(found["positive-gradcam"], found["gradcam"].relu(), atol=1e-3)


def captured_by_hand(model: heatproof.Model, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations at the last convolution and the gradients of the predicted logits, by plain autograd."""
    trunk, head = model.module[0], model.module[1:]
    activations = trunk(model.normalise(x)).detach().requires_grad_()
    logits = head(activations)
    gradients = torch.autograd.grad(logits.amax(1).sum(), activations)[0]
    return activations.detach(), gradients


@pytest.mark.usefixtures("filed")
def test_the_perturbation_climbs_its_ladder_and_equals_its_slow_reference():
    names_of("perturbation")
    slow = names_of("perturbation reference")["slow_fade"]
    x = torch.rand(2, 3, 5, 4)
    perturber = Perturber(x, ["a", "b"], seed=0)
    for severity, share in enumerate((0.2, 0.4, 0.6, 0.8, 1.0), start=1):
        faded = perturber.apply("fade", severity).permute(0, 2, 3, 1).reshape(-1, 3)
        expected = [slow(pixel, share) for pixel in x.permute(0, 2, 3, 1).reshape(-1, 3).tolist()]
        torch.testing.assert_close(faded, torch.tensor(expected))
    assert perturber.strength("fade", 3) == 0.6


@pytest.mark.usefixtures("filed")
def test_the_metric_runs_by_its_name_and_equals_its_slow_reference(model):
    names_of("metric")
    slow = names_of("metric reference")["slow_peak_share"]
    x, maps = torch.rand(3, 3, 16, 16), torch.rand(3, 16, 16)
    maps[2] = 0.5
    found = heatproof.score(model, x, {"mine": maps}, ["peak-share[share=0.2]"], layer="0.3")
    shown = [(one - one.min()) / (one.max() - one.min()) for one in maps[:2]]
    expected = [slow(one, 0.2) for one in shown]
    assert [row.value for row in found.rows] == pytest.approx([*expected, 0.0], abs=1e-6)
    assert [row.flag for row in found.rows] == ["", "", "constant map"]


def test_every_metric_of_pairs_has_a_column():
    """`report` loads no torch, so it cannot ask the registry which metrics a noise study has."""
    paired = {name for name, entry in METRICS.items() if entry.traits["family"] == "stability"}
    assert "COMPANIONS" in re.findall(r"`(\w+)`", PAGE)
    assert set(frames.COMPANIONS) == set(PAIR_METRICS) == paired


def test_files_the_page_names_exist():
    root = Path(__file__).resolve().parent.parent
    named = set(re.findall(r"`((?:src|tests|scripts|docs|benchmarks)/[\w/.]+)`", PAGE)) - {"benchmarks/latest.json"}
    assert {"src/heatproof/attributions/cam.py", "tests/attributions/test_cam.py", "tests/contracts"} <= named
    assert not [name for name in named if not (root / name).exists()]

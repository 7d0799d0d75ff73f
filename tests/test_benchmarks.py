"""What the benchmarks call the floor is what the work really makes: passes are counted here, nothing is timed."""

import importlib
import itertools
import json
import math
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import heatproof
from heatproof.models.probe import facts
from heatproof.studies.plan import checked_plan
from heatproof.studies.settings import Plan

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # `benchmarks` is no part of the installed package
    sys.path.insert(0, str(ROOT))

floor = importlib.import_module("benchmarks.floor")
networks = importlib.import_module("benchmarks.networks")
result = importlib.import_module("benchmarks.result")
stopwatch = importlib.import_module("benchmarks.stopwatch")
study = importlib.import_module("benchmarks.study")
Passes = floor.Passes

#: Convolutions of `small_net` in one forward, and the side of its images.
CONVOLUTIONS, SIDE = 3, 32
#: Its last feature map: after the last ReLU, before the pooling.
LAYER = "5"
CAMS = ["gradcam", "gradcam++", "hirescam", "xgradcam", "eigencam"]


def small_net(head: nn.Module | None = None) -> nn.Sequential:
    """Three convolutions, pooling, and a linear head unless another is given."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, 1, 1)]
    pooled = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)]
    net = nn.Sequential(*body, *pooled, head or nn.Linear(16, 5))
    net.eval()
    return net


def two_layers() -> nn.Module:
    """A head that is not linear, so that ablationcam runs tails."""
    return nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 5))


def wrapped(net: nn.Module) -> heatproof.Model:
    """The net as a model for images of 32²."""
    return heatproof.wrap(net, size=SIDE, device="cpu")


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """A study on synthetic images, all methods, two severities."""

    def made(**settings: Any) -> Plan:
        base = {"models": ["shapes"], "datasets": ["shapes"], "limit": 2, "batch_size": 2, "severities": [1, 3],
                "segmenters": ["grid"], "device": "cpu"}  # fmt: skip
        return checked_plan({"study": "noise-robustness", **base, **settings})

    return made


def test_passes_of_a_study_by_hand():
    """Eight kinds, five severities: 1 + 40 explanations; FGSM 1 gradient for all severities, PGD 10 for each, twice."""
    kinds = {"a": False, "b": False, "c": False, "d": False, "e": False, "fgsm": True, "pgd-linf": True, "pgd-l2": True}
    assert floor.study_passes(kinds, 5) == Passes(head=41, full=101)
    assert floor.study_passes({"a": False}, 3) == Passes(head=4)
    with pytest.raises(ValueError, match="deepfool"):
        floor.study_passes({"deepfool-scaled": True}, 5)


def test_counting_tells_the_passes_apart():
    net, z = small_net(), torch.rand(4, 3, SIDE, SIDE)
    with floor.counting(net) as made:
        floor.forward_pass(net, z)
        floor.head_pass(net[:6], net[6:], z)  # does not call the net as a whole
        floor.full_pass(net, z[:3], torch.zeros(3, dtype=torch.int64))
        net(z[:2])  # a graph to the weights that nobody follows back
    assert made.passes == Passes(forward=2, full=1)
    assert made.images == Passes(forward=6, full=3)


def test_a_second_backward_counts_again():
    net, z = small_net(), torch.rand(1, 3, SIDE, SIDE).requires_grad_()
    with floor.counting(net) as made:
        score = net(z).sum()
        torch.autograd.grad(score, z, retain_graph=True)
        torch.autograd.grad(score, z)
    assert made.passes == Passes(full=2)


def test_five_cams_make_one_head_pass():
    net = small_net()
    model, x = wrapped(net), torch.rand(4, 3, SIDE, SIDE)
    assert model.layers.last == LAYER
    with floor.counting(net) as made, floor.Convolutions() as convolutions:
        heatproof.explain(model, x, CAMS)
    assert made.passes == Passes(head=1)
    assert made.images == Passes(head=4)
    assert (convolutions.forward, convolutions.backward) == (CONVOLUTIONS, 0)  # the trunk builds no graph


def test_ablation_in_closed_form_is_one_forward():
    net = small_net()
    model, x = wrapped(net), torch.rand(4, 3, SIDE, SIDE)
    facts(model, model.input_shape)  # a network is probed once
    with floor.counting(net) as made:
        heatproof.explain(model, x, ["ablationcam"], layer=LAYER)
    assert made.passes == Passes(forward=1)


def test_ablation_by_tails_runs_the_trunk_once():
    net = small_net(two_layers())
    model, x = wrapped(net), torch.rand(3, 3, SIDE, SIDE)
    facts(model, model.input_shape)
    with floor.Convolutions() as convolutions:
        heatproof.explain(model, x, ["ablationcam", *CAMS], layer=LAYER)
    assert (convolutions.forward, convolutions.backward) == (CONVOLUTIONS, 0)


@pytest.mark.parametrize("perturbations", [["gaussian-noise", "jpeg"], ["fgsm", "pgd-linf", "pgd-l2", "speckle"]])
def test_a_study_makes_exactly_the_floor(plan: Callable[..., Plan], perturbations: list[str], tmp_path: Path):
    """Two jobs of two and one image: no pass more than the mathematics needs, none of more images."""
    net = small_net()
    model = wrapped(net)
    settings = plan(perturbations=perturbations, limit=3)
    runs, jobs = study.prepared(settings, model, tmp_path)
    wanted = floor.study_passes({kind: kind in floor.ATTACKS for kind in perturbations}, 2)
    with floor.counting(net) as made:
        for job in jobs:
            runs(job, lambda share: None)
    assert len(jobs) == 2
    assert made.passes == Passes(head=2 * wanted.head, full=2 * wanted.full)
    assert made.images == Passes(head=3 * wanted.head, full=3 * wanted.full)


def test_a_study_with_tails_convolves_no_more_than_the_floor(plan: Callable[..., Plan], tmp_path: Path):
    model = wrapped(small_net(two_layers()))
    settings = plan(perturbations=["speckle", "fgsm"])
    runs, jobs = study.prepared(settings, model, tmp_path)
    with floor.Convolutions() as convolutions:
        runs(jobs[0], lambda share: None)
    explained, full = 1 + 2 * 2, 1
    edges = explained  # the control's Sobel filter may be a convolution of its own
    extra = convolutions.forward - CONVOLUTIONS * (explained + full)
    assert extra in (0, edges)
    assert convolutions.backward == CONVOLUTIONS * full


def test_the_study_benchmark_sees_every_part(plan: Callable[..., Plan]):
    """The list of timed functions fits the code, and the parts are those of the report."""
    net = small_net()
    split = networks.Split(net, LAYER, net[:6], net[6:])
    settings = plan(perturbations=["gaussian-noise", "fgsm"])
    job = study.measured_job(settings, wrapped(net), split)
    assert {part for _, _, part in study.PLACES} - {"rows"} <= {
        k for k, spent in job.watch.parts.items() if spent.calls
    }
    assert job.passes == Passes(head=5, full=1)
    record = study.summary(settings, job).record()
    assert [part["count"] for part in record["parts"]] == [5, 1]
    assert record["n"] == 2
    names = set(record["details"]["time_by_part"])
    assert names >= set(study.CAM_AND_NOISE) and study.FLOOR not in names
    segment = study.references.segment
    assert segment.__name__ == "segment" and not hasattr(segment, "__wrapped__")


@pytest.mark.parametrize("name", ["resnet18", "resnet18 mlp", "mobilenet"])
def test_trunk_and_head_are_the_network(name: str):
    """The floor's two functions compute what the network computes, and meet at the layer that is explained."""
    if name == "mobilenet":
        timm = pytest.importorskip("timm")
        split = networks.mobilenet(networks.frozen(timm.create_model("mobilenetv2_050", pretrained=False)))
    else:
        split = networks.resnet("resnet18", mlp=name.endswith("mlp"))
    z = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(split.head(split.trunk(z)), split.network(z))
    assert heatproof.wrap(split.network, size=64).layers.last == split.layer


def test_works_take_turns(monkeypatch: pytest.MonkeyPatch):
    """A B A B …, warm-ups first, long ones spread over the repetitions."""
    order: list[str] = []
    works = {name: lambda name=name: order.append(name) for name in ("a", "b", "long")}
    times = floor.interleaved(works, 4, warmups=1, seldom={"long": 2})
    assert "".join(name[0] for name in order) == "abl" + "abl" + "ab" + "abl" + "ab"
    assert {name: len(timing.seconds) for name, timing in times.items()} == {"a": 4, "b": 4, "long": 2}


def test_each_second_counts_for_the_innermost_part(monkeypatch: pytest.MonkeyPatch):
    clock = itertools.count()
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(clock)))
    watch = stopwatch.Stopwatch()
    with watch.part("outer"), watch.part("inner"):
        pass  # marks at 0, 1, 2, 3: one second inside, two outside
    assert {name: spent.seconds for name, spent in watch.parts.items()} == {"outer": 2.0, "inner": 1.0}
    assert watch.total("inner").seconds == 2.0


def test_a_ratio_is_of_the_same_repetition():
    """Floor 1 + 1, 2 + 2, 4 + 4 and time 3, 4, 16: ratios 1.5, 1, 2, whose median is not that of the medians."""
    parts = [floor.Timing([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])] * 2
    ours = floor.Timing([3.0, 4.0, 16.0], [4.0, 4.0, 4.0])
    found = result.compared("name", "work", ours, parts, 1.25, n=1, threads=1, batch=1)
    assert (found.ratio, found.quartiles, found.processor_ratio) == (1.5, (1.25, 1.75), 2.0)
    assert (found.seconds, found.floor, found.met) == (4.0, 4.0, False)


def test_numbers_are_kept_and_name_no_place(tmp_path: Path):
    """A later run of one benchmark leaves the others' numbers; no path and no host name is written."""
    main = importlib.import_module("benchmarks.__main__")
    settings = importlib.import_module("benchmarks.settings").Settings(1)
    file, about = tmp_path / "latest.json", result.machine()
    for names in (["one", "two"], ["two"]):
        main.write(file, about, settings, [{"name": name, "ratio": float(len(names))} for name in names])
    records = {record["name"]: record for record in json.loads(file.read_text("utf-8"))["results"]}
    assert {name: record["ratio"] for name, record in records.items()} == {"one": 2.0, "two": 1.0}
    text = file.read_text("utf-8")
    assert str(ROOT) not in text and (platform.node() or "no name") not in text


def test_every_method_has_a_line_with_the_passes_it_needs():
    methods = importlib.import_module("benchmarks.methods")
    assert not methods.uncounted()


def test_rows_of_two_settings_are_compared_and_none_is_lost():
    """A row or a value that one side alone has differs by infinity; the largest difference is that of its family."""
    frame = importlib.import_module("pandas").DataFrame
    between = importlib.import_module("benchmarks.same_rows").between
    rows = [
        ("a", "gradcam", "rbo", 0.5),
        ("a", "gradcam", "arcc", 0.25),
        ("b", "gradcam", "arcc", 0.5),
        ("a", "", "psnr", 30.0),
    ]
    about = {"study": "score", "perturbation": "", "severity": 0, "segmenter": "", "strength": math.nan}
    ours = frame([{**about, "image": i, "method": m, "metric": name, "value": v} for i, m, name, v in rows])
    same = between(ours, ours)
    assert {name: one["largest"] for name, one in same.items()} == dict.fromkeys(same, 0.0)
    assert [one["rows"] for one in same.values()] == [1, 2, 1]
    moved = between(ours, ours.assign(value=ours["value"] + [0, 0.125, 0, 2e-6]))
    assert [(one["largest"], one["beyond"]) for one in moved.values()] == [(0, 0), (0.125, 1), (pytest.approx(2e-6), 0)]
    assert between(ours, ours[:3])["the network's answers"]["largest"] == math.inf
    lost = between(ours, ours.assign(value=[0.5, math.nan, 0.5, 30]))
    assert lost["other rows of methods"] == {"rows": 2, "beyond": 1, "largest": math.inf}

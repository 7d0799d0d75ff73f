"""What every registered metric must do, whoever added it."""

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import heatproof
from heatproof import passes
from heatproof.attributions import requested
from heatproof.engine import (
    Batch,
    GivenMaps,
    MethodScores,
    ReferenceMaps,
    dry_run,
    evaluate,
    explanation,
    resolve_layers,
)
from heatproof.errors import InvalidInput, UnknownName
from heatproof.flags import DEGENERATE, Reason
from heatproof.metrics import FAMILIES, METRICS
from heatproof.metrics.catalogue import bounds, metric
from heatproof.metrics.metric_request import parsed_metric, requested_metrics
from heatproof.models import Model, wrap
from heatproof.quantities import having

from .. import nets

HEIGHT, WIDTH = 24, 20
NAMES = [name for name, entry in METRICS.items() if not entry.traits.get("foreign")]
#: They need images made of parts; `tests/metrics/test_part_checks.py` holds them to the same.
PARTED = [name for name in NAMES if "parts" in METRICS[name].needs]
SCORED = [name for name in NAMES if not METRICS[name].traits.get("parts") and name not in PARTED]

#: Options with which a metric that runs the network often stays affordable here, or has something to tell apart.
QUICK: dict[str, dict[str, Any]] = {
    "effective-complexity": {"tolerance": 1e-5, "steps": 20, "samples": 3},
    "faithfulness-correlation": {"samples": 20},
    "infidelity": {"samples": 20},
    "nonzero-count": {"threshold": 0.3},
    "sensitivity-n": {"samples": 10, "steps": 4},
}

every_metric = pytest.mark.parametrize("name", [name for name in NAMES if name not in PARTED])
every_entry = pytest.mark.parametrize("name", NAMES)
every_scored = pytest.mark.parametrize("name", SCORED)


def model_of() -> Model:
    """An odd little network: signed activations, layers of three sizes."""
    return wrap(nets.told_apart(nets.seeded(nets.Signed), WIDTH), size=(HEIGHT, WIDTH), layer="two")


@cache
def shared_model() -> Model:
    """One such model for the tests that read values only; that a call alters nothing has a test of its own."""
    return model_of()


def images(count: int = 4) -> torch.Tensor:
    return nets.images(count, HEIGHT, WIDTH, seed=8)  # of which the network says more than of what `sic` starts from


def smooth_maps(count: int = 4) -> torch.Tensor:
    """Maps without ties: a slope, a bell and noise, each image its own."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear", align_corners=False)[:, 0]
    return smooth + 0.05 * torch.rand(count, HEIGHT, WIDTH, generator=generator)


def masks(count: int = 4) -> torch.Tensor:
    found = torch.zeros(count, HEIGHT, WIDTH, dtype=torch.bool)
    for i in range(count):
        found[i, 3 + i : 12 + i, 4 : 10 + i] = True
    return found


def asked(name: str):
    return requested_metrics({name: QUICK.get(name, {})})


def results(
    name: str, x: torch.Tensor, maps: torch.Tensor | None, ids: list[str], truth: torch.Tensor | None, **more: Any
) -> dict[str, MethodScores]:
    """The metric on `gradcam`, and on maps given by hand where it can."""
    model = more.pop("model", None) or shared_model()
    methods = resolve_layers(model, requested(["gradcam"]), "two")
    settings = {"ids": ids, "seed": more.pop("seed", 3)}
    batch = Batch.of(model, methods, x, **settings)
    given = [] if maps is None else [GivenMaps("given", maps, reference=reference_maps(maps))]
    if parsed_metric(name).paired:
        clean = reference_images(x)
        more["reference"] = ReferenceMaps.of(clean, explanation(Batch.of(model, methods, clean, **settings), methods))
        more["reference_images"] = clean
    found = evaluate(batch, methods, asked(name), given=given, ground_truth=truth, **more)
    return {one.method: one for one in found}


def reference_images(x: torch.Tensor) -> torch.Tensor:
    """What `x` are the perturbed versions of."""
    return (0.9 * x + 0.1 * x.nan_to_num(0.5).mean((2, 3), keepdim=True)).nan_to_num(0.5)


def reference_maps(maps: torch.Tensor) -> torch.Tensor:
    """Maps not quite like `maps`, each depending on its own alone."""
    return 0.7 * maps + 0.3 * maps.roll((2, 3), (-1, -2)).square()


def values(name: str, x: torch.Tensor, maps: torch.Tensor | None, ids: list[str], truth=None, **more: Any):
    """Method → `(N,)` of the metric."""
    return {method: one.outcomes[-1].values for method, one in results(name, x, maps, ids, truth, **more).items()}


@cache
def sound(name: str) -> dict[str, MethodScores]:
    """Method → its scores on the four images together: what several tests look at or compare with. To be read only."""
    return results(name, images(), smooth_maps(), IDS, masks())


def sound_values(name: str) -> dict[str, torch.Tensor]:
    """Method → `(4,)` of those."""
    return {method: one.outcomes[-1].values for method, one in sound(name).items()}


def again(name: str) -> bool:
    """Whether the metric, or a part of it, must explain again."""
    request = parsed_metric(name)
    return request.having("explains")


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return images()


IDS = [f"cat {i}" for i in range(4)]


@every_metric
def test_values_are_finite_and_inside_the_declared_range(name):
    low, high = bounds(METRICS[name].traits["range"])
    found = sound(name)
    for method, one in found.items():
        outcome = one.outcomes[-1]
        if method == "given" and again(name):
            assert set(outcome.flags) == {Reason.MADE_ELSEWHERE.value} and outcome.values.isnan().all()
            continue
        assert outcome.values.dtype == torch.float64 and outcome.values.shape == (4,)
        assert outcome.values.isfinite().all(), outcome.flags
        assert outcome.flags == [""] * 4
        assert (outcome.values >= low - 1e-9).all() and (outcome.values <= high + 1e-9).all()
        if outcome.curve is not None:
            at, points = outcome.curve
            assert points.shape == (4, len(at)) and points.isfinite().all()
            assert (at.diff() > 0).all() or (at.diff() < 0).all()


@every_metric
def test_it_tells_some_maps_apart(name):
    """A constant would pass most tests."""
    method = "gradcam" if again(name) else "given"
    found = sound_values(name)[method]
    if METRICS[name].traits["range"] == (0, 1) and set(found.tolist()) <= {0.0, 1.0}:
        pytest.skip("yes or no")
    assert len({round(v, 9) for v in found.tolist()}) > 1, found


@every_metric
def test_batch_equals_single_in_any_order_and_any_chunks(name, x, monkeypatch):
    maps, truth = smooth_maps(), masks()
    together = sound_values(name)
    single = [values(name, x[i : i + 1], maps[i : i + 1], IDS[i : i + 1], truth[i : i + 1]) for i in range(4)]
    turned = values(name, x.flip(0), maps.flip(0), IDS[::-1], truth.flip(0))
    monkeypatch.setattr(passes, "CPU_ROWS", 3)
    chunked = values(name, x, maps, IDS, truth)
    for method, expected in together.items():
        close = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}
        torch.testing.assert_close(torch.cat([one[method] for one in single]), expected, **close)
        torch.testing.assert_close(turned[method].flip(0), expected, **close)
        torch.testing.assert_close(chunked[method], expected, **close)


class LastBits(torch.nn.Module):
    """A network of twin classes that is blind on the left half; its logits carry the rounding of some processor."""

    def __init__(self, processor: int):
        super().__init__()
        self.inner = nets.told_apart(nets.seeded(nets.Signed), WIDTH)
        self.two, self.processor, self.calls = self.inner.two, processor, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.arange(x.shape[-1], device=x.device) >= x.shape[-1] // 2
        logits = self.inner(x * seen).repeat(1, 2)
        return logits + logits.detach().abs().amax(1, keepdim=True) * self._noise(logits.shape)

    def _noise(self, shape: torch.Size) -> torch.Tensor:
        """The last bit of float32, up or down."""
        self.calls += 1
        generator = torch.Generator().manual_seed(1000 * self.processor + self.calls)
        return 2.0**-24 * self.processor * torch.randn(shape, generator=generator).clamp(-2, 2)


def last_bits(processor: int) -> Model:
    return wrap(LastBits(processor).eval(), size=(HEIGHT, WIDTH), layer="two")


def plateaus(processor: int) -> torch.Tensor:
    """Maps of eleven levels, lowest on the left; the last has its highest wherever `LastBits` sees."""
    column = torch.arange(WIDTH) / (WIDTH - 1)
    wave = 0.3 * torch.sin(torch.arange(HEIGHT) / 4 + torch.arange(4)[:, None])
    maps = (column + wave[:, :, None]).clamp(0, 1)
    maps[3] = (2 * column).clamp(0, 1)
    maps[:, 0, 0], maps[:, -1, -1] = 0.0, 1.0
    noise = torch.randn(maps.shape, generator=torch.Generator().manual_seed(processor)).clamp(-2, 2)
    levels = (maps * 10).round() / 10
    return levels * (1 + 2.0**-24 * processor * noise)


@every_metric
def test_the_last_bits_decide_nothing(name, x):
    """Whatever is ranked or compared with a threshold is rounded first (`heatproof.rounding`)."""
    first, *others = (values(name, x, plateaus(i), IDS, masks(), model=last_bits(i)) for i in range(3))
    # What a single pixel does to a logit is a thousandth of it, and so is what the last bits do to its correlation.
    close = {"rtol": 1e-4, "atol": 1e-4 if name == "sensitivity-n" else 1e-5, "equal_nan": True}
    for found in others:
        for method, expected in first.items():
            torch.testing.assert_close(found[method], expected, **close)


@every_metric
def test_the_same_seed_gives_the_same_values_bit_for_bit(name, x):
    maps, truth = smooth_maps(), masks()
    first = sound_values(name)
    torch.rand(3)
    np.random.rand(3)
    model = model_of()
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    second = values(name, x, maps, IDS, truth, model=model)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was moved"
    assert np.array_equal(np.random.get_state()[1], numbers), "numpy's global generator was moved"
    for method, expected in first.items():
        assert torch.equal(second[method].nan_to_num(9), expected.nan_to_num(9))


@every_metric
def test_nothing_is_left_behind_and_no_argument_changes(name, x):
    model = model_of()
    model.module.train()
    before, state = nets.traces(model.module), {k: v.clone() for k, v in model.module.state_dict().items()}
    maps, truth = smooth_maps(), masks()
    copies = x.clone(), maps.clone(), truth.clone()
    values(name, x, maps, IDS, truth, model=model)
    assert nets.traces(model.module) == before
    assert all(torch.equal(state[k], v) for k, v in model.module.state_dict().items())
    assert all(torch.equal(one, copy) for one, copy in zip((x, maps, truth), copies, strict=True))


@every_metric
@pytest.mark.parametrize("empty", [0.0, 1.0, math.nan])
def test_a_map_that_says_nothing_is_flagged_and_not_praised(name, empty, x):
    """Nor does it change what is said of its neighbours."""
    if again(name):
        return  # what a method gives for its own degenerate map is tested with it
    entry, truth, maps = METRICS[name], masks(), smooth_maps()
    expected = sound_values(name)["given"]
    maps[1] = empty
    maps[1, 0, 0] = math.nan if math.isnan(empty) else empty
    if math.isnan(empty):
        maps[1, 3:, 3:] = 0.5
    outcome = results(name, x, maps, IDS, truth)["given"].outcomes[-1]
    keep = [0, 2, 3]
    torch.testing.assert_close(outcome.values[keep], expected[keep], rtol=1e-5, atol=1e-6)
    assert [outcome.flags[i] for i in keep] == [""] * 3
    assert outcome.flags[1].reason in DEGENERATE or (outcome.values[1].isnan() and outcome.flags[1])
    if entry.traits["degenerate"] is not None and not entry.traits.get("parts"):
        assert outcome.values[1].tolist() == pytest.approx(entry.traits["degenerate"], nan_ok=True)
    low, high = bounds(entry.traits["range"])
    best = high if entry.traits["better"] == "high" else low
    assert outcome.values[1].isnan() or outcome.values[1] != best or not math.isfinite(best)


@every_scored
def test_an_image_without_an_answer_is_flagged_and_its_neighbours_are_not(name, x):
    if not having(METRICS[name].needs, "asks"):
        return  # it asks the network nothing
    broken = x.clone()
    broken[2] = math.nan
    maps, truth = smooth_maps(), masks()
    expected, found = sound(name), results(name, broken, maps, IDS, truth)
    for method, one in found.items():
        outcome, keep = one.outcomes[-1], [0, 1, 3]
        assert outcome.flags[2] and outcome.values[2].isnan()
        close = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}
        torch.testing.assert_close(outcome.values[keep], expected[method].outcomes[-1].values[keep], **close)


@every_entry
def test_the_catalogue_says_what_a_reader_must_know(name):
    entry = METRICS[name]
    assert entry.summary.endswith(".") and entry.source, "one sentence, and what to cite"
    assert entry.traits["passes"] and entry.traits["undefined"] and entry.traits["family"] in FAMILIES
    low, high = bounds(entry.traits["range"])
    assert low < high
    stated = entry.traits["degenerate"]
    if stated is not None and not math.isnan(stated):
        assert low <= stated <= high and stated != (high if entry.traits["better"] == "high" else low)
    facts = parsed_metric(name).facts()
    assert json.loads(json.dumps(facts)) == facts


@every_entry
def test_bad_options_are_refused_with_the_name_of_the_option(name):
    with pytest.raises(UnknownName, match="no_such_option"):
        parsed_metric(f"{name}[no_such_option=1]")
    for option, default in METRICS[name].options.items():
        if isinstance(default, str):
            continue
        with pytest.raises(InvalidInput, match=option):
            parsed_metric(f"{name}[{option}=seven]")


def test_a_metric_is_spelled_one_way_in_the_results():
    assert parsed_metric("AD").key == "average-drop" == parsed_metric("average_drop").key
    assert parsed_metric("average-drop[fill=mean]").key == "average-drop[fill=mean]"
    assert parsed_metric("average-drop[fill=black]").key == "average-drop"


def test_a_composite_brings_its_parts_and_families_bring_their_metrics():
    keys = [request.key for request in requested_metrics("arcc")]
    assert keys == ["coherency", "complexity", "road", "arcc"]
    assert [r.key for r in requested_metrics("arcc", parts=False)] == ["arcc"]
    everything = requested_metrics("all")
    assert {r.entry.name for r in everything} == set(NAMES)
    assert len({r.key for r in everything}) == len(everything)
    assert {r.family for r in requested_metrics("family:complexity")} == {"complexity"}
    assert [r.key for r in requested_metrics("complexity")] == ["complexity"]
    with pytest.raises(UnknownName, match=r"road.*Did you mean|Did you mean.*road"):
        requested_metrics(["raod"])
    with pytest.raises(InvalidInput, match="at least one metric"):
        requested_metrics([])


def test_a_metric_that_would_flatter_is_no_metric():
    with pytest.raises(InvalidInput, match="better"):
        metric("new", family="fidelity", better="up", range=(0, 1), passes="none")
    with pytest.raises(InvalidInput, match="family"):
        metric("new", family="beauty", better="high", range=(0, 1), passes="none")


def test_scores_of_methods_and_of_maps_made_elsewhere(x):
    model = model_of()
    found = heatproof.score(model, x, {"gradcam": None, "mine": smooth_maps()}, ["average-drop", "arcc"], batch_size=3)
    assert found.methods == ["gradcam", "mine"] and len(found.rows) == 2 * 5 * 4
    assert set(found.table.columns) == {
        *("model", "method", "metric", "n", "mean", "std", "low", "high", "better", "flagged")
    }
    assert ((found.table["n"] == 4) | (found.table["flagged"] == 4)).all(), "nothing is dropped"
    flags = {row.flag for row in found.rows if row.method == "mine" and row.metric in ("arcc", "coherency")}
    assert flags == {Reason.MADE_ELSEWHERE.value}
    mean = found.table.set_index(["method", "metric"]).loc[("gradcam", "average-drop"), "mean"]
    assert mean == pytest.approx(float(found.values("gradcam", "average-drop").mean()))
    assert "average-drop" in found._repr_html_() and list(found.to_pandas().columns) == [
        *("image", "method", "metric", "value", "flag")
    ]
    alone = heatproof.score(model, x, "gradcam", "arcc").values("gradcam", "arcc")
    torch.testing.assert_close(found.values("gradcam", "arcc"), alone, rtol=1e-5, atol=1e-7)


def test_controls_are_further_arms(x):
    found = heatproof.score(model_of(), x, ["gradcam"], "average-drop", controls=True)
    assert found.methods[0] == "gradcam" and {"random", "half", "ones", "centre", "edges"} < set(found.methods)


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        ({"mine": torch.rand(3, HEIGHT, WIDTH)}, "one for each of 4 images"),
        ({}, "at least one method"),
        ({"mine": "a text"}, "must be"),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps, said, x):
    with pytest.raises(InvalidInput, match=said):
        heatproof.score(model_of(), x, maps, "average-drop")


def test_options_that_cannot_be_are_refused_before_any_work(x):
    """On a toy, so that a long study does not end at its first image; the global generator does not move."""
    state = torch.get_rng_state()
    for spelling, said in {
        "deletion[steps=0]": "`steps`",
        "road[kept=abc]": "`kept`",
        "average-drop[fill=red]": "`fill`",
        "mprt[order=foo]": "`order`",
        "irof[segmenter=foo]": "segmenter",
    }.items():
        with pytest.raises((InvalidInput, UnknownName), match=said):
            dry_run(requested_metrics(spelling))
    dry_run(requested_metrics(["road[kept=50]", "max-sensitivity[samples=2]", *METRICS]))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_list_in_words_may_be_numbers(x):
    assert parsed_metric("road[kept=50]").key == "road[kept=50]"
    assert parsed_metric("road", {"kept": (20, 50)}).key == "road[kept=20 50]"
    alone = heatproof.score(model_of(), x, {"mine": smooth_maps()}, "road[kept=50]")
    both = heatproof.score(model_of(), x, {"mine": smooth_maps()}, "road[kept=50 80]")
    _, points = both.curves["mine", "road[kept=50 80]"]
    torch.testing.assert_close(alone.values("mine", "road[kept=50]"), points[:, 1], rtol=1e-5, atol=1e-7)


def test_black_is_known_for_an_image_of_one_colour():
    """It cannot be read off such an image; the model says it."""
    x = images(2)
    x[0], x[1, 2] = 0.5, 1.0
    found = heatproof.score(model_of(), x, {"mine": smooth_maps(2)}, ["average-drop", "local-accuracy", "deletion"])
    assert {row.flag for row in found.rows} == {""}
    model, shown = model_of(), heatproof.score(model_of(), x, {"mine": smooth_maps(2)}, "local-accuracy")
    maps = smooth_maps(2)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    with torch.no_grad():
        p = model.probabilities(model.logits(x))
        q = model.probabilities(model.logits(x * ((maps - low) / (high - low))[:, None]))
    expected = (p - q).gather(1, p.argmax(1)[:, None])[:, 0].abs()
    torch.testing.assert_close(shown.values("mine", "local-accuracy"), expected, rtol=1e-4, atol=1e-6)


def test_maps_and_masks_in_the_images_own_pixels_go_through_its_geometry():
    """As the image is resized and cropped, so are they: a perfect map scores 1 (protocols §12)."""
    sides = [(31, 45), (40, 33)]
    images = [(torch.rand(*size, 3, generator=torch.Generator().manual_seed(i)) * 255).byte().numpy()
              for i, size in enumerate(sides)]  # fmt: skip
    own = [np.zeros(size, np.float32) for size in sides]
    own[0][8:22, 10:30] = own[1][10:31, 9:25] = 1
    found = heatproof.score(model_of(), images, {"own": own}, ["energy", "iou"], masks=[one > 0 for one in own])
    assert found.values("own", "energy").min() > 0.9 and found.values("own", "iou").min() > 0.9
    squeezed = [torch.nn.functional.interpolate(torch.tensor(one)[None, None], (HEIGHT, WIDTH))[0, 0] for one in own]
    other = heatproof.score(model_of(), images, {"own": torch.stack(squeezed)}, "iou", masks=[o > 0 for o in own])
    assert (other.values("own", "iou") < found.values("own", "iou") - 0.05).any(), "the geometry matters"
    with pytest.raises(InvalidInput, match="Mask 1 must have its image's 40 × 33"):
        heatproof.score(model_of(), images, "gradcam", "energy", masks=[own[0] > 0, own[0] > 0])


def test_an_empty_mask_goes_before_a_map_that_says_nothing(x):
    truth = masks()
    truth[0] = False
    found = heatproof.score(model_of(), x, {"flat": torch.ones(4, HEIGHT, WIDTH)}, ["energy", "iou"], masks=truth)
    for name in found.metrics:
        assert found.values("flat", name)[0].isnan() and found.values("flat", name)[1:].tolist() == [0.0] * 3
    nothing = heatproof.score(model_of(), x, "gradcam", "energy")
    assert {row.flag for row in nothing.rows} == {"no masks were given"}


def test_a_map_of_nothing_but_nan_is_no_missing_map(x):
    maps = smooth_maps()
    maps[1] = math.nan
    found = heatproof.score(model_of(), x, {"mine": maps}, "complexity")
    assert [row.flag for row in found.rows] == ["", "non-finite map", "", ""] and found.rows[1].value == 1


@pytest.mark.parametrize("asked", [torch.rand(4, 3, 3), np.zeros((4, 3, 3)), [], [1], 7])
def test_what_is_no_method_is_refused(asked, x):
    with pytest.raises(InvalidInput, match="names of methods, or a mapping"):
        heatproof.score(model_of(), x, asked, "complexity")


def test_maps_need_a_name_of_their_own(x):
    with pytest.raises(InvalidInput, match="'random' is a method's too"):
        heatproof.score(model_of(), x, {"random": smooth_maps()}, "complexity", controls=True)


def test_a_metric_that_cannot_serve_is_flagged():
    """ROAD is for images; the others go on."""
    net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 5), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool1d(1),
                              torch.nn.Flatten(), torch.nn.Linear(4, 3))  # fmt: skip
    model = wrap(net.eval(), input_shape=(1, 64), layer="0")
    found = heatproof.score(model, torch.randn(2, 1, 64), "gradcam", ["road", "deletion-mean"])
    assert found.values("gradcam", "road").isnan().all() and found.values("gradcam", "deletion-mean").isfinite().all()
    assert "images" in found.rows[0].flag


def test_masks_of_another_size_are_refused(x):
    with pytest.raises(InvalidInput, match="size of the model's input"):
        heatproof.score(model_of(), x, "gradcam", "energy", masks=torch.ones(4, 5, 5))
    with pytest.raises(InvalidInput, match="one mask for each"):
        heatproof.score(model_of(), x, "gradcam", "energy", masks=masks(3))

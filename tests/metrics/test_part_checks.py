"""The checks of FunnyBirds against a slow reference, and on hand-made cases with known answers."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

import heatproof
from heatproof import passes
from heatproof.attributions import requested
from heatproof.data.creatures import demo_creatures
from heatproof.data.part_images import PartTable
from heatproof.engine import Batch, GivenMaps, PartAnswers, PartImages, chosen_layer, evaluate, resolve_layers
from heatproof.errors import InvalidImage
from heatproof.flags import Reason
from heatproof.metrics.metric_request import requested_metrics
from heatproof.metrics.part_checks import THRESHOLDS, background_independence, part_contrastivity
from heatproof.models import wrap
from heatproof.studies.part_sets import images_by_parts

CHECKS = ("part-sufficiency", "part-preservation", "part-deletion", "part-distractibility")
#: A shares the parts a and b with T, B shares c and d. T is second, so that a tie with A counts as another class.
TABLE = PartTable(("a", "b", "c", "d"), ((0, 0, 1, 1), (0, 0, 0, 0), (1, 1, 0, 0)))
A, T, B = range(3)
SIDE, BLOCK = 40, 4
PLACES = {name: (4 + 10 * (n // 3), 4 + 12 * (n % 3)) for n, name in enumerate("abcdef")}


class Blocks:
    """An image of class `label`: a block for each part, its variant the colour channel, and distractors e and f."""

    table, distractors = TABLE, ("e", "f")

    def __init__(self, label: int = T, missing: tuple[frozenset[str], ...] = (), no_masks: bool = False):
        self.label, self.missing, self.no_masks, self.made = label, missing, no_masks, []

    def masks(self) -> dict[str, np.ndarray]:
        if self.no_masks:
            raise InvalidImage("there is no maps/7.png")
        found = {}
        for name, (y, x) in PLACES.items():
            found[name] = np.zeros((SIDE, SIDE), bool)
            found[name][y : y + BLOCK, x : x + BLOCK] = True
        return found

    def without(self, names: frozenset[str]) -> Image.Image:
        self.made.append(names)
        if names in self.missing:
            raise InvalidImage("there is no rendered/7.png")
        pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
        variants = dict(zip(TABLE.parts, TABLE.classes[self.label], strict=True)) | {"e": 2, "f": 2}
        for name in set(variants) - names:
            y, x = PLACES[name]
            pixels[y : y + BLOCK, x : x + BLOCK, variants[name]] = 255
        return Image.fromarray(pixels)


def network(weights: dict[str, float] | None = None, distractors: float = 0.0):
    """Each class adds the weights of the parts whose variant is its own; distractors add the same to all."""
    weights = weights or dict.fromkeys("abcd", 1.0)
    matrix = torch.zeros(3, 3, SIDE, SIDE)
    for label, variants in enumerate(TABLE.classes):
        for name, variant in zip(TABLE.parts, variants, strict=True):
            y, x = PLACES[name]
            matrix[label, variant, y : y + BLOCK, x : x + BLOCK] = weights[name] / BLOCK**2
        y, x = PLACES["e"]
        matrix[label, 2, y : y + BLOCK, x : x + BLOCK] = distractors / BLOCK**2
    linear = nn.Linear(3 * SIDE * SIDE, 3, bias=False)
    with torch.no_grad():
        linear.weight.copy_(matrix.flatten(1))
    return wrap(nn.Sequential(nn.Flatten(), linear), size=SIDE, resize=None, mean=0.0, std=1.0, device="cpu")


def map_of(shares: dict[str, float]) -> torch.Tensor:
    """A map with these shares on the blocks, the rest of it in a corner far from them; its highest value is 1."""
    values = torch.zeros(SIDE, SIDE)
    for name, share in shares.items():
        y, x = PLACES[name]
        values[y : y + BLOCK, x : x + BLOCK] = share / BLOCK**2
    values[-8:, -8:] += (1 - sum(shares.values())) / 64
    return values / values.max()


def outcomes(model, images, maps, metrics, given=None):
    """Metric → its outcome on maps given by hand."""
    x = torch.stack([model.geometry.image(one.without(frozenset())) for one in images])
    batch = Batch.of(model, [], x, ids=[f"image {i}" for i in range(len(images))])
    parts = PartAnswers(model, x, batch.logits, given or PartImages(images, TABLE, [0, 1, 2]))
    (found,) = evaluate(batch, [], requested_metrics(metrics), given=[GivenMaps("mine", maps)], parts=parts)
    return {one.metric: one for one in found.outcomes}


def at(outcome, threshold: float) -> float:
    """The point of a curve at the threshold nearest."""
    place = int(np.abs(np.array(THRESHOLDS) - threshold).argmin())
    return float(outcome.curve[1][0, place])


@pytest.mark.parametrize(
    ("shares", "threshold", "expected"),
    [
        ({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}, 0.2, (1, 1, 1, 1)),  # all important
        ({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}, 0.3, (0, 0, 0, 1)),  # none important
        ({"a": 0.6, "c": 0.4}, 0.3, (1, 1, 0, 1)),  # a and c are enough, and so are b and d
        ({"a": 0.9}, 0.3, (0.5, 0, 0, 1)),  # one of two; with a alone, A ties with T
        (
            {"a": 0.2, "b": 0.2, "e": 0.6},
            0.1,
            (0.5, 0, 0, 0.5),
        ),  # a and b are A's as well; e of e and f is called important
        ({"e": 0.4, "f": 0.6}, 0.3, (0, 0, 0, 0)),
    ],
)
def test_hand_made_cases(shares, threshold, expected):
    found = outcomes(network(), [Blocks()], map_of(shares)[None], list(CHECKS))
    assert tuple(at(found[name], threshold) for name in CHECKS) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [((0.4, 0.3, 0.2, 0.1), 1.0), ((0.1, 0.2, 0.3, 0.4), 0.0), ((0.25, 0.25, 0.25, 0.25), 0.5),
     ((0.3, 0.4, 0.2, 0.1), 0.9)],
)  # fmt: skip
def test_correctness_of_hand_made_maps(order, expected):
    model = network({"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0})
    maps = map_of(dict(zip("abcd", order, strict=True)))[None]
    assert float(outcomes(model, [Blocks()], maps, ["part-correctness"])["part-correctness"].values) == pytest.approx(
        expected, abs=1e-9
    )


def test_correctness_has_no_value_where_all_parts_matter_equally():
    found = outcomes(network(), [Blocks()], map_of({"a": 0.6, "b": 0.2})[None], ["part-correctness"])
    outcome = found["part-correctness"]
    assert outcome.values.isnan().all() and "matter equally" in outcome.flags[0]


def test_a_distractor_that_the_network_uses_is_not_irrelevant():
    model, images = network(distractors=1.0), [Blocks()]  # of a logit of 5, so 20 %
    found = outcomes(model, images, map_of({"e": 0.6, "f": 0.1})[None], ["part-distractibility"])
    assert at(found["part-distractibility"], 0.3) == 1  # f alone is irrelevant, and e alone is important
    x = model.geometry.image(images[0].without(frozenset()))[None]
    logits = model.of_normalised(model.normalise(x)).detach()
    view = PartAnswers(model, x, logits, PartImages(images, TABLE, [0, 1, 2])).view()
    assert background_independence(logits, torch.tensor([T]), view).tolist() == [0.5]


# --- contrastivity ---


def contrastivity(explain, weights=None, label: int = T) -> float:
    model, images = network(weights), [Blocks(label)]
    x = model.geometry.image(images[0].without(frozenset()))[None]
    logits = model.of_normalised(model.normalise(x)).detach()
    view = PartAnswers(model, x, logits, PartImages(images, TABLE, [0, 1, 2])).view()
    return float(part_contrastivity(x, map_of({"a": 1.0})[None], logits, explain, view))


def of_class(shares: dict[int, dict[str, float]], seen: list[int]):
    def explain(x, rows=None, target=None, **_):
        seen.extend(target.tolist())
        return torch.stack([map_of(shares[int(label)]) for label in target])

    return explain


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [({"a": 0.4, "b": 0.4}, {"c": 0.4, "d": 0.4}, 1.0), ({"c": 0.4, "d": 0.4}, {"a": 0.4, "b": 0.4}, 0.0),
     ({"a": 0.4, "b": 0.4, "c": 0.1}, {"a": 0.3, "b": 0.3, "c": 0.1}, 0.5)],
)  # fmt: skip
def test_contrastivity_of_hand_made_maps(first, second, expected):
    seen: list[int] = []
    assert contrastivity(of_class({A: first, B: second}, seen)) == expected
    assert seen == [A, B], "each class has a map of its own"


def test_one_map_for_both_classes_scores_nothing():
    """Paper R's code gives both classes the map of the image's own class: every method then scores 0."""
    same = {"a": 0.5, "b": 0.3, "c": 0.1, "d": 0.1}
    assert contrastivity(of_class({A: same, B: same}, [])) == 0.0


def test_contrastivity_skips_what_says_nothing():
    everything = of_class({A: {"a": 0.4}, B: {"c": 0.4}}, [])
    assert np.isnan(contrastivity(everything, {"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0}))  # A's logit never drops
    assert np.isnan(contrastivity(everything, label=A))  # no two classes share two parts with A


# --- a slow reference, from the paper ---


def slow_weights(values: np.ndarray, masks: dict[str, np.ndarray]) -> dict[str, float]:
    """Share of the map in each mask, dilated by 5 × 5, one pixel at a time."""
    total, found = float(values.sum()), {}
    for name, mask in masks.items():
        inside = 0.0
        for y, x in np.ndindex(values.shape):
            near = mask[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            inside += float(values[y, x]) if near.any() else 0.0
        found[name] = inside / total
    return found


def slow_scores(model, images, i: int, values: np.ndarray) -> dict[str, np.ndarray]:
    """All checks of one creature, each image made and run by itself."""
    one = images.parts(i)
    parts, weights = list(one.table.parts), slow_weights(values, one.masks())

    @cache
    def answer(gone: frozenset[str]) -> np.ndarray:
        x = model.geometry.image(one.without(gone))[None]
        with torch.no_grad():
            return model.of_normalised(model.normalise(x))[0].double().numpy()

    def logits(gone) -> np.ndarray:
        return answer(frozenset(gone))

    whole = logits(())
    target = int(whole.argmax())
    found: dict[str, list[float]] = {name: [] for name in CHECKS}
    sets = [set(chosen) for size in range(1, 6) for chosen in itertools.combinations(parts, size)]
    codes = one.table.classes
    own = dict(zip(parts, codes[one.label], strict=True))
    enough = [
        chosen for chosen in sets
        if not any(all(dict(zip(parts, code, strict=True))[p] == own[p] for p in chosen)
                   for other, code in enumerate(codes) if other != one.label)
    ]  # fmt: skip
    minimal = [chosen for chosen in enough if not any(other < chosen for other in enough)]
    drops = {name: whole[target] - logits([name])[target] for name in weights}
    irrelevant = [name for name, drop in drops.items() if abs(drop) < 0.05 * abs(whole[target]) or drop < 0]
    for t in np.linspace(0.01, 0.5, 80):
        important = {name for name, weight in weights.items() if weight > t}
        mine = important & set(parts)
        found["part-sufficiency"].append(max(len(chosen & mine) / len(chosen) for chosen in minimal))
        found["part-preservation"].append(float(logits(set(parts) - mine).argmax() == target))
        found["part-deletion"].append(float(logits(mine).argmax() != target))
        found["part-distractibility"].append(1 - len(important & set(irrelevant)) / len(irrelevant))
    return {name: np.array(points) for name, points in found.items()}


@pytest.fixture(scope="module")
def creatures():
    model, images = heatproof.load_model("creatures", device="cpu"), demo_creatures("test", 4)
    x = torch.stack([model.geometry.image(images.open(i)) for i in range(4)])
    return model, images, x


def scored(creatures, rows, methods=("layercam", "edges"), metrics="parts"):
    model, images, x = creatures
    found = resolve_layers(model, requested(list(methods)), chosen_layer(model, "auto", True))
    batch = Batch.of(model, found, x[rows], ids=[images.ids[i] for i in rows])
    parts = PartAnswers(model, x[rows], batch.logits, images_by_parts(images, rows, model.classes))
    scores = {one.method: one for one in evaluate(batch, found, requested_metrics(metrics), parts=parts)}
    return scores, parts


def test_the_checks_are_those_of_the_slow_reference(creatures):
    model, images, _ = creatures
    found, _ = scored(creatures, [0], metrics=list(CHECKS))
    for one in found.values():
        slow = slow_scores(model, images, 0, one.maps[0].double().numpy())
        for outcome in one.outcomes:
            np.testing.assert_allclose(outcome.curve[1][0], slow[outcome.metric], atol=1e-9)
            assert float(outcome.values[0]) == pytest.approx(slow[outcome.metric].mean(), abs=1e-9)


def test_correctness_and_contrastivity_are_those_of_the_slow_reference(creatures):
    model, images, x = creatures
    found, _ = scored(creatures, [0, 1], ("layercam", "gradcam"), ["part-correctness", "part-contrastivity"])
    for method, one in found.items():
        values = {outcome.metric: outcome.values for outcome in one.outcomes}
        for i in range(2):
            image = images.parts(i)
            parts, label = list(image.table.parts), image.label

            def logit(gone, which, image=image):
                z = model.normalise(model.geometry.image(image.without(frozenset(gone)))[None])
                with torch.no_grad():
                    return float(model.of_normalised(z)[0, which])

            weights = slow_weights(one.maps[i].double().numpy(), image.masks())
            drops = [logit([], label) - logit([name], label) for name in parts]
            correlation = spearmanr(drops, [weights[name] for name in parts]).statistic
            assert float(values["part-correctness"][i]) == pytest.approx((correlation + 1) / 2, abs=1e-9)

            codes = image.table.classes
            shared = {other: {n for n, a, b in zip(parts, code, codes[label], strict=True) if a == b}
                      for other, code in enumerate(codes) if other != label}  # fmt: skip
            a, b = next((a, b) for a, b in itertools.combinations(shared, 2)
                        if len(shared[a]) == len(shared[b]) == 2 and not shared[a] & shared[b])  # fmt: skip
            assert logit(shared[a], a) < logit(shared[b], a) and logit(shared[b], b) < logit(shared[a], b)
            of = {}
            for other in (a, b):
                again = heatproof.explain(model, x[i : i + 1], method, target=other)[method][0]
                inside = slow_weights(again.double().numpy(), image.masks())
                of[other] = {mine: sum(inside[name] for name in shared[mine]) for mine in (a, b)}
            points = [of[a][a] > of[b][a], of[b][b] > of[a][b]]
            assert float(values["part-contrastivity"][i]) == np.mean(points)


def test_batches_of_any_size_give_the_same_rows(creatures, monkeypatch):
    together, _ = scored(creatures, [0, 1, 2, 3])
    monkeypatch.setattr(passes, "CPU_ROWS", 3)
    single = [scored(creatures, [i])[0] for i in (2, 0)]
    for method, one in together.items():
        for number, outcome in enumerate(one.outcomes):
            for row, alone in zip((2, 0), single, strict=True):
                other = alone[method].outcomes[number]
                assert float(other.values[0]) == pytest.approx(float(outcome.values[row]), abs=1e-9, nan_ok=True)
                assert other.flags[0] == outcome.flags[row]


def test_each_distinct_image_runs_once_for_all_methods(creatures):
    found, parts = scored(creatures, [0, 1], metrics=list(CHECKS))
    assert parts.passes == sum(1 for _, gone in parts._known if gone) > 0
    asked = [parts.passes]
    scored_again = parts.view()
    scored_again.logits([row for row, _ in parts._known], [gone for _, gone in parts._known])
    assert parts.passes == asked[0]
    assert set(found) == {"layercam", "edges"}


def test_what_is_missing_is_flagged_with_its_path():
    gone = frozenset("a")
    images = [Blocks(), Blocks(missing=(gone,)), Blocks(no_masks=True)]
    maps = torch.stack([map_of({"a": 0.4, "b": 0.3, "c": 0.2})] * 3)
    found = outcomes(network({"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}), images, maps, "parts")
    for name in ("part-correctness", "part-distractibility"):
        assert found[name].flags == ["", "there is no rendered/7.png", "there is no maps/7.png"], name
        assert found[name].values.isnan().tolist() == [False, True, True]
        assert found[name].flags[1].reason is Reason.NO_PART_IMAGE
    assert found["part-sufficiency"].flags == ["", "", "there is no maps/7.png"]


def test_images_without_parts_and_degenerate_maps_are_flagged():
    model, images = network(), [Blocks()]
    x = model.geometry.image(images[0].without(frozenset()))[None]
    batch = Batch.of(model, [], x, ids=["one"])
    (found,) = evaluate(batch, [], requested_metrics(list(CHECKS)), given=[GivenMaps("mine", map_of({"a": 1.0})[None])])
    assert {flag.reason for one in found.outcomes for flag in one.flags} == {Reason.NO_PARTS}
    flat = outcomes(model, images, torch.zeros(1, SIDE, SIDE), list(CHECKS))
    assert [float(flat[name].values) for name in CHECKS] == [0, 0, 0, 0]
    assert {one.flags[0].reason for one in flat.values()} == {Reason.CONSTANT}


def test_a_misclassified_image_has_no_sufficiency():
    model = network({"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0})  # B comes first for an image of T only by a tie
    found = outcomes(model, [Blocks(B)], map_of({"a": 0.5})[None], ["part-sufficiency"])
    assert found["part-sufficiency"].values.isnan().all() and "misclassified" in found["part-sufficiency"].flags[0]

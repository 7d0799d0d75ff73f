"""Several classes of each image in the score study, against `heatproof.score` of one image and one class at a time."""

import itertools
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.data import load_images
from heatproof.errors import HeatproofWarning, InvalidStudy, InvalidTarget
from heatproof.report import write_report, write_tables
from heatproof.studies import run
from heatproof.studies.loading import GIVEN_MODELS
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import connect

NAMES = ["red", "green", "blue"]
#: Image → its labels. The third has none, the last is labelled in another order than the columns.
LABELS = {"a.png": [0, 1], "b.png": [2], "c.png": [], "d.png": [0, 1, 2], "e.png": [1, 2]}
METRICS = ("insertion[steps=4]", "complexity")
METHODS = ("gradcam", "gradient")


class Counting:
    """A progress that shows nothing. With one, passes are counted."""

    def stage(self, name, total, done=0): ...
    def advance(self, units): ...


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 1, 1), nn.ReLU(),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))  # fmt: skip
    made = heatproof.wrap(
        net.eval(), input_shape=(3, 32, 32), mean=[0] * 3, std=[1] * 3, classes=NAMES, multi_label=True
    )
    GIVEN_MODELS["several"] = made
    yield made
    del GIVEN_MODELS["several"]


@pytest.fixture
def own_methods():
    """Methods that a test registers are gone after it."""
    before = set(ATTRIBUTIONS)
    yield
    for name in set(ATTRIBUTIONS) - before:
        ATTRIBUTIONS.remove(name)
        PLUGIN_METHODS.recipes.pop(name, None)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several") / "images"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for name in LABELS:
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), "uint8")).save(folder / name)
    lines = [f"{name},{','.join(str(int(k in of)) for k in range(3))}" for name, of in LABELS.items()]
    (folder.parent / "labels.csv").write_text("\n".join(["file,red,green,blue", *lines]))
    return folder


def settings(images, **more):
    given = {"study": "score", "models": ["given:several"], "methods": list(METHODS), "metrics": list(METRICS),
             "datasets": [{"images": str(images), "labels": str(images.parent / "labels.csv")}], "batch_size": 2,
             "resamples": 100, "targets": ["labels"]}  # fmt: skip
    return {**given, **more}


def ran(images, folder, **more):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", HeatproofWarning)
        done = run.run(checked_plan(settings(images, **more)), folder, workers=1, progress=Counting())
        write_tables(folder)
    return done, [str(one.message) for one in caught if issubclass(one.category, HeatproofWarning)]


@pytest.fixture(scope="module")
def finished(model, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several-out") / "out"
    return folder, *ran(images, folder)


def by_hand(model, images, number) -> pd.DataFrame:
    """Scores of all images for their label of that number (class 0 where there is none), by the Python function."""
    target = [labels[number - 1] if len(labels) >= number else 0 for labels in LABELS.values()]
    found = heatproof.score(model, load_images(images), METHODS, METRICS, target=target).to_pandas()
    return found.set_index(["image", "method", "metric"])["value"]


def test_every_class_is_scored_and_an_image_is_the_mean_of_its_classes(model, images, finished):
    folder = finished[0]
    rows = connect(folder).execute("SELECT * FROM rows WHERE method <> ''").df()
    tables = pd.read_parquet(folder / "tables" / "pictures.parquet")
    ours = {number: by_hand(model, images, number) for number in (1, 2, 3)}
    for name, labels in LABELS.items():
        for method, metric in itertools.product(METHODS, METRICS):
            expected = [ours[number][name, method, metric] for number in range(1, len(labels) + 1)]
            mine = rows[(rows.image == name) & (rows.method == method) & (rows.metric == metric)]
            mine = mine.set_index("target")["value"]
            for number, value in enumerate(expected, 1):
                assert mine["label" if number == 1 else f"label:{number}"] == pytest.approx(value, abs=1e-6)
            pooled = tables[(tables.image == name) & (tables.method == method) & (tables.metric == metric)]["value"]
            if labels:
                assert pooled.tolist() == pytest.approx([np.mean(expected)], abs=1e-6)
    # Only classes that an image has are explained; the one without a label is a flagged row and not forgotten.
    here = rows[(rows.method == "gradcam") & (rows.metric == METRICS[0]) & (rows.flag != "no label")]
    counts = here.groupby("image").size()
    assert counts.to_dict() == {name: len(labels) for name, labels in LABELS.items() if labels}
    assert set(rows.loc[rows.image == "c.png", "flag"]) == {"no label"}


def test_passes_are_those_of_the_classes_that_there_are(finished):
    passes = finished[1].passes
    alone = passes.made.forward / sum(map(len, LABELS.values()))
    assert alone == int(alone)  # the same for each image and class, none for a class that is not there
    assert passes.made.backward == sum(map(len, LABELS.values()))  # both methods share one


def test_the_table_of_classes(finished):
    table = pd.read_csv(finished[0] / "tables" / "classes.csv")
    here = table[(table["method"] == "gradcam") & (table["metric"] == METRICS[0])]
    assert dict(zip(here["class"], here["n"], strict=True)) == {"green": 3, "blue": 3, "red": 2}
    rows = connect(finished[0]).execute(
        "SELECT image, target, value FROM rows WHERE method = 'gradcam' AND metric = ?", [METRICS[0]]
    ).df().set_index(["image", "target"])["value"]  # fmt: skip
    red = np.mean([rows["a.png", "label"], rows["d.png", "label"]])
    assert here.loc[here["class"] == "red", "mean"].item() == pytest.approx(red, abs=1e-9)


def test_a_prediction_is_right_where_it_is_one_of_the_labels(model, images, finished):
    right = connect(finished[0]).execute(
        "SELECT image, value FROM rows WHERE metric = 'correct' AND reference AND flag = ''"
    ).df().set_index("image")["value"]  # fmt: skip
    for name, labels in LABELS.items():
        if labels:
            top = heatproof.explain(model, [images / name], ["gradcam"]).target.item()
            assert right[name] == float(top in labels)
    assert any("3 of the 5 images of images have several labels" in text for text in finished[2])


def test_the_page_says_so(finished):
    text = write_report(finished[0]).read_text()
    assert "all labels of an image" in text and "The scores by class" in text
    facts = json.loads((finished[0] / "study.json").read_text())
    assert facts["pooled_targets"] == ["label", "label:2", "label:3"]


def test_the_most_probable_classes(model, images, tmp_path):
    ran(images, tmp_path / "out", targets=["top2"], metrics=["complexity"], methods=["gradient"], controls="none")
    rows = connect(tmp_path / "out").execute("SELECT * FROM rows WHERE metric = 'target-class'").df()
    for name in LABELS:
        logits = heatproof.explain(model, [images / name], ["gradient"]).logits[0]
        order = logits.argsort(descending=True)[:2].tolist()
        here = rows[rows.image == name].set_index("target")["value"]
        assert [here["predicted"], here["predicted:2"]] == order


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"targets": [], "target": "label"}, InvalidStudy, "3 of the 5 images .* such as a.png.*targets: labels"),
        ({"target": "predicted", "targets": ["red", "blue"]}, InvalidStudy, "Give `target` or `targets`"),
        ({"targets": ["top4"]}, InvalidTarget, "`predicted:4` must name 1 … 3 classes"),
        ({"targets": ["red", "grene"]}, InvalidTarget, "Did you mean 'green'"),
        ({"maps": ["m.npz"]}, InvalidStudy, "Maps made beforehand are of one class"),
    ],
)
def test_refusals(model, images, tmp_path, given, error, message):
    if "maps" in given:
        np.savez(tmp_path / "m.npz", **{name: np.ones((32, 32), "float32") for name in LABELS})
        given = {"maps": [str(tmp_path / "m.npz")]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HeatproofWarning)
        with pytest.raises(error, match=message):
            run.run(checked_plan(settings(images, **given)), tmp_path / "out", workers=1)


def test_masks_are_said_to_be_of_every_class(model, images, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in LABELS:
        Image.fromarray(np.eye(32, dtype="uint8") * 255).save(masks / name)
    data = [{"images": str(images), "labels": str(images.parent / "labels.csv"), "masks": str(masks)}]
    _, told = ran(images, tmp_path / "out", datasets=data, metrics=["energy"], methods=["gradient"], controls="none")
    assert any("one mask" in text and "every class" in text for text in told)


def test_a_class_that_two_targets_name_counts_once(model, images, tmp_path):
    """`predicted` and an index or a name may be one class of an image."""
    folder = tmp_path / "out"
    ran(images, folder, targets=["predicted", "red", "green", "blue"], metrics=["complexity"], methods=["gradient"])
    rows = connect(folder).execute(
        "SELECT image, target, value FROM rows WHERE method = 'gradient' AND metric = 'complexity'"
    ).df()  # fmt: skip
    pooled = pd.read_parquet(folder / "tables" / "pictures.parquet").query("method == 'gradient'")
    own = rows[rows["target"] != "predicted"].groupby("image")["value"].mean()
    assert pooled.set_index("image")["value"].to_dict() == pytest.approx(own.to_dict(), abs=1e-9)
    classes = pd.read_csv(folder / "tables" / "classes.csv").query("method == 'gradient'")
    assert classes["n"].tolist() == [5, 5, 5]


def test_the_curve_is_of_the_classes_that_the_score_is_of(model, images, tmp_path):
    """The area below the mean curve is the mean score, also where two targets name one class."""
    given = {"targets": ["predicted", "red", "green", "blue"], "metrics": ["deletion[steps=4]"]}
    ran(images, tmp_path / "out", methods=["gradient"], controls="none", **given)
    curve = pd.read_csv(tmp_path / "out" / "tables" / "curves.csv")
    score = pd.read_csv(tmp_path / "out" / "tables" / "scores.csv").query("metric == 'deletion[steps=4]'")
    assert np.trapezoid(curve["mean"], curve["at"]) == pytest.approx(score["mean"].item(), abs=1e-9)


def test_equal_maps_are_equal_for_every_class(model, images, tmp_path, own_methods):
    """Maps that are equal for the first class alone are two methods."""
    heatproof.register("one", lambda model, inputs, targets: inputs.mean(1) * (1 + targets.view(-1, 1, 1)))
    heatproof.register(
        "other",
        lambda model, inputs, targets: torch.where(
            (model(inputs).argmax(1) == targets).view(-1, 1, 1), inputs.mean(1), inputs.mean(1).flip(2)
        ),
    )
    given = {"targets": ["top2"], "metrics": ["insertion[steps=4]"], "methods": ["one", "other"], "controls": "none"}
    ran(images, tmp_path / "out", **given)
    tests = pd.read_csv(tmp_path / "out" / "tables" / "statistics.csv")
    assert {"one", "other"} <= set(tests["first"].dropna()) | set(tests["second"].dropna())

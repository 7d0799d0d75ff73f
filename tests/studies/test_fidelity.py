"""The fidelity study against direct calls of `heatproof.score`, on images transformed by hand; labels, sizes, cost."""

import json
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import heatproof
from heatproof import seeds
from heatproof.errors import HeatproofWarning, InvalidStudy
from heatproof.report import write_tables
from heatproof.report.blocks import drawings_in
from heatproof.report.findings import Findings
from heatproof.report.source import open_source
from heatproof.studies import condition_checks, run
from heatproof.studies.cost import Explained, counted, passes_of_image
from heatproof.studies.fidelity import CHEAP, STUDY, VARIANTS, FidelityPlan, fewer_variants
from heatproof.studies.jobs import all_requests, input_of
from heatproof.studies.loading import GIVEN_MODELS
from heatproof.studies.measures import Measures
from heatproof.studies.partners import partners
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import connect
from heatproof.transformations import transformed

TURNED = ("mixup[seed=55]", "resize[size=64]", "rotation[degrees=135]", "crop[seed=44]")
METRICS = ("average-drop", "complexity", "energy", "insertion[steps=2]")
GIVEN = {"study": "fidelity", "models": ["shapes"], "datasets": ["shapes"], "methods": ["gradcam", "gradient"],
         "metrics": list(METRICS), "transformations": list(TURNED), "limit": 8, "resamples": 100}  # fmt: skip


@pytest.fixture(scope="module")
def plan() -> FidelityPlan:
    return checked_plan({**GIVEN, "batch_size": 3})


@pytest.fixture(scope="module")
def folder(plan, shared_folder):
    """A finished study with its tables."""

    def made(where):
        run.run(plan, where, workers=1)
        write_tables(where)

    return shared_folder("fidelity", made)


@pytest.fixture(scope="module")
def rows(folder) -> pd.DataFrame:
    return connect(folder).execute("SELECT * FROM rows").df()


@pytest.fixture(scope="module")
def model():
    return heatproof.load_model("shapes")


@pytest.fixture(scope="module")
def images(plan):
    return run.open_datasets(plan)[0]


def opened(images, model) -> torch.Tensor:
    return torch.stack([input_of(images.open(i), model) for i in range(len(images.ids))])


def test_every_condition_has_every_metric_and_method(rows, plan):
    scores = rows[rows["metric"].isin(METRICS) & (rows["method"] != "")]
    conditions = scores.groupby(["target", "transformation"]).size()
    expected = {("label", ""), ("predicted", ""), ("least", ""), *(("label", one) for one in TURNED)}
    assert set(conditions.index) == expected and (conditions == 8 * 7 * len(METRICS)).all()
    assert set(scores.loc[scores["reference"], "target"]) == {"label"}
    assert not scores.duplicated(["image", "target", "transformation", "method", "metric"]).any()


@pytest.mark.parametrize(("target", "turned"), [("predicted", ""), ("least", ""), *(("label", one) for one in TURNED)])
def test_scores_are_those_of_the_same_images_by_hand(rows, plan, model, images, target, turned):
    """Also masks: `energy` is that of the mask under the same geometry. Partners come from the set, not the batch."""
    x, ids, labels = opened(images.images, model), images.images.ids, images.images.labels
    masks = torch.stack([images.ground_truth.mask(i, model.geometry, x.shape[2:]) for i in range(len(ids))])
    if turned:
        given = {"partners": lambda ids, generators: partners(images.images, model, ids, generators)}
        masks = transformed(turned, masks[:, None].float(), ids, mask=True)[:, 0] > 0.5
        x = transformed(turned, x, ids, **given)
    made: dict = {"target": target, "labels": labels}
    resized = x.shape[2:] != masks.new_empty(model.input_shape).shape[1:]  # `heatproof.score` takes no such masks
    metrics = [name for name in METRICS if not name.startswith("insertion") and not (resized and name == "energy")]
    more = {} if resized else {"masks": masks}
    expected = heatproof.score(model, x, ["gradcam", "gradient", "ones", "edges"], metrics, **made, **more)
    here = rows[(rows["target"] == target) & (rows["transformation"] == turned)]
    for method in ("gradcam", "gradient", "ones", "edges"):
        for metric in metrics:
            found = here[(here["method"] == method) & (here["metric"] == metric)].set_index("image")["value"]
            np.testing.assert_allclose(found.loc[ids], expected.values(method, metric).numpy(), atol=2e-5)
    maps = heatproof.explain(model, x, ["gradcam"], **made)["gradcam"]
    inside = [float(one[mask].sum() / one.sum().clamp_min(1e-9)) for one, mask in zip(maps, masks, strict=True)]
    energy = here[(here["method"] == "gradcam") & (here["metric"] == "energy")].set_index("image")["value"]
    np.testing.assert_allclose(energy.loc[ids], inside, atol=2e-5)


def test_mixup_takes_its_partners_from_the_set_and_passes_over_corrupt_ones(model, images):
    class Damaged:
        """The same set, of which one image alone can be opened."""

        ids, labels, flags = images.images.ids, images.images.labels, {}

        def open(self, i):
            if i != 5:
                raise heatproof.errors.InvalidImage("is no image")
            return images.images.open(i)

    ids = [one for number, one in enumerate(images.images.ids) if number != 5][:2]
    found = partners(Damaged(), model, ids, seeds.generators(0, ids, "partner", "mixup 44"))
    only = input_of(images.images.open(5), model)
    torch.testing.assert_close(found, torch.stack([only, only]), rtol=0, atol=0)
    with pytest.raises(heatproof.errors.NotApplicable, match="there is none that can be used"):
        partners(Damaged(), model, images.images.ids[5:6], seeds.generators(0, ["x"], "partner", "mixup 44"))
    whole = partners(images.images, model, images.images.ids, seeds.generators(0, images.images.ids, "partner", "m"))
    assert (whole - opened(images.images, model)).abs().flatten(1).amax(1).min() > 0.05  # never the image itself


def test_rows_do_not_depend_on_the_batch(rows, tmp_path):
    settings = {**GIVEN, "batch_size": 8, "transformations": ["mixup[seed=55]"], "targets": "label"}
    run.run(checked_plan(settings), tmp_path / "out", workers=1)
    found = connect(tmp_path / "out").execute("SELECT * FROM rows WHERE metric = 'complexity'").df()
    key = ["image", "transformation", "method"]
    found, before = (one.set_index(key)["value"].sort_index() for one in (found, rows[rows["metric"] == "complexity"]
                     .query("target == 'label' and transformation in ('', 'mixup[seed=55]')")))  # fmt: skip
    np.testing.assert_allclose(found, before, atol=1e-5)


def test_tables_and_page(folder, rows):
    targets = pd.read_csv(folder / "tables" / "targets.csv").set_index(["target", "method", "metric"])
    here = rows[(rows["method"] == "gradcam") & (rows["metric"] == "average-drop") & (rows["transformation"] == "")]
    for target, cell in here.groupby("target"):
        assert targets.loc[(target, "gradcam", "average-drop"), "mean"] == pytest.approx(cell["value"].mean())
    turned = pd.read_csv(folder / "tables" / "transformations.csv")
    assert set(turned["variant"]) == {*TURNED, "all"} and set(turned["transformation"]) == {
        t[: t.index("[")] for t in TURNED
    }
    for name in ("confidence", "rankings", "fooled_by_condition", "scores", "fooled"):
        assert len(pd.read_csv(folder / "tables" / f"{name}.csv"))
    curves = rows[rows["metric"] == "insertion[steps=2]-curve"]
    assert set(curves["transformation"]) == {""} and set(curves["target"]) == {"label"}


def test_sections_and_gallery(folder):
    """The texts of the page, and one panel of each of its own figures."""
    findings = Findings(open_source(folder))
    sections = {section.id: section for section in findings.sections}
    assert findings.answers[0].sentence.startswith(
        "On 8 images it cannot be told whether the scores change under mixup"
    )
    blocks = sections["targets"].blocks
    sheets = [block for block in blocks if block.kind == "sheet"]
    assert [one.caption for one in sheets[:3]] == [
        f"Class explained: {t} (8 images)" for t in ("label", "predicted", "least")
    ]
    assert sheets[0].header == ("method", "100 − AD", "I") and len(sheets[0].rows) == 7
    beside = {tuple(row.cells[:2]): row.cells[2:] for row in sheets[3].rows}
    assert beside["gradcam", "paper"] == ("87.6", "66.8") and beside["ones", "paper"] == ("99.2", "60.1")
    drop = findings.conditions.settings[0].targets.set_index(["target", "method", "metric"])["mean"]
    assert beside["gradcam", "ours"][0] == f"{100 - 100 * drop['label', 'gradcam', 'average-drop']:.1f}"
    for name in ("conditions", "confidence"):
        [figure] = list(drawings_in(sections[name].blocks))
        assert set(figure.panels) == set(METRICS) and len(figure.panels["complexity"]().axes) == 1
    titles = [case["title"] for case in json.loads((folder / "gallery" / "index.json").read_text("utf-8"))]
    assert any(one.startswith("The best image by") for one in titles)
    assert any(one.startswith("The worst image by") and "average-drop" in one for one in titles)


def test_images_without_a_label_have_rows_for_the_other_classes(photographs, tmp_path):
    names = sorted(path.name for path in photographs.iterdir())
    labels = tmp_path / "labels.csv"
    labels.write_text("file,class_index\n" + "".join(f"{name},1\n" for name in names[:3]))
    data = {"images": str(photographs), "labels": str(labels)}
    settings = {**GIVEN, "datasets": [data], "metrics": "complexity", "transformations": "rotation[degrees=45]"}
    run.run(checked_plan(settings), tmp_path / "out", workers=1)
    found = connect(tmp_path / "out").execute("SELECT * FROM rows WHERE metric = 'complexity'").df()
    lacking = found["image"].isin(names[3:]) & (found["target"] == "label")
    assert set(found.loc[lacking, "flag"]) == {"no label"} and found.loc[lacking, "value"].isna().all()
    assert set(found.loc[lacking, "transformation"]) == {"", "rotation[degrees=45]"}
    assert found.loc[~lacking, "value"].notna().all() and set(found.loc[~lacking, "image"]) == set(names)
    about = connect(tmp_path / "out").execute("SELECT * FROM rows WHERE metric = 'target-class'").df()
    assert about.loc[about["image"].isin(names[3:]) & (about["target"] == "label"), "value"].isna().all()


def test_without_labels_the_prediction_is_explained_unless_the_label_is_asked_for(photographs, tmp_path):
    settings = {**GIVEN, "datasets": [str(photographs)], "metrics": "complexity", "transformations": "none"}
    with pytest.warns(HeatproofWarning, match="No image has a label"):
        run.run(checked_plan(settings), tmp_path / "out", workers=1)
    found = connect(tmp_path / "out").execute("SELECT DISTINCT target, reference FROM rows ORDER BY ALL").fetchall()
    assert found == [("least", False), ("predicted", True)]
    with pytest.raises(InvalidStudy, match="Target `label` needs labels"):
        run.run(checked_plan({**settings, "targets": ["label", "least"]}), tmp_path / "other", workers=1)


class Fixed(nn.Module):
    """A network that takes images of 32² alone, as one with fixed positions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.ReLU())
        self.head = nn.Linear(4 * 64, 6)

    def forward(self, z):
        return self.head(self.body(z).flatten(1))


class Coarse(nn.Module):
    """A network whose layer has one position where an image has 8² pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU()), nn.Linear(4, 6)

    def forward(self, z):
        return self.head(self.body(z).mean((2, 3)))


@pytest.fixture
def given_model() -> Callable[[nn.Module], None]:
    yield lambda net: GIVEN_MODELS.update(net=heatproof.wrap(net, size=32, layer="body", name="net"))
    del GIVEN_MODELS["net"]


def of_given(photographs, **more):
    return checked_plan({**GIVEN, "models": [{"spec": "given:net", "name": "net"}], "datasets": [str(photographs)],
                         "target": "predicted", "targets": "predicted", "metrics": ["complexity", "average-drop"],
                         **more})  # fmt: skip


def test_a_network_of_one_size_has_flagged_rows(given_model, photographs, tmp_path):
    given_model(Fixed())
    turned = ["resize[size=16]", "resize-back[size=16]"]
    run.run(of_given(photographs, transformations=turned), tmp_path / "out", workers=1)
    found = connect(tmp_path / "out").execute("SELECT * FROM rows WHERE metric = 'complexity'").df()
    refused = found["transformation"] == "resize[size=16]"
    assert refused.sum() == 5 * 7 and found.loc[refused, "value"].isna().all()
    assert found.loc[refused, "flag"].str.startswith("the network takes no images of 16 × 16 pixels: ").all()
    fine = found[~refused & ~found["control"]]
    assert set(fine["transformation"]) == {"", "resize-back[size=16]"} and fine["value"].notna().all()
    [setting] = Findings(open_source(tmp_path / "out")).conditions.settings
    assert any(note.startswith("Without any number: resize[size=16];") for note in setting.verdict.notes)


def test_where_a_layer_has_one_position_the_other_methods_keep_their_maps(given_model, photographs, tmp_path):
    given_model(Coarse())
    run.run(of_given(photographs, transformations=["resize[size=8]"]), tmp_path / "out", workers=1)
    found = connect(tmp_path / "out").execute("SELECT * FROM rows WHERE metric = 'complexity'").df()
    small = found[found["transformation"] == "resize[size=8]"].set_index("method")
    assert small.loc["gradcam", "value"].isna().all() and small.loc["gradcam", "flag"].str.contains("positions").all()
    assert small.loc["gradient", "value"].notna().all() and len(small) == 5 * 7
    assert found[(found["transformation"] == "") & (found["method"] == "gradcam")]["value"].notna().all()


def test_settings():
    plan = checked_plan({**GIVEN, "metrics": "cheap", "transformations": ["rotation", {"mixup": {"seed": 3}}]})
    assert plan.metrics == CHEAP
    assert plan.transformations == (*(f"rotation[degrees={d}]" for d in VARIANTS["rotation"][1]), "mixup[seed=3]")
    assert checked_plan({"study": "fidelity", "models": "shapes", "datasets": "shapes"}).target == "label"
    names = [condition.name for condition in STUDY.all_conditions(plan)]
    assert names[:3] == ["", "predicted", "least"] and len(names) == 8
    least = checked_plan({**GIVEN, "target": "least"})
    assert [one.name for one in STUDY.all_conditions(least)][:3] == ["", "label", "predicted"]
    assert fewer_variants(plan).transformations == ("rotation[degrees=45]", "mixup[seed=3]")
    assert fewer_variants(fewer_variants(plan)) is None
    with pytest.raises(InvalidStudy, match="Did you mean 'rotation'"):
        checked_plan({**GIVEN, "transformations": "rotate"})
    with pytest.raises(InvalidStudy, match="predicted"):
        checked_plan({**GIVEN, "targets": "predictd"})
    wrong = checked_plan({**GIVEN, "transformations": "resize[size=0]"})
    with pytest.raises(heatproof.errors.InvalidInput, match=r"`size` must be at least 1"):
        condition_checks.check_conditions(STUDY.all_conditions(wrong))


def test_the_passes_told_are_those_by_hand():
    """One image: gradcam and two controls share a forward; a curve has 4 steps and an end, `average-drop` one pass."""

    def passes(conditions, layers=None, **more):
        plan = checked_plan({**GIVEN, "methods": "gradcam", "controls": "none", **more})
        return passes_of_image(
            Explained(all_requests(plan), 8, True, layers or {}), Measures.of(STUDY, plan), conditions
        )

    plan = checked_plan({**GIVEN, "transformations": "none", "targets": "label"})
    alone = STUDY.all_conditions(plan)
    drop = passes(alone, metrics="average-drop")
    assert (drop.forward, drop.backward) == (1 + 1, 1)
    curve = passes(alone, metrics=["deletion[steps=4]", "average-drop"])
    assert (curve.forward, curve.backward) == (1 + 1 + 4, 1)  # three points between, and the end of nothing but fill
    many = passes(STUDY.all_conditions(checked_plan(GIVEN)), metrics="average-drop")
    assert (many.forward, many.backward) == (7 * 2, 7)
    masked = passes(alone, metrics="average-drop", methods="scorecam")
    assert masked.forward == 1 + 8 + 1 and masked.backward == 0
    elsewhere = {"scorecam@stage1": (5,), "refine:scorecam@stage1": (5, 8, 8)}
    wide = passes(alone, elsewhere, metrics="average-drop", methods="scorecam@stage1")
    assert wide.forward == 1 + 5 + 1, "as many as that layer has channels"
    several = passes(alone, elsewhere, metrics="average-drop", methods="refine:scorecam@stage1")
    assert several.forward == 1 + 5 + 8 + 8 + 1
    gradients = passes(alone, {"refine:shapleycam@stage1": (5, 8, 8)}, metrics="average-drop",
                       methods="refine:shapleycam@stage1")  # fmt: skip
    assert (gradients.forward, gradients.backward) == (1 + 1, 1 + 3), "a second derivative for each layer"
    again = passes(alone, metrics="max-sensitivity[samples=3]", methods=["gradcam", "eigencam"])
    assert (again.forward, again.backward) == (1 + 3 + 3, 1 + 3)
    assert "about 2 forward and 1 backward passes an image" in str(drop)


def test_what_is_told_is_what_a_small_study_makes(model, tmp_path):
    """The rows that go through the network, counted in the study itself."""
    settings = {**GIVEN, "limit": 2, "batch_size": 2, "metrics": ["average-drop", "insertion[steps=4]"],
                "transformations": "crop[seed=44]", "methods": "gradcam"}  # fmt: skip
    GIVEN_MODELS["counted"] = model
    try:
        plan = checked_plan({**settings, "models": [{"spec": "given:counted", "name": "shapes"}]})
        with warnings.catch_warnings(), counted(model.module) as made:
            run.run(plan, tmp_path / "out", workers=1)
    finally:
        del GIVEN_MODELS["counted"]
    told = passes_of_image(
        Explained(all_requests(plan), 64, True), Measures.of(STUDY, plan), STUDY.all_conditions(plan)
    )
    beside = 12  # the checks beforehand and the gallery
    assert 2 * told.forward <= made.forward <= 2 * told.forward + beside

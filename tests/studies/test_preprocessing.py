"""The window and the geometry in plans: from files and the command line, recorded, compared, shown, and used."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from heatproof import cli
from heatproof.cli import options
from heatproof.errors import InvalidStudy, StoreError
from heatproof.report import write_page, write_tables
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run
from heatproof.studies.settings import ModelPlan
from heatproof.studies.store import connect
from heatproof.studies.studyfile import read_settings


def plan(folder, **model):
    return checked_plan(
        {"study": "score", "models": [{"spec": "shapes", **model}], "datasets": [str(folder)], "methods": ["gradcam"],
         "controls": "none", "metrics": ["complexity"], "resamples": 100, "threads": 1, "device": "cpu"}
    )  # fmt: skip


@pytest.fixture
def scans(tmp_path):
    """Two images of 12 bits in files of 16."""
    (tmp_path / "scans").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        coarse = Image.fromarray(rng.integers(0, 255, (9, 9)).astype(np.uint8)).resize((80, 80), 3)
        Image.fromarray(np.asarray(coarse).astype(np.uint16) * 16).save(tmp_path / "scans" / f"{name}.png")
    return tmp_path / "scans"


def probabilities(folder):
    rows = connect(folder).execute("SELECT value FROM rows WHERE metric = 'probability' ORDER BY image").fetchall()
    return [value for (value,) in rows]


def test_a_study_uses_records_and_compares_the_window(scans, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run(plan(scans, window=[0, 4080]), first, workers=1)
    eight = tmp_path / "eight"
    eight.mkdir()
    for path in scans.iterdir():
        Image.fromarray((np.asarray(Image.open(path)) // 16).astype(np.uint8)).save(eight / path.name)
    run(plan(eight), second, workers=1)
    np.testing.assert_array_equal(probabilities(first), probabilities(second))
    recorded = json.loads((first / "study.json").read_text())["models"][0]
    assert recorded["window"] == [0, 4080] and recorded["preprocessing"]["window"] == [0, 4080]
    with pytest.raises(StoreError, match=r"models\[0\]\.window is \[0\.0, 4080\.0\] there and \"auto\" here"):
        run(plan(scans, window="auto"), first, workers=1)
    page = write_page(write_tables(first)).read_text("utf-8")
    assert "black and white 0, 4080; transparency on white" in page and "nearly one colour" not in page


def test_images_of_nearly_one_colour_have_a_row_and_a_warning_on_the_page(scans, tmp_path):
    Image.fromarray(np.asarray(Image.open(scans / "a.png")) * 16).save(scans / "c.png")  # all 16 bits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(plan(scans), tmp_path / "out", workers=1)
    rows = connect(tmp_path / "out").execute("SELECT image, value, flag FROM rows WHERE metric = 'contrast'").fetchall()
    assert [(image, flag) for image, _, flag in rows] == [
        (f"{n}.png", "nearly one colour after preprocessing") for n in "ab"
    ]
    assert all(0 < value < 1 / 16 for _, value, _ in rows)
    page = write_page(write_tables(tmp_path / "out")).read_text("utf-8")
    assert "2 images are nearly one colour after preprocessing: a.png, b.png." in page


def test_numbers_without_a_window_set_an_image_aside_with_the_advice(tmp_path):
    (tmp_path / "scans").mkdir()
    np.save(tmp_path / "scans" / "a.npy", np.arange(6400, dtype=np.float32).reshape(80, 80))
    run(plan(tmp_path / "scans"), tmp_path / "out", workers=1)
    flags = connect(tmp_path / "out").execute("SELECT DISTINCT flag FROM rows").fetchall()
    assert len(flags) == 1 and "--window low,high" in flags[0][0]
    run(plan(tmp_path / "scans", window="auto"), tmp_path / "other", workers=1)
    assert connect(tmp_path / "other").execute("SELECT count(*) FROM rows WHERE flag <> ''").fetchone() == (0,)


def test_settings_in_a_study_file(tmp_path):
    text = "study: score\nmodels: [{spec: shapes, window: [-160, 240], resize: none, interpolation: bicubic}]\n"
    (tmp_path / "study.yaml").write_text(text + "datasets: shapes\nmetrics: complexity\n")
    settings, lines = read_settings(tmp_path / "study.yaml")
    model = checked_plan(settings, lines).models[0]
    assert (model.window, model.resize, model.interpolation) == ((-160.0, 240.0), "none", "bicubic")
    assert model.loading["resize"] == "none" and ModelPlan(spec="shapes").loading["resize"] == "auto"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"window": [5, 5]}, "`window` must be two numbers, the values that are black and white"),
        ({"window": "wide"}, "`window` must be two numbers"),
        ({"resize": -3}, "`resize` must be a whole number of pixels"),
        ({"crop": 2}, "less than or equal to 1"),
        ({"interpolation": "cubic"}, "nearest"),
        ({"alpha_background": "clear"}, "`alpha_background` must be an opaque colour"),
        ({"crop": 0.9, "resize": 9}, "say the same in two ways"),
    ],
)
def test_settings_that_cannot_be_are_refused(model, said):
    with pytest.raises(InvalidStudy, match=said):
        plan("shapes", **model)


MODEL = {setting.name: setting for setting in options.settings_of(ModelPlan)}


@pytest.mark.parametrize(
    ("name", "typed", "read"),
    [
        ("window", "0,4095", [0.0, 4095.0]),
        ("window", "-160,240", [-160.0, 240.0]),
        ("window", "auto", "auto"),
        ("resize", "256", 256),
        ("resize", "292,146", [292, 146]),
        ("resize", "none", "none"),
        ("crop", 0.9, 0.9),
        ("interpolation", "bicubic", "bicubic"),
        ("alpha_background", "#000000", "#000000"),
        ("size", "64,256", [64, 256]),
        ("mean", ".5", 0.5),
    ],
)
def test_options_are_read(name, typed, read):
    assert MODEL[name].read(typed) == read


@pytest.mark.parametrize("command", ["explain", "score", "run", "audit"])
def test_every_command_has_the_options(capsys, command):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    for option in ("--window", "--alpha-background", "--resize", "--crop", "--interpolation"):
        assert option in out


def test_explain_on_the_command_line(scans, tmp_path, capsys):
    words = ["explain", str(scans), "--model", "shapes", "--out", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--window", "0,4080", "--resize", "none", "--alpha-background", "black"])
    assert not stopped.value.code
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "black and white 0, 4080; transparency on black" in page and "squashed to" in page
    assert "nearly one colour" not in page
    with pytest.raises(SystemExit):
        cli.main([*words[:-1], "cpu", "--window", "4080,0"])
    assert "`window` must be two numbers" in capsys.readouterr().err

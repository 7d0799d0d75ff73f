"""The page and the tables of a score study: complete, escaped, the same bytes; they state what is missing."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from heatproof.errors import StoreError
from heatproof.report import write_report, write_tables
from heatproof.report.findings import Findings
from heatproof.report.page import rendered
from heatproof.report.source import open_source
from heatproof.statistics.score_grid import decimals, in_percent
from heatproof.statistics.score_tables import COLUMNS

from . import synthetic_scores
from .conftest import WRITE
from .reading import Page

EVIL = {
    "average-drop": synthetic_scores.METRICS["average-drop"],
    "<script>alert(1)</script>": synthetic_scores.facts("high", "road", 0, 1, "<b>bold</b> claim"),
    "deletion": synthetic_scores.METRICS["deletion"],
    "entropy": synthetic_scores.METRICS["entropy"],
    "pointing-game": synthetic_scores.METRICS["pointing-game"],
}
HOSTILE = synthetic_scores.Recipe(
    images=("<img src=x onerror=alert(2)>.jpg", *(f"{i}.jpg" for i in range(20))),
    methods={"gradcam": 0.7, "x&y": 0.4, "refine[<i>cam</i>]": 0.3},
    metrics=EVIL,
    curves={"deletion": 5, "<script>alert(1)</script>": 4},
    models=('timm:"><script>alert(3)</script>',),
    datasets=("<svg onload=alert(4)>",),
    flagged={"7.jpg": "not an image: <svg onload=alert(5)>"},
    class_names=("<i>hen</i>",),
    masks=False,
    gallery=1,
    resamples=30,
)
SMALL = {
    "images": tuple(f"{i}.jpg" for i in range(20)),
    "metrics": {name: synthetic_scores.METRICS[name] for name in ("average-drop", "deletion", "road", "entropy")},
    "curves": {},
    "gallery": 0,
    "resamples": 20,
}


@pytest.fixture(scope="module")
def reported(shared_folder):
    """A score study whose every name is an attack, reported in a process of its own; and what that imported."""

    def made(folder):
        synthetic_scores.study(folder, HOSTILE)
        command = [sys.executable, "-c", WRITE.replace("pairs, ", ""), folder]
        done = subprocess.run(command, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        (folder / "imported.txt").write_text(done.stdout.strip(), "utf-8")

    folder = shared_folder("scores-with-hostile-names", made)
    return folder, (folder / "imported.txt").read_text("utf-8")


@pytest.fixture(scope="module")
def told(reported) -> Page:
    return Page((reported[0] / "report.html").read_text("utf-8"))


def page(folder, **changes) -> Page:
    source = open_source(synthetic_scores.study(folder, **(SMALL | changes)))
    return Page(rendered(Findings(source))[0])


def test_neither_torch_nor_pyplot_is_imported(reported):
    assert reported[1] == ""


def test_hostile_names_stay_text(told):
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section"}
    allowed |= {"article", "h1", "h2", "h3", "h4", "p", "b", "strong", "small", "span", "a", "div", "ul", "li", "dl"}
    allowed |= {"dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "details"}
    allowed |= {"summary", "pre", "code", "svg", "g", "path", "text", "tspan", "defs", "use", "clippath", "rect", "wbr"}
    assert {tag for tag, _ in told.tags} <= allowed
    assert not [name for _, attributes in told.tags for name in attributes if name.startswith("on")]
    for name in (HOSTILE.images[0], *HOSTILE.methods, *HOSTILE.metrics, *HOSTILE.models, *HOSTILE.datasets):
        assert name in told.text
    assert "<svg onload=alert(5)>" in told.text and "<b>bold</b> claim" in told.text


def test_the_page_asks_for_nothing_outside_itself(told, reported):
    for tag, attributes in told.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background", "formaction"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), (tag, name)
    assert not re.search(r"https?:|//cdn|@import|url\((?!#)", told.html)
    assert "default-src 'none'" in told.html
    assert str(reported[0]) not in told.html
    ids = [attributes["id"] for _, attributes in told.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in told.all("a")} <= set(ids)


def test_the_tables_have_the_promised_columns_and_rows(reported):
    folder = reported[0] / "tables"
    table = pd.read_csv(folder / "scores.csv")
    assert tuple(table.columns) == ("model", "dataset", *COLUMNS[1:])
    methods = len(HOSTILE.methods) + len(HOSTILE.controls)
    assert len(table) == methods * len(HOSTILE.metrics)
    images = pd.read_parquet(folder / "pictures.parquet")
    counts = images[np.isfinite(images["value"])].groupby(["method", "metric"]).size()
    found = dict(zip(zip(table["method"], table["metric"], strict=True), table["n"], strict=True))
    assert {key: n for key, n in found.items() if n} == counts.to_dict()  # the images that the mean is of
    assert {"image", "method", "metric", "value", "flag"} <= set(images)
    assert len(images) == len(table) * len(HOSTILE.images)
    cell = images[(images["method"] == "x&y") & (images["metric"] == "deletion")]
    line = table[(table["method"] == "x&y") & (table["metric"] == "deletion")].iloc[0]
    np.testing.assert_allclose([line["mean"], line["std"]], [cell["value"].mean(), cell["value"].std()])
    assert (line["better"], line["flagged"]) == ("low", (cell["flag"] != "").sum())
    curves = pd.read_csv(folder / "curves.csv")
    assert set(curves["metric"]) == set(HOSTILE.curves)
    assert len(curves) == methods * (5 + 4)


def test_every_judgement_is_on_file(reported):
    table = pd.read_csv(reported[0] / "tables" / "fooled.csv").set_index("metric")
    assert table.loc["deletion", "fooled_by"] == "random"
    assert set(table.loc["average-drop", "fooled_by"].split("; ")) == {"half", "ones"}
    assert not table.loc["<script>alert(1)</script>", "fooled"]
    tests = pd.read_csv(reported[0] / "tables" / "statistics.csv")
    line = tests[(tests["metric"] == "deletion") & (tests["second"] == "random")].iloc[0]
    assert line["control"] and not line["worse"]


def test_the_verdict_comes_first_and_names_what_was_fooled(told, reported):
    (answer,) = Findings(open_source(reported[0])).answers
    assert answer.sentence in told.text
    assert told.text.index(answer.sentence) < told.text.index("What was run")
    assert "average-drop (by half and ones)" in answer.details[0] and "deletion (by random)" in answer.details[0]
    assert all(note in told.text for note in answer.details)


def test_shares_are_shown_in_percent_and_others_as_they_are(told, reported):
    table = pd.read_csv(reported[0] / "tables" / "scores.csv").set_index(["method", "metric"])
    shown = re.sub(r"<[^>]*>", " ", told.html[told.html.index("<body>") :])
    assert f"{100 * table.loc[('gradcam', 'average-drop'), 'mean']:.1f}" in shown
    assert f"{table.loc[('gradcam', 'entropy'), 'mean']:.2f}" in shown
    assert in_percent({"range": [0, 1]}) and not in_percent({"range": [-1, 1]}) and not in_percent({})
    assert [decimals(v) for v in (0.5, 5.0, 50.0, 5e4, 1e-9, 0.0, float("nan"))] == [3, 2, 1, 0, 6, 3, 3]


def test_fooled_columns_and_controls_are_marked(told):
    heads = re.findall(r"<th scope=\"col\" class=\"fooled\">.*?</th>", told.html, re.DOTALL)
    assert len(heads) == 2
    assert "⚑ fooled by random" in told.text and "⚑ fooled by half, ones" in told.text
    assert told.html.count('class="star">★') == 2  # one for each counted score with numbers


def test_metrics_without_any_number_are_named_with_the_reason(told):
    assert "Without any number: pointing-game (the mask is empty)" in told.text
    assert "the mask is empty" in told.text[told.text.index("Flagged values") :]


def test_flagged_images_and_the_command_are_told(told, reported):
    assert "1 image was set aside" in told.text and "20 of 21" in told.text
    plan = json.loads((reported[0] / "study.json").read_text())
    assert plan["command"] in told.text and plan["version"] in told.text


def test_the_gallery_shows_every_map_with_its_scores(told):
    tiles = told.all("img")
    assert len(tiles) == 1 + len(HOSTILE.methods) + len(HOSTILE.controls)
    assert all(tile["alt"] for tile in tiles)


def test_the_same_rows_give_the_same_bytes(reported, tmp_path):
    findings = write_tables(synthetic_scores.study(tmp_path, HOSTILE))
    assert rendered(findings)[0] == (reported[0] / "report.html").read_text("utf-8")
    for path in sorted((reported[0] / "tables").iterdir()):
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes(), path.name
    figures = {path.stem for path in (reported[0] / "figures").iterdir()}
    assert {"curves", "ranks-all-0", "agreement"} <= figures


def test_families_with_many_scores_are_cut_into_tables(tmp_path):
    fact = synthetic_scores.METRICS["insertion"]
    shown = page(tmp_path, metrics={f"insertion[steps={n}]": fact for n in range(20)}, methods={"a": 0.5, "b": 0.2})
    assert shown.html.count('<table class="scores">') == 3
    assert "insertion[steps=19]" in shown.text


def test_one_method_one_image_no_control(tmp_path):
    shown = page(tmp_path, images=("only.jpg",), methods={"gradcam": 0.5}, controls={}, labels=False)
    assert "Nothing can be compared" in shown.text and "No control was run" in shown.text
    assert "Right on these images" not in shown.text
    assert "nan" not in shown.text.lower().replace("explanation", "")


def test_nothing_but_flagged_images(tmp_path):
    shown = page(tmp_path, images=("a.jpg", "b.jpg"), flagged={"a.jpg": "empty file", "b.jpg": "no image"})
    assert "2 images were set aside" in shown.text and "No verdict" in shown.text


def test_an_unfinished_study_has_a_banner(tmp_path):
    assert "1 of 2 jobs is missing" in page(tmp_path, missing=1).text


def test_facts_that_are_missing_are_said(tmp_path):
    shown = page(tmp_path, metrics={"mine": {}, "road": synthetic_scores.METRICS["road"]})
    assert "It is not known which way is better for mine" in shown.text
    assert "No description was stored" in shown.text


def test_several_models_are_told_apart(tmp_path):
    shown = page(tmp_path, models=("m-one", "m-two"), datasets=("cats",))
    assert "m-one on cats" in shown.text and "m-two on cats" in shown.text
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_score_twice_is_refused(tmp_path):
    folder = synthetic_scores.study(tmp_path, **SMALL)
    (shard,) = (folder / "rows").glob("*.parquet")
    shard.with_name("other.parquet").write_bytes(shard.read_bytes())
    with pytest.raises(StoreError, match=r"one row per image, method and metric.*Got 2"):
        write_report(folder)


def test_a_folder_without_scores_is_refused(tmp_path):
    folder = synthetic_scores.study(tmp_path, **SMALL)
    (shard,) = (folder / "rows").glob("*.parquet")
    rows = pd.read_parquet(shard)
    rows[rows["method"] == ""].to_parquet(shard, index=False)
    with pytest.raises(StoreError, match="rows of other kinds only"):
        write_tables(folder)


@pytest.mark.parametrize(
    ("largest", "width", "expected"), [(59.3, 0.04, 2), (59.3, 5.0, 1), (0.62, 0.1, 3), (0.62, float("nan"), 3)]
)
def test_the_decimals_of_a_column_follow_its_intervals(largest, width, expected):
    assert decimals(largest, width) == expected


def test_the_arm_that_metric_validity_adds_is_shown_and_not_ranked(tmp_path):
    """It has the best scores: with the setting `power` it is no method, without it it is the best one."""
    methods = {"gradcam": 0.5, "layercam": 0.45, "gradcam[power=0.5]": 0.95}
    for name, settings in (("asked", {}), ("added", {"power": 0.5})):
        folder = synthetic_scores.study(tmp_path / name, **SMALL, methods=methods)
        plan = json.loads((folder / "study.json").read_text())
        (folder / "study.json").write_text(json.dumps(plan | settings))
        found = Findings(open_source(folder))
        (one,) = found.scores.settings
        best = {ranking.best for ranking in one.rankings.values()}
        ranked = set(one.verdict.ranks)
        assert ("gradcam[power=0.5]" in best) == ("gradcam[power=0.5]" in ranked) == (name == "asked")
        assert ("gradcam[power=0.5]" in set(found.tables["fooled.csv"]["best"])) == (name == "asked")
        assert "gradcam[power=0.5]" in set(found.tables["scores.csv"]["method"])
        assert ("one rescaled map" in rendered(found)[0]) == (name == "added")

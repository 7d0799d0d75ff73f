"""The values drawn are those of the data: of scores, studies, noise, audits, and maps over images."""

import numpy as np
import pandas as pd
import pytest
import torch

import heatproof
from heatproof import plot
from heatproof.errors import InvalidInput, UnknownName
from heatproof.report.overlay import Look, overlay

from .. import audits
from ..report import synthetic, synthetic_scores
from .layout import faults, words

METHODS = ["gradcam", "eigencam", "layercam"]


@pytest.fixture(scope="module")
def model():
    return heatproof.load_model("shapes")


@pytest.fixture(scope="module")
def x():
    return torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def maps(model, x):
    return heatproof.explain(model, x, [*METHODS, "refine:layercam"])


@pytest.fixture(scope="module")
def scored(model, x):
    return heatproof.score(model, x, METHODS, ["arcc", "deletion[steps=4]"], controls=True)


@pytest.fixture(scope="module")
def score_folder(shared_folder):
    return shared_folder("scores-for-plots", lambda folder: synthetic_scores.study(folder, gallery=0, resamples=50))


@pytest.fixture(scope="module")
def noise_folder(shared_folder):
    return shared_folder("noise-for-plots", lambda folder: synthetic.study(folder, gallery=0, resamples=50))


@pytest.fixture(scope="module")
def audit_folder(shared_folder):
    return shared_folder("audit", audits.made)


def points(axis):
    """(x, y) of each single marker, by the marker's row."""
    return {round(float(line.get_ydata()[0])): float(line.get_xdata()[0])
            for line in axis.lines if len(line.get_xdata()) == 1}  # fmt: skip


# --- scores ---


def test_means_and_intervals_are_those_of_the_table(scored):
    figure = scored.plot(width="column")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[:3] == METHODS and names[3:] == [
        f"{c} (control)" for c in ("random", "half", "ones", "centre", "edges")
    ]
    table = scored.table.set_index(["metric", "method"])
    assert [axis.get_title() for axis in figure.axes][:2] == ["arcc ↑", "deletion[steps=4] ↓"]  # parts come last
    for axis, metric in zip(figure.axes, ("arcc", "deletion[steps=4]"), strict=False):
        drawn = points(axis)
        assert [drawn[row] for row in range(3)] == pytest.approx([table.loc[(metric, m), "mean"] for m in METHODS])
        spans = [tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
        assert tuple(table.loc[(metric, METHODS[0]), ["low", "high"]]) in spans
    assert not faults(figure)


def test_one_image_has_no_interval_and_missing_values_are_said(model, x):
    one = heatproof.score(model, x[:1], METHODS[:2], ["deletion[steps=4]"])
    assert not faults(one.plot())
    table = one.table.assign(mean=[np.nan, 0.5])
    assert "no value" in words(plot.scores(table))
    with pytest.raises(InvalidInput, match="at least one method"):
        plot.scores(table, methods=[])


def test_curves_are_the_mean_over_the_images(scored):
    figure = plot.curves(scored, "deletion[steps=4]", methods=["gradcam"], controls=False)
    at, rows = scored.curves["gradcam", "deletion[steps=4]"]
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), 100 * np.asarray(at))
    np.testing.assert_allclose(line.get_ydata(), np.asarray(rows).mean(0), rtol=1e-12)
    with pytest.raises(InvalidInput, match="deletion, insertion or road"):
        plot.curves(heatproof_scores_without_curves(scored))


def heatproof_scores_without_curves(scored):
    class Plain:
        facts, methods, table, controls, curves = scored.facts, scored.methods, scored.table, scored.controls, {}
        images, to_pandas, map_projections = scored.images, scored.to_pandas, scored.map_projections

    return Plain()


def test_ranks_and_bars_are_those_of_the_tests(scored):
    """With Wilcoxon's test and with Nemenyi's distance, worked out here."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal([0, 0.1, 3], 1, (30, 3)), columns=["a", "b", "c"])
    figure = plot.critical_difference(frame, reference="b")
    ranks = (-frame).rank(axis=1).mean()
    order = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert order == list(ranks.sort_values().index)
    assert [points(figure.axes[0])[i] for i in range(3)] == pytest.approx(sorted(ranks))
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() == 0.8]
    assert [sorted(np.round(bar.get_ydata())) for bar in bars] == [[1, 2]]  # a and b cannot be told apart
    assert figure.axes[0].get_yticklabels()[order.index("b")].get_fontweight() == "bold"
    nemenyi = plot.critical_difference(frame, test="nemenyi")
    distance = 2.343 * np.sqrt(3 * 4 / (6 * 30))  # Demšar 2006, table 5
    length = next(line for line in nemenyi.axes[0].lines if line.get_marker() == "|").get_xdata()
    assert length[1] - length[0] == pytest.approx(distance, abs=1e-3)
    assert f"CD = {length[1] - length[0]:.2f}" in words(nemenyi)
    low = plot.critical_difference(frame, better="low")
    assert [label.get_text() for label in low.axes[0].get_yticklabels()] == order[::-1]
    assert "average rank by arcc (1 = best)" in words(plot.critical_difference(scored))
    with pytest.raises(InvalidInput, match="two methods"):
        plot.critical_difference(frame, methods=["a"])


def test_correlations_are_those_of_the_scores(scored, score_folder):
    figure = plot.metric_correlation(scored)
    assert "arcc" in words(figure)
    cells = figure.axes[0].collections[0].get_array()
    assert cells.shape[0] == cells.shape[1] and np.allclose(np.diag(cells.filled(1)), 1)
    part = plot.metric_correlation(score_folder, ["road", "insertion"])
    assert [label.get_text() for label in part.axes[0].get_yticklabels()] == ["road", "insertion"]


# --- studies ---


def test_a_score_study_is_drawn_from_its_folder(score_folder):
    shown = plot.answer(score_folder, metrics=["road"], labels={"layercam": "Mine"})
    names = [label.get_text() for label in shown.axes[0].get_yticklabels()]
    assert "Mine" in names and "layercam" not in names
    assert "average rank by mean rank over the scores (1 = best)" in " ".join(words(plot.critical_difference(
        score_folder, width="page")))  # fmt: skip
    curves = plot.curves(score_folder, width="page")
    assert [axis.get_title() for axis in curves.axes] == ["deletion", "insertion", "road"]
    with pytest.raises(InvalidInput, match="No maps under noise"):
        plot.robustness(score_folder)
    with pytest.raises(UnknownName, match="model of these results"):
        plot.scores(score_folder, model="resnet81")


def test_a_noise_study_is_drawn_from_its_folder(noise_folder):
    figure = plot.answer(noise_folder, quantity="rm")
    cells = figure.axes[0].collections[0].get_array()
    assert np.nanmin(cells) >= 0 and np.nanmax(cells) <= 1 and not faults(figure)
    severity = plot.curves(noise_folder, "consistency", width="column")
    assert {axis.get_ylabel() for axis in severity.axes} <= {"consistency", ""}
    assert "average rank by RM (1 = best)" in words(plot.critical_difference(noise_folder))
    with pytest.raises(InvalidInput, match="No scores"):
        plot.scores(noise_folder)


def test_the_table_of_noise_has_the_values_and_marks(noise_folder):
    from heatproof.plot.stored_results import findings_of, robustness_in

    found = robustness_in(findings_of(noise_folder), None, None, None)
    table = found[1].of(found[0].table)
    pooled = table[(table["severity"] == "all")].set_index(["method", "perturbation"])
    figure = plot.robustness(noise_folder, "rm")
    texts = iter(figure.axes[0].texts)
    kinds = list(dict.fromkeys(table["perturbation"]))
    for label in figure.axes[0].get_yticklabels():
        for kind in kinds:
            row, text = pooled.loc[(label.get_text().removesuffix(" (control)"), kind)], next(texts).get_text()
            value = "–" if np.isnan(row["rm"]) else f"{row['rm']:.2f}".removeprefix("0")
            assert text == (value if value == "–" else value + ("" if row["reliable"] else "†"))


def test_an_audit_is_drawn_as_its_table(audit_folder):
    from heatproof.auditing import Audit

    table = pd.read_csv(audit_folder / "tables" / "audit.csv")
    audit = Audit("", (), None, table, None, audit_folder / "index.html", audit_folder)
    for given in (audit.plot, lambda: plot.answer(audit_folder)):
        figure = given()
        signs = [text.get_text() for text in figure.axes[0].texts]
        first = table.drop_duplicates(["method", "question"])
        meant = {"pass": "✓", "fail": "✗", "cannot be told": "?"}
        assert signs == [meant[answer] for answer in first["answer"]]
        assert not faults(figure)
    with pytest.raises(UnknownName, match="question of this audit"):
        audit.plot(questions="faithfull")


# --- images ---


def tiles(figure):
    """The pixels of the tiles, without the colour bar."""
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes[:-1]]


def test_a_panel_shows_the_image_and_the_overlays(maps, x):
    figure = maps.plot(rows=[1], methods=["eigencam"])
    image, over = tiles(figure)
    pixels = (x[1].permute(1, 2, 0) * 255).round().byte().numpy()
    np.testing.assert_array_equal(image, pixels)
    np.testing.assert_array_equal(over, overlay(pixels, maps["eigencam"][1].numpy(), Look()))
    assert {"image", "eigencam", "image 2"} <= set(words(figure))
    name = maps.classes[int(maps.target[1])]
    assert name in words(figure)
    assert maps._repr_png_().startswith(b"\x89PNG")


def test_a_panel_has_scores_names_and_two_classes(model, x, maps, scored):
    figure = plot.panel(maps, rows=[0], methods=METHODS, scores=scored, metrics="arcc", labels={"gradcam": "Mine"})
    value = scored.values("gradcam", "arcc")[0]
    assert f"arcc {value:.3f}" in words(figure) and "Mine" in words(figure)
    two = heatproof.explain(model, x[:1], ["gradcam"], target="top2")
    assert len(tiles(two.plot())) == 4
    assert {model.classes[i] for i in two.target[0]} <= set(words(two.plot()))
    with pytest.raises(UnknownName, match="metric of these scores"):
        plot.panel(maps, scores=scored, metrics="acc")
    with pytest.raises(InvalidInput, match="`rows` must name images by position, 0 … 5"):
        plot.panel(maps, rows=9)


def test_a_degenerate_map_is_the_plain_image_with_the_reason(maps):
    images = np.full((2, 16, 16, 3), 0.5)
    given = {"flat": np.zeros((2, 16, 16)), "nan": np.full((2, 16, 16), np.nan), "fine": np.eye(16)[None].repeat(2, 0)}
    figure = plot.panel(given, images, rows=0)
    assert {"constant", "not finite"} <= set(words(figure))
    plain, flat, nan, fine = tiles(figure)
    assert (flat == plain).all() and (nan == plain).all() and (fine != plain).any()


def test_a_threshold_leaves_the_image_grey_below_it():
    map_, image = np.linspace(0, 1, 100).reshape(10, 10), np.full((10, 10, 3), 120, np.uint8)
    drawn = overlay(image, map_, Look(threshold=0.5))
    assert (drawn[map_ < 0.5] == 120).all() and (drawn[map_ >= 0.5] == overlay(image, map_, Look())[map_ >= 0.5]).all()
    with pytest.raises(InvalidInput, match="`threshold` must lie in 0 … 1"):
        Look(threshold=2)


@pytest.mark.parametrize(
    ("given", "images", "message"),
    [
        ({"a": np.zeros((2, 4, 4))}, None, "Give `images`"),
        ({"a": np.zeros((2, 4, 4))}, np.zeros((1, 4, 4)), "one image for each of 2 maps"),
        ({"a": np.zeros((4, 4))}, np.zeros((1, 4, 4)), r"must be \(N, H, W\)"),
        ({"a": np.full((1, 4, 4), -3.0)}, np.zeros((1, 4, 4)), "must lie in .0, 1., as heatproof.explain"),
        ({"a": np.zeros((1, 4, 4)), "b": np.zeros((2, 4, 4))}, np.zeros((1, 4, 4)), "same 1 images. Got 2 of 'b'"),
        ({"a": np.zeros((1, 4, 4))}, np.full((1, 4, 4), 7.0), "bytes, or numbers in"),
    ],
)
def test_maps_and_images_that_do_not_fit(given, images, message):
    with pytest.raises(InvalidInput, match=message):
        plot.panel(given, images)


def test_before_and_after_say_where_the_class_changed(model, x, maps):
    noisy = heatproof.explain(model, torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(5)), METHODS)
    moved = [int(a) != int(b) for a, b in zip(maps.target, noisy.target, strict=True)][:4]
    figure = plot.before_after(maps, noisy, titles=("clean", "noise"))
    assert words(figure).count("class changed") == sum(moved)
    assert len(tiles(figure)) == 16 and words(figure)[:4] == ["clean", "gradcam", "noise", "gradcam"]
    base = plot.before_after(maps, methods=["layercam", "refine:layercam"], rows=0)
    assert words(base)[:3] == ["image", "layercam", "refine:layercam"]
    with pytest.raises(InvalidInput, match=r"between two `methods`\. Got 1"):
        plot.before_after(maps, methods="gradcam")
    two, one = ({"gradcam": np.zeros((count, 4, 4))} for count in (2, 1))
    with pytest.raises(InvalidInput, match=r"of the same images\. Got 2 and 1"):
        plot.before_after(two, one, (np.zeros((2, 4, 4)), np.zeros((1, 4, 4))))


def test_images_side_by_side_have_a_row_for_each_method():
    maps = {name: np.linspace(0, 1, 3 * 64).reshape(3, 8, 8) for name in ("gradcam", "mine")}
    images = np.zeros((3, 32, 32, 3))
    figure = plot.panel(maps, images, across="images", width=10)
    assert [word for word in words(figure) if word in ("image", "gradcam", "mine")] == ["image", "gradcam", "mine"]
    wide, high = figure.get_size_inches()
    assert wide == 10 and 9 < high < 11, "three columns and three rows"
    low = plot.panel({"gradcam": maps["gradcam"]}, images, across="images", width=10).get_size_inches()[1]
    assert low < high, "two rows"
    many = {"gradcam": np.zeros((30, 8, 8)) + np.eye(8)}
    figure = plot.panel(many, np.zeros((30, 32, 32, 3)), rows=range(30), across="images", width="column")
    assert words(figure).count("gradcam") == words(figure).count("image") == 8, "four columns fit"
    with pytest.raises(InvalidInput, match=r"`across` must be methods or images\. Got 'rows'"):
        plot.panel(maps, images, across="rows")  # type: ignore[arg-type]


def test_images_of_a_folder_and_of_a_gallery_are_drawn(model, tmp_path):
    from PIL import Image

    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("one", "two"):
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (80, 80, 3), np.uint8)).save(
            folder / f"{name}.png"
        )
    (folder / "broken.png").write_bytes(b"no image")
    maps = heatproof.explain(model, folder, ["gradcam"])
    shown = words(maps.plot())
    assert {"one.png", "two.png", "broken.png"} <= set(shown)
    assert any("image" in text and "broken" not in text for text in shown)
    gallery = heatproof.show(model, folder, ["gradcam"])
    assert {"one.png", "two.png"} <= set(words(plot.panel(gallery)))
    gallery.save(tmp_path / "out")
    assert {"one.png", "gradcam"} <= set(words(plot.panel(tmp_path / "out", width="column")))
    with pytest.raises(InvalidInput, match="heatproof explain --out"):
        plot.panel(folder)


def test_a_reference_is_a_name_or_a_display_name_and_never_ignored():
    frame = pd.DataFrame(np.random.default_rng(1).normal([0, 0.1, 3], 1, (30, 3)), columns=["a", "b", "c"])
    figure = plot.critical_difference(frame, reference="Ours", labels={"b": "Ours"})
    bold = [one.get_text() for one in figure.axes[0].get_yticklabels() if one.get_fontweight() == "bold"]
    assert bold == ["Ours"]
    with pytest.raises(UnknownName, match="called 'Theirs'"):
        plot.critical_difference(frame, reference="Theirs", labels={"b": "Ours"})


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_methods_that_share_a_rank_are_named(model, seed):
    """Before pooling and a linear layer these two are one map, so one of them has no row of its own.

    Rounding noise moves neighbouring pixels in the order of removal (seeds 3 and 7 on one machine, others on another),
    so the scores differ in the fifth digit: the maps decide, not their scores.
    """
    images = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    scores = heatproof.score(model, images, ["gradcam", "hirescam", "eigencam"], ["deletion"])
    figure = plot.critical_difference(scores, labels={"hirescam": "Ours"}, reference="Ours")
    assert any("equal maps: gradcam = Ours" in " ".join(text.split()) for text in words(figure))
    labels = {one.get_text(): one.get_fontweight() for one in figure.axes[0].get_yticklabels()}
    assert labels["gradcam"] == "bold" and "Ours" not in labels
    without = plot.critical_difference(scores, methods=["gradcam", "eigencam"])
    assert not any("equal maps" in text for text in words(without))

"""Figures draw the numbers they get, equal numbers give equal bytes, and global settings are not changed."""

import html
import math
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from heatproof.report import drawing
from heatproof.report import robustness_figures as plots
from heatproof.report.comparisons import friedman_text
from heatproof.report.legend import legend_figure, text_width
from heatproof.report.rank_figure import rank_figure
from heatproof.report.score_figures import curves_figure as score_curves
from heatproof.report.style import FAINT, INK, LINE, styles
from heatproof.statistics.paired import compared

METHODS = ["gradcam", "gradcam++", "centre"]
LOOKS = styles(METHODS, {"centre"})
RANKS = {"gradcam": 1.5, "gradcam++": 1.75, "centre": 2.75}


def table(methods=METHODS, kinds=("jpeg", "fgsm"), severities=("1", "2", "all"), **fixed) -> pd.DataFrame:
    """A table whose numbers tell where they belong: .1 × method + .01 × perturbation + .001 × severity."""
    rows = []
    for m, method in enumerate(methods):
        for k, kind in enumerate(kinds):
            for s, severity in enumerate(severities):
                value = 0.1 * (m + 1) + 0.01 * (k + 1) + 0.001 * (s + 1)
                row = {
                    "method": method,
                    "control": method == "centre",
                    "perturbation": kind,
                    "severity": severity,
                }
                row |= {"n": 50, "flips": 25, "flip_rate": 0.5, "psnr": 30.0, "reliable": True}
                row |= {"consistency": value, "responsiveness": 1 - value, "rm": value, "rm0": value / 2}
                for name in ("responsiveness", "rm", "rm0"):
                    row |= {f"{name}_low": row[name] - 0.02, f"{name}_high": row[name] + 0.03}
                rows.append(row | fixed)
    return pd.DataFrame(rows)


def markers(axis, marker) -> list[float]:
    """The x of every single point with that marker."""
    return [float(line.get_xdata()[0]) for line in axis.lines if line.get_marker() == marker]


def test_robustness_draws_rm_rm0_and_their_intervals():
    figure = plots.robustness_figure(table(), METHODS, LOOKS)
    jpeg, fgsm = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["jpeg", "fgsm"]
    assert markers(jpeg, LOOKS["gradcam"].marker) == pytest.approx([0.113, 0.0565])
    assert markers(fgsm, LOOKS["centre"].marker) == pytest.approx([0.323, 0.1615])
    spans = [list(line.get_xdata()) for line in fgsm.lines if len(line.get_xdata()) == 2]
    assert [0.303, 0.353] in [pytest.approx(span) for span in spans]


def test_no_flips_are_said_instead_of_drawn():
    empty = table(rm=math.nan, rm0=math.nan, responsiveness=math.nan)
    for figure in (
        plots.robustness_figure(empty, METHODS, LOOKS),
        plots.curves_figure(empty, METHODS, LOOKS),
    ):
        assert "too few flips" in drawing.svg(figure)


def test_curves_are_sorted_by_severity_and_leave_the_pooled_row_out():
    shuffled = table().sample(frac=1, random_state=3)
    upper, lower = plots.curves_figure(shuffled, METHODS, LOOKS, columns=1).axes[:2]
    kind = upper.get_title()
    add = {"jpeg": 0.01, "fgsm": 0.02}[kind]
    np.testing.assert_allclose(upper.lines[0].get_xdata(), [1, 2])
    np.testing.assert_allclose(upper.lines[0].get_ydata(), [0.1 + add + 0.001, 0.1 + add + 0.002])
    np.testing.assert_allclose(lower.lines[1].get_ydata(), [1 - 0.2 - add - 0.001, 1 - 0.2 - add - 0.002])


def test_overlap_boxes_hold_the_medians_of_each_kind_of_pair():
    rbo = {False: np.array([0.9, 0.8, 0.7]), True: np.array([0.4, 0.2])}
    axis = plots.overlap_figure(lambda method, changed: rbo[changed], ["gradcam"], LOOKS).axes[0]
    medians = {float(line.get_xdata()[0]) for line in axis.lines if line.get_color() == INK}
    assert sorted(medians) == pytest.approx([0.3, 0.8])


def test_bars_are_thick_at_the_members_of_a_group_and_thin_between():
    order = ["gradcam", "gradcam++", "centre"]
    axis = rank_figure(RANKS, [order[:2], order[::2]], LOOKS).axes[0]
    thick = [(line.get_xdata()[0], np.mean(line.get_ydata())) for line in axis.lines if line.get_linewidth() > 3]
    places = sorted({x for x, _ in thick})
    assert [[y for x, y in thick if x == place] for place in places] == [[0, 1], [0, 2]]
    thin = [sorted(line.get_ydata()) for line in axis.lines if line.get_linewidth() == 1.2]
    assert thin == [[-0.25, 1.25], [-0.25, 2.25]]


def test_the_rank_diagram_names_methods_ranks_and_the_test():
    text = drawing.svg(rank_figure(RANKS, [], LOOKS, "RM", "Kendall's W = 0.61"))
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert {
        "gradcam",
        "gradcam++",
        "centre (control)",
        "1.50",
        "1.75",
        "2.75",
        "average rank by RM (1 = best)",
    } <= set(shown)
    assert "Kendall's W = 0.61" in shown


def test_flips_are_drawn_in_percent_once_per_condition():
    shown = table(flip_rate=0.25)[["perturbation", "severity", "flip_rate"]].drop_duplicates()
    axis = plots.flips_figure(shown).axes[0]
    assert len(axis.lines) == 2
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [25, 25])


def test_heatmap_marks_what_is_unreliable():
    text = drawing.svg(plots.heatmap_figure(table(reliable=False), METHODS, LOOKS))
    assert text.count("†") == len(METHODS) * 2


def test_segmenter_lines_follow_the_ranks():
    ranks = pd.DataFrame({"quickshift": RANKS, "slic": {"gradcam": 2.0, "gradcam++": 1.0, "centre": 3.0}})
    axis = plots.segmenters_figure(ranks, LOOKS).axes[0]
    drawn = sorted(list(line.get_ydata()) for line in axis.lines)
    assert drawn == [[1.5, 2.0], [1.75, 1.0], [2.75, 3.0]]


def test_equal_numbers_give_equal_bytes_without_dates_and_with_text_as_text():
    once, again = (plots.robustness_figure(table(kinds=("jpeg",)), METHODS, LOOKS) for _ in range(2))
    text, file = drawing.svg(once), drawing.pdf(once)
    assert drawing.svg(again) == text
    assert drawing.pdf(again) == file
    assert "<dc:date>" not in text
    assert b"CreationDate" not in file
    assert ">gradcam++</text>" in text


def test_the_users_settings_neither_matter_nor_change():
    plain = drawing.svg(plots.flips_figure(table()))
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert drawing.svg(plots.flips_figure(table())) == plain
        assert dict(matplotlib.rcParams) == before


def test_inline_drawings_take_the_pages_ink_and_keep_their_references():
    text = drawing.inline(drawing.svg(plots.curves_figure(table(), METHODS, LOOKS)), 'a "label"', "one")
    assert not {INK, FAINT, LINE} & set(re.findall(r"#[0-9a-f]{6}", text))
    assert "var(--ink)" in text
    assert "#ffffff" not in text  # no white background, for dark pages
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("one-") for name in ids)
    used = set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text))
    assert used
    assert used <= set(ids)
    assert 'aria-label="a &#34;label&#34;"' in text
    assert "http" not in text


def test_no_two_of_thirty_methods_look_alike_and_controls_are_grey_and_dashed():
    names = [f"m{i}" for i in range(14)] + [f"c{i}" for i in range(6)]
    looks = styles(names, {f"c{i}" for i in range(6)})
    assert len({(look.color, look.marker, look.line) for look in looks.values()}) == len(names)
    assert len({(look.marker, look.line) for name, look in looks.items() if name[0] == "m"}) == 14
    for name in names[14:]:
        red, green, blue = (int(looks[name].color[i : i + 2], 16) for i in (1, 3, 5))
        assert max(red, green, blue) - min(red, green, blue) < 24
        assert looks[name].line != "-"


def test_a_method_name_is_text_not_mathematics():
    name = "my$odd$_<cam>"
    looks = styles([name], ())
    text = drawing.svg(rank_figure({name: 1.0}, [], looks))
    assert "my$odd$_&lt;cam&gt;" in text


# --- nothing is cut off ---

#: Methods as a long list has them, with the longest spelling of each kind.
MANY = [
    *("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam", "ablationcam", "scorecam", "finercam"),
    *("refine:layercam", "integrated-gradients[baseline=blur,steps=100]", "guided-backprop", "smoothgrad[samples=50]"),
    *("expected-gradients[samples=20]", "input-x-gradient", "lrp", "rise[masks=4000]"),
    *("random", "half", "ones", "centre", "edges"),
]
FAKES = ("random", "half", "ones", "centre", "edges")


def every_figure(count):
    """Name → each kind of figure with so many methods."""
    methods = [*MANY[:count], *FAKES] if count < 17 else MANY
    looks = styles(methods, FAKES)
    wide = table(methods, ("gaussian-noise", "jpeg", "fgsm"))
    shares = wide.columns[wide.columns.str.contains("rm|consist|respons")]
    wide[shares] = wide[shares].clip(-5, 5).rank(pct=True)
    rng = np.random.default_rng(0)
    real = [name for name in methods if name not in FAKES]
    ranks = {name: float(rank) for name, rank in zip(real, rng.permutation(len(real)) + 1, strict=True)}
    groups = [real[start : start + 3] for start in range(0, len(real) - 2, 2)]
    points = pd.DataFrame({"method": m, "metric": "deletion", "at": at, "mean": 0.5, "low": 0.4, "high": 0.6}
                          for m in methods for at in (0.0, 0.5, 1.0))  # fmt: skip
    pairs = [{"method": m, "rbo": r, "cosine": r, "changed": r > 0.4} for m in methods for r in (0.2, 0.5)]
    overlap = pd.DataFrame(pairs)
    several = pd.DataFrame(dict.fromkeys(("quickshift", "slic", "grid"), ranks))
    note = "Friedman χ² = 1234.5, p < 0.001; Kendall's W = 0.61"
    one = wide[wide["perturbation"] == "jpeg"]
    return {
        "ranks": rank_figure(ranks, groups, looks, "mean rank over the scores", note),
        "robustness": plots.robustness_figure(wide, methods, looks),
        "robustness of one": plots.robustness_figure(one, methods, looks, columns=1),
        "curves": plots.curves_figure(wide, methods, looks),
        "curves of one": plots.curves_figure(one, methods, looks, columns=1),
        "score curves": score_curves(points, ["deletion"], methods, looks),
        "segmenters": plots.segmenters_figure(several, looks, note),
        "overlap": plots.overlap_figure(lambda method, changed: np.array([0.5 if changed else 0.2]), methods, looks),
        "mask cosine": plots.mask_cosine_figure(overlap, methods, looks),
        "heatmap": plots.heatmap_figure(wide, methods, looks),
        "legend": legend_figure(methods, looks),
    }


def words_outside(text):
    """The lines of text of an SVG that reach beyond its edges, by the widths of the font that it names."""
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups())
    outside = []
    for style, place, words in re.findall(r'<text style="([^"]*)"([^>]*)>([^<]*)</text>', text):
        if "rotate" in place and "rotate(-0" not in place:
            continue
        size = float(re.search(r"([\d.]+)px", style)[1])
        at = re.search(r'x="([-\d.]+)" y="([-\d.]+)"', place) or re.search(r"translate\(([-\d.]+) ([-\d.]+)\)", place)
        x, y = map(float, at.groups())
        long = 72 * text_width(html.unescape(words), size)
        left = x - {"middle": long / 2, "end": long}.get(*re.findall(r"text-anchor: (\w+)", style) or [""], 0)
        if left < -1.2 or left + long > width + 1.2 or y > height + 0.6 or y - 0.7 * size < -0.6:
            outside.append((words, round(left), round(left + long), round(y), width, height))
    return outside


@pytest.mark.parametrize("count", [2, 9, 17])
def test_no_word_of_a_figure_is_cut_off_and_no_two_ticks_of_an_axis_overlap(count):
    for name, figure in every_figure(count).items():
        assert not words_outside(drawing.svg(figure)), name
        renderer = FigureCanvasAgg(figure).get_renderer()
        for axis in figure.axes:
            for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
                shown = [label for label in labels if label.get_text() and label.get_visible()]
                if any(label.get_rotation() for label in shown):
                    continue
                boxes = [label.get_window_extent(renderer) for label in shown]
                for i, box in enumerate(boxes):
                    crowded = [o for o in boxes[i + 1 :] if box.shrunk(0.98, 0.7).overlaps(o.shrunk(0.98, 0.7))]
                    assert not crowded, (name, shown[i].get_text())


def test_a_legend_takes_as_many_columns_as_fit():
    looks = styles(MANY, FAKES)
    few = plots.curves_figure(table(["gradcam", "lrp"]), ["gradcam", "lrp"], looks)
    many = plots.curves_figure(table(MANY, ("jpeg",)), MANY, looks, columns=1)
    assert (few.legends[0]._ncols, many.legends[0]._ncols) == (2, 1)


def test_what_reaches_beyond_a_figure_enlarges_it():
    """Also in a figure of a user's own study."""
    figure = drawing.figure(2, 1)
    figure.subplots().set_xlabel("a label that is far too long for an axis of two inches and would be cut at both ends")
    text = drawing.svg(figure)
    assert not words_outside(text)
    assert float(re.search(r'viewBox="0 0 ([\d.]+)', text)[1]) > 144
    assert re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", drawing.pdf(drawing.figure(2, 1)))[1] == b"144"


def test_what_a_test_leaves_out_is_named_by_its_blocks():
    """The blocks of RM are conditions of noise; the page called them images."""
    blocks = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 3)), columns=["a", "b", "c"])
    blocks.loc[:4, "b"] = np.nan
    found = compared(blocks)
    assert friedman_text(found, "conditions").endswith("; 5 of 12 conditions left out")
    assert "left out" not in friedman_text(found, "")

"""Every plot at both widths and with few and many methods: nothing is cut off, overlaps or is too small to read."""

import io
import re
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest

import heatproof
from heatproof import plot
from heatproof.errors import InvalidInput, UnknownName

from .layout import faults, pdf_of, words

REAL = [
    *("gradcam", "gradcam++", "hirescam", "xgradcam", "layercam", "eigencam", "ablationcam", "scorecam", "finercam"),
    *("refine:layercam", "integrated-gradients[baseline=blur,steps=100]", "guided-backprop", "smoothgrad[samples=50]"),
    *("expected-gradients[samples=20]", "input-x-gradient", "lrp", "rise[masks=4000]", "deeplift", "ig2", "opticam"),
]
METRICS = [
    *("arcc", "deletion", "insertion[steps=100,fill=blur]", "road", "complexity", "pointing-game", "energy", "adcc"),
    *("maximum-sensitivity", "sparseness", "mask-cosine", "average-drop", "average-gain", "mprt", "selectivity"),
    *("infidelity[samples=50]", "monotonicity", "sic", "aic", "entropy"),
]
KINDS = [
    *("gaussian-noise", "jpeg", "fgsm", "speckle-noise", "defocus-blur", "brightness", "contrast", "pgd", "fog"),
    *("snow", "elastic-transform", "motion-blur", "impulse-noise", "pixelate"),
]


def noise_table(methods, kinds):
    rng = np.random.default_rng(0)
    rows = []
    for method in methods:
        for kind in kinds:
            for severity in ("1", "3", "5", "all"):
                a, b = rng.uniform(0.1, 0.95, 2)
                row = {"method": method, "perturbation": kind, "severity": severity, "reliable": b > 0.3}
                row |= {"consistency": a, "responsiveness": b, "rm": a * b, "rm0": max(0.0, 2 * a * b - 1)}
                row |= {"rm_low": a * b - 0.05, "rm_high": a * b + 0.05, "rm0_low": 0.0, "rm0_high": 0.9}
                rows.append(row)
    return pd.DataFrame(rows)


def every_plot(count, width):
    """Name → the plot with so many methods (metrics, for the correlation)."""
    rng = np.random.default_rng(count)
    methods = REAL[:count]
    means = pd.DataFrame(
        [(m, k, v, v - 0.04, v + 0.05) for m in methods for k in METRICS[:4] for v in [rng.uniform()]],
        columns=["method", "metric", "mean", "low", "high"],
    ).assign(better="high")
    points = pd.DataFrame(
        [(m, k, at, v, v - 0.1, v + 0.1) for m in methods for k in METRICS[1:4] for at in (0, 0.5, 1)
         for v in [rng.uniform()]],
        columns=["method", "metric", "at", "mean", "low", "high"],
    )  # fmt: skip
    values = pd.DataFrame(rng.normal(np.linspace(0, 1.5, count), 1.0, (25, count)), columns=methods)
    square = np.clip(rng.normal(0, 0.5, (count, count)), -1, 1)
    square = pd.DataFrame((square + square.T) / 2, METRICS[:count], METRICS[:count])
    answers = pd.DataFrame(
        [(m, q, rng.choice(["pass", "fail", "cannot be told"]), 96, m == methods[1]) for m in methods
         for q in ("faithful", "stable", "responds", "depends on weights", "class-specific", "localises")],
        columns=["method", "question", "answer", "n", "recommended"],
    )  # fmt: skip
    noise = noise_table(methods, KINDS[: {3: 3, 8: 8}.get(count, 14)])
    images = rng.uniform(0, 1, (2, 24, 32, 3))
    maps = {name: rng.uniform(0, 1, (2, 24, 32)) for name in methods}
    wide = {"width": width}
    return {
        "scores": lambda: plot.scores(means, **wide, reference=methods[0]),
        "curves": lambda: plot.curves(points, **wide),
        "severity": lambda: plot.curves(noise, perturbations=KINDS[:3], **wide),
        "ranks": lambda: plot.critical_difference(values, **wide, reference=methods[1]),
        "nemenyi": lambda: plot.critical_difference(values, test="nemenyi", **wide),
        "correlation": lambda: plot.metric_correlation(square, **wide),
        "noise": lambda: plot.robustness(noise, **wide),
        "intervals": lambda: plot.robustness(noise, form="intervals", perturbations=KINDS[:3], **wide),
        "verdicts": lambda: plot.verdicts(answers, **wide),
        "panel": lambda: plot.panel(maps, images, **wide),
        "before and after": lambda: plot.before_after(maps, maps, (images, images), methods=methods[:2], **wide),
    }


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize("count", [3, 8, 20])
def test_nothing_is_cut_off_or_overlaps(count, width):
    for name, draw in every_plot(count, width).items():
        figure = draw()
        assert figure.get_size_inches()[0] == {"column": 3.25, "page": 6.75}[width], name
        assert not faults(figure), (name, count, width)


def test_the_check_sees_what_it_forbids():
    figure = matplotlib.figure.Figure(figsize=(2, 1))
    for text, x, size in (("one", 0.4, 8), ("two", 0.42, 8), ("three", 0.95, 8), ("four", 0.1, 4)):
        figure.text(x, 0.5, text, fontsize=size)
    assert sorted(fault.split()[1] for fault in faults(figure)) == ["has", "is", "overlaps"]


@pytest.mark.parametrize("name", ["scores", "ranks", "noise", "panel"])
def test_fonts_are_embedded_as_truetype(name):
    """As publishers ask for: no Type 3, and the files of the fonts inside; whatever the user's settings."""
    figure = every_plot(3, "column")[name]()
    with matplotlib.rc_context({"pdf.fonttype": 3, "text.usetex": False, "font.size": 30}):
        saved = pdf_of(figure)
    assert (b"/FontFile2" in saved and b"/Subtype /TrueType" in saved) or b"/CIDFontType2" in saved
    assert b"/Type3" not in saved
    assert b"CreationDate" not in saved
    assert re.search(rb"/MediaBox \[ ?0 0 234 ", saved)  # 3.25 inches, not cropped to what is drawn


def test_saved_files_are_the_same_every_time_and_a_notebook_shows_a_png():
    figure = every_plot(3, "column")["ranks"]()
    files = []
    for _ in range(2):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg")
        files.append(buffer.getvalue())
    assert files[0] == files[1]
    assert b"average rank" in files[0]  # text stays text
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_no_global_state_is_changed_and_pyplot_is_not_loaded():
    loaded = "matplotlib.pyplot" in sys.modules
    before = matplotlib.rcParams.copy()  # dict(…) would load pyplot for the backend
    plots = every_plot(3, "column")
    for name in ("scores", "severity", "noise", "panel"):
        plots[name]()._repr_png_()
    assert matplotlib.rcParams.copy() == before
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@pytest.mark.parametrize("width", ["wide", 0.5, 90, True, None])
def test_a_width_is_a_column_a_page_or_inches(width):
    with pytest.raises(InvalidInput, match=r"column.*3.25 inches.*Got"):
        plot.scores(pd.DataFrame(), width=width)
    assert plot.critical_difference(pd.DataFrame(np.eye(4), columns=list("abcd")), width=4).get_size_inches()[0] == 4


def test_names_are_text_and_not_mathematics():
    """Also those with signs of LaTeX and HTML, from right to left, and in other alphabets."""
    odd = ["my$odd$_name", r"a_b^{c}$\alpha$", "<b>bold</b>&amp;", "שיטה", "Метод μ"]
    values = pd.DataFrame(np.arange(60.0).reshape(12, 5) % 7, columns=odd)
    figure = plot.critical_difference(values, labels={"שיטה": "100 % $mine$"})
    shown = {text.replace("\n", "") for text in words(figure)}
    assert {"my$odd$_name", r"a_b^{c}$\alpha$", "<b>bold</b>&amp;", "100 % $mine$", "Метод μ"} <= shown
    assert not faults(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    assert "my$odd$_name" in buffer.getvalue().decode()
    maps = {name: np.eye(6)[None] for name in odd}
    assert set(odd[:1]) <= set(words(plot.panel(maps, np.ones((1, 6, 6)))))


def test_emoji_do_not_stop_a_figure():
    with pytest.warns(UserWarning, match="Glyph"):
        plot.panel({"gradcam 🦊": np.eye(6)[None]}, np.ones((1, 6, 6)))._repr_png_()


def test_colours_and_signs_differ_in_grey_too():
    figure = every_plot(20, "page")["curves"]()
    looks = [(line.get_marker(), str(line.get_linestyle()), line.get_color()) for line in figure.legends[0].get_lines()]
    assert len(set(looks)) == 20
    assert len({marker for marker, *_ in looks[:8]}) == 8  # told apart without colour


def test_what_does_not_fit_is_an_error_that_says_what_to_do():
    square = pd.DataFrame(np.eye(60), [f"m{i}" for i in range(60)], [f"m{i}" for i in range(60)])
    with pytest.raises(InvalidInput, match=r"60 metrics do not fit .* Choose at most \d+ with `metrics`"):
        plot.metric_correlation(square, width="column")
    table = noise_table(["gradcam"], [f"kind-{i}" for i in range(60)])
    with pytest.raises(InvalidInput, match=r"60 perturbations do not fit"):
        plot.robustness(table, width="column")


@pytest.mark.parametrize(
    "draw",
    [
        *(plot.scores, plot.curves, plot.critical_difference, plot.metric_correlation, plot.robustness, plot.verdicts),
        *(plot.panel, plot.before_after, plot.answer, plot.widget),
    ],
)
def test_an_object_that_cannot_be_drawn_is_named_with_what_can(draw):
    with pytest.raises(InvalidInput, match=r"heatproof.plot.\w+` draws .*heatproof.*Got int"):
        draw(3)


def test_a_frame_without_its_columns_and_names_that_are_not_there():
    with pytest.raises(InvalidInput, match=r"must have the columns method, metric, mean.*none called 'metric'"):
        plot.scores(pd.DataFrame({"method": ["a"]}))
    with pytest.raises(UnknownName, match=r"No method of these results is called 'gradcan'. Did you mean 'gradcam'"):
        plot.robustness(noise_table(["gradcam"], ["jpeg"]), methods="gradcan")
    with pytest.raises(UnknownName, match="No perturbation of these results is called 'jpg'"):
        plot.robustness(noise_table(["gradcam"], ["jpeg"]), perturbations=["jpg"])
    with pytest.raises(InvalidInput, match="would both be called"):
        plot.robustness(noise_table(["gradcam", "rise"], ["jpeg"]), labels={"rise": "gradcam"})


def test_the_room_is_public_and_lazy():
    assert heatproof.plot is plot
    assert "plot" in dir(heatproof) and "plot" in heatproof.__all__

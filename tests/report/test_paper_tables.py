"""What a paper takes from a study: tables for LaTeX, display names, a reference method, a paragraph with citations."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon
from typer.testing import CliRunner

from heatproof.cli import app
from heatproof.cli.cite_command import sources_of
from heatproof.errors import HeatproofWarning, UnknownName
from heatproof.paper_table import PaperCell, PaperRow, PaperTable
from heatproof.report import write_latex, write_tables
from heatproof.report.citations import citations
from heatproof.report.labelling import labelled
from heatproof.report.page import rendered
from heatproof.report.paper_tables import _by_quantity, paper_tables
from heatproof.statistics.paired import differences, holm

from ..latex_reading import read_table
from . import synthetic, synthetic_scores
from .reading import Page

METHODS = {"gradcam": 0.7, "layercam": 0.62, "eigencam": 0.4, "x_y&z": 0.69}
METRICS = {name: synthetic_scores.METRICS[name] for name in ("average-drop", "insertion", "road")}
LABELS = {"layercam": "LayerCAM_{ours} & co"}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A score study with a display name and a reference, and its findings."""
    folder = tmp_path_factory.mktemp("scores")
    synthetic_scores.study(folder, methods=METHODS, metrics=METRICS, curves={}, gallery=1, resamples=30)
    return folder, write_tables(folder, labels=LABELS, reference="layercam")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A study of noise with a reference, and its findings."""
    folder = tmp_path_factory.mktemp("noise")
    synthetic.study(folder, resamples=50, gallery=0)
    return folder, write_tables(folder, reference="gradcam++")


def test_every_table_can_be_set(scored, noisy, tmp_path):
    for name, (_, findings) in {"scores": scored, "noise": noisy}.items():
        files = write_latex(findings, tmp_path / name, "interval")
        assert files == sorted(set(files), key=files.index)
        for file in files:
            read_table(file.read_text("utf-8"))


def test_scores_are_as_on_the_page_and_the_best_are_marked(scored):
    _, findings = scored
    table = next(one for one in paper_tables(findings) if one.name == "result-scores")
    found = read_table(table.to_latex())
    assert found.rows[0] == ["method", r"average-drop $\downarrow$ (\%)$^\dagger$", r"insertion $\uparrow$ (\%)",
                             r"road $\uparrow$"]  # fmt: skip
    one = findings.scores.settings[0]
    cells = {row[0]: row[2] for row in found.rows[1:]}
    judged = one.rankings["insertion"]
    assert {"x\\_y\\&z", "LayerCAM\\_\\{ours\\} \\& co"} < set(cells)
    shown = Page(rendered(findings)[0]).text
    for method, cell in cells.items():
        name = {"x\\_y\\&z": "x_y&z", "LayerCAM\\_\\{ours\\} \\& co": "layercam"}.get(method, method)
        value = 100 * one.table.set_index(["method", "metric"]).loc[(name, "insertion"), "mean"]
        assert f"{value:.1f}" in cell and f"{value:.1f}" in shown
        assert cell.startswith(r"\textbf") == (name == judged.best)
        assert (r"\approx" in cell) == (name in judged.top and name != judged.best)
    assert judged.top != (judged.best,) and len(judged.top) < 4  # something is a tie, and something is not
    assert not [row for row in found.rows if "textbf" in row[1]]  # fooled: nothing is best
    assert "by average-drop (by" in found.notes and r"$\approx$: not significantly different" in found.caption
    assert "24 images" in found.caption


@pytest.mark.parametrize("spread", ["interval", "std"])
def test_what_stands_beside_a_mean(scored, spread):
    _, findings = scored
    table = next(one for one in paper_tables(findings, spread) if one.name == "result-scores")
    row = findings.scores.settings[0].table.set_index(["method", "metric"]).loc[("eigencam", "insertion")]
    cell = next(one for one in read_table(table.to_latex()).rows if one[0] == "eigencam")[2]
    low, high, std = (f"{100 * value:.1f}" for value in (row["low"], row["high"], row["std"]))
    assert cell.endswith(rf"{{\scriptsize ({low}--{high})}}" if spread == "interval" else rf"$\pm$ {std}")


def test_robustness_has_the_best_in_bold_and_ties_at_their_names(noisy):
    _, findings = noisy
    table = next(one for one in paper_tables(findings) if one.name == "result-robustness")
    verdict = findings.robustness.verdicts[findings.robustness.main[0]]
    rows = {row.name.removesuffix(" ≈"): row for row in table.rows}
    assert {name for name, row in rows.items() if any(cell.best for cell in row.cells)} == {verdict.top[0]}
    assert {name for name, row in rows.items() if row.name.endswith("≈")} == set(verdict.top[1:])
    assert table.head[1:] == ["fgsm", "gaussian-noise", "jpeg"]
    read_table(table.to_latex())


def test_display_names_are_on_the_page_and_canonical_ones_in_tables(scored):
    folder, findings = scored
    html, drawings = rendered(findings)
    page = Page(html)
    body = page.text.partition("What was run")[0]
    assert LABELS["layercam"] in body
    assert not re.search(r"\blayercam\b", body)
    assert not re.search(r'alt="layercam', html)
    scores = pd.read_csv(folder / "tables" / "scores.csv")
    assert set(scores["method"]) == {*METHODS, *synthetic_scores.CONTROLS}
    assert any("LayerCAM_{ours} &amp; co" in drawing.svg for drawing in drawings)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("layercam comes out best.", "Ours comes out best."),
        ("refine:layercam and layercam@stage:2", "refine:layercam and layercam@stage:2"),
        ("layercam[power=0.5], gradcam-layercam", "layercam[power=0.5], gradcam-layercam"),
        ("gradcam = layercam: equal", "gradcam = Ours: equal"),
        ("gradcam++ and gradcam.", "GC++ and gradcam."),
    ],
)
def test_only_whole_names_are_replaced(text, shown):
    assert labelled(text, {"layercam": "Ours", "gradcam++": "GC++"}) == shown


def test_a_name_is_replaced_once():
    assert labelled("layercam", {"layercam": "layercam (ours)"}) == "layercam (ours)"


def test_unknown_names_have_near_misses(scored):
    with pytest.raises(UnknownName, match="Did you mean 'layercam'"):
        write_tables(scored[0], labels={"layrcam": "x"})
    with pytest.raises(UnknownName, match="Did you mean 'layercam'"):
        write_tables(scored[0], reference="layrcam")
    with pytest.raises(UnknownName, match="for `reference`"):
        write_tables(scored[0], reference="random")  # a control is no reference


def test_the_reference_is_tested_against_every_other(scored):
    folder, findings = scored
    tests = pd.read_csv(folder / "tables" / "statistics.csv")
    found = tests[(tests["test"] == "reference") & (tests["metric"] == "insertion")].set_index("second")
    assert set(found["first"]) == {"layercam"} and set(found.index) == {"gradcam", "eigencam", "x_y&z"}
    images = pd.read_parquet(folder / "tables" / "pictures.parquet")
    wide = images[images["metric"] == "insertion"].pivot_table(index="image", columns="method", values="value")
    expected = [wilcoxon(differences(*(wide[one].to_numpy() for one in ("layercam", name)))).pvalue
                for name in found.index]  # fmt: skip
    np.testing.assert_allclose(found["p"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["p_holm"], holm(list(found["p"])))
    gaps = {name: (wide["layercam"] - wide[name]).mean() for name in found.index}
    for name, row in found.iterrows():
        assert row["worse"] == (row["p_holm"] < 0.05 and gaps[name] > 0)
        assert row["apart"] == (row["p_holm"] < 0.05)
    pairs = tests[(tests["test"] == "wilcoxon") & (tests["metric"] == "insertion") & ~tests["control"]]
    assert len(pairs) == 6 and (pairs["p_holm"] >= pairs["p"]).all()
    assert len(tests[(tests["test"] == "friedman") & (tests["metric"] == "insertion")]) == 1
    assert "mean rank over the scores" in set(tests["metric"])
    (answer,) = [one for one in findings.answers if "against every other method" in one.sentence]
    assert answer.sentence.startswith(f"{LABELS['layercam']} against every other method")
    assert "better than eigencam" in answer.sentence


def test_the_reference_under_noise(noisy):
    folder, findings = noisy
    tests = pd.read_csv(folder / "tables" / "statistics.csv")
    found = tests[tests["test"] == "reference"]
    assert set(found["quantity"]) == {"rm", "rm0", "rbo"} and set(found["first"]) == {"gradcam++"}
    assert set(found["second"]) == set(synthetic.METHODS) - {"gradcam++"}
    pairs = tests[(tests["test"] == "wilcoxon") & (tests["quantity"] == "rbo")]
    assert len(pairs) == 6
    both = pairs[(pairs["first"] == "gradcam") & (pairs["second"] == "gradcam++")].iloc[0]
    mine = found[(found["quantity"] == "rbo") & (found["second"] == "gradcam")].iloc[0]
    assert mine["p"] == pytest.approx(both["p"]) and mine["effect"] == pytest.approx(-both["effect"])
    assert mine["p_holm"] <= both["p_holm"]  # three tests in place of six
    assert any("By RM" in one.sentence or "by RM" in one.sentence for one in findings.answers)


def test_without_a_reference_nothing_is_said_of_one(tmp_path):
    synthetic_scores.study(tmp_path, methods=METHODS, metrics=METRICS, curves={}, gallery=0, resamples=30)
    findings = write_tables(tmp_path)
    assert "reference" not in set(findings.tables["statistics.csv"]["test"])
    assert not [one for one in findings.answers if "every other" in one.sentence]


def test_the_paragraph_names_what_was_run(noisy):
    plan = json.loads((noisy[0] / "study.json").read_text())
    plan |= {"labels": {"layercam": "Ours_1"}, "reference": "layercam", "target": "label"}
    plan |= {"metric_facts": {"rbo": {"source": "Webber et al. 2010"}}}
    found = citations(plan, sources_of(plan))
    text = found.paragraph
    for part in (
        r"Ours\_1 (layercam)~\cite{jiang2021layercam}",
        r"gradcam++~\cite{chattopadhay2018gradcampp}",
        r"gaussian-noise~\cite{hendrycks2019benchmarking}",
        r"fgsm~\cite{goodfellow2015explaining}, at severities 1, 2, 3, 4, 5.",
        r"quickshift~\cite{vedaldi2008quickshift,sarkar2025noise}",
        r"rbo~\cite{webber2010rbo}",
        r"60 images of photographs",
        r"timm:mobilenetv2\_100 (layer blocks.6)",
        "The class explained was the class of the label.",
        r"Ours\_1 was compared with every other method",
        "50 resamples",
        "torch 2.15.0",
    ):
        assert part in text, part
    cited = set(re.findall(r"[\w]+", " ".join(re.findall(r"\\cite\{([^}]*)\}", text))))
    assert cited == set(found.keys) == set(re.findall(r"@\w+\{(\w+),", found.bibtex))
    assert not found.uncited


def test_what_has_no_entry_is_named(noisy):
    plan = json.loads((noisy[0] / "study.json").read_text()) | {"methods": ["python:nowhere.here:fn", "gradcam"]}
    found = citations(plan, sources_of(plan))
    assert found.uncited == ["python:nowhere.here:fn"]


def test_the_commands(scored, tmp_path):
    folder, run = scored[0], CliRunner()
    typed = ["report", str(folder), "--label", "gradcam=GC", "--reference", "gradcam", "--latex", str(tmp_path / "tex")]
    done = run.invoke(app, typed)
    assert not done.exit_code, done.output
    assert "GC against every other method" in done.output.replace("\n", " ")
    assert "GC &" in (tmp_path / "tex" / "result-scores.tex").read_text()
    with pytest.warns(HeatproofWarning, match="No entry is known for x_y&z, average-drop, insertion, road"):
        done = run.invoke(app, ["cite", str(folder), "--out", str(tmp_path)])
    assert not done.exit_code, done.output
    assert "selvaraju2017gradcam" in (tmp_path / "references.bib").read_text()
    assert r"\cite{selvaraju2017gradcam}" in (tmp_path / "methods.tex").read_text()


def test_a_table_longer_than_a_page_is_one_for_each_quantity():
    rows = [PaperRow(q, [PaperCell(f"m{i}"), PaperCell("0.1")]) for q in "xy" for i in range(30)]
    long = PaperTable("r-tests", "Ours against the others.", ["by", "other method", "p"], rows, words=(0, 1))
    one, two = _by_quantity(long)
    assert (one.name, two.name) == ("r-tests-x", "r-tests-y")
    assert one.caption == "Ours against the others; by x." and one.head == ["other method", "p"]
    assert [row.name for row in one.rows] == [f"m{i}" for i in range(30)]
    read_table(one.to_latex())
    (short,) = _by_quantity(replace(long, rows=rows[:35]))
    assert short.rows == rows[:35]

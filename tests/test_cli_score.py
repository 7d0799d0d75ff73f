"""`heatproof score` as a new user meets it: help, one table, a page, errors in one sentence before any work."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from heatproof import cli

QUICK = ["--model", "shapes", "--methods", "gradcam", "--metrics", "average-drop,complexity", "--workers", "1"]


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def caught(monkeypatch, *arguments: str):
    """The plan that a command would run."""
    from heatproof.cli import study_commands

    started: list = []
    monkeypatch.setattr(study_commands, "start", lambda *given: started.append(given))
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    assert not stopped.value.code
    return started[0][0]


def test_help_has_an_example_that_runs(capsys, tmp_path):
    import re
    import shlex

    code, out, _ = called(capsys, "score", "--help")
    assert code == 0
    for word in ("--maps", "--masks", "--metrics", "--metric-option", "--controls", "--workers", "fidelity"):
        assert word in out
    plain = re.sub(r"[\s│]+", " ", out)
    example = re.search(r"Example: `?(heatproof score .*?)`?\. The same", plain)
    assert example, plain
    words = shlex.split(example[1])[1:]
    words[words.index("--limit") + 1] = "2"
    words[words.index("--out") + 1] = str(tmp_path / "out")
    code, out, err = called(capsys, *words, "--workers", "1", "--no-report")
    assert code == 0, err
    assert "average-drop" in out and "arcc" in out


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, str]:
    from contextlib import redirect_stdout
    from io import StringIO

    folder, said = tmp_path_factory.mktemp("scores") / "out", StringIO()
    with pytest.raises(SystemExit) as stopped, redirect_stdout(said):
        cli.main(["score", "shapes", "--limit", "3", *QUICK, "--out", str(folder)])
    assert not stopped.value.code
    return folder, said.getvalue()


def test_one_table_with_intervals_arrows_and_controls(finished):
    folder, out = finished
    lines = out.splitlines()
    assert max(map(len, lines[:-3])) <= 100
    assert any("average-drop" in line and "complexity" in line for line in lines)
    assert "↓ %" in out and "ones (control)" in out and "1 job done." in out
    assert str(folder / "report.html") in out
    table = pd.read_csv(folder / "tables" / "scores.csv")
    assert list(table.columns) == [
        "model",
        "dataset",
        "method",
        "metric",
        "n",
        "mean",
        "std",
        "low",
        "high",
        "better",
        "flagged",
    ]
    assert len(table) == 6 * 2 and set(table["n"]) == {3}
    mine = table[(table["method"] == "gradcam") & (table["metric"] == "complexity")].iloc[0]
    assert f"{100 * mine['mean']:.1f}" in out and f"{100 * mine['low']:.1f}–{100 * mine['high']:.1f}" in out


def test_the_page_is_written_and_written_again_by_report(capsys, finished):
    folder, out = finished
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    code, again, _ = called(capsys, "report", str(folder))
    assert code == 0 and (folder / "report.html").read_bytes() == page
    assert again.strip() in out
    assert json.loads((folder / "gallery" / "index.json").read_text())


def test_the_same_command_finds_it_all_there(capsys, finished):
    folder, _ = finished
    code, out, _ = called(capsys, "score", "shapes", "--limit", "3", *QUICK, "--out", str(folder), "--no-report")
    assert code == 0 and "0 jobs done, 1 were there already" in out
    code, _, err = called(capsys, "score", "shapes", "--limit", "4", *QUICK, "--out", str(folder))
    assert code == 1 and "limit is 3 there and 4 here" in err


def test_without_a_report_there_is_no_gallery_and_an_older_page_is_named(capsys, finished, tmp_path):
    command = ["score", "shapes", "--limit", "3", *QUICK, "--no-report", "--out"]
    code, out, _ = called(capsys, *command, str(tmp_path / "new"))
    assert code == 0 and "Older than these rows" not in out
    assert not (tmp_path / "new" / "gallery").exists() and not (tmp_path / "new" / "report.html").exists()
    folder = shutil.copytree(finished[0], tmp_path / "old")
    next((folder / "rows").glob("*.parquet")).unlink()
    code, out, _ = called(capsys, *command, str(folder))
    assert code == 0 and f"Older than these rows: {folder / 'report.html'}." in out


def test_rows_can_be_asked_with_sql(capsys, finished):
    folder, _ = finished
    sql = "select method, count(*) n from rows where metric = 'complexity' and control group by all order by method"
    assert called(capsys, "query", str(folder), sql, "--format", "csv")[1].splitlines() == [
        *("method,n", "centre,3", "edges,3", "half,3", "ones,3", "random,3")
    ]


def test_many_metrics_are_split_by_family_and_fit(finished, capsys):
    from heatproof.cli.scoretable import print_scores
    from heatproof.report import score_grids, write_tables

    findings = write_tables(finished[0])
    grid = next(score_grids.families(findings, findings.scores.settings[0], findings.methods)).grids[0]
    from heatproof.cli import scoretable

    wide = scoretable.joined([grid] * 12)
    parts = list(scoretable.fitting(wide, 100))
    assert len(parts) > 1 and [position for part in parts for position in part] == list(range(12))
    assert all(len(part) >= 1 for part in scoretable.fitting(wide, 10))
    print_scores(findings)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 110


# --- what reaches the plan ---


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMON = ["--model", "shapes", "--out", "x"]


def test_options_reach_the_plan(folder, monkeypatch):
    plan = caught(monkeypatch, "score", "photos", *COMMON, "--metrics", "fidelity,road[ties=block]", "--metric-option",
                  "deletion.steps=4", "--methods", "gradcam++,rise", "--option", "rise.masks=10", "--target", "2",
                  "--controls", "none", "--limit", "1", "--seed", "3", "--layer", "stage3")  # fmt: skip
    assert plan.study == "score" and plan.methods == ("gradcam++", "rise[masks=10]")
    assert plan.metrics == ("fidelity", "road[ties=block]") and plan.metric_options == {"deletion": {"steps": 4}}
    assert (plan.target, plan.controls, plan.limit, plan.seed, plan.models[0].layer) == ("2", "none", 1, 3, "stage3")


@pytest.mark.parametrize(
    "words", [["photos/a.png", "photos/b.png"], ["photos/*.png"], ["photos/a.png", "photos/?.png"]]
)
def test_files_and_patterns_are_one_set_of_images(folder, monkeypatch, words):
    plan = caught(monkeypatch, "score", *words, *COMMON)
    assert [dataset.images for dataset in plan.datasets] == [("photos/a.png", "photos/b.png")]


def test_folders_and_names_are_sets_of_their_own(folder, monkeypatch):
    plan = caught(monkeypatch, "score", "shapes", "photos/a.png", "photos", *COMMON)
    assert [dataset.images for dataset in plan.datasets] == [("photos/a.png",), "shapes", "photos"]


def test_maps_alone_leave_methods_out(folder, monkeypatch):
    plan = caught(monkeypatch, "score", "photos", *COMMON, "--maps", "theirs=maps.npz", "--maps", "more")
    assert plan.methods == () and [one.label for one in plan.maps] == ["theirs", "more"]
    plan = caught(monkeypatch, "score", "photos", *COMMON, "--maps", "maps.npz", "--methods", "gradcam")
    assert plan.methods == ("gradcam",)


def test_maps_of_a_colleague_beside_a_method(folder, capsys):
    np.savez("theirs.npz", np.random.default_rng(0).random((2, 9, 9)))
    noise = np.random.default_rng(1).integers(0, 255, (2, 9, 9, 3), dtype=np.uint8)
    for name, pixels in zip("ab", noise, strict=True):
        Image.fromarray(pixels).save(f"photos/{name}.png")
    code, out, err = called(capsys, "score", "photos/a.png", "photos/b.png", "--maps", "theirs.npz", *QUICK, "--out",
                            "out", "--no-report")  # fmt: skip
    assert code == 0, err
    assert "theirs" in out and "gradcam" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["photos", "--out", "x"], "--model must be given"),
        (["photos", "--model", "shapes"], "--out must be given"),
        (["nowhere", *COMMON], "There is no nowhere"),
        (["photos/*.jpg", *COMMON], "There is no photos/*.jpg"),
        (["photos", *COMMON, "--metrics", "rood"], "Did you mean 'road'"),
        (["photos", *COMMON, "--metrics", "road[tis=block]"], "Did you mean 'ties'"),
        (["photos", *COMMON, "--metric-option", "road"], "--metric-option must be METRIC.OPTION=VALUE"),
        (["photos", *COMMON, "--metric-option", "iou.level=1"], "'iou'"),
        (["photos", *COMMON, "--methods", "gradcm"], "Did you mean 'gradcam'"),
        (["photos", *COMMON, "--methods", "random"], "leave controls to"),
        (["photos", *COMMON, "--maps", "nowhere.npz"], "There is no nowhere.npz"),
        (["photos", *COMMON, "--masks", "nowhere", "--metrics", "iou"], "nowhere"),
        (["photos", "shapes", *COMMON, "--labels", "l.csv"], "--labels goes with one set of images"),
        (["photos", *COMMON, "--target", "label"], "Target `label` needs labels"),
        (["photos", *COMMON, "--target", "9"], "0 … 5"),
        (["photos", *COMMON, "--controls", "some"], "'all' or 'none'"),
        (["photos", *COMMON, "--workers", "0"], "at least 1"),
        (["photos", *COMMON, "--method-from", "gradcam"], "--method-from must be python:"),
        (["photos", "--model", "shape", "--out", "x"], "'shape'"),
    ],
)
def test_mistakes_are_one_sentence_on_stderr_before_any_work(capsys, folder, arguments, said):
    code, out, err = called(capsys, "score", *arguments)
    assert code in (1, 2) and out == ""
    assert said in err and "Traceback" not in err
    assert not (folder / "x").exists()


def test_a_study_file_is_run_by_run(capsys, folder):
    Path("score.yaml").write_text(
        "study: score\nmodels: shapes\ndatasets: shapes\nlimit: 2\nmethods: gradcam\nmetrics: [complexity]\n"
        "controls: none\nresamples: 100\nout: results\n"
    )
    code, out, err = called(capsys, "run", "score.yaml", "--workers", "1", "--no-report")
    assert code == 0, err
    assert "complexity" in out and (folder / "results" / "tables" / "scores.csv").is_file()

"""The command line as a new user meets it: help, lists, errors in one line, exit codes."""

import inspect
import json

import pytest
import typer

from heatproof import cli
from heatproof.cli import options
from heatproof.cli.commands import COMMANDS


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.mark.parametrize("command", ["demo", "run", "explain", "report", "query", "list"])
def test_every_command_has_help_with_an_example(capsys, command):
    code, out, _ = called(capsys, command, "--help")
    assert code == 0
    assert "Example: " in out and f"heatproof {command}" in out


def test_the_list_of_commands_says_what_their_docstrings_say():
    """It is shown without importing the commands, so their first paragraphs stand in a table too."""
    for name, command in COMMANDS.items():
        found = command.load()
        text = found.info.help if isinstance(found, typer.Typer) else inspect.getdoc(found).partition("\n\n")[0]
        assert " ".join(text.split()) == command.summary, name


def test_help_lists_every_command_and_says_how_to_try_it(capsys):
    code, out, _ = called(capsys, "--help")
    assert code == 0
    for command in ("run", "explain", "report", "query", "list", "--debug", "--version", "demo --out out/demo"):
        assert command in out


@pytest.mark.parametrize("what", ["methods", "perturbations", "segmenters", "studies", "models"])
def test_lists_as_json_have_name_needs_options_and_source(capsys, what):
    code, out, _ = called(capsys, "list", what, "--json")
    entries = json.loads(out)
    assert code == 0 and entries
    for entry in entries:
        assert {"name", "needs", "options", "source"} <= entry.keys()
    names = {entry["name"] for entry in entries}
    expected = {"methods": "gradcam++", "perturbations": "pgd-l2", "segmenters": "quickshift",
                "studies": "noise-robustness", "models": "torchvision:resnet50"}  # fmt: skip
    assert expected[what] in names


def test_a_list_for_people_is_a_table_with_nothing_cut(capsys):
    code, out, _ = called(capsys, "list", "methods", "--like", "cam++")
    assert code == 0
    assert "Chattopadhyay et al. 2018" in out and "compat=False" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["list", "metods"], "Did you mean 'methods'"),
        (["run", "noise-robustnes", "--out", "x"], "Did you mean 'noise-robustness'"),
        (["run", "noise-robustness"], "--out must name a folder"),
        (["run", "noise-robustness", "--out", "x"], "--model must say what to study"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes"], "--images must say what to study"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes", "--images", "shapes", "--methods", "gradcm"],
         "Did you mean 'gradcam'"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes", "--images", "shapes", "--perturbations", "fog"],
         "No perturbation is called 'fog'"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes", "--images", "shapes", "--severities", "9"],
         "Got 9"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes", "--images", "shapes", "--severities", "a"],
         "--severities must be comma-separated numbers"),
        (["run", "noise-robustness", "--out", "x", "--model", "shape", "--images", "shapes"], "'shape'"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes", "--images", "nowhere"], "nowhere"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes", "--images", "shapes", "--model-arg", "a"],
         "KEY=VALUE"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes", "--images", "shapes", "--mean", ".1,.2"],
         "must be one number or three"),
        (["run", "noise-robustness", "--out", "x", "--images", "shapes", "--checkpoint", "w.pt"], "one --model"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes", "--labels", "l.csv"], "goes with --images"),
        (["run", "noise-robustness", "--out", "x", "--model", "shapes", "--images", "shapes", "--flip-rates", ".1"],
         "goes with --calibrate"),
        (["run", "nothing.yaml"], "No such file"),
        (["report", "nowhere"], "nowhere"),
        (["query", "nowhere", "select 1"], "nowhere"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence_on_stderr_without_a_traceback(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = called(capsys, *arguments)
    assert code in (1, 2)
    assert said in err
    assert "Traceback" not in err and out == ""
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(capsys):
    code, _, err = called(capsys, "--debug", "list", "metods")
    assert code == 1 and "Traceback" in err


def test_a_command_that_is_misspelt_is_said(capsys):
    code, _, err = called(capsys, "rum")
    assert code == 2 and "rum" in err


def test_names_are_split_at_commas_outside_brackets():
    assert options.split("a,b[x=1,y=2], c") == ["a", "b[x=1,y=2]", "c"]


@pytest.fixture(scope="module")
def finished(shared_folder):
    from heatproof.studies import run
    from heatproof.studies.plan import checked_plan

    plan = checked_plan({"study": "noise-robustness", "models": "shapes", "datasets": "shapes", "limit": 2,
                         "methods": "gradcam", "perturbations": "contrast", "severities": [1],
                         "segmenters": "grid"})  # fmt: skip
    return shared_folder("noise-study-of-two", lambda folder: run.run(plan, folder, workers=1))


def test_query_as_table_csv_and_json(capsys, finished):
    sql = (
        "select metric, count(*) n, 'nan'::double as x from rows where method = 'gradcam' group by all "
        "order by metric limit 1"
    )
    assert called(capsys, "query", str(finished), sql)[1].split() == ["metric", "n", "x", "cosine", "2", "nan"]
    assert called(capsys, "query", str(finished), sql, "--format", "csv")[1] == "metric,n,x\ncosine,2,nan\n"
    assert json.loads(called(capsys, "query", str(finished), sql, "--format", "json")[1]) == [
        {"metric": "cosine", "n": 2, "x": None}
    ]
    code, _, err = called(capsys, "query", str(finished), "selec")
    assert code == 2 and "cannot be run" in err


def test_options_of_methods_reach_the_plan_of_a_run(capsys, monkeypatch):
    from heatproof.cli import study_commands

    started: list = []
    monkeypatch.setattr(study_commands, "start", lambda plan, *rest: started.append(plan))
    common = ["run", "noise-robustness", "--model", "shapes", "--images", "shapes", "--out", "x"]
    code, _, err = called(capsys, *common, "--methods", "gradcam++,refine:gradcam++,gradcam", "--option",
                          "gradcampp.compat=true", "--option", "refine:gradcam++.operator=geometric")  # fmt: skip
    assert code == 0, err
    assert started[0].methods == (
        "gradcam++[compat=true]",
        "refine:gradcam++[compat=true,operator=geometric]",
        "gradcam",
    )
    code, _, err = called(capsys, *common, "--option", "gradcam++.compt=true")
    assert code == 2 and "'compat'" in err
    code, _, err = called(capsys, *common, "--methods", "gradcam", "--option", "gradcam++.compat=true")
    assert code == 2 and "go with a method that is asked for" in err


def test_a_run_in_a_study_file_with_options_on_top(capsys, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(
        "study: noise-robustness\nmodels: shapes\ndatasets: shapes\nlimit: 3\nmethods: gradcam\n"
        "perturbations: contrast\nseverities: [1, 2]\nsegmenters: grid\nresamples: 100\nout: results\n"
    )
    code, out, err = called(capsys, "run", str(file), "--limit", "2", "--workers", "1")
    assert code == 0, err
    assert str(tmp_path / "results" / "report.html") in out
    plan = json.loads((tmp_path / "results" / "study.json").read_text())
    assert (plan["limit"], plan["severities"]) == (2, [1, 2])
    for name in ("robustness.csv", "pairs.parquet"):
        assert (tmp_path / "results" / "tables" / name).is_file()
    code, _, err = called(capsys, "run", str(file), "--limit", "3", "--workers", "1")
    assert code == 1 and "limit is 2 there and 3 here" in err


def test_labels_of_images_are_no_names_of_methods():
    from heatproof.cli.options import OptionSetting
    from heatproof.studies.settings import DatasetPlan

    option = OptionSetting("labels", DatasetPlan.model_fields["labels"])
    assert option.option == "--labels"
    assert option.declared().annotation.__metadata__[0].metavar is None

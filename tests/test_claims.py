"""The page of claims holds together: runs that rows name are described, commands parse, tables have all their cells."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from heatproof.cli import app
from heatproof.studies.study import study_names

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "claims.md").read_text("utf-8")
LINES = PAGE.splitlines()
COMMANDS = [words for words in map(shlex.split, re.findall(r"`(heatproof [^`]+)`", PAGE)) if words[1:] != ["run"]]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def rows_under(header: str) -> list[list[str]]:
    """The rows of every table whose header begins so."""
    found = []
    for start in (at for at, line in enumerate(LINES) if line.startswith(header)):
        for line in LINES[start + 2 :]:
            if not line.startswith("|"):
                break
            found.append(cells(line))
    return found


RUNS = [row[0].strip("| ") for row in rows_under("| run | command |")]
CLAIMS = rows_under("| claim | run |")


def test_each_run_is_described_once():
    assert len(RUNS) == len(set(RUNS)) > 10 and all(re.fullmatch("[A-Z]", run) for run in RUNS)


@pytest.mark.parametrize("row", CLAIMS, ids=lambda row: row[0].strip("| ")[:60])
def test_each_claim_names_runs_that_are_described_and_has_a_verdict(row):
    _, runs, what, verdict = row
    assert what and verdict.strip("| ")
    assert runs == "–" or set(runs.split(", ")) <= set(RUNS)
    own = set(re.findall(r"(?:^|[.;] |, )([A-Z])(?=: [−+]?[\d.])", what))
    assert own <= {*runs.split(", "), "R", "F", "N"}, "a number of a run that the row does not name"


def test_the_columns_of_tables_are_runs():
    for header in ("| metric | way |", "| base | R |"):
        (line,) = [line for line in LINES if line.startswith(header)]
        assert set(re.findall(r"(?<=\| )[A-Z](?= \|)", line)) - {"R"} <= set(RUNS)


def test_every_row_of_a_table_has_all_cells():
    for at, line in enumerate(LINES[:-2]):
        if line.startswith("|") and LINES[at + 1].startswith("|---"):
            count = LINES[at + 1].count("|")
            for row in LINES[at + 2 :]:
                if not row.startswith("|"):
                    break
                assert re.sub(r"`[^`]*`", "", row).count("|") == count, row[:80]


def test_the_commands_are_found():
    assert {"run", "fit", "data"} == {words[1] for words in COMMANDS} and len(COMMANDS) > 10


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[1:3]))
def test_every_command_parses(words):
    root = typer.main.get_command(app)
    name, *arguments = words[1:]
    context = root.make_context("heatproof", [name, "--help"], resilient_parsing=True)
    command = root.get_command(context, name)  # type: ignore[attr-defined]
    assert command is not None, name
    if arguments:
        given = command.make_context(name, list(arguments), parent=context).params
        assert name != "run" or given["study"] in study_names()

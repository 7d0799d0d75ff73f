"""docs/faults.md: each line of its table names tests that are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "faults.md").read_text("utf-8")
ROWS = [line for line in TEXT.partition("## ")[0].splitlines() if line.startswith("| ")][1:]
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_fault_names_its_tests():
    assert len(ROWS) == 19
    assert [row for row in ROWS if not TEST.search(row.split("|")[-2])] == []


def test_the_tests_of_the_fault_table_are_there():
    named = {(file, name) for row in ROWS for file, name in TEST.findall(row)}
    defined = {
        (file, node.name)
        for file in {file for file, _ in named}
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert named - defined == set()

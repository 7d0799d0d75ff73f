"""docs/plots.md: its examples run, and it names every function; so do the examples of the docstrings."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

from heatproof import plot

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plots.md").read_text("utf-8")


def test_every_function_is_on_the_page():
    assert {name for name in plot.__all__ if f"| `{name}(" in PAGE} == set(plot.__all__)


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(example.replace("(12, 3", "(4, 3"), "plots.md", "exec"), {})
    assert (tmp_path / "figures" / "ranks.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", plot.__all__)
def test_every_function_has_an_example_that_runs(name):
    function = getattr(plot, name)
    home = importlib.import_module(function.__module__)
    if name == "widget":
        pytest.importorskip("ipywidgets")
    tests = doctest.DocTestFinder().find(function, name, globs=dict(vars(home)))
    assert tests and tests[0].examples
    assert doctest.DocTestRunner().run(tests[0]).failed == 0

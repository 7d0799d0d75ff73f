"""Every public name has an example in its docstring, and every example runs and gives what it says."""

import contextlib
import doctest
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.metrics import METRICS
from heatproof.studies.study import unregister_study

#: Without the rooms `plot` and `loggers`, whose own tests run their examples. Audits last: the two are of one folder,
#: so that the second only reads it.
NAMES = sorted(set(heatproof.__all__) - set(heatproof._ROOMS), key=lambda name: (name.lower() == "audit", name))
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(name: str) -> doctest.DocTest:
    """The examples of a public name; those of `__version__` are the module's."""
    found = heatproof if name.startswith("__") else getattr(heatproof, name)
    return doctest.DocTestParser().get_doctest(found.__doc__ or "", {}, f"heatproof.{name}", None, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the examples write."""
    return tmp_path_factory.mktemp("examples")


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """What an example registers is removed."""
    before = {id(registry): set(registry) for registry in (ATTRIBUTIONS, METRICS)}
    yield
    for registry in (ATTRIBUTIONS, METRICS):
        for name in set(registry) - before[id(registry)]:
            registry.remove(name)
    unregister_study("map-size")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_runs(name, folder, monkeypatch):
    if name == "zero_shot":
        pytest.importorskip("transformers", reason="transformers is not installed (extra hf)")
    monkeypatch.chdir(folder)
    test = examples(name)
    assert test.examples, f"Give heatproof.{name} an example in its docstring, under `Examples:`."
    assert test.examples[0].source == "import heatproof\n", "An example can be pasted as it stands."
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        done = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.write)
    assert not done.failed, said.getvalue()


def test_a_name_without_an_example_is_noticed():
    assert not doctest.DocTestParser().get_doctest("What it is.", {}, "name", None, 0).examples

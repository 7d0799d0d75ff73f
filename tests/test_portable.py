"""The matrix of processors and threads: what is promised is in it, the date goes through it, a failure is told."""

import datetime
import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch
from threadpoolctl import threadpool_info

ROOT = Path(__file__).resolve().parent.parent

TOY = """
import os

def test_the_setting_has_arrived():
    assert os.environ.get("ONEDNN_MAX_CPU_ISA") == "AVX2" and "ATEN_CPU_CAPABILITY" not in os.environ
"""


@pytest.fixture(scope="module")
def portable() -> ModuleType:
    spec = importlib.util.spec_from_file_location("portable", ROOT / "scripts" / "portable.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_processor_is_tried_with_one_and_two_threads(portable):
    found = {
        (s.get("ATEN_CPU_CAPABILITY"), s.get("ONEDNN_MAX_CPU_ISA"), s["HEATPROOF_TEST_THREADS"])
        for s in portable.SETTINGS.values()
    }
    processors = [(None, None), ("default", None), ("avx2", None), (None, "SSE41"), (None, "AVX2")]
    assert found == {(*processor, threads) for processor in processors for threads in "12"}
    assert len(portable.SETTINGS) == 10


def test_the_tests_it_names_are_there(portable):
    assert {"tests/contracts", "tests/metrics", "tests/parity", "tests/attributions"} < set(portable.TESTS)
    assert all((ROOT / name).exists() for name in portable.TESTS)


def test_the_date_draws_every_setting_but_the_ordinary_one(portable):
    first = datetime.date(2025, 12, 30)
    days = [first + datetime.timedelta(days=i) for i in range(len(portable.SETTINGS) - 1)]
    assert {portable.drawn(day) for day in days} == set(portable.SETTINGS) - {portable.ORDINARY}
    assert portable.drawn(first) == portable.drawn(first)
    assert portable.SETTINGS[portable.ORDINARY] == {"HEATPROOF_TEST_THREADS": "1"}


def test_one_setting_knows_nothing_of_another(portable):
    outside = {"PATH": "bin", "ATEN_CPU_CAPABILITY": "default", "HEATPROOF_TEST_THREADS": "7"}
    assert portable.environment("onednn-sse41-2", outside) == {
        "PATH": "bin", "ONEDNN_MAX_CPU_ISA": "SSE41", "HEATPROOF_TEST_THREADS": "2"
    }  # fmt: skip


def test_a_failure_under_one_setting_fails_the_whole_and_each_has_a_line(portable, monkeypatch, tmp_path, capfd):
    (tmp_path / "test_toy.py").write_text(TOY)
    few = {name: portable.SETTINGS[name] for name in ("onednn-avx2-1", "aten-avx2-2")}
    monkeypatch.setattr(portable, "SETTINGS", few)
    assert portable.main([str(tmp_path / "test_toy.py"), "-n", "0", "-p", "no:cacheprovider"]) == 1
    good, bad = capfd.readouterr().out.splitlines()[-2:]
    assert good.startswith("portable: onednn-avx2-1: passed in ") and "1 passed" in good
    assert bad.startswith("portable: aten-avx2-2: FAILED (exit status 1) in ") and "1 failed" in bad


def test_the_names_can_be_listed_and_one_of_them_asked_for(portable, monkeypatch, capsys):
    assert portable.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == list(portable.SETTINGS)
    asked: list = []
    monkeypatch.setattr(portable, "run", lambda *given: asked.append(given) or portable.Result(given[0], 0, "", 0.0))
    assert portable.main(["--setting", "aten-default-2"]) == 0
    assert portable.main(["--today", "tests/metrics::x", "-x"]) == 0
    assert asked[0] == ("aten-default-2", portable.TESTS)
    assert asked[1][0] in set(portable.SETTINGS) - {portable.ORDINARY} and asked[1][1] == ("tests/metrics::x", "-x")
    with pytest.raises(SystemExit):
        portable.main(["--setting", "aten-defualt-2"])


def test_this_process_has_the_threads_it_was_given():
    threads = int(os.environ.get("HEATPROOF_TEST_THREADS", "1"))
    assert torch.get_num_threads() == threads
    assert {os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} == {str(threads)}
    assert {pool["num_threads"] for pool in threadpool_info()} <= {1, threads}


def test_ci_runs_lint_and_every_test_once():
    lines = [line for line in (ROOT / ".ci" / "run").read_text("utf-8").splitlines() if line.startswith("made ")]
    assert [line.split(" ||")[0] for line in lines] == ["made lint", "made test NUMERICS=today"]


def test_the_whole_is_the_numerical_tests_under_the_setting_and_the_others_under_the_ordinary(
    portable, monkeypatch, capsys
):
    asked: list = []
    ends = iter([(0, "90 passed, 2 skipped in 9.00s"), (1, "1 failed, 7 passed, 1 skipped, 2 warnings in 1.00s")])
    monkeypatch.setattr(
        portable, "run", lambda *given: asked.append(given) or portable.Result(given[0], *next(ends), 5)
    )
    assert portable.main(["--setting", "aten-default-2", "--whole", "-x"]) == 1
    assert asked == [
        ("aten-default-2", ("-x", *portable.TESTS)),
        (portable.ORDINARY, ("-x", *(f"--ignore={name}" for name in portable.TESTS))),
    ]
    with pytest.raises(SystemExit):
        portable.main(["--today", "--whole", "tests/metrics"])
    assert capsys.readouterr().out.splitlines()[-1] == "1 failed, 97 passed, 3 skipped, 2 warnings in 10.00s"


def test_a_run_that_breaks_off_is_an_error_of_the_whole(portable):
    results = [portable.Result("plain-1", *end, 1.0) for end in ((0, "3 passed in 1.00s"), (3, "INTERNALERROR> no"))]
    assert portable.total(results) == "3 passed, 1 error in 2.00s"


def test_what_libraries_print_at_the_end_is_no_summary(portable, tmp_path):
    (tmp_path / "test_toy.py").write_text(
        "import atexit\natexit.register(print, 'See https://example.org: 2 passed')\n\ndef test_one():\n    pass\n"
    )
    found = portable.run("plain-1", (str(tmp_path / "test_toy.py"), "-n", "0", "-p", "no:cacheprovider"))
    assert found.status == 0 and "1 passed in " in found.summary

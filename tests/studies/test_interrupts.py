"""A killed study: finished jobs are kept, and the same command gives the same result."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from heatproof import cli

COMMAND = "run noise-robustness --model shapes --images shapes --limit 16 --batch-size 2 --methods gradcam,eigencam"
OPTIONS = "--perturbations gaussian-noise,jpeg --severities 1,3 --segmenter grid --no-report --out"


def words(out: Path, *more: str) -> list[str]:
    return [*COMMAND.split(), *OPTIONS.split(), str(out), *more]


def started(out: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "heatproof.cli", *words(out, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    )


def done_here(out: Path) -> None:
    """The same command in this process, which has imported everything already."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words(out, "--workers", "1"))
    assert not ended.value.code


def wait_for_shards(out: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob("rows/*.parquet"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def results(out: Path) -> dict[str, bytes]:
    names = ("rows/*.parquet", "maps/*.npz", "tables/*")
    return {str(p.relative_to(out)): p.read_bytes() for pattern in names for p in sorted(out.glob(pattern))}


@pytest.fixture(scope="module")
def undisturbed(shared_folder) -> dict[str, bytes]:
    return results(shared_folder("undisturbed-study", done_here))


@pytest.mark.parametrize(("blow", "workers"), [(signal.SIGKILL, "2"), (signal.SIGINT, "1")])
def test_a_struck_study_is_finished_by_the_same_command_bit_for_bit(tmp_path, undisturbed, blow, workers, capsys):
    process = started(tmp_path / "out", "--workers", workers)
    wait_for_shards(tmp_path / "out", 2, process)
    process.send_signal(blow)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if blow is signal.SIGINT else -signal.SIGKILL), said
    if blow is signal.SIGINT:
        assert "the same command goes on" in said and "Traceback" not in said
    assert 2 <= len(list((tmp_path / "out" / "rows").glob("*.parquet"))) < 8
    done_here(tmp_path / "out")
    assert "were there already" in capsys.readouterr().out
    assert results(tmp_path / "out") == undisturbed


def test_ctrl_c_while_workers_start_says_one_thing(tmp_path):
    """A terminal sends it to every process of the command; those that still import modules say nothing."""
    process = started(tmp_path / "out", "--workers", "2")
    while len(psutil.Process(process.pid).children()) < 3:  # two workers, and multiprocessing's own tracker
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on" in said, said
    assert "Traceback" not in said and "KeyboardInterrupt" not in said

"""Workers of a Ray cluster: the same bytes as here, whatever happens to them."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from heatproof.errors import HeatproofError, HeatproofWarning, InvalidInput
from heatproof.studies import ray_cluster, run
from heatproof.studies.ray_cluster import Ray

from .struck_workers import Struck
from .test_faults import plan as plan
from .test_faults import results
from .test_faults import undisturbed as undisturbed

pytest.importorskip("ray")


def test_actors_of_which_one_is_killed_give_the_same_bytes(plan, undisturbed, tmp_path):
    struck = Struck(Ray(2), tmp_path / "marks", "killed", "maps")
    with pytest.warns(HeatproofWarning, match="A worker was lost: the actor"):
        run.run(plan, tmp_path / "out", executor=struck)
    assert struck.struck == {"maps"} and results(tmp_path / "out") == undisturbed


def test_an_address_where_nothing_answers_is_an_error_at_once(tmp_path):
    with pytest.raises(HeatproofError, match="Got no answer"), Ray(1, "127.0.0.1:9").running(int, None):
        pass


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidInput, match=r"pip install 'heatproof\[ray\]'"):
        ray_cluster.ray_module()


@pytest.mark.slow
def test_a_cluster_that_is_lost_is_said_and_the_same_command_goes_on(tmp_path):
    """Every process of Ray is killed: its head, its store and its workers."""
    out, command = tmp_path / "out", "run noise-robustness --model shapes --images shapes --limit 24 --batch-size 2"
    options = "--methods gradcam --perturbations gaussian-noise --severities 1,2,3,4,5 --no-report --executor ray"
    words = [sys.executable, "-m", "heatproof.cli", *command.split(), *options.split(), "--workers", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*words, "--out", str(out)], stderr=subprocess.PIPE, text=True, env=environment)
    while len(list(out.glob("rows/*.parquet"))) < 2:
        assert process.poll() is None, process.communicate()
    for one in psutil.Process(process.pid).children(recursive=True):
        one.kill()
    _, said = process.communicate(timeout=180)
    assert process.returncode == 1 and "run the same command again" in said and "Traceback" not in said, said
    there = len(list(out.glob("rows/*.parquet")))
    assert 2 <= there < 12
    subprocess.run([*words, "--out", str(out)], check=True, env=environment)
    words[words.index("--workers") - 1] = "serial"
    words[-1] = "1"
    subprocess.run([*words, "--out", str(tmp_path / "serial")], check=True, env=environment)
    assert rows(out) == rows(tmp_path / "serial")


def rows(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "rows").glob("*.parquet"))}

"""A results folder at an address: the same rows and bytes as in a folder of this machine, whatever happens."""

import importlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from heatproof import cli
from heatproof.addresses import is_address, names_in, place
from heatproof.errors import HeatproofWarning, InvalidInput, MissingExtra, StoreError
from heatproof.files import write_atomically
from heatproof.report import write_report
from heatproof.studies import lease, run
from heatproof.studies.merging import merged
from heatproof.studies.plan import checked_plan
from heatproof.studies.shards import Shard
from heatproof.studies.store import Store, connect

WORDS = "score shapes --model shapes --limit 5 --batch-size 1 --methods gradcam --controls none --metrics complexity"
SAME = ("rows", "maps", "sums", "gallery", "tables", "figures", "report.html")


@pytest.fixture(scope="module")
def bucket():
    """A bucket of a server on this machine that speaks S3."""
    boto3, server = importlib.import_module("boto3"), importlib.import_module("moto.server")
    s3fs = importlib.import_module("s3fs")
    served = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    served.start()
    host, port = served.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key",
                            "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}.items():  # fmt: skip
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client("s3").create_bucket(Bucket="lab")
        yield "s3://lab"
        s3fs.S3FileSystem.clear_instance_cache()
    served.stop()


@pytest.fixture(params=["memory", "s3"])
def address(request, tmp_path):
    """An empty address of each kind."""
    root = request.getfixturevalue("bucket") if request.param == "s3" else "memory://lab"
    return f"{root}/{tmp_path.name}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, seconds in {"RENEWED": 0.1, "SILENT": 0.4, "LOOK": 0.1}.items():
        monkeypatch.setattr(lease, name, seconds)


@pytest.fixture(scope="module")
def plan():
    return checked_plan(
        {"study": "score", "models": "shapes", "datasets": "shapes", "methods": ["gradcam"], "controls": "none",
         "metrics": ["complexity"], "limit": 3, "batch_size": 1, "resamples": 100}
    )  # fmt: skip


@pytest.fixture(scope="module")
def here(shared_folder, plan):
    def filled(folder: Path) -> None:
        run.run(plan, folder, workers=1)
        write_report(folder)

    return shared_folder("study-here", filled)


def files(where) -> dict[str, bytes]:
    there = place(where)
    if not is_address(there):
        found = {str(path.relative_to(there)): path.read_bytes() for path in there.rglob("*") if path.is_file()}
    else:
        fs = there.fs
        found = {name.split(f"{there.path}/")[-1]: fs.cat_file(name) for name in fs.find(there.path)}
    return {name: content for name, content in found.items() if name.split("/")[0] in SAME}


def test_a_study_at_an_address_is_that_of_a_folder(address, here, plan):
    """Also after objects of it were cut off."""
    done = run.run(plan, address, workers=1)
    assert (done.ran, str(done.folder)) == (3, address)
    write_report(address)
    assert files(address) == files(here)
    assert (
        connect(address).execute("select count(*) from rows").fetchone()
        == connect(here).execute("select count(*) from rows").fetchone()
    )
    assert names_in(place(address), ".lease") == []
    there = place(address)
    for damaged in ("rows/m00-d00-0000001.parquet", "maps/m00-d00-0000002.npz"):
        there.fs.pipe_file((there / damaged).path, (there / damaged).read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"0000001\.parquet is damaged"):
        connect(address)
    with pytest.warns(HeatproofWarning, match="is damaged: it has") as said:
        assert run.run(plan, address, workers=1).ran == 2
    assert len(said) == 2
    assert files(address) == files(here)
    assert run.run(plan, address, workers=1).kept == 3


def test_shards_at_an_address_are_put_together_there(tmp_path, here, plan):
    address = f"memory://lab/{tmp_path.name}"
    for number in (1, 2):
        run.run(plan, address, workers=1, shard=Shard(number, 2))
    assert str(merged([address])) == address
    run.run(plan, address, workers=1)
    write_report(address)
    assert files(address) == files(here)


def test_a_killed_study_goes_on_at_its_address(bucket, tmp_path, capsys):
    def words(out) -> list[str]:
        return [*WORDS.split(), "--workers", "1", "--out", str(out)]

    out = f"{bucket}/killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "heatproof.cli", *words(out)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(names_in(place(out) / "rows", ".parquet")) < 2:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert 2 <= len(Store(out).done()) < 5
    assert names_in(place(out) / "", ".lease") == []  # hidden, and still there
    assert (place(out) / ".lease").exists()
    for asked in (words(out), words(tmp_path)):
        with pytest.raises(SystemExit) as ended:
            cli.main(asked)
        assert not ended.value.code, capsys.readouterr()
    there, here = files(out), files(tmp_path)
    del there["report.html"], here["report.html"]  # each names the command that made it
    assert there == here
    assert {name.split("/")[0] for name in here} >= {"rows", "maps", "sums", "gallery", "tables"}
    with pytest.raises(SystemExit) as ended:
        cli.main(["query", out, "select count(*) from rows"])
    assert not ended.value.code
    assert f"Report: {out}/report.html" in capsys.readouterr().out


def test_one_run_at_a_time_and_no_clock_is_compared(address, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: -1e9)
    other = Store(address).opened()
    with Store(address).opened(), pytest.raises(StoreError, match="in use by another heatproof run"):
        other.__enter__()
    with Store(address).opened():
        pass
    assert not (place(address) / ".lease").exists()


def test_a_lease_that_nobody_renews_is_taken_over_and_its_holder_is_told(address, monkeypatch):
    there = place(address)
    (there / ".lease").fs.pipe_file((there / ".lease").path, b'{"name": "killed", "count": 3}')
    with Store(address).opened():
        assert b"killed" not in (there / ".lease").read_bytes()
    told: list[str] = []
    monkeypatch.setattr(lease, "warn", told.append)
    with Store(address).opened():
        (there / ".lease").fs.pipe_file((there / ".lease").path, b'{"name": "other", "count": 0}')
        deadline = time.monotonic() + 10
        while not told and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(told) == 1 and "taken" in told[0]
    assert b"other" in (there / ".lease").read_bytes()


def test_an_object_is_whole_or_not_there(address):
    def half(file) -> None:
        file.write(b"half")
        raise ValueError

    with pytest.raises(ValueError):
        write_atomically(place(address) / "rows" / "x", half)
    assert not (place(address) / "rows" / "x").exists()


def test_a_bucket_that_is_not_there_is_said(bucket, plan):
    with pytest.raises(StoreError, match=r"Cannot write s3://nowhere/x .* Check that the bucket exists"):
        run.run(plan, "s3://nowhere/x", workers=1)
    with pytest.raises(StoreError, match="no finished rows"):
        connect("memory://nothing")


@pytest.mark.parametrize("text", ["out/a", "/abs/a b", "C:/x", "a:b", "file:///abs/a b", "local:///abs/a b"])
def test_paths_of_this_machine_stay_paths(text):
    assert place(text) == Path(text.partition("://")[2] or text)
    assert not is_address(place(text))


def test_addresses_that_cannot_be_used_are_said(monkeypatch, capsys):
    with pytest.raises(InvalidInput, match=r"nosuch://x must begin with a file system"):
        place("nosuch://x")
    for words, said in (
        (f"{WORDS} --out memory://x", ": memory://x is memory of one process"),
        ("report memory://x", "memory://x is memory of one process"),
        ("merge memory://x", "memory://x is memory of one process"),
        ("query memory://x", "memory://x is memory of one process"),
        ("explain cat.png --model shapes --out s3://lab/x", "Got the address s3://lab/x. Name a folder"),
        ("data shapes --out s3://lab/x", "writes to a folder of this machine"),
    ):
        with pytest.raises(SystemExit):
            cli.main(words.split())
        assert said in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        cli.main(["view", "memory://x"])
    assert "needs a folder of this machine" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(MissingExtra, match=r"pip install 'heatproof\[remote\]'"):
        place("s3://x/y")


def test_a_file_system_without_exclusive_writing_has_a_lease_too(monkeypatch):
    memory = type(fsspec.filesystem("memory"))

    def plain(self, path, value, mode=None):
        if mode is not None:
            raise TypeError("no mode")
        with self.open(path, "wb") as file:
            file.write(io.BytesIO(value).read())

    monkeypatch.setattr(memory, "pipe_file", plain)
    with (
        Store("memory://plain/x").opened(),
        pytest.raises(StoreError, match="in use"),
        Store("memory://plain/x").opened(),
    ):
        pass

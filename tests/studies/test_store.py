"""The results folder: whole files or none, one writer at a time, no other study's rows."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from heatproof.errors import StoreError
from heatproof.files import write_atomically
from heatproof.studies import store as store_module
from heatproof.studies.rows import Rows
from heatproof.studies.store import Store, connect

HOLD = """
import sys, time
from heatproof.studies.store import Store
with Store(sys.argv[1]).opened() as store:
    store.write_plan({})
    print("held", flush=True)
    time.sleep(60)
"""


def rows(image: str = "a.png", value: float = 1.0):
    made = Rows(study="s", model="m", dataset="d", layer="l", target="predicted", seed=0, version="v")
    made.add([image], metric="rbo", value=[value])
    return made.table()


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def half(file):
        file.write(b"half")
        raise ValueError

    with pytest.raises(ValueError):
        write_atomically(tmp_path / "x.bin", half)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "not writable"), (errno.EIO, "Choose another")],
)
def test_system_errors_are_sentences_and_the_old_file_stays(tmp_path, code, expected):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"new")
        raise OSError(code, os.strerror(code))

    with pytest.raises(StoreError, match=expected):
        write_atomically(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]
    assert path.read_bytes() == b"old"


def test_one_writer_at_a_time_and_a_killed_one_lets_go(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="in use by another"), Store(tmp_path).opened():
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        deadline = time.monotonic() + 10
        while True:
            try:
                with Store(tmp_path).opened():
                    break
            except StoreError:
                assert time.monotonic() < deadline, "the lock outlived its process"
                time.sleep(0.05)
    finally:
        holder.kill()


def test_leftovers_of_a_killed_writer_are_removed_and_finished_shards_stay(tmp_path):
    store = Store(tmp_path)
    with store.opened():
        store.write_plan({"study": "s"})
        store.write_shard("done", rows())
    (tmp_path / "rows" / ".half.parquet.123.part").write_bytes(b"PAR1")
    with store.opened():
        assert store.done() == {"done"}
        assert not list(tmp_path.glob("**/*.part"))


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StoreError, match="holds other files"), Store(tmp_path).opened():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(StoreError, match="is a file"), Store(tmp_path / "out").opened():
        pass


def test_differences_name_what_changed_and_forgive_what_touches_no_number(tmp_path):
    store = Store(tmp_path)
    store.write_plan({"severities": [1, 2], "workers": 1, "command": "a"})
    assert store.differences({"severities": (1, 2), "workers": 2, "command": "b"}) == []
    assert store.differences({"severities": [1]}) == ["severities is [1, 2] there and [1] here"]


def test_differences_inside_models_are_named_by_their_path_and_fingerprints_by_what_they_are_of(tmp_path):
    store = Store(tmp_path)
    model = {"name": "a", "mean": 0.5, "fingerprint": "x"}
    store.write_plan({"models": [model], "limit": 3, "jobs": 1})
    assert store.differences({"models": [{**model, "mean": 0.4}], "limit": 3, "jobs": 1}) == [
        "models[0].mean is 0.5 there and 0.4 here"
    ]
    assert store.differences({"models": [{**model, "fingerprint": "y"}], "limit": 3, "jobs": 1}) == [
        "the weights of a are not the same"
    ]
    assert store.differences({"models": [model], "limit": 4, "jobs": 2}) == ["limit is 3 there and 4 here"]


def test_a_broken_plan_is_said(tmp_path):
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        Store(tmp_path).plan()


def test_rows_are_in_one_order_whatever_order_they_were_added_in(tmp_path):
    one = Rows(study="s", model="m", dataset="d", layer="l", target="t", seed=0, version="v")
    two = Rows(study="s", model="m", dataset="d", layer="l", target="t", seed=0, version="v")
    one.add(["a", "b"], metric="rbo", value=[1.0, 2.0])
    one.add(["a", "b"], metric="l1", value=[3.0, 4.0], flag=["", "x"])
    two.add(["b", "a"], metric="l1", value=[4.0, 3.0], flag=["x", ""])
    two.add(["a", "b"], metric="rbo", value=[1.0, 2.0])
    assert one.table().equals(two.table())
    assert one.table().column("value").to_pylist() == [3.0, 1.0, 4.0, 2.0]


def test_rows_can_be_asked_in_sql_and_names_are_data(tmp_path):
    store = Store(tmp_path / "it's [odd]*")
    with store.opened():
        store.write_plan({"study": "s"})
        store.write_shard("a", rows("'; drop table rows; --", 0.25))
        store.write_shard("b", rows("b", 0.75))
    found = connect(store.folder).execute("select count(*), avg(value) from rows").fetchone()
    assert found == (2, 0.5)


@pytest.mark.parametrize("reference", [True, False])
def test_many_shards_are_joined_for_a_report(tmp_path, monkeypatch, reference):
    monkeypatch.setattr(store_module, "JOINED", 3)
    store = Store(tmp_path)
    with store.opened():
        store.write_plan({"study": "s"})
        for number in range(8):
            table = rows(f"{number}.png", number)
            store.write_shard(f"job-{number}", table if reference else table.drop_columns(["reference"]))
    query = "SELECT image, value, reference FROM rows ORDER BY image"
    joined = connect(tmp_path, join=True)
    assert joined.execute(query).fetchall() == connect(tmp_path).execute(query).fetchall()
    (database,) = joined.execute("SELECT path FROM duckdb_databases() WHERE path IS NOT NULL").fetchone()
    assert Path(database).exists()
    del joined
    assert not Path(database).parent.exists()


def test_rows_cost_few_bytes_and_are_read_back(tmp_path):
    made = Rows(study="s", model="m", dataset="d", layer="l", target="t", seed=0, version="v")
    names, values = [f"{number}.png" for number in range(2000)], np.random.default_rng(0).random(2000)
    for metric in ("rbo", "l1"):
        made.add(names, metric=metric, value=values, method="gradcam")
    store = Store(tmp_path)
    store.write_shard("a", made.table())
    file = store.rows / "a.parquet"
    assert file.stat().st_size < 4000 * 11
    assert pq.read_table(file).equals(made.table())


def test_a_folder_without_rows_is_said(tmp_path):
    with pytest.raises(StoreError, match="no finished rows"):
        connect(tmp_path)


@pytest.mark.parametrize(("targets", "refused"), [(["predicted"], False), (["predicted", "second"], True)])
def test_rows_that_do_not_say_which_is_the_reference_are_read_only_if_it_is_plain(tmp_path, targets, refused):
    store = Store(tmp_path)
    with store.opened():
        for target in targets:
            made = Rows(study="s", model="m", dataset="d", layer="l", target=target, seed=0, version="v")
            made.add(["a"], metric="rbo", value=[1.0])
            made.add(["a"], metric="rbo", value=[0.5], perturbation="blur", severity=1)
            store.write_shard(target, made.table().drop_columns(["reference"]))
    if refused:
        with pytest.raises(StoreError, match=r"explain several classes .* new folder"):
            connect(tmp_path)
    else:
        found = connect(tmp_path).execute("SELECT reference FROM rows ORDER BY perturbation").fetchall()
        assert found == [(True,), (False,)]


def test_differences_in_code_are_named_and_never_lost(tmp_path):
    store, plan = Store(tmp_path), {"limit": 3, "methods": ["mine"], "conditions": ["reference"]}
    code = [{"name": "study own", "fingerprint": "a"}, {"name": "method mine", "fingerprint": "b"}]
    changed = [{**code[0], "fingerprint": "x"}, code[1]]
    store.write_plan({**plan, "code": code})
    now = {**plan, "sampling": "stratified"}
    assert store.differences({**now, "code": code}) == []
    assert store.differences({**now, "code": changed}) == ["the code of the study own is not the same"]
    assert store.differences({**now, "code": [code[0], {**code[1], "fingerprint": "y"}]}) == [
        "the code of the method mine is not the same"
    ]
    assert store.differences({**now, "conditions": ["x"], "code": changed}) == [
        'conditions is ["reference"] there and ["x"] here'
    ]
    assert store.differences({**now, "methods": ["other"], "code": changed[:1]}) == [
        'methods is ["mine"] there and ["other"] here'
    ]
    store.write_plan(plan)
    assert store.differences({**now, "code": code[1:]}) == ["the code of the method mine was not recorded there"]
    store.write_plan({**plan, "sampling": "first", "datasets": [{"name": "d", "fingerprint": "1"}]})
    assert store.differences({**now, "datasets": [{"name": "d", "fingerprint": "2"}]}) == [
        'sampling is "first" there and "stratified" here'
    ]

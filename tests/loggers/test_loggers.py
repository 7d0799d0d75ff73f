"""Each backend really used: what is written is read back, and is what the monitor gives and `score` computes."""

import doctest
import importlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import heatproof
from heatproof.errors import HeatproofWarning, MissingExtra
from heatproof.loggers import Logger, MapMonitor, MLflowLogger, TensorBoardLogger, WandbLogger
from heatproof.loggers.chosen_loggers import loggers_of
from heatproof.loggers.step_maps import step_panels

from .training import SIDE, Broken, Kept, images, net, same, trained

METHODS, METRICS = ["gradcam++", "refine:layercam"], ["deletion", "complexity"]


@pytest.fixture(scope="module")
def expected():
    """The numbers and the panels of two steps of an untrained network, with those of `score`."""
    kept, network = Kept(), net()
    monitor = MapMonitor(images(2), METHODS, METRICS, every=1, logger=kept, labels=[0, 1])
    for step in (0, 3):
        monitor.step(network, step)
    model = heatproof.wrap(network, input_shape=(3, SIDE, SIDE))
    table = heatproof.score(model, images(2), METHODS, METRICS).table
    for row in table.itertuples():
        assert kept.numbers[3][f"heatproof/{row.metric}/{row.method}"] == pytest.approx(row.mean, abs=1e-12)
    return kept


def logged(logger):
    """The same steps, logged."""
    monitor, network = MapMonitor(images(2), METHODS, METRICS, every=1, logger=logger, labels=[0, 1]), net()
    for step in (0, 3):
        monitor.step(network, step)
    monitor.close()
    return monitor


def names(expected, step):
    return {name for name in expected.numbers[step] if not name.endswith("/seconds")}


# --- TensorBoard ---


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def check_events(folder, expected):
    found = events(folder)
    assert names(expected, 0) | names(expected, 3) | {"heatproof/seconds"} == set(found.Tags()["scalars"])
    for name in names(expected, 3):
        values = {one.step: one.value for one in found.Scalars(name)}
        told = {step: numbers[name] for step, numbers in expected.numbers.items() if name in numbers}
        assert values == pytest.approx(told, rel=1e-6)
    for step, name, pixels, _ in expected.images:
        (image,) = [one for one in found.Images(name) if one.step == step]
        decoded = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB"))
        assert np.array_equal(decoded, pixels)


def test_tensorboard_holds_scores_and_panels(tmp_path, expected):
    logged(TensorBoardLogger(tmp_path / "events"))
    check_events(tmp_path / "events", expected)


def test_a_summary_writer_is_used_and_left_open(tmp_path, expected):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        logged(writer)
        writer.add_scalar("loss", 1.0, 0)
    found = events(tmp_path)
    assert "loss" in found.Tags()["scalars"] and names(expected, 3) <= set(found.Tags()["scalars"])


def test_tensorboard_by_name_writes_below_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monitor = MapMonitor(images(1), "gradcam", (), logger="tensorboard")
    assert not list(tmp_path.iterdir())  # nothing before the first step
    monitor.step(net(), 0)
    monitor.close()
    assert list(tmp_path.glob("runs/*/events*"))


def test_a_full_disk_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("")
    monitor = MapMonitor(images(), "gradcam", (), every=1, logger=TensorBoardLogger(tmp_path / "file" / "events"))
    with pytest.warns(HeatproofWarning, match="TensorBoardLogger failed: .*Training goes on") as told:
        run = trained(monitor.step)
    assert len(told) == 1 and same(run, trained(lambda network, step: None))


# --- Weights & Biases ---


@pytest.fixture
def offline(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    return tmp_path


def history(folder):
    """The rows of the history of an offline run that was finished."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    end = time.monotonic() + 30
    while time.monotonic() < end:  # another process writes it, and may do so after `finish`
        records = []
        for data in wandb_records(file.read_bytes()):
            records.append(wandb_internal_pb2.Record())
            records[-1].ParseFromString(data)
        if any(record.HasField("exit") for record in records):
            break
        time.sleep(0.1)
    items = [record.history.item for record in records if record.HasField("history")]
    return [{one.key or "/".join(one.nested_key): json.loads(one.value_json) for one in row} for row in items]


def wandb_records(data, head=7, block=32768):
    """The records of a .wandb file: a log as LevelDB's, with a head of seven bytes before its first block."""
    at, found = head, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        found += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield found
            found = b""


def test_wandb_offline_holds_scores_and_panels(offline, expected):
    logged(WandbLogger(dir=str(offline)))
    rows = history(offline)
    assert [row["heatproof/step"] for row in rows] == [0, 3]
    for row in rows:
        numbers = expected.numbers[row["heatproof/step"]]
        for name in names(expected, row["heatproof/step"]):
            assert row[name] == pytest.approx(numbers[name], abs=1e-9)
        for step, name, pixels, caption in expected.images:
            if step == row["heatproof/step"]:
                assert row[f"{name}/caption"] == caption
                (file,) = offline.glob(f"wandb/offline-run-*/files/{row[f'{name}/path']}")
                assert np.array_equal(np.asarray(Image.open(file).convert("RGB")), pixels)


def test_a_given_run_of_wandb_stays_open_and_keeps_its_own_steps(offline):
    import wandb

    with wandb.init(project="mine", dir=str(offline)) as run:
        run.log({"loss": 1.0}, step=5)
        logged(run)
        assert wandb.run is run
        run.log({"loss": 0.5}, step=20)
        by_name = MapMonitor(images(1), "gradcam", (), logger="wandb")
        by_name.step(net(), 21)
        by_name.close()
        assert wandb.run is run
    rows = history(offline)
    assert [row["loss"] for row in rows if "loss" in row] == [1.0, 0.5]
    assert [row["heatproof/step"] for row in rows if "heatproof/step" in row] == [0, 3, 21]


def test_wandb_that_cannot_start_is_one_warning(monkeypatch):
    wandb = pytest.importorskip("wandb")

    def fail(**_):
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "init", fail)
    monitor = MapMonitor(images(), "gradcam", (), every=1, logger="wandb")
    with pytest.warns(HeatproofWarning, match="WandbLogger failed: UsageError: No API key") as told:
        run = trained(monitor.step)
    assert len(told) == 1 and same(run, trained(lambda network, step: None))


# --- MLflow ---


@pytest.fixture
def store(monkeypatch, tmp_path):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def test_mlflow_holds_scores_and_panels(store, expected, tmp_path):
    from mlflow import MlflowClient

    logger = MLflowLogger(tracking_uri=store, experiment="maps")
    monitor = MapMonitor(images(2), METHODS, METRICS, every=1, logger=logger, labels=[0, 1])
    network = net()
    for step in (0, 3):
        monitor.step(network, step)
    run_id = logger.run_id
    monitor.close()
    client = MlflowClient(tracking_uri=store)
    run = client.get_run(run_id)
    assert client.get_experiment(run.info.experiment_id).name == "maps" and run.info.status == "FINISHED"
    for name in names(expected, 3):
        told = {step: numbers[name] for step, numbers in expected.numbers.items() if name in numbers}
        written = client.get_metric_history(run_id, name.replace("+", "_"))
        assert {one.step: one.value for one in written} == pytest.approx(told)
    files = [Path(one.path) for one in client.list_artifacts(run_id, "images") if one.path.endswith(".png")]
    assert len(files) == len(expected.images)
    for step, name, pixels, _ in expected.images:
        key = name.rpartition("/")[2]
        (file,) = [one for one in files if key in one.name and f"%step%{step}%" in one.name.replace("+", "%")]
        read = Image.open(client.download_artifacts(run_id, file.as_posix(), str(tmp_path)))
        assert np.array_equal(np.asarray(read.convert("RGB")), pixels)


def test_the_active_run_of_mlflow_is_used_and_left_open(store):
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    try:
        with mlflow.start_run() as run:
            for logger in ("mlflow", run):
                logged(logger)
                assert mlflow.active_run().info.status == "RUNNING"
        written = mlflow.MlflowClient().get_metric_history(run.info.run_id, "heatproof/complexity/gradcam__")
        assert [one.step for one in written] == [0, 3, 0, 3]
    finally:
        mlflow.set_tracking_uri(before)


def test_a_database_needs_the_whole_of_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setattr("heatproof.loggers.mlflow_logger.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install mlflow"):
        _ = MLflowLogger(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db").client


def test_a_server_of_mlflow_that_is_gone_is_one_warning(monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monitor = MapMonitor(images(), "gradcam", (), every=1, logger=MLflowLogger(tracking_uri="http://127.0.0.1:9"))
    with pytest.warns(HeatproofWarning, match="MLflowLogger failed") as told:
        run = trained(monitor.step)
    assert len(told) == 1 and same(run, trained(lambda network, step: None))


# --- loggers of a user's, and of Lightning's ---


def test_what_is_a_logger():
    kept = Kept()
    assert isinstance(kept, Logger) and loggers_of(kept) == [kept] and loggers_of(None) == []
    assert loggers_of([kept, [Broken()]])[0] is kept
    assert isinstance(loggers_of("tensorboard")[0], TensorBoardLogger)


@pytest.mark.parametrize(
    ("module", "extra"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_a_missing_extra_is_told_when_it_is_made(module, extra, monkeypatch):
    monkeypatch.setattr("heatproof.loggers.logger.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=rf'pip install "heatproof\[{extra}\]"'):
        MapMonitor(images(), logger=extra)


def test_no_panels_are_drawn_without_a_logger(monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr("heatproof.loggers.map_monitor.step_panels", fail)
    assert MapMonitor(images(), "gradcam", (), logger=None).step(net(), 0)
    assert step_panels is not fail


@pytest.mark.parametrize("name", ["tensorboard_logger", "wandb_logger", "mlflow_logger"])
def test_examples(name, monkeypatch):
    pytest.importorskip(name.removesuffix("_logger"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    found = doctest.testmod(importlib.import_module(f"heatproof.loggers.{name}"))
    assert found.attempted and not found.failed


def test_importing_the_room_loads_nothing_heavy():
    code = """
import sys, heatproof, heatproof.loggers
dir(heatproof.loggers), heatproof.loggers
heavy = ("torch", "lightning", "pytorch_lightning", "transformers", "wandb", "mlflow", "tensorboard")
assert not [name for name in heavy if name in sys.modules]
from heatproof.loggers import MapMonitor, TensorBoardLogger, WandbLogger, MLflowLogger
WandbLogger(), MLflowLogger(), TensorBoardLogger()
loaded = [name for name in heavy[1:] if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr

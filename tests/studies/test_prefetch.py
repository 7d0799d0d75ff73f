"""Images opened ahead are those of the next job, bit for bit; other orders and errors change nothing."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heatproof.data import demo_shapes
from heatproof.data.folder import images_from_folder
from heatproof.studies import prefetch
from heatproof.studies import worker as worker_module
from heatproof.studies.jobs import ImageBlock, Job
from heatproof.studies.plan import checked_plan
from heatproof.studies.run import run


def block(name: str) -> ImageBlock:
    return ImageBlock(torch.zeros(1, 3, 2, 2), [name], [None], [0], {})


def test_the_next_job_is_opened_in_another_thread_and_taken_once():
    threads, opened = [], []

    def opening(job: Job) -> ImageBlock:
        threads.append(threading.current_thread())
        opened.append(job)
        return block(job.key)

    ahead = prefetch.NextImages(opening)
    assert ahead.take(Job(0, 0, 0, 4)) is None
    ahead.begin(Job(0, 0, 0, 4), 6)
    found = ahead.take(Job(0, 0, 4, 6))
    assert found is not None and found.ids == [Job(0, 0, 4, 6).key] and opened == [Job(0, 0, 4, 6)]
    assert threads[0] is not threading.main_thread() and ahead.take(Job(0, 0, 4, 6)) is None
    ahead.begin(Job(0, 0, 4, 6), 6)
    assert len(opened) == 1  # it was the last


def test_wrong_guesses_come_to_an_end_and_errors_are_left_to_the_worker():
    opened = []

    def opening(job: Job) -> ImageBlock:
        opened.append(job)
        raise OSError("gone")

    ahead = prefetch.NextImages(opening)
    for _ in range(5):
        ahead.begin(Job(0, 0, 0, 1), 9)
        assert ahead.take(Job(0, 0, 1, 2)) is None  # the error is raised where the worker opens the image
    for _ in range(5):
        ahead.begin(Job(0, 0, 0, 1), 9)
        assert ahead.take(Job(0, 0, 5, 6)) is None
    ahead._pool.shutdown()
    assert 5 <= len(opened) <= 5 + prefetch.WRONG


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shapes = demo_shapes(n=7)
    (tmp_path / "images").mkdir()
    for number in range(7):
        Image.fromarray(np.asarray(shapes.open(number))).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    return tmp_path / "images"


def test_a_study_has_the_same_shards(folder, tmp_path, monkeypatch):
    settings = {"study": "noise-robustness", "models": ["shapes"], "datasets": [str(folder)], "batch_size": 2,
                "perturbations": ["gaussian-noise"], "severities": [1], "segmenters": ["grid"],
                "methods": ["gradcam"], "device": "cpu"}  # fmt: skip
    taken = []

    class Watched(prefetch.NextImages):
        def take(self, job: Job) -> ImageBlock | None:
            taken.append(super().take(job))
            return taken[-1]

    run(checked_plan(settings), tmp_path / "plain", workers=1)
    assert not taken
    monkeypatch.setattr(worker_module, "worthwhile", lambda device: True)
    monkeypatch.setattr(worker_module, "NextImages", Watched)
    run(checked_plan(settings), tmp_path / "ahead", workers=1)
    assert [one and len(one.ids) for one in taken] == [None, 1, 2, 1]
    shards = [sorted((tmp_path / name).glob("rows/*.parquet")) for name in ("plain", "ahead")]
    assert len(shards[0]) == 4 == len(shards[1])
    for one, other in zip(*shards, strict=True):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()


def test_only_on_a_gpu_and_only_of_files(folder):
    assert prefetch.worthwhile("cuda:0") and not prefetch.worthwhile("cpu")
    assert prefetch.of_files(images_from_folder(folder)) and not prefetch.of_files(object())

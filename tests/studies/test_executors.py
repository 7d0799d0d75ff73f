"""Which worker does which job, and what happens to the job of a worker that is lost."""

import time
import warnings
from collections import defaultdict

import pytest

from heatproof.errors import HeatproofError, HeatproofWarning, InvalidStudy, StoreError, UnknownName, warn
from heatproof.studies import execution
from heatproof.studies.execution import Execution
from heatproof.studies.executors import ATTEMPTS, Failed, Finished, Lost, Schedule, Serial
from heatproof.studies.processes import Processes, sendable
from heatproof.studies.ray_cluster import Ray


def prepare(_):
    def work(job, advance):
        warnings.simplefilter("always")
        warn("said by every job")
        warn(f"said by job {job}")
        advance(1)
        return job

    return work


def test_warnings_of_workers_come_once_and_through_this_process():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Processes(2).running(prepare, None) as run:
            assert sorted(run([1, 2, 3, 4], lambda share: None)) == [1, 2, 3, 4]
    texts = [str(one.message) for one in told]
    assert sorted(texts) == ["said by every job", *(f"said by job {job}" for job in (1, 2, 3, 4))]
    assert {one.category.__name__ for one in told} == {"HeatproofWarning"}


class Scripted:
    """Workers without processes: `script` says what happens to a job at each attempt, "done" where it says nothing."""

    def __init__(self, **script):
        self.script = {job: list(happens) for job, happens in script.items()}
        self.alive, self.jobs, self.began, self.most = set(), {}, defaultdict(int), 0
        self.shares, self.seconds = [], 0.0

    def start(self):
        worker = f"w{sum(self.began.values())}-{len(self.alive)}"
        self.alive.add(worker)
        return worker

    def give(self, worker, job):
        assert worker in self.alive and worker not in self.jobs
        self.began[job] += 1
        self.jobs[worker] = job
        self.most = max(self.most, len(self.jobs))
        self.shares.append((worker, 0.5))

    def outcomes(self, seconds):
        found = []
        self.seconds += 50.0
        for worker, job in list(self.jobs.items()):
            happens = self.script[job].pop(0) if self.script.get(job) else "done"
            if happens == "hangs":
                continue
            del self.jobs[worker]
            if happens == "done":
                self.shares.append((worker, 0.5))
                found.append((worker, Finished(job)))
            else:
                memory = happens == "memory"
                found.append((worker, Failed(ValueError("bad")) if happens == "fails" else Lost(happens, memory)))
        return found

    def advanced(self):
        found, self.shares = self.shares, []
        return found

    def end(self, worker):
        self.alive.remove(worker)
        self.jobs.pop(worker, None)


def mapped(workers, jobs, count=2, timeout=None):
    """What a schedule yields, and the sum of its progress."""
    shares = []
    found = list(Schedule(workers, count, timeout).map(jobs, shares.append))
    return found, sum(shares)


def test_every_job_is_done_once_by_no_more_workers_than_asked_for():
    workers = Scripted()
    found, progress = mapped(workers, list("abcdefg"), count=3)
    assert sorted(found) == list("abcdefg") and progress == 7
    assert workers.most == len(workers.alive) == 3 and set(workers.began.values()) == {1}


def test_the_job_of_a_lost_worker_is_done_by_another_and_its_progress_taken_back():
    workers = Scripted(b=["ended", "ended"])
    with pytest.warns(HeatproofWarning, match="A worker was lost: ended. Another one takes its job"):
        found, progress = mapped(workers, list("abc"))
    assert sorted(found) == list("abc") and progress == 3
    assert workers.began == {"a": 1, "b": 3, "c": 1} and workers.most == 2


def test_a_job_lost_every_time_is_an_error_once_all_others_are_done():
    workers, found = Scripted(b=["ended"] * ATTEMPTS), []
    with (
        pytest.warns(HeatproofWarning, match="lost"),
        pytest.raises(HeatproofError, match=r"1 job could not be finished \(b\).*Ended\. Finished jobs are kept"),
    ):
        found.extend(Schedule(workers, 2, None).map(list("bacdef"), lambda share: None))
    assert workers.began == {"b": ATTEMPTS} | dict.fromkeys("acdef", 1)


def test_where_every_worker_is_lost_the_study_stops_soon():
    workers = Scripted(**{job: ["ended"] * 9 for job in "abcdefghijklmnop"})
    with pytest.warns(HeatproofWarning), pytest.raises(HeatproofError, match="Finished jobs are kept"):
        mapped(workers, list("abcdefghijklmnop"))
    assert sum(workers.began.values()) <= ATTEMPTS * 2 + 1


def test_a_worker_that_memory_ended_is_not_replaced_but_the_last_one_is():
    workers = Scripted(a=["memory", "memory"], b=["memory"])
    with pytest.warns(HeatproofWarning, match="A worker was lost: memory") as told:
        found, _ = mapped(workers, list("abcd"), count=3)
    said = " ".join(str(one.message) for one in told)
    assert "goes on with 2 workers" in said and "goes on with one worker" in said and "Another one takes" in said
    assert sorted(found) == list("abcd") and len(workers.alive) == 1


def test_an_error_of_a_job_ends_the_study_with_that_error():
    with pytest.raises(ValueError, match="bad"):
        mapped(Scripted(b=["fails"]), list("abc"))


def test_a_worker_without_progress_is_ended_and_its_job_begun_again(monkeypatch):
    workers = Scripted(a=["hangs"] * 4)
    monkeypatch.setattr(time, "monotonic", lambda: workers.seconds)
    with pytest.warns(HeatproofWarning, match=r"no progress for 2 min \(--timeout\)"):
        found, progress = mapped(workers, ["a", "b"], count=1, timeout=2)
    assert found == ["b", "a"] or found == ["a", "b"]
    assert workers.began["a"] > 1 and progress == 2


def test_without_a_timeout_a_slow_job_is_waited_for(monkeypatch):
    workers = Scripted(a=["hangs"] * 20)
    monkeypatch.setattr(time, "monotonic", lambda: 1e5 * workers.seconds)
    assert mapped(workers, ["a"], timeout=None)[0] == ["a"] and workers.began["a"] == 1


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(first)
        self.second = lambda: second


def test_an_error_that_cannot_be_sent_is_sent_as_its_text():
    found = sendable(Unpicklable("why", 2))
    assert isinstance(found, HeatproofError) and "Unpicklable: why" in str(found)
    kept = sendable(StoreError("full"))
    assert isinstance(kept, StoreError) and "In a worker" in kept.__notes__[0]


# --- which executor ---


@pytest.mark.parametrize(
    ("asked", "jobs", "kind"),
    [
        (Execution(), 1, Serial),
        (Execution(workers=2), 5, Processes),
        (Execution(workers=2), 1, Serial),
        (Execution(workers=1), 5, Serial),
        (Execution(workers=1, timeout=0), 5, Serial),
        (Execution(workers=1, timeout=3), 5, Processes),  # a process can be ended
        (Execution(workers=1, executor="processes"), 5, Processes),
        (Execution(executor="serial"), 5, Serial),
        (Execution(executor="ray"), 5, Ray),
    ],
)
def test_the_executor_follows_from_what_was_asked(asked, jobs, kind):
    asked.check()
    assert type(asked.chosen(1, "cpu", jobs)) is kind


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (Execution(workers=0), InvalidStudy, "`workers` must be at least 1. Got 0."),
        (Execution(executor="rey"), UnknownName, "Did you mean 'ray'"),
        (Execution(executor="serial", workers=2), InvalidStudy, "one worker. Got 2"),
        (Execution(address="auto"), InvalidStudy, "--executor ray"),
        (Execution(timeout=-1), InvalidStudy, "minutes, or 0"),
        (Execution(timeout=float("nan")), InvalidStudy, "minutes, or 0"),
        (Execution(timeout="soon"), InvalidStudy, "minutes, or 0"),
        (Execution(timeout=5, executor="serial"), InvalidStudy, r"Got 5 min\. Leave --timeout out, or take --executor"),
        (Execution(workers=1.5), InvalidStudy, "whole number. Got 1.5"),
        (Execution(executor=3), InvalidStudy, "one of serial, processes, ray. Got 3"),
    ],
)
def test_what_cannot_be_is_said(asked, error, message):
    with pytest.raises(error, match=message):
        asked.check()


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(execution.torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = Execution().chosen(1, "cuda", 10)
    assert isinstance(found, Processes) and (found.workers, list(found.visible)) == (3, ["0", "1", "2"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a, 5")
    assert list(Execution(workers=4).chosen(1, "cuda", 10).visible) == ["GPU-a", "5"]
    assert Execution(workers=2).chosen(1, "cuda:1", 10).visible == ()
    assert Execution(executor="ray").chosen(2, "cuda", 10).gpus == 1.0


def seen_gpu(_):
    import os

    return lambda job, advance: (os.environ.get("CUDA_VISIBLE_DEVICES"), time.sleep(0.5))[0]


def test_processes_share_the_gpus_evenly():
    with Processes(2, ["3", "GPU-b"]).running(seen_gpu, None) as run:
        assert set(run([1, 2, 3, 4], lambda share: None)) == {"3", "GPU-b"}

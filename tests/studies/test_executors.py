"""Warnings of worker processes: each once, and where a program shows its own."""

import warnings

from heatproof.errors import warn
from heatproof.studies.executors import Processes


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

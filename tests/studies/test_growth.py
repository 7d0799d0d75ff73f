"""The memory of a finished batch is free at once: nothing of it waits for Python's garbage collector."""

import gc

import torch

from heatproof.studies import run
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import Store


def test_a_finished_job_leaves_no_tensors_in_circles(tmp_path, monkeypatch):
    """With the collector off, three further jobs must leave as many tensors as there were after the first."""
    plan = checked_plan(
        {"study": "noise-robustness", "models": "shapes", "datasets": "shapes", "limit": 16, "batch_size": 4,
         "methods": ["gradcam", "layercam"], "perturbations": ["contrast", "fgsm"], "severities": [3],
         "segmenters": ["grid"], "controls": "none"}
    )  # fmt: skip
    write, seen = Store.write_shard, []

    def writes(self, key, table, maps=None):
        write(self, key, table, maps)
        if not seen:
            gc.collect()
            gc.disable()
        seen.append(sum(type(one) is torch.Tensor for one in gc.get_objects()))

    monkeypatch.setattr(Store, "write_shard", writes)
    try:
        run.run(plan, tmp_path / "study", workers=1)
    finally:
        gc.enable()
    assert len(seen) == 4
    assert max(seen) - seen[0] <= 5, f"tensors after each job: {seen}"

"""What a metric sees of a map raised to a power."""

import numpy as np
import pandas as pd
import pytest

from heatproof.statistics.rescaled_maps import base_of, is_rescaled, rescalings


def test_the_base_of_a_rescaled_map():
    assert base_of("gradcam[power=0.5]") == "gradcam"
    assert base_of("refine:gradcam++@layer1[compat=true,power=2]") == "refine:gradcam++@layer1[compat=true]"
    assert base_of("gradcam") == "gradcam"
    assert is_rescaled("gradcam[power=0.5]") and not is_rescaled("integrated-gradients[steps=10]")


def test_a_metric_of_ranks_is_blind_and_one_of_values_is_not():
    plain = np.array([0.2, 0.4, 0.9])
    columns = {"rank": (plain, plain * (1 + 1e-9)), "value": (plain, plain + np.array([0, 0.1, 0.3]))}
    parts = [
        pd.DataFrame({"image": ["a", "b", "c"], "method": name, "metric": metric, "value": values})
        for metric, both in columns.items()
        for name, values in zip(("cam", "cam[power=0.5]"), both, strict=True)
    ]
    alone = pd.DataFrame({"image": ["a"], "method": "other[power=2]", "metric": "rank", "value": 1.0})
    rank, value = rescalings(pd.concat([*parts, alone]))
    assert (rank.metric, rank.method, rank.arm, rank.n) == ("rank", "cam", "cam[power=0.5]", 3)
    assert rank.blind and rank.most == 0
    assert not value.blind and value.same == pytest.approx(1 / 3) and value.most == pytest.approx(0.3, abs=1e-5)
    assert (value.plain, value.rescaled) == (pytest.approx(plain.mean()), pytest.approx(plain.mean() + 0.4 / 3))

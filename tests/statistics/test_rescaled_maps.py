"""What a metric sees of a map raised to a power."""

import numpy as np
import pandas as pd
import pytest

from heatproof.statistics.rescaled_maps import added_arm, base_of, is_rescaled, rescalings


def test_the_base_of_a_rescaled_map():
    assert base_of("gradcam[power=0.5]") == "gradcam"
    assert base_of("refine:gradcam++@layer1[compat=true,power=2]") == "refine:gradcam++@layer1[compat=true]"
    assert base_of("gradcam") == "gradcam"
    assert is_rescaled("gradcam[power=0.5]") and not is_rescaled("integrated-gradients[steps=10]")


def rows(images, **metrics):
    """Rows of a map and of its root: metric → its values of both."""
    return pd.concat(
        pd.DataFrame({"image": images, "method": name, "metric": metric, "value": values})
        for metric, both in metrics.items()
        for name, values in zip(("cam", "cam[power=0.5]"), both, strict=True)
    )


def test_a_metric_of_ranks_is_blind_and_one_of_values_is_not():
    plain = np.linspace(0.2, 0.9, 12)
    tie, jump = np.zeros(12), np.zeros(12)
    tie[0], jump[:2] = 0.02, (0.1, 0.3)
    frame = rows([f"{i}" for i in range(12)], rank=(plain, plain * (1 + 1e-9)), tied=(plain, plain + tie),
                 value=(plain, plain + jump), binary=(np.ones(12), np.ones(12)))  # fmt: skip
    alone = pd.DataFrame({"image": ["a"], "method": "other[power=2]", "metric": "rank", "value": 1.0})
    rank, tied, value, binary = rescalings(pd.concat([frame, alone]))
    assert (rank.metric, rank.method, rank.arm, rank.n) == ("rank", "cam", "cam[power=0.5]", 12)
    assert rank.blind and rank.most == 0
    assert tied.blind and tied.most == pytest.approx(0.02, abs=1e-5) and tied.same == pytest.approx(11 / 12)
    assert not value.blind and value.same == pytest.approx(10 / 12) and value.most == pytest.approx(0.3, abs=1e-5)
    assert value.moved == pytest.approx(0.4 / 12 / 0.7, abs=1e-4)
    assert (value.plain, value.rescaled) == (pytest.approx(plain.mean()), pytest.approx(plain.mean() + 0.4 / 12))
    assert not binary.blind and np.isnan(binary.moved)  # equal by chance, or not: it cannot be told


def test_only_the_arm_that_a_study_adds_is_no_method():
    methods = ["gradcam[steps=3]", "layercam[power=0.5]", "gradcam[power=0.5,steps=3]"]
    assert added_arm({"methods": methods, "power": 0.5}) == "gradcam[power=0.5,steps=3]"
    assert added_arm({"methods": methods}) == added_arm({"methods": methods, "power": 0}) == ""
    assert added_arm({"methods": methods[1:], "power": 0.5}) == added_arm({"methods": methods[:2], "power": 0.5}) == ""

"""Made-up pairs with known behaviour, for the tests of tables and verdicts."""

import numpy as np
import pandas as pd
import pytest


def made(responding, images=60, kinds=2, severities=(1, 2), flip=0.3, seed=0, controls=("half", "random"), base=0.8):
    """Pairs of methods: `responding` maps a name to how far its RBO falls when the prediction changes.

    `base`: the mean RBO while it stays. The control half never moves; random has chance RBO throughout.
    """
    generator = np.random.default_rng(seed)
    names = [f"{i:03d}.jpg" for i in range(images)]
    parts = []
    for kind in range(kinds):
        for severity in severities:
            changed = generator.random(images) < flip
            for method in (*responding, *controls):
                rbo = base - responding.get(method, 0.0) * changed + 0.15 * generator.standard_normal(images)
                rbo = {"half": np.ones(images), "random": 0.1 + 0.05 * generator.random(images)}.get(method, rbo)
                rbo = np.clip(rbo, 0, 1)
                keys = {"model": "net", "dataset": "pets", "layer": "last", "segmenter": "quickshift"}
                keys |= {"method": method, "control": method in controls}
                keys |= {"perturbation": f"kind{kind}", "severity": severity}
                columns = {"image": names, "rbo": rbo, "kappa": (rbo - 0.1) / 0.9, "changed": changed}
                parts.append(pd.DataFrame({**keys, **columns}))
    frame = pd.concat(parts, ignore_index=True)
    return frame.astype({"changed": "boolean", "severity": "int16"})


@pytest.fixture(scope="session", name="made")
def made_fixture():
    """The function `made`."""
    return made

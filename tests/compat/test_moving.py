"""docs/moving.md: the examples run, and the imports of its tables exist."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import heatproof
from heatproof.attributions import ATTRIBUTIONS
from heatproof.compat import pytorch_grad_cam, torchcam  # noqa: F401 - their names are read below
from heatproof.metrics import METRICS
from heatproof.metrics.metric_request import parsed_metric

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "moving.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the examples take for given."""
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "cat.jpg")
    model = heatproof.load_model("shapes")
    x = torch.from_numpy(image.copy()).permute(2, 0, 1).float()[None] / 255
    before, metrics = set(ATTRIBUTIONS), set(METRICS)
    yield {
        "model": model.module.eval(),
        "layer": model.submodule("auto"),
        "inputs": model.normalise(torch.cat([x, x.flip(3)])),
        "labels": np.array([2, 2]),
        "image": image / np.float32(255),
        "maps": np.random.default_rng(1).random((2, 96, 96), np.float32),
    }
    for name in set(ATTRIBUTIONS) - before:
        ATTRIBUTIONS.remove(name)
    for name in set(METRICS) - metrics:
        METRICS.remove(name)


@pytest.mark.parametrize("example", range(len(EXAMPLES)))
def test_the_examples_run(example, names):
    for peer in ("quantus", "torchmetrics"):
        if peer in EXAMPLES[example]:
            pytest.importorskip(peer)
    exec(compile(EXAMPLES[example], "docs/moving.md", "exec"), names)
    if "overlay" in names:
        assert names["overlay"].shape == (96, 96, 3)
    if "scores" in names and "quantus" in names:
        assert np.isfinite(names["scores"]).all()
    if "found" in names:
        assert all(np.isfinite(row.value) and not row.flag for row in names["found"].rows)
    if "validation" in names:
        assert set(names["validation"].compute()) == {"road", "insertion", "deletion"}
        assert all(np.isfinite(float(value)) for value in names["validation"].compute().values())
    if "results" in names:
        assert len(names["values"]) == 2
        assert {len(given) for method in names["results"].values() for given in method.values()} == {2}


def test_the_imports_of_the_tables_exist():
    rows = re.findall(r"^\| `from (\S+) import (\w+)` \| `from (\S+) import (\w+)` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 8
    for theirs, one, ours, other in rows:
        assert one == other
        assert hasattr(importlib.import_module(ours), other)
        if importlib.util.find_spec(theirs.partition(".")[0]):
            assert hasattr(importlib.import_module(theirs), one)


def test_the_metrics_of_the_table_exist_here_and_there():
    """Left what a peer has, right what stands for it; after a colon, what differs."""
    rows = re.findall(
        r"^\| (.+) \| (`[a-z].+) \|$", PAGE[PAGE.index("## Scores") : PAGE.index("### In training")], re.M
    )
    assert len(rows) == 15
    for _, ours in rows:
        for name in re.findall(r"`([a-z][^`]+)`", re.split(r": |, the ", ours)[0]):
            parsed_metric(name)
    homes = {"Quantus": "quantus", "Captum": "captum.metrics", "torchcam": "torchcam.metrics"}
    for theirs, _ in rows:
        home = next((homes[word] for word in homes if theirs.startswith(word)), "")
        for name in re.findall(r"`(\w+)`", theirs) if home and importlib.util.find_spec(home.partition(".")[0]) else ():
            assert hasattr(importlib.import_module(home), name), name


def test_what_is_not_here_is_said():
    captum_names = importlib.import_module("heatproof.compat.captum")
    assert not [name for name in captum_names.attr.__all__ if name[0].isupper() and not _is_named(name)]
    absent = importlib.import_module("heatproof.compat.pytorch_grad_cam").ABSENT
    assert not [name for name in absent if f"`{name}`" not in PAGE]


def _is_named(name: str) -> bool:
    """Whether the page names a class of Captum's; the classes from which others are derived need no mention."""
    return f"`{name}`" in PAGE or name.endswith("Attribution")

"""Scores from shared passes: how many images go through the network, and who shares what."""

import pytest
import torch
from torch import nn

import heatproof
from heatproof import passes
from heatproof.data import load_images
from heatproof.errors import InvalidInput, UnknownName
from heatproof.models import Model, wrap

from . import nets
from .latex_reading import read_table

HEIGHT, WIDTH, COUNT = 28, 20, 2  # 28 steps divide the pixels


class Rows(nn.Module):
    """Counts the images that a network sees."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.rows, self.calls = inner, 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows, self.calls = self.rows + len(x), self.calls + 1
        return self.inner(x)


def counted() -> tuple[Model, Rows]:
    rows = Rows(nets.seeded(nets.Plain))
    return wrap(rows, size=(HEIGHT, WIDTH), layer="inner.two"), rows


METHODS = ["gradcam", "hirescam", "layercam"]
#: Images for each image and method, and for each image whatever the number of methods.
NEEDED = {
    ("average-drop", "average-increase", "average-gain", "local-accuracy", "sufficiency"): (1, 0),
    ("average-drop", "average-drop[fill=mean]"): (2, 0),
    ("deletion",): (27, 1),
    ("deletion", "monotonicity", "monotonicity-strict"): (27, 1),
    ("deletion", "deletion-mean", "insertion"): (3 * 27, 3),
    ("road", "road-morf", "road-lerf"): (8, 0),
    ("coherency", "complexity", "entropy", "sparseness"): (1, 0),
    ("arcc", "adcc"): (1 + 8 + 1, 0),
    ("max-sensitivity", "average-sensitivity"): (10, 0),
    ("faithfulness-correlation[samples=9]",): (0, 9),
    ("infidelity[samples=9]",): (0, 9),
    ("sensitivity-n[samples=3,steps=4]",): (0, 12),
    ("sic", "aic"): (14, 0),
    ("random-logit",): (1, 0),
    ("pointing-game", "energy", "iou"): (0, 0),
}


@pytest.mark.parametrize("metrics", NEEDED)
@pytest.mark.parametrize("methods", [1, 3])
def test_no_image_goes_through_the_network_twice(metrics, methods):
    each, once = NEEDED[metrics]
    model, rows = counted()
    x = nets.images(COUNT, HEIGHT, WIDTH)
    heatproof.explain(model, x, METHODS)  # what a network is asked once and for all
    rows.rows = 0
    heatproof.score(model, x, METHODS[:methods], metrics, masks=torch.ones(COUNT, HEIGHT, WIDTH))
    assert rows.rows == COUNT * (1 + once + methods * each)


def test_steps_of_several_images_share_a_pass(monkeypatch):
    monkeypatch.setattr(passes, "CPU_ROWS", 30)
    model, rows = counted()
    x = nets.images(COUNT, HEIGHT, WIDTH)
    heatproof.explain(model, x, "gradcam")
    rows.calls = 0
    heatproof.score(model, x, "gradcam", "deletion")
    assert rows.calls == 1 + 1 + 2  # clean, black, and 54 masked images in two


def test_inserting_by_the_reversed_map_is_deleting_read_backwards():
    """On the same fill: what comes back first is what goes last."""
    model, _ = counted()
    x, maps = nets.images(COUNT, HEIGHT, WIDTH), torch.rand(COUNT, HEIGHT, WIDTH)
    found = heatproof.score(model, x, {"map": maps, "reversed": 1 - maps}, ["deletion", "insertion[fill=black]"])
    _, gone = found.curves["map", "deletion"]
    _, back = found.curves["reversed", "insertion[fill=black]"]
    torch.testing.assert_close(back, gone.flip(1), rtol=1e-6, atol=1e-8)
    assert gone.std(1).min() > 1e-4, "the curve moves"


def test_scores_as_a_table_of_a_paper():
    images = load_images("shapes", limit=12)
    metrics = ["average-drop", "complexity"]
    found = heatproof.score(heatproof.load_model("shapes"), images, ["gradcam", "hirescam", "eigencam"], metrics,
                            controls=True)  # fmt: skip
    table = read_table(found.to_latex(spread="interval", labels={"gradcam": "Grad_CAM"}, caption="Ours & theirs."))
    assert table.caption.startswith(r"Ours \& theirs. Mean over 12 images, with the 95 \% interval")
    assert [row[0] for row in table.rows[:4]] == ["method", r"Grad\_CAM", "hirescam", "eigencam"]
    means = found.table.set_index(["method", "metric"])["mean"]
    assert all(f"{100 * means[name, 'complexity']:.1f}" in row[2] for name, row in
               zip(["gradcam", "hirescam", "eigencam"], table.rows[1:4], strict=True))  # fmt: skip
    assert r"Grad\_CAM = hirescam: equal maps, one method in the tests." in table.notes
    assert (r"\textbf" in table.rows[1][2]) == (r"\textbf" in table.rows[2][2])
    assert "| Grad\\_CAM |" in found.to_markdown(labels={"gradcam": "Grad_CAM"})
    with pytest.raises(UnknownName, match="Did you mean 'gradcam'"):
        found.to_latex(labels={"gradcan": "x"})
    with pytest.raises(InvalidInput, match="`spread` must be"):
        found.to_latex(spread="sem")

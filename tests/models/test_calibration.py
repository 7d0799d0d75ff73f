"""Mean and deviation at a layer: right, whatever the batches; and a file that knows what it is for."""

import re

import pytest
import torch
from torch import nn

from heatproof.errors import InvalidInput, StoreError
from heatproof.models import wrap
from heatproof.models.moments import Calibration, calibrated, fingerprint

from .. import nets


def model_of(seed: int = 0, **about):
    return wrap(nets.seeded(nets.Signed, seed), size=(16, 12), layer="two", **about)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return nets.images(11, 16, 12)


@pytest.fixture
def made(x) -> Calibration:
    return calibrated(model_of(), "two", [x])


def test_mean_and_deviation_are_those_of_all_images(x, made):
    module = model_of()
    z = module.normalise(x)
    with torch.no_grad():
        maps = module.module.two(module.module.one(z)).double()
    total = sum(maps[i] for i in range(11)) / 11
    squares = sum((maps[i] - total) ** 2 for i in range(11)) / 10
    torch.testing.assert_close(made.mean, total.float(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(made.std, squares.sqrt().float(), rtol=1e-5, atol=1e-7)
    assert made.mean.dtype == torch.float32 and made.mean.shape == (7, 8, 6)
    assert (made.count, made.layer, made.size, made.model) == (11, "two", (16, 12), "Signed")


@pytest.mark.parametrize("batches", [[1] * 11, [4, 7], [10, 1], [1, 5, 5]])
def test_it_depends_neither_on_the_batches_nor_on_the_order(x, made, batches):
    for images in (x, x.flip(0)):
        found = calibrated(model_of(), "two", images.split(batches))
        torch.testing.assert_close(found.mean, made.mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.std, made.std, rtol=1e-5, atol=1e-6)
        assert found.count == 11


class Large(nn.Module):
    """Activations near 1e4 that vary by a thousandth: in float32 a sum of squares would lose all of it."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Conv2d(3, 2, 1), nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.fill_(1), self.layer.bias.fill_(1e4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x).mean((2, 3)))


def test_large_means_do_not_swallow_small_deviations(x):
    model = wrap(Large().eval(), size=(16, 12), layer="layer")
    found = calibrated(model, "layer", x.split(2))
    with torch.no_grad():
        exact = model.module.layer(model.normalise(x)).double().std(0)
    torch.testing.assert_close(found.std.double(), exact, rtol=1e-6, atol=0)


def test_a_neuron_that_never_varies_has_no_deviation():
    model = model_of()
    with torch.no_grad():
        model.module.two[0].weight[3] = 0
    found = calibrated(model, "two", nets.images(9, 16, 12).split(2))
    assert (found.std[3] == 0).all() and (found.std[[0, 1, 2, 4, 5, 6]] > 0).all()


def test_the_network_is_left_as_it_was(x):
    model = model_of()
    model.module.train()
    before = nets.traces(model.module)
    calibrated(model, "two", x.split(4))
    assert nets.traces(model.module) == before
    with torch.inference_mode():
        assert not calibrated(model, "two", [x]).mean.is_inference()


def test_what_is_saved_is_loaded(made, tmp_path):
    path = tmp_path / "deeper" / "here.safetensors"
    made.save(path)
    again = Calibration.load(path)
    assert torch.equal(again.mean, made.mean) and torch.equal(again.std, made.std)
    for name in ("count", "model", "fingerprint", "layer", "size"):
        assert getattr(again, name) == getattr(made, name)
    assert again.check(model_of(), "two") is again
    assert [file.name for file in path.parent.iterdir()] == ["here.safetensors"]


def test_one_for_another_model_or_layer_is_refused_and_named(made):
    others = {"weights": model_of(seed=1), "normalisation": model_of(mean=0.3)}
    for model in others.values():
        assert fingerprint(model) != made.fingerprint
        with pytest.raises(InvalidInput, match=r"Got one for 'Signed', layer 'two', with others. Make a new one"):
            made.check(model, "two")
    with pytest.raises(InvalidInput, match=r"must be for layer 'one'. Got one for layer 'two' of 'Signed'"):
        made.check(model_of(), "one")


@pytest.mark.parametrize("kind", ["missing", "text", "weights", "later", "cut"])
def test_another_file_is_refused(kind, made, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "file.safetensors"
    if kind == "text":
        path.write_text("mean")
    elif kind == "weights":
        save_file({"mean": torch.zeros(3)}, path)
    elif kind == "later":
        save_file({"mean": torch.zeros(3)}, path, {"format": "heatproof calibration 99"})
    elif kind == "cut":
        made.save(path)
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InvalidInput, match=f"Expected a calibration file.*{re.escape(str(path))} cannot be used"):
        Calibration.load(path)


def test_a_folder_that_cannot_be_written_is_said(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot write"):
        made.save(tmp_path / "file" / "here.safetensors")


def test_what_cannot_be(x):
    model = model_of()
    for batches, count in (([], 0), ([x[:1]], 1)):
        with pytest.raises(InvalidInput, match=rf"at least 2 images. Got {count}."):
            calibrated(model, "two", batches)
    with pytest.raises(InvalidInput, match=r"images of one size. Got \(16, 12\) and \(12, 16\)."):
        calibrated(model, "two", [x, x.transpose(2, 3)])
    with pytest.raises(InvalidInput, match="Layer 'two' of 'Signed' gave others"):
        calibrated(model, "two", [x, torch.full_like(x, torch.nan)])

"""Fine-tuning: it learns, it stops, it goes on bit for bit, and it says what is wrong."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import heatproof
from heatproof import cli
from heatproof.data import load_images
from heatproof.errors import HeatproofWarning, InvalidInput, ModelError, UnknownName
from heatproof.models import wrap
from heatproof.training import fine_tuning
from heatproof.training.classifier import with_new_head
from heatproof.training.fine_tuning import fit
from heatproof.training.recipe import Recipe
from heatproof.training.sets import folder_sets, shapes_sets

torchvision = pytest.importorskip("torchvision")
pytestmark = pytest.mark.filterwarnings("ignore:.*has not learnt")

SIDE = 32


class Small(nn.Module):
    """Two convolutions, batch norm, dropout and a linear head: everything that a step may draw or keep."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.ReLU(),
        )
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def model(classes: int = 4):
    torch.manual_seed(0)
    return wrap(Small(classes), mean=0.5, std=0.5, size=SIDE)


class Colours:
    """Images of two classes, red and blue, with noise."""

    class_names = ["red", "blue"]  # noqa: RUF012 - as the protocol has it
    flags: dict = {}  # noqa: RUF012

    def __init__(self, split: str, n: int):
        self.name, self.n = split, n
        self.ids = [f"{split} {i}" for i in range(n)]
        self.labels = [i % 2 for i in range(n)]
        self.fingerprint = f"{split} {n}"

    def open(self, i: int) -> Image.Image:
        pixels = np.random.default_rng(i + 1000 * len(self.name)).integers(0, 120, (SIDE, SIDE, 3), np.uint8)
        pixels[..., 2 * self.labels[i]] += 100
        return Image.fromarray(pixels)

    def mask(self, i: int) -> None:
        return None


def sets(n: int = 24):
    return {kind: Colours(kind, count) for kind, count in (("train", n), ("val", 8), ("test", 10))}


RECIPE = Recipe(epochs=3, batch_size=8, lr=1e-2)


def test_it_learns_and_leaves_what_is_needed(tmp_path):
    found = fit(model(), sets(), tmp_path / "a", Recipe(epochs=12, batch_size=8, lr=1e-2))
    assert found.finished and found.test_accuracy == 1 and found.test_images == 10
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["classes.txt", "fit.json", "model.safetensors"]
    assert (tmp_path / "a" / "classes.txt").read_text() == "red\nblue\n"
    facts = json.loads((tmp_path / "a" / "fit.json").read_text())
    assert facts["head"] == "head" and facts["recipe"]["lr"] == 1e-2 and facts["test_accuracy"] == 1
    assert facts["history"][-1]["val_loss"] < facts["history"][0]["val_loss"]
    assert found.best == min(one["val_loss"] for one in facts["history"])
    again = model()
    with_new_head(again.module, 4, 2)
    again.module.load_state_dict(load_file(tmp_path / "a" / "model.safetensors"))
    x = torch.stack([again.geometry.image(Colours("test", 10).open(i)) for i in range(10)])
    assert (again.module.eval()(again.normalise(x)).argmax(1) == torch.tensor([0, 1] * 5)).all()


@pytest.mark.parametrize("adversarial", ["", "pgd-linf"])
@pytest.mark.parametrize("after", [1, 4])
def test_a_stopped_run_ends_with_the_same_weights(tmp_path, monkeypatch, adversarial, after):
    recipe = Recipe(epochs=3, batch_size=8, lr=1e-2, adversarial=adversarial, steps=2)
    whole = fit(model(), sets(), tmp_path / "whole", recipe)
    monkeypatch.setattr(fine_tuning, "SECONDS", -1)  # after every step
    steps, real = [], fine_tuning._Trainer._step

    def stopping(self, *given):
        if len(steps) == after:
            raise KeyboardInterrupt
        steps.append(1)
        return real(self, *given)

    monkeypatch.setattr(fine_tuning._Trainer, "_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit(model(), sets(), tmp_path / "parts", recipe)
    monkeypatch.setattr(fine_tuning._Trainer, "_step", real)
    found = fit(model(), sets(), tmp_path / "parts", recipe)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()
    for one, other in zip(whole.history, found.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"]) and one["val_loss"] == other["val_loss"]
    assert fit(model(), sets(), tmp_path / "parts", recipe) == found, "what is finished is not done again"


def test_it_stops_when_the_validation_loss_no_longer_falls(tmp_path, monkeypatch):
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.9, 0.1])
    monkeypatch.setattr(fine_tuning._Trainer, "evaluated", lambda *_, **__: (next(losses), 1.0))
    found = fit(model(), sets(8), tmp_path / "a", Recipe(epochs=6, patience=2, batch_size=8))
    assert len(found.history) == 4 and found.best_epoch == 1 and found.best == 0.4


def test_weights_kept_are_those_of_the_best_epoch(tmp_path, monkeypatch):
    weights, losses = [], iter([0.5, 0.3, 0.4, 0.0])

    def evaluated(self, *_, **__):
        weights.append(self.module.head.weight.detach().clone())
        return next(losses), 1.0

    monkeypatch.setattr(fine_tuning._Trainer, "evaluated", evaluated)
    fit(model(), sets(8), tmp_path / "a", Recipe(epochs=3, batch_size=8, lr=1e-2))
    assert torch.equal(load_file(tmp_path / "a" / "model.safetensors")["head.weight"], weights[1])


def test_an_attacked_image_has_a_higher_loss_and_stays_near(tmp_path):
    trained = model()
    fit(trained, sets(), tmp_path / "a", Recipe(epochs=6, batch_size=8, lr=1e-2))
    recipe = Recipe(adversarial="pgd-linf", epsilon=0.1, steps=5)
    trainer = fine_tuning._Trainer(trained, recipe, tmp_path, fine_tuning.Fit(), {}, None)
    trainer.module.eval()
    data = sets()["test"]
    x = torch.stack([trained.geometry.image(data.open(i)) for i in range(10)])
    y = torch.tensor(data.labels)
    moved = trainer._attacked(x, y, "a")
    assert (moved - x).abs().max() <= 0.1 + 1e-6 and moved.min() >= 0 and moved.max() <= 1
    before, after = (nn.functional.cross_entropy(trainer.module(trained.normalise(one)), y) for one in (x, moved))
    assert after > before


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: torchvision.models.resnet18(num_classes=9), "fc"),
        (lambda: torchvision.models.convnext_tiny(num_classes=9), "classifier.2"),
        (lambda: torchvision.models.swin_t(num_classes=9), "head"),
        (lambda: torchvision.models.squeezenet1_1(num_classes=9), "classifier.1"),
        (lambda: nn.Sequential(nn.Conv2d(3, 9, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "0"),
    ],
)
def test_the_last_layer_is_replaced_in_any_architecture(make, layer):
    module = make().eval()
    state = torch.get_rng_state()
    assert with_new_head(module, 9, 6) == layer
    assert torch.equal(torch.get_rng_state(), state)
    assert module(torch.rand(2, 3, 64, 64)).shape == (2, 6)


def test_a_network_without_such_a_layer_says_so():
    with pytest.raises(ModelError, match="last linear layer of 7 outputs in Small, to be replaced by one of 2"):
        with_new_head(Small(4), 7, 2)


def test_another_run_is_refused_by_what_differs(tmp_path):
    fit(model(), sets(8), tmp_path / "a", Recipe(epochs=1))
    with pytest.raises(InvalidInput, match="holds another run: its recipe differ"):
        fit(model(), sets(8), tmp_path / "a", Recipe(epochs=2))
    with pytest.raises(InvalidInput, match="its sets differ"):
        fit(model(), sets(10), tmp_path / "a", Recipe(epochs=1))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").touch()
    with pytest.raises(InvalidInput, match="holds other files"):
        fit(model(), sets(8), tmp_path / "b")


def test_a_loss_that_is_not_finite_is_an_error(tmp_path):
    broken = model(2)
    with torch.no_grad():
        broken.module.head.weight.fill_(torch.nan)
    with pytest.raises(ModelError, match=r"not finite in epoch 1\. Lower lr"):
        fit(broken, sets(8), tmp_path / "a", Recipe(epochs=1))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"epochs": 0}, InvalidInput, "`epochs` must be at least 1. Got 0"),
        ({"batch_size": 2.5}, TypeError, "`batch_size` must be an integer"),
        ({"lr": 0.0}, InvalidInput, "`lr` must be above 0"),
        ({"weight_decay": -1.0}, InvalidInput, "`weight_decay` must be at least 0"),
        ({"adversarial": "pgd"}, UnknownName, "Did you mean 'pgd-linf'"),
    ],
)
def test_recipes_that_cannot_be(options, error, said):
    with pytest.raises(error, match=said):
        Recipe(**options)


def test_sets_of_shapes_and_of_folders(tmp_path):
    found = shapes_sets(12, 64, clutter=("shortcut",))
    assert [found[kind].n for kind in ("train", "val", "test")] == [12, 12, 12]
    assert shapes_sets(None, 64)["train"].n == 4096 and found["val"].clutter == ("shortcut",)
    for kind in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / kind / name).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(tmp_path / kind / name / "1.png")
    with pytest.raises(InvalidInput, match=r"There is no .*test"):
        folder_sets(tmp_path)
    (tmp_path / "test" / "a").mkdir(parents=True)
    (tmp_path / "test" / "c").mkdir()
    for name in ("a", "c"):
        Image.new("RGB", (40, 40)).save(tmp_path / "test" / name / "1.png")
    with pytest.raises(InvalidInput, match="must have the same classes"):
        fit(model(), folder_sets(tmp_path), tmp_path / "out", RECIPE)


def test_the_command_trains_and_its_advice_loads_what_it_trained(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(f"fit shapes --model torchvision:squeezenet1_1 --model-arg pretrained=false --size 48 --image-size 48 "
                 f"--limit 12 --epochs 1 --mean .5 --std .5 --out {tmp_path}/f".split())  # fmt: skip
    assert not ended.value.code
    out = capsys.readouterr().out
    assert "on 12 images, with the weights of epoch 1 of 1" in out
    assert f"--model-arg num_classes=6 --checkpoint {tmp_path}/f/model.safetensors" in out
    assert "and with --" in out and all(f"--{name}" in out for name in ("mean", "std", "size")), out
    loaded = heatproof.load_model("torchvision:squeezenet1_1", tmp_path / "f" / "model.safetensors",
                                  {"num_classes": 6}, 0.5, 0.5, 48, classes=tmp_path / "f" / "classes.txt")  # fmt: skip
    assert loaded.outputs == 6 and loaded.classes is not None and loaded.classes[0] == "circle-filled"
    with pytest.raises(SystemExit) as ended:
        cli.main(f"fit {tmp_path} --model shapes --clutter others --out {tmp_path}/g".split())
    assert ended.value.code == 2 and "are for `shapes`" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main(f"fit {tmp_path} --model shapes --shape-sizes 36-45 --out {tmp_path}/h".split())
    assert ended.value.code == 2 and "--shape-sizes are for `shapes`" in capsys.readouterr().err


def test_a_network_that_has_not_learnt_says_so(tmp_path):
    with pytest.warns(HeatproofWarning, match="has not learnt these images"):
        fit(model(), sets(8), tmp_path / "a", Recipe(epochs=1, lr=1e-9))


def test_labels_are_needed(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "1.png")
    bare = load_images(tmp_path)
    with pytest.raises(InvalidInput, match="must have the same classes"):
        fit(model(), dict.fromkeys(("train", "val", "test"), bare), tmp_path / "out")
    with pytest.raises(InvalidInput, match="Missing: test"):
        fit(model(), {"train": bare, "val": bare}, tmp_path / "out")

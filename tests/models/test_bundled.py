"""The bundled networks: trained on what is drawn today, small, and as good as their cards say."""

import json
from importlib import resources

import pytest
import torch

from heatproof.data.creatures import demo_creatures
from heatproof.data.shapes import demo_shapes
from heatproof.models import load_model
from heatproof.models.model_sources import BUNDLED

IMAGES = {"shapes": demo_shapes, "shapes-vit": demo_shapes, "creatures": demo_creatures}


def card(name):
    return json.loads((resources.files("heatproof.models") / "weights" / f"{BUNDLED[name][0]}.json").read_text())


def accuracy(name, count):
    model, images = load_model(name, device="cpu"), IMAGES[name]("test", count)
    right = 0
    for first in range(0, count, 60):
        rows = range(first, min(first + 60, count))
        x = torch.stack([model.geometry.image(images.open(i)) for i in rows])
        with torch.inference_mode():
            found = model.of_normalised(model.normalise(x)).argmax(1)
        right += int((found == torch.tensor([images.labels[i] for i in rows])).sum())
    return right / count


@pytest.mark.parametrize("name", list(BUNDLED))
def test_it_was_trained_on_this_generator_and_knows_it(name):
    known, images = card(name), IMAGES[name]("test", 12)
    assert known["classes"] == list(images.class_names) and known["test_accuracy"] >= 0.95
    assert known["training"]["generator"] == images.pixel_hash(), f"train it again: {known['training'].get('command')}"
    weights = resources.files("heatproof.models") / "weights" / f"{BUNDLED[name][0]}.safetensors"
    with resources.as_file(weights) as file:
        assert file.stat().st_size <= 1.5e6
    assert accuracy(name, 120) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUNDLED))
def test_the_published_accuracy_is_measured(name):
    count = card(name)["training"]["images"]["test"]
    assert accuracy(name, count) == pytest.approx(card(name)["test_accuracy"], abs=4e-3)

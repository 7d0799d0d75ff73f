"""The widget without a browser: values of its controls change the picture."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from heatproof import plot
from heatproof.errors import MissingExtra

MAPS = {"gradcam": np.linspace(0, 1, 128).reshape(2, 8, 8), "flat": np.zeros((2, 8, 8))}
IMAGES = np.linspace(0, 1, 2 * 24 * 24).reshape(2, 24, 24)


def test_every_control_changes_the_picture():
    pytest.importorskip("ipywidgets")
    box = plot.widget(MAPS, IMAGES, labels={"gradcam": "Mine"})
    picture, note = box.children[-1], box.children[1]
    seen = {picture.value}
    for name, value in (("alpha", 0.9), ("threshold", 0.6), ("image", 1), ("method", "")):
        box.controls[name].value = value
        assert picture.value not in seen, name
        seen.add(picture.value)
    pixels = np.asarray(Image.open(io.BytesIO(picture.value)))
    assert pixels.shape == (224, 224, 3) and (np.ptp(pixels, axis=2) == 0).all()  # the plain grey image
    box.controls["method"].value = "flat"
    assert note.value == "constant"
    assert box.controls["method"].options[0] == ("Mine", "gradcam")


def test_several_classes_are_a_menu():
    pytest.importorskip("ipywidgets")
    box = plot.widget({"gradcam": np.random.default_rng(0).uniform(0, 1, (1, 2, 8, 8))}, IMAGES[:1])
    before = box.children[-1].value
    box.controls["target"].value = 1
    assert box.children[-1].value != before


def test_without_ipywidgets_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingExtra, match=r'pip install "heatproof\[notebook\]"'):
        plot.widget(MAPS, IMAGES)

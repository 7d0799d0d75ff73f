"""`heatproof layers`: every layer that can be named, with its shape, its stage and the default."""

import json

import pytest
import torch

import heatproof
from heatproof import cli
from heatproof.attributions import requested
from heatproof.engine import resolve_layers


def listed(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["layers", *arguments])
    assert not stopped.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("spec", ["shapes", "shapes-vit"])
def test_every_layer_listed_can_be_explained_and_has_its_shape(spec, capsys):
    layers = json.loads(listed(capsys, spec, "--json"))
    model = heatproof.load_model(spec)
    assert [one["name"] for one in layers if one["default"]] == [model.last_layer]
    stages = {one["stage"]: one["name"] for one in layers if one["stage"]}
    assert stages == {f"stage:{number}": name for number, name in enumerate(model.layers.stages, 1)}
    for one in (layers[0], layers[len(layers) // 2], layers[-1]):
        (method,) = resolve_layers(model, requested([f"eigencam@{one['name']}"]), model.last_layer)
        assert method.layers == (one["name"],)
        found = heatproof.explain(model, torch.rand(1, *model.input_shape), methods=[method.key], raw=True)
        assert list(found[method.key].shape) == [1, *one["shape"][1:]]


def test_the_table_marks_the_default_and_says_how_to_name_another(capsys):
    text = listed(capsys, "shapes", "--like", "stage4")
    marked = [line.split() for line in text.splitlines() if line.endswith("default")]
    assert marked == [["stage4", "ResidualBlock", "128", "×", "6", "×", "6", "stage:4", "default"]]
    assert "stage3" not in text and "--layer NAME" in text
    assert "None of 34 layers has 'nothing' in its name." in listed(capsys, "shapes", "--like", "nothing")

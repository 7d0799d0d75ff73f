"""Plug-ins: found by name, registered, exported to a fresh process and imported there."""

import importlib
import subprocess
import sys

import pytest

import heatproof
from heatproof.attributions import ATTRIBUTIONS, requested
from heatproof.attributions.foreign import PLUGIN_METHODS
from heatproof.errors import InvalidInput, ModelError, UnknownName
from heatproof.metrics import METRICS
from heatproof.metrics.foreign import PLUGIN_METRICS
from heatproof.metrics.metric_request import parsed_metric
from heatproof.plugins import declare, named_function, named_object, parameters_of, plain_options, takes
from heatproof.registry import Registry

MODULE = """
from pathlib import Path

def maps(model, inputs, targets, power=1.0):
    return inputs.detach().abs().sum(1) ** power

def MAPS(model, inputs, targets):
    return -inputs.detach().sum(1)

def area(maps, *, above: float = 0.5):
    "Share of a map above a value."
    return (maps > above).double().flatten(1).mean(1)

area.better = "low"

def AREA(maps):
    return (maps > .9).double().flatten(1).mean(1)

AREA.better = "high"
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "toy_plugins.py").write_text(MODULE, "utf-8")
    (tmp_path / "toy_broken_plugins.py").write_text("1 / 0\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    before = [(plugins, set(plugins.registry)) for plugins in (PLUGIN_METHODS, PLUGIN_METRICS)]
    yield "toy_plugins"
    sys.modules.pop("toy_plugins", None)
    for plugins, names in before:
        for name in set(plugins.registry) - names:
            plugins.unregister(name)


#: What a worker process does: it has imported nothing of heatproof but the module that receives.
WORKER = """
import sys
from heatproof.plugins import imported
exports = [bytes.fromhex(text) for text in sys.argv[1:]]
imported(exports)
imported(exports)
from heatproof.attributions import ATTRIBUTIONS
from heatproof.metrics import METRICS
method, metric = ATTRIBUTIONS["Mine"], METRICS["spread"]
print(method.name, dict(method.options), method.traits["form"], metric.name, metric.summary, metric.traits["range"])
"""


def test_a_fresh_process_knows_what_was_exported(module):
    heatproof.register("mine", f"python:{module}:maps", form="signed", aliases="Mine")
    heatproof.register_metric("extent", f"python:{module}:area", better="low", range=(0, 1), aliases=["spread"])
    methods = PLUGIN_METHODS.exported([ATTRIBUTIONS["mine"], ATTRIBUTIONS["gradcam"]])
    metrics = PLUGIN_METRICS.exported([METRICS["complexity"], METRICS["extent"]])
    assert len(methods) == len(metrics) == 1, "what comes with heatproof is there already"
    sent = [export.hex() for export in (*methods, *metrics)]
    done = subprocess.run([sys.executable, "-c", WORKER, *sent], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "mine {'power': 1.0} signed extent Share of a map above a value. (0, 1)"


def test_names_that_differ_in_case_alone_are_told_apart(module):
    """A registry folds case. The second of two functions must not get what the first computes."""
    requested([f"python:{module}:maps"])
    parsed_metric(f"python:{module}:area")
    for spell, name in ((lambda s: requested([s]), "MAPS"), (parsed_metric, "AREA")):
        with pytest.raises(InvalidInput, match="is taken by"):
            spell(f"python:{module}:{name}")


def test_by_name_again_is_free_and_not_exported(module):
    spec = f"python:{module}:maps"
    assert PLUGIN_METHODS.register_from(spec) == PLUGIN_METHODS.register_from(spec) == spec
    assert PLUGIN_METHODS.by_name(spec) and not PLUGIN_METHODS.by_name("gradcam")
    assert PLUGIN_METHODS.exported([ATTRIBUTIONS[spec]]) == () and spec not in PLUGIN_METHODS.recipes


def test_what_is_unregistered_is_free_and_exported_no_more(module):
    heatproof.register("mine", f"python:{module}:maps")
    PLUGIN_METHODS.unregister("mine")
    assert "mine" not in ATTRIBUTIONS and "mine" not in PLUGIN_METHODS.recipes
    heatproof.register("mine", f"python:{module}:MAPS")
    assert PLUGIN_METHODS.recipes["mine"].method.__name__ == "MAPS"


def test_forms_are_said_where_none_fits():
    with pytest.raises(InvalidInput, match=r"python:package.module:function, or maps:FOLDER_OR_NPZ. Got 'gradcam2'"):
        PLUGIN_METHODS.register_from("gradcam2")
    with pytest.raises(InvalidInput, match=r"python:package.module:function, or quantus:Metric. Got 'roadd'"):
        PLUGIN_METRICS.register_from("roadd")


@pytest.mark.parametrize(
    ("plugins", "name", "said"),
    [
        (PLUGIN_METHODS, "a[b]", "A method's name must be text"),
        (PLUGIN_METHODS, "python:a", "A method's name must be text"),
        (PLUGIN_METRICS, 3, "A metric's name must be text"),
        (PLUGIN_METHODS, "Cams", "names a family of methods"),
        (PLUGIN_METRICS, " fidelity", "names a family of metrics"),
    ],
)
def test_names_that_a_spelling_cannot_carry(plugins, name, said):
    with pytest.raises(InvalidInput, match=said):
        plugins.check_name(name)


def test_objects_by_name(module):
    assert named_object("python:os.path:join").__name__ == "join"
    assert named_object("python:pathlib:Path.cwd")() == named_object("pathlib:Path").cwd()
    with pytest.raises(ModelError, match=r"python:package.module:factory. Got 'python:os'"):
        named_object("python:os", ModelError, "factory")
    with pytest.raises(ModelError, match="There is no 'toy_nowhere'"):
        named_object("python:toy_nowhere:f", ModelError)
    with pytest.raises(UnknownName, match="Did you mean 'maps'"):
        named_object(f"python:{module}:map")
    with pytest.raises(ZeroDivisionError):
        named_object("python:toy_broken_plugins:f")
    with pytest.raises(InvalidInput, match=r"cannot be imported. It raised ZeroDivisionError"):
        named_function("python:toy_broken_plugins:f")


@pytest.mark.parametrize(
    ("function", "fits"),
    [
        (lambda a, b, c: 0, True),
        (lambda a, b, c, d=1: 0, True),
        (lambda a, *rest: 0, True),
        (lambda *rest: 0, True),
        (lambda a, b, c, extra: 0, True),  # `extra` comes by its name
        (lambda a, b: 0, False),
        (lambda a, b, c, d: 0, False),
        (lambda a, b, c, d, *rest: 0, False),
        (max, True),  # no signature to read
    ],
)
def test_how_many_arguments_a_function_takes(function, fits):
    assert takes(function, 3, besides=("extra",)) == fits


def test_options_are_what_a_spelling_can_carry():
    def function(a, b=2, c="text", d=None, e=(1, 2)):
        """Said."""

    options = plain_options(parameters_of(function)[1:])
    assert [(p.name, p.default, p.kind) for p in options] == [("b", 2, 3), ("c", "text", 3)]
    registry = Registry("method")
    registry.register("mine")(declare(lambda **given: given, ["x"], options, "Said."))
    assert registry["mine"].needs == ("x",) and dict(registry["mine"].options) == {"b": 2, "c": "text"}
    assert registry["mine"].summary == "Said."

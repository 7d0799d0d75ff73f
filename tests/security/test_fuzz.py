"""A thousand damaged inputs for each reader (`scripts/fuzz.py` runs a million), and what a fault is."""

import importlib
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SCRIPTS = str(Path(__file__).resolve().parents[2] / "scripts")

#: Those that open files of many formats, or networks, take longer than the others.
CASES = {"images": 200, "maps": 300, "checkpoints": 300}


@pytest.fixture(scope="module")
def fuzz():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("fuzz")
        for name in ("fuzz", "fuzzed_inputs", "fuzzed_words"):
            sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.CRITICAL)  # tifffile logs what it finds
    yield
    logging.disable(logging.NOTSET)


NAMES = ("spellings", "studies", "labels", "boxes", "classes", "images", "masks", "maps", "checkpoints")


def test_every_reader_is_fuzzed(fuzz):
    assert tuple(fuzz.READERS) == NAMES and set(fuzz.SHARES) == set(NAMES) and sum(fuzz.SHARES.values()) == 100


@pytest.mark.parametrize("name", NAMES)
def test_damaged_inputs_give_a_value_or_a_heatproof_error(fuzz, tmp_path, name):
    reader = fuzz.READERS[name]
    ran, found, first = fuzz.run(reader, CASES.get(name, 1000), 0, tmp_path, float("inf"))
    assert ran == CASES.get(name, 1000) and not found, {fault: (times, first[fault]) for fault, times in found.items()}


@pytest.mark.filterwarnings("ignore::heatproof.errors.HeatproofWarning")
@pytest.mark.parametrize("name", NAMES)
def test_sound_inputs_are_read(fuzz, tmp_path, name):
    """So that the damage is what is met, and not a mistake of the fuzzer's."""
    reader = fuzz.READERS[name]
    readable = 0
    for content in reader.inputs():
        assert fuzz.fault_of(reader, content, tmp_path) is None
        try:
            reader.read(content, tmp_path)
            readable += 1
        except fuzz.HeatproofError:
            pass
    assert readable >= 0.5 * len(reader.inputs())


@seed(0)
@settings(max_examples=200, database=None, deadline=None, phases=[Phase.generate],
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(text=st.one_of(st.text(max_size=60), st.text('a=@+[]{},:"\\ .0e-~', max_size=60)))
def test_any_text_is_a_spelling_or_refused(fuzz, tmp_path, text):
    assert fuzz.fault_of(fuzz.READERS["spellings"], text.encode("utf-8", "surrogatepass"), tmp_path) is None


_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates()),
    lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(st.text(max_size=6), inside, max_size=3)),
    max_leaves=6,
)
_FIELDS = st.sampled_from(
    [
        "study",
        "models",
        "datasets",
        "methods",
        "metrics",
        "perturbations",
        "segmenters",
        "labels",
        "maps",
        "target",
        "seed",
    ]
)


@seed(0)
@settings(max_examples=200, database=None, deadline=None, phases=[Phase.generate],
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(changed=st.dictionaries(_FIELDS, _VALUES, min_size=1, max_size=3))
def test_any_values_are_a_study_or_refused(fuzz, tmp_path, changed):
    import yaml

    plan = {"study": "score", "models": "shapes", "datasets": "shapes", "methods": ["gradcam"], **changed}
    text = yaml.safe_dump(plan, allow_unicode=True).encode("utf-8", "surrogatepass")
    assert fuzz.fault_of(fuzz.READERS["studies"], text, tmp_path) is None


def test_what_a_fault_is(fuzz, tmp_path):
    def told(read):
        return fuzz.fault_of(fuzz.Reader("a", list, (), read), b"", tmp_path)

    def fails(error):
        def read(content, folder):
            raise error

        return read

    assert told(lambda content, folder: 1) is None
    assert told(fails(fuzz.HeatproofError("a sentence"))) is None
    assert told(fails(fuzz.HeatproofError("")))[0] == "no message"
    assert told(fails(KeyError("x")))[0] == "KeyError" and "read" in told(fails(KeyError("x")))[1]
    assert told(fails(fuzz.Slow()))[0] == "hang"


def test_a_case_is_decided_by_its_number(fuzz):
    import fuzzed_inputs

    reader = fuzz.READERS["labels"]
    assert [fuzzed_inputs.case_of(reader, n) for n in range(20)] == [
        fuzzed_inputs.case_of(reader, n) for n in range(20)
    ]
    assert len({fuzzed_inputs.case_of(reader, n) for n in range(20)}) > 15

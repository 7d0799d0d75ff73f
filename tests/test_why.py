"""`heatproof why`: what a thing does and what misleads in it; every number in a trap is one of the published runs."""

import re
from pathlib import Path

import pytest

from heatproof import cli
from heatproof.attributions import ATTRIBUTIONS
from heatproof.metrics import METRICS
from heatproof.metrics.composites import PAIR_COMPOSITES
from heatproof.perturbations import PERTURBATIONS
from heatproof.segments import SEGMENTERS
from heatproof.traps import METHOD_TRAPS, METRIC_TRAPS

DOCS = Path(__file__).resolve().parent.parent / "docs"


def told(capsys, name: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["why", name])
    assert not stopped.value.code
    return " ".join(capsys.readouterr().out.split())


def test_a_metric_says_its_direction_its_formula_and_its_traps(capsys):
    text = told(capsys, "ADCC")
    assert text.startswith("adcc: metric (composite), in [0, 1], higher is better Harmonic mean of coherency")
    assert "Source: Poppi et al. 2021." in text and "−.46 on planted shortcuts" in text and "docs/claims.md" in text
    assert "lower is better" in told(capsys, "average-drop")


def test_options_are_listed_with_their_defaults(capsys):
    text = told(capsys, "road")
    assert "Options: kept: percentages of pixels that stay. ties: jitter removes" in text
    assert "Defaults: kept=20 40 60 80, ties=jitter, noise=0.01, draws=1." in text


def test_a_thing_without_known_traps_claims_none(capsys):
    text = told(capsys, "iou")
    assert "mislead" not in text and text.startswith("iou: metric (localisation)")


def test_composites_of_pairs_and_controls_are_explained_too(capsys):
    assert "RM of .5, by construction" in told(capsys, "rm")
    assert told(capsys, "half").startswith("half: control, a map that is uninformed on purpose")
    assert told(capsys, "jpeg").startswith("jpeg: perturbation")


@pytest.mark.parametrize("name", [*ATTRIBUTIONS, *METRICS, *PERTURBATIONS, *SEGMENTERS, *PAIR_COMPOSITES])
def test_everything_registered_can_be_explained(name):
    from heatproof.cli.why import explained

    for one in explained(name):
        assert one.paragraphs and one.paragraphs[0] and "`" not in "".join(one.paragraphs)


def test_an_unknown_name_has_near_misses_among_all_kinds(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["why", "gausian-noise"])
    assert stopped.value.code == 2 and "'gaussian-noise'" in capsys.readouterr().err


def test_traps_belong_to_what_is_registered():
    assert not set(METHOD_TRAPS) - set(ATTRIBUTIONS)
    assert not set(METRIC_TRAPS) - {*METRICS, *PAIR_COMPOSITES}
    assert {"adcc", "average-drop", "road", "rm"} <= set(METRIC_TRAPS), "the metrics that were found to mislead"


@pytest.mark.parametrize("name, traps", [*METHOD_TRAPS.items(), *METRIC_TRAPS.items()])
def test_every_number_of_a_trap_is_in_the_published_runs(name, traps):
    published = "".join((DOCS / page).read_text("utf-8") for page in ("claims.md", "defects.md", "statistics.md"))
    numbers = {number.lstrip("−-").lstrip("0") for number in re.findall(r"[−-]?\d*\.\d+", published)}
    for number in re.findall(r"\d*\.\d+", " ".join(traps)):
        digits = len(number.partition(".")[2])
        rounded = {f"{round(float(one), digits):.{digits}f}".lstrip("0") for one in numbers}
        assert number.lstrip("0") in rounded, f"{name}: {number} is in no published run"
    for count in re.findall(r"(\d+ of \d+)", " ".join(traps)):
        assert count in " ".join(published.split()), f"{name}: {count} is in no published run"

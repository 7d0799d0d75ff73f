"""`heatproof list metrics`: by family with arrows for people, whole for programs."""

import json
import math

import pytest

from heatproof import cli
from heatproof.metrics import FAMILIES, METRICS
from heatproof.metrics.composites import PAIR_COMPOSITES


def listed(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["list", "metrics", *arguments])
    assert not stopped.value.code
    return capsys.readouterr().out


def rows_of(text: str) -> dict[str, str]:
    """Metric → its line."""
    lines = [line for line in text.splitlines() if line.startswith(("↑ ", "↓ ")) and "higher is better" not in line]
    return {line.split()[1]: line for line in lines}


def test_metrics_as_json(capsys):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    entries = json.loads(listed(capsys, "--json"), parse_constant=refuse)
    assert {entry["name"] for entry in entries} == set(METRICS)
    for entry in entries:
        assert {"name", "better", "range", "passes", "source", "family", "options", "aliases", "summary"} <= set(entry)
        known = METRICS[entry["name"]]
        assert entry["range"] == list(known.traits["range"])
        assert entry["better"] == known.traits["better"] and entry["family"] == known.traits["family"]
        assert entry["options"] == dict(known.options)
        stated = known.traits["degenerate"]
        assert entry["degenerate"] == ("NaN" if stated is not None and math.isnan(stated) else stated)
    parts = {entry["name"]: entry["parts"] for entry in entries}
    assert parts["arcc"] == {"coherency": "coherency", "complexity": "complexity", "road": "road"}
    assert not parts["road"]


def test_metrics_for_people_are_grouped_and_have_arrows(capsys):
    text = listed(capsys)
    headings = [line.partition(":")[0] for line in text.splitlines() if line.partition(":")[0] in FAMILIES]
    used = {entry.traits["family"] for entry in METRICS.values()}
    assert headings == [family for family in FAMILIES if family in used]
    rows = rows_of(text)
    assert set(rows) == {*METRICS, *PAIR_COMPOSITES}
    assert rows["deletion"].startswith("↓") and rows["insertion"].startswith("↑")
    assert "[0, 1]" in rows["deletion"] and "steps forwards" in rows["deletion"] and "fill=black" in rows["deletion"]
    assert rows["entropy"].split()[2:4] == ["[0,", "∞)"]
    assert "↑ higher is better, ↓ lower is better" in text


def test_only_names_that_contain_something(capsys):
    text = listed(capsys, "--like", "complex")
    assert set(rows_of(text)) == {name for name in METRICS if "complex" in name}
    assert "fidelity:" not in text

"""When `scripts/soak.py` says that something grows; the half hour itself is not run here."""

import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("soak", Path(__file__).resolve().parents[1] / "scripts" / "soak.py")
assert spec and spec.loader
soak = importlib.util.module_from_spec(spec)
sys.modules["soak"] = soak
spec.loader.exec_module(soak)


def rounds(memory, handles=lambda n: 10, threads=lambda n: 2, count=90):
    return [soak.Measured(n / 3, memory(n), handles(n), threads(n)) for n in range(count)]


def test_what_is_flat_and_what_grows():
    noisy = lambda n: 900 + 8 * (n % 5)  # noqa: E731
    assert not soak.faults(rounds(lambda n: 500 + 400 * min(1, n / 20)))  # what is loaded at the first use
    assert not soak.faults(rounds(noisy, lambda n: 10 + n % 2))
    assert soak.faults(rounds(lambda n: noisy(n) + 2 * n)) == ["Memory grew from 960 to 1020 MiB."]
    assert soak.faults(rounds(noisy, lambda n: 10 + n // 25)) == ["The handles grew from 11 to 12.5."]
    assert soak.faults(rounds(noisy, threads=lambda n: 2 + (n > 70))) == ["The threads grew from 2 to 3."]


def test_a_round_is_measured_in_numbers_that_the_system_knows():
    with Path(__file__).open() as other:
        found = soak.measured(0.0)
        assert found.memory > 50 and found.threads >= 1 and not other.closed
    assert soak.measured(0.0).handles == found.handles - 1


def test_a_slow_method_exists():
    from heatproof.attributions import ATTRIBUTIONS

    assert all(name in ATTRIBUTIONS for name in soak.SLOW)


@pytest.mark.slow
def test_nothing_grows_in_ten_minutes(capsys):
    assert soak.main(["--minutes", "10"]) == 0, capsys.readouterr().out

"""`heatproof demo`: both parts and the page that leads to them, with and without the network of photographs."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from filelock import FileLock

from heatproof import cli
from heatproof.cli import study_commands
from heatproof.demo import photographs, results
from heatproof.models import packaged

from .models.randomise import randomised

NETWORK = packaged.PACKAGED[photographs.NETWORK]


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture
def studied(monkeypatch: pytest.MonkeyPatch) -> list:
    """The plans of the studies that were started, in place of the studies."""
    started: list = []

    def start(plan, folder, running):
        started.append((plan, folder, running.workers))
        return SimpleNamespace(answers=[SimpleNamespace(sentence="Show <none>.", details=("Only 24 images.",))])

    monkeypatch.setattr(study_commands, "start", start)
    return started


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with random weights, under other names."""
    folder = tmp_path / "site" / NETWORK.module / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    weights = randomised(timm.create_model(NETWORK.architecture), (64, 64)).state_dict()
    torch.save({f"x{i}.{key.rpartition('.')[2]}": value for i, (key, value) in enumerate(weights.items())},
               folder / "efficientnet-lite0-1.pth")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path / "site")


def test_help_has_an_example_and_says_what_is_downloaded(capsys):
    code, out, _ = called(capsys, "demo", "--help")
    assert code == 0 and "Example: heatproof demo --out out/demo" in out.replace("`", "")
    assert "nothing is downloaded" in out.lower()


def test_both_parts_and_one_page(capsys, tmp_path, installed, studied):
    out = tmp_path / "demo"
    code, said, _ = called(capsys, "demo", "--out", str(out), "--workers", "1")
    assert code == 0 and said.rstrip().endswith(f"Start here: {out / 'index.html'}")
    page = (out / "index.html").read_text("utf-8")
    assert set(re.findall(r'<a href="([^#"]+)"', page)) == {"photographs/index.html", "shapes/report.html"}
    assert "Show &lt;none&gt;." in page and "Only 24 images." in page and "refine:layercam" in page
    shown = (out / "photographs" / "index.html").read_text("utf-8")
    for photograph in photographs.PHOTOGRAPHS:
        assert all(photograph.credit in text and photograph.licence in text for text in (page, shown))
        assert (out / "photographs" / "panels" / f"{photograph.name}.png").is_file()
        assert re.search(rf"^{photograph.name} +\S.*\(\d+\), \d", said, re.MULTILINE)  # a class in words
    (plan, folder, workers) = studied[0]
    assert (plan.study, plan.limit, folder, workers) == ("audit", 24, out / "shapes", 1)
    assert plan.models[0].spec == "shapes" and tuple(plan.methods) == photographs.METHODS
    assert max(map(len, said.replace(str(tmp_path), "").splitlines())) <= 100


def test_without_the_network_it_says_how_to_get_it(capsys, tmp_path, absent, studied):
    code, said, _ = called(capsys, "demo", "--out", str(tmp_path / "demo"), "--limit", "12")
    assert code == 0 and "pip install 'heatproof[demo]'" in said and studied[0][0].limit == 12
    assert max(map(len, said.replace(str(tmp_path), "").splitlines())) <= 100
    page = (tmp_path / "demo" / "index.html").read_text("utf-8")
    assert "pip install &#39;heatproof[demo]&#39;" in page and 'href="photographs/' not in page


def test_without_the_photographs_it_says_so(monkeypatch, installed):
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    assert "scikit-image comes without its photographs" in photographs.missing()


def test_the_photographs_come_with_scikit_image():
    assert [photograph for photograph, _ in photographs.shipped()] == list(photographs.PHOTOGRAPHS)


def test_the_same_command_again_goes_on(capsys, tmp_path, absent, studied):
    for _ in range(2):
        assert called(capsys, "demo", "--out", str(tmp_path / "demo"))[0] == 0


@pytest.mark.parametrize("there", ["a file", "other files", "a page", "in use"])
def test_a_folder_that_cannot_be_used(capsys, tmp_path, absent, studied, there):
    out = tmp_path / "demo"
    reasons = {"a file": "is a file", "other files": "(study.json)", "a page": "(index.html)", "in use": "in use by"}
    if there == "a file":
        out.touch()
    else:
        out.mkdir()
        {"other files": out / "study.json", "a page": out / "index.html"}.get(there, out / results.LOCK).touch()
    lock = FileLock(out / results.LOCK) if there == "in use" else None
    if lock:
        lock.acquire()
    code, _, err = called(capsys, "demo", "--out", str(out))
    if lock:
        lock.release()
    assert code == 1 and reasons[there] in err and "--out" in err and not studied


def test_a_wrong_limit_is_said_before_anything_is_computed(capsys, tmp_path, installed, studied):
    code, _, err = called(capsys, "demo", "--out", str(tmp_path / "demo"), "--limit", "0")
    assert code == 2 and "limit" in err and "Got 0" in err and not (tmp_path / "demo").exists()

"""The project's own files: the lock without addresses, one version, nothing of the machine it was made on."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import heatproof

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCK = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
NAME = r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?"


def normal(requirement: str) -> str:
    """The name of a requirement as the lock spells it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()  # type: ignore[index]


def tracked() -> dict[str, str]:
    """Path → text of what is committed or about to be; other than text is left out."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    texts = {}
    for name in filter(None, names):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if content and b"\0" not in content[:8192]:
            texts[name] = content.decode("utf-8", "replace")
    return texts


def test_the_lock_holds_names_exact_versions_and_markers_only():
    line = re.compile(rf"{NAME}==[0-9][\w.+!-]*( ; [\w '\"<>=!.()]+)?")
    assert len(LOCK) > 50
    assert [text for text in LOCK if not line.fullmatch(text)] == []
    assert not line.fullmatch("torch==2.15.0 --hash=sha256:00")
    assert not line.fullmatch("torch @ file:///wheels/torch.whl")
    assert not line.fullmatch("torch>=2")


def test_the_lock_has_everything_the_project_asks_for():
    locked = {normal(text) for text in LOCK}
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [*PROJECT["project"]["dependencies"], *(item for items in extras.values() for item in items)]
    assert {normal(text) for text in asked} <= locked
    pinned = dict(re.match(rf"({NAME})==([^ ]+)", text).groups() for text in LOCK)  # type: ignore[union-attr]
    exact = dict(item.split("==") for item in asked if "==" in item)
    assert exact, "the peers are pinned"
    assert {normal(name): pinned[normal(name)] for name in exact} == {normal(n): v for n, v in exact.items()}


def test_nothing_that_asks_for_opencv_with_a_display_is_installed():
    (line,) = [text for text in LOCK if text.startswith("opencv-python==")]
    assert line.endswith("; sys_platform == 'never'")


def test_uv_lock_is_ignored():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    ignored = ["uv.lock", ".venv/bin/python", "out/demo/report.html"]
    done = subprocess.run(["git", "check-ignore", *ignored], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ignored


#: Written in pieces, so that this file does not hold what it looks for.
HOSTS = "|".join(
    ("py" + r"pi\.org", "python" + r"hosted\.org", r"download\." + r"py" + r"torch\.org", "index" + "-url=")
)
FOLDERS = "|".join(("wo" + "rk", "ho" + "me", "ro" + "ot", "Us" + "ers", "o" + "pt", "m" + "nt"))
MACHINE = re.compile(rf"(?<![\w.:/~\)\]}}]){'/'}(?:{FOLDERS})/\w")


def test_no_registry_and_no_path_of_a_machine():
    found = []
    for name, text in tracked().items():
        for number, line in enumerate(text.splitlines(), start=1):
            if re.search(HOSTS, line) or MACHINE.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


def test_the_search_finds_what_it_looks_for():
    assert re.search(HOSTS, "https://" + "py" + "pi.org/simple")
    assert MACHINE.search("see " + "/ho" + "me/me/photos")
    assert MACHINE.search('"' + "/wo" + 'rk/main"')
    assert not MACHINE.search("a" + "/wo" + "rk/b, x = photos/home/y")


def test_one_version():
    assert PROJECT["project"]["version"] == heatproof.__version__
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## [{heatproof.__version__}]" in changes
    assert "## [Unreleased]" in changes


def test_the_licence_is_what_the_project_says():
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_make_target_is_explained_and_python_versions_agree():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()  # type: ignore[index]
    explained = re.findall(r"^([a-z-]+):.*## .+$", makefile, re.MULTILINE)
    assert sorted(phony) == sorted(explained)
    assert {"demo", "test", "test-portable", "bench", "lint", "lock", "clean", "help"} <= set(phony)
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert f"Python {oldest} or newer" in makefile
    assert f"< ({oldest.replace('.', ', ')})" in makefile
    assert f"--python-version {oldest}" in makefile


def test_ci_is_executable():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert (ROOT / ".ci" / "run").read_text("utf-8").startswith("#!/usr/bin/env bash\n")

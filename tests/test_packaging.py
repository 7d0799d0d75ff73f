"""What `pip install heatproof` would install: contents, size, metadata and types of the wheel; and CITATION.cff."""

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import heatproof

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
SOURCE = ROOT / "src" / "heatproof"
#: The most that a wheel and a source archive may weigh, in bytes; the weights of the bundled networks are 3.4 MB.
LARGEST = 6_000_000


@pytest.fixture(scope="module")
def built(shared_folder) -> Path:
    """A folder with the wheel and the source archive, built without network."""
    for name in ("hatchling", "build", "twine"):
        pytest.importorskip(name, reason=f"{name} is not installed (extra dev)")

    def fill(folder: Path) -> None:
        for command in (["build", "--no-isolation", "--outdir", str(folder)], ["twine", "check", "--strict"]):
            files = [] if command[0] == "build" else map(str, folder.glob("heatproof-*"))
            done = subprocess.run(
                [sys.executable, "-m", *command, *files], cwd=ROOT, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder / "site")

    return shared_folder("built", fill)


@pytest.fixture(scope="module")
def names(built: Path) -> set[str]:
    """The files of the wheel."""
    return set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())


def files_of_the_package() -> set[str]:
    """The files of src/heatproof that belong to the package."""
    paths = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"heatproof/{path.relative_to(SOURCE).as_posix()}" for path in paths}


def test_the_wheel_holds_the_package_and_nothing_else(names):
    assert {name for name in names if ".dist-info/" not in name} == files_of_the_package()
    weights = {f"heatproof/models/weights/{name}.safetensors" for name in ("shapesnet", "shapes_vit", "creatures")}
    pages = {"heatproof/report/templates/page.html", "heatproof/panels/templates/index.html",
             "heatproof/demo/templates/demo.html"}  # fmt: skip
    assert {"heatproof/py.typed", *weights, *pages} <= names
    info = f"heatproof-{heatproof.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"heatproof", info}
    assert f"{info}/licenses/LICENSE" in names


def test_the_source_archive_builds_the_same_and_holds_the_tests(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in files_of_the_package()} <= inside
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "tests/test_packaging.py"} <= inside
    assert not any(name.startswith((".venv", "out/", "dist/", "uv.lock")) for name in inside)


def test_neither_is_large(built):
    sizes = {path.name: path.stat().st_size for path in built.glob("heatproof-*")}
    assert len(sizes) == 2 and max(sizes.values()) <= LARGEST, sizes


def test_the_metadata_is_what_an_index_accepts(built, names):
    metadata = pytest.importorskip("packaging.metadata")
    classifiers = pytest.importorskip("trove_classifiers").classifiers
    (file,) = [name for name in names if name.endswith(".dist-info/METADATA")]
    found = metadata.Metadata.from_email((built / "site" / file).read_bytes(), validate=True)
    assert (found.name, str(found.version), found.license_expression) == (
        "heatproof",
        heatproof.__version__,
        "Apache-2.0",
    )
    assert found.description_content_type == "text/markdown" and "# heatproof" in found.description
    assert set(found.classifiers) <= classifiers and "Typing :: Typed" in found.classifiers
    assert {"hf", "dicom", "demo"} <= set(found.provides_extra) and "grad-cam" in found.keywords
    assert str(found.requires_python) == PROJECT["requires-python"]


def test_the_installed_files_are_enough_for_a_model_and_the_pages(built):
    code = (
        "import heatproof; from heatproof.demo import results; from heatproof.report.templating import environment; "
        "print(heatproof.__file__, heatproof.load_model('shapes', device='cpu').classes[0]); "
        "environment(results.TEMPLATES).get_template('demo.html')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=built, env=_path(built), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(built / "site" / "heatproof" / "__init__.py"), "circle-filled"]


#: What a user writes → the types that a checker must find there.
USER = """\
import heatproof

model = heatproof.load_model("shapes")
maps = heatproof.explain(model, ["a.png"], methods=["gradcam"])
reveal_type(model)
reveal_type(maps)
reveal_type(maps["gradcam"])
reveal_type(heatproof.score(model, ["a.png"], ["gradcam"], metrics=["deletion"]))
reveal_type(heatproof.show(model, ["a.png"]))
reveal_type(heatproof.audit(model, "photos/").recommended)
reveal_type(heatproof.run("score", model, "photos/").folder)
reveal_type(heatproof.wrap)
reveal_type(heatproof.zero_shot)
reveal_type(heatproof.check)
reveal_type(heatproof.calibrate)
heatproof.load_model(5)
"""
TYPES = ("Model", "Maps", "Tensor", "Scores", "Gallery", "str | None", "Path")


def test_a_strict_type_checker_finds_types_in_a_users_code(built, tmp_path):
    """Pyright, strict, on the files of the wheel: every public name is known, and a wrong argument is found."""
    command = Path(sys.executable).with_name("pyright")
    if not command.is_file():
        pytest.skip("pyright is not installed (extra dev)")
    (tmp_path / "user.py").write_text(USER)
    settings = {"extraPaths": [str(built / "site")], "typeCheckingMode": "strict", "include": ["user.py"]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [command, "--outputjson", "-p", str(tmp_path), "--pythonpath", sys.executable],
        cwd=tmp_path, env=_path(built), capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = json.loads(done.stdout)["generalDiagnostics"]
    errors = [(item["range"]["start"]["line"], item["rule"]) for item in said if item["severity"] == "error"]
    assert errors == [(USER.splitlines().index("heatproof.load_model(5)"), "reportArgumentType")], said
    revealed = [item["message"] for item in said if item["severity"] == "information"]
    assert [text.rpartition(' is "')[2].rstrip('"') for text in revealed[: len(TYPES)]] == list(TYPES)
    assert (built / "site" / "heatproof" / "py.typed").is_file()


def _path(built: Path) -> dict[str, str]:
    """The environment in which the files of the wheel are found first."""
    return {**os.environ, "PYTHONPATH": str(built / "site")}


def test_the_citation_is_that_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert (cited["version"], cited["license"]) == (heatproof.__version__, PROJECT["license"])


def test_the_citation_names_the_three_papers_of_the_docs():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["references"]
    docs = (ROOT / "docs" / "methods.md").read_text("utf-8").partition("## Papers")[2]
    assert len(cited) == 3
    for paper in cited:
        assert paper["authors"][0]["family-names"] in docs and str(paper["year"]) in docs
        assert all(one["value"].removeprefix("arXiv:") in docs for one in paper.get("identifiers", ()))

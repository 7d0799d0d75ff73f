"""Hooks of mkdocs (see mkdocs.yml): pages from outside docs/, tutorials that are run, the gallery.

With `HEATPROOF_SITE=quick` in the environment nothing is run: tutorials have no outputs, the gallery has no pictures.
"""

import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import nbformat
from mkdocs.structure.files import File
from website import gallery, notebooks
from website.kept import kept_at
from website.places import DOCS, ROOT, ROOT_FILES, ROOT_PAGES, with_site_links

log = logging.getLogger("mkdocs.plugins.heatproof")
#: What makes a page as wide as it can be: no list of pages beside it.
WIDE = "---\nhide: [navigation]\n---\n\n"
#: Place of a tutorial → the HTML of its outputs.
_HTML: dict[str, list[str]] = {}


def quick() -> bool:
    """Whether nothing is to be run."""
    return os.environ.get("HEATPROOF_SITE") == "quick"


def on_files(files: Any, config: Any) -> Any:
    """Adds what is not a file of docs/."""
    for path, place in {**ROOT_PAGES, **ROOT_FILES}.items():
        text = (ROOT / path).read_text("utf-8")
        files.append(File.generated(config, place, content=WIDE + text if place == "index.md" else text))
    paths = sorted(DOCS.glob("tutorials/*.ipynb"))
    with ThreadPoolExecutor(2) as pool:  # of two cores, each runs one
        made = pool.submit(gallery.made, quick())
        run = list(pool.map(_notebook, paths))
    pages = {path.stem: notebooks.notebook_page(one, path.stem) for path, one in zip(paths, run, strict=True)}
    for name, page in pages.items():
        place = f"tutorials/{name}.md"
        _HTML[place] = page.html
        files.append(File.generated(config, place, content=page.text))
        for picture, content in page.pictures.items():
            files.append(File.generated(config, f"tutorials/{picture}", content=content))
    files.append(File.generated(config, "tutorials/index.md", content=_index(config, pages)))
    for place, content in made.result().items():
        files.append(File.generated(config, place, content=content))
    return files


def _notebook(path: Path) -> nbformat.NotebookNode:
    """The notebook, with outputs unless nothing is to be run."""
    if quick():
        return nbformat.read(path, as_version=4)
    kept = kept_at(f"{path.stem}.ipynb", [path.read_bytes()])
    if not kept.exists():
        log.info("Running %s", path.relative_to(ROOT))
        nbformat.write(notebooks.executed(path), kept)
    return nbformat.read(kept, as_version=4)


def _index(config: Any, pages: dict[str, notebooks.NotebookPage]) -> str:
    """The page that lists the tutorials, in the order of the navigation."""
    (places,) = [one["Tutorials"] for one in config["nav"] if "Tutorials" in one]
    names = [Path(place).stem for place in places if not place.endswith("index.md")]
    intro = (
        "Each is a notebook that a test runs. They need no download and no GPU: the networks are a small one that "
        "comes with heatproof and EfficientNet-Lite0 of the extra `demo`, the photographs come with scikit-image."
    )
    lines = [f"- **[{pages[name].title}]({name}.md)** {pages[name].lead}" for name in names if name in pages]
    return f"# Tutorials\n\n{intro}\n\n" + "\n".join(lines) + "\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links between files of the repository become links of the site."""
    return with_site_links(markdown, page.file.src_uri)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """The HTML that notebooks show goes to its places."""
    outputs = _HTML.get(page.file.src_uri)
    return html if outputs is None else notebooks.with_outputs(html, outputs)

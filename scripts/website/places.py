"""Where a file of the repository is on the site, and links rewritten to lead there."""

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Files outside docs/ that are pages of the site.
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
#: Files outside docs/ that the site has as they are.
ROOT_FILES = {"LICENSE": "LICENSE.txt", "CITATION.cff": "CITATION.cff"}
_TO_SITE = {**ROOT_PAGES, **ROOT_FILES}
_FROM_SITE = {place: path for path, place in _TO_SITE.items()}

#: Code, in which nothing is a link; or the target of a link or an image.
_CODE_OR_LINK = re.compile(r"(```.*?```|`[^`\n]*`)|(?<=\]\()([^)\s]+)(?=\))", re.DOTALL)


def place_of(path: str) -> str:
    """The place on the site of a file of the repository, both relative; a notebook's is its page."""
    if path in _TO_SITE:
        return _TO_SITE[path]
    if path == "docs/tutorials":
        return "tutorials/index.md"
    found = path.removeprefix("docs/")
    return found.removesuffix(".ipynb") + ".md" if found.endswith(".ipynb") else found


def source_of(place: str) -> str:
    """The file of the repository behind a page of the site."""
    return _FROM_SITE.get(place, f"docs/{place}")


def with_site_links(text: str, place: str) -> str:
    """Markdown whose links between files of the repository lead to their places on the site.

    place: the page that the text stands on.
    """
    folder, here = posixpath.dirname(source_of(place)), posixpath.dirname(place)

    def replaced(found: re.Match) -> str:
        link = found[2]
        if found[1] or not link or link.startswith(("#", "http:", "https:", "mailto:")):
            return found[0]
        path, hash_, anchor = link.partition("#")
        target = place_of(posixpath.normpath(posixpath.join(folder, path)))
        return posixpath.relpath(target, here or ".") + hash_ + anchor

    return _CODE_OR_LINK.sub(replaced, text)

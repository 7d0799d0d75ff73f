"""Parses a page into its tags and its text."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Page(HTMLParser):
    """Tags with their attributes, and the text without the style sheet."""

    html: str
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self):
        super().__init__()
        self._style = False
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._style = tag == "style"

    def handle_endtag(self, tag):
        self._style = False

    def handle_data(self, data):
        if not self._style:
            self.text += data.replace("\u00a0", " ")

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

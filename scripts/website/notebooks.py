"""Runs a notebook in this Python, and turns one that has run into a page of the site."""

import base64
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from traitlets import default

from .places import ROOT

#: The longest that one cell may run, in seconds.
CELL_LIMIT = 240
#: The forms of an output that a page shows, the first that is there.
FORMS = ("text/html", "image/png", "image/jpeg", "text/markdown", "text/plain")
_ENDINGS = {"image/png": "png", "image/jpeg": "jpg"}
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class ThisPython(KernelSpecManager):
    """One kernel: the Python that runs this, whatever kernels the user has installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The kernel, under any name."""
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=40"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


class Kernel(AsyncKernelManager):
    """Starts that kernel, and no other."""

    @default("kernel_spec_manager")
    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return ThisPython()


def environment(folder: Path) -> dict[str, str]:
    """The environment of a kernel: this source, one thread, and everything that it keeps in `folder`."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    kept = {name: str(folder / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    alone = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "DISPLAY")}
    return {**alone, **threads, **kept, "PYTHONPATH": path, "TQDM_DISABLE": "1"}


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, run from top to bottom in a temporary folder.

    Raises:
        CellExecutionError: a cell failed; the text has its traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="heatproof-notebook-") as name:
        folder = Path(name)
        (folder / "work").mkdir()
        place = {"metadata": {"path": str(folder / "work")}}
        client = NotebookClient(notebook, kernel_manager_class=Kernel, timeout=CELL_LIMIT, resources=place)
        client.execute(env=environment(folder))
    return notebook


@dataclass
class NotebookPage:
    """A notebook as a page.

    Attributes:
        title, lead: its first heading, and the first paragraph.
        text: Markdown; `<div data-output="N"></div>` stands for the HTML of `html[N]`.
        pictures: file name → content, beside the page.
    """

    title: str
    lead: str
    text: str = ""
    html: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)


def notebook_page(notebook: nbformat.NotebookNode, name: str) -> NotebookPage:
    """The page of a notebook, with the outputs that it has."""
    first = notebook.cells[0].source
    heading, lead = first.split("\n\n")[:2]
    page = NotebookPage(heading.removeprefix("# "), " ".join(lead.split()))
    parts: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(f"```python\n{cell.source}\n```")
            parts += _outputs(cell, page, name)
    parts.insert(1, f"[Download this notebook]({name}.ipynb){{ download }}")
    page.text = "\n\n".join(parts) + "\n"
    return page


def _outputs(cell: Any, page: NotebookPage, name: str) -> Iterator[str]:
    """What a cell printed, in one block, and what it showed."""
    printed = "".join(one.text for one in cell.outputs if one.output_type == "stream" and one.name == "stdout")
    if printed:
        yield _text(printed)
    for output in cell.outputs:
        data = output.get("data", {})
        form = next((form for form in FORMS if form in data), None)
        if form == "text/html":
            page.html.append(f'<div class="notebook-output">{data[form]}</div>')
            yield f'<div data-output="{len(page.html) - 1}"></div>'
        elif form in _ENDINGS:
            file = f"{name}-{len(page.pictures) + 1}.{_ENDINGS[form]}"
            page.pictures[file] = base64.b64decode(data[form])
            yield f"![What the cell above shows]({file}){{ loading=lazy }}"
        elif form == "text/markdown":
            yield data[form]
        elif form:
            yield _text(data[form])


def _text(text: str) -> str:
    plain = _ANSI.sub("", text).rstrip("\n")
    return f"``` {{ .text .output }}\n{plain}\n```"


def with_outputs(html: str, outputs: list[str]) -> str:
    """The HTML of a page with the notebook's HTML in its places."""
    return re.sub(r'<div data-output="(\d+)"></div>', lambda found: outputs[int(found[1])], html)

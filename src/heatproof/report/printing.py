"""The page as a PDF, printed by a headless Chromium."""

import base64
import io
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from heatproof.errors import HeatproofError

#: The names under which Chromium and its relatives are installed.
BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge"),
    "headless_shell",
)
#: Seconds after which printing is given up.
PATIENCE = 300
#: Quality of the images in a PDF. A browser keeps JPEG as it is, and writes every other image without loss.
QUALITY = 85


class NoPrinter(HeatproofError):
    """No browser prints the page."""


def browser() -> str:
    """The path of the first of `BROWSERS` that is installed.

    Raises:
        NoPrinter: there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise NoPrinter(
            f"--pdf needs Chromium or Chrome: none of {', '.join(BROWSERS)} is on the PATH. Leave --pdf out, open "
            "report.html in any browser and print it to a file."
        )
    return found


def write_pdf(page: Path) -> Path:
    """Prints a page to a PDF beside it.

    Raises:
        NoPrinter: there is no browser, or it fails.
    """
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory(prefix="heatproof-pdf-", ignore_cleanup_errors=True) as scratch:
        made, printed = Path(scratch) / "report.pdf", Path(scratch) / "report.html"
        printed.write_text(_with_jpeg(page.read_text("utf-8")), "utf-8")
        alone = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # the sandbox refuses root
        command = [browser(), "--headless", "--disable-gpu", *alone, f"--user-data-dir={scratch}/profile",
                   "--no-pdf-header-footer", f"--print-to-pdf={made}", printed.resolve().as_uri()]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
            why = (
                ""
                if made.is_file()
                else (done.stderr.strip().splitlines() or [f"it exited with {done.returncode}"])[-1]
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
        if why:
            raise NoPrinter(
                f"{command[0]} printed no PDF: {why:.300}. Open {page} in a browser and print it to a file."
            )
        shutil.copyfile(made, target)
    return target


def _with_jpeg(page: str) -> str:
    """The page with its WebP images as JPEG."""
    return re.sub(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", lambda found: _jpeg(found[1]), page)


def _jpeg(webp: str) -> str:
    made = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(webp))).convert("RGB").save(made, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(made.getvalue()).decode()}"

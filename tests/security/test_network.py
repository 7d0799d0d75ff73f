"""Nothing is sent and nothing is fetched unless the user asked for a download or a logger."""

import os
import subprocess
import sys

import pytest

#: Python tells an audit hook of every connection and every name that is looked up, whichever module asks.
WORK = """
import sys
asked = []
sys.addaudithook(lambda event, args: asked.append((event, args[1:])) if event in (
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind") else None)
import heatproof
from heatproof import cli
from heatproof.data import demo_shapes
for name in ("shapes", "shapes-vit"):
    model = heatproof.load_model(name, device="cpu")
images = demo_shapes(n=2)
heatproof.explain(model, images, "gradcam")
heatproof.score(model, images, "gradcam", "complexity")
found = heatproof.run("score", "shapes", images, methods=["gradcam"], metrics=["complexity"], progress=False, out="out")
assert found.page.is_file()
for words in (["query", "out", "SELECT 1"], ["report", "out", "--latex", "latex"]):
    try:
        cli.main(words)
    except SystemExit as stopped:
        assert not stopped.code, words
from heatproof.models import huggingface, zero_shot
import huggingface_hub
assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
assert not asked, asked
print("nothing was asked")
"""


def test_no_connection_is_made(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WORK], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.stdout.endswith("nothing was asked\n"), done.stderr[-2000:]


def test_the_page_asks_for_nothing(tmp_path):
    """The pages are one file each; what they hold is tested in tests/report. Here: their templates name no address."""
    from heatproof.panels import show_page
    from heatproof.report.templating import TEMPLATES

    folders = [TEMPLATES, TEMPLATES.parents[1] / "panels" / "templates"]
    texts = [path.read_text("utf-8") for folder in folders for path in folder.iterdir()]
    assert len(texts) > 5 and show_page is not None
    for text in texts:
        assert "http://" not in text and 'src="http' not in text and "@import" not in text and "<script" not in text


def test_a_logger_reports_no_crashes_to_its_maker(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb")
    from heatproof.loggers import WandbLogger

    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    monkeypatch.setattr(wandb, "init", lambda **given: given)
    assert WandbLogger(mode="disabled", dir=str(tmp_path)).run["project"] == "heatproof"
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"

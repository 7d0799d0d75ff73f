"""The audit's documents: a section for a model card, a workbook, a PDF; and what it says of each image."""

import base64
import io
import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from heatproof import cli
from heatproof.errors import InvalidStudy
from heatproof.report import printing, write_tables
from heatproof.studies import run
from heatproof.studies.plan import checked_plan

from ..audits import SMALL as SETTINGS
from ..audits import made

SMALL = {"study": "audit", **SETTINGS}

SIGNED = {"author": "Ada <b>|*x*", "date": "2026-03-31", "commit": "abc123"}


@pytest.fixture(scope="module")
def signed(shared_folder):
    """The folder of a finished audit with an author whose name is hostile, with its page."""

    def sign(folder):
        shutil.copytree(shared_folder("audit", made), folder)
        made(folder, **SIGNED)

    return shared_folder("signed-audit", sign)


@pytest.fixture
def copied(signed, tmp_path):
    return shutil.copytree(signed, tmp_path / "audit")


def test_each_image_has_a_decision_and_a_reason(signed):
    table = pd.read_csv(signed / "tables" / "per_image.csv", keep_default_na=False)
    assert len(table) == 9 * 2 and set(table["method"]) == {"gradcam", "eigencam"}
    assert set(table["decision"]) <= {"show", "show with a warning", "do not show"}
    assert ((table["reason"] == "") == (table["decision"] == "show")).all()
    assert not ((table["decision"] == "show") & (table["recommended"].astype(str) != "True")).any()
    verdicts = pd.read_csv(signed / "tables" / "verdicts.csv").set_index("method")
    unfit = verdicts.index[verdicts["verdict"].str.startswith("not fit")]
    assert (table.loc[table["method"].isin(unfit), "decision"] == "do not show").all()


def test_the_page_states_the_rule_the_decisions_and_the_record(signed):
    page = (signed / "report.html").read_text("utf-8")
    order = [page.index(text) for text in ('id="per_image"', "The rule", 'id="gallery"', 'id="auditor"')]
    assert order == sorted(order)
    plan = json.loads((signed / "study.json").read_text("utf-8"))
    auditor = page[order[-1] :]
    for text in ("Ada &lt;b&gt;|*x*", "2026-03-31", "abc123", plan["models"][0]["fingerprint"],
                 plan["datasets"][0]["fingerprint"], "shorter side" if "shorter side" in page else "squashed",
                 "What was not tested", "other than jpeg and fgsm at severities 3"):  # fmt: skip
        assert text in auditor
    assert "gradcam: do not show" in page or "gradcam: show" in page or "eigencam: " in page  # under a case


def test_the_model_card_has_the_headings_of_the_template_and_is_escaped(signed):
    card = (signed / "model_card.md").read_text("utf-8")
    lines = card.splitlines()
    for heading in (
        "### Testing Data, Factors & Metrics",
        "#### Testing Data",
        "#### Factors",
        "#### Metrics",
        "### Results",
    ):
        assert heading in lines
    assert r"Ada \<b\>\|\*x\*" in card and "<b>" not in card
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 4 and len({line.count(" | ") for line in table}) == 1
    assert table[0].endswith("| beats controls | verdict |") and "| gradcam |" in "\n".join(table)


def test_the_workbook_holds_every_table(copied):
    openpyxl = pytest.importorskip("openpyxl")
    facts = json.loads((copied / "study.json").read_text("utf-8"))
    facts["author"] = "=1+1\x07"
    (copied / "study.json").write_text(json.dumps(facts), "utf-8")
    findings = write_tables(copied)
    book = openpyxl.load_workbook(copied / "tables" / "audit.xlsx")
    names = [name.removesuffix(".csv") for name in findings.tables if name.endswith(".csv")]
    assert book.sheetnames == ["about", *names]
    lines = list(book["per_image"].iter_rows(values_only=True))
    filed = findings.tables["per_image.csv"]
    assert list(lines[0]) == list(filed.columns) and len(lines) == 1 + len(filed)
    (author,) = [row for row in book["about"].iter_rows() if row[0].value == "author"]
    assert author[1].value == "=1+1" and author[1].data_type == "s"  # a text, no formula


def test_without_the_extra_there_is_no_workbook_and_the_terminal_says_so(copied, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(SystemExit) as done:
        cli.main(["report", str(copied)])
    out = capsys.readouterr().out
    assert not done.value.code and not (copied / "tables" / "audit.xlsx").exists()
    assert "Not written: tables/audit.xlsx. Try: pip install 'heatproof[xlsx]'" in out and "model_card.md" in out


def test_another_author_changes_no_number_and_one_who_is_not_named_stays(copied):
    plan = {**SMALL, **SIGNED}
    done = run.run(checked_plan({**plan, "author": "Bob"}), copied, workers=1)
    assert done.ran == 0
    run.run(checked_plan(SMALL), copied, workers=1)
    facts = json.loads((copied / "study.json").read_text("utf-8"))
    assert (facts["author"], facts["date"]) == ("Bob", "2026-03-31")


def test_a_date_must_be_one():
    assert checked_plan({**SMALL, "date": "2026-03-31"}).date == "2026-03-31"
    with pytest.raises(InvalidStudy, match=r"must be a date such as 2026-03-31\. Got 'today'"):
        checked_plan({**SMALL, "date": "today"})


# --- PDF ---


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A browser in place of every other, that runs the given shell line; the page is `$URL`, the PDF `$PDF`."""

    def made(line: str):
        script = tmp_path / "chromium"
        found = 'for a in "$@"; do case $a in --print-to-pdf=*) PDF="${a#*=}";; file:*) URL=$a;; esac; done\n'
        script.write_text(f"#!/bin/sh\n{found}{line}\n")
        script.chmod(0o755)
        monkeypatch.setattr(printing, "BROWSERS", ("chromium",))
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return made


def test_the_page_is_printed(copied, installed, capsys):
    installed('cat "${URL#file://}" > "$PDF"')
    with pytest.raises(SystemExit) as done:
        cli.main(["report", str(copied), "--pdf"])
    assert not done.value.code and f"PDF: {copied / 'report.pdf'}" in capsys.readouterr().out
    page, printed = (copied / "report.html").read_text(), (copied / "report.pdf").read_text()
    assert "image/webp" in page and "image/webp" not in printed  # a PDF keeps JPEG as it is, and nothing else
    webp, jpeg = (re.findall(r"data:image/(?:webp|jpeg);base64,([^\"]+)", text) for text in (page, printed))
    assert len(webp) == len(jpeg) > 0
    first, other = (np.asarray(Image.open(io.BytesIO(base64.b64decode(one[0]))).convert("RGB"), float)
                    for one in (webp, jpeg))  # fmt: skip
    assert first.shape == other.shape and abs(first - other).mean() < 4


def test_a_browser_that_fails_is_named_with_the_page(signed, tmp_path, installed):
    page = tmp_path / "report.html"
    page.write_text("<p>x")
    installed("echo 'no display' >&2; exit 3")
    with pytest.raises(printing.NoPrinter, match=r"printed no PDF: no display\. Open .*report\.html in a browser"):
        printing.write_pdf(page)


def test_without_a_browser_nothing_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    call = ["audit", "--model", "shapes", "--images", "shapes", "--out", str(tmp_path / "out"), "--pdf"]
    with pytest.raises(SystemExit) as done:
        cli.main(call)
    assert done.value.code == 1 and "open report.html in any browser" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        cli.main([*call, "--no-report"])
    assert "--no-report makes none" in capsys.readouterr().err


@pytest.mark.skipif(not any(map(shutil.which, printing.BROWSERS)), reason="no Chromium is installed")
def test_a_real_browser_prints(tmp_path):
    page = tmp_path / "report.html"
    page.write_text("<!doctype html><title>x</title><p>Hello")
    assert printing.write_pdf(page).read_bytes().startswith(b"%PDF")

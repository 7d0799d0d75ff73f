"""The docs say what is there: generated pages are fresh, every name is documented, every example runs or parses."""

import importlib.util
import re
import shlex
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from heatproof.attributions import ATTRIBUTIONS
from heatproof.cli import app
from heatproof.metrics import FAMILIES, METRICS
from heatproof.perturbations import PERTURBATIONS, default_kinds
from heatproof.segments import SEGMENTERS
from heatproof.statistics.robustness_tables import COLUMNS
from heatproof.studies.plan import checked_plan
from heatproof.studies.rows import SCHEMA
from heatproof.studies.settings import DEFAULT_METHODS, Plan
from heatproof.studies.study import study_names
from heatproof.studies.studyfile import read_settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
         for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md"))}  # fmt: skip
GUIDE, RESULTS = PAGES["docs/guide.md"], PAGES["docs/results.md"]


@pytest.fixture(scope="module")
def make_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "scripts" / "make_docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def coded(text: str) -> set[str]:
    """What stands in backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))


def blocks(text: str, language: str) -> list[str]:
    """Fenced code of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def section(title: str, text: str = GUIDE) -> str:
    """What stands under a heading, up to the next of its level."""
    return re.split(rf"^## {re.escape(title)}$", text, flags=re.MULTILINE)[1].split("\n## ")[0]


def test_generated_pages_are_fresh(make_docs):
    assert make_docs.stale() == [], "Run `make docs` and commit the pages."


def test_a_stale_page_is_noticed(make_docs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(make_docs, "DOCS", tmp_path)
    assert make_docs.stale(tmp_path) == list(make_docs.PAGES)
    monkeypatch.setattr(make_docs, "PAGES", {"one.md": lambda: "new\n"})
    monkeypatch.setattr(make_docs, "stale", lambda: ["one.md"])
    assert make_docs.main(["--check"]) == 1
    assert "docs/one.md is stale" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert make_docs.main([]) == 0
    assert (tmp_path / "one.md").read_text() == "new\n"


def test_every_method_is_documented():
    page = PAGES["docs/methods.md"]
    headings = set(re.findall(r"^###? (.+)$", page, re.MULTILINE))
    assert set(ATTRIBUTIONS) <= headings
    spellings = {spelling for entry in ATTRIBUTIONS.values() for spelling in entry.aliases}
    assert spellings <= coded(page)
    assert all(f"{name}=" in page for entry in ATTRIBUTIONS.values() for name in entry.options)


def test_every_metric_is_documented():
    """In its family's table, with what the registry knows, and under a heading of its own."""
    page = PAGES["docs/metrics.md"]
    entries = {name: entry for name, entry in METRICS.items() if not entry.traits.get("foreign")}
    for family in FAMILIES:
        part = section(f"{family.capitalize()} metrics", page)
        known = {name: entry for name, entry in entries.items() if entry.traits["family"] == family}
        assert known, family
        lines = (re.findall(r"(?<=\| ).+?(?= \|)", line) for line in part.splitlines())
        rows = {row[0].strip("`"): row for row in lines if row and row[0].startswith("`")}
        assert set(rows) == set(known)
        assert set(re.findall(r"^### (.+)$", part, re.MULTILINE)) == set(known)
        for name, entry in known.items():
            _, better, _, passes, stated, source = rows[name]
            assert better == ("↑ higher" if entry.traits["better"] == "high" else "↓ lower")
            assert (passes, source) == (entry.traits["passes"], entry.source)
            assert (stated == "the formula") == (entry.traits["degenerate"] is None)
            text = part.split(f"### {name}\n")[1].split("\n### ")[0]
            assert entry.summary in text and f"NaN where {entry.traits['undefined']}." in text
            assert all(f"`{option}=" in text for option in entry.options), name
            assert {*entry.aliases, *entry.traits.get("parts", {}).values()} <= coded(text)


def test_the_guide_lists_every_metric_in_its_family():
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| (`.+) \|$", section("Scores"), re.MULTILINE)
    said = {family: re.findall(r"`([^`]+)`", names) for family, names in rows}
    assert list(said) == list(FAMILIES)
    for family, names in said.items():
        known = {n for n, e in METRICS.items() if e.traits["family"] == family and not e.traits.get("foreign")}
        assert set(names) == known and len(names) == len(known)


def test_every_perturbation_and_segmenter_is_documented():
    page = PAGES["docs/perturbations.md"]
    headings = set(re.findall(r"^###? (.+)$", page, re.MULTILINE))
    assert {*PERTURBATIONS, *SEGMENTERS} <= headings
    spellings = {spelling for entry in PERTURBATIONS.values() for spelling in entry.aliases}
    assert spellings <= coded(page)


def test_every_command_and_option_is_documented():
    """The options are read from the terminal's own help, not from what the page was made of."""
    from typer.testing import CliRunner

    page = PAGES["docs/commands.md"]
    for info in app.registered_commands:
        name = info.name or info.callback.__name__  # type: ignore[union-attr]
        text = section(f"heatproof {name}", page)
        shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300", "TERM": "dumb"}).output
        options = set(re.findall(r"(?<![\w`-])--[a-z-]+", shown.split("Options", 1)[1].split("Example")[0]))
        assert options > {"--help"} or name in ("report", "why")
        assert not [option for option in options - {"--help"} if f"`{option}" not in text], name
    assert set(study_names()) <= coded(page)
    assert set(Plan.model_fields) <= coded(section("Study files", page))


def test_the_guide_lists_what_a_study_takes():
    text = section("Methods and perturbations")
    rows = dict(re.findall(r"^\| ([^|`]+) \| (`.+) \|$", text, re.MULTILINE))
    of = {title: set(re.findall(r"`([^`]+)`", names)) for title, names in rows.items()}
    real = {name for name, entry in ATTRIBUTIONS.items() if not entry.traits["control"]}
    assert of["in the study by default"] == set(DEFAULT_METHODS)
    kinds_of_perturbation = {"natural, by default", "attacks, by default", "natural, also", "attack, also"}
    others = [names for title, names in of.items() if title not in kinds_of_perturbation]
    assert set().union(*others) == set(ATTRIBUTIONS) and sum(map(len, others)) == len(ATTRIBUTIONS)
    assert of["controls"] == set(ATTRIBUTIONS) - real
    kinds = {
        (attack, default): {
            name
            for name, entry in PERTURBATIONS.items()
            if entry.traits["attack"] is attack and (name in default_kinds()) is default
        }
        for attack in (False, True)
        for default in (False, True)
    }
    assert of["natural, by default"] == kinds[False, True]
    assert of["attacks, by default"] == kinds[True, True]
    assert of["natural, also"] == kinds[False, False]
    assert of["attack, also"] == kinds[True, False]
    assert set(SEGMENTERS) <= coded(text)


def test_every_column_is_explained():
    from heatproof.report.frames import PAIRS
    from heatproof.report.tables import ROBUSTNESS_TESTS

    text = RESULTS
    starts = ("`robustness.csv` has", "`pairs.parquet` has", "`statistics.csv` has", "A row of `rows`")
    robustness, pairs, statistics, rows = (text[text.index(start) :].split("\n\n")[0] for start in starts)
    in_order = lambda part, names: [n for n in re.findall(r"`(\w+)`", part) if n in names]  # noqa: E731
    assert in_order(robustness, COLUMNS) == list(COLUMNS)
    assert in_order(pairs, PAIRS) == list(PAIRS)
    assert set(ROBUSTNESS_TESTS) <= coded(statistics)
    assert set(SCHEMA.names) <= coded(rows)


def test_the_example_study_file_is_valid(tmp_path):
    (example,) = blocks(GUIDE, "yaml")
    file = tmp_path / "study.yaml"
    file.write_text(example, "utf-8")
    settings, lines = read_settings(file)
    assert settings.pop("out") == str(tmp_path / "out" / "two-models")
    plan = checked_plan(settings, lines, "guide.md")
    assert [model.label for model in plan.models] == ["timm:resnet50", "ours"]
    assert plan.models[1].mean == 0.5
    assert plan.models[1].model_args == {"pad_type": "same"}
    assert plan.methods == ("gradcam", "gradcam++", "gradcam++[compat=true]", "eigencam")
    assert plan.segmenters == ("quickshift", "slic")


def test_the_python_examples_run(tmp_path, monkeypatch):
    """As they stand, with the bundled network where pretrained weights would be fetched."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("cat.jpg", "dog.jpg"):
        Image.fromarray(generator.integers(0, 255, (120, 100, 3), np.uint8)).save(tmp_path / name)
    first, forms, second, third = (block.replace("timm:resnet50", "shapes") for block in blocks(GUIDE, "python"))
    names: dict = {}
    exec(compile(first, "guide.md", "exec"), names)
    scores = names["scores"]
    assert {row.metric for row in scores.rows} == {"coherency", "complexity", "road", "arcc", "deletion"}
    assert set(scores.table["method"]) == {"gradcam", "refine:layercam"} and (scores.table["n"] == 2).all()
    assert names["maps"]["gradcam"].shape == (2, 96, 96)
    assert list(names["maps"]) == ["gradcam", "hirescam"]
    exec(compile(forms, "guide.md", "exec"), names)
    assert names["maps"].target.tolist() == list(range(6)) and len(names["scores"]) == 6
    exec(compile(second, "guide.md", "exec"), names)
    raw = names["raw"]["gradcam++"]
    assert raw.shape == (4, 32, 32)
    assert names["raw"].target.tolist() == [2] * 4
    exec(compile(third.replace("maps = ", "maps_ = ", 1).replace("maps =", "least ="), "guide.md", "exec"), names)
    assert names["maps_"]["gradcam"].shape == (1, 3, 96, 96)
    assert names["least"].target.tolist() == names["least"].logits.argmin(1).tolist()


def test_the_readme_is_short_shows_a_picture_and_its_example_runs(tmp_path, monkeypatch, capsys):
    assert len(README.splitlines()) <= 150
    picture = ROOT / re.findall(r"!\[.+?\]\((.+?)\)", README.replace("\n", " "))[0]
    with Image.open(picture) as shown:
        assert shown.width > 1000
    monkeypatch.chdir(tmp_path)
    for name in ("cat.jpg", "dog.jpg"):
        Image.fromarray(np.full((50, 60, 3), 90, np.uint8)).save(tmp_path / name)
    (example,) = blocks(README, "python")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the images are of one colour
        exec(compile(example.replace("timm:resnet50", "shapes"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "arcc" in printed and "refine:layercam" in printed


def test_the_readme_counts_right():
    real = [entry for entry in ATTRIBUTIONS.values() if not entry.traits["control"]]
    own = [entry for entry in METRICS.values() if not entry.traits.get("foreign")]
    assert f"| methods | {len(real)}: " in README and f"| metrics | {len(own)} in nine families" in README
    assert len(FAMILIES) == 9 and len(ATTRIBUTIONS) - len(real) == 5 and "five uninformed maps" in README
    assert f"under {len(PERTURBATIONS)} kinds of noise and attack" in README


def commands(text: str) -> list[list[str]]:
    """The `heatproof …` command lines of the shell examples, as words."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(blocks(text, "sh")))
    return [shlex.split(line) for line in joined.splitlines() if line.startswith("heatproof ")]


def settings_of(words: list[str], monkeypatch) -> dict:
    """The plan that `heatproof run …` or `score …` would start, without starting it."""
    from heatproof import cli
    from heatproof.cli import study_commands

    started: list = []
    monkeypatch.setattr(study_commands, "start", lambda plan, folder, *rest: started.append((plan, folder)))
    with pytest.raises(SystemExit) as done:
        cli.main(words[1:])
    assert not done.value.code
    return started[0][0].model_dump() | {"out": str(started[0][1])}


def test_the_example_commands_are_understood(monkeypatch):
    found = commands(GUIDE)
    runs = [settings_of(words, monkeypatch) for words in found if words[1] == "run"]
    assert [plan["out"] for plan in runs] == [
        "out/resnet50",
        "out/mobilenet",
        "out/small",
        "out/calibrated",
        "out/validity",
        "out/refine",
        "out/parts",
        "out/fidelity",
    ]
    assert runs[1]["models"][0]["checkpoint"] == "weights.safetensors"
    assert runs[1]["models"][0]["model_args"] == {"pad_type": "same"}
    assert runs[2]["perturbations"] == ("gaussian-noise", "jpeg", "fgsm")
    assert runs[3]["calibrate"] == (0.05, 0.15, 0.3, 0.5)
    known = {info.name or info.callback.__name__ for info in app.registered_commands}  # type: ignore[union-attr]
    known |= {str(info.name) for info in app.registered_groups}
    assert {words[1] for words in [*found, *commands(README)]} == known


def test_the_example_commands_that_explain_are_understood(monkeypatch, capsys):
    import heatproof.panels.selection
    from heatproof import cli
    from heatproof.cli import explain_commands

    started: list = []
    monkeypatch.setattr(explain_commands, "_explain", lambda *given: started.append(given))
    named = {info.name or info.callback.__name__: info for info in cli.app.registered_commands}
    helped = [shlex.split(named["explain"].epilog.split("`")[1])]
    for words in [words for words in [*commands(README), *commands(GUIDE), *helped] if words[1] == "explain"]:
        with pytest.raises(SystemExit) as done:
            cli.main(words[1:])
        assert not done.value.code, capsys.readouterr().err
    assert [(given[0], given[3]) for given in started] == [
        ("timm:resnet50", ["photos/"]), ("timm:resnet50", ["photos/"]), ("timm:resnet50", ["cat.jpg"]),
        ("python:mine:net", ["scans/"]), ("shapes", ["shapes"]),
    ]  # fmt: skip
    model = heatproof.load_model("shapes")
    for *_, asked, _out in started:
        assert heatproof.panels.selection.selected(
            model, asked["methods"], "auto", asked["layers"], asked["options"]
        ).methods


def test_the_example_commands_that_score_are_understood(monkeypatch, tmp_path):
    """Also those of docs/moving.md, which stand as indented lines, and the one of the help."""
    from heatproof.metrics.metric_request import requested_metrics

    pytest.importorskip("quantus")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "masks").mkdir(parents=True)
    np.savez(tmp_path / "theirs.npz", cat=np.zeros((2, 2)))
    (example,) = [code for code in blocks(PAGES["docs/moving.md"], "python") if "def logit_lost" in code]
    own = example.split("heatproof.register_metric")[0] + 'logit_lost.better = "high"\n'
    (tmp_path / "mine.py").write_text(own, "utf-8")
    helped = [info.epilog for info in app.registered_commands if info.epilog and "heatproof score" in info.epilog]
    lines = [*commands(GUIDE), *(shlex.split(text.split("`")[1]) for text in helped)]
    lines += [
        shlex.split(line) for line in re.findall(r"^    (heatproof score .+)$", PAGES["docs/moving.md"], re.MULTILINE)
    ]
    plans = [settings_of(words, monkeypatch) for words in lines if words[1] == "score"]
    assert [Path(plan["out"]).name for plan in plans[:3]] == ["scores", "theirs", "labels"] and len(plans) == 6
    assert plans[2]["targets"] == ("labels",) and plans[2]["models"][0]["multi_label"]
    assert plans[0]["methods"] == ("gradcam", "layercam", "refine:layercam")
    assert plans[1]["datasets"][0]["masks"] and not plans[1]["methods"]
    for plan in plans:
        assert requested_metrics(plan["metrics"])
    for name in [name for name, entry in METRICS.items() if entry.traits.get("foreign")]:
        METRICS.remove(name)


def test_the_demo_of_the_makefile_is_that_of_the_help():
    recipe = re.search(r"^demo:.*\n\t\$\(BIN\)/(heatproof demo .*?) \$\(ARGS\)$", (ROOT / "Makefile").read_text(), re.M)
    assert recipe
    assert recipe[1] in (ROOT / "src" / "heatproof" / "cli" / "__init__.py").read_text("utf-8"), (
        "the help tells another demo"
    )


def anchors(text: str) -> set[str]:
    """The anchors that a forge gives the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_somewhere(page):
    prose = re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    assert not broken


def test_the_glossary_of_the_guide_holds_the_rules_of_the_code():
    from heatproof.statistics.robustness import COMPUTED, RELIABLE

    text = section("What the numbers mean")
    assert f"at least {COMPUTED} changed and {COMPUTED} unchanged" in text
    assert f"{RELIABLE} of each to be called reliable" in text
    from heatproof.data.image_opener import MAX_PIXELS

    assert f"Images over {MAX_PIXELS // 10**6} million pixels" in GUIDE


def test_the_file_of_labels_is_not_written_as_names_of_methods():
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert "`--labels METHOD=NAME`" not in text and "`--label METHOD=NAME`" in text


def test_no_page_holds_a_merge_that_was_not_finished():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    marks = re.compile(r"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)
    assert [page.name for page in pages if marks.search(page.read_text(encoding="utf-8"))] == []

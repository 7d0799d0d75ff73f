"""Users' own studies: run, resumed and reported like the built-in ones; wrong declarations are refused."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from heatproof.errors import InvalidInput, InvalidStudy, StoreError, UnknownName
from heatproof.report import write_report, write_tables
from heatproof.studies import CLEAN, Condition, Measure, Plan, Study, register_study, run
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import connect
from heatproof.studies.study import all_studies, study_named, unregister_study

TOY = Path(__file__).with_name("toy_study.py")
NAME = "python:toy_study:STUDY"


@pytest.fixture
def toy(monkeypatch):
    """The toy study, registered by one line."""
    monkeypatch.syspath_prepend(TOY.parent)
    import toy_study

    yield register_study(toy_study.STUDY)
    unregister_study("toy")


@pytest.fixture
def toy_plan(toy, photographs):
    """Its plan over five small images."""
    given = {"models": "shapes", "datasets": str(photographs), "methods": ["gradcam", "eigencam"], "batch_size": 2}
    return checked_plan({"study": toy.name, "controls": "none", **given})


def rows(folder) -> pd.DataFrame:
    return connect(folder).execute("SELECT * EXCLUDE version FROM rows ORDER BY ALL").df()


def test_the_toy_study_is_short():
    assert len(TOY.read_text("utf-8").splitlines()) <= 60


def test_it_is_run_resumed_and_reported(toy_plan, tmp_path):
    assert run.run(toy_plan, tmp_path / "whole", workers=1).ran == 3
    run.run(toy_plan, tmp_path / "again", workers=1)
    next((tmp_path / "again" / "rows").glob("*.parquet")).unlink()
    resumed = run.run(toy_plan, tmp_path / "again", workers=2)
    assert (resumed.ran, resumed.kept) == (1, 2)
    pd.testing.assert_frame_equal(rows(tmp_path / "whole"), rows(tmp_path / "again"))
    page = write_report(tmp_path / "again").read_text("utf-8")
    for text in ("What changes the maps?", "change most", "Mean cosine with the reference map", "What was run"):
        assert text in page
    table = pd.read_csv(tmp_path / "again" / "tables" / "likeness.csv")
    assert len(table) == 2 * 4 and (table["n"] == 5).all()


def test_every_part_of_a_condition_does_what_it_says(toy_plan, photographs, tmp_path):
    """Class, weights, transformation and noise, each against a map made by hand."""
    import torch

    import heatproof
    from heatproof.models.randomisation import Randomised
    from heatproof.perturbations import Perturber
    from heatproof.transformations import transformed

    run.run(toy_plan, tmp_path / "out", workers=1)
    found = rows(tmp_path / "out")
    model = heatproof.load_model("shapes")
    names = sorted(path.name for path in photographs.iterdir())
    x = torch.stack([model.geometry.image(_opened(photographs / name)) for name in names])
    turned = transformed("rotation[degrees=180]", x, names)
    torch.testing.assert_close(turned, x.flip(2, 3), atol=1e-4, rtol=0)
    noisy = Perturber(turned, names, 0).apply("gaussian-noise", 3)
    drawn = Randomised(model, 0)
    for block in drawn.blocks(0):
        drawn.redraw(block)
    made = {
        ("predicted", "", "", ""): (model, x, "predicted"),
        ("least", "", "", ""): (model, x, "least"),
        ("predicted", "randomised", "", ""): (drawn.model, x, "predicted"),
        ("predicted", "", "rotation[degrees=180]", ""): (model, turned, "predicted"),
        ("predicted", "", "rotation[degrees=180]", "gaussian-noise"): (model, noisy, "predicted"),
    }
    clean = heatproof.explain(model, x, ["eigencam"])["eigencam"].flatten(1)
    for (target, state, transformation, noise), (network, images, rule) in made.items():
        maps = heatproof.explain(network, images, ["eigencam"], target=rule)["eigencam"].flatten(1)
        here = found[(found["target"] == target) & (found["state"] == state) & (found["perturbation"] == noise)]
        here = here[(here["transformation"] == transformation) & (here["method"] == "eigencam")]
        complexity = here[here["metric"] == "complexity"].set_index("image").loc[names, "value"]
        np.testing.assert_allclose(complexity, maps.mean(1), atol=1e-5)
        cosine = here[here["metric"] == "cosine"].set_index("image")["value"]
        if (target, state, transformation, noise) == ("predicted", "", "", ""):
            assert cosine.empty  # pair metrics are not taken on the reference
        else:
            expected = torch.nn.functional.cosine_similarity(maps, clean)
            np.testing.assert_allclose(cosine.loc[names], expected, atol=1e-5)


def _opened(path):
    from heatproof.data.image_opener import open_image

    return open_image(path)


def test_a_study_named_by_its_module_needs_no_registration(photographs, tmp_path):
    """In a process of its own, from the command line, with worker processes; the report finds it again."""
    command = [sys.executable, "-m", "heatproof.cli"]
    given = ["--model", "shapes", "--images", str(photographs), "--methods", "gradcam", "--controls", "none"]
    done = subprocess.run(
        [*command, "run", NAME, *given, "--batch-size", "3", "--workers", "2", "--no-report", "--out",
         str(tmp_path / "out")],
        cwd=TOY.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    again = subprocess.run(
        [*command, "report", str(tmp_path / "out"), "--allow-code"], cwd=TOY.parent, capture_output=True, text=True
    )
    assert not again.returncode, again.stderr
    assert "The maps of gradcam change most." in again.stdout
    elsewhere = subprocess.run(
        [*command, "report", str(tmp_path / "out"), "--allow-code"], cwd=tmp_path, capture_output=True, text=True
    )
    assert elsewhere.returncode and "Expected to import 'toy_study'" in elsewhere.stderr


# --- what is refused, whichever study it is ---


def declared(**changes) -> Study:
    """A small study."""
    given = {"name": "mine", "summary": "", "heading": "", "settings": Plan, "measures": ("complexity",)}
    return Study(**(given | changes))


@pytest.mark.parametrize("name", ["score", "toy"])
def test_two_studies_of_one_name_are_refused(toy, name):
    assert register_study(toy) is toy  # registering the same study again is no error
    with pytest.raises(InvalidStudy, match=f"There is another study named '{name}'. Take another name"):
        register_study(declared(name=name))


def test_a_study_is_checked_when_it_is_declared_and_registered():
    with pytest.raises(InvalidStudy, match=r"NAME.csv or NAME.parquet. Got '../x.csv'"):
        declared(tables={"../x.csv": "scores"})
    with pytest.raises(InvalidStudy, match="lower-case words joined by hyphens"):
        declared(name="<b>")
    with pytest.raises(InvalidStudy, match=r"must be a `heatproof.studies.Study`. Got str"):
        register_study("mine")
    with pytest.raises(UnknownName, match="Did you mean 'score'"):
        study_named("scores")
    with pytest.raises(InvalidStudy, match=r"python:package.module:STUDY"):
        study_named("python:nowhere")
    with pytest.raises(InvalidStudy, match=r"must be a `heatproof.studies.Study`. Got function"):
        study_named("python:heatproof.studies.study:study_named")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"conditions": lambda plan: []}, "must have at least one condition. Got none"),
        ({"conditions": lambda plan: [CLEAN, CLEAN]}, "must differ"),
        ({"measures": ("rbo",)}, "has one condition, and 'rbo' compares maps under two"),
        ({"measures": ()}, "at least one measure. Got none"),
        ({"measures": ("complexity", Measure("road", "complexity"))}, "have the column 'complexity'"),
        ({"measures": (Measure("complexity", conditions="other"),)}, "Got 'other'"),
        ({"conditions": lambda plan: ["clean"]}, "must give conditions. Got str"),
        ({"measures": (Measure("complexity", conditions="others"),)}, "is taken on the others"),
        (
            {
                "measures": (Measure("rbo", conditions="reference"),),
                "conditions": lambda plan: [CLEAN, Condition("jpeg", 1)],
            },
            "compares a map with the reference map",
        ),
        ({"tables": {"a.csv": "nosuch"}}, "The table a.csv of the study 'mine' is 'nosuch', and there is none"),
        ({"sections": ("nosuch",)}, "has a section 'nosuch', and there is none"),
        ({"measures": ("complexty",)}, "Did you mean 'complexity'"),
        ({"conditions": lambda plan: [CLEAN, Condition("jpg", 1)]}, "Did you mean 'jpeg'"),
        ({"conditions": lambda plan: [CLEAN, Condition("jpeg", 7)]}, "severity"),
        (
            {"conditions": lambda plan: [CLEAN, Condition("jpeg", 1, 1.5), Condition("jpeg", 1, 2)]},
            "Got 'jpeg:1' twice",
        ),
        ({"conditions": lambda plan: [CLEAN, Condition("jpeg", level=2)]}, "and its severity, or neither"),
        ({"conditions": lambda plan: [CLEAN, Condition(severity=2)]}, "and its severity, or neither"),
        ({"conditions": lambda plan: [CLEAN, Condition(level=2)]}, "and its severity, or neither"),
        ({"conditions": lambda plan: [CLEAN, Condition(transformation="rotate")]}, "Did you mean 'rotation'"),
        ({"conditions": lambda plan: [CLEAN, Condition(target="lest")]}, "Did you mean 'least'"),
        ({"conditions": lambda plan: [CLEAN, Condition(target="top3")]}, "one class of each image. Got 'top3'"),
        ({"conditions": lambda plan: [CLEAN, Condition(state="weights.pt")]}, "weights.pt"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(photographs, tmp_path, changes, said):
    register_study(declared(**changes))
    try:
        plan = checked_plan({"study": "mine", "models": "shapes", "datasets": str(photographs), "methods": "gradcam"})
        with pytest.raises((InvalidInput, UnknownName), match=said):
            run.run(plan, tmp_path / "out", workers=1)
        assert not (tmp_path / "out").exists()
    finally:
        unregister_study("mine")


def test_maps_made_beforehand_go_with_one_condition(photographs, tmp_path):
    from heatproof.studies.score import ScorePlan

    study = declared(settings=ScorePlan, conditions=lambda plan: [CLEAN, Condition("jpeg", 1)])
    np.savez(tmp_path / "theirs.npz", np.random.default_rng(0).random((5, 9, 9)))
    register_study(study)
    try:
        given = {"study": "mine", "models": "shapes", "datasets": str(photographs)}
        plan = checked_plan({**given, "maps": str(tmp_path / "theirs.npz")})
        with pytest.raises(InvalidStudy, match=r"'mine' changes them. Name methods in place of maps"):
            run.run(plan, tmp_path / "out", workers=1)
    finally:
        unregister_study("mine")


def test_a_study_that_cannot_be_sent_to_workers_is_refused(photographs, tmp_path):
    register_study(declared(conditions=lambda plan: [CLEAN]))
    try:
        given = {"models": "shapes", "datasets": str(photographs), "methods": "gradcam", "batch_size": 1}
        plan = checked_plan({"study": "mine", **given})
        with pytest.raises(InvalidStudy, match=r"must be importable for several worker processes.*--workers 1"):
            run.run(plan, tmp_path / "out", workers=2)
    finally:
        unregister_study("mine")


def test_a_study_file_must_name_its_study():
    names = ", ".join(study.name for study in all_studies())
    with pytest.raises(InvalidStudy, match=rf"`study` is missing. Name one of {names}"):
        checked_plan({"models": "shapes", "datasets": "shapes"})
    with pytest.raises(InvalidStudy, match=r"`study` must be one of .*. Got 'scores'. Did you mean 'score'\?"):
        checked_plan({"study": "scores", "models": "shapes", "datasets": "shapes"})


def test_a_report_of_a_study_that_is_not_known_here_says_so(toy_plan, tmp_path):
    run.run(toy_plan, tmp_path / "out", workers=1)
    unregister_study("toy")
    with pytest.raises(UnknownName, match="No study is called 'toy'"):
        write_tables(tmp_path / "out")


def _failing(findings):
    raise ValueError("boom")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sections": (_failing,)}, "The section '_failing' of the study 'mine' failed. It raised ValueError: boom"),
        ({"sections": (lambda findings: "text",)}, "must give a Section or None. Got str"),
        ({"tables": {"a.csv": _failing}}, "The table a.csv of the study 'mine' failed. It raised ValueError: boom"),
        ({"tables": {"a.csv": lambda findings: [1]}}, "must be a data frame or None. Got list"),
    ],
)
def test_a_section_or_table_that_fails_is_named(photographs, tmp_path, changes, said):
    register_study(declared(**changes))
    try:
        given = {"models": "shapes", "datasets": str(photographs), "methods": "gradcam", "controls": "none"}
        run.run(checked_plan({"study": "mine", **given}), tmp_path / "out", workers=1)
        with pytest.raises(InvalidStudy, match=re.escape(said)):
            write_report(tmp_path / "out")
    finally:
        unregister_study("mine")


def test_cases_that_fail_are_named_and_settings_are_a_class_of_plan(photographs, tmp_path):
    for cases, said in ((lambda rows, plan: 3, "raised TypeError"), (lambda rows, plan: [3], "of `Case`. Got int")):
        register_study(declared(cases=cases))
        try:
            given = {"models": "shapes", "datasets": str(photographs), "methods": "gradcam", "controls": "none"}
            with pytest.raises(InvalidStudy, match=f"The cases of the study 'mine' .*{said}"):
                run.run(checked_plan({"study": "mine", **given}), tmp_path / "out", workers=1)
        finally:
            unregister_study("mine")
    with pytest.raises(InvalidStudy, match=r"must be a class of `Plan`. Got <class 'dict'>"):
        declared(settings=dict)
    with pytest.raises(InvalidStudy, match="nowhere"):
        checked_plan({"study": "python:nowhere:STUDY", "models": "shapes", "datasets": "shapes"})


def test_the_noise_sections_say_what_they_leave_out(photographs, tmp_path):
    """Noise, noise after a rotation, another class and other weights in one study with the tables of noise."""
    from heatproof.studies.noise_robustness import STUDY, NoisePlan

    turned = "rotation[degrees=180]"
    conditions = [
        CLEAN,
        Condition("jpeg", 1),
        Condition("jpeg", 1, transformation=turned),
        Condition(transformation=turned),
        Condition(target="least"),
        Condition(state="randomised"),
    ]
    study = declared(
        settings=NoisePlan,
        conditions=lambda plan: conditions,
        measures=("rbo", "kappa", "cosine"),
        cases=STUDY.cases,
        tables={"robustness.csv": "robustness"},
        sections=("robustness_verdict", "robustness", "gallery"),
    )
    register_study(study)
    try:
        given = {"models": "shapes", "datasets": str(photographs), "methods": ["gradcam", "eigencam"], "limit": 3}
        run.run(checked_plan({"study": "mine", "severities": [1], **given}), tmp_path / "out", workers=1)
        page = write_report(tmp_path / "out").read_text("utf-8")
    finally:
        unregister_study("mine")
    table = pd.read_csv(tmp_path / "out" / "tables" / "robustness.csv")
    assert set(table["perturbation"]) == {"jpeg", turned, f"jpeg after {turned}"}
    assert "they change more than the image: target least; randomised." in page
    assert "at , severity 0" not in page


def test_another_condition_is_another_study(photographs, tmp_path):
    given = {"models": "shapes", "datasets": str(photographs), "methods": "gradcam", "controls": "none"}
    for conditions in ([CLEAN], [CLEAN, Condition("jpeg", 3)]):
        register_study(declared(conditions=lambda plan, conditions=conditions: conditions))
        try:
            plan = checked_plan({"study": "mine", **given})
            if len(conditions) == 1:
                run.run(plan, tmp_path / "out", workers=1)
                continue
            with pytest.raises(StoreError, match=r"other settings: conditions is \["):
                run.run(plan, tmp_path / "out", workers=1)
        finally:
            unregister_study("mine")


def test_rows_and_seeds_name_a_checkpoint_not_where_it_lies(photographs, tmp_path):
    """The same weights in two folders give the same rows; a name of one's own tells two files of one name apart."""
    import safetensors.torch

    import heatproof

    weights = heatproof.load_model("shapes").module.state_dict()
    found = []
    for number, folder in enumerate(("here", "there")):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "last.safetensors"
        safetensors.torch.save_file({key: (value * 0.5).contiguous() for key, value in weights.items()}, file)
        states = [Condition(state=str(file)), Condition(state=f"twin={file}")]
        register_study(declared(conditions=lambda plan, states=states: [CLEAN, *states], measures=("cosine",)))
        try:
            given = {"models": "shapes", "datasets": str(photographs), "methods": ["gradcam"], "limit": 2}
            run.run(checked_plan({"study": "mine", **given}), tmp_path / f"out{number}", workers=1)
        finally:
            unregister_study("mine")
        found.append(rows(tmp_path / f"out{number}"))
    pd.testing.assert_frame_equal(*found)
    assert set(found[0]["state"]) == {"", "last", "twin"}
    twice = declared(conditions=lambda plan: [Condition(state="a/last.pt"), Condition(state="b/last.pt")])
    with pytest.raises(InvalidStudy, match=r"or the name of the state.*Got 'last' twice"):
        twice.all_conditions(Plan(study="mine", models="shapes", datasets="shapes"))


def test_an_image_without_a_label_is_no_case_where_the_label_is_explained(photographs, tmp_path):
    """It is set aside where all conditions explain the label; where some do, it is kept for the others."""
    from heatproof.studies import jobs, loading
    from heatproof.studies.worker import Worker

    names = sorted(path.name for path in photographs.iterdir())
    labels = tmp_path / "labels.csv"
    labels.write_text("file,class_index\n" + "".join(f"{name},1\n" for name in names[1:]))
    for target, others in (("predicted", []), ("predicted", [Condition(target="label")]), ("label", [])):
        study = declared(conditions=lambda plan, others=others: [CLEAN, *others])
        given = {"images": str(photographs), "labels": str(labels)}
        plan = Plan(study="mine", models="shapes", datasets=given, target=target)
        setup = jobs.Setup(plan, ("stage4",), run.open_datasets(plan), "", "", "cpu", declared=study)
        worker = Worker(setup, loading.StudyModels(plan, "cpu"))
        block = worker.block(0, 0, range(len(names)), most=2)
        aside = target == "label"
        assert block.ids == (names[1:3] if aside else names[:2])
        assert block.failed == ({names[0]: "no label"} if aside else {})
        assert block.unlabelled == ({} if aside else {names[0]: "no label"})


def test_settings_of_ones_own_are_given_on_the_command_line(photographs, tmp_path, capsys):
    import json

    from heatproof import cli

    class Turned(Plan):
        degrees: float = 90.0

    study = declared(
        settings=Turned,
        conditions=lambda plan: [CLEAN, Condition(transformation=f"rotation[degrees={plan.degrees:g}]")],
    )
    register_study(study)
    command = ["run", "mine", "--model", "shapes", "--images", str(photographs), "--methods", "gradcam", "--limit", "1"]
    command += ["--controls", "none", "--workers", "1", "--no-report"]
    try:
        with pytest.raises(SystemExit) as done:
            cli.main([*command, "--setting", "degrees=30", "--out", str(tmp_path / "out")])
        assert not done.value.code
        assert json.loads((tmp_path / "out" / "study.json").read_text("utf-8"))["degrees"] == 30
        with pytest.raises(SystemExit):
            cli.main([*command, "--setting", "degree=30", "--out", str(tmp_path / "other")])
        assert "`degree` is no setting. Did you mean `degrees`?" in capsys.readouterr().err
    finally:
        unregister_study("mine")


def test_measures_may_be_taken_on_every_condition():
    assert Measure("complexity", conditions="all").conditions == "all"
    assert study_named("score").measured(checked_plan({"study": "score", "models": "shapes", "datasets": "shapes"}))

"""What `heatproof plan` tells: rows equal to those written, passes near those made, linear in images, no file."""

import json
from collections import Counter

import pytest

from heatproof import cli
from heatproof.attributions import ATTRIBUTIONS
from heatproof.cli.plan_command import file_size, sentences
from heatproof.errors import InvalidStudy
from heatproof.studies import other_parts, prediction, run
from heatproof.studies.cost import Passes
from heatproof.studies.image_time import Cell
from heatproof.studies.plan import checked_plan
from heatproof.studies.planning import planned
from heatproof.studies.prediction import Prediction, duration, on_clock, part_costs
from heatproof.studies.store import connect
from heatproof.studies.timed_parts import Progress

QUICK = {"models": "shapes", "datasets": "shapes", "limit": 3, "batch_size": 2, "resamples": 100}
STUDIES = {
    "noise-robustness": {"methods": ["gradcam", "eigencam"], "perturbations": ["gaussian-noise", "fgsm"],
                         "severities": [1, 3], "segmenters": "grid"},
    "score": {"methods": ["gradcam", "scorecam"], "metrics": ["arcc", "insertion[steps=8]", "road", "energy"]},
    "audit": {"methods": ["gradcam", "eigencam"], "perturbations": ["jpeg"], "severities": [3], "segmenters": "grid",
              "controls": "none"},
    "fidelity": {"methods": ["gradcam", "gradient"], "metrics": ["average-drop", "deletion[steps=4]", "entropy"],
                 "transformations": ["mixup[seed=44]", "resize[size=32]", "rotation[degrees=45]"]},
}  # fmt: skip


class Told:
    """Progress that is shown, so that passes are counted."""

    def stage(self, name: str, total: float, done: float = 0) -> None:
        """A stage begins."""

    def advance(self, units: float) -> None:
        """It moves on."""


def kinds(folder) -> Counter:
    """The rows of a study by kind."""
    sql = (
        "SELECT CASE WHEN method = '' AND metric NOT LIKE 'map-%' THEN 'about images' WHEN metric LIKE 'map-%' THEN "
        "'about maps' WHEN metric LIKE '%-curve' THEN 'points of curves' ELSE 'scores' END AS kind, count(*) "
        "FROM rows GROUP BY kind"
    )
    return Counter(dict(connect(folder).execute(sql).fetchall()))


@pytest.mark.parametrize("study", STUDIES)
def test_rows_are_those_written_and_passes_near_those_made(study, tmp_path):
    plan = checked_plan({"study": study, **QUICK, **STUDIES[study]})
    found = planned(plan, workers=1, measure=0.5)
    done = run.run(plan, tmp_path / "out", workers=1, progress=Told())
    assert found.rows == dict(kinds(tmp_path / "out"))
    assert done.passes is not None and found.jobs == done.ran
    made, told = done.passes.made, found.all_passes
    assert 0.9 < told.forward / made.forward < 1.1 and 0.9 < told.backward / made.backward < 1.1, (told, made)
    assert found.seconds > 0 and all(part.seconds >= 0 for part in found.parts)


def test_what_a_worker_asks_once_is_no_pass_of_an_image(tmp_path):
    """In a process of its own a worker looks for the network's layers first."""
    plan = checked_plan({"study": "score", **QUICK, "methods": ["gradcam"], "metrics": ["complexity"]})
    done = run.run(plan, tmp_path / "out", workers=1, executor="processes", progress=Told())
    assert done.passes.made == Passes(3, 3) and done.passes.needed.forward == 3
    assert done.passes.probes > 0
    assert str(done.passes).endswith(f"{done.passes.probes:.0f} more, of noise, looked once at the network's layers.")


def test_rows_of_images_with_other_labels_and_of_broken_files(photographs, tmp_path):
    """Methods that are not applicable, images that no label is known of, and maps made beforehand have rows too."""
    (tmp_path / "labels.csv").write_text("file,class_index\nimage 0.png,1\nimage 2.png,2\n")
    data = {"images": str(photographs), "labels": str(tmp_path / "labels.csv")}
    given = {"models": "shapes", "datasets": [data], "study": "score", "methods": ["gradcam", "attention-rollout"],
             "metrics": ["complexity", "average-drop"], "target": "label", "batch_size": 2}  # fmt: skip
    plan = checked_plan(given)
    found = planned(plan, workers=1, measure=0.2)
    run.run(plan, tmp_path / "out", workers=1)
    assert found.rows == dict(kinds(tmp_path / "out"))


def test_more_images_take_in_proportion_more(monkeypatch):
    """With the same time for an image, all else is linear in their number."""
    given = {"study": "noise-robustness", **QUICK, **STUDIES["noise-robustness"], "batch_size": 4}
    few, many = (planned(checked_plan({**given, "limit": limit}), workers=2, measure=0.3) for limit in (12, 48))
    assert {kind: 4 * count for kind, count in few.rows.items()} == many.rows
    assert many.all_passes == few.all_passes * 4 and many.segmented == 4 * few.segmented == 48
    assert (few.jobs, many.jobs) == (3, 12) and few.images == {"shapes": 12}
    assert many.bytes["maps"] == pytest.approx(4 * few.bytes["maps"], rel=0.01)
    assert few.workers == 2 and {part.kind for part in few.parts} == {"method", "control", "metric", "change", "model"}


def test_workers_share_the_jobs_and_no_more():
    assert on_clock(90, 1, 10) == 90
    assert on_clock(90, 2, 10) == pytest.approx(50), "the second adds .8 of the first's speed"
    assert on_clock(90, 8, 1) == 90, "one job is done by one worker"
    assert on_clock(90, 2, 3) == pytest.approx(90 * 2 / 3 * 2 / 1.8), "the third job leaves one worker idle"


def test_parts_add_up_and_name_what_dominates():
    cells = [Cell("", "", "", 1.0, 1), Cell("gradcam", "", "", 1.0), Cell("rise", "", "jpeg", 6.0, 4000),
             Cell("rise", "road", "", 2.0, 8), Cell("random", "road", "", 0.0)]  # fmt: skip
    parts = part_costs([("net", cell, 3) for cell in cells], {"random"})
    by = {(part.kind, part.name): part for part in parts}
    assert by["method", "rise"].seconds == 24 and by["method", "rise"].share == 0.8
    assert by["metric", "road"].seconds == 6 and by["metric", "road"].passes == 24
    assert by["control", "random"].seconds == 0 and by["model", "net"].share == 1
    assert [part.name for part in parts if part.kind == "method"] == ["rise", "gradcam"], "the costliest first"
    found = Prediction("score", {"a": 3}, 1, {}, {"net": Passes()}, 0, {"rows": 1, "maps": 0, "gallery": 0}, 30.0, 1,
                       "cpu", 1, {}, parts)  # fmt: skip
    assert found.dominant() == by["method", "rise"], "the only metric and the only model have nothing beside them"
    told = "\n".join(sentences(found))
    assert "Warning: the method rise takes 80% of the time." in told and "heatproof why rise" in told


def test_work_that_was_stopped_is_told_by_its_passes():
    times = iter([0.0, 2.0, 5.0])
    progress = Progress(lambda: next(times))
    progress.seen(4)  # two seconds until the first pass
    progress.seen(4)
    progress.stopped, progress.end = True, next(times)
    assert progress.seconds(40, rate=9.0) == 2 + (40 - 4) * 3 / 4
    progress.stopped = False
    assert progress.seconds(40, rate=9.0) == 5, "what was done has its own time"


def test_durations_and_sizes_for_people():
    assert [duration(s) for s in (0.2, 59, 60, 200, 7200, 12000, 180000)] == [
        *("1 s", "59 s", "1 min", "3 min 20 s", "2 h", "3 h 20 min", "2 d 2 h")
    ]
    assert [file_size(n) for n in (0, 300, 12_000, 3.4e6, 1.2e9)] == ["0 kB", "1 kB", "12 kB", "3.4 MB", "1.2 GB"]


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


SMALL = ["score", "--model", "shapes", "--images", "shapes", "--limit", "3", "--methods", "gradcam,rise[masks=400]",
         "--metrics", "complexity,average-drop", "--controls", "none", "--measure", "0.3"]  # fmt: skip


def test_the_command_answers_first_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = called(capsys, "plan", *SMALL, "--workers", "1")
    assert code == 0 and not list(tmp_path.iterdir())
    lines = out.splitlines()
    assert lines[0].startswith("This study takes about ") and lines[0].endswith(" with one worker.")
    assert "3 images in 1 job; " in lines[1] and max(map(len, lines)) <= 100
    assert "Warning: the method rise[masks=400] takes" in out
    # All of them take ten seconds.
    monkeypatch.setattr(other_parts, "ATTRIBUTIONS", {k: ATTRIBUTIONS[k] for k in ("gradcam", "layercam", "scorecam")})
    monkeypatch.setattr(other_parts, "METRICS", ("insertion", "complexity", "energy", "arcc", "rbo"))
    code, out, _ = called(capsys, "plan", *SMALL, "--json", "--others")
    facts = json.loads(out)
    assert code == 0 and not list(tmp_path.iterdir())
    assert facts["rows"]["all"] == sum(n for kind, n in facts["rows"].items() if kind != "all")
    assert facts["passes"]["shapes"]["forward"] == 3 * (1 + 400 + 2) and facts["more than half"]["kind"] == "method"
    others = {part["name"]: part["passes"] for part in facts["others"]}
    assert others == {"layercam": 3, "scorecam": 3 * 128, "insertion": 3 * (28 + 27), "energy": 0}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["plan", "scor"], "Did you mean 'score'"),
        (["plan", "score"], "--model must say what to study"),
        (["plan", "score", "--model", "shapes", "--images", "shapes", "--measure", "0"], "more than 0 seconds"),
        (["plan", "score", "--model", "shapes", "--images", "shapes", "--workers", "0"], "`workers` must be at least"),
        (["plan", "score", "--model", "shapes", "--images", "shapes", "--methods", "gradcm"], "Did you mean 'gradcam'"),
    ],
)
def test_what_cannot_be_planned_is_one_line(capsys, arguments, told):
    code, out, err = called(capsys, *arguments)
    assert code == 2 and told in err and "Traceback" not in err and not out


def test_a_run_tells_the_time_beside_the_prediction(capsys, tmp_path):
    out = ["--out", str(tmp_path / "out"), "--workers", "1", "--no-report"]
    code, text, _ = called(capsys, "run", *SMALL, *out)
    assert code == 0 and "Passes of 3 images: " in text
    assert "Time of the jobs: " in text and "predicted for one worker" in text
    code, text, _ = called(capsys, "run", *SMALL, *out)
    assert code == 0 and "Time of the jobs" not in text, "nothing was left to do"


def test_a_measurement_that_cannot_be_is_refused_before_any_work(tmp_path):
    plan = checked_plan({"study": "score", **QUICK})
    with pytest.raises(InvalidStudy, match=r"`measure` must be more than 0 seconds\. Got -1"):
        run.run(plan, tmp_path / "out", workers=1, measure=-1)
    assert not (tmp_path / "out").exists() and prediction.SECONDS == 10

"""Files of a finished study that were cut off, altered or lost: found, and run again to the same bytes."""

import shutil
from pathlib import Path

import pytest

from heatproof import cli
from heatproof.errors import HeatproofWarning, StoreError
from heatproof.report import write_report
from heatproof.studies import run
from heatproof.studies.plan import checked_plan
from heatproof.studies.store import Store, connect


def files(folder: Path) -> dict[str, bytes]:
    names = ("rows/*", "maps/*", "sums/*", "gallery/*")
    return {str(path.relative_to(folder)): path.read_bytes() for name in names for path in sorted(folder.glob(name))}


@pytest.fixture(scope="module")
def undisturbed(shared_folder, photographs):
    """A plan and the folder of its finished study, to be read only."""
    plan = checked_plan(
        {"study": "noise-robustness", "models": "shapes", "datasets": str(photographs), "methods": ["gradcam"],
         "perturbations": ["gaussian-noise"], "severities": [3], "segmenters": ["grid"], "batch_size": 2,
         "controls": "none", "resamples": 100}
    )  # fmt: skip
    return plan, shared_folder("damage-study", lambda folder: run.run(plan, folder, workers=1))


@pytest.fixture
def own_copy(undisturbed, tmp_path):
    plan, folder = undisturbed
    return plan, Path(shutil.copytree(folder, tmp_path / "copy")), folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """One bit in the middle: the file is read without an error, or with another number."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("blow", [cut, emptied, flipped, Path.unlink])
@pytest.mark.parametrize("name", ["rows/{}.parquet", "maps/{}.npz", "sums/{}.json"])
def test_a_damaged_job_is_run_again_to_the_same_bytes(own_copy, blow, name):
    plan, folder, undisturbed = own_copy
    damaged = folder / name.format("m00-d00-0000002")
    blow(damaged)
    if blow is Path.unlink and not name.startswith("maps"):  # a job that is not done; rows of an older version
        assert run.run(plan, folder, workers=1).ran == name.startswith("rows")
        assert files(folder) | files(undisturbed) == files(undisturbed)
        return
    if blow is flipped and name.startswith("sums"):
        damaged.write_bytes(damaged.read_bytes().replace(b"bytes", b"bites"))
    with pytest.warns(HeatproofWarning, match=rf"{damaged.name} is damaged: .* This job is run again"):
        done = run.run(plan, folder, workers=1)
    assert (done.ran, done.kept) == (1, 2)
    assert files(folder) == files(undisturbed)


@pytest.mark.parametrize("blow", [cut, emptied, flipped])
def test_damaged_rows_are_never_reported(own_copy, blow, capsys):
    _, folder, _ = own_copy
    damaged = folder / "rows" / "m00-d00-0000004.parquet"
    blow(damaged)
    for ask in (connect, write_report):
        with pytest.raises(StoreError, match=r"m00-d00-0000004\.parquet is damaged: .* Run the command of the study"):
            ask(folder)
    blow(folder / "rows" / "m00-d00-0000000.parquet")
    for words in (["report", str(folder)], ["query", str(folder), "select 1"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 1
        assert "So are 1 more" in capsys.readouterr().err


@pytest.mark.parametrize("blow", [cut, emptied])
@pytest.mark.parametrize("name", ["rows/{}.parquet", "maps/{}.npz"])
def test_jobs_of_older_versions_are_kept_if_their_files_are_whole(own_copy, blow, name):
    plan, folder, undisturbed = own_copy
    shutil.rmtree(folder / "sums")
    assert run.run(plan, folder, workers=1).ran == 0
    assert connect(folder)
    blow(folder / name.format("m00-d00-0000002"))
    with pytest.warns(HeatproofWarning, match=r"m00-d00-0000002\.\w+ is damaged: it cannot be read"):
        assert run.run(plan, folder, workers=1).ran == 1
    assert files(folder) | files(undisturbed) == files(undisturbed)


@pytest.mark.parametrize("blow", [cut, emptied, flipped, Path.unlink])
def test_a_damaged_gallery_is_drawn_again(own_copy, blow):
    plan, folder, undisturbed = own_copy
    for damaged in (next(folder.glob("gallery/case-*.npz")), folder / "gallery" / "index.json"):
        blow(damaged)
        if damaged.suffix == ".npz":
            with pytest.raises(StoreError, match="gallery"):
                write_report(folder)
        assert run.run(plan, folder, workers=1).ran == 0
        assert files(folder) == files(undisturbed)


@pytest.mark.parametrize("content", ["", '{"study": "noi', "[]", "\x00\x01"])
def test_a_damaged_plan_is_said_with_what_to_do(own_copy, content):
    plan, folder, undisturbed = own_copy
    (folder / "study.json").write_text(content)
    for ask in (lambda: run.run(plan, folder, workers=1), lambda: write_report(folder)):
        with pytest.raises(StoreError, match=r"study\.json must hold a study's plan.* Delete it and run the same"):
            ask()
    (folder / "study.json").unlink()
    assert run.run(plan, folder, workers=1).ran == 0
    assert files(folder) == files(undisturbed)


def test_a_damaged_part_of_an_unfinished_job_is_worked_out_again(own_copy):
    plan, folder, undisturbed = own_copy
    Store(folder).discard("m00-d00-0000002")
    part = folder / "partial" / "m00-d00-0000002" / "0000.npz"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"PK\x03\x04 cut off")
    assert run.run(plan, folder, workers=1).ran == 1
    assert files(folder) == files(undisturbed)
    assert not (folder / "partial").exists()


def test_strengths_that_cannot_be_read_are_calibrated_again(tmp_path, photographs):
    plan = checked_plan(
        {"study": "noise-robustness", "models": "shapes", "datasets": str(photographs), "methods": ["gradcam"],
         "perturbations": ["gaussian-noise"], "calibrate": [0.3], "segmenters": ["grid"], "limit": 2,
         "controls": "none", "resamples": 100}
    )  # fmt: skip
    run.run(plan, tmp_path, workers=1)
    written = (tmp_path / "calibration.json").read_bytes()
    cut(tmp_path / "calibration.json")
    with pytest.warns(HeatproofWarning, match=r"calibration\.json is damaged"):
        run.run(plan, tmp_path, workers=1)
    assert (tmp_path / "calibration.json").read_bytes() == written


def test_lost_rows_are_told_on_the_terminal_and_on_the_page(tmp_path, capsys):
    from heatproof import cli

    words = "run noise-robustness --model shapes --images shapes --limit 3 --batch-size 1 --methods eigencam"
    more = "--perturbations gaussian-noise --severities 1 --segmenter grid --workers 1 --no-report --out"
    with pytest.raises(SystemExit):
        cli.main([*words.split(), *more.split(), str(tmp_path / "out")])
    sorted((tmp_path / "out" / "rows").glob("*.parquet"))[1].unlink()
    capsys.readouterr()
    out = str(tmp_path / "out")
    for command in (["report", out], ["query", out, "SELECT count(*) FROM rows", "--format", "csv"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(command)
        told = capsys.readouterr()
        assert not ended.value.code and "1 of 3 jobs" in told.out + told.err
    assert "Unfinished: 1 of 3 jobs is missing" in (tmp_path / "out" / "report.html").read_text()

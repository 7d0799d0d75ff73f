"""A study in shards, each in a folder of its own, and what they are put together to: the study in one piece."""

import json
import shutil
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from heatproof import cli
from heatproof.errors import InvalidInput, InvalidStudy, StoreError
from heatproof.studies import run
from heatproof.studies.merging import merged
from heatproof.studies.plan import checked_plan
from heatproof.studies.shards import Shard, job_keys, shard_folders
from heatproof.studies.store import Store

COMMAND = "--model shapes --limit 5 --batch-size 1 --methods gradcam --controls none"
NOISE = f"run noise-robustness --images shapes {COMMAND} --perturbations contrast --severities 3 --segmenter grid"
SCORE = f"score shapes {COMMAND} --metrics complexity,sparseness"


def called(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    said = capsys.readouterr()
    return ended.value.code or 0, said.out, said.err  # type: ignore[return-value]


def files(folder: Path) -> dict[str, bytes]:
    names = ("rows/*", "maps/*", "sums/*", "gallery/*", "tables/*", "report.html")
    return {str(path.relative_to(folder)): path.read_bytes() for name in names for path in sorted(folder.glob(name))}


@pytest.fixture(scope="module")
def plan(photographs):
    return checked_plan(
        {"study": "noise-robustness", "models": "shapes", "datasets": str(photographs), "methods": ["gradcam"],
         "perturbations": ["contrast"], "severities": [3], "segmenters": ["grid"], "batch_size": 1,
         "controls": "none", "resamples": 100}
    )  # fmt: skip


@pytest.fixture(scope="module")
def three(shared_folder, plan):
    """The folder of three shards, to be read only."""

    def filled(folder: Path) -> None:
        for number in (3, 1, 2):
            run.run(plan, folder, workers=1, shard=Shard(number, 3))

    return shared_folder("three-shards", filled)


@pytest.fixture
def shards(three, tmp_path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "out"))


def test_shards_take_jobs_in_turn_and_each_job_once():
    jobs = list(range(10))
    taken = [Shard(number, 4).of(jobs) for number in range(1, 5)]
    assert taken == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]
    assert Shard(11, 10).of(jobs) == []
    assert (Shard(3, 40).name, Shard(3, 4000).name) == ("shard-003-of-040", "shard-0003-of-4000")


@pytest.mark.parametrize("text", ["", "3", "a/b", "0/2", "3/2", "-1/2", "1/2/3", "1/0", None, 5, (1,)])
def test_what_is_no_shard_is_said(text):
    with pytest.raises(InvalidInput, match="--shard must"):
        Shard.read(text)


def test_the_keys_of_the_jobs_follow_from_the_plan(three):
    plan = Store(shard_folders(three)[0]).plan()
    assert plan is not None
    assert job_keys(plan) == [f"m00-d00-{start:07d}" for start in range(5)]
    assert plan["jobs"] == 5


@pytest.mark.parametrize("command", [NOISE, SCORE])
def test_commands_with_shards_and_one_that_merges_give_the_study_in_one_piece(tmp_path, capsys, command):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert called(capsys, *command.split(), "--out", str(whole), "--workers", "1")[0] == 0
    for number in (2, 1):
        code, said, _ = called(capsys, *command.split(), "--out", str(out), "--workers", "1", "--shard", f"{number}/2")
        assert code == 0
        assert f"Once all 2 are done: heatproof merge {out}" in said
    assert sorted(path.name for path in out.iterdir()) == ["shard-001-of-002", "shard-002-of-002"]
    assert not list(out.glob("*/report.html")) and not list(out.glob("*/tables")) and not list(out.glob("*/gallery"))
    code, said, err = called(capsys, "merge", str(out), "--workers", "1")
    assert code == 0 and "5 were there already" in said and "note: " not in err
    assert files(out) == files(whole)
    plans = [json.loads((folder / "study.json").read_text()) for folder in (whole, out)]
    assert {name for name in plans[0] if plans[0][name] != plans[1].get(name)} <= {"command"}
    assert "shard" not in plans[1]
    before = files(out)
    assert called(capsys, "merge", str(out))[0] == 0  # once more
    assert files(out) == before


def test_files_are_linked_and_folders_of_several_machines_are_put_together(three, shards, tmp_path):
    one, two = shutil.copytree(shards, tmp_path / "one"), shutil.copytree(shards, tmp_path / "two")
    shutil.rmtree(one / "shard-001-of-003")
    for number in (2, 3):
        shutil.rmtree(two / f"shard-00{number}-of-003")
    with pytest.raises(InvalidInput, match="Give --out"):
        merged([one, two])
    folder = merged([one, two / "shard-001-of-003"], tmp_path / "all")
    assert sorted(path.stem for path in (folder / "rows").iterdir()) == [f"m00-d00-{start:07d}" for start in range(5)]
    mine = folder / "rows" / "m00-d00-0000001.parquet"
    assert mine.samefile(one / "shard-002-of-003" / "rows" / mine.name)
    assert "shard-" not in (folder / "study.yaml").read_text().splitlines()[0]


def test_missing_jobs_are_named_by_their_shards(shards):
    Store(shards / "shard-002-of-003").discard("m00-d00-0000004")
    with pytest.raises(StoreError, match=r"1 of 5 jobs are missing\. Run the same command with --shard 2/3 to its end"):
        merged([shards])
    shutil.rmtree(shards / "shard-001-of-003")
    with pytest.raises(StoreError, match=r"3 of 5 jobs are missing\. .* --shard 1/3, --shard 2/3 to its end"):
        merged([shards])
    assert not (shards / "rows").exists() or not list((shards / "rows").iterdir())


def test_a_shard_that_is_running_is_waited_for(shards):
    with Store(shards / "shard-002-of-003").opened(), pytest.raises(StoreError, match=r"shard-002-of-003 is still run"):
        merged([shards])
    merged([shards])


def test_a_damaged_shard_is_said(shards):
    damaged = shards / "shard-003-of-003" / "maps" / "m00-d00-0000002.npz"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.raises(StoreError, match=r"m00-d00-0000002\.npz is damaged: .* Run .* \(--shard 3/3\) again, then"):
        merged([shards])


def test_shards_of_other_studies_and_counts_are_refused(shards, plan, tmp_path):
    other = plan.model_copy(update={"severities": (1,)})
    shutil.rmtree(shards / "shard-003-of-003")
    run.run(other, shards, workers=1, shard=Shard(3, 3))
    with pytest.raises(StoreError, match=r"shard-003-of-003 is of another study than .*severities is \[3\] there and"):
        merged([shards])
    shutil.rmtree(shards / "shard-003-of-003")
    run.run(plan, shards, workers=1, shard=Shard(2, 2))
    with pytest.raises(StoreError, match="shards of 2 and of 3, which overlap"):
        merged([shards])


def test_a_job_with_two_results_is_refused(shards, tmp_path):
    copy = shutil.copytree(shards / "shard-001-of-003", tmp_path / "copy")
    merged([*shard_folders(shards), copy], tmp_path / "equal")
    store = Store(copy)
    table = pq.read_table(store.rows / "m00-d00-0000000.parquet")
    store.write_shard("m00-d00-0000000", table.slice(1))
    with pytest.raises(StoreError, match="different results of the job m00-d00-0000000"):
        merged([*shard_folders(shards), copy], tmp_path / "different")


def test_folders_without_shards_are_said(tmp_path, plan, shards):
    with pytest.raises(InvalidInput, match="holds no shards"):
        merged([tmp_path])
    run.run(plan, tmp_path / "whole", workers=1)
    with pytest.raises(InvalidInput, match="in one piece"):
        merged([tmp_path / "whole"])
    with pytest.raises(StoreError, match="holds another study than the shards"):
        run.run(plan.model_copy(update={"severities": (1,)}), tmp_path / "other", workers=1)
        merged([shards], tmp_path / "other")


def test_jobs_that_the_folder_has_already_are_kept(shards, plan):
    run.run(plan, shards, workers=1)
    Store(shards).discard("m00-d00-0000003")
    Store(shards / "shard-002-of-003").discard("m00-d00-0000001")
    merged([shards])
    assert len(Store(shards).done()) == 5


def test_a_shard_goes_on_where_it_was_stopped_and_an_empty_one_ends(plan, tmp_path):
    assert run.run(plan, tmp_path, workers=1, shard=Shard(1, 4)).ran == 2
    Store(tmp_path / "shard-001-of-004").discard("m00-d00-0000004")
    done = run.run(plan, tmp_path, workers=1, shard=Shard(1, 4))
    assert (done.ran, done.kept, done.folder) == (1, 1, tmp_path / "shard-001-of-004")
    assert run.run(plan, tmp_path, workers=1, shard=Shard(9, 9)).ran == 0


def test_a_shard_without_jobs_says_why(tmp_path, capsys):
    given = "--model shapes --limit 2 --methods gradcam --metrics complexity --controls none --workers 1 --shard 5/8"
    code, out, _ = called(capsys, "score", "shapes", *given.split(), "--out", str(tmp_path / "out"))
    assert code == 0 and "0 jobs done." in out
    assert "It has nothing to do: the study has 1 job, and shards take them in turn, one each." in out


def test_a_shard_has_no_budget_and_no_page(tmp_path, capsys):
    audit = checked_plan({"study": "audit", "models": "shapes", "datasets": "shapes", "budget": 1})
    with pytest.raises(InvalidStudy, match="--budget gives each its own"):
        run.run(audit, tmp_path, workers=1, shard=Shard(1, 2))
    code, _, err = called(capsys, *SCORE.split(), "--out", str(tmp_path), "--shard", "1/2", "--latex", "x")
    assert code == 2 and "heatproof merge" in err
    code, _, err = called(capsys, *SCORE.split(), "--out", str(tmp_path), "--shard", "3/2")
    assert code == 2 and "--shard must have a number from 1" in err


def test_a_network_that_is_not_here_leaves_out_the_gallery_alone(shards, capsys):
    for archive in shards.glob("*/study.yaml"):
        archive.write_text(archive.read_text().replace("spec: shapes", "spec: python:nowhere:net"))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, said, err = called(capsys, "merge", str(shards))
    assert code == 0 and "Report: " in said
    assert "No gallery: " in err and "nowhere" in err
    assert (shards / "report.html").exists()

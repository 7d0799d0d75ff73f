"""Results folders as the viewer reads them: lists, filters, orders, maps, scores; and folders that are not whole."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from heatproof.attributions.display import display_maps
from heatproof.cli import main
from heatproof.errors import StoreError
from heatproof.live.study_images import StudyImages
from heatproof.panels.explained_image import ClassProbability, ExplainedClass, ExplainedImage, Map, summary
from heatproof.view.explained_collection import ExplainedCollection
from heatproof.view.interface import PAGE, Wanted
from heatproof.view.opening import opened
from heatproof.view.stored_maps import displayed
from heatproof.view.study_collection import StudyCollection

from .stores import CLASSES, KIND, METHODS, NASTY, SIZE, picture, write_index, write_study


@pytest.fixture(scope="module")
def collection(study) -> StudyCollection:
    return StudyCollection(study, StudyImages(study))


def names(page) -> list[str]:
    return [row.name for row in page.rows]


def wanted(*filters: str, **asked) -> Wanted:
    return Wanted(frozenset(filters), **{"score": "arcc", **asked})


def test_the_list_has_pages_and_ends_at_the_last(collection):
    first = collection.page(wanted())
    assert (len(first.rows), first.total, first.of, first.pages) == (PAGE, 30, 30, 2)
    last = collection.page(wanted(page=9))
    assert (last.number, len(last.rows)) == (1, 6)
    assert names(first) + names(last) == sorted(names(first) + names(last))


def test_filters_say_what_the_rows_say(collection):
    """The writer's own rules: every fourth changes at severity 3, every fifth is wrong, average drop grows."""
    every = [*NASTY, *(f"{i:02d}.png" for i in range(27))]
    assert set(names(collection.page(wanted("changed")))) == {n for i, n in enumerate(every) if i % 4 == 0}
    assert set(names(collection.page(wanted("wrong")))) == {n for i, n in enumerate(every) if i % 5 == 0}
    both = collection.page(wanted("wrong", "changed"))
    assert set(names(both)) == {n for i, n in enumerate(every) if i % 20 == 0} and both.of == 30
    assert all(row.turns_at == 3 for row in both.rows)
    worst = names(collection.page(wanted("low", score="average-drop")))
    assert set(worst) == set(every[27:])  # the worst tenth of 30, where lower is better
    score = {n: [((i * (7 + m)) % 30) / 30 for m in range(2)] for i, n in enumerate(every)}
    spread = sorted((abs(a - b) for a, b in score.values()), reverse=True)
    apart = set(names(collection.page(wanted("apart"))))
    assert apart and all(abs(score[n][0] - score[n][1]) > np.quantile(spread, 0.9) for n in apart)
    assert "broken" not in collection.filters


def test_orders(collection):
    every = [*NASTY, *(f"{i:02d}.png" for i in range(27))]
    assert names(collection.page(wanted(order="probability")))[0] == every[-1]
    assert names(collection.page(wanted(order="score", score="average-drop")))[0] == every[-1]
    assert collection.page(wanted(order="fragile")).rows[0].turns_at == 3
    assert (
        collection.page(wanted(order="apart")).rows[0].key
        == collection.page(wanted("apart", order="apart")).rows[0].key
    )


def test_text_finds_names_and_classes(collection):
    assert names(collection.page(wanted(text="עולם"))) == [NASTY[1]]
    assert names(collection.page(wanted(text="ONERROR"))) == [NASTY[0]]
    cats = collection.page(wanted(text="cat, tom"))
    assert cats.total == 10 and all(row.predicted.startswith("🐈 cat") for row in cats.rows)
    assert collection.page(wanted(text="' OR 1=1 --")).total == 0


def test_neighbours_follow_the_order_of_the_list(collection):
    at = wanted("changed", order="probability")
    keys = [row.key for row in collection.page(at).rows]
    assert collection.neighbour(keys[0], 1, at) == (keys[1], 0)
    assert collection.neighbour(keys[0], -1, at) is None and collection.neighbour(keys[-1], 1, at) is None
    outside = next(row.key for row in collection.page(wanted()).rows if row.key not in keys)
    assert collection.neighbour(outside, 1, at) == (keys[0], 0)
    assert collection.neighbour(collection.page(wanted()).rows[-1].key, 1, wanted()) == (PAGE, 1)


def test_maps_are_those_that_torch_would_display(study):
    raw = np.load(study / "maps" / "m00-d00-0000000.npz")["values"][:, 0].reshape(-1, 4, 4).astype(np.float32)
    torched = display_maps(torch.from_numpy(raw), "cam", (SIZE, SIZE + 7)).numpy()
    for one, other in zip(raw, torched, strict=True):
        np.testing.assert_allclose(displayed(one, (SIZE, SIZE + 7)).display, other, atol=1e-5)
    assert displayed(np.full((4, 4), 2.0), (8, 8)).flag == "constant map"
    assert displayed(np.full((4, 4), -2.0), (8, 8)).degenerate
    assert displayed(np.array([[1, np.nan]]), (8, 8)).flag == "non-finite map"


def test_an_image_and_its_noise(collection, study):
    key = next(row.key for row in collection.page(wanted()).rows if row.name == "01.png")  # the fifth image written
    clean, noisy = collection.shown(key), collection.shown(key, KIND, 3)
    assert clean.entry.predicted == ClassProbability(1, CLASSES[1], 1 - 4 / 60)
    assert (noisy.entry.predicted.index, noisy.entry.predicted.probability) == (2, 0.5)
    np.testing.assert_array_equal(clean.entry.image, picture(4))
    assert list(clean.entry.blocks[0].maps) == list(METHODS) and not clean.wrong
    assert not np.array_equal(noisy.entry.image, clean.entry.image)
    assert not np.array_equal(
        noisy.entry.blocks[0].maps["gradcam"].display, clean.entry.blocks[0].maps["gradcam"].display
    )
    assert collection.kinds == {KIND: [1, 3]}
    assert [method.key for method in collection.methods] == list(METHODS)


def test_scores_and_where_they_stand(collection):
    key = collection.page(wanted(text=NASTY[0])).rows[0].key
    found = {(row.metric, row.method): row for row in collection.numbers(key)}
    assert ("arcc", "random") not in found
    best, worst = found["average-drop", "gradcam"], found["arcc", "gradcam"]
    assert (best.value, best.better_than, best.n) == (0, 1, 30)  # lower is better
    assert (worst.value, worst.better_than) == (0, 0)
    assert found["rbo", "gradcam"].condition == "mean of 2 comparisons" and found["rbo", "gradcam"].value == 1


def test_without_the_images_maps_are_shown_on_grey(tmp_path):
    folder = write_study(tmp_path / "moved", images=False)
    found = opened(folder, lambda: StudyImages(folder))
    assert any("cannot be opened" in text and "--images" in text for text in found.notices)
    entry = found.shown(0).entry
    assert (entry.image == 128).all() and not entry.blocks[0].maps["gradcam"].flag
    write_study(tmp_path / "elsewhere")
    again = opened(folder, lambda: StudyImages(folder, str(tmp_path / "elsewhere-images")))
    assert not again.notices and not (again.shown(0).entry.image == 128).all()


def test_many_images_are_paged(tmp_path):
    """A page holds as many rows as any other, and an image is read from its own file."""
    many = [f"{i:04d}.png" for i in range(3000)]
    folder = write_study(tmp_path / "many", many, images=False, maps=False)
    found = opened(folder)
    for page in (0, 60, 124):
        at = found.page(wanted(page=page))
        assert (len(at.rows), at.of, at.number) == (PAGE, 3000, page)
    assert found.page(wanted("low")).total == 300 and found.page(wanted(text="299")).total == 13
    assert found.neighbour(2999, 1, wanted()) is None and found.neighbour(1500, 1, wanted()) == (1501, 62)
    last = {row.metric: row for row in found.numbers(2999) if row.method == "gradcam"}
    assert last["average-drop"].n == 3000 and last["average-drop"].better_than == 0


def test_a_folder_whose_name_has_wildcards(tmp_path):
    folder = write_study(tmp_path / "a[1]*'b", [f"{i}.png" for i in range(4)])
    found = opened(folder, lambda: StudyImages(folder))
    assert found.shown(2).entry.blocks[0].maps and found.numbers(2)


def test_without_anything_to_open_images(study):
    assert any("is not known" in text for text in opened(study).notices)


def test_a_broken_image_is_a_flagged_row(tmp_path):
    folder = write_study(tmp_path / "broken", broken="02.png")
    (tmp_path / "broken-images" / "02.png").write_bytes(b"no image")
    found = opened(folder, lambda: StudyImages(folder))
    row = next(iter(found.page(wanted("broken")).rows))
    assert (row.name, row.why, row.flags) == ("02.png", "cannot be read as an image", ("broken",))
    assert found.shown(row.key).entry.flag == row.why and found.pixels(row.key) is None
    (tmp_path / "broken-images" / "03.png").write_bytes(b"no image any more")
    key = next(row.key for row in found.page(wanted()).rows if row.name == "03.png")
    assert "cannot be opened" in found.shown(key).note and found.shown(key).entry.blocks[0].maps


def test_unfinished_and_of_another_version(tmp_path):
    folder = write_study(tmp_path / "part", jobs=3, version="heatproof 0.0.1, torch 1")
    unfinished, version = opened(folder, lambda: StudyImages(folder)).notices
    assert "not finished: 1 of 3 jobs" in unfinished and "Written by heatproof 0.0.1" in version
    for shard in (folder / "rows").iterdir():
        shard.unlink()
    with pytest.raises(StoreError, match="has not finished its first job"):
        opened(folder)


def test_rows_that_cannot_be_read(study, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(study, folder)
    (folder / "rows" / "m00-d00-0000000.parquet").write_bytes(b"PAR1 and nothing else PAR1")
    with pytest.raises(StoreError, match=r"m00-d00-0000000.parquet is damaged: .* Run the command of the study again"):
        opened(folder)


def test_folders_that_are_no_results(tmp_path):
    for make, said in ((lambda p: None, "There is no folder"), (lambda p: p.write_text(""), "is a file"),
                       (lambda p: p.mkdir(), "is no folder of results"),
                       (lambda p: (p / "shapes").mkdir(parents=True), "holds several results. Name one")):  # fmt: skip
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        make(folder)
        with pytest.raises(StoreError, match=said):
            opened(folder)
        folder.touch() if not folder.exists() else None
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "study.json").write_text("[]")
    with pytest.raises(StoreError, match="must hold a study's plan"):
        opened(tmp_path / "json")


def test_damaged_maps_are_no_maps(study, tmp_path):
    folder = tmp_path / "maps"
    shutil.copytree(study, folder)
    (folder / "maps" / "m00-d00-0000000.npz").write_bytes(b"PK no archive")
    shown = opened(folder, lambda: StudyImages(folder)).shown(0)
    assert shown.note == "No map of this image is stored." and shown.entry.predicted is not None


# --- the folder of `heatproof explain` ---


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained") / "out"
    with pytest.raises(SystemExit) as stopped:
        main(["explain", "shapes", "--limit", "5", "--model", "shapes", "--methods", "gradcam,layercam,gradient",
              "--target", "top2", "--out", str(folder)])  # fmt: skip
    assert not stopped.value.code
    return folder


def test_what_explain_wrote(explained):
    found = opened(explained)
    assert isinstance(found, ExplainedCollection)
    assert [method.key for method in found.methods] == ["gradcam", "layercam", "gradient"]
    assert found.methods[0].where == "stage4" and found.kinds == {} and found.numbers(0) == ()
    page = found.page(Wanted())
    assert page.of == 5 and all(row.predicted for row in page.rows)
    entry = found.shown(0).entry
    assert len(entry.blocks) == 2 and entry.image.shape == (96, 96, 3)
    assert found.page(Wanted(order="apart")).rows[0].flags == ("apart",)
    assert found.page(Wanted(frozenset({"apart"}))).total == 1
    lowest = found.page(Wanted(order="probability")).rows[0].key
    assert found.shown(lowest).entry.predicted.probability == min(
        found.shown(key).entry.predicted.probability for key in range(5)
    )
    assert found.neighbour(0, 1, Wanted()) == (1, 0) and found.neighbour(0, -1, Wanted()) is None


def test_an_index_is_not_needed_and_damage_is_a_flag(explained, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(explained, folder)
    told = json.loads((folder / "index.json").read_text())
    (folder / "index.json").unlink()
    again = opened(folder)
    assert {row.predicted for row in again.page(Wanted()).rows} == {one["predicted"] for one in told}
    sorted((folder / "maps").glob("*.npz"))[0].write_bytes(b"no archive")
    broken = opened(folder)
    row = broken.page(Wanted(frozenset({"broken"}))).rows[0]
    assert "cannot be read" in row.why and "cannot be read" in broken.shown(row.key).entry.flag
    for path in (folder / "maps").glob("*.npz"):
        path.write_bytes(b"")
    with pytest.raises(StoreError, match="No file of maps"):
        opened(folder)


def test_an_image_that_could_not_be_explained_is_in_the_list(explained, tmp_path):
    folder = tmp_path / "flagged"
    shutil.copytree(explained, folder)
    told = json.loads((folder / "index.json").read_text())
    write_index(folder, [*told, {"id": "/x/bad.png", "name": "bad.png", "flag": "is no image", "file": ""}])
    found = opened(folder)
    assert found.page(Wanted(frozenset({"broken"}))).rows[0].why == "is no image"
    assert found.shown(5).entry.flag == "is no image" and found.pixels(5) is None


def test_the_summary_of_an_image():
    one, other = np.array([[0.0, 1], [0, 0]]), np.array([[1.0, 0], [0, 0]])
    maps = {"a": Map(one, one), "b": Map(one, one), "c": Map(other, other)}
    answer = ClassProbability(1, "cat", math.nan)
    entry = ExplainedImage("id", "name", np.zeros((2, 2, 3), np.uint8), answer, None, (ExplainedClass(answer, maps),))
    told = summary(entry)
    assert told["correlation"] == pytest.approx((1 - 1 / 3 - 1 / 3) / 3, abs=1e-6) and told["probability"] is None
    assert (told["wrong"], told["label"]) == (False, None)
    assert summary(ExplainedImage("id", flag="why")) == {"id": "id", "name": "", "flag": "why"}

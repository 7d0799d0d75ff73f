"""Which images a limit takes: some of every class, the same for one seed, more of them with a higher limit."""

import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from heatproof.data import ImageFolder, Images, load_images
from heatproof.data.sampling import limited, sample_text, sampled
from heatproof.errors import InvalidInput


@pytest.fixture
def classes(tmp_path):
    """Three class folders of 12, 6 and 2 images."""
    for name, count in {"cat": 12, "dog": 6, "owl": 2}.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.fromarray(np.full((4, 4, 3), i * 9, np.uint8)).save(tmp_path / name / f"{i:02d}.png")
    return tmp_path


def test_every_class_has_its_share_and_at_least_one_image(classes):
    expected = {3: (1, 1, 1), 5: (3, 1, 1), 10: (6, 3, 1), 15: (9, 4, 2), 20: (12, 6, 2)}
    for limit, counts in expected.items():
        taken = load_images(classes, limit=limit)
        found = Counter(taken.labels)
        assert sum(found.values()) == limit and taken.ids == sorted(taken.ids)
        assert all(abs(found[label] - count) <= (limit == 15) for label, count in enumerate(counts)), (limit, found)


def test_the_rule_is_that_of_huntington_and_hill():
    """A slow twin: image by image, the class with the largest n / sqrt(k (k + 1)) has the next."""
    labels = [0] * 50 + [1] * 31 + [2] * 9 + [3]
    ids = [f"{i:03d}" for i in range(len(labels))]
    for limit in (4, 7, 20, 64, 90):
        given = Counter(dict.fromkeys(set(labels), 1))
        while sum(given.values()) < limit:
            worth = {label: labels.count(label) / (k * (k + 1)) ** 0.5 for label, k in given.items()}
            open_ones = {label: value for label, value in worth.items() if given[label] < labels.count(label)}
            given[max(open_ones, key=lambda label: open_ones[label])] += 1
        assert Counter(labels[i] for i in sampled(ids, labels, limit)) == given


def test_a_lower_limit_takes_a_part_of_what_a_higher_one_takes_and_the_seed_decides():
    labels = [i % 7 if i % 5 else None for i in range(100)]
    ids = [f"image {i}" for i in range(100)]
    taken = [set(sampled(ids, labels, limit, seed=3)) for limit in range(1, 101)]
    assert all(small < large for small, large in pairwise(taken))
    assert sampled(ids, labels, 30, seed=3) == sorted(taken[29])
    assert sampled(ids, labels, 30, seed=4) != sampled(ids, labels, 30, seed=3)
    order = np.random.default_rng(0).permutation(100)
    mixed = sampled([ids[i] for i in order], [labels[i] for i in order], 30, seed=3)
    assert {ids[order[i]] for i in mixed} == {ids[i] for i in taken[29]}


def test_fewer_images_than_classes_are_of_different_classes():
    labels = [i // 10 for i in range(400)]
    found = [labels[i] for i in sampled([str(i) for i in range(400)], labels, 24)]
    assert len(set(found)) == 24 and found != list(range(24))


def test_the_first_images_where_asked_and_all_without_a_limit(classes):
    whole = load_images(classes)
    assert load_images(classes, limit=14, sampling="first").ids == whole.ids[:14]
    assert limited(whole, None) is whole and limited(whole, 20) is whole and limited(whole, 500) is whole
    with pytest.raises(InvalidInput, match=r"`sampling` must be stratified or first\. Got 'random'"):
        load_images(classes, limit=3, sampling="random")


def test_an_unlabelled_folder_is_drawn_from_too(tmp_path):
    for i in range(40):
        Image.new("RGB", (2, 2)).save(tmp_path / f"{i:02d}.png")
    taken = load_images(tmp_path, limit=10)
    assert len(taken.ids) == 10 and taken.ids[-1] > "20.png"


@pytest.mark.parametrize("spec", ["shapes", "folder"])
def test_a_part_is_a_source_of_images_like_the_whole(classes, spec):
    whole = load_images(classes if spec == "folder" else spec)
    part = limited(whole, 7, seed=1)
    assert isinstance(part, Images) and isinstance(part, ImageFolder) == (spec == "folder")
    again = pickle.loads(pickle.dumps(part))
    for i, id in enumerate(part.ids):
        row = whole.ids.index(id)
        assert part.labels[i] == whole.labels[row] and again.open(i).tobytes() == whole.open(row).tobytes()
        assert (part.mask(i) is None) == (whole.mask(row) is None)
        assert part.mask(i) is None or np.array_equal(part.mask(i), whole.mask(row))
    assert (part.name, part.class_names) == (whole.name, whole.class_names)
    assert len({part.fingerprint, whole.fingerprint, limited(whole, 8, seed=1).fingerprint}) == 3
    assert part.fingerprint == again.fingerprint


def test_how_they_were_chosen_is_said():
    labels = [i // 10 for i in range(4000)]
    rows = sampled([str(i) for i in range(4000)], labels, 24, seed=5)
    assert (
        sample_text(labels, [labels[i] for i in rows], 5)
        == "24 of 4,000 images, drawn with seed 5 from 24 of 400 classes"
    )
    assert sample_text([0, 0, 1], [0, 1], 2) == "2 of 3 images, drawn with seed 2 from all 2 classes"
    assert sample_text([None] * 5, [None], 0) == "1 of 5 images, drawn with seed 0"
    assert sample_text([0, 0, 1], [0], 0, "first") == "the first 1 of 3 images"
    assert sample_text([0, 1], [0, 1]) == ""

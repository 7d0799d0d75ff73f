"""Creatures: parts and distractors that can be removed, classes by pairs of parts, and splits that share nothing."""

import json
import pickle
from importlib import resources

import numpy as np
import pytest

from heatproof.data import load_images
from heatproof.data.creatures import CODE, IMAGES, KINDS, TABLE, Creatures, demo_creatures
from heatproof.data.part_images import PartTable, made_of_parts
from heatproof.data.sampling import limited
from heatproof.errors import InvalidInput, UnknownName


def pixels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_what_is_removed_leaves_every_other_pixel_as_it_was():
    for i in range(6):
        one = demo_creatures("val").parts(i)
        whole, masks = pixels(one.without(frozenset())), one.masks()
        for name, mask in masks.items():
            changed = (pixels(one.without(frozenset([name]))) != whole).any(-1)
            assert not (changed & ~mask).any(), name
            assert mask.any() and changed.sum() > 0.5 * mask.sum(), name
        bare = pixels(one.without(frozenset(masks)))
        outside = ~np.logical_or.reduce(list(masks.values()))
        assert (bare[outside] == whole[outside]).all()
        assert sum(mask.astype(int) for mask in masks.values()).max() == 1, "a pixel shows one thing"


def test_the_mask_is_that_of_all_parts():
    images = demo_creatures("test", 3)
    masks = images.parts(1).masks()
    assert (images.mask(1) == sum(masks[kind].astype(int) for kind in KINDS).astype(bool)).all()
    assert set(masks) == {*KINDS, *images.parts(1).distractors}


def test_the_evidence_for_a_class_is_two_parts_or_three():
    for label in range(len(CODE)):
        assert max(len(TABLE.shared(label, other)) for other in range(len(CODE)) if other != label) == 2
        sizes = {len(chosen) for chosen in TABLE.minimal_sets(label)}
        assert sizes <= {2, 3} and 2 in sizes
        contrast = TABLE.contrast(label)
        assert contrast is not None and not contrast.first_parts & contrast.second_parts
        assert len(contrast.first_parts) == len(contrast.second_parts) == 2
        assert contrast.first_parts == TABLE.shared(label, contrast.first)
    for kind in range(len(KINDS)):
        assert np.bincount([row[kind] for row in CODE]).tolist() == [4, 4, 4]


def test_minimal_sets_of_a_small_table():
    table = PartTable(("a", "b", "c"), ((0, 0, 0), (0, 1, 1), (1, 0, 1)))
    assert set(table.minimal_sets(0)) == {frozenset("c"), frozenset("ab")}
    assert table.compatible(0, frozenset("a")) == [0, 1]
    assert table.contrast(0) is None


@pytest.mark.parametrize(
    ("parts", "classes", "message"),
    [((), ((), ()), "parts"), (("a",), ((0,),), "two classes"), (("a",), ((0,), (0,)), "twice"),
     (("a", "b"), ((0, 1), (0,)), "Every class must have 2")],
)  # fmt: skip
def test_a_table_that_says_nothing_is_refused(parts, classes, message):
    with pytest.raises(InvalidInput, match=message):
        PartTable(parts, classes)


def test_splits_share_nothing_and_every_class_is_there():
    sets = {split: demo_creatures(split, 24) for split in IMAGES}
    seen = {one.open(i).tobytes() for one in sets.values() for i in range(24)}
    assert len(seen) == 72
    for one in sets.values():
        assert sorted(one.labels[:12]) == list(range(12)) and sorted(one.labels[12:]) == list(range(12))
    assert len({tuple(one.labels) for one in sets.values()}) == 3


def test_background_pose_and_distractors_do_not_depend_on_the_class(monkeypatch):
    images = demo_creatures("test", 12)
    before = [images.parts(i) for i in range(3)]
    monkeypatch.setattr("heatproof.data.creatures.CODE", CODE[1:] + CODE[:1])
    after = [demo_creatures("test", 12).parts(i) for i in range(3)]
    for one, other in zip(before, after, strict=True):
        assert (one.background == other.background).all() and one.distractors == other.distractors
        gone = frozenset(KINDS)
        assert (pixels(one.without(gone)) == pixels(other.without(gone))).all()
        assert (pixels(one.without(frozenset())) != pixels(other.without(frozenset()))).any()


def test_images_are_loaded_by_name_and_a_limit_keeps_their_parts():
    images = load_images("creatures:val", limit=5)
    assert made_of_parts(images) and images.part_table is TABLE and len(images.ids) == 5
    assert (pixels(images.parts(2).without(frozenset())) == pixels(images.open(2))).all()
    assert len(load_images("creatures").ids) == 500
    assert not made_of_parts(load_images("shapes")) and not made_of_parts(limited(load_images("shapes"), 3))
    assert limited(load_images("shapes"), 3).parts(0) is None
    with pytest.raises(UnknownName, match="split of creatures"):
        load_images("creatures:tset")


def test_wrong_settings_and_unknown_parts_are_refused():
    for settings in (("tset", 3), ("test", 0), ("test", 3, 20)):
        with pytest.raises(InvalidInput):
            Creatures(*settings)
    with pytest.raises(InvalidInput, match="Expected parts among"):
        demo_creatures("test", 1).parts(0).without(frozenset(["fins"]))


def test_a_set_can_be_pickled_and_has_a_fingerprint_of_its_own():
    one = demo_creatures("test", 12)
    again = pickle.loads(pickle.dumps(one))
    assert again == one and again.fingerprint == one.fingerprint != demo_creatures("val", 12).fingerprint
    assert again.open(3).tobytes() == one.open(3).tobytes()


def test_the_bundled_network_was_trained_on_these_images():
    card = json.loads((resources.files("heatproof.models") / "weights" / "creatures.json").read_text("utf-8"))
    assert card["training"]["generator"] == demo_creatures("test", 12).pixel_hash(), (
        "train again: scripts/train_bundled.py creatures"
    )
    assert card["training"]["images"] == IMAGES and card["test_accuracy"] >= 0.97
    assert card["classes"] == demo_creatures().class_names

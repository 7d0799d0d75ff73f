"""Images without a usable mask are named on the page and in the terminal."""

import duckdb

from heatproof.report.mask_notes import mask_notes


class Found:
    def __init__(self, rows):
        self.rows = duckdb.connect()
        self.rows.execute("CREATE TABLE rows (dataset TEXT, image TEXT, flag TEXT)")
        self.rows.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)


def test_images_are_counted_once_and_the_first_is_named():
    rows = [("pets", f"{i}.png", "") for i in range(4)]
    rows += [
        ("pets", "2.png", "its mask cannot be used: it is 3 × 4"),
        ("pets", "2.png", "its mask cannot be used: it is 3 × 4"),
    ]
    rows += [("pets", "3.png", "its mask is empty"), ("cars", "a.png", "constant map")]
    assert list(mask_notes(Found(rows))) == [
        "2 of 4 images of pets have no mask that can be used, and count for nothing that needs one. "
        "2.png: its mask cannot be used: it is 3 × 4; 3.png: its mask is empty."
    ]


def test_where_every_mask_is_there_nothing_is_said():
    assert not list(mask_notes(Found([("pets", "1.png", ""), ("pets", "1.png", "constant map")])))


def test_of_many_images_the_first_are_named():
    rows = [("pets", f"{i}.png", "there is no mask of this image") for i in range(9)]
    (note,) = mask_notes(Found(rows))
    assert "The first are 0.png: there is no mask of this image; 1.png" in note and "5.png" not in note


def test_masks_that_mark_nothing_are_counted():
    rows = [("pets", f"{i}.png", "the mask is empty" if i < 3 else "") for i in range(5)]
    (note,) = mask_notes(Found(rows))
    assert note.startswith("3 of 5 images of pets have a mask that marks nothing.")

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
        "2 of 4 images of pets have no mask that can be used, and count for nothing that needs one. The first is "
        "2.png: its mask cannot be used: it is 3 × 4."
    ]


def test_where_every_mask_is_there_nothing_is_said():
    assert not list(mask_notes(Found([("pets", "1.png", ""), ("pets", "1.png", "constant map")])))

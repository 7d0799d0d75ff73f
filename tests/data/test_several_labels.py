"""Label files with several classes for an image: three forms, the same labels; what is refused."""

import numpy as np
import pytest
from PIL import Image

from heatproof.data import load_images
from heatproof.data.class_matching import further_labels
from heatproof.data.labels import read_labels
from heatproof.data.sampling import limited
from heatproof.errors import InvalidInput

#: The same labels: a has cat and dog, b has dog, c has none, d has all.
WIDE = "file,cat,dog,eel\na.png,1,1,0\nb.png,0,1.0,\nc.png,0,0,-1\nd.png,1,true,1\n"
ROWS = "file,name\na.png,cat\na.png,dog\nb.png,dog\nd.png,cat\nd.png,dog\nd.png,eel\nd.png,dog\n"
CELLS = "file,name\na.png,cat|dog\nb.png,dog\nd.png,cat; dog;eel\n"
INDICES = "file,class_index\na.png,0;1\nb.png,1\nd.png,0 1|2\n"
BOTH = "file,class_index,name\na.png,0;1,cat;dog\nb.png,1,dog\nd.png,0;1;2,cat;dog;eel\n"


def written(path, text):
    path.write_text(text)
    return path


FORMS = [(WIDE, "name"), (ROWS, "name"), (CELLS, "name"), (INDICES, "index"), (BOTH, "index")]


@pytest.mark.parametrize(("text", "by"), FORMS)
def test_every_form_gives_the_same_labels(tmp_path, text, by):
    found = read_labels(written(tmp_path / "l.csv", text), several=True)
    assert found.labels == {"a.png": 0, "b.png": 1, "d.png": 0}
    assert found.further == {"a.png": (1,), "d.png": (1, 2)}
    assert found.labels_by == by and found.names == (None if text == INDICES else ["cat", "dog", "eel"])


def test_columns_keep_their_order_as_a_networks_outputs_do(tmp_path):
    found = read_labels(written(tmp_path / "l.csv", "file,zebra,ant\na.png,0,1\n"), several=True)
    assert found.names == ["zebra", "ant"] and found.labels == {"a.png": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROWS, r"one class here\. .*line 3: a\.png has cat and dog\. `heatproof score --targets labels`"),
        (INDICES, r"line 2: a\.png has 0 and 1\."),
        (WIDE, r"line 2: a\.png has cat and dog\."),
    ],
)
def test_several_are_refused_where_one_is_wanted(tmp_path, text, message):
    with pytest.raises(InvalidInput, match=message):
        read_labels(written(tmp_path / "l.csv", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class_index,name\na.png,0;1,cat\n", "got 2 indices and 1 names"),
        ("file,class_index\na.png,0;x\n", "whole number from 0 up.*got 'x'"),
        ("file,name\na.png,cat|\n", "`name` must be a class's name. .*line 2: got nothing"),
        ("file,cat,age\na.png,1,63\n", "has no `class_index`; it has file, cat, age"),
    ],
)
def test_errors_name_the_line(tmp_path, text, message):
    with pytest.raises(InvalidInput, match=message):
        read_labels(written(tmp_path / "l.csv", text), several=True)


def test_a_folder_keeps_them_and_its_fingerprint_follows_them(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abcd":
        Image.fromarray(np.full((8, 8, 3), ord(name), "uint8")).save(folder / f"{name}.png")
    images = load_images(folder, written(tmp_path / "l.csv", WIDE))
    assert images.labels == [0, 1, None, 0]
    assert further_labels(images) == {"a.png": (1,), "d.png": (1, 2)}
    assert further_labels(limited(images, 2, sampling="first")) == {"a.png": (1,)}
    fewer = load_images(folder, written(tmp_path / "m.csv", WIDE.replace("true", "0")))
    assert fewer.labels == images.labels and fewer.fingerprint != images.fingerprint


@pytest.mark.parametrize(("text", "labels", "names"), [
    ("file,label\na.png,0\nb.png,1\n", {"a.png": 0, "b.png": 1}, None),
    ("file,label,age\na.png,2\nb.png,1\n", {"a.png": 2, "b.png": 1}, None),
    ("file,label\na.png,dog\nb.png,cat\n", {"a.png": 1, "b.png": 0}, ["cat", "dog"]),
    ("file,label,name\na.png,7,dog\nb.png,8,cat\n", {"a.png": 1, "b.png": 0}, ["cat", "dog"]),  # `name` says it already
])  # fmt: skip
def test_a_column_label_holds_indices_or_names(tmp_path, text, labels, names):
    found = read_labels(written(tmp_path / "l.csv", text))
    assert found.labels == labels and found.names == names


def test_the_columns_are_named_where_none_is_of_classes(tmp_path):
    with pytest.raises(InvalidInput, match="it has file, kind"):
        read_labels(written(tmp_path / "l.csv", "file,kind\na.png,x\n"))

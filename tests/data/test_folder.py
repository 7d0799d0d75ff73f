"""Folders, label files and named datasets → Images."""

import os
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from heatproof.data import ImageFolder, Images, images_from_list, load_images
from heatproof.errors import HeatproofWarning, InvalidImage, InvalidInput, UnknownName


def grown(folder, *names):
    """`folder` with a small image of its own grey under each name."""
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (k, k, k)).save(path, "PNG")
    return folder


def labelled(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- layouts --------------------------------------------------------------------------------------


def test_a_flat_folder(tmp_path):
    grown(tmp_path, "b.JPG", "a.png", "10.jpeg", ".hidden.png", ".git/x.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "words.jpg").write_text("flagged when it is opened")
    images = load_images(tmp_path)
    assert isinstance(images, Images)
    assert images.ids == ["10.jpeg", "a.png", "b.JPG", "words.jpg"]
    assert images.labels == [None] * 4 and images.class_names is None and images.flags == {}
    assert (images.name, load_images(tmp_path, name="mine").name) == (tmp_path.name, "mine")
    assert np.asarray(images.open(2)).flat[0] == 0 and images.mask(2) is None
    with pytest.raises(InvalidImage, match=r"^words\.jpg: is not an image"):
        images.open(3)


def test_one_subfolder_per_class(tmp_path):
    """Nested images belong to the top folder; an empty class keeps its index."""
    grown(tmp_path, "dog/1.png", "dog/young/2.png", "cat/1.png", "yak/z.png")
    (tmp_path / "eel").mkdir()
    (tmp_path / ".cache").mkdir()
    images = load_images(tmp_path)
    assert images.ids == ["cat/1.png", "dog/1.png", "dog/young/2.png", "yak/z.png"]
    assert images.class_names == ["cat", "dog", "eel", "yak"]
    assert images.labels == [0, 1, 1, 3]
    assert load_images(tmp_path, limit=2, sampling="first").labels == [0, 1]


@pytest.mark.parametrize("names", [("cat/1.png", "dog/1.png", "stray.png"), ("only/1.png", "only/2.png")])
def test_other_layouts_give_no_labels(tmp_path, names):
    images = load_images(grown(tmp_path, *names))
    assert images.ids == sorted(names)
    assert set(images.labels) == {None} and images.class_names is None


def test_links_are_followed_once_and_dangling_ones_kept(tmp_path):
    grown(tmp_path, "in/a/1.png", "elsewhere/2.png")
    (tmp_path / "in/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/b/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(HeatproofWarning, match=r"some links lead out of the folder: b and 1 more. They are followed"):
        images = load_images(tmp_path / "in")
    assert images.ids == ["a/1.png", "b/2.png", "gone.png"]
    with pytest.raises(InvalidImage, match=r"^gone\.png: missing file"):
        images.open(2)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_odd_names(tmp_path):
    odd = [
        "a b.png",
        "it's \"<script>alert(1)</script>.png".replace("/", "∕"),
        "naïve 猫.png",
        "new\nline.png",
    ]
    grown(tmp_path, *odd, "raw\udce9.png")
    labels = labelled(tmp_path / "l.csv", b'file,class_index\nraw\xe9.png,4\na b.png,2\n"new\nline.png",3\n')
    images = load_images(tmp_path, labels)
    assert set(images.ids) == {*odd, "raw\\xe9.png"}
    assert all(id.encode() and images.open(i).size == (5, 4) for i, id in enumerate(images.ids))
    found = dict(zip(images.ids, images.labels, strict=True))
    assert (found["raw\\xe9.png"], found["a b.png"], found["new\nline.png"]) == (4, 2, 3)
    assert pickle.loads(pickle.dumps(images)).open(0).size == (5, 4)


def test_no_images_is_an_error(tmp_path):
    with pytest.raises(InvalidInput, match="at least one image"):
        load_images(tmp_path)
    with pytest.raises(InvalidInput, match=r"There is no .*nowhere"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"a\.png is a file"):
        load_images(grown(tmp_path, "a.png") / "a.png")
    with pytest.raises(InvalidInput, match=r"`limit` must be at least 1\. Got 0\."):
        load_images(tmp_path, limit=0)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path):
    grown(tmp_path, "a/1.png")
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(InvalidInput, match="must be readable"):
            load_images(tmp_path)
    finally:
        (tmp_path / "a").chmod(0o755)


# --- label files ----------------------------------------------------------------------------------


def test_labels_from_a_csv(tmp_path):
    """Other columns, any order, byte order mark, CRLF, blank lines, quotes; it outranks subfolders."""
    grown(tmp_path, "x/a.png", "x/b.png", "y/c, d.png", "y/e.png")
    text = '\ufeffname, class_index ,file\r\ntench, 7 ,x/a.png\r\n\r\nhen,0,"y/c, d.png"\r\n'
    text += 'hen,0,"./y/c, d.png"\r\n'
    images = load_images(tmp_path, labelled(tmp_path / "labels.csv", text))
    assert images.ids == ["x/a.png", "x/b.png", "y/c, d.png", "y/e.png"]
    assert images.labels == [7, None, 0, None] and images.flags == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;class_index\na.png;1\n", "has no `file` and no `class_index`; it has file;class_index"),
        ("name,class_index\na.png,1\n", "has no `file`; it has name, class_index"),
        ("", "has no `file` and no `class_index`; it has none"),
        ("file,class_index\n", "has a header only"),
        ("file,class_index\na.png,1\nb.png,tench\n", r"line 3: got 'tench'"),
        ("file,class_index\na.png,-1\n", r"line 2: got '-1'"),
        ("file,class_index\na.png,1.0\n", r"line 2: got '1\.0'"),
        ("file,class_index\na.png,\n", r"line 2: got 'nothing'"),
        ("file,class_index\na.png\n", r"line 2: got 'nothing'"),
        ("file,class_index\n,3\n", r"`file` must name an image\. .*line 2"),
        ('file,class_index\n"a.png,1\n', "must be a CSV file"),
        (
            "file,class_index\nc.png,1\nd.png,2\na.png,1\n",
            r"2 of the 3 in .* such as 'c\.png' \(there is 'a\.png'\)",
        ),
    ],
)
def test_label_files_that_cannot_be_used(tmp_path, text, message):
    grown(tmp_path, "a.png", "b.png")
    with pytest.raises(InvalidInput, match=message):
        load_images(tmp_path, labelled(tmp_path / "l.csv", text))


def test_a_label_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInput, match=r"`labels` must be a readable file.*gone\.csv"):
        load_images(grown(tmp_path, "a.png"), tmp_path / "gone.csv")


def test_labelled_files_that_are_not_there_are_flagged(tmp_path):
    grown(tmp_path, "a.png", "c.png", "d.png")
    labels = labelled(tmp_path / "l.csv", "file,class_index\na.png,1\nb.png,5\nd.png,2\nz.png,3\n")
    images = load_images(tmp_path, labels)
    assert images.ids == ["a.png", "b.png", "c.png", "d.png", "z.png"]
    assert images.labels == [1, 5, None, 2, 3]
    assert images.flags == {"b.png": "missing file", "z.png": "missing file"}
    with pytest.raises(InvalidImage, match=r"^b\.png: missing file$"):
        images.open(1)
    first = load_images(tmp_path, labels, limit=2, sampling="first")
    assert (first.ids, first.flags) == (["a.png", "b.png"], {"b.png": "missing file"})


def test_the_shared_photographs(assets):
    images = load_images(assets / "images", assets / "images" / "labels.csv", limit=5, sampling="first")
    assert images.ids[0] == "n01440764_tench.JPEG" and images.labels[:2] == [0, 8] and not images.flags


# --- sameness -------------------------------------------------------------------------------------


def test_the_fingerprint_follows_content_names_and_labels(tmp_path):
    grown(tmp_path, "a.png", "b.png", "c.png")
    labels = labelled(tmp_path / "l.csv", "file,class_index\na.png,1\n")
    seen = [load_images(tmp_path).fingerprint, load_images(tmp_path, limit=2).fingerprint]
    os.utime(tmp_path / "a.png", (1, 1))
    assert seen == [load_images(tmp_path).fingerprint, load_images(tmp_path, limit=2).fingerprint]
    seen.append(load_images(tmp_path, labels).fingerprint)
    (tmp_path / "c.png").rename(tmp_path / "d.png")
    seen.append(load_images(tmp_path).fingerprint)
    (tmp_path / "a.png").write_bytes((tmp_path / "b.png").read_bytes())
    seen.append(load_images(tmp_path).fingerprint)
    (tmp_path / "a.png").write_bytes(b"words")
    seen.append(load_images(tmp_path).fingerprint)
    assert len(set(seen)) == 6


def test_a_list_of_files_keeps_its_order(tmp_path):
    grown(tmp_path, "b.png", "a.png")
    paths = [tmp_path / "b.png", str(tmp_path / "a.png"), tmp_path / "gone.png"]
    images = images_from_list(paths)
    assert isinstance(images, ImageFolder) and images.ids == [str(path) for path in paths]
    assert [np.asarray(images.open(i)).flat[0] for i in (0, 1)] == [0, 1]
    assert images.flags == {str(paths[2]): "missing file"} and images.labels == [None] * 3
    with pytest.raises(InvalidInput, match=r"a\.png twice"):
        images_from_list([*paths, tmp_path / "a.png"])
    with pytest.raises(InvalidInput, match="Got none"):
        images_from_list([])


# --- named datasets -------------------------------------------------------------------------------


def pets(root):
    """OxfordIIITPet as torchvision lays it out: two test images and one for training."""
    base = root / "oxford-iiit-pet"
    grown(base / "images", "Abyssinian_1.jpg", "pug_1.jpg", "pug_2.jpg")
    (base / "annotations").mkdir()
    (base / "annotations" / "test.txt").write_text("Abyssinian_1 1 1 1\npug_2 2 2 1\n")
    (base / "annotations" / "trainval.txt").write_text("pug_1 2 2 1\n")
    return root


def test_a_torchvision_dataset(tmp_path):
    images = load_images("torchvision:oxford-iiit-pet", root=pets(tmp_path))
    assert isinstance(images, Images) and images.name == "torchvision:OxfordIIITPet"
    assert images.ids == ["OxfordIIITPet/000000", "OxfordIIITPet/000001"] and images.labels == [0, 1]
    assert images.class_names == ["Abyssinian", "Pug"] and images.mask(0) is None
    again = pickle.loads(pickle.dumps(images))
    assert again.open(1).mode == "RGB" and np.asarray(again.open(1)).flat[0] == 2
    assert again.fingerprint == images.fingerprint
    first = load_images("torchvision:OxfordIIITPet", root=tmp_path, limit=1, name="pets", sampling="first")
    assert (first.name, first.ids, first.fingerprint == again.fingerprint) == (
        "pets",
        images.ids[:1],
        False,
    )
    (tmp_path / "oxford-iiit-pet/images/pug_2.jpg").write_text("words")
    with pytest.raises(InvalidImage, match=r"^OxfordIIITPet/000001: is broken"):
        images.open(1)
    assert len(images.fingerprint) == 32, "it stops nothing"


def test_named_datasets_that_cannot_be_had(tmp_path, monkeypatch):
    with pytest.raises(UnknownName, match=r"Did you mean 'OxfordIIITPet'"):
        load_images("torchvision:OxfordPets", root=tmp_path)
    with pytest.raises(InvalidInput, match="`root` must be the folder"):
        load_images("torchvision:CIFAR10")
    for name, todo in (
        ("OxfordIIITPet", "--download"),
        ("ImageNet", "ILSVRC2012_img_val"),
        ("DTD", "--download"),
    ):
        with pytest.raises(InvalidInput, match=f"{name}.*{todo}"):
            load_images(f"torchvision:{name}", root=tmp_path)


def test_downloads_happen_only_when_asked_for(tmp_path, monkeypatch):
    import torchvision.datasets

    asked = []

    def fetched(self):
        asked.append(self)
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_download", fetched)
    with pytest.raises(InvalidInput, match="Download it first"):
        load_images("torchvision:OxfordIIITPet", root=tmp_path)
    assert not asked
    with pytest.raises(InvalidInput, match=r"no network.*Check the connection"):
        load_images("torchvision:OxfordIIITPet", root=tmp_path, download=True)
    assert len(asked) == 1


def test_every_named_dataset_exists_in_torchvision():
    import inspect

    import torchvision.datasets

    from heatproof.data.named import NAMED

    for name, options in NAMED.items():
        parameters = inspect.signature(getattr(torchvision.datasets, name).__init__).parameters
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        assert takes_all or set(options) <= set(parameters), name
        assert name == "ImageNet" or takes_all or "download" in parameters, name


def test_names_of_before_are_found_with_a_warning():
    from heatproof import data, errors
    from heatproof.errors import HeatproofWarning

    with pytest.warns(HeatproofWarning, match=r"heatproof.data.load_pictures is called load_images now"):
        assert data.load_pictures is data.load_images
    with pytest.warns(HeatproofWarning, match="InvalidImage now"):
        assert errors.InvalidPicture is errors.InvalidImage
    with pytest.raises(AttributeError, match="no attribute 'load_films'"):
        _ = data.load_films

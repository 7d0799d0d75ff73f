"""Images and models in the forms that people have them in: folders, Datasets, DataLoaders, rows, pipelines."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import heatproof
from heatproof import cli
from heatproof.data import Shapes
from heatproof.data.collected import collected
from heatproof.data.image_opener import open_pixels
from heatproof.data.input_form import opened
from heatproof.engine.call import input_form
from heatproof.errors import (
    HeatproofWarning,
    InvalidImage,
    InvalidInput,
    InvalidTarget,
    ModelError,
    StoreError,
)
from heatproof.geometry import Geometry
from heatproof.studies.store import connect

from . import nets

SIDE, COUNT = 16, 5
LABELS = [0, 1, 2, 3, 0]


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return nets.images(COUNT, SIDE)


@pytest.fixture(scope="module")
def model():
    return heatproof.wrap(nets.seeded(nets.Plain), mean=(0.3, 0.4, 0.5), std=0.2, size=SIDE, layer="two")


@pytest.fixture(scope="module")
def expected(model, x):
    return heatproof.explain(model, x, "gradcam", target=LABELS)["gradcam"]


class Pairs(Dataset):
    """(image, label, id), of which one may be broken."""

    def __init__(self, images, broken: int = -1, parts: int = 3):
        self.images, self.broken, self.parts = images, broken, parts

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        if i == self.broken:
            raise OSError("truncated file")
        return (self.images[i], LABELS[i], f"case-{i}")[: self.parts]


class Flowing(IterableDataset):
    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return iter(zip(self.images, LABELS, strict=True))


class Names:
    """The feature of a Hugging Face dataset that names classes."""

    def __init__(self, names):
        self.names = names


class Rows:
    """A dataset as Hugging Face's: rows are dicts with a PIL image and a label."""

    def __init__(self, images, labels, names):
        self.images, self.labels, self.features = images, labels, {"image": None, "label": Names(names)}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return {"image": self.images[i], "label": self.labels[i]}


def pictures(x: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray((one.permute(1, 2, 0) * 255).round().byte().numpy()) for one in x]


@pytest.mark.parametrize("form", ["pairs", "loader", "shuffled", "flowing", "generator", "batch", "rows", "batches"])
def test_every_form_gives_the_maps_and_labels_of_the_tensor(model, x, expected, form):
    images = {
        "pairs": lambda: Pairs(x),
        "loader": lambda: DataLoader(Pairs(x), batch_size=3),
        "shuffled": lambda: DataLoader(Pairs(x), 2, shuffle=True, generator=torch.Generator().manual_seed(3)),
        "flowing": lambda: DataLoader(Flowing(x), batch_size=3),
        "generator": lambda: ((image, torch.tensor(label)) for image, label in zip(x, LABELS, strict=True)),
        "batch": lambda: next(iter(DataLoader(Pairs(x, parts=2), batch_size=COUNT))),
        "rows": lambda: [{"image": image, "label": label} for image, label in zip(x, LABELS, strict=True)],
        "batches": lambda: iter(
            [{"pixel_values": x[:3], "labels": LABELS[:3]}, {"pixel_values": x[3:], "labels": LABELS[3:]}]
        ),
    }[form]()
    found = heatproof.explain(model, images, "gradcam", target="label", batch_size=2)
    order = [int(id[-1]) for id in found.ids] if found.ids[0].startswith("case") else list(range(COUNT))
    assert (order == list(range(COUNT))) == (form != "shuffled")
    assert found.labels == found.target.tolist() == [LABELS[i] for i in order]
    torch.testing.assert_close(found["gradcam"], expected[order], rtol=1e-4, atol=1e-5)
    assert found.ids[0].startswith("case") == (form in ("pairs", "loader", "shuffled"))


def test_only_one_batch_of_a_stream_is_held(model, x):
    """The next image is asked for when the maps of the batch before are made."""
    asked, made = [], []

    def images():
        for image in x:
            asked.append(len(made))
            yield image

    def output(logits, target):
        made.append(len(target))
        return logits.gather(1, target[:, None])[:, 0]

    heatproof.explain(model, images(), "gradcam", batch_size=2, output=output)
    assert asked == [0, 0, 1, 1, 2] and made == [2, 2, 1]


def test_normalised_tensors_are_undone_when_said_and_refused_otherwise(model, x, expected):
    loader = DataLoader(Pairs(model.normalise(x)), batch_size=2)
    with pytest.raises(InvalidInput, match="`normalised=True`"):
        heatproof.explain(model, loader, "gradcam")
    found = heatproof.explain(model, loader, "gradcam", target="label", normalised=True)
    torch.testing.assert_close(found["gradcam"], expected, rtol=1e-3, atol=1e-4)
    as_bytes = heatproof.explain(model, Pairs((x * 255).round().byte()), "gradcam", target="label")
    torch.testing.assert_close(as_bytes["gradcam"], expected, rtol=0.2, atol=0.05)


@pytest.mark.parametrize("through", [lambda data: data, lambda data: DataLoader(data, batch_size=3)])
def test_an_item_that_cannot_be_read_is_flagged(model, x, expected, through):
    source = through(Pairs(x, broken=2))
    found = heatproof.explain(model, source, "gradcam", target="label", batch_size=2)
    why = "item 2 cannot be read (OSError: truncated file)"
    assert found.flags["gradcam"] == ["", "", why, "", ""] == found.image_flags
    assert found["gradcam"][2].abs().max() == 0 and found.logits[2].isnan().all() and found.target[2] == -1
    others = [0, 1, 3, 4]
    torch.testing.assert_close(found["gradcam"][others], expected[others], rtol=1e-4, atol=1e-5)
    scores = heatproof.score(model, source, "gradcam", ["sparseness", "deletion"], batch_size=2)
    frame = scores.to_pandas()
    assert frame[frame.flag == why].value.isna().all() and (frame.flag == why).sum() == 2
    assert frame[frame.flag != why].value.notna().all() and len(frame) == 2 * COUNT
    shown = heatproof.show(model, source, "gradcam")
    assert [entry.flag for entry in shown.entries] == ["", "", why, "", ""]
    assert [entry.label.index for entry in shown.entries if entry.label] == [0, 1, 3, 0]


def test_a_folder_gives_its_labels_and_flags_what_it_cannot_read(model, x, tmp_path):
    for i, image in enumerate(pictures(x[:4])):
        (tmp_path / f"c{i}").mkdir()
        image.save(tmp_path / f"c{i}" / "a.png")
    (tmp_path / "c1" / "b.png").write_text("no image")
    (tmp_path / "c4").mkdir()
    found = heatproof.explain(model, tmp_path, "gradcam", target="label")
    assert found.ids == ["c0/a.png", "c1/a.png", "c1/b.png", "c2/a.png", "c3/a.png"]
    assert found.labels == [0, 1, 1, 2, 3] and [bool(flag) for flag in found.flags["gradcam"]] == [0, 0, 1, 0, 0]
    frame = heatproof.score(model, str(tmp_path), "gradcam", "sparseness").to_pandas()
    assert frame.value.isna().tolist() == [False, False, True, False, False]
    with pytest.raises(InvalidInput, match="A folder goes by itself"):
        heatproof.explain(model, [tmp_path, tmp_path / "c0" / "a.png"], "gradcam")


def test_paths_come_as_a_pattern_or_as_rows(model, x, expected, tmp_path):
    for i, image in enumerate(pictures(x)):
        image.save(tmp_path / f"{i}.png")
    (tmp_path / "more.txt").touch()
    files = [str(tmp_path / f"{i}.png") for i in range(COUNT)]
    named = heatproof.explain(model, files, "gradcam", target=LABELS)
    pattern = heatproof.explain(model, str(tmp_path / "*.png"), "gradcam", target=LABELS)
    frame = pd.DataFrame({"path": files, "label": LABELS})
    rows = heatproof.explain(model, frame, "gradcam", target="label")
    for found in (pattern, rows):
        assert found.ids == files and torch.equal(found["gradcam"], named["gradcam"])
    assert rows.labels == LABELS
    assert [entry.label.index for entry in heatproof.show(model, frame, "gradcam").entries if entry.label] == LABELS
    chosen = {"methods": "gradcam", "metrics": "sparseness", "controls": "none", "progress": False}
    studied = [
        heatproof.run("score", model, images, **chosen, out=tmp_path / name).tables["scores.csv"]["mean"].tolist()
        for name, images in (("of_pattern", str(tmp_path / "*.png")), ("of_frame", frame))
    ]
    assert studied[0] == studied[1]


def test_what_patterns_and_rows_do_not_have_is_said(model, x, tmp_path):
    for i, image in enumerate(pictures(x)):
        (tmp_path / "c" / "d").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "c" / f"{i}.png")
    (tmp_path / "c" / "notes.txt").touch()
    for explained in (heatproof.explain, heatproof.show):
        with pytest.raises(InvalidInput, match=r"No file matches the pattern '.*gif'"):
            explained(model, str(tmp_path / "*.gif"), "gradcam")
        with pytest.raises(InvalidInput, match=r"It matches 1 folders: add"):
            explained(model, str(tmp_path / "*"), "gradcam")
    named = [str(tmp_path / "c" / f"{i}.png") for i in range(COUNT)]
    assert heatproof.explain(model, str(tmp_path / "c" / "*"), "gradcam").ids == named, "the extension decides"
    assert heatproof.explain(model, [named[0], str(tmp_path / "c" / "[12].png")], "gradcam").ids == named[:3]
    frame = pd.DataFrame({"path": [named[0], None, named[2]], "label": [0, 1, None]})
    found = heatproof.explain(model, frame, "gradcam")
    assert found.labels == [0, None, None] and "is no path" in found.flags["gradcam"][1]
    assert not found.flags["gradcam"][0] and not found.flags["gradcam"][2]


@pytest.mark.parametrize("form", ["tensor", "bytes", "array", "channels last"])
def test_a_study_takes_what_explain_takes(model, x, form, tmp_path):
    images = {
        "tensor": lambda: x,
        "bytes": lambda: (x * 255).round().byte(),
        "array": lambda: (x.permute(0, 2, 3, 1) * 255).round().byte().numpy(),
        "channels last": lambda: x.permute(0, 2, 3, 1).numpy(),
    }[form]()
    found = heatproof.run("score", model, images, out=tmp_path / "out", methods="gradcam", metrics="sparseness",
                          controls="none", progress=False)  # fmt: skip
    expected = heatproof.score(model, images, "gradcam", "sparseness").to_pandas().value
    rows = connect(found.folder).sql("select value from rows where metric = 'sparseness' order by all").df()
    np.testing.assert_allclose(rows.value, sorted(expected), rtol=1e-5)
    with pytest.raises(InvalidInput, match=r"must be \(N, 3, H, W\)\. Got \(3, 16, 16\)"):
        heatproof.run("score", model, x[0], out=tmp_path / "one", metrics="sparseness", progress=False)


def test_masks_of_a_set_of_its_own_are_taken():
    model = heatproof.load_model("shapes")
    frame = heatproof.score(model, Shapes("test", 3), "gradcam", ["energy"]).to_pandas()
    assert set(frame.flag) == {""} and frame.value.between(0, 1).all()


def test_class_names_of_a_dataset_decide_where_their_order_is_another(x):
    names = ["ant", "bee", "cat", "dog", "eel"]
    model = heatproof.wrap(nets.seeded(nets.Plain), mean=0.5, std=0.5, size=SIDE, layer="two", classes=names)
    rows = Rows(pictures(x), LABELS, ["dog", "cat", "bee", "ant"])
    found = heatproof.explain(model, rows, "gradcam", target="label")
    assert found.labels == [3, 2, 1, 0, 3]
    with pytest.warns(HeatproofWarning, match="there are 7 names, and the model has 5"):
        found = heatproof.explain(model, Rows(pictures(x), LABELS, list("abcdefg")), "gradcam")
    assert found.labels == [None] * COUNT
    by_name = heatproof.explain(model, [(image, "cat") for image in pictures(x)], "gradcam", target="label")
    assert by_name.labels == [2] * COUNT
    with pytest.raises(InvalidInput, match=r"one of the model's class names\. Got 'cow'"):
        heatproof.explain(model, [(pictures(x)[0], "cow")], "gradcam")


def test_a_hugging_face_dataset_is_a_set_of_images(model, x, expected):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"image": pictures(x), "label": LABELS}).cast_column("image", datasets.Image())
    found = heatproof.explain(model, rows, "gradcam", target="label")
    assert found.labels == LABELS


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([], "at least one image"),
        ({"a.png": Image.new("RGB", (4, 4)), "b.png": Image.new("RGB", (4, 4))}, "Got 2 images, called a.png, b.png"),
        (iter([]), "at least one image"),
        (
            {"train": [1], "test": [2]},
            r"must have an image, .* or a path\. Got train, test\. Give one of its parts.*\['train'\]",
        ),
        ([{"a": 1, "b": 2}], r"Got a, b\. Rename its column"),
        ([(torch.rand(3, 16, 16), torch.ones(16, 16))], r"Got Tensor \(16, 16\)\. A mask goes to `masks`"),
        ([(torch.rand(3, 16, 16), torch.tensor([0.0, 1.0]))], r"Got Tensor \(2,\). Of one-hot labels give `argmax"),
        ([(torch.rand(3, 16, 16), 1, "a", "b")], r"\(image, label, id\). Got 4 parts"),
        ([torch.rand(3, 16, 16), torch.rand(3, 16, 20)], "Images of a batch must have one size"),
    ],
)
def test_sources_that_hold_no_images_say_what_is_expected(model, images, says):
    with pytest.raises(InvalidInput, match=says):
        heatproof.explain(model, images, "gradcam")


class Mixed(Dataset):
    """One image of NaN and one of another number of channels."""

    def __init__(self, images):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return {1: self.images[1] * torch.nan, 3: self.images[3][:1]}.get(i, self.images[i])


@pytest.mark.parametrize("through", [lambda data: data, lambda data: DataLoader(data, batch_size=4)])
def test_a_tensor_that_cannot_be_an_input_is_flagged(model, x, expected, through):
    found = heatproof.explain(model, through(Mixed(x)), "gradcam", target=LABELS)
    flags = found.image_flags
    assert "not finite" in flags[1] and "Got (1, 1, 16, 16)" in flags[3] and not any(flags[::2])
    torch.testing.assert_close(found["gradcam"][::2], expected[::2], rtol=1e-4, atol=1e-5)
    assert len(collected(through(Mixed(x)), input_form(model)).flags) == 2


def test_images_of_unequal_size_in_a_loader_say_what_to_do(model):
    loader = DataLoader([torch.rand(3, 16, 16), torch.rand(3, 16, 20)], batch_size=2)  # type: ignore[arg-type]
    for size, says in ((2, "Images of a batch must have one size"), (1, "maps of 16×16 and 16×20")):
        with pytest.raises(InvalidInput, match=says):
            heatproof.explain(model, loader, "gradcam", batch_size=size)
    assert len(heatproof.show(model, loader, "gradcam").entries) == 2


@pytest.mark.parametrize("given", [-1, None, torch.tensor(-1)])
def test_a_negative_label_is_no_label(model, x, given):
    rows = [(x[0], given), (x[1], 1)]
    assert heatproof.explain(model, rows, "gradcam").labels == [None, 1]
    assert heatproof.explain(model, x[:2], "gradcam", labels=[given, 1]).labels == [None, 1]
    for shown in (heatproof.show(model, rows), heatproof.show(model, x[:2], labels=[given, 1])):
        assert [entry.label and entry.label.index for entry in shown.entries] == [None, 1]
    with pytest.raises(InvalidTarget, match="Got none for 1 of 2"):
        heatproof.explain(model, rows, "gradcam", target="label")


def test_a_label_outside_the_models_classes_is_said(model, x):
    with pytest.warns(HeatproofWarning, match=r"must lie in 0 … 4, the model's classes\. Got 9 for image 2; these"):
        heatproof.show(model, x[:2], labels=[1, 9])


def test_labels_by_name(x):
    names = ["ant", "bee", "cat", "dog", "eel"]
    model = heatproof.wrap(nets.seeded(nets.Plain), mean=0.5, std=0.5, size=SIDE, layer="two", classes=names)
    assert heatproof.explain(model, x[:2], target="label", labels=["Cat", 4]).target.tolist() == [2, 4]
    shown = heatproof.show(model, x[:2], target="label", labels=["Cat", 4]).entries
    assert [entry.label.index for entry in shown if entry.label] == [2, 4]
    value = [heatproof.score(model, x[:1], "gradcam", "deletion", target="label", labels=[one]).rows[0].value
             for one in ("cat", 2)]  # fmt: skip
    assert value[0] == value[1]
    with pytest.raises(InvalidTarget, match="Did you mean 'cat'"):
        heatproof.explain(model, x[:1], labels=["catt"])


def test_an_unreadable_image_keeps_its_reason_for_the_target_label(model, x):
    shown = heatproof.show(model, Pairs(x, broken=2), target="label").entries
    assert "truncated file" in shown[2].flag and not shown[1].flag


def test_what_goes_by_position_needs_the_number_of_images(model, x):
    with pytest.raises(InvalidInput, match="The number of these images is not known"):
        heatproof.explain(model, (image for image in x), "gradcam", labels=LABELS)


# --- studies ---


@pytest.mark.parametrize("held", [False, True])
def test_a_study_runs_on_a_dataset(model, x, held, tmp_path):
    source = Pairs(x, broken=2)
    given = DataLoader(source, batch_size=2) if held else source
    settings = {"out": tmp_path / "out", "methods": ["gradcam"], "controls": "none", "metrics": ["sparseness"],
                "target": "label", "progress": False}  # fmt: skip
    done = heatproof.run("score", model, given, **settings)
    rows = connect(done.folder).sql("select * from rows").df()
    mine = rows[rows.metric == "sparseness"].set_index("image")
    direct = heatproof.score(model, Pairs(x), "gradcam", "sparseness", target="label").to_pandas().set_index("image")
    for i in (0, 1, 3, 4):
        assert mine.value[f"case-{i}"] == pytest.approx(direct.value[f"case-{i}"], rel=1e-4)
    assert "truncated file" in mine.flag["image 3"] and done.page.is_file()
    with pytest.raises(StoreError, match="other settings"):
        heatproof.run("score", model, Pairs(1 - x), **settings)


# --- models of Hugging Face ---


@pytest.fixture(scope="module")
def classifier():
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic",
        id2label={0: "ant", 1: "bee", 2: "cat"}, label2id={"ant": 0, "bee": 1, "cat": 2},
    )  # fmt: skip
    torch.manual_seed(0)
    processor = transformers.ViTImageProcessor(
        size={"height": 32, "width": 40}, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7], resample=3
    )
    return transformers.ResNetForImageClassification(config).eval(), processor


def test_a_pipeline_is_a_model_with_its_own_preprocessing_and_classes(classifier, x):
    transformers = pytest.importorskip("transformers")
    network, processor = classifier
    pipeline = transformers.pipeline("image-classification", model=network, image_processor=processor)
    photo = Image.fromarray((nets.images(1, 5, 7)[0].permute(1, 2, 0) * 255).byte().numpy()).resize((140, 100), 3)
    for model in (heatproof.wrap(pipeline), heatproof.wrap(network, processor=processor)):
        assert model.classes == ["ant", "bee", "cat"] and model.geometry.size == (32, 40)
        assert model.mean == pytest.approx((0.1, 0.2, 0.3)) and model.geometry.interpolation == "bicubic"
        seen = model.normalise(model.geometry.image(photo)[None])
        torch.testing.assert_close(seen, processor(photo, return_tensors="pt")["pixel_values"], rtol=0, atol=0.02)
    found = heatproof.explain(pipeline, photo, "gradcam")
    best = max(pipeline(photo), key=lambda one: one["score"])["label"]
    assert heatproof.wrap(pipeline).classes[int(found.target)] == best  # type: ignore[index]
    assert heatproof.wrap(pipeline, size=24, mean=0.5).geometry.size == (24, 24)


def test_pipelines_for_other_tasks_say_what_to_do(classifier):
    class Other:
        model, image_processor, task = classifier[0], None, "zero-shot-image-classification"

    with pytest.raises(ModelError, match=r"image-classification\. Got one for zero-shot.* heatproof\.zero_shot"):
        heatproof.wrap(Other())
    with pytest.raises(InvalidInput, match=r"or an image-classification pipeline\. Got int"):
        heatproof.wrap(3)


# --- images of any number of channels ---


def banded(channels: int) -> nn.Module:
    return nets.seeded(
        lambda: nn.Sequential(
            nn.Conv2d(channels, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)
        )
    )


def test_files_of_one_channel_reach_a_network_of_one_channel_everywhere(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    model = heatproof.wrap(banded(1), mean=0.25, std=0.5, input_shape=(1, SIDE, SIDE), resize=None)
    tensor = torch.from_numpy(np.asarray(Image.fromarray(values).resize((SIDE, SIDE), 2)).copy())[None, None] / 255
    expected = heatproof.explain(model, tensor, "gradcam")["gradcam"]
    colour = np.repeat(values[..., None], 3, 2)
    for given in (tmp_path / "a.png", Image.fromarray(values), values, values[..., None], colour, tmp_path):
        torch.testing.assert_close(heatproof.explain(model, given, "gradcam")["gradcam"], expected)
    shown = heatproof.show(model, tmp_path, "gradcam").entries[0].image
    assert shown is not None and shown.shape == (SIDE, SIDE, 3) and (shown[..., 0] == shown[..., 2]).all()


def test_colour_becomes_luma_for_one_channel():
    geometry = heatproof.wrap(banded(1), mean=0, std=1, input_shape=(1, 2, 2), resize=None).geometry
    rgb = np.full((2, 2, 3), [0.2, 0.4, 0.8], np.float32)
    for image in (rgb, Image.fromarray((rgb * 255).round().astype(np.uint8))):
        grey = geometry.image(opened(image))  # type: ignore[arg-type]
        torch.testing.assert_close(
            grey, torch.full((1, 2, 2), 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.8), atol=2e-3, rtol=0
        )


def test_files_of_8_bits_with_other_channels_are_named_and_counted_as_they_are(tmp_path):
    """A grey PNG with transparency has two channels, also where it would be opened as RGBA."""
    values = np.arange(8 * 8 * 4, dtype=np.uint8).reshape(8, 8, 4)
    Image.fromarray(values[..., :2], "LA").save(tmp_path / "la.png")
    Image.fromarray(values[..., :3]).save(tmp_path / "rgb.png")
    Image.fromarray(values).convert("RGB").convert("CMYK").save(tmp_path / "cmyk.tif")
    for name, has in (("la.png", 2), ("rgb.png", 3), ("cmyk.tif", 3)):
        with pytest.raises(InvalidImage, match=f"{name}: has {has} channels, and the network takes images of 4"):
            Geometry((8, 8), channels=4).image(open_pixels(tmp_path / name))
    two = Geometry((8, 8), channels=2).image(open_pixels(tmp_path / "la.png"))
    np.testing.assert_allclose(two.numpy(), values[..., :2].transpose(2, 0, 1) / 255, atol=1e-6)


def test_bands_of_npy_and_tiff_reach_their_channels(tmp_path):
    import tifffile

    bands = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    narrow = np.random.default_rng(0).integers(0, 65536, (5, 6, 7), np.uint16)  # fewer rows than bands
    tifffile.imwrite(tmp_path / "narrow.tiff", narrow, photometric="minisblack", planarconfig="contig")
    narrow_model = heatproof.wrap(banded(7), mean=0, std=1, input_shape=(7, 5, 6), resize=None)
    found = narrow_model.geometry.image(open_pixels(tmp_path / "narrow.tiff"))
    torch.testing.assert_close(found, torch.from_numpy(narrow / np.float32(65535)).permute(2, 0, 1))
    np.save(tmp_path / "last.npy", bands)
    np.save(tmp_path / "first.npy", bands.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / "alpha.tif", bands)
    tifffile.imwrite(tmp_path / "unspecified.tif", bands, photometric="rgb", extrasamples=["unspecified"])
    tifffile.imwrite(tmp_path / "grey.tif", bands, photometric="minisblack", planarconfig="contig")
    deep = bands.transpose(2, 0, 1).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "planes.tif", deep, photometric="minisblack", planarconfig="separate")
    model = heatproof.wrap(banded(4), mean=(0, 0, 0, 0.5), std=1, input_shape=(4, SIDE, SIDE), resize=None)
    expected = heatproof.explain(model, torch.from_numpy(bands / np.float32(255)).permute(2, 0, 1)[None], "gradcam")
    for file in sorted({*tmp_path.iterdir()} - {tmp_path / "narrow.tiff"}):
        found = heatproof.explain(model, file, "gradcam")
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    shown = heatproof.show(model, tmp_path / "last.npy", "gradcam").entries[0].image
    assert (shown == bands[..., :3]).all()  # the first three bands are red, green and blue


def test_a_model_without_mean_and_std_says_how_files_go_into_it():
    model = heatproof.wrap(banded(1), input_shape=(1, SIDE, SIDE), resize=None)
    tensor = torch.randn(2, 1, SIDE, SIDE)
    torch.testing.assert_close(heatproof.explain(model, tensor, "gradcam").logits, model.module(tensor))
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), np.uint8)
    with pytest.warns(HeatproofWarning, match="without mean and std: image files go into it as they are"):
        found = heatproof.explain(model, values, "gradcam")
    torch.testing.assert_close(found.logits, model.module(torch.from_numpy(values / np.float32(255))[None, None]))


def test_the_command_line_takes_an_input_shape(tmp_path, monkeypatch, capsys):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "greynet.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef net():\n    torch.manual_seed(0)\n    return nn.Sequential("
        "nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()\n"
    )
    monkeypatch.chdir(tmp_path)
    model = ["--model", "python:greynet:net", "--input-shape", "1,16,16", "--mean", "0.5", "--std", "0.5"]
    arguments = [*model, "--methods", "gradcam", "--out", str(tmp_path / "out")]
    for command in (["score", "a.png", *arguments, "--metrics", "irof", "--controls", "none"],
                    ["explain", "a.png", *arguments[:-1], str(tmp_path / "shown")]):  # fmt: skip
        with pytest.raises(SystemExit) as stopped:
            cli.main(command)
        assert not stopped.value.code
    assert (tmp_path / "shown" / "panels" / "a.png").is_file()

"""`heatproof.show`: the maps are those of `explain`, what cannot be explained says why, files outlive a kill."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import heatproof
from heatproof.attributions import ATTRIBUTIONS, attribution
from heatproof.errors import HeatproofWarning, InvalidInput, InvalidTarget, NotApplicable, UnknownName
from heatproof.geometry import Geometry
from heatproof.panels import show as showing
from heatproof.panels.image_sources import shots, stems
from heatproof.panels.overlays import seen
from heatproof.panels.selection import selected
from heatproof.panels.show import checked_job, explained_into
from heatproof.progress import Silent

from .. import nets

METHODS = ["gradcam", "layercam", "refine:gradcam", "gradcam++[compat=true]", "random", "shapleycam"]
SIDE = 16


class ThreeStages(nn.Module):
    """Three resolutions, a head that is not linear."""

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh())
        self.two = nn.Sequential(nn.Conv2d(6, 7, 3, 2, 1), nn.Tanh())
        self.three = nn.Sequential(nn.Conv2d(7, 8, 3, 2, 1), nn.Tanh())
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.head(self.three(self.two(self.one(x))).mean((2, 3)))) * 3


@pytest.fixture(scope="module")
def model() -> heatproof.Model:
    names = ["ant", "bee <b>&", "cat", "dog, hound, very long indeed", "eel"]
    return heatproof.wrap(nets.seeded(ThreeStages), size=SIDE, device="cpu", classes=names)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four images, two of one name, and a file that is no image."""
    generator = np.random.default_rng(0)
    for name in ("a/cat.png", "b/cat.png", "b/dog.png", "b/<i>& eel.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
    (tmp_path / "photos" / "b" / "broken.jpg").write_bytes(b"nothing")
    return tmp_path / "photos"


def names_in(folder: Path) -> list[str]:
    """The files in a folder."""
    return sorted(path.name for path in folder.iterdir())


# --- the maps ---


@pytest.mark.parametrize("target", ["predicted", "least", 3, "top3"])
def test_maps_are_those_of_explain(model, target):
    x = nets.images(3, SIDE)
    found = heatproof.show(model, x, METHODS, target, upsample="bicubic", output="probability", seed=4)
    display = heatproof.explain(model, x, METHODS, target, upsample="bicubic", output="probability", seed=4)
    raw = heatproof.explain(model, x, METHODS, target, upsample="bicubic", output="probability", seed=4, raw=True)
    for i, entry in enumerate(found.entries):
        assert [block.answer.index for block in entry.blocks] == display.target[i].reshape(-1).tolist()
        for t, block in enumerate(entry.blocks):
            assert list(block.maps) == METHODS
            for key, shown in block.maps.items():
                several = display.target.dim() == 2
                torch.testing.assert_close(
                    torch.from_numpy(shown.display), display[key][i, t] if several else display[key][i],
                    rtol=1e-4, atol=1e-5,
                )  # fmt: skip
                torch.testing.assert_close(
                    torch.from_numpy(shown.raw), raw[key][i, t] if several else raw[key][i], rtol=1e-4, atol=1e-6
                )
    probability = model.probabilities(display.logits)[0, found.entries[0].blocks[0].answer.index]
    assert found.entries[0].blocks[0].answer.probability == pytest.approx(float(probability))


def test_files_hold_the_same_maps_as_explain(model, folder, tmp_path):
    """Also of a method that draws random numbers from the file's name."""
    files = [folder / "a" / "cat.png", folder / "b" / "dog.png"]
    page = heatproof.show(model, files, METHODS, labels=[1, 2], batch_size=2).save(tmp_path / "out")
    assert page == tmp_path / "out" / "index.html"
    maps, raw = (heatproof.explain(model, files, METHODS, raw=raw) for raw in (False, True))
    for i, name in enumerate(("cat", "dog")):
        with np.load(tmp_path / "out" / "maps" / f"{name}.npz", allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            assert about["methods"] == METHODS and about["id"] == str(files[i]) and about["label"][0] == i + 1
            assert stored["target"].tolist() == [int(maps.target[i])]
            x = model.geometry.image(Image.open(files[i]).convert("RGB"))
            assert (stored["image"] == (x * 255).round().byte().permute(1, 2, 0).numpy()).all()
            for key in METHODS:
                np.testing.assert_allclose(stored[f"display/{key}"], maps[key][i].numpy(), rtol=1e-4, atol=1e-6)
                np.testing.assert_allclose(stored[f"raw/{key}"], raw[key][i].numpy(), rtol=1e-4, atol=1e-6)
        assert Image.open(tmp_path / "out" / "panels" / f"{name}.png").size[0] > 224


def test_saved_forms_of_a_panel_are_those_asked_for(model, folder, tmp_path):
    found = heatproof.show(model, folder / "a" / "cat.png", "gradcam", dpi=48, formats="svg")
    assert found.panels[0].size[0] < heatproof.show(model, folder / "a" / "cat.png", "gradcam").panels[0].size[0]
    found.save(tmp_path / "one")
    assert names_in(tmp_path / "one" / "panels") == ["cat.svg"] and not (tmp_path / "one" / "overlays").exists()
    found.save(tmp_path / "two", formats=["png", "pdf"], dpi=300, overlays=True)
    assert names_in(tmp_path / "two" / "panels") == ["cat.pdf", "cat.png"]
    assert names_in(tmp_path / "two" / "overlays" / "cat") == ["01-gradcam.png"]
    with pytest.raises(UnknownName, match="'png'"):
        found.save(tmp_path / "three", formats="pgn")


@pytest.mark.parametrize(("size", "resize"), [((40, 60), 32), ((90, 30), 24), ((64, 64), None), ((50, 37), None)])
def test_an_overlay_lies_on_the_part_that_the_network_saw(size, resize):
    """Each corner pixel of the network's input is the mean of the original's pixels there."""
    geometry = Geometry((16, 16), resize)
    left, top, right, bottom = seen(geometry, size)
    width, height = size
    if resize is None:
        assert (left, top, right, bottom) == (0, 0, width, height)
    else:
        scale = resize / min(size)
        wanted = [
            (width - 16 / scale) / 2,
            (height - 16 / scale) / 2,
            (width + 16 / scale) / 2,
            (height + 16 / scale) / 2,
        ]
        assert np.abs(np.array([left, top, right, bottom]) - wanted).max() <= 1


def test_images_of_different_sizes_and_batches_give_the_same(model):
    x = nets.images(5, SIDE)
    one, two = (heatproof.show(model, x, METHODS, batch_size=size).entries for size in (1, 5))
    for a, b in zip(one, two, strict=True):
        for key in METHODS:
            np.testing.assert_allclose(a.blocks[0].maps[key].display, b.blocks[0].maps[key].display, atol=1e-4)


def test_cheap_methods_share_one_pass_and_the_network_is_left_as_it_was(model, monkeypatch):
    assert model.layers.stages == ("one", "two", "three")  # found once, by a pass of its own
    calls = []
    handle = model.module.register_forward_hook(lambda *_: calls.append(1))
    heatproof.show(model, nets.images(4, SIDE), ["gradcam", "layercam", "refine:gradcam", "xgradcam"])
    handle.remove()
    assert len(calls) == 1
    assert not model.module._forward_hooks and all(p.requires_grad for p in model.module.parameters())


# --- what cannot be explained ---


def test_a_broken_image_is_an_entry_that_says_so(model, folder, tmp_path):
    found = heatproof.show(model, folder, "gradcam")
    flags = {entry.name: entry.flag for entry in found.entries}
    assert list(flags) == ["a/cat.png", "b/<i>& eel.png", "b/broken.jpg", "b/cat.png", "b/dog.png"]
    assert flags.pop("b/broken.jpg") == "is not an image in a known format" and not any(flags.values())
    assert len(found.panels) == 5
    found.save(tmp_path / "out")
    assert len(list((tmp_path / "out" / "maps").iterdir())) == 4
    assert "Not explained: is not an image" in (tmp_path / "out" / "index.html").read_text()


@pytest.fixture
def filed():
    """Methods that cannot serve, at once or once they run, and one that fails."""

    @attribution("never-serves", applies=lambda model, layer, options: "it has no wheels")
    def never_serves(activations):
        """No."""

    @attribution("finds-out", source="ours")
    def finds_out(activations):
        """No."""
        raise NotApplicable("it has no wings.")

    @attribution("breaks")
    def breaks(activations):
        """No."""
        raise RuntimeError("boom <script>")

    @attribution("is-strict")
    def is_strict(activations, *, count: int = 1):
        """No."""
        raise InvalidInput("`count` must be at least 2. Got 1.")

    yield
    for name in ("never-serves", "finds-out", "breaks", "is-strict"):
        ATTRIBUTIONS.remove(name)


@pytest.mark.usefixtures("filed")
def test_methods_that_cannot_serve_are_left_out_with_reasons_once(model, tmp_path):
    x = nets.images(3, SIDE)
    found = heatproof.show(model, x, ["never-serves", "gradcam", "finds-out", "breaks"], batch_size=1)
    assert found.not_applicable == {"never-serves": "it has no wheels", "finds-out": "it has no wings"}
    for entry in found.entries:
        assert list(entry.blocks[0].maps) == ["gradcam", "breaks"]
        assert entry.blocks[0].maps["breaks"].flag == "RuntimeError: boom <script>"
        assert not entry.blocks[0].maps["breaks"].display.any()
    page = found.save(tmp_path).read_text()
    assert page.count("it has no wheels") == 1 and page.count("it has no wings") == 1
    assert "<script>" not in page and page.count("boom &lt;script&gt;") >= 3
    with pytest.raises(NotApplicable, match=r"never-serves: it has no wheels"):
        heatproof.show(model, x, "never-serves")
    with pytest.raises(NotApplicable, match="no wings"):
        heatproof.show(model, x, "finds-out")
    with pytest.raises(InvalidInput, match="`count` must be at least 2"):
        heatproof.show(model, x, ["gradcam", "is-strict"])


def test_signals_and_volumes_are_refused(model):
    class Signal(nn.Module):
        def forward(self, x):
            return x.mean(2)

    with pytest.raises(InvalidInput, match="Only images can be shown"):
        heatproof.show(heatproof.wrap(Signal(), input_shape=(4, 32)), torch.rand(2, 4, 32))


# --- methods, layers, options ---


def keys(rows) -> list[list[str]]:
    return [[method.key for method in row] for row in rows]


def test_all_layers_plain_and_refined(model):
    found = selected(model, ["gradcam", "gradcam++[compat=true]", "random"], layers="all")
    assert keys(found.rows) == [
        ["gradcam@one", "gradcam@two", "gradcam@three"],
        ["refine:gradcam@one+two+three", "refine:gradcam@two+three"],
        ["gradcam++@one[compat=true]", "gradcam++@two[compat=true]", "gradcam++@three[compat=true]"],
        ["refine:gradcam++@one+two+three[compat=true]", "refine:gradcam++@two+three[compat=true]"],
        ["random"],
    ]
    assert [method.layers for method in found.rows[1]] == [("one", "two", "three"), ("two", "three")]
    assert {method.title for method in found.rows[1]} == {"refine:gradcam"}
    x = nets.images(2, SIDE)
    shown = heatproof.show(model, x, ["gradcam"], layers="all").entries[0].blocks[0].maps
    wanted = heatproof.explain(model, x, ["gradcam@two", "refine:gradcam@two"])
    np.testing.assert_allclose(shown["gradcam@two"].display, wanted["gradcam@two"][0].numpy(), atol=1e-5)
    np.testing.assert_allclose(
        shown["refine:gradcam@two+three"].display, wanted["refine:gradcam@two"][0].numpy(), atol=1e-5
    )


def test_a_method_that_serves_at_no_layer_is_named_once(model):
    found = selected(model, ["gradcam", "cam", "chefer"], layers="all")
    assert list(found.refused) == ["cam", "chefer"] and "linear layer" in found.refused["cam"]
    assert {method.request.entry.name for method in found.methods} == {"gradcam"}


def test_some_layers(model):
    found = selected(model, ["gradcam", "refine:layercam[operator=geometric]", "hirescam@one"], layers=["three", "one"])
    assert keys(found.rows) == [
        ["gradcam@one", "gradcam@three"],
        ["refine:gradcam@one+three"],
        ["refine:layercam@one+three[operator=geometric]", "hirescam@one"],
    ]
    assert keys(selected(model, ["gradcam", "refine:gradcam"], layers="all").rows) == keys(
        selected(model, ["gradcam"], layers="all").rows
    )
    with pytest.raises(UnknownName, match="'three'"):
        selected(model, ["gradcam"], layers=["thre"])
    with pytest.raises(InvalidInput, match="each once"):
        selected(model, ["gradcam"], layers=["one", "one"])


def test_families(model):
    real = {name for name, entry in ATTRIBUTIONS.items() if not entry.traits["control"]}
    everything = selected(model, "all")
    assert {method.key for row in everything.rows for method in row} | set(everything.refused) == real
    cams = selected(model, ["layercam", "cams", "random"])
    names = [method.key for method in cams.methods]
    assert names[0] == "layercam" and names[-1] == "random" and len(set(names)) == len(names)
    assert {"gradcam", "eigencam"} <= set(names)
    assert all(ATTRIBUTIONS[name].traits["form"] == "cam" for name in names[:-1])


def test_options_reach_every_form_of_a_method(model):
    methods = ["gradcam++", "refine:gradcam++", "gradcam++@two", "gradcam"]
    found = selected(model, methods, options={"gradcampp": {"compat": True}})
    assert [method.key for method in found.methods] == [
        "gradcam++[compat=true]", "refine:gradcam++[compat=true]", "gradcam++@two[compat=true]", "gradcam"
    ]  # fmt: skip
    assert all(method.request.options["compat"] is True for method in found.methods[:3])
    refined = selected(model, methods, options={"refine:gradcam++": {"operator": "geometric", "compat": True}})
    assert [method.key for method in refined.methods] == [
        "gradcam++", "refine:gradcam++[compat=true,operator=geometric]", "gradcam++@two", "gradcam"
    ]  # fmt: skip
    assert selected(model, ["gradcam++"], options={"gradcam++": {"compat": False}}).methods[0].key == "gradcam++"


@pytest.mark.parametrize(
    ("methods", "options", "said"),
    [
        (["gradcm"], {}, "'gradcam'"),
        (["gradcam++"], {"gradcam++": {"compt": True}}, "'compat'"),
        (["gradcam++"], {"gradcm++": {"compat": True}}, "'gradcam\\+\\+'"),
        (["gradcam"], {"gradcam++": {"compat": True}}, "goes|go with a method that is asked for"),
        (["gradcam++"], {"gradcam++": {"compat": "maybe"}}, "true or false"),
        (["gradcam"], {"gradcam": {"operator": "geometric"}}, "operator"),
        (["refine:gradcam"], {"gradcam": {"operator": "geometri"}}, "'geometric'"),
        ([], {}, "at least one method"),
    ],
)
def test_names_and_options_that_do_not_exist(model, methods, options, said):
    with pytest.raises((UnknownName, InvalidInput), match=said):
        selected(model, methods, options=options)


def test_a_network_without_places_is_shown_by_what_reads_no_layer():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3 * SIDE * SIDE, 4)

        def forward(self, x):
            return self.head(x.flatten(1))

    net = heatproof.wrap(nets.seeded(Flat), size=SIDE)
    found = selected(net, ["gradcam", "centre"])
    assert [method.key for method in found.methods] == ["centre"] and list(found.refused) == ["gradcam"]


# --- images ---


def test_images_by_file_folder_pattern_and_name(model, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert [s.name for s in shots("photos/b", model)] == ["<i>& eel.png", "broken.jpg", "cat.png", "dog.png"]
    found = shots(["photos/a", "photos/*/cat.png", "photos/b/dog.png", "shapes:val"], model)
    assert [s.id for s in found[:3]] == ["photos/a/cat.png", "photos/b/cat.png", "photos/b/dog.png"]
    assert [s.name for s in found[:4]] == ["a/cat.png", "b/cat.png", "b/dog.png", "val/00000"]
    assert found[0].label is None and found[3].mask is not None and len(found) == 3 + 256
    for wrong in ("photos/nothing.png", "photos/*.tif", "shape"):
        with pytest.raises(InvalidInput, match=re.escape(wrong)):
            shots(wrong, model)


def test_images_without_a_file_are_numbered_and_equal_ones_both_kept(model, folder, tmp_path):
    one = Image.open(folder / "a" / "cat.png")
    found = heatproof.show(model, [one, one, folder / "b" / "dog.png"], "gradcam", target=[0, 1, 2])
    assert [entry.name for entry in found.entries] == ["image 1", "image 2", "dog.png"]
    found.save(tmp_path / "out")
    assert names_in(tmp_path / "out" / "maps") == ["dog.npz", "image-1.npz", "image-2.npz"]
    assert [e.blocks[0].answer.index for e in found.entries] == [0, 1, 2]


def test_file_names_are_safe_and_their_own(model, folder):
    names = stems(shots(folder, model))
    assert names[1] == "i-eel" and names[2] == "broken" and names[4] == "dog"
    assert names[0] != names[3] and all(re.fullmatch(r"cat-[0-9a-f]{8}", name) for name in (names[0], names[3]))
    assert names == stems(shots(folder, model)), "the same in every run"
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)


def test_labels_from_subfolders_only_where_they_can_be_the_models_classes(model, folder):
    assert all(shot.label is None for shot in shots(folder, model)), "two folders, five classes"
    for name in ("c", "d", "e"):
        (folder / name).mkdir()
    with pytest.warns(HeatproofWarning, match=r"alphabetical order of the names, such as a \(0\), b \(1\)"):
        assert [shot.label for shot in shots(folder, model)] == [0, 1, 1, 1, 1]


def test_labels_from_a_csv(model, folder, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("file,class_index\ncat.png,1\nb/cat.png,2\n")
    found = {s.name: s.label for s in shots(folder, model, file)}
    assert (found["a/cat.png"], found["b/cat.png"]) == (1, 2), "the line that fits more of the path"
    shown = heatproof.show(model, folder, "gradcam", "label", labels=file)
    flags = {entry.name: entry.flag for entry in shown.entries}
    assert flags["b/dog.png"] == "has no label, and target `label` needs one" and not flags["a/cat.png"]
    assert [e.blocks[0].answer.index for e in shown.entries if e.blocks] == [1, 2]
    file.write_text("file,class_index\nelse.png,1\n")
    with pytest.raises(InvalidInput, match=r"names 'else\.png', and no image"):
        shots(folder, model, file)
    with pytest.raises(InvalidTarget, match="needs labels"):
        heatproof.show(model, nets.images(2, SIDE), "gradcam", "label")


@pytest.mark.parametrize("target", [[1, 2], [[1, 2], [3, 4]], 9, "predictd", "top9"])
def test_targets_that_cannot_be(model, target):
    with pytest.raises(InvalidTarget):
        heatproof.show(model, nets.images(3, SIDE), "gradcam", target)


# --- folders that outlive a kill ---


def counted(monkeypatch) -> list[int]:
    """How many images each batch of the engine held."""
    sizes: list[int] = []
    real = showing.entries.__globals__["_batch"]

    def spied(work, taken, rows, x):
        sizes.append(len(rows))
        return real(work, taken, rows, x)

    monkeypatch.setitem(showing.entries.__globals__, "_batch", spied)
    return sizes


def into(out, model, folder, methods="gradcam", **options):
    return explained_into(out, checked_job(model, folder, methods, batch_size=1, **options), Silent())


def test_what_is_written_stays_and_the_same_call_goes_on(model, folder, tmp_path, monkeypatch):
    out, seen = tmp_path / "out", []

    def stop(entry):
        seen.append(entry)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explained_into(out, checked_job(model, folder, ["gradcam", "random"], batch_size=1), Silent(), advance=stop)
    assert len(names_in(out / "maps")) == len(names_in(out / "panels")) == 2
    assert "3 images are missing" in (out / "index.html").read_text()
    sizes = counted(monkeypatch)
    album = into(out, model, folder, ["gradcam", "random"])
    assert sizes == [1, 1] and album.kept == 2
    whole = tmp_path / "whole"
    into(whole, model, folder, ["gradcam", "random"])
    for file in sorted((whole / "maps").iterdir()):
        with np.load(file) as one, np.load(out / "maps" / file.name) as other:
            assert set(one.files) == set(other.files)
            assert all((one[key] == other[key]).all() for key in one.files)
        drawn = file.with_suffix(".png").name
        assert (whole / "panels" / drawn).read_bytes() == (out / "panels" / drawn).read_bytes()
    assert (whole / "index.html").read_text() == (out / "index.html").read_text()


def test_only_the_very_same_is_taken_over(model, folder, tmp_path, monkeypatch):
    out, sizes = tmp_path / "out", counted(monkeypatch)
    into(out, model, folder)
    assert sizes == [1] * 4
    into(out, model, folder, colormap="viridis", alpha=0.9)
    assert len(sizes) == 4, "another look draws anew, and explains nothing anew"
    for changed in ({"target": 2}, {"seed": 1}, {"output": "probability"}, {"upsample": "nearest"}, {"layer": "one"}):
        sizes.clear()
        into(out, model, folder, **changed)
        assert sizes == [1] * 4, changed
    sizes.clear()
    into(out, model, folder, layer="one")
    other = heatproof.wrap(nets.seeded(ThreeStages, 7), size=SIDE, classes=model.classes, name=model.name)
    into(out, other, folder)
    assert sizes == [1] * 4
    shutil.copy(folder / "a" / "cat.png", folder / "b" / "dog.png")
    into(out, other, folder)
    assert sizes == [1] * 5, "an image that changed"
    (out / "maps" / "dog.npz").write_bytes(b"damaged")
    assert into(out, other, folder).kept == 3
    assert sizes == [1] * 6


def test_a_mistake_writes_nothing(model, folder, tmp_path):
    with pytest.raises(InvalidTarget):
        into(tmp_path / "out", model, folder, target=99)
    assert not (tmp_path / "out").exists()


# --- the page ---


class Read(HTMLParser):
    """Tags, links and anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [given["href"]] if "href" in given else []
        self.sources += [given["src"]] if "src" in given else []
        self.anchors |= {given["id"]} if "id" in given else set()

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_holds_everything_and_asks_for_nothing(model, folder, tmp_path):
    shown = heatproof.show(model, folder, ["gradcam", "ones", "random"], target=1)
    text = shown.save(tmp_path).read_text()
    page = Read(text)
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert len(page.sources) == 4 * (1 + 3)
    assert "script" not in page.tags and "i" in page.tags and page.tags.count("b") > 4
    for link in page.links:
        assert link[1:] in page.anchors if link.startswith("#") else (tmp_path / link).is_file(), link
    words = " ".join(page.words)
    assert "b/<i>& eel.png" in words and "bee <b>& (1)" in words, "escaped, not obeyed"
    assert "<i>& eel" not in text and "<b>&" not in text.replace("<b>&lt;", "")
    for part in ("gradcam", "Selvaraju", "three", "Panel (PNG)", "Maps (NumPy)"):
        assert part in words
    assert "Unfinished" not in words


def test_flags_are_said_at_the_map_and_at_the_method(model, tmp_path):
    broken = heatproof.wrap(nets.seeded(nets.Plain), size=SIDE, layer="two")
    with torch.no_grad():
        broken.module.head.weight[2] = 0
    text = heatproof.show(broken, nets.images(2, SIDE), ["gradcam", "eigencam"], target=2).save(tmp_path).read_text()
    page = Read(text)
    assert " ".join(page.words).count("constant map") == 2 + 2
    assert "so the plain image is shown" in text
    links = [link for link in page.links if link.startswith("#method-")]
    assert links == ["#method-1", "#method-2"] * 2


def test_a_notebook_shows_the_same_without_a_page_around_it(model):
    shown = heatproof.show(model, nets.images(2, SIDE), ["gradcam", "layercam"], "top2", layers=["one", "three"])
    text = shown._repr_html_()
    page = Read(text)
    assert not {"html", "body", "script", "head"} & set(page.tags) and "{{" not in text
    assert len(page.sources) == 2 * (1 + 2 * 6)
    assert ".heatproof-shown {" in text and "gradcam@one" in repr(shown)
    assert "image 2" in " ".join(page.words)

"""`heatproof explain` as typed: files, exit codes, mistakes in one sentence, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import heatproof
from heatproof import cli
from heatproof.attributions import ATTRIBUTIONS, attribution
from heatproof.cli.options import method_options
from heatproof.errors import InvalidInput, NotApplicable

pytestmark = pytest.mark.filterwarnings("default::heatproof.errors.HeatproofWarning")


def called(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Two images and a broken one; the working folder is the one they lie in."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("cat.png", "dog.png"):
        Image.fromarray(generator.integers(0, 256, (100, 120, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    return tmp_path


def stored(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def test_panels_maps_and_a_page(capsys, folder):
    code, out, err = called(
        capsys, "explain", "cat.png", "*.png", "--model", "shapes", "--methods", "gradcam,refine:layercam,cam,chefer",
        "--target", "top2", "--output", "probability", "--upsample", "nearest", "--colormap", "cividis",
        "--alpha", ".8", "--out", "out",
    )  # fmt: skip
    assert code == 0, err
    assert "2 of 2 images explained by 2 methods." in out and str(Path("out") / "index.html") in out
    assert "note: Not applicable: cam: it explains logits alone; leave `output` as it is; chefer: it has no att" in err
    model = heatproof.load_model("shapes", device="cpu")
    maps = heatproof.explain(
        model, ["cat.png", "dog.png"], ["gradcam", "refine:layercam"], "top2", output="probability", upsample="nearest"
    )
    for i, name in enumerate(("cat", "dog")):
        arrays = stored(folder / "out" / "maps" / f"{name}.npz")
        assert arrays["target"].tolist() == maps.target[i].tolist()
        for key in maps:
            found = torch.from_numpy(arrays[f"display/{key}"])
            torch.testing.assert_close(found, maps[key][i], rtol=1e-3, atol=1e-4)
        assert (folder / "out" / "panels" / f"{name}.png").is_file()
    page = (folder / "out" / "index.html").read_text()
    assert "To repeat it" in page
    assert "Drawn with cividis, alpha 0.8" in page and page.count("it has no attention") == 1


def test_panels_for_print_and_overlays_at_the_resolution_of_the_file(capsys, folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 900, 3), np.uint8)).save(folder / "large.png")
    code, _, err = called(
        capsys, "explain", "large.png", "--model", "shapes", "--methods", "gradcam,eigencam", "--dpi", "192",
        "--formats", "png,svg,pdf", "--overlays", "--out", "out",
    )  # fmt: skip
    assert code == 0, err
    out = folder / "out"
    assert {path.suffix for path in (out / "panels").iterdir()} == {".png", ".svg", ".pdf"}
    with Image.open(out / "panels" / "large.png") as panel:
        assert panel.info["dpi"] == pytest.approx((192, 192), abs=0.1)
    files = sorted((out / "overlays" / "large").iterdir())
    assert [path.name for path in files] == ["01-gradcam.png", "02-eigencam.png"]
    with Image.open(files[0]) as overlay:
        assert overlay.size == (900, 600), "shapes squashes the image, so it sees all of it"
    page = (out / "index.html").read_text()
    assert "Panel (SVG)" in page and "panels/large.pdf" in page
    code, _, err = called(capsys, "explain", "large.png", "--model", "shapes", "--formats", "jpg", "--out", "out2")
    assert code == 2 and "Did you mean 'png'?" in err and not (folder / "out2").exists()
    code, _, err = called(capsys, "explain", "large.png", "--model", "shapes", "--dpi", "5", "--out", "out2")
    assert code == 2 and "`dpi` must lie in 24 … 1200. Got 5.0." in err


def test_a_broken_image_is_noted_and_the_others_go_on(capsys, folder):
    code, out, err = called(capsys, "explain", ".", "--model", "shapes", "--out", "out")
    assert code == 0
    assert "2 of 3 images explained" in out and "note: Not explained: broken.jpg: is not an image" in err
    assert sorted(path.name for path in (folder / "out" / "maps").iterdir()) == ["cat.npz", "dog.npz"]
    code, out, _ = called(capsys, "explain", "*.png", "broken.jpg", "--model", "shapes", "--out", "out")
    assert code == 0 and "2 of them from before" in out


def test_nothing_explained_is_a_failure(capsys, folder):
    code, out, _ = called(capsys, "explain", "broken.jpg", "--model", "shapes", "--out", "out")
    assert code == 1 and "0 of 1 images" in out
    assert "is not an image" in (folder / "out" / "index.html").read_text()
    code, _, err = called(capsys, "explain", "cat.png", "--model", "shapes", "--methods", "chefer", "--out", "out2")
    assert code == 1 and "No method asked for can explain shapes: chefer: it has no attention." in err
    assert not (folder / "out2").exists()


@pytest.mark.usefixtures("folder")
def test_maps_that_say_nothing_are_counted(capsys):
    code, _, err = called(capsys, "explain", "cat.png", "--model", "shapes", "--target", "4", "--out", "out")
    assert code == 1 and "note: 1 map says nothing: constant map (1)." in err
    code, _, err = called(
        capsys, "explain", "cat.png", "--model", "shapes", "--target", "4", "--methods", "gradcam,eigencam",
        "--out", "out",
    )  # fmt: skip
    assert code == 0 and "note: 1 map says nothing" in err


@pytest.mark.usefixtures("folder")
def test_targets_labels_layers_and_options(capsys):
    Path("labels.csv").write_text("file,class_index\ncat.png,3\ndog.png,1\n")
    common = ["explain", "cat.png", "dog.png", "--model", "shapes", "--out", "out", "--labels", "labels.csv"]
    for target, wanted in (("label", [3, 1]), ("1", [1, 1]), ("5,2", [5, 2])):
        code, _, err = called(capsys, *common, "--target", target, "--methods", "gradcam,eigencam")
        assert code == 0, err
        assert [stored(Path(f"out/maps/{name}.npz"))["target"].tolist() for name in ("cat", "dog")] == [
            [wanted[0]], [wanted[1]]
        ]  # fmt: skip
    code, _, err = called(capsys, *common, "--methods", "gradcam++,random", "--layers", "all", "--option",
                          "gradcam++.compat=true")  # fmt: skip
    assert code == 0, err
    methods = json.loads(str(stored(Path("out/maps/cat.npz"))["about"]))["methods"]
    assert methods == [
        *(f"gradcam++@stage{i}[compat=true]" for i in range(1, 5)),
        *(f"refine:gradcam++@{'+'.join(f'stage{i}' for i in range(k, 5))}[compat=true]" for k in range(1, 4)),
        "random",
    ]
    code, _, err = called(capsys, *common, "--methods", "gradcam", "--layers", "stage2,stage4")
    assert code == 0, err
    methods = json.loads(str(stored(Path("out/maps/cat.npz"))["about"]))["methods"]
    assert methods == ["gradcam@stage2", "gradcam@stage4", "refine:gradcam@stage2+stage4"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--model must be given"),
        (["--model", "shapes"], "--out must be given"),
        (["--model", "shape", "--out", "x"], "'shape'"),
        (["--model", "shapes", "--out", "x", "--methods", "gradcm"], "'gradcam'"),
        (["--model", "shapes", "--out", "x", "--methods", ""], "at least one method"),
        (["--model", "shapes", "--out", "x", "--methods", "gradcam++", "--option", "gradcam++.compt=1"], "'compat'"),
        (["--model", "shapes", "--out", "x", "--option", "gradcm.x=1"], "'gradcam'"),
        (["--model", "shapes", "--out", "x", "--option", "gradcam"], "METHOD.OPTION=VALUE"),
        (["--model", "shapes", "--out", "x", "--layers", "stage9"], "'stage"),
        (["--model", "shapes", "--out", "x", "--layer", "stage9"], "'stage"),
        (["--model", "shapes", "--out", "x", "--colormap", "virids"], "'viridis'"),
        (["--model", "shapes", "--out", "x", "--alpha", "2"], "0 … 1"),
        (["--model", "shapes", "--out", "x", "--upsample", "bilinar"], "'bilinear'"),
        (["--model", "shapes", "--out", "x", "--output", "probabilty"], "'probability'"),
        (["--model", "shapes", "--out", "x", "--target", "predictd"], "'predicted'"),
        (["--model", "shapes", "--out", "x", "--target", "6"], "0 … 5"),
        (["--model", "shapes", "--out", "x", "--target", "1,2,3"], "each of the 1 images"),
        (["--model", "shapes", "--out", "x", "--target", "1,b"], "No class is called 'b'"),
        (["--model", "shapes", "--out", "x", "--target", "label"], "needs labels"),
        (["--model", "shapes", "--out", "x", "--labels", "none.csv"], "none.csv"),
        (["--model", "shapes", "--out", "x", "--batch-size", "0"], "at least 1"),
        (["--model", "shapes", "--out", "x", "nothing.png"], "There is no nothing.png"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(capsys, folder, arguments, said):
    code, out, err = called(capsys, "explain", "cat.png", *arguments)
    assert code in (1, 2)
    assert said in err and "Traceback" not in err and out == ""
    assert sorted(path.name for path in folder.iterdir()) == ["broken.jpg", "cat.png", "dog.png"]


def test_options_are_yaml_and_names_may_have_points():
    assert method_options(["rise.masks=8000", "rise.p=.5", "refine:gradcam.operator=geometric", "a.b= text "]) == {
        "rise": {"masks": 8000, "p": 0.5}, "refine:gradcam": {"operator": "geometric"}, "a": {"b": "text"}
    }  # fmt: skip
    for wrong in ("rise", "rise.masks", "masks=3", "=3"):
        with pytest.raises(InvalidInput, match=r"METHOD\.OPTION=VALUE"):
            method_options([wrong])


@pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")
def test_ctrl_c_leaves_whole_files_and_a_page(tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "heatproof.cli", "explain", "shapes", "--model", "shapes", "--device", "cpu",
               "--batch-size", "1", "--methods", "gradcam,shapleycam", "--out", str(out)]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    )
    try:
        until = time.monotonic() + 60
        while not list(out.glob("maps/*.npz")) and time.monotonic() < until and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "the same command goes on from there" in err and "Traceback" not in err
    files = sorted(out.glob("maps/*.npz"))
    assert files and all("display/gradcam" in stored(file) for file in files)
    assert {file.stem for file in files} <= {file.stem for file in out.glob("panels/*.png")}
    assert "Unfinished" in (out / "index.html").read_text()
    assert not list(out.rglob("*.part"))


@pytest.mark.usefixtures("folder")
def test_outputs_that_a_method_cannot_explain_are_noted_first(capsys):
    asked = ["--methods", "gradcam,cam,lrp", "--output", "probability", "--out", "out/early"]
    code, out, err = called(capsys, "explain", "shapes", "--limit", "1", "--model", "shapes", *asked)
    assert code == 0 and "1 of 1 images explained by 1 method." in out
    assert err.startswith("note: Not applicable: cam, lrp: it explains logits alone")


@pytest.mark.usefixtures("folder")
def test_what_cannot_serve_and_is_found_out_late_is_noted(capsys):
    @attribution("late", form="display", source="a test")
    def late(x):
        """Finds out while it runs."""
        raise NotApplicable("the image is too small")

    try:
        asked = ["--methods", "gradcam,late", "--out", "out/late"]
        code, out, err = called(capsys, "explain", "shapes", "--limit", "1", "--model", "shapes", *asked)
    finally:
        ATTRIBUTIONS.remove("late")
    assert code == 0 and "1 of 1 images explained by 1 method." in out
    assert "Not applicable: late: the image is too small" in err


def test_a_value_is_named_as_a_column_and_has_no_probability(capsys, folder):
    code, _, err = called(
        capsys, "explain", "cat.png", "--model", "shapes", "--output", "value", "--target", "2", "--out", "out"
    )
    assert code == 0, err
    arrays = stored(next((folder / "out").rglob("cat.npz")))
    model = heatproof.load_model("shapes", device="cpu")
    logit = float(heatproof.explain(model, ["cat.png"]).logits[0, 2])
    assert arrays["value"].tolist() == pytest.approx([logit], rel=1e-4)
    assert "probability" not in arrays
    page = (folder / "out" / "index.html").read_text("utf-8")
    assert "Column explained" in page and f"{logit:.4g} (" in page

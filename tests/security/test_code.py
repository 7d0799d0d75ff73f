"""Files from elsewhere run no code: checkpoints, study files, results; each flag that allows it says so."""

import io
import json
import os
import pickle
import time
import zipfile

import pytest
import torch
import yaml
from torch import nn

from heatproof import cli
from heatproof.errors import HeatproofWarning, InvalidStudy, ModelError
from heatproof.models import load_model
from heatproof.models.checkpoint import load_weights
from heatproof.studies import study
from heatproof.studies.code_in_files import code_in


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def net():
    return nn.Sequential(nn.Linear(3, 2))


def with_code(folder, net):
    torch.save({"state_dict": net.state_dict(), "hparams": Trap(folder / "ran")}, folder / "net.ckpt")
    return folder / "net.ckpt"


def whole(folder, net):
    torch.save(net, folder / "net.pt")
    return folder / "net.pt"


def scripted(folder, net):
    torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3)), folder / "net.pt")
    return folder / "net.pt"


@pytest.mark.parametrize(
    "saved", [with_code, whole, pytest.param(scripted, marks=pytest.mark.filterwarnings("ignore"))]
)
def test_a_checkpoint_with_code_is_refused_unless_asked_for_loudly(tmp_path, net, saved):
    path = saved(tmp_path, net)
    loaded = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(ModelError, match=r"would run code when opened .* --allow-pickle-code") as refused:
        load_weights(loaded, path, "a network")
    assert not (tmp_path / "ran").exists() and path.name in str(refused.value)
    for _ in range(2):  # every time
        with pytest.warns(HeatproofWarning, match=rf"The code in {path.name} runs now, with your rights"):
            load_weights(loaded, path, "a network", allow_pickle_code=True)
        torch.testing.assert_close(loaded.state_dict(), net.state_dict())
        if saved is with_code:
            (tmp_path / "ran").rmdir()


def test_tensors_alone_need_no_flag_and_give_no_warning(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "net.pt")
    load_weights(net, tmp_path / "net.pt", "a network", allow_pickle_code=True)


@pytest.mark.parametrize("name", ["net.pkl", "net.joblib", "net.npz", "net.npy", "net.pt"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_of_any_name_is_refused(tmp_path, net, name, protocol):
    (tmp_path / name).write_bytes(pickle.dumps({"weight": Trap(tmp_path / "ran")}, protocol))
    with pytest.raises(ModelError, match=name):
        load_weights(net, tmp_path / name, "a network")
    assert not (tmp_path / "ran").exists()


def packed_again(content: bytes, change, kind: int = zipfile.ZIP_STORED) -> bytes:
    """A torch file with changed members."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(made, "w", kind) as again:
        for info in archive.infolist():
            again.writestr(info.filename, change(info.filename, archive.read(info)))
    return made.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_name_without_end_is_refused_in_a_moment(tmp_path, net, zipped):
    """torch takes the square of its length: four seconds for 20,000 characters, hours for a million."""
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer, _use_new_zipfile_serialization=zipped)

    def longer(name: str, inside: bytes) -> bytes:
        return inside.replace(b"ctorch", b"ctorch" + b"x" * 1_000_000, 1) if name.endswith(".pkl") else inside

    content = buffer.getvalue()
    (tmp_path / "a.pt").write_bytes(packed_again(content, longer) if zipped else longer(".pkl", content))
    start = time.process_time()
    with pytest.raises(ModelError, match=r"a\.pt is damaged: it names a class of 1,000,0\d\d characters"):
        load_weights(net, tmp_path / "a.pt", "net")
    assert time.process_time() - start < 2


def test_a_checkpoint_does_not_unpack_to_far_more_than_it_holds(tmp_path, net):
    """Zeros, packed to a thousandth. A checkpoint that was packed again is read."""
    buffer = io.BytesIO()
    torch.save(net.state_dict(), buffer)
    same = packed_again(buffer.getvalue(), lambda _, inside: inside, zipfile.ZIP_DEFLATED)
    (tmp_path / "a.pt").write_bytes(same)
    load_weights(net, tmp_path / "a.pt", "net")
    bomb = packed_again(
        buffer.getvalue(),
        lambda name, inside: inside if name.endswith("pkl") else bytes(10_000_000),
        zipfile.ZIP_DEFLATED,
    )
    (tmp_path / "a.pt").write_bytes(bomb)
    with pytest.raises(ModelError, match=r"a\.pt has [\d,]{6,7} bytes and would unpack to \d\d,\d{3},\d{3}"):
        load_weights(net, tmp_path / "a.pt", "net")


def test_the_command_line_has_the_flag(tmp_path, capsys):
    network = load_model("shapes", device="cpu").module
    path = with_code(tmp_path, network)
    words = ["layers", "shapes", "--checkpoint", str(path), "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 1 and "--allow-pickle-code" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    with pytest.raises(SystemExit) as stopped, pytest.warns(HeatproofWarning, match="runs now, with your rights"):
        cli.main([*words, "--allow-pickle-code"])
    assert not stopped.value.code and (tmp_path / "ran").exists()


# --- study files ---

MINE = """import pathlib
pathlib.Path("ran").touch()
def anything(*given, **more):
    raise AssertionError("it was called")
STUDY = None
"""
PLAIN = {"study": "score", "models": "shapes", "datasets": "shapes", "methods": ["gradcam"], "metrics": ["complexity"]}
SAYING = {
    "study": {"study": "python:trapped:STUDY"},
    "models.0.spec": {"models": [{"spec": "python:trapped:anything"}]},
    "models.0": {"models": ["python:trapped:anything"]},
    "methods.1": {"methods": ["gradcam", "python:trapped:anything[a=1]"]},
    "metrics.0": {"metrics": ["python:trapped:anything"]},
    "metric_options.python:trapped:anything": {"metric_options": {"python:trapped:anything": {"a": 1}}},
    "segmenters.0": {"study": "noise-robustness", "segmenters": [r'split[of="\u0070ython:trapped:anything"]']},
    "models.0.allow_pickle_code": {"models": [{"spec": "shapes", "allow_pickle_code": True}]},
    "models.0.model_args.trust_remote_code": {
        "models": [{"spec": "hf:x/y", "model_args": {"trust_remote_code": True}}]
    },
    "models.0.model_args.weights_only": {"models": [{"spec": "hf:x/y", "model_args": {"weights_only": False}}]},
    "models.0.model_args.attn_implementation": {
        "models": [{"spec": "hf:x/y", "model_args": {"attn_implementation": "owner/kernel"}}]
    },
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trapped.py").write_text(MINE)
    return tmp_path


@pytest.mark.parametrize("field", SAYING)
@pytest.mark.parametrize("results", [False, True])
def test_a_study_file_that_names_code_is_refused_with_its_line(here, capsys, field, results):
    there = here / "fetched" / "study.yaml" if results else here / "study.yaml"
    there.parent.mkdir(exist_ok=True)
    text = yaml.safe_dump({**PLAIN, **SAYING[field]}, sort_keys=False)
    there.write_text(text)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(there.parent if results else there), "--out", str(here / "out")])
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and f"`{field}` runs code" in err and "add --allow-code" in err
    line = next(n for n, line in enumerate(text.splitlines(), 1) if any(w in line for w in
                ("ython:", "allow_pickle", "trust_remote", "weights_only", "attn_impl")))  # fmt: skip
    assert f"study.yaml, line {line}: " in err
    assert not (here / "ran").exists() and not (here / "out").exists()


def test_the_flag_and_the_command_line_allow_it(here, capsys):
    (here / "study.yaml").write_text(yaml.safe_dump({**PLAIN, "models": ["python:trapped:anything"]}))
    for words in (
        ["study.yaml", "--allow-code"],
        ["score", "--model", "python:trapped:anything", "--images", "shapes"],
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["run", *words, "--out", "out"])
        assert stopped.value.code == 1 and "it was called" in capsys.readouterr().err
        assert (here / "ran").exists()


def test_what_is_for_people_names_no_code():
    harmless = {
        "models": [{"spec": "hf:x/y", "name": "python: a snake", "classes": ["python: a snake"],
                    "model_args": {"trust_remote_code": False, "attn_implementation": "sdpa"}}],
        "datasets": [{"images": "python:3", "name": "python:3"}], "author": "python:me",
    }  # fmt: skip
    assert not list(code_in(harmless))


def test_yaml_makes_no_objects(here, capsys):
    (here / "study.yaml").write_text("study: !!python/object/apply:os.mkdir [ran]\n")
    with pytest.raises(SystemExit):
        cli.main(["run", "study.yaml", "--out", "out"])
    assert "study.yaml, line 1 must be YAML" in capsys.readouterr().err and not (here / "ran").exists()


def test_results_alone_run_no_code(here):
    with pytest.raises(
        InvalidStudy, match=r"are of python:trapped:STUDY, and their page is made by its code.*--allow-code"
    ):
        study.stored_study("python:trapped:STUDY")
    assert not (here / "ran").exists()
    assert study.stored_study("score").name == "score"


def test_a_citation_imports_nothing(here):
    from heatproof.cli.cite_command import sources_of

    found = sources_of({"study": "python:trapped:STUDY", "methods": ["python:trapped:anything", "gradcam"]})
    assert found.study == "" and found.methods["python:trapped:anything"] == "" and found.methods["gradcam"]
    assert not (here / "ran").exists()


def test_the_archive_says_how_it_is_repeated(here):
    from heatproof.studies import checked_plan
    from heatproof.studies.archive import write_archive

    plain = checked_plan(PLAIN)
    write_archive(here, plain, plain)
    assert "--allow-code" not in (here / "study.yaml").read_text()
    loud = checked_plan({**PLAIN, "models": [{"spec": "shapes", "allow_pickle_code": True}]})
    write_archive(here, loud, loud)
    assert "--out NEW_FOLDER --allow-code" in (here / "study.yaml").read_text()


def test_code_that_comes_with_a_model_is_not_run_unasked(tmp_path, monkeypatch):
    """transformers would ask on the terminal, and wait; and runs it where the answer is yes."""
    pytest.importorskip("transformers")
    homes = {"AutoConfig": "mine.Mine", "AutoModelForImageClassification": "mine.Mine"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": homes}))
    (tmp_path / "mine.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nclass Mine: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_model(f"hf:{tmp_path}", device="cpu")
    assert not (tmp_path / "ran").exists()

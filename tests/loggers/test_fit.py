"""`heatproof fit --log`: maps of validation images in TensorBoard, and the same weights as without."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from heatproof import cli
from heatproof.errors import InvalidInput
from heatproof.loggers.fit_monitor import fit_monitor

from .test_loggers import events
from .training import same


def command(out: Path, more: str = "") -> int:
    words = (
        "fit shapes --model torchvision:squeezenet1_1 --model-arg pretrained=false --size 48 --image-size 48 "
        f"--limit 12 --epochs 1 --batch-size 4 --mean .5 --std .5 --out {out} {more}"
    )
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    return int(ended.value.code or 0)


@pytest.mark.filterwarnings("ignore:.*has not learnt")
def test_the_command_logs_maps_and_trains_the_same_weights(tmp_path, capsys):
    assert command(tmp_path / "plain") == 0
    assert command(tmp_path / "a", "--log tensorboard --log-every 2") == 0
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "a"))
    assert same(one, other)
    found = events(tmp_path / "a" / "tensorboard")
    assert [one.step for one in found.Scalars("heatproof/energy/gradcam")] == [0, 2, 3]
    assert len([tag for tag in found.Tags()["images"] if tag.startswith("heatproof/maps/")]) == 8
    assert "heatproof/prediction/accuracy" in found.Tags()["scalars"]


def test_a_wrong_logger_is_an_error_before_training(tmp_path, capsys):
    assert command(tmp_path / "a", "--log tensorbord") == 2
    assert "tensorboard" in capsys.readouterr().err and not (tmp_path / "a").exists()
    with pytest.raises(InvalidInput, match="Only tensorboard has a folder"):
        fit_monitor("wandb=here", 1, SimpleNamespace(), SimpleNamespace(), tmp_path)  # type: ignore[arg-type]

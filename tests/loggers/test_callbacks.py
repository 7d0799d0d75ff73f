"""Callbacks of Lightning and of the Trainer of Hugging Face: cadence, loggers, rank, and training bit for bit."""

import doctest
import importlib
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from heatproof.errors import HeatproofWarning, InvalidInput, UnknownName
from heatproof.loggers import MapMonitor

from .test_loggers import events
from .training import Broken, Kept, Net, batch, images, net, same

METHODS = ["gradcam", "smoothgrad[samples=2]"]


# --- Lightning ---


@pytest.fixture(scope="module")
def lightning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("lightning.pytorch")


@pytest.fixture(scope="module")
def module_class(lightning):
    class Module(lightning.LightningModule):
        """As `Net`, with steps that draw from the global generator."""

        def __init__(self):
            super().__init__()
            self.backbone = net()
            self.losses = []

        def forward(self, x):
            return self.backbone(x)

        def training_step(self, given, number):
            x, y = given
            loss = F.cross_entropy(self(x + torch.randn_like(x)), y)
            self.losses.append(loss.detach())
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    return Module


def fitted(lightning, module, callbacks, logger=False, **settings):
    """Six batches, three steps of the optimiser; what the run left behind."""
    torch.manual_seed(5)
    trainer = lightning.Trainer(
        **{"max_epochs": 1, "accumulate_grad_batches": 2, "accelerator": "cpu", "callbacks": callbacks,
           "logger": logger, "enable_checkpointing": False, "enable_progress_bar": False,
           "enable_model_summary": False, "log_every_n_steps": 1, **settings}
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="(pytorch_)?lightning")
        trainer.fit(module, DataLoader(TensorDataset(*batch(12)), batch_size=2, shuffle=True))
    state = {name: value.clone() for name, value in module.state_dict().items()}
    return {**state, "losses": torch.stack(module.losses), "torch": torch.get_rng_state()}


@pytest.fixture(scope="module")
def plain(lightning, module_class):
    return fitted(lightning, module_class(), [])


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning_is_bit_identical_and_logs_to_its_logger(package, lightning, module_class, plain, tmp_path):
    from heatproof.loggers import LightningMapMonitor

    trainers = lightning if package == "lightning.pytorch" else pytest.importorskip(package)
    loggers = importlib.import_module(f"{package}.loggers")
    callback = LightningMapMonitor(images(), METHODS, "deletion", every=2)
    module = module_class()
    if trainers is not lightning:  # a module of the other package
        other = type("Other", (trainers.LightningModule,), dict(vars(module_class)) | {"__init__": lambda self: None})()
        trainers.LightningModule.__init__(other)
        other.backbone, other.losses, module = net(), [], other
    own = [loggers.TensorBoardLogger(str(tmp_path), name="tb"), loggers.CSVLogger(str(tmp_path), name="csv")]
    assert same(plain, fitted(trainers, module, [callback], own))
    assert list(callback.monitor.history) == [0, 2, 3]  # steps of the optimiser, and the last
    found = events(tmp_path / "tb" / "version_0")
    assert [one.step for one in found.Scalars("heatproof/deletion/gradcam")] == [0, 2, 3]
    assert [one.step for one in found.Images("heatproof/maps/image 1")] == [0, 2, 3]
    assert "loss" in found.Tags()["scalars"]
    assert "heatproof/deletion/gradcam" in (tmp_path / "csv" / "version_0" / "metrics.csv").read_text()


def test_lightning_with_a_broken_logger_warns_once_and_finishes(lightning, module_class, plain):
    from heatproof.loggers import LightningMapMonitor

    callback = LightningMapMonitor(images(), "gradcam", (), every=1, logger=Broken(), network="backbone")
    with pytest.warns(HeatproofWarning, match="Broken failed") as told:
        assert same(plain, fitted(lightning, module_class(), [callback]))
    assert len([one for one in told if one.category is HeatproofWarning]) == 1
    assert list(callback.monitor.history) == [0, 1, 2, 3]


def test_lightnings_other_loggers_get_maps(lightning, tmp_path, monkeypatch):
    pytest.importorskip("wandb"), pytest.importorskip("mlflow")
    from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}.items():
        monkeypatch.setenv(name, value)
    theirs = [WandbLogger(save_dir=str(tmp_path)), MLFlowLogger("maps", tracking_uri=(tmp_path / "mlruns").as_uri())]
    monitor = MapMonitor(images(1), "gradcam", "complexity", logger=theirs)
    found = monitor.step(net(), 0)
    monitor.close()
    run, client = theirs[0].experiment, theirs[1].experiment
    name = "heatproof/complexity/gradcam"
    assert found and dict(run.summary)[name] == found[name]
    assert [one.value for one in client.get_metric_history(theirs[1].run_id, name)] == [found[name]]
    assert client.list_artifacts(theirs[1].run_id, "images")
    run.finish()


def test_lightning_in_bf16(lightning, module_class):
    from heatproof.loggers import LightningMapMonitor

    callback = LightningMapMonitor(images(), "gradcam", (), every=1, logger=None)
    plain = fitted(lightning, module_class(), [], precision="bf16-mixed")
    assert same(plain, fitted(lightning, module_class(), [callback], precision="bf16-mixed"))


def test_lightning_errors_come_before_training(lightning, module_class):
    from heatproof.loggers import LightningMapMonitor

    with pytest.raises(UnknownName, match="gradcam"):
        LightningMapMonitor(images(), "gradcm")

    class WithoutForward(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone = net()

    with pytest.raises(InvalidInput, match=r"no forward pass. Name the classifier in it, `network=…`.*'backbone'"):
        LightningMapMonitor(images(), "gradcam", logger=None).monitor.prepare(WithoutForward())
    for callback, text in (
        (LightningMapMonitor(images(), "gradcam"), "no logger"),
        (LightningMapMonitor(images(), "gradcam", logger=None, layer="bakbone.two"), "backbone.two"),
    ):
        module = module_class()
        with pytest.raises((InvalidInput, UnknownName), match=text):
            fitted(lightning, module, [callback])
        assert module.losses == []


def test_lightning_on_another_rank_does_nothing(lightning):
    from heatproof.loggers import LightningMapMonitor

    kept = Kept()
    callback = LightningMapMonitor(images(), "gradcam", (), every=1, logger=kept)
    trainer = SimpleNamespace(is_global_zero=False, loggers=[], global_step=1)
    callback.on_fit_start(trainer, net())
    callback.on_train_start(trainer, net())
    callback.on_train_batch_end(trainer, net(), None, None, 0)
    callback.on_train_end(trainer, net())
    callback.on_exception(trainer, net(), KeyError())
    assert kept.numbers == {} and kept.closed == 0 and callback.monitor.history == {}


def test_an_exception_in_training_closes_the_logger(lightning, module_class):
    from heatproof.loggers import LightningMapMonitor

    class Failing(module_class):
        def training_step(self, given, number):
            if number == 3:
                raise KeyError("broken")
            return super().training_step(given, number)

    kept = Kept()
    callback = LightningMapMonitor(images(), "gradcam", (), every=10, logger=kept)
    with pytest.raises(KeyError):
        fitted(lightning, Failing(), [callback])
    assert kept.closed == 1 and list(kept.numbers) == [0]


# --- Hugging Face ---


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


def vit(transformers):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2,
        id2label=dict(enumerate("abcd")), label2id={name: i for i, name in enumerate("abcd")},
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def hf_trained(transformers, folder, callbacks, model=None, **settings):
    """Three steps with gradient accumulation; what the run left behind."""
    pytest.importorskip("accelerate")
    model = model or vit(transformers)
    x, y = batch(12)
    data = [{"pixel_values": image, "labels": int(label)} for image, label in zip(x, y, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), use_cpu=True, seed=1, disable_tqdm=True, save_strategy="no", learning_rate=1e-2,
        **{"max_steps": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "report_to": "none",
           "logging_steps": 1, **settings},
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        transformers.Trainer(model, arguments, train_dataset=data, callbacks=callbacks).train()
    return {**{name: value.clone() for name, value in model.state_dict().items()}, "torch": torch.get_rng_state()}


def test_transformers_is_bit_identical_and_logs_to_tensorboard(transformers, tmp_path, capsys):
    from heatproof.loggers import TrainerMapMonitor

    plain = hf_trained(transformers, tmp_path / "plain", [])
    callback = TrainerMapMonitor(images(), [*METHODS, "chefer"], "deletion", every=2, labels=[0, 1, 2])
    found = hf_trained(transformers, tmp_path / "out", [callback], report_to="tensorboard")
    assert same(plain, found)
    assert list(callback.monitor.history) == [0, 2, 3]
    written = events(tmp_path / "out" / "runs" / "heatproof")
    assert [one.step for one in written.Scalars("heatproof/deletion/chefer")] == [0, 2, 3]
    assert [one.step for one in written.Images("heatproof/maps/image 3")] == [0, 2, 3]


def test_transformers_reports_to_wandb_and_mlflow(transformers, tmp_path, monkeypatch, capsys):
    wandb, mlflow = pytest.importorskip("wandb"), pytest.importorskip("mlflow")
    from heatproof.loggers import MLflowLogger, TrainerMapMonitor, WandbLogger
    from heatproof.loggers.trainer_callback import reported_loggers

    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    kinds = [type(one) for one in reported_loggers(SimpleNamespace(report_to=["wandb", "comet_ml", "mlflow"],
                                                                    output_dir=str(tmp_path)))]  # fmt: skip
    assert kinds == [WandbLogger, MLflowLogger]
    callback, network = TrainerMapMonitor(images(1), "gradcam", "complexity", every=2), net()
    arguments = SimpleNamespace(report_to=["wandb"], output_dir=str(tmp_path))
    with wandb.init(dir=str(tmp_path)) as run:  # as the Trainer's own callback has done before
        for event, step in ((callback.on_train_begin, 0), (callback.on_step_end, 2), (callback.on_train_end, 2)):
            event(arguments, SimpleNamespace(is_world_process_zero=True, global_step=step), None, model=network)
        assert wandb.run is run and "heatproof/complexity/gradcam" in dict(run.summary)
    assert mlflow.active_run() is None


def test_transformers_with_a_broken_logger_and_a_module_of_ones_own(transformers, tmp_path, capsys):
    from heatproof.loggers import TrainerMapMonitor

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, pixel_values, labels=None):
            logits = self.inner(pixel_values)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    callback = TrainerMapMonitor(images(), "gradcam", (), every=1, logger=Broken(), network="inner")
    with pytest.warns(HeatproofWarning, match="Broken failed") as told:
        found = hf_trained(transformers, tmp_path, [callback], Wrapped())
    assert len([one for one in told if one.category is HeatproofWarning]) == 1
    assert same(hf_trained(transformers, tmp_path, [], Wrapped()), found)
    assert list(callback.monitor.history) == [0, 1, 2, 3]


def test_transformers_errors_come_before_training(transformers, tmp_path, capsys):
    from heatproof.loggers import TrainerMapMonitor

    model = vit(transformers)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for callback, text in (
        (TrainerMapMonitor(images(), "gradcam"), "report_to"),
        (TrainerMapMonitor(images(), "gradcam", logger=None, layer="vit.encoder"), "vit.encoder"),
    ):
        with pytest.raises(Exception, match=text):
            hf_trained(transformers, tmp_path, [callback], model)
    assert same(before, dict(model.state_dict()))


def test_transformers_on_another_rank_does_nothing(transformers):
    from heatproof.loggers import TrainerMapMonitor

    kept = Kept()
    callback = TrainerMapMonitor(images(), "gradcam", (), every=1, logger=kept)
    state = SimpleNamespace(is_world_process_zero=False, global_step=1)
    for event in (callback.on_train_begin, callback.on_step_end, callback.on_train_end):
        event(None, state, None, model=Net())
    assert kept.numbers == {} and kept.closed == 0


# --- the examples of the page ---

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


def run_example(name, given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        exec(compile(EXAMPLES[name], f"training.md: {name}", "exec"), given)


def test_the_plain_example_runs(tmp_path, monkeypatch):
    network, loader = net(), DataLoader(TensorDataset(*batch(8)), batch_size=2)
    given = {"torch": torch, "network": network, "loader": loader, "images": images(),
             "optimiser": torch.optim.SGD(network.parameters(), 0.1)}  # fmt: skip
    run_example("plain", given, tmp_path, monkeypatch)
    assert list(given["monitor"].history) == [0, 3] and list(tmp_path.glob("runs/*/events*"))


def test_the_example_of_lightning_runs(lightning, module_class, tmp_path, monkeypatch):
    given = {"images": images(), "labels": [0, 1, 2], "module": module_class(),
             "loader": DataLoader(TensorDataset(*batch(8)), batch_size=4)}  # fmt: skip
    run_example("lightning", given, tmp_path, monkeypatch)
    assert list(given["callback"].monitor.history) == [0, 4]
    assert "heatproof/prediction/accuracy" in given["callback"].monitor.history[0]


def test_the_example_of_transformers_runs(transformers, tmp_path, monkeypatch, capsys):
    x, y = batch(8)
    data = [{"pixel_values": image, "labels": int(label)} for image, label in zip(x, y, strict=True)]
    given = {"images": images(), "model": vit(transformers), "data": data}
    run_example("transformers", given, tmp_path, monkeypatch)
    assert list(given["callback"].monitor.history) == [0, 2] and list(tmp_path.glob("out/runs/heatproof/events*"))


@pytest.mark.parametrize(("name", "needs"), [("lightning_callback", "lightning"), ("trainer_callback", "transformers")])
def test_examples(name, needs, request):
    request.getfixturevalue(needs)
    found = doctest.testmod(importlib.import_module(f"heatproof.loggers.{name}"))
    assert found.attempted and not found.failed


@pytest.mark.parametrize(("name", "text"), [("lightning_callback", "lightning"), ("trainer_callback", "hf")])
def test_a_missing_extra_is_told(name, text, monkeypatch):
    import sys

    from heatproof.errors import MissingExtra

    for hidden in ("lightning.pytorch", "pytorch_lightning", "transformers.trainer_callback"):
        monkeypatch.setitem(sys.modules, hidden, None)
    monkeypatch.delitem(sys.modules, f"heatproof.loggers.{name}", raising=False)
    with pytest.raises(MissingExtra, match=rf'pip install "heatproof\[{text}\]"'):
        importlib.import_module(f"heatproof.loggers.{name}")
    monkeypatch.delitem(sys.modules, f"heatproof.loggers.{name}", raising=False)

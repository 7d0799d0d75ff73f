"""Fine-tunes a classifier on a set of images with AdamW and early stopping; a stopped run goes on where it was.

What a step draws (order, mirroring, dropout, attacks) comes from the seed, the epoch and the step alone. So a run that
was stopped and taken up has the same weights as one that was not, on the same machine.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from heatproof.data.images import Images
from heatproof.data.torch_dataset import ImageDataset
from heatproof.errors import InvalidInput, ModelError, warn
from heatproof.files import friendly_os_errors, write_atomically
from heatproof.models import Model
from heatproof.perturbations.adversarial import pgd_linf
from heatproof.progress import reported
from heatproof.seeds import derived_seed, seeded
from heatproof.statistics.wording import LEARNT
from heatproof.training.classifier import with_new_head
from heatproof.training.pixel_cache import cached_pixels
from heatproof.training.recipe import Recipe

WEIGHTS, STATE, FACTS, CLASSES = "model.safetensors", "state.safetensors", "fit.json", "classes.txt"
#: The state is written so often: a kill loses no more.
SECONDS = 45.0


@dataclass
class Fit:
    """A training run: how far it is, and how it went.

    Attributes:
        epoch, step: the next ones. best: the lowest validation loss, at `best_epoch`; None before the first epoch.
        history: for each epoch loss, val_loss, val_accuracy (under the attack where there is one) and seconds.
        test_accuracy: of the best weights, once it is finished; `test_images`: on how many.
    """

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    best: float | None = None
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)
    test_accuracy: float | None = None
    test_images: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.test_accuracy is not None

    def sentence(self) -> str:
        """What came out, for people."""
        return (
            f"Test accuracy {100 * (self.test_accuracy or 0):.1f} % on {self.test_images} images, with the weights of "
            f"epoch {self.best_epoch + 1} of {len(self.history)} (validation loss {self.best:.4f})."
        )


def fit(
    model: Model,
    sets: Mapping[str, Images],
    out: str | Path,
    recipe: Recipe | None = None,
    progress: Any = False,
    after_step: Callable[[nn.Module, int], Any] | None = None,
) -> Fit:
    """Trains a model's network for the classes of some images; the network itself is changed.

    The last layer is replaced where it has another number of outputs. Images go through the model's own geometry, are
    mirrored at random, and normalised as the model does. The weights kept are those of the lowest validation loss. The
    test images are looked at once, at the end.

    Args:
        sets: `train`, `val` and `test`, labelled, with the same classes.
        out: a new folder, or one of the same run, which then goes on: `model.safetensors`, `fit.json`, `classes.txt`.
        after_step: called with the network and the number of steps done: at the beginning, and after every step.
        progress: as in `heatproof.explain`.

    Raises:
        InvalidInput: a folder of another run, sets of different classes. ModelError: a loss that is not finite.
    """
    recipe, folder = recipe or Recipe(), Path(out)
    names = _classes(sets)
    about = {
        "recipe": asdict(recipe),
        "model": model.name,
        "weights": model.fingerprint,
        "sets": {kind: images.fingerprint for kind, images in sets.items()},
    }
    with reported(progress) as bar, friendly_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        run = _claimed(folder, about)
        head = with_new_head(model.module, model.outputs, len(names), recipe.seed)
        if run.finished:
            _load(model.module, folder / WEIGHTS)
            return run
        (folder / CLASSES).write_text("\n".join(names) + "\n", "utf-8")
        data = {
            kind: cached_pixels(ImageDataset(images, model.geometry), folder / f"{kind}.npy", bar)
            for kind, images in sets.items()
        }
        trainer = _Trainer(model, recipe, folder, run, about | {"head": head, "classes": names}, bar)
        trainer.after_step = after_step or trainer.after_step
        trainer.train(data["train"], data["val"])
        _load(model.module, folder / WEIGHTS)
        run.test_images = len(data["test"][1])
        _, run.test_accuracy = trainer.evaluated(data["test"], attacked=False)
        trainer.write_facts()
        for name in (STATE, *(f"{kind}.npy" for kind in sets)):
            (folder / name).unlink(missing_ok=True)
    if run.test_accuracy < LEARNT:
        warn(
            f"The network has not learnt these images: {100 * run.test_accuracy:.0f} % of the test images are right, "
            f"{100 * LEARNT:.0f} % are needed for ground truth to say something about maps. Train longer, or set lr."
        )
    return run


class _Trainer:
    """The loop over epochs and steps, and what is written of it."""

    #: Called with the network and the number of steps done.
    after_step: Callable[[nn.Module, int], Any] = staticmethod(lambda network, steps: None)

    def __init__(self, model: Model, recipe: Recipe, folder: Path, run: Fit, about: Mapping[str, Any], bar: Any):
        self.model, self.module, self.recipe, self.folder, self.run = model, model.module, recipe, folder, run
        self.about, self.bar, self.saved = about, bar, time.monotonic()
        for parameter in self.module.parameters():
            parameter.requires_grad_()
        self.optimiser = torch.optim.AdamW(self.module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
        if (folder / STATE).exists():
            self._restore()

    def train(self, training: tuple[np.ndarray, torch.Tensor], validation: tuple[np.ndarray, torch.Tensor]) -> None:
        """Epochs until there are enough, or the validation loss no longer falls."""
        run, recipe = self.run, self.recipe
        steps = math.ceil(len(training[1]) / recipe.batch_size)
        self.after_step(self.module, run.epoch * steps + run.step)
        while run.epoch < recipe.epochs and not self._has_stalled():
            self.bar.stage(f"Epoch {run.epoch + 1} of at most {recipe.epochs}", steps, run.step)
            began = time.monotonic()
            order = torch.randperm(len(training[1]), generator=self._generator("order"))
            for rows in order.split(recipe.batch_size)[run.step :]:
                run.total += self._step(training, rows)
                run.step += 1
                self.after_step(self.module, run.epoch * steps + run.step)
                self.bar.advance(1)
                if time.monotonic() - self.saved > SECONDS:
                    self._save()
            loss, accuracy = self.evaluated(validation, attacked=bool(recipe.adversarial))
            facts = {"loss": run.total / steps, "val_loss": loss, "val_accuracy": accuracy}
            run.history.append({**facts, "seconds": round(time.monotonic() - began, 1)})
            if run.best is None or loss < run.best:
                run.best, run.best_epoch = loss, run.epoch
                _write_tensors(self.folder / WEIGHTS, dict(self.module.state_dict()), {})
            run.epoch, run.step, run.total = run.epoch + 1, 0, 0.0
            self._save()

    def evaluated(self, data: tuple[np.ndarray, torch.Tensor], attacked: bool) -> tuple[float, float]:
        """Mean cross-entropy and accuracy in eval mode, under the recipe's attack or without."""
        pixels, labels = data
        losses, hits, size = 0.0, 0, 2 * self.recipe.batch_size
        self.module.eval()
        for start in range(0, len(labels), size):
            x, y = self._tensors(pixels[start : start + size]), labels[start : start + size].to(self.model.device)
            x = self._attacked(x, y, f"val {start}") if attacked else x
            with torch.no_grad():
                logits = self.module(self.model.normalise(x))
            losses += float(F.cross_entropy(logits, y, reduction="sum"))
            hits += int((logits.argmax(1) == y).sum())
        return losses / len(labels), hits / len(labels)

    def write_facts(self) -> None:
        """`fit.json`: what was trained and how it went."""
        text = json.dumps({**self.about, **asdict(self.run)}, indent=2, ensure_ascii=False) + "\n"
        write_atomically(self.folder / FACTS, lambda file: file.write(text.encode("utf-8")))

    def _step(self, data: tuple[np.ndarray, torch.Tensor], rows: torch.Tensor) -> float:
        generator = self._generator(f"step {self.run.step}")
        x, y = self._tensors(data[0][rows.sort().values.numpy()]), data[1][rows.sort().values].to(self.model.device)
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirrored.to(x.device)[:, None, None, None], x.flip(3), x)
        if self.recipe.adversarial:
            self.module.eval()
            x = self._attacked(x, y, f"epoch {self.run.epoch} step {self.run.step}")
        self.module.train()
        self.optimiser.zero_grad(set_to_none=True)
        with seeded(generator, self.model.device):  # dropout draws from the global generator
            loss = F.cross_entropy(self.module(self.model.normalise(x)), y)
            loss.backward()
        if not bool(torch.isfinite(loss)):
            raise ModelError(
                f"The loss is not finite in epoch {self.run.epoch + 1}. Lower lr (now {self.recipe.lr:g}); the weights "
                f"of the best epoch are kept in {self.folder}."
            )
        self.optimiser.step()
        return float(loss.detach())

    def _attacked(self, x: torch.Tensor, y: torch.Tensor, name: str) -> torch.Tensor:
        """The images moved to raise the loss of their label (Madry et al. 2018), the network in eval mode."""

        def loss_gradient(moved: torch.Tensor) -> torch.Tensor:
            leaf = moved.detach().requires_grad_()
            loss = F.cross_entropy(self.module(self.model.normalise(leaf)), y, reduction="sum")
            return torch.autograd.grad(loss, leaf)[0]

        seeds = [derived_seed(self.recipe.seed, f"{name} {i}", "attack") for i in range(len(x))]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pgd_linf(x, loss_gradient, generators, epsilon=self.recipe.epsilon, steps=self.recipe.steps).detach()

    def _tensors(self, pixels: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(pixels)).to(self.model.device).float().div_(255)

    def _generator(self, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.recipe.seed, f"epoch {self.run.epoch}", f"fit {name}"))

    def _has_stalled(self) -> bool:
        return self.run.epoch - 1 - self.run.best_epoch >= self.recipe.patience

    def _save(self) -> None:
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
        _write_tensors(self.folder / STATE, tensors, {"run": json.dumps(asdict(self.run))})
        self.write_facts()
        self.saved = time.monotonic()

    def _restore(self) -> None:
        with safe_open(self.folder / STATE, "pt") as file:
            known = json.loads((file.metadata() or {})["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        for name, value in known.items():
            setattr(self.run, name, value)
        self.module.load_state_dict({n.removeprefix("module."): t for n, t in tensors.items() if n[:7] == "module."})
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".")
                state.setdefault(int(number), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], about: dict[str, str]) -> None:
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    part = path.with_name(f".{path.name}.part")
    with friendly_os_errors(path):
        save_file(plain, part, about or None)
        part.replace(path)


def _load(module: nn.Module, path: Path) -> None:
    with safe_open(path, "pt") as file:
        module.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no mapping
    module.eval()


def _classes(sets: Mapping[str, Images]) -> list[str]:
    missing = [kind for kind in ("train", "val", "test") if kind not in sets]
    if missing:
        raise InvalidInput(f"`sets` must hold train, val and test. Missing: {', '.join(missing)}.")
    names = {kind: list(images.class_names or ()) for kind, images in sets.items()}
    if not names["train"] or any(found != names["train"] for found in names.values()):
        counts = ", ".join(f"{kind} {len(found)}" for kind, found in names.items())
        raise InvalidInput(f"Train, val and test must have the same classes. Got {counts}, or other names.")
    return names["train"]


def _claimed(folder: Path, about: Mapping[str, Any]) -> Fit:
    """The run of this folder, as far as it is known; InvalidInput where it is another one."""
    path = folder / FACTS
    if not path.exists():
        if any(folder.iterdir()):
            raise InvalidInput(f"`out` must be a new folder, or one of the same run. {folder} holds other files.")
        text = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
        write_atomically(path, lambda file: file.write(text.encode("utf-8")))
        return Fit()
    known = json.loads(path.read_text("utf-8"))
    changed = [name for name, value in about.items() if known.get(name) != value]
    if changed:
        raise InvalidInput(f"`out` must be a new folder. {folder} holds another run: its {', '.join(changed)} differ.")
    fields = {name: known[name] for name in Fit.__dataclass_fields__ if name in known}
    return Fit(**fields) if fields.get("test_accuracy") is not None else Fit()

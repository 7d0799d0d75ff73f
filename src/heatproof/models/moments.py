"""Mean and standard deviation of the activations at a layer over many images, and the file that keeps them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from heatproof.ambient import neutral
from heatproof.errors import InvalidInput
from heatproof.files import write_atomically
from heatproof.models.capture import captured
from heatproof.models.model import Model

#: The format's name in the file; its number is raised when the meaning of the rest changes.
FORMAT = "heatproof calibration 1"


@dataclass(frozen=True)
class Calibration:
    """`mean` and `std` (n − 1), each `(C, *spatial)` float32 on the CPU, of a layer over `count` images.

    `model` is the model's name; `fingerprint` a hash of its weights and of how images are normalised.
    """

    mean: torch.Tensor
    std: torch.Tensor
    count: int
    model: str
    fingerprint: str
    layer: str
    size: tuple[int, ...]

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file, whole or not at all; StoreError where it cannot be written."""
        from safetensors.torch import save

        about = {
            "format": FORMAT,
            "count": str(self.count),
            "model": self.model,
            "fingerprint": self.fingerprint,
            "layer": self.layer,
            "size": " ".join(map(str, self.size)),
        }
        content = save({"mean": self.mean, "deviation": self.std}, about)
        write_atomically(Path(path), lambda file: file.write(content))

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """What `save` wrote; InvalidInput for a file that is missing or something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                about = file.metadata() or {}
                if about.get("format") != FORMAT:
                    raise ValueError(f"it says {about.get('format', 'nothing of what it is')!r}")
                return cls(
                    file.get_tensor("mean"),
                    file.get_tensor("deviation"),
                    int(about["count"]),
                    about["model"],
                    about["fingerprint"],
                    about["layer"],
                    tuple(int(side) for side in about["size"].split()),
                )
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise InvalidInput(
                f"Expected a calibration file that heatproof.calibrate wrote ({FORMAT!r}). {path} cannot be used: "
                f"{error}."
            ) from error

    def check(self, model: Model, layer: str) -> "Calibration":
        """Returns itself; raises InvalidInput where it was made for another model or layer, which the error names."""
        if self.fingerprint != fingerprint(model):
            raise InvalidInput(
                f"The calibration must be for {model.name!r} with these weights and this normalisation. Got one for "
                f"{self.model!r}, layer {self.layer!r}, with others. Make a new one with heatproof.calibrate."
            )
        if self.layer != layer:
            raise InvalidInput(
                f"The calibration must be for layer {layer!r}. Got one for layer {self.layer!r} of {self.model!r}. "
                f"Explain that layer, or make a new one with heatproof.calibrate(…, layer={layer!r})."
            )
        return self


def fingerprint(model: Model) -> str:
    """A hash of all that decides activations: the weights, and how images are normalised."""
    said = f"{model.fingerprint} {model.mean} {model.std} {model.normalises}"
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def calibrated(model: Model, layer: str, batches: Iterable[torch.Tensor]) -> Calibration:
    """The calibration of a layer over batches `(N, 3, H, W)` in [0, 1] of one size.

    Sums are kept in float64 and merged by Chan, Golub & LeVeque 1979, eq. 2.1, so that neither the order of the
    images nor the size of the batches matters beyond rounding. One forward for each image.

    Raises:
        InvalidInput: fewer than two images, images of several sizes, or activations that are not finite.
    """
    sums, size = _Sums(), None
    with neutral(), torch.no_grad():
        for x in batches:
            if size is not None and tuple(x.shape[2:]) != size:
                raise InvalidInput(f"Calibration needs images of one size. Got {size} and {tuple(x.shape[2:])}.")
            size = tuple(x.shape[2:])
            with model.evaluating():
                found = captured(model, x.to(model.device), [layer], gradients=False).activations(layer)
            if not bool(found.isfinite().all()):
                raise InvalidInput(
                    f"Calibration needs finite activations. Layer {layer!r} of {model.name!r} gave others."
                )
            sums.add(found.double().cpu())
        if sums.count < 2 or size is None:
            raise InvalidInput(f"Calibration needs at least 2 images. Got {sums.count}.")
        mean, std = sums.mean.float(), (sums.squares / (sums.count - 1)).sqrt().float()
    return Calibration(mean, std, sums.count, model.name, fingerprint(model), layer, size)


class _Sums:
    """Count, mean and sum of squared distances from it, of all rows seen."""

    def __init__(self):
        self.count = 0
        self.mean = self.squares = torch.zeros((), dtype=torch.float64)

    def add(self, rows: torch.Tensor) -> None:
        before, new, middle = self.count, len(rows), rows.mean(0)
        apart = middle - self.mean
        self.count = before + new
        self.mean = self.mean + apart * (new / self.count)
        within = (rows - middle).square().sum(0)
        self.squares = self.squares + within + apart.square() * (before * new / self.count)

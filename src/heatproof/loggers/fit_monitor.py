"""The monitor of `heatproof fit --log`: maps of validation images while the network is fine-tuned."""

from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from heatproof.data.images import Images
from heatproof.data.torch_dataset import ImageDataset
from heatproof.errors import InvalidInput
from heatproof.loggers.map_monitor import MapMonitor
from heatproof.loggers.tensorboard_logger import TensorBoardLogger
from heatproof.models import Model

#: How many images are explained, by which methods.
IMAGES, METHODS = 8, ("gradcam", "layercam")


def fit_monitor(log: str, every: int, model: Model, images: Images, folder: Path) -> MapMonitor:
    """A monitor of the first images, each explained for its label; masks, where there are any, are scored too.

    Args:
        log: `tensorboard`, `tensorboard=FOLDER`, `wandb` or `mlflow`. folder: where TensorBoard's files go by default.

    Raises:
        UnknownName: another logger. InvalidInput: a folder of one that has none. MissingExtra: it is not installed.
    """
    name, _, place = log.partition("=")
    if place and name != "tensorboard":
        raise InvalidInput(f"Only tensorboard has a folder. Got {log!r}.")
    data = ImageDataset(images, model.geometry)
    rows = range(min(IMAGES, len(data)))
    masks = [data.mask(row) for row in rows]
    located = any(mask is not None for mask in masks)
    settings: dict[str, Any] = {"mean": model.mean, "std": model.std, "size": model.geometry.size,
                                "channel_order": model.channel_order, "classes": images.class_names}  # fmt: skip
    if model.geometry.channels != 3:
        settings["input_shape"] = model.input_shape
    return MapMonitor(
        Subset(data, rows),
        METHODS,
        ("arcc", "energy") if located else ("arcc",),
        every=every,
        logger=TensorBoardLogger(place or folder) if name == "tensorboard" else name,
        target="label",
        masks=masks if located else None,
        normalised=False,
        **settings,
    )
